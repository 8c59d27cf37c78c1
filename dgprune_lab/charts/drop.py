"""Chart D: the accuracy change of each domain against the full network.

A hollow diamond, at the dot and with text after the name, marks what was looked at. Named data: `drops` (domain,
label, change, low, high in points of accuracy; text, colour, fill, shape, opacity, looked) and `span` (change): the
ends of the axis, in steps, so that it does not creep while the slider moves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import Count, Tidy, exposure_label, exposure_of, is_missing, public, scorer_exposure
from .marks import (
    OPACITY,
    RIGHT,
    ZERO,
    check_alike,
    check_table,
    interval_marks,
    layered,
    rows_of,
    signed_axis,
    step_above,
    tooltip,
)
from .theme import Rows, check_held, domain_styles_of, finish, interval_of, point_of, points_text, records, titled

CAPTION = "Measured right after removal; it says nothing yet about generalisation."
PADDING = {"left": 104, "right": 52, "top": 6, "bottom": 40}
CHANGE = "accuracy_change"
POINTS = "Accuracy change (points)"


@public
def drop(frame: Tidy, *, metric: str = CHANGE, width: Count = 200, height: Count = 110) -> alt.LayerChart:
    """Draw the change of accuracy of each domain as a dot with its interval, in points, on an axis around 0.

    Args:
        frame: a tidy table whose rows with this `metric` are changes against the full network (negative: lost);
            of several ratios the largest is drawn; rows of classes and of single layers are not drawn (see `layers`).
        metric: name of the metric to draw.
        width, height: size of the plot, in pixels.
    """
    if metric != CHANGE:
        check_held(frame, "metric", metric)
    check_table(frame, "diagnostics.drop(study)", metrics=(metric,), where=is_overall)
    rows = drop_rows(frame, metric=metric)
    # Room for the longest name, in a chart of its own: the explorer's is made without rows, and its text is below.
    longest = max((len(row["label"]) for row in rows), default=0)
    padding = {**PADDING, "left": min(320, max(PADDING["left"], 16 + round(6.2 * longest)))}
    names = alt.Axis(title=None, labelLimit=padding["left"] - 10, ticks=False, domain=False)
    change = alt.X("change:Q", scale=alt.Scale(nice=False, zero=True), title=POINTS, axis=signed_axis(tickCount=4))
    domain = alt.Y("label:N", sort=None, axis=names)
    drops = rows_of("drops", rows)
    tips = tooltip({"domain": "Domain", "change": ("Change, points", "+.1f")}, ends="+.1f", looked=True)
    number = drops.mark_text(style="strong", align="right", dx=PADDING["right"] - 6, fontWeight=600)
    chart = layered(
        rows_of("span", span_rows(rows)).mark_point(opacity=0).encode(x=change),
        drops.mark_rule(**ZERO).encode(x=alt.datum(0)),
        *interval_marks(drops, change, at={"y": domain}, tips=tips, opacity=OPACITY),
        number.encode(x=RIGHT, y=domain, text="text:N", opacity=OPACITY),
    )
    title = titled("Accuracy change", frame, change=True)
    return finish(chart, width=width, height=height, padding=padding, title=title)


def drop_rows(frame: pd.DataFrame, *, metric: str = CHANGE) -> Rows:
    """Return the chart's rows in points, one per domain, from a tidy table."""
    used = at_largest_ratio([row for row in records(frame, metric=metric) if is_overall(row)])
    styles = domain_styles_of(frame)
    several, networks = (len({row.get(name) for row in used}) > 1 for name in ("scorer", "network"))
    rows: Rows = []
    for row in used:
        exposure = exposure_of(row)
        label = str(row["domain"]) + exposure_label(exposure)
        if several:  # target-aware is written once, at the scorer
            seen = exposure_label("seen" if "seen" in exposure else "")
            label = f"{row['scorer']}{exposure_label(scorer_exposure([row]))}, {row['domain']}{seen}"
        label = f"{row['network']}, {label}" if networks else label
        point = point_of(styles[str(row["domain"])], exposure=exposure)
        rows.append({"domain": str(row["domain"]), "label": label, **change_of(row), "opacity": 1.0, **point})
    return rows


def change_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields change, low, high (points) and text of a row."""
    ends = interval_of(row)
    change = ends.pop("value")
    return {"change": change, **ends, "text": points_text(change)}


def is_overall(row: Mapping[str, Any]) -> bool:
    """Whether a row is about all classes together and about pruning all layers."""
    return is_missing(row.get("class")) and is_missing(row.get("group"))


def at_largest_ratio(rows: Rows) -> Rows:
    """Return the rows whose ratio is the largest; refuse those that would be drawn on one another."""
    largest = max((row["ratio_requested"] for row in rows), default=None)
    kept, drawn = [row for row in rows if row["ratio_requested"] == largest], defaultdict[Any, Rows](list)
    for row in kept:
        drawn[tuple(row.get(name) for name in ("network", "scorer", "domain", "group", "class"))].append(row)
    for alike in drawn.values():
        check_alike(alike)
    return kept


def span_rows(rows: Rows) -> Rows:
    """Return the two ends of the axis: the nearest step of 5, 10, 25, 50, 100 points on each side of 0.

    >>> span_rows([{"low": -12.0, "high": 1.0}])
    [{'change': -25}, {'change': 5}]
    """
    lost = max([-row["low"] for row in rows] or [0.0])
    won = max([row["high"] for row in rows] or [0.0])
    return [{"change": -step_above(lost)}, {"change": step_above(won)}]
