"""Chart A: how well the network still reads each domain, against the share that was removed.

Named data, all of which a page may swap with `view.data(name, rows)`; `removed`, `value`, `low`, `high` in percent:

| name | one row is | fields |
|---|---|---|
| curves | a measured point | domain, removed, value, low, high, stretch, colour, dash, shape, fill, looked |
| gaps | an end of a stretch that was not measured | domain, removed, value, gap, colour |
| now | the current ratio | removed |
| dots | a domain at the current ratio | domain, removed, value, low, high, colour, shape, fill, opacity, looked |
| names | the name at a line's end, and the line below it | domain, label, removed, value, colour |
| pinned | a measured point of a pinned view | pin, domain, removed, value |
| full | the full network on a domain | domain, value |
| chance | a chance level | value, label |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import altair as alt
import pandas as pd

from ..core import (
    Exposure,
    exposure_label,
    exposure_of,
    is_missing,
    scorer_exposure,
    strongest_exposure,
    with_scorer_exposure,
)
from .theme import (
    DASHED,
    DOTTED,
    beside,
    domain_styles_of,
    finish,
    interval_of,
    layered,
    mark_of,
    named,
    records,
    scorer_styles,
    shortened,
    spread,
)

PADDING = {"left": 52, "right": 140, "top": 10, "bottom": 36}
ACCURACY = "accuracy"
LONGEST: Exposure = "target-aware, seen"

_REMOVED = alt.X(
    "removed:Q", scale=alt.Scale(domain=[0, 100], nice=False), title="Removed (%)", axis=alt.Axis(tickCount=5)
)


def sweep(
    frame: pd.DataFrame,
    *,
    now: float | None = None,
    pinned: Mapping[str, pd.DataFrame] | None = None,
    chance: float | None = None,
    step: float = 0.05,
    metric: str = ACCURACY,
    width: int = 420,
    height: int = 300,
) -> alt.LayerChart | alt.HConcatChart:
    """Draw a metric per domain against the share removed, named at the lines' ends.

    One scorer: a line per domain with its interval. Several scorers: a panel per domain, a line per scorer. What
    scorer, tuning or selection have looked at is a hollow diamond, and said behind the name.
    Neighbours at most `step` apart are joined by a solid line; a wider stretch was not measured and is faint dots.

    Args:
        frame: a tidy table; the rows whose metric is `metric` are drawn, several seeds become mean and range.
        now: the current ratio (0 to 1), drawn as a rule with a dot per domain.
        pinned: views to compare with, by name, as tidy tables; drawn grey and dotted.
        chance: the chance level (0 to 1).
        step: the widest distance of two ratios that counts as measured without a gap.
        width, height: of one plot, in pixels.
    """
    scorers = list(dict.fromkeys(str(row["scorer"]) for row in records(frame) if not is_missing(row["scorer"])))
    if len(scorers) > 1:
        return _by_domain(frame, scorers, chance=chance, step=step, metric=metric, width=width, height=height)
    points = sweep_points(frame, metric=metric)
    data = sweep_data(points, now=now, chance=chance, step=step, height=height)
    for label, other in (pinned or {}).items():
        data["pinned"] += [
            {"pin": label, "domain": row["domain"], "removed": row["removed"], "value": row["value"]}
            for row in sweep_points(other, metric=metric)
        ]
    return finish(_layers(data, metric=metric), width=width, height=height, padding=PADDING)


def sweep_points(frame: pd.DataFrame, *, metric: str = ACCURACY) -> list[dict[str, Any]]:
    """The measured points of a tidy table in percent, one per domain and ratio, several seeds as mean and range.

    `label` is what stands behind the name: the mark of what was looked at, or else the domain's role; `below` is a
    second line for a mark too long to stand there.
    """
    style = domain_styles_of(frame)
    places: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in records(frame, metric=metric):
        places.setdefault((str(row["domain"]), float(row["ratio_requested"])), []).append(row)
    points: list[dict[str, Any]] = []
    for (domain, removed), rows in places.items():
        values, lows, highs = zip(*(interval_of(row) for row in rows), strict=True)
        exposure = strongest_exposure(exposure_of(row) for row in rows)
        points.append(
            {
                "domain": domain,
                "removed": round(100.0 * removed, 4),
                "value": sum(values) / len(values),
                "low": min(lows),
                "high": max(highs),
                "sight": exposure,
                "label": "" if exposure == LONGEST else domain_words(style[domain].words, exposure),
                "below": exposure_label(exposure).strip() if exposure == LONGEST else "",
                **mark_of(style[domain], exposure=exposure),
            }
        )
    order = list(style)
    return sorted(points, key=lambda row: (order.index(row["domain"]), row["removed"]))


def sweep_data(
    points: Sequence[Mapping[str, Any]],
    *,
    now: float | None,
    chance: float | None,
    step: float,
    height: int,
    letters: int = 27,
) -> dict[str, list[dict[str, Any]]]:
    """The chart's named data, from measured points; the page makes the same rows while the slider moves.

    `letters` is the length of a label, up to which a long name is shortened so that the words behind it stay whole.
    """
    data: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("curves", "gaps", "now", "dots", "names", "pinned", "full", "chance")
    }
    for domain in dict.fromkeys(row["domain"] for row in points):
        _one_domain(data, [dict(row) for row in points if row["domain"] == domain], now=now, step=step, letters=letters)
    data["names"] = spread(data["names"], gap=100.0 * 14 / max(height, 1))
    if now is not None:
        data["now"] = [{"removed": 100.0 * now}]
    if chance is not None:
        data["chance"] = [{"value": 100.0 * chance, "label": "chance"}]
    return data


def domain_words(role: str, exposure: Exposure) -> str:
    """What stands behind a domain's name: its role in words, or in their place what was looked at of it.

    >>> domain_words("new look", ""), domain_words("new look", "?"), domain_words("new look", "target-aware")
    (' (new look)', ' (new look) ?', ' (target-aware)')
    """
    if exposure in ("", "?"):
        return (f" ({role})" if role else "") + exposure_label(exposure)
    return f" ({exposure})"


def _one_domain(
    data: dict[str, list[dict[str, Any]]], rows: list[dict[str, Any]], *, now: float | None, step: float, letters: int
) -> None:
    """Add one domain's points to the named data, cut into measured stretches and the gaps between them."""
    stretch = 0
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and row["removed"] - before["removed"] > 100.0 * step + 1e-6:
            stretch += 1
            ends = [{key: end[key] for key in ("domain", "removed", "value", "colour")} for end in (before, row)]
            data["gaps"] += [{**end, "gap": stretch} for end in ends]
        words, below, _ = (row.pop(name) for name in ("label", "below", "sight"))
        data["curves"].append({**row, "stretch": stretch})
        if row["removed"] == 0.0:
            data["full"].append({"domain": row["domain"], "value": row["value"]})
        if now is not None and abs(row["removed"] - 100.0 * now) < 1e-6:
            data["dots"].append({**row, "opacity": 1.0})
        if row is rows[-1]:
            label = shortened(row["domain"], most=min(22, max(7, letters - len(words)))) + words
            keep = {key: row[key] for key in ("domain", "removed", "value", "colour")}
            # Of two labels at one height the first comes to lie below.
            data["names"] += [{**keep, "label": line} for line in (below, label) if line]


