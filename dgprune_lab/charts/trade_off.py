"""Size or cost of networks against their accuracy: a plot for the sources and one for the targets.

Named data, all of which a live page may replace; k is 0 for the first role drawn, 1 for the second; shares in percent:

| name | one row is | fields |
|---|---|---|
| points_k | a network on a domain | network, called, kind, number, domain, label, role, cost, cost_low, cost_high, |
| | | amount, removed, value, low, high, size, opacity, colour, fill, shape, looked, line (k), place (by cost) |
| front_k | a corner of the Pareto front of a domain | domain, cost, value, colour, dash |
| numbers_k | a number beside a point | text, cost, value |
| names_k | a line above the plot: the role, a domain | text, kind ("role", "domain"), colour, shape, fill, y in px |
| span_k | an end of both axes | cost, value |
| axis_k | the name of the quantity below the plot | text |
| key | a numbered network | number, text, x and y in pixels |

A page sets the parameter `picked`, {network} or {}: the points of this network are outlined in both plots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import altair as alt

from ..core import Side, Tidy, public
from .marks import (
    COLOUR,
    DASH,
    FILL,
    LEFT,
    OPACITY,
    POINT,
    RIGHT,
    RING,
    SHAPE,
    TEXT_COLOUR,
    check_table,
    for_field,
    layered,
    rows_of,
    tooltip,
)
from .theme import INK, Rows, beside, domain_styles_of, titled
from .trade_off_rows import LINE, NAMES, ROLES, SPACING, Cost, plot_width, trade_off_data

BELOW = (
    "Lines: Pareto fronts of the measured values, without target-aware points (hollow diamond).",
    "A choice by these numbers has looked at the reported images: choose with dg.find, then report.",
)


@public
def trade_off(frame: Tidy, *, cost: Cost = "parameters", width: Side = 560, height: Side = 230) -> alt.HConcatChart:
    """Draw the accuracy of each network against its size or cost, sources and targets side by side.

    Each network is a point per domain with its interval over images. A domain's line is its Pareto front, the
    networks for which no other measured one is both cheaper and at least as accurate. Points that looked at a target
    are hollow diamonds, and the front leaves them out. Networks are numbered; the key below names them.

    Args:
        frame: a table of `diagnostics.trade_off`, or of `dg.sweep`, whose ratios are then drawn as small points.
        cost: which size or cost to draw.
        width: width of the whole chart, in pixels.
        height: height of one plot, in pixels.

    Raises:
        DgpruneError: a table without accuracies, or without this size or cost.
    """
    check_table(frame, "diagnostics.trade_off(study, networks)", metrics=("accuracy",))
    present = {style.role for style in domain_styles_of(frame).values()}
    roles = [role for role in (*ROLES, "") if role in present] or ["source"]
    data = trade_off_data(frame, cost=cost, roles=roles, width=width, height=height)
    lines = max((int(row["y"]) for row in data["key"]), default=-1) // LINE + 1
    chart = trade_off_chart(data, roles=roles, width=width, height=height, key_lines=lines)
    quantity = NAMES[cost] if cost == "macs" else NAMES[cost].lower()
    chart.title = titled(f"Accuracy against {quantity}", frame, below=BELOW) or alt.Undefined
    return chart


def trade_off_chart(
    data: Mapping[str, Rows] | None = None,
    *,
    roles: Sequence[str] = ROLES,
    width: int = 560,
    height: int = 230,
    key_lines: int = 0,
) -> alt.HConcatChart:
    """Return the chart of these data; rows may come later. `key_lines` is the height of the key in lines."""
    rows = data or {}
    plots = [_draw_plot(rows, k, first=k == 0, height=height) for k in range(len(roles))]
    side = plot_width(width, roles=roles)
    both: Any = alt.hconcat(*(plot.properties(width=side, height=height) for plot in plots), spacing=SPACING)
    if key_lines:
        both = alt.vconcat(both, _draw_key(rows.get("key", []), lines=key_lines, width=width), spacing=14)
    chart = beside(both, padding=(6, 10, 6, 6))
    picked: Any = alt.param(name="picked", value={}).param
    chart.params = [picked]
    label = "Networks, from the smallest to the largest"
    chart.usermeta = {**cast("dict[str, Any]", chart.usermeta), "picks": "points_0", "label": label}
    return chart


def _draw_plot(rows: Mapping[str, Rows], k: int, *, first: bool, height: int) -> alt.LayerChart:
    """Draw one plot: fronts, intervals, points, numbers, the picked network and the names of the domains."""
    parts = ("points", "front", "numbers", "names", "span", "axis")
    data = {name: rows_of(f"{name}_{k}", rows.get(f"{name}_{k}", [])) for name in parts}
    axis = alt.Axis(format="~s", tickCount=4, title=None, labelExpr="datum.value ? datum.label : '0'")
    x = alt.X("cost:Q", scale=alt.Scale(nice=False, zero=True), axis=axis)
    y = alt.Y("value:Q", scale=alt.Scale(nice=False, zero=False), title="Accuracy (%)" if first else None)
    fields = {"called": "Network", "kind": "Kind", "label": "Domain", "value": ("Accuracy %", ".1f")}
    tips = [*tooltip(fields, ends=".1f"), *tooltip({"amount": "Size or cost", "removed": "Removed"}, looked=True)]
    points = data["points"]
    picked = points.transform_filter("datum.network === picked.network")
    return layered(
        data["span"].mark_point(opacity=0).encode(x=x, y=y),
        data["front"]
        .mark_line(interpolate="step-after", strokeWidth=1.4, opacity=0.7)
        .encode(x=x, y=y, stroke=COLOUR, strokeDash=DASH, detail=alt.Detail("domain:N"), order=alt.Order("cost:Q")),
        points.mark_rule(strokeWidth=1.4).encode(
            x=x, y=for_field(y, "low"), y2=alt.Y2("high:Q"), stroke=COLOUR, opacity=OPACITY
        ),
        points.transform_filter("datum.cost_low < datum.cost_high")
        .mark_rule(strokeWidth=1.4)
        .encode(x=for_field(x, "cost_low"), x2=alt.X2("cost_high:Q"), y=y, stroke=COLOUR, opacity=OPACITY),
        points.mark_point(size=240, strokeWidth=1.5).encode(x=x, y=y, **RING, opacity=OPACITY),
        points.mark_point(strokeWidth=1.8).encode(
            x=x, y=y, **POINT, size=alt.Size("size:Q", scale=None), opacity=OPACITY, tooltip=tips
        ),
        *(  # light below dark: one of them is visible on any page
            picked.mark_point(size=190, fillOpacity=0, strokeWidth=wide, stroke=stroke).encode(x=x, y=y)
            for wide, stroke in ((4.4, "#FFFFFF"), (2, INK))
        ),
        data["numbers"]
        .mark_text(style="strong", fontSize=10.7, fontWeight=600)
        .encode(x=x, y=y, text=alt.Text("text:N")),
        *name_lines(data["names"]),
        data["axis"]
        .mark_text(style="words", align="right")
        .encode(x=RIGHT, y=alt.YValue(height + 30), text=alt.Text("text:N")),
    )


def name_lines(base: alt.Chart) -> list[alt.Chart]:
    """Draw the rows of `names_k` above a plot: a heading, and each domain's name behind its mark."""
    placed = base.encode(x=LEFT, y=alt.Y("y:Q", scale=None))
    heading, domain = (placed.transform_filter(f"datum.kind === '{kind}'") for kind in ("role", "domain"))
    return [
        heading.mark_text(style="strong", align="left", fontWeight=600).encode(text=alt.Text("text:N")),
        domain.mark_point(size=50, xOffset=5, opacity=1).encode(stroke=COLOUR, fill=FILL, shape=SHAPE),
        domain.mark_text(align="left", dx=16).encode(text=alt.Text("text:N"), fill=TEXT_COLOUR),
    ]


def _draw_key(rows: Rows, *, lines: int, width: int) -> alt.LayerChart:
    base = rows_of("key", rows).encode(x=alt.X("x:Q", scale=None, axis=None), y=alt.Y("y:Q", scale=None, axis=None))
    numbers = base.mark_text(style="strong", align="right", fontWeight=600, dx=-4).encode(text=alt.Text("number:N"))
    chart = layered(numbers, base.mark_text(style="words", align="left").encode(text=alt.Text("text:N")))
    return chart.properties(width=width - 20, height=LINE * lines)
