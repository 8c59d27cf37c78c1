"""Chart D: the accuracy change of each domain against the full network.

A hollow diamond around the dot, and text after the name, mark a domain that was looked at. Named data: `drops`
(domain, label, change, low, high in percentage points; text, range, colour, fill, shape, ring, opacity, looked);
`ghosts`, a pinned view on a domain (pin, label, change, colour, opacity); and `span` (change): the ends of the axis,
rounded to steps. A page keeps the widest ends of all ratios, so that its axis does not move with the slider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import Side, Tidy, exposure_label, exposure_of, is_missing, public, scorer_exposure
from .marks import (
    COLOUR,
    OPACITY,
    RIGHT,
    TEXT_COLOUR,
    ZERO,
    check_alike,
    check_table,
    interval_marks,
    layered,
    rows_of,
    shortened_apart,
    signed_axis,
    step_above,
    tooltip,
)
from .theme import (
    PIN_DASHES,
    Rows,
    check_present,
    domain_styles_of,
    finish,
    grouped,
    interval_of,
    point_of,
    points_text,
    records,
    titled,
)

NOT_OVERALL = "they are of single layers, which dg.charts.layers draws, or of single classes."
CAPTION = "Measured right after removal, before any fine-tuning."
ROW = 28
"""Minimum height of a row, in pixels, for the interval to be written below the number."""
_LETTERS = 28  # of a domain's name; its mark stands after it
PADDING = {"left": 78, "right": 82, "top": 6, "bottom": 40}
CHANGE = "accuracy_change"
POINTS = "Accuracy change (points)"


@public
def drop(frame: Tidy, *, metric: str = CHANGE, width: Side = 200, height: Side = 110) -> alt.LayerChart:
    """Draw the accuracy change of each domain, in percentage points, as a dot with its interval on an axis around 0.

    Args:
        frame: a tidy table whose rows with this `metric` are changes against the full network (negative: lost);
            if there are several ratios, the largest is drawn; rows of classes or single layers (see `layers`) are not.
        metric: name of the metric to draw.
        width, height: size of the plot, in pixels.
    """
    if metric != CHANGE:
        check_present(frame, "metric", metric)
    check_table(frame, "diagnostics.drop(study)", metrics=(metric,), where=is_overall, instead=NOT_OVERALL)
    rows = drop_rows(frame, metric=metric)
    # Room for the longest name; the explorer makes its chart without rows, and has its text below.
    longest = max((len(row["label"]) for row in rows), default=0)
    padding = {**PADDING, "left": min(320, max(PADDING["left"], 16 + round(6.2 * longest)))}
    names = alt.Axis(title=None, labelLimit=padding["left"] - 10, ticks=False, domain=False)
    scale, axis = alt.Scale(nice=False, zero=True), signed_axis(tickCount=alt.expr("max(2, floor(width / 48))"))
    change = alt.X("change:Q", scale=scale, title=POINTS, axis=axis)
    domain = alt.Y("label:N", sort=None, axis=names)
    tips = tooltip({"domain": "Domain", "change": ("Change, points", "+.1f")}, ends="+.1f", looked=True)
    if len(rows) * ROW > height:
        rows = [{**row, "range": ""} for row in rows]
    drops = rows_of("drops", rows)
    place = {"x": RIGHT, "y": domain, "opacity": OPACITY}
    above: Any = {"expr": "datum.range ? -6 : 0"}  # the interval stands below
    number = drops.mark_text(style="strong", align="right", dx=PADDING["right"] - 2, dy=above, fontWeight=600)
    ends = drops.mark_text(style="words", align="right", dx=PADDING["right"] - 2, dy=7, fontSize=10.7)
    chart = layered(
        rows_of("span", span_rows(rows)).mark_point(opacity=0).encode(x=change),
        drops.mark_rule(**ZERO).encode(x=alt.XDatum(0)),
        *interval_marks(drops, change, at={"y": domain}, tips=tips, opacity=OPACITY),
        *_draw_ghosts(change, domain),
        number.encode(**place, text=alt.Text("text:N")),
        ends.encode(**place, text=alt.Text("range:N")),
    )
    seeds = {str(row["seed"]) for row in records(frame, metric=metric) if row["scorer"] == "random"}
    head = titled("Accuracy change", frame, below=["random: one draw"] * (len(seeds) == 1), change=True)
    return finish(chart, width=width, height=height, padding=padding, title=head)


def _draw_ghosts(change: alt.X, domain: alt.Y) -> list[alt.Chart]:
    """Draw the changes of pinned views as hollow marks with the pin's letter, each pin at its own height."""
    layers: list[alt.Chart] = []
    for letter, offset in zip(PIN_DASHES, (-9, 0, 9), strict=True):
        base = rows_of("ghosts", []).transform_filter(f"datum.pin === '{letter}'")
        place = {"x": change, "y": domain, "opacity": OPACITY}
        circle = base.mark_point(style="halo", size=120, strokeWidth=1.2, yOffset=offset)
        text = base.mark_text(fontSize=10.7, fontWeight=600, yOffset=offset)
        layers += [
            circle.encode(**place, stroke=COLOUR),
            text.encode(**place, text=alt.Text("pin:N"), fill=TEXT_COLOUR),
        ]
    return layers