def _layers(
    data: Mapping[str, list[dict[str, Any]]], *, metric: str, suffix: str = "", room: int = PADDING["right"] + 10
) -> alt.LayerChart:
    """The chart's layers, from the back to the front; `suffix` ends the names of their data, `room` is for labels."""
    scale = alt.Scale(domain=[0, 100], nice=False)
    title = f"{metric.capitalize()} (%)"
    value = alt.Y("value:Q", scale=scale, title=title, axis=alt.Axis(tickCount=5))
    low = alt.Y("low:Q", scale=scale, title=title)
    colour, fill = alt.Stroke("colour:N", scale=None), alt.Fill("colour:N", scale=None)
    dash = alt.StrokeDash("dash:N", scale=None)
    shape, inside = alt.Shape("shape:N", scale=None), alt.Fill("fill:N", scale=None)
    seen = alt.Opacity("opacity:Q", scale=None)
    tips = [
        alt.Tooltip("domain:N", title="Domain"),
        alt.Tooltip("removed:Q", title="Removed %", format=".0f"),
        alt.Tooltip("value:Q", title=f"{metric.capitalize()} %", format=".1f"),
        alt.Tooltip("low:Q", title="from", format=".1f"),
        alt.Tooltip("high:Q", title="to", format=".1f"),
        alt.Tooltip("looked:N", title="Looked at before"),
    ]

    def first(name: str) -> alt.Chart:
        return alt.Chart(named(f"{name}{suffix}", data[name]))

    def again(name: str) -> alt.Chart:
        return alt.Chart(alt.NamedData(name=f"{name}{suffix}"))

    def base(name: str) -> alt.Chart:
        return first(name).encode(x=_REMOVED, y=value)

    curves = again("curves").encode(x=_REMOVED, y=value)
    level = again("chance").encode(y=value)
    return layered(
        first("chance").mark_rule(style="quiet", strokeDash=[2, 2]).encode(y=value),
        level.mark_text(style="quiet", align="left", dx=5, dy=-6).encode(x=alt.value(0), text="label:N"),
        first("full").mark_rule(style="ink", strokeDash=list(DASHED), opacity=0.28).encode(y=value),
        base("pinned")
        .mark_line(style="pinned", strokeDash=list(DOTTED), strokeWidth=2)
        .encode(detail=["pin:N", "domain:N"]),
        base("curves")
        .mark_area(opacity=0.16)
        .encode(y=low, y2="high:Q", color=alt.Color("colour:N", scale=None), detail=["domain:N", "stretch:N"]),
        base("gaps")
        .mark_line(strokeDash=[1, 5], strokeWidth=1.2, opacity=0.55)
        .encode(stroke=colour, detail=["domain:N", "gap:N"]),
        curves.mark_line(strokeWidth=2).encode(stroke=colour, strokeDash=dash, detail=["domain:N", "stretch:N"]),
        curves.mark_point(size=16, strokeWidth=1, opacity=1).encode(
            stroke=colour, fill=inside, shape=shape, tooltip=tips
        ),
        first("now").mark_rule(style="ink", strokeWidth=1.2, opacity=0.75).encode(x=_REMOVED),
        base("dots").mark_rule(strokeWidth=2.2).encode(y=low, y2="high:Q", stroke=colour, opacity=seen),
        again("dots")
        .mark_point(size=70, strokeWidth=1.8)
        .encode(x=_REMOVED, y=value, stroke=colour, fill=inside, shape=shape, opacity=seen, tooltip=tips),
        base("names")
        .mark_text(align="left", dx=8, limit=room, fontSize=10.5, fontWeight=600)
        .encode(text="label:N", fill=fill),
    )


