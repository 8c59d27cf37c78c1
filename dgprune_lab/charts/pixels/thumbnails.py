"""Images that flip, as pictures: per domain those that turned wrong on the left, those that turned right on the right.

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

from ..theme import beside, layered, named
from .images import png

PAGE = 24
"""Pictures on a page, about: at least two of a kind are shown of every domain."""
COLUMNS = 4
_SIDE, _CELL, _GAP, _LINE = 50, 62, 18, 136
_LARGEST = 96  # pixels of an image that are sent: more could not be seen
WIDTH = 2 * COLUMNS * _CELL + _GAP

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Strip:
    """The pictures of one kind of one domain on one page.

    Attributes:
        kind: what they have in common, in words.
        count: how many there are, in words.
        pictures: {url, image, truth, before, now}; truth is None without labels.
        total: how many there are on all pages.
    """

    kind: str
    count: str
    pictures: Sequence[Mapping[str, Any]]
    total: int


def per_strip(domains: int) -> int:
    """How many pictures of a kind stand on a page.

    >>> [per_strip(count) for count in (1, 2, 3, 4, 9)]
    [12, 6, 4, 3, 2]
    """
    return max(2, PAGE // (2 * max(domains, 1)))


def picture_rows(strips: Mapping[str, Sequence[Strip]]) -> dict[str, Rows]:
    """The chart's named data; `strips` are by the words that name a domain, at most two each."""
    pictures: Rows = []
    words: Rows = []
    line = 0
    for domain, kinds in strips.items():
        words.append({"line": line, "x": 0, "text": domain, "size": "name"})
        for side, strip in enumerate(kinds):
            left = side * (COLUMNS * _CELL + _GAP)
            words.append({"line": line, "x": left, "text": strip.kind, "size": "kind"})
            words.append({"line": line, "x": left, "text": strip.count, "size": "count"})
            if not strip.pictures:
                none = "none" if strip.total == 0 else "no more of them"
                words.append({"line": line, "x": left, "text": none, "size": "none"})
            pictures += [
                {
                    **one,
                    "line": line + k // COLUMNS,
                    "x": left + (k % COLUMNS) * _CELL + _SIDE / 2,
                    "domain": domain,
                    "top": f"{one['before']} → {one['now']}",
                    "bottom": "" if one["truth"] is None else f"true {one['truth']}",
                }
                for k, one in enumerate(strip.pictures)
            ]
        line += max(1, *(-(-len(strip.pictures) // COLUMNS) for strip in kinds))
    return {"pictures": pictures, "words": words}


def data_url(pixels: np.ndarray[Any, Any]) -> str:
    """(H, W, C) uint8 as a data URL, at most 96 pixels on its longer side."""
    step = -(-max(pixels.shape[:2]) // _LARGEST)
    if step == 1:
        return png(pixels)
    height, width = (max(1, side // step) for side in pixels.shape[:2])
    flat = pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels[..., :3]
    small = np.asarray(Image.fromarray(flat).resize((width, height), Image.Resampling.BOX))
    return png(small if small.ndim == 3 else small[..., None])


def picture_chart(data: Mapping[str, Rows] | None = None) -> alt.HConcatChart:
    """The chart itself; rows may be fed later."""
    data = data or {"pictures": [], "words": []}
    x = alt.X("x:Q", scale=alt.Scale(domain=[0, WIDTH], nice=False, zero=True), axis=None)
    line = alt.Y("line:O", axis=None, scale=alt.Scale(padding=0))
    tips = [
        alt.Tooltip("domain:N", title="Domain"),
        alt.Tooltip("truth:N", title="True class"),
        alt.Tooltip("before:N", title="Read before as"),
        alt.Tooltip("now:N", title="Reads now as"),
        alt.Tooltip("image:N", title="Image number"),
    ]
    base = alt.Chart(alt.NamedData(name="pictures")).encode(x=x, y=line)
    words = alt.Chart(alt.NamedData(name="words")).encode(x=x, y=line, text="text:N")

    def sized(size: str, *, style: str, at: float, weight: Literal[400, 600] = 400) -> alt.Chart:
        marks = words.mark_text(style=style, align="left", dy=_down(at), fontWeight=weight, fontSize=11)
        return marks.transform_filter(f"datum.size === '{size}'")

    drawn = layered(
        alt.Chart(named("pictures", data["pictures"]))
        .mark_image(width=_SIDE, height=_SIDE, aspect=True, smooth=False, yOffset=_down(73))
        .encode(x=x, y=line, url="url:N", tooltip=tips),
        base.mark_text(style="strong", dy=_down(109), fontSize=10.5, fontWeight=600).encode(text="top:N"),
        base.mark_text(style="words", dy=_down(122), fontSize=10.5).encode(text="bottom:N"),
        alt.Chart(named("words", data["words"])).mark_text(opacity=0).encode(x=x, y=line),
        sized("name", style="strong", at=10, weight=600),
        sized("kind", style="words", at=25),
        sized("count", style="words", at=39),
        sized("none", style="quiet", at=73),
    )
    whole = beside(drawn.properties(width=WIDTH, height=alt.Step(_LINE)))
    whole.padding = {"left": 4, "right": 20, "top": 4, "bottom": 6}
    return whole


def _down(pixels: float) -> float:
    """So far below the upper edge of a line, from its middle."""
    return pixels - _LINE / 2
