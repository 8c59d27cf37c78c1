"""Which filters notice the domain: a row per layer, a cell per filter, coloured by the size of the difference.

Named data: see `filter_map`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import altair as alt
import pandas as pd

from ...core import Mask
from .against_scores import against
from .map import BAND, COUNT, GAP, LEGIBLE, NAME, PLOT, about, compared, map_data
from ..theme import beside, layered, named

WIDTH = NAME + PLOT + COUNT
ROW = 31

Rows = list[dict[str, Any]]


def sensitivity(frame: pd.DataFrame, *, mask: Mask | None = None) -> alt.HConcatChart:
    """Draw the effect sizes of `diagnostics.sensitivity`, and below them each scorer's order against them.

    A row per layer in the order of execution, a cell per filter, the largest |d| first. Colour and sign say on which
    domain the filter contributes more, full colour is the largest |d| drawn (at least .5, at most 2). Grey: the
    interval covers 0, or there is none. At the right how many filters of the layer can be told from 0. Where the table
    holds scorers, a plot each: every filter's |d| against its place in the scorer's order of removal.

    Args:
        frame: a table of one method and one pair of domains.
        mask: filters that it removes carry a cross below (a bar where cells are narrow).

    Raises:
        DgpruneError: no effect sizes, of several methods or pairs, or a mask for other layers.
    """
    below = against(frame, width=WIDTH)
    drawn = _framed(_layers(map_data(frame, mask=mask)), *([] if below is None else [below]))
    drawn.title = alt.Title(text=f"Which filters notice? {compared(frame)}", subtitle=[about(frame)], offset=12)
    return drawn


def map_chart(data: Mapping[str, Rows] | None = None) -> alt.HConcatChart:
    """The chart itself; rows may be fed later. A page sets its parameter `picked`, "group|filter" or ""."""
    whole = _framed(_layers(data or {"cells": [], "removed": [], "lines": [], "legend": []}))
    whole.usermeta = {
        **cast("dict[str, Any]", whole.usermeta),
        "picks": "cells",
        "label": "Filters of each layer, those that notice the domain most first",
    }
    return whole


def _layers(data: Mapping[str, Rows]) -> alt.LayerChart:
    """From the back: cells, what is removed, the picked one, signs, names, the legend."""
    scale = alt.Scale(domain=[0, WIDTH], nice=False, zero=True)
    x, x2, y = (
        alt.X("x:Q", scale=scale, axis=None),
        "x2:Q",
        alt.Y("line:O", axis=None, scale=alt.Scale(paddingInner=1 - BAND / ROW, paddingOuter=0)),
    )
    middle = alt.X("middle:Q", scale=scale, axis=None)
    fill, ink = alt.Fill("fill:N", scale=None), alt.Fill("ink:N", scale=None)
    tips = [
        alt.Tooltip("group:N", title="Layer"),
        alt.Tooltip("filter:Q", title="Filter"),
        alt.Tooltip("size:N", title="Effect size d"),
        alt.Tooltip("area:N", title="AUROC"),
        alt.Tooltip("q:N", title="q value"),
        alt.Tooltip("says:N", title="It"),
    ]
    cells, removed, lines, legend = (
        alt.Chart(alt.NamedData(name=name)) for name in ("cells", "removed", "lines", "legend")
    )

    def signs(base: alt.Chart) -> alt.Chart:
        marks = base.transform_filter("datum.sign !== ''").transform_calculate(middle="(datum.x + datum.x2) / 2")
        return marks.mark_text(fontSize=12, fontWeight=700).encode(x=middle, y=y, text="sign:N", fill=ink)

    def words(base: alt.Chart, field: str, at: float, style: str, *, right: bool = False) -> alt.Chart:
        return base.mark_text(style=style, align="right" if right else "left").encode(
            x=alt.value(at), y=y, text=f"{field}:N"
        )

    picked = cells.transform_filter("picked !== '' && datum.group + '|' + datum.filter === picked")
    pin = picked.transform_filter(f"datum.x2 - datum.x < {LEGIBLE - GAP}").transform_calculate(
        middle="(datum.x + datum.x2) / 2"
    )
    gone = removed.transform_calculate(middle="(datum.x + datum.x2) / 2")
    drawn = layered(
        alt.Chart(named("cells", data["cells"])).mark_rect().encode(x=x, x2=x2, y=y, fill=fill, tooltip=tips),
        alt.Chart(named("removed", data["removed"]))
        .transform_filter("datum.mark === ''")
        .mark_rule(style="ink", strokeWidth=3, yOffset=13)
        .encode(x=x, x2=x2, y=y),
        gone.transform_filter("datum.mark !== ''")
        .mark_text(style="strong", fontSize=13, fontWeight=700, dy=14)
        .encode(x=middle, y=y, text="mark:N"),
        *(  # light below dark: one of them is seen on any page
            picked.mark_rect(fillOpacity=0, strokeOpacity=1, strokeWidth=wide, stroke=stroke).encode(x=x, x2=x2, y=y)
            for wide, stroke in ((4.4, "#FFFFFF"), (2, "#22272E"))
        ),
        signs(cells),
        pin.mark_point(style="strong", shape="triangle-down", filled=True, size=46, opacity=1, yOffset=-13).encode(
            x=middle, y=y
        ),
        alt.Chart(named("lines", data["lines"]))
        .mark_text(style="strong", align="right", fontWeight=600)
        .encode(x=alt.value(NAME - 10), y=y, text="name:N"),
        words(lines, "count", NAME + PLOT + 10, "words"),
        words(lines, "wait", NAME + PLOT + 10, "quiet"),
        alt.Chart(named("legend", data["legend"])).mark_rect(height=15).encode(x=x, x2=x2, y=y, fill=fill),
        signs(legend.transform_filter("datum.fill !== 'transparent'")),
        legend.transform_filter("datum.fill === 'transparent'")
        .transform_calculate(middle="(datum.x + datum.x2) / 2")
        .mark_text(style="strong", fontSize=13, fontWeight=700)
        .encode(x=middle, y=y, text="sign:N"),
        legend.mark_text(style="words", align="left").encode(
            x=alt.X("at:Q", scale=scale, axis=None), y=y, text="text:N"
        ),
    )
    return drawn.properties(width=WIDTH, height=alt.Step(ROW)).add_params(alt.param(name="picked", value=""))


def _framed(*parts: Any) -> alt.HConcatChart:
    """Parts below each other, with little room around them."""
    whole = beside(parts[0] if len(parts) == 1 else cast(alt.LayerChart, alt.vconcat(*parts, spacing=34)))
    whole.padding = {"left": 4, "right": 14, "top": 4, "bottom": 4}
    return whole