def drop_rows(frame: pd.DataFrame, *, metric: str = CHANGE) -> Rows:
    """Return the chart's rows in percentage points, one per domain, from a tidy table."""
    used = at_largest_ratio([row for row in records(frame, metric=metric) if is_overall(row)])
    styles = domain_styles_of(frame)
    several, networks = (len({row.get(name) for row in used}) > 1 for name in ("scorer", "network"))
    names = shortened_apart((str(row["domain"]) for row in used), most=_LETTERS)
    rows: Rows = []
    for row in used:
        exposure = exposure_of(row)
        name = names[str(row["domain"])]
        label = name + exposure_label(exposure)
        if several:  # "target-aware" is written once, after the scorer
            seen = exposure_label("seen" if "seen" in exposure else "")
            label = f"{row['scorer']}{exposure_label(scorer_exposure([row]))}, {name}{seen}"
        label = f"{row['network']}, {label}" if networks else label
        point = point_of(styles[str(row["domain"])], exposure=exposure)
        change = change_of(row)
        ends = "" if is_missing(row["low"]) else ends_text(change)
        rows.append({"domain": str(row["domain"]), "label": label, **change, "range": ends, "opacity": 1.0, **point})
    return rows


def change_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's change, low, high (percentage points) and text."""
    ends = interval_of(row)
    change = ends.pop("value")
    return {"change": change, **ends, "text": points_text(change)}


def ends_text(change: Mapping[str, Any]) -> str:
    """Return the interval of a change in percentage points, as text, such as "−2.0 to 0.5"."""
    return f"{points_text(change['low'])} to {points_text(change['high'])}"


def is_overall(row: Mapping[str, Any]) -> bool:
    """Return whether a row is about all classes together and about pruning all layers."""
    return is_missing(row.get("class")) and is_missing(row.get("group"))


def at_largest_ratio(rows: Rows) -> Rows:
    """Return the rows whose ratio is the largest; refuse rows that would be drawn as one."""
    largest = max((row["ratio_requested"] for row in rows), default=None)
    used = [row for row in rows if row["ratio_requested"] == largest]
    keys = ("network", "scorer", "domain", "group", "class")
    for alike in grouped(used, lambda row: tuple(row.get(name) for name in keys)).values():
        check_alike(alike)
    return used


def span_rows(rows: Rows) -> Rows:
    """Return the two ends of the axis: the nearest step of 5, 10, 25, 50, 100 points on each side of 0.

    >>> span_rows([{"low": -12.0, "high": 1.0}])
    [{'change': -25}, {'change': 5}]
    """
    lost = max([-row["low"] for row in rows] or [0.0])
    gained = max([row["high"] for row in rows] or [0.0])
    return [{"change": -step_above(lost)}, {"change": step_above(gained)}]
