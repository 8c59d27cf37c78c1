"""The first look at the data: a row of images per domain.

Named data: `images` (row, column, url, label, domain, words).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
from PIL import Image

from ...core import DgpruneError, Domain
from ..theme import WORDS, finish, layered, named

PADDING = {"left": 4, "right": 4, "top": 4, "bottom": 4}
_TITLE = 20


def images(domains: Sequence[Domain], *, images: int = 8, split: str = "report", size: int = 56) -> alt.LayerChart:
    """Draw the first images of a part of each domain, a row per domain with its name and role above it.

    Args:
        domains: of any size; one or three channels.
        images: how many of each.
        split: which part.
        size: of one image on the screen, in pixels.

    Raises:
        DgpruneError: no domain, or fewer than one image asked for.
    """
    if not domains or images < 1:
        raise DgpruneError(f"there is nothing to draw: {len(domains)} domains, {images} images of each.")
    rows = [row for k, domain in enumerate(domains) for row in _rows(domain, k, images, split)]
    step = size + _TITLE + 6
    x = alt.X("column:Q", scale=alt.Scale(domain=[-0.5, images - 0.5], nice=False, zero=False), axis=None)
    y = alt.Y("row:Q", scale=alt.Scale(domain=[len(domains) - 0.5, -0.5], nice=False, zero=False), axis=None)
    base = alt.Chart(named("images", rows))
    pictures = base.mark_image(width=size, height=size, yOffset=_TITLE / 2, aspect=True).encode(
        x=x, y=y, url="url:N", tooltip=[alt.Tooltip("domain:N"), alt.Tooltip("label:N")]
    )
    titles = (
        base.transform_filter("datum.column == 0")
        .mark_text(
            align="left", baseline="bottom", dx=-size / 2, dy=_TITLE / 2 - size / 2 - 3, fontSize=12, style="strong"
        )
        .encode(x=x, y=y, text="words:N")
    )
    return finish(layered(pictures, titles), width=images * (size + 8), height=len(domains) * step, padding=PADDING)


def _rows(domain: Domain, row: int, images: int, split: str) -> list[dict[str, Any]]:
    batch = domain.take(domain.rows(split, images), device="cpu")
    role = f" ({WORDS[domain.role]})" if domain.role in WORDS else ""
    pixels = (batch.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    labels = [""] * len(pixels) if batch.labels is None else [str(int(label)) for label in batch.labels]
    return [
        {
            "row": row,
            "column": k,
            "url": png(image),
            "label": labels[k],
            "domain": domain.name,
            "words": domain.name + role,
        }
        for k, image in enumerate(pixels)
    ]


def png(pixels: np.ndarray[Any, Any]) -> str:
    """(H, W, C) uint8 as a data URL."""
    held = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels[..., :3]).save(held, format="PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()
