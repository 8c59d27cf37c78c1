"""The drop against the share removed: a line per domain, a plot per scorer.

Named data per plot k: `curves_k`, `gaps_k`, `names_k`, as in `sweep`, in points of accuracy or in percent of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import altair as alt
import pandas as pd

from ..core import choice, exposure_label, is_missing, scorer_exposure
from .drop import CAPTION, is_whole
from .sweep import sweep_data, sweep_points
from .theme import beside, layered, named, records

Metric = Literal["change", "relative_drop"]
TITLES = {"change": "Change of accuracy (points)", "relative_drop": "Share of the accuracy lost (%)"}
_STEPS = (5, 10, 25, 50, 100)

Rows = list[dict[str, Any]]


def drop_curve(
    frame: pd.DataFrame, *, metric: Metric = "change", step: float = 0.05, width: int = 360, height: int = 260
) -> alt.HConcatChart:
    """Draw what removal costs at once against the share removed, a line per domain with its interval.

    Neighbours at most `step` apart are joined by a solid line; a wider stretch was not measured and is faint dots. A
    domain without a relative drop, as its accuracy was at chance before, is named below the title.

    Args:
        frame: a table of `diagnostics.drop`; rows of the whole network and of all classes are drawn, several scorers
            or networks side by side on one scale.
        metric: "change", in points (negative: lost), or "relative_drop", in percent of the accuracy before (positive:
            lost).
        step: the widest distance of two ratios that counts as measured without a gap.
        width, height: of one plot, in pixels.

    Raises:
        DgpruneError: another metric.
    """
    choice("metric", metric, Metric)
    whole = cast(pd.DataFrame, frame[[is_whole(row) for row in records(frame)]])
    rows = records(whole, metric=metric)
    places = list(dict.fromkeys((str(row.get("network")), str(row["scorer"])) for row in rows)) or [("", "")]
    several = len({network for network, _ in places}) > 1
    low, high = _span(rows)
    plots = []
    for k, (network, scorer) in enumerate(places):
        mine = [row for row in rows if (str(row.get("network")), str(row["scorer"])) == (network, scorer)]
        kept = [row for row in mine if not is_missing(row["value"])]
        data = _data(pd.DataFrame(kept, columns=whole.columns), metric, (low, high), step, height)
        name = f"{scorer}{exposure_label(scorer_exposure(mine))}" + (f", {network}" if several else "")
        empty = dict.fromkeys(str(row["domain"]) for row in mine if is_missing(row["value"]))
        below = [f"{domain}: at chance before, so it has no relative drop" for domain in empty]
        title = alt.Title(text=name, subtitle=below)
        plots.append(_plot(data, f"_{k}", metric, (low, high)).properties(width=width, height=height, title=title))
    drawn = beside(*plots)
    counts = sorted({int(row["images"]) for row in rows if not is_missing(row["images"])})
    images = (
        f" {' to '.join(f'{n:,}' for n in dict.fromkeys((counts[0], counts[-1])))} images of each domain."
        if counts
        else ""
    )
    drawn.title = alt.Title(text=CAPTION + images, fontSize=12, fontWeight="normal", color="#5B6470", offset=12)
    return drawn


def _span(rows: Rows) -> tuple[float, float]:
    """The ends of the axis, in steps of 5, 10, 25, 50, 100 on each side of 0; at least 5."""
    ends = [100 * row[name] for row in rows for name in ("value", "low", "high") if not is_missing(row[name])]
    lost, won = max([0.0, *(-end for end in ends)]), max([0.0, *ends])
    low, high = (next((step for step in _STEPS if end <= step), 100) for end in (lost, won))
    return -float(low), float(high)


def _data(
    frame: pd.DataFrame, metric: Metric, span: tuple[float, float], step: float, height: int
) -> Mapping[str, Rows]:
    """The named data of `sweep`, whose labels are spread on an axis from 0 to 100, on this axis."""
    low, high = span
    room = (high - low) / 100
    points = [
        {**row, **{name: (row[name] - low) / room for name in ("value", "low", "high")}}
        for row in sweep_points(frame, metric=metric)
    ]
    data = sweep_data(points, now=None, chance=None, step=step, height=height)
    return {
        name: [
            {key: low + room * v if key in ("value", "low", "high") else v for key, v in row.items()} for row in rows
        ]
        for name, rows in data.items()
    }


def _plot(data: Mapping[str, Rows], suffix: str, metric: Metric, span: Sequence[float]) -> alt.LayerChart:
    """Zero, bands, lines, points and names, from the back."""
    scale = alt.Scale(domain=list(span), nice=False, clamp=True)
    removed = alt.X("removed:Q", scale=alt.Scale(domain=[0, 100], nice=False), title="Removed (%)")
    value = alt.Y("value:Q", scale=scale, title=TITLES[metric], axis=alt.Axis(tickCount=6))
    low = alt.Y("low:Q", scale=scale, title=TITLES[metric])
    colour, dash = alt.Stroke("colour:N", scale=None), alt.StrokeDash("dash:N", scale=None)
    fill, shape = alt.Fill("fill:N", scale=None), alt.Shape("shape:N", scale=None)
    measured = alt.Chart(alt.NamedData(name=f"curves{suffix}")).encode(x=removed, y=value)
    tips = [
        alt.Tooltip("domain:N", title="Domain"),
        alt.Tooltip("removed:Q", title="Removed %", format=".0f"),
        alt.Tooltip("value:Q", title=TITLES[metric], format="+.1f"),
        alt.Tooltip("low:Q", title="from", format="+.1f"),
        alt.Tooltip("high:Q", title="to", format="+.1f"),
        alt.Tooltip("looked:N", title="Looked at before"),
    ]
    return layered(
        alt.Chart(named(f"curves{suffix}", data["curves"]))
        .mark_area(opacity=0.16)
        .encode(
            x=removed, y=low, y2="high:Q", color=alt.Color("colour:N", scale=None), detail=["domain:N", "stretch:N"]
        ),
        alt.Chart(alt.InlineData(values=[{}]))
        .mark_rule(style="ink", strokeWidth=1, opacity=0.6)
        .encode(y=alt.YDatum(0, scale=scale, title=TITLES[metric])),
        alt.Chart(named(f"gaps{suffix}", data["gaps"]))
        .mark_line(strokeDash=[1, 5], strokeWidth=1.2, opacity=0.55)
        .encode(x=removed, y=value, stroke=colour, detail=["domain:N", "gap:N"]),
        measured.mark_line(strokeWidth=2).encode(stroke=colour, strokeDash=dash, detail=["domain:N", "stretch:N"]),
        measured.mark_point(size=16, strokeWidth=1, opacity=1).encode(
            stroke=colour, fill=fill, shape=shape, tooltip=tips
        ),
        alt.Chart(named(f"names{suffix}", data["names"]))
        .mark_text(align="left", dx=8, fontSize=10.5, fontWeight=600)
        .encode(x=removed, y=value, text="label:N", fill=alt.Fill("colour:N", scale=None)),
    )
