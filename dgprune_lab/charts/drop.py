"""Chart D: what each domain lost or won against the full network.

A hollow diamond, at the dot and behind the name, and words say what was looked at. Named data: `drops` (domain, label,
change, low, high in points of accuracy; text, colour, fill, shape, opacity, looked) and `span` (change): the ends of
the axis, in steps, so that it does not creep while the slider moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import exposure_label, exposure_of, is_missing, scorer_exposure
from .theme import domain_styles_of, finish, interval_of, layered, mark_of, named, records

CAPTION = "How much removal hurts at once; it says nothing yet about generalisation."
PADDING = {"left": 104, "right": 52, "top": 6, "bottom": 36}
CHANGE = "change"
_SPANS = (5, 10, 25, 50, 100)


def drop(frame: pd.DataFrame, *, metric: str = CHANGE, width: int = 200, height: int = 110) -> alt.LayerChart:
    """Draw the change of accuracy per domain as dots with intervals around 0, in points.

    Args:
        frame: a tidy table whose rows with this `metric` are changes against the full network (negative: lost);
            of several ratios the largest is drawn, and of classes and single layers nothing (`layers` draws those).
        width, height: of the plot, in pixels.
    """
    rows = drop_rows(frame, metric=metric)
    # Room for the longest name, in a chart of its own: the explorer's is made without rows, and its words stand below.
    longest = max((len(row["label"]) for row in rows), default=0)
    padding = {**PADDING, "left": min(320, max(PADDING["left"], 16 + round(6.2 * longest)))}
    return finish(_layers(rows, span_rows(rows), padding), width=width, height=height, padding=padding)


def drop_rows(frame: pd.DataFrame, *, metric: str = CHANGE) -> list[dict[str, Any]]:
    """The chart's rows in points, one per domain, from a tidy table."""
    used = [row for row in records(frame, metric=metric) if is_whole(row)]
    style = domain_styles_of(frame)
    last = max((row["ratio_requested"] for row in used), default=None)
    several, networks = len({row["scorer"] for row in used}) > 1, len({row.get("network") for row in used}) > 1
    rows: list[dict[str, Any]] = []
    for row in used:
        if row["ratio_requested"] != last:
            continue
        change, low, high = interval_of(row)
        exposure = exposure_of(row)
        mark = mark_of(style[str(row["domain"])], exposure=exposure)
        name = str(row["domain"]) + exposure_label(exposure)
        if several:  # target-aware is said once, at the scorer
            seen = exposure_label("seen" if "seen" in exposure else "")
            name = f"{row['scorer']}{exposure_label(scorer_exposure([row]))}, {row['domain']}{seen}"
        name = f"{row['network']}, {name}" if networks else name
        rows.append(
            {
                "domain": str(row["domain"]),
                "label": name,
                "change": change,
                "low": low,
                "high": high,
                "text": f"{change:+.1f}".replace("-", "\N{MINUS SIGN}"),
                "opacity": 1.0,
                **{key: mark[key] for key in ("colour", "fill", "shape", "looked")},
            }
        )
    return rows


def is_whole(row: Mapping[str, Any]) -> bool:
    """Whether a row is about all classes, and about a mask of all layers."""
    return is_missing(row.get("class")) and is_missing(row.get("group"))


def span_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The two ends of the axis: the nearest step of 5, 10, 25, 50, 100 points on each side; at least 5 and 2.

    >>> span_rows([{"low": -12.0, "high": 1.0}])
    [{'change': -25}, {'change': 5}]
    """
    lost = max([-row["low"] for row in rows] or [0.0])
    won = max([row["high"] for row in rows] or [0.0])
    left = next((span for span in _SPANS if lost <= span), 100)
    right = next((span for span in _SPANS if won <= span), 100)
    return [{"change": -left}, {"change": right}]


def _layers(rows: list[dict[str, Any]], span: list[dict[str, Any]], padding: Mapping[str, int]) -> alt.LayerChart:
    """Zero, intervals, dots and numbers."""
    axis = alt.Axis(tickCount=4, labelExpr="datum.value > 0 ? '+' + datum.label : datum.label")
    change = alt.X("change:Q", scale=alt.Scale(nice=False, zero=True), title="Points of accuracy", axis=axis)
    names = alt.Axis(title=None, labelLimit=padding["left"] - 10, ticks=False, domain=False)
    domain = alt.Y("label:N", sort=None, axis=names)
    colour, fill = alt.Stroke("colour:N", scale=None), alt.Fill("fill:N", scale=None)
    shape, seen = alt.Shape("shape:N", scale=None), alt.Opacity("opacity:Q", scale=None)
    base = alt.Chart(alt.NamedData(name="drops"))
    tips = [
        alt.Tooltip("domain:N", title="Domain"),
        alt.Tooltip("change:Q", title="Change, points", format="+.1f"),
        alt.Tooltip("low:Q", title="from", format="+.1f"),
        alt.Tooltip("high:Q", title="to", format="+.1f"),
        alt.Tooltip("looked:N", title="Looked at before"),
    ]
    return layered(
        alt.Chart(named("span", span)).mark_point(opacity=0).encode(x=change),
        alt.Chart(named("drops", rows)).mark_rule(style="ink", strokeWidth=1, opacity=0.6).encode(x=alt.datum(0)),
        base.mark_rule(strokeWidth=2.2).encode(
            x=alt.X("low:Q", title="Points of accuracy"), x2="high:Q", y=domain, stroke=colour, opacity=seen
        ),
        base.mark_point(size=60, strokeWidth=1.8).encode(
            x=change, y=domain, stroke=colour, fill=fill, shape=shape, opacity=seen, tooltip=tips
        ),
        base.mark_text(style="strong", align="right", dx=PADDING["right"] - 6, fontWeight=600).encode(
            x=alt.value("width"), y=domain, text="text:N", opacity=seen
        ),
    )
