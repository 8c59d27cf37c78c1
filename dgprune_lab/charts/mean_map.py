"""What a filter shows on each domain: its mean maps side by side, with their cosines.

Named data: `places` (x, x2, y, y2 in pixels; shade, value, domain, filter) and `words` (x, y, text).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import is_target_aware
from .theme import WORDS, finish, layered, named, records

PADDING = {"left": 8, "right": 8, "top": 6, "bottom": 6}
_TOP, _SIDE, _GAP, _LINE = 22, 76, 70, 15
Rows = list[dict[str, Any]]


def mean_map(frame: pd.DataFrame, *, size: int = 104) -> alt.LayerChart:
    """Draw the maps of `diagnostics.mean_map`: a row per filter, a column per domain.

    Dark = strong, scaled by the filter's strongest place on any domain. Under a map stands its cosine with each domain
    to its left; one that a target takes part in is marked target-aware.

    Args:
        frame: the table.
        size: of one map on the screen, in pixels.
    """
    maps, cosines = records(frame, metric="mean_map"), records(frame, metric="cosine")
    domains = {str(row["domain"]): row for row in maps}
    filters = list(dict.fromkeys(int(row["filter"]) for row in maps))
    step = size + 12 + _LINE * max(1, len(domains) - 1)
    corners = {
        (number, name): (_SIDE + j * (size + _GAP), _TOP + i * step)
        for i, number in enumerate(filters)
        for j, name in enumerate(domains)
    }
    words: Rows = []
    for name, row in domains.items():
        x, _ = corners[filters[0], name]
        role = f" ({WORDS[row['role']]})" if row["role"] in WORDS else ""
        words.append({"x": x, "y": _TOP - 12, "text": f"{name}{role}"})
    words += [{"x": 0, "y": _TOP + i * step + size / 2, "text": f"filter {n}"} for i, n in enumerate(filters)]
    below = dict.fromkeys(corners, 0)
    for row in cosines:
        key = int(row["filter"]), str(row["domain"])
        x, y = corners[key]
        mark = " ◇" if is_target_aware(row) else ""
        text = f"cosine {row['value']:.3f} with {row['other']}{mark}".replace("-", "\N{MINUS SIGN}", 1)
        words.append({"x": x, "y": y + size + 10 + _LINE * below[key], "text": text})
        below[key] += 1
    width, height = _SIDE + len(domains) * (size + _GAP), _TOP + len(filters) * step
    return finish(
        _layers(_places(maps, corners, size), words, width, height), width=width, height=height, padding=PADDING
    )


def _places(maps: Rows, corners: Mapping[tuple[int, str], tuple[float, float]], size: int) -> Rows:
    """Every place of every map as a rectangle on the page."""
    strongest_exposure = {number: 0.0 for number, _ in corners}
    for row in maps:
        strongest_exposure[row["filter"]] = max(strongest_exposure[row["filter"]], abs(row["value"]))
    tall, wide = (1 + max(int(row[name]) for row in maps) for name in ("row", "column"))
    found = []
    for row in maps:
        x, y = corners[int(row["filter"]), str(row["domain"])]
        left, top = x + row["column"] * size / wide, y + row["row"] * size / tall
        found.append(
            {
                "x": left,
                "x2": left + size / wide,
                "y": top,
                "y2": top + size / tall,
                "domain": row["domain"],
                "filter": row["filter"],
                "value": row["value"],
                "shade": abs(row["value"]) / (strongest_exposure[row["filter"]] or 1),
            }
        )
    return found


def _layers(places: Rows, words: Rows, width: int, height: int) -> alt.LayerChart:
    x = alt.X("x:Q", scale=alt.Scale(domain=[0, width], nice=False, zero=False), axis=None)
    y = alt.Y("y:Q", scale=alt.Scale(domain=[height, 0], nice=False, zero=False), axis=None)
    shade = alt.Fill("shade:Q", scale=alt.Scale(domain=[0, 1], range=["#F1F3F5", "#16324F"]), legend=None)
    tips = [alt.Tooltip("domain:N"), alt.Tooltip("filter:Q"), alt.Tooltip("value:Q", title="mean", format=".3g")]
    return layered(
        alt.Chart(named("places", places)).mark_rect().encode(x=x, x2="x2:Q", y=y, y2="y2:Q", fill=shade, tooltip=tips),
        alt.Chart(named("words", words)).mark_text(align="left", style="strong").encode(x=x, y=y, text="text:N"),
    )
