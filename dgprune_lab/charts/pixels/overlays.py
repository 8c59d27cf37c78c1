"""Positions in an image where a filter contributes: the image, and beside it a grey copy under a map.

Named data, in pixels: `pictures` (x, y, url, text) and `words` (x, y, text).
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from ...core import Count, DgpruneError, public
from ..marks import canvas, layered, rows_of
from ..theme import Rows, finish
from .images import png
from .thumbnails import data_url

FOR, AGAINST = (255, 176, 0), (120, 94, 240)  # distinct with any colour vision, on any grey
_OVERLAY_SIDE = 96  # pixels of an overlay: enough for a smooth map
_LINE, _GAP = 34, 14


@public
def overlays(
    images: Tensor, maps: Tensor, *, words: Sequence[str], size: Count = 60, columns: Count = 6
) -> alt.LayerChart:
    """Draw each image, and beside it a dark grey copy overlaid with a map, amber for a class and violet against it.

    The larger the map's absolute value, the stronger the colour, on one scale for all images.

    Args:
        images: (N, C, H, W) in [0, 1]; C is 1, 3 or 4.
        maps: (N, h, w), of any size: contributions for a class (positive) and against it (negative).
        words: N texts, one under each pair.
        size: side of one picture on the screen, in pixels.
        columns: number of pairs in a line.

    Raises:
        DgpruneError: different numbers of images, maps and texts; a map that is not finite.
    """
    if not len(images) == len(maps) == len(words):
        raise DgpruneError(
            f"every image needs a map and words; got {len(images)} images, {len(maps)} maps and {len(words)} words."
        )
    most = float(maps.abs().max()) if maps.numel() else 0.0
    pictures: Rows = []
    lines: Rows = []
    for k, (image, values, text) in enumerate(zip(images, maps, words, strict=True)):
        x, y = (k % columns) * (2 * size + _GAP), (k // columns) * (size + _LINE)
        pictures += pair(image, values, most=most, x=x, y=y, size=size, text=text)
        lines.append({"x": x, "y": y + size + 11, "text": text})
    width = min(columns, max(len(images), 1)) * (2 * size + _GAP)
    height = max(1, -(-len(images) // columns)) * (size + _LINE)
    x, y = canvas(width, height)
    marks = rows_of("pictures", pictures).mark_image(width=size, height=size, align="left", baseline="top")
    chart = layered(
        marks.encode(x=x, y=y, url=alt.Url("url:N"), tooltip=[alt.Tooltip("text:N")]),
        rows_of("words", lines).mark_text(style="words", align="left").encode(x=x, y=y, text=alt.Text("text:N")),
    )
    return finish(chart, width=width, height=height, padding={"left": 4, "right": 8, "top": 4, "bottom": 0})


def pair(image: Tensor, values: Tensor, *, most: float, x: float, y: float, size: float, text: str) -> Rows:
    """Return the rows of two pictures side by side: one image (C, H, W), and its grey copy under its map (h, w)."""
    plain = np.ascontiguousarray((image * 255).round().byte().permute(1, 2, 0).cpu().numpy())
    return [
        {"x": x, "y": y, "url": data_url(plain), "text": text},
        {"x": x + size, "y": y, "url": overlay(image, values, most=most), "text": text},
    ]


def overlay(image: Tensor, values: Tensor, *, most: float) -> str:
    """Return an image (C, H, W) in dark grey overlaid with a map (h, w), amber above 0, violet below, as a data URL.

    The image lies in [0, 1]; it is dark grey because white would make the colours pale. The map is
    resized by bilinear interpolation; `most` is the absolute value at full colour, and 0 draws no map.

    Raises:
        DgpruneError: a map that is not finite.
    """
    if not torch.isfinite(values).all():
        raise DgpruneError("the map of an image is NaN or infinite; check the network's weights and images.")
    size = (_OVERLAY_SIDE, _OVERLAY_SIDE)
    grey = image[:3].float().cpu().mean(0)[None, None]
    base = 0.1 + 0.35 * interpolate(grey, size=size, mode="nearest")[0, 0]
    smooth = interpolate(values.detach().float().cpu()[None, None], size=size, mode="bilinear")[0, 0]
    share = (smooth / most).clamp(-1, 1) if most else torch.zeros(size)
    return png(_blend(base.numpy(), share.numpy()))


def _blend(grey: NDArray[np.float32], share: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return (H, W, 3): a grey image blended with amber for positive, violet for negative shares, most at +-1."""
    cover = 0.85 * np.abs(share)[..., None]
    colour = np.where(share[..., None] > 0, np.array(FOR), np.array(AGAINST))
    return ((1 - cover) * 255 * grey[..., None] + cover * colour).round().astype(np.uint8)