def _by_domain(
    frame: pd.DataFrame,
    scorers: Sequence[str],
    *,
    chance: float | None,
    step: float,
    metric: str,
    width: int,
    height: int,
) -> alt.HConcatChart:
    """A panel per domain, a line per scorer named at its end, all on the same axes."""
    roles = domain_styles_of(frame)
    marks = dict(zip(scorers, scorer_styles(), strict=False))
    panels: list[alt.LayerChart] = []
    for domain, look in roles.items():
        points: list[dict[str, Any]] = []
        for scorer in scorers:
            rows = cast(pd.DataFrame, frame[(frame["domain"] == domain) & (frame["scorer"] == scorer)])
            for row in sweep_points(rows, metric=metric):
                words = exposure_label(with_scorer_exposure(row["sight"], scorer_exposure(records(rows))))
                mark = mark_of(marks[scorer], exposure=row["sight"], keep_colour=True)
                points.append({**row, "domain": scorer, "label": words, "below": "", **mark})
        data = sweep_data(points, now=None, chance=chance, step=step, height=height, letters=38)
        # Datasets of a concatenation share one namespace, so each panel's get its own suffix.
        panel = _layers(data, metric=metric, suffix=f"_{len(panels)}", room=220)
        title = f"{domain} ({look.words})" if look.words else domain
        panels.append(panel.properties(width=width, height=height, title=alt.Title(text=title, color=look.colour)))
    return beside(*panels)
