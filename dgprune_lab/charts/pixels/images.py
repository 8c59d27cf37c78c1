"""Sample images: a row per domain.

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

from ...core import Count, DgpruneError, Domain, public
from ..marks import layered, rows_of, tooltip
from ..theme import Rows, finish, role_label

PADDING = {"left": 4, "right": 4, "top": 4, "bottom": 4}
_TITLE = 20


@public
def images(domains: Sequence[Domain], *, images: Count = 8, split: str = "report", size: Count = 56) -> alt.LayerChart:
    """Draw the first images of a split of each domain, a row per domain with its name and role above it.

    Args:
        domains: domains with images of any size, with one or three channels.
        images: number of images of each domain.
        split: the split that the images come from.
        size: side of one image on the screen, in pixels.

    Raises:
        DgpruneError: no domain.
    """
    if not domains:
        raise DgpruneError("images draws the images of at least one domain; got none. Pass study.domains.")
    rows = [row for k, domain in enumerate(domains) for row in _image_rows(domain, k, images=images, split=split)]
    x = alt.X("column:Q", scale=alt.Scale(domain=[-0.5, images - 0.5], nice=False, zero=False), axis=None)
    y = alt.Y("row:Q", scale=alt.Scale(domain=[len(domains) - 0.5, -0.5], nice=False, zero=False), axis=None)
    base = rows_of("images", rows).encode(x=x, y=y)
    pictures = base.mark_image(width=size, height=size, yOffset=_TITLE / 2, aspect=True)
    above = _TITLE / 2 - size / 2 - 3
    titles = base.transform_filter("datum.column == 0").mark_text(
        align="left", baseline="bottom", dx=-size / 2, dy=above, fontSize=12, style="strong"
    )
    chart = layered(
        pictures.encode(url=alt.Url("url:N"), tooltip=tooltip({"domain": "Domain", "label": "Class"})),
        titles.encode(text=alt.Text("words:N")),
    )
    return finish(chart, width=images * (size + 8), height=len(domains) * (size + _TITLE + 6), padding=PADDING)


def _image_rows(domain: Domain, row: int, *, images: int, split: str) -> Rows:
    batch = domain.take(domain.rows(split, images), device="cpu")
    pixels = (batch.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    labels = [""] * len(pixels) if batch.labels is None else [domain.class_label(int(label)) for label in batch.labels]
    about = {"row": row, "domain": domain.name, "words": domain.name + role_label(domain.role)}
    return [
        {**about, "column": k, "url": png(image), "label": label}
        for k, (image, label) in enumerate(zip(pixels, labels, strict=True))
    ]


def png(pixels: np.ndarray[Any, Any], *, optimize: bool = False) -> str:
    """Return an image (H, W, C) uint8 as a PNG data URL."""
    file = io.BytesIO()
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels[..., :3])
    image.save(file, format="PNG", optimize=optimize)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
