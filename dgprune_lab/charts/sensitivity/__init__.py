"""Domain-sensitive filters: a row per layer, a cell per filter, coloured by the size of the difference.

Named data: see `map`; per scorer also `against_k`, see `against_scores`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import altair as alt
import pandas as pd

from ...core import Mask, Tidy, public
from ..marks import FILL, layered, rows_of, tooltip
from ..theme import INK, Rows, beside, titled
from .against_scores import against
from .map import BAND, COUNT, GAP, LEGIBLE, NAME, PLOT, about, compared, map_data

WIDTH = NAME + PLOT + COUNT
ROW = 31
FRAME = (4, 14, 4, 4)


@public
def sensitivity(frame: Tidy, *, mask: Mask | None = None) -> alt.HConcatChart:
    """Draw the effect sizes of `diagnostics.sensitivity`, and below how each scorer's removal order relates to them.

    A row per layer in the order of execution, a cell per filter, the largest |d| first. Colour and sign show on which
    domain the filter contributes more; full colour is the largest significant |d| (at most 2). Grey: not significant,
    because the interval covers 0 or is missing. At the right, the number of significant filters in the layer. If the
    table holds scorers, a plot for each: the |d| of every filter against its place in the scorer's removal order.

    Args:
        frame: a table of `diagnostics.sensitivity` with one method and one pair of domains.
        mask: a mask whose removed filters are marked by a cross below their cells (by a bar if cells are narrow).

    Raises:
        DgpruneError: a table without effect sizes or with several methods or pairs; a mask for other layers.
    """
    chart: Any = _draw_layers(map_data(frame, mask=mask))
    if (below := against(frame, width=WIDTH)) is not None:
        chart = alt.vconcat(chart, below, spacing=34)
    title = titled(f"Domain-sensitive filters: {compared(frame)}", frame, below=[about(frame)])
    return beside(chart, padding=FRAME, title=title)


def map_chart() -> alt.HConcatChart:
    """Return the map alone, without rows. A page sends them, and sets the parameter `picked`, {group, filter} or {}."""
    chart = beside(_draw_layers({"cells": [], "removed": [], "lines": [], "legend": []}), padding=FRAME)
    label = "Filters of each layer, the most domain-sensitive first"
    chart.usermeta = {**cast("dict[str, Any]", chart.usermeta), "picks": "cells", "label": label}
    return chart


def _draw_layers(data: Mapping[str, Rows]) -> alt.LayerChart:
    """Draw cells, marks of removed filters, the picked cell, signs, names and the legend."""
    scale = alt.Scale(domain=[0, WIDTH], nice=False, zero=True)
    x, middle, at = (alt.X(f"{field}:Q", scale=scale, axis=None) for field in ("x", "middle", "at"))
    y = alt.Y("line:O", axis=None, scale=alt.Scale(paddingInner=1 - BAND / ROW, paddingOuter=0))
    box: dict[str, Any] = {"x": x, "x2": alt.X2("x2:Q"), "y": y}
    fields = {"group": "Layer", "filter": "Filter", "size": "Effect size d", "area": "AUROC", "q": "q value"}
    tips = tooltip({**fields, "says": "Difference"})
    cells, removed, lines, legend = (rows_of(name, data[name]) for name in ("cells", "removed", "lines", "legend"))
    cross: dict[str, Any] = {"style": "strong", "fontSize": 13, "fontWeight": 700}

    def at_middle(base: alt.Chart) -> alt.Chart:
        return base.transform_calculate(middle="(datum.x + datum.x2) / 2").encode(x=middle, y=y)

    def signs(base: alt.Chart) -> alt.Chart:
        marks = at_middle(base.transform_filter("datum.sign !== ''")).mark_text(fontSize=12, fontWeight=700)
        return marks.encode(text=alt.Text("sign:N"), fill=alt.Fill("ink:N", scale=None))

    def beside_cells(field: str, style: str) -> alt.Chart:
        marks = lines.mark_text(style=style, align="left")
        return marks.encode(x=alt.XValue(NAME + PLOT + 10), y=y, text=alt.Text(f"{field}:N"))

    picked = cells.transform_filter("datum.group === picked.group && datum.filter === picked.filter")
    narrow = at_middle(picked.transform_filter(f"datum.x2 - datum.x < {LEGIBLE - GAP}"))
    bars = removed.transform_filter("datum.mark === ''").mark_rule(style="ink", strokeWidth=3, yOffset=13)
    crosses = at_middle(removed.transform_filter("datum.mark !== ''")).mark_text(dy=14, **cross)
    names = lines.mark_text(style="strong", align="right", fontWeight=600)
    colourless = at_middle(legend.transform_filter("datum.fill === 'transparent'")).mark_text(**cross)
    chart = layered(
        cells.mark_rect().encode(**box, fill=FILL, tooltip=tips),
        bars.encode(**box),
        crosses.encode(text=alt.Text("mark:N")),
        *(  # light below dark: one of them is visible on any page
            picked.mark_rect(fillOpacity=0, strokeOpacity=1, strokeWidth=wide, stroke=stroke).encode(**box)
            for wide, stroke in ((4.4, "#FFFFFF"), (2, INK))
        ),
        signs(cells),
        narrow.mark_point(style="strong", shape="triangle-down", filled=True, size=46, opacity=1, yOffset=-13),
        names.encode(x=alt.XValue(NAME - 10), y=y, text=alt.Text("name:N")),
        beside_cells("count", "words"),
        beside_cells("wait", "quiet"),
        legend.mark_rect(height=15).encode(**box, fill=FILL),
        signs(legend.transform_filter("datum.fill !== 'transparent'")),
        colourless.encode(text=alt.Text("sign:N")),
        legend.mark_text(style="words", align="left").encode(x=at, y=y, text=alt.Text("text:N")),
    )
    return chart.properties(width=WIDTH, height=alt.Step(ROW)).add_params(alt.param(name="picked", value={}))
