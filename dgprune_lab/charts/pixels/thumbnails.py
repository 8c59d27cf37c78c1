"""Prediction flips as pictures: for each domain, images that turned wrong (left) and images that turned right (right).

Named data, x in pixels, `line` counted from the top: `pictures` (line, x, url, domain, image, truth, before, now, top,
bottom) and `words` (line, x, text, size: "name", "kind", "count" or "none").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import numpy as np
from PIL import Image

from ..marks import layered, rows_of, tooltip
from ..theme import Data, Rows, beside, shortened
from .images import png

PAGE = 24
"""Approximate number of pictures on a page; at least two of each kind are shown for every domain."""
COLUMNS = 4
_SIDE, _CELL, _GAP, _LINE = 50, 62, 18, 136
_LETTERS = 11  # in a line under a picture
_LARGEST = 96  # pixels of the longer side of an image; more would not be visible
WIDTH = 2 * COLUMNS * _CELL + _GAP


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The pictures of one kind for one domain on one page.

    Attributes:
        kind: what the pictures have in common, as text.
        count: the number of pictures, as text.
        pictures: {url, image, truth, before, now} of each picture; the last three are class indices, or names that
            are written in full only in the tooltip; truth is None without labels.
        total: number of pictures on all pages.
    """

    kind: str
    count: str
    pictures: Sequence[Mapping[str, Any]]
    total: int


def per_strip(domains: int) -> int:
    """Return how many pictures of each kind a page shows for each domain.

    >>> [per_strip(count) for count in (1, 2, 3, 4, 9)]
    [12, 6, 4, 3, 2]
    """
    return max(2, PAGE // (2 * max(domains, 1)))


def picture_rows(strips: Mapping[str, Sequence[Strip]]) -> Data:
    """Return the chart's named data from `strips`: label of a domain -> at most two strips."""
    pictures: Rows = []
    captions: Rows = []
    line = 0
    for domain, kinds in strips.items():
        captions.append({"line": line, "x": 0, "text": domain, "size": "name"})
        for side, strip in enumerate(kinds):
            left = side * (COLUMNS * _CELL + _GAP)
            texts = {"kind": strip.kind, "count": strip.count}
            if not strip.pictures:
                texts["none"] = "none" if strip.total == 0 else "no more of them"
            captions += [{"line": line, "x": left, "text": text, "size": size} for size, text in texts.items()]
            for k, picture in enumerate(strip.pictures):
                place = {"line": line + k // COLUMNS, "x": left + (k % COLUMNS) * _CELL + _SIDE / 2, "domain": domain}
                pictures.append({**picture, **place, **_caption_lines(picture)})
        line += max(1, *(-(-len(strip.pictures) // COLUMNS) for strip in kinds))
    return {"pictures": pictures, "words": captions}


def _caption_lines(picture: Mapping[str, Any]) -> dict[str, str]:
    """Return the two lines under a picture; class names take a line each, so the tooltip alone has the true class."""
    before, now, truth = (picture[key] for key in ("before", "now", "truth"))
    if isinstance(before, str):
        return {"top": shortened(before, most=_LETTERS), "bottom": f"→ {shortened(now, most=_LETTERS - 2)}"}
    return {"top": f"{before} → {now}", "bottom": "" if truth is None else f"true {truth}"}


def data_url(pixels: np.ndarray[Any, Any]) -> str:
    """Return (H, W, C) uint8 as a data URL, at most 96 pixels on its longer side."""
    step = -(-max(pixels.shape[:2]) // _LARGEST)
    if step == 1:
        return png(pixels)
    height, width = (max(1, side // step) for side in pixels.shape[:2])
    flat = pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels[..., :3]
    small = np.asarray(Image.fromarray(flat).resize((width, height), Image.Resampling.BOX))
    return png(small if small.ndim == 3 else small[..., None])


def picture_chart() -> alt.HConcatChart:
    """Return the chart without rows, which a page sends."""
    x = alt.X("x:Q", scale=alt.Scale(domain=[0, WIDTH], nice=False, zero=True), axis=None)
    y = alt.Y("line:O", axis=None, scale=alt.Scale(padding=0))
    fields = {
        "domain": "Domain",
        "truth": "True class",
        "before": "Predicted before",
        "now": "Predicted now",
        "image": "Image number",
    }
    base, captions = (rows_of(name, []).encode(x=x, y=y) for name in ("pictures", "words"))
    image = base.mark_image(width=_SIDE, height=_SIDE, aspect=True, smooth=False, yOffset=_offset(73))

    def sized(size: str, *, style: str, at: float, weight: Literal[400, 600] = 400) -> alt.Chart:
        marks = captions.mark_text(style=style, align="left", dy=_offset(at), fontWeight=weight, fontSize=11)
        return marks.transform_filter(f"datum.size === '{size}'").encode(text=alt.Text("text:N"))

    chart = layered(
        image.encode(url=alt.Url("url:N"), tooltip=tooltip(fields)),
        base.mark_text(style="strong", dy=_offset(109), fontSize=10.7, fontWeight=600).encode(text=alt.Text("top:N")),
        base.mark_text(style="words", dy=_offset(122), fontSize=10.7).encode(text=alt.Text("bottom:N")),
        captions.mark_text(opacity=0),
        sized("name", style="strong", at=10, weight=600),
        sized("kind", style="words", at=25),
        sized("count", style="words", at=39),
        sized("none", style="quiet", at=73),
    )
    return beside(chart.properties(width=WIDTH, height=alt.Step(_LINE)), padding=(4, 20, 4, 6))


def _offset(pixels: float) -> float:
    """Return the offset, from the middle of a line of pictures, of a position `pixels` below the line's upper edge."""
    return pixels - _LINE / 2
