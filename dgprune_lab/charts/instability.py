"""Mean stability of each run against its final accuracy: a dot per run and domain.

Named data: `runs`, one row per run and domain: run, domain, stable (percent), value, low, high (percent), settings,
colour, shape, fill, looked; `names`, the domains' names: label, value, colour;
`ends`, the ends of the horizontal axis: stable.
"""

from __future__ import annotations

import math
from typing import Literal

import altair as alt
import pandas as pd

from ..core import Count, Tidy, exposure_of, is_missing, public
from .marks import (
    COLOUR,
    LABEL_HEIGHT,
    RIGHT,
    check_table,
    layered,
    line_names,
    of_field,
    point_marks,
    rows_of,
    spread,
    tooltip,
)
from .theme import Rows, domain_styles_of, finish, interval_of, point_of, records, shortened, titled, with_minus

PADDING = {"left": 52, "right": 140, "top": 12, "bottom": 38}
Metric = Literal["accuracy", "generalization_gap"]
TITLES = {"accuracy": "Accuracy at the end (%)", "generalization_gap": "Training minus reported accuracy (points)"}


@public
def instability(frame: Tidy, *, metric: Metric = "accuracy", width: Count = 420, height: Count = 280) -> alt.LayerChart:
    """Draw the accuracy (or the generalization gap) at the last epoch against mean stability, a dot per run and domain.

    The text above gives each domain's rank correlation over the runs, and a warning if there are fewer than 8 runs.

    Args:
        frame: the table of `diagnostics.instability`.
        metric: "accuracy" or "generalization_gap".
        width, height: size of the plot, in pixels.
    """
    check_table(frame, "diagnostics.instability(runs)", columns=("run", "rate"))
    rows = instability_rows(frame, metric=metric)
    ends = [row["stable"] for row in rows] or [100.0]
    margin = max(2.0, 0.08 * (max(ends) - min(ends)))
    span: Rows = [{"stable": min(ends) - margin}, {"stable": max(100.0, max(ends)) + margin}]
    title = titled("Instability of pruning", frame, below=_correlations(frame, metric))
    chart = _layers(rows, span, metric=metric, gap=LABEL_HEIGHT / max(height, 1))
    return finish(chart, width=width, height=height, padding=PADDING, title=title)


def instability_rows(frame: pd.DataFrame, *, metric: str = "accuracy") -> Rows:
    """Return the chart's rows; runs without a mean stability are not drawn."""
    stable = {r["run"]: r["value"] for r in records(frame, metric="mean_stability") if is_missing(r["domain"])}
    styles = domain_styles_of(frame)
    rows: Rows = []
    for row in records(frame, metric=metric):
        if row["stage"] != "last" or is_missing(stable.get(row["run"])):
            continue
        name, point = str(row["domain"]), point_of(styles[str(row["domain"])], exposure=exposure_of(row))
        about = {"run": int(row["run"]), "domain": name, "stable": stable[row["run"]], "settings": row["settings"]}
        rows.append({**about, **interval_of(row), **point})
    return rows


def _correlations(frame: pd.DataFrame, metric: str) -> list[str]:
    """Lines of text: the correlation of each domain, and the warning if there are few runs."""
    lines, warning = [], None
    for row in records(frame, metric="kendall"):
        if row["of_metric"] == metric and row["within"] == "all rates":
            tau = "undefined" if is_missing(row["value"]) else f"{row['value']:+.2f}"
            ends = "" if is_missing(row["low"]) else f" ({row['low']:+.2f} to {row['high']:+.2f})"
            lines.append(f"{row['domain']}: rank correlation {with_minus(tau + ends)}")
            warning = None if is_missing(row["warning"]) else str(row["warning"])
    return [*lines[:3], *([warning[0].upper() + warning[1:]] if warning else [])]


def _layers(rows: Rows, span: Rows, *, metric: str, gap: float) -> alt.LayerChart:
    """Draw intervals, dots and run numbers; the domains' names stand at the right, at the height of their dots."""
    scale = alt.Scale(nice=False, zero=False)
    x = alt.X("stable:Q", scale=scale, title="Mean stability of the run (%)", axis=alt.Axis(tickCount=6))
    y = alt.Y("value:Q", scale=alt.Scale(zero=False, nice=True), title=TITLES[metric])
    base = rows_of("runs", rows)
    fields = {
        "run": "Run",
        "domain": "Domain",
        "settings": "Settings",
        "stable": ("Mean stability %", ".1f"),
        "value": ("At the end", ".1f"),
    }
    tips = tooltip(fields, ends=".1f", looked=True)
    rule = base.mark_rule(strokeWidth=1.4, opacity=0.5)
    number = base.mark_text(style="words", dx=11, dy=-7, align="left", fontSize=10.7)
    return layered(
        rows_of("ends", span).mark_point(opacity=0).encode(x=x),
        rule.encode(x=x, y=of_field(y, "low"), y2="high:Q", stroke=COLOUR),
        *point_marks(base, size=60, stroke=1.6, at={"x": x, "y": y}, tips=tips),
        number.encode(x=x, y=y, text="run:Q"),
        line_names(rows_of("names", _names(rows, gap)), x=RIGHT, y=y),
    )


def _names(rows: Rows, gap: float) -> Rows:
    """The name of each domain at the mean height of its dots; names are at least `gap` of the plot's height apart."""
    ends = [row[key] for row in rows for key in ("low", "high")]
    names: Rows = []
    for name in dict.fromkeys(row["domain"] for row in rows):
        points = [row for row in rows if row["domain"] == name]
        height = sum(row["value"] for row in points) / len(points)
        names.append({"label": shortened(name, most=20), "value": height, "colour": points[0]["colour"]})
    step = gap * max(1.0, max(ends, default=1.0) - min(ends, default=0.0))
    return spread(names, gap=step, low=-math.inf, high=math.inf)
