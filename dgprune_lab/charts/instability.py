"""Mean stability of each run against what it came to: a dot per run and domain.

Named data: `runs`, one row per run and domain: run, domain, stable (percent), value, low, high (percent), settings,
colour, shape, fill, looked; `names`, the domains' names: domain, value, colour;
`ends`, the ends of the horizontal axis: stable.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import altair as alt
import pandas as pd

from ..core import exposure_of, is_missing
from .theme import domain_styles_of, finish, interval_of, layered, mark_of, named, records, shortened

PADDING = {"left": 52, "right": 140, "top": 94, "bottom": 38}
WORDS = {"accuracy": "Accuracy at the end (%)", "gap": "Training minus reported accuracy (points)"}


def instability(
    frame: pd.DataFrame, *, metric: str = "accuracy", width: int = 420, height: int = 280
) -> alt.LayerChart:
    """Draw mean stability against the accuracy (or the gap) at the last epoch, a dot per run and domain.

    The lines above name each domain with its mark, and its rank correlation over the runs; below 8 runs they say that
    this says next to nothing.

    Args:
        frame: the table of `diagnostics.instability`.
        metric: "accuracy" or "gap".
        width, height: of the plot, in pixels.
    """
    rows = instability_rows(frame, metric=metric)
    ends = [row["stable"] for row in rows] or [100.0]
    spread = max(2.0, 0.08 * (max(ends) - min(ends)))
    span = [{"stable": min(ends) - spread}, {"stable": max(100.0, max(ends)) + spread}]
    title = alt.Title(
        text="How much pruning hurt at once, and what came of it", subtitle=_below(frame, metric), offset=8
    )
    chart = _layers(rows, span, metric, gap=14 / max(height, 1)).properties(title=title)
    return finish(chart, width=width, height=height, padding=PADDING)


def instability_rows(frame: pd.DataFrame, *, metric: str = "accuracy") -> list[dict[str, Any]]:
    """The chart's rows; runs without a mean stability are not drawn."""
    stable = {r["run"]: r["value"] for r in records(frame, metric="mean_stability") if is_missing(r["domain"])}
    style, rows = domain_styles_of(frame), []
    for row in records(frame, metric=metric):
        if row["stage"] != "last" or is_missing(stable.get(row["run"])):
            continue
        value, low, high = interval_of(row)
        mark = mark_of(style[str(row["domain"])], exposure=exposure_of(row))
        rows.append(
            {
                "run": int(row["run"]),
                "domain": str(row["domain"]),
                "stable": stable[row["run"]],
                "value": value,
                "low": low,
                "high": high,
                "settings": row["settings"],
                **{key: mark[key] for key in ("colour", "shape", "fill", "looked")},
            }
        )
    return rows


def _below(frame: pd.DataFrame, metric: str) -> list[str]:
    """A line per domain with its correlation, and the warning."""
    lines, warning = [], None
    for row in records(frame, metric="kendall"):
        if row["of_metric"] == metric and row["within"] == "all rates":
            tau = "cannot be told" if is_missing(row["value"]) else f"{row['value']:+.2f}"
            ends = "" if is_missing(row["low"]) else f" ({row['low']:+.2f} to {row['high']:+.2f})"
            lines.append(f"{row['domain']}: rank correlation {tau}{ends}".replace("-", "\N{MINUS SIGN}"))
            warning = None if is_missing(row["warning"]) else str(row["warning"])
    return [*lines[:3], *([warning[0].upper() + warning[1:]] if warning else [])]


def _layers(rows: list[dict[str, Any]], span: list[dict[str, Any]], metric: str, *, gap: float) -> alt.LayerChart:
    """Intervals, dots, the runs' numbers, and the domains' names at the right, each at the height of its dots."""
    scale = alt.Scale(nice=False, zero=False)
    stable = alt.X("stable:Q", scale=scale, title="Mean stability of the run (%)", axis=alt.Axis(tickCount=6))
    budget = alt.Scale(zero=False, nice=True)
    value, low = (alt.Y(f"{name}:Q", scale=budget, title=WORDS[metric]) for name in ("value", "low"))
    base = alt.Chart(alt.NamedData(name="runs"))
    colour, inside = alt.Stroke("colour:N", scale=None), alt.Fill("fill:N", scale=None)
    tips = [
        alt.Tooltip("run:Q", title="Run"),
        alt.Tooltip("domain:N", title="Domain"),
        alt.Tooltip("settings:N", title="Settings"),
        alt.Tooltip("stable:Q", title="Mean stability %", format=".1f"),
        alt.Tooltip("value:Q", title="At the end", format=".1f"),
        alt.Tooltip("low:Q", title="from", format=".1f"),
        alt.Tooltip("high:Q", title="to", format=".1f"),
        alt.Tooltip("looked:N", title="Looked at before"),
    ]
    return layered(
        alt.Chart(named("ends", span)).mark_point(opacity=0).encode(x=stable),
        alt.Chart(named("runs", rows))
        .mark_rule(strokeWidth=1.4, opacity=0.5)
        .encode(x=stable, y=low, y2="high:Q", stroke=colour),
        base.mark_point(size=60, strokeWidth=1.6, opacity=1).encode(
            x=stable, y=value, stroke=colour, fill=inside, shape=alt.Shape("shape:N", scale=None), tooltip=tips
        ),
        base.mark_text(style="words", dx=11, dy=-7, align="left", fontSize=10).encode(x=stable, y=value, text="run:Q"),
        alt.Chart(named("names", _names(rows, gap)))
        .mark_text(align="left", dx=8, fontSize=10.5, fontWeight=600)
        .encode(x=alt.value("width"), y=value, text="domain:N", fill=alt.Fill("colour:N", scale=None)),
    )


def _names(rows: list[dict[str, Any]], gap: float) -> list[dict[str, Any]]:
    """A name per domain at the mean height of its dots, moved apart by a share `gap` of the plot."""
    ends = [row[key] for row in rows for key in ("low", "high")]
    step, found = gap * max(1.0, max(ends, default=1.0) - min(ends, default=0.0)), []
    for name in dict.fromkeys(row["domain"] for row in rows):
        mine = [row for row in rows if row["domain"] == name]
        height = sum(row["value"] for row in mine) / len(mine)
        found.append({"domain": shortened(name, most=20), "value": height, "colour": mine[0]["colour"]})
    found.sort(key=lambda row: row["value"])
    for below, above in pairwise(found):
        above["value"] = max(above["value"], below["value"] + step)
    return found
