"""Each run's final accuracy against its mean stability: a panel per domain, a dot per run, by treatment.

Named data: `runs_k` of the k-th panel, one row per run: run, domain, arm, treatment, control, stable (percent), at
(percent, the position of its dot), value, low, high (percent), settings, colour, shape, fill, looked; `ends`, the ends
of the horizontal axis: stable; `legend`.
"""

from __future__ import annotations

from typing import Any, Literal

import altair as alt
import pandas as pd

from ..core import Side, Tidy, exposure_label, exposure_of, is_missing, public, strongest_exposure
from .marks import COLOUR, check_table, fitted, for_field, layered, point_marks, rows_of, tooltip
from .theme import (
    DomainStyle,
    Rows,
    beside,
    domain_styles_of,
    grouped,
    interval_of,
    point_of,
    records,
    role_label,
    titled,
    with_minus,
)
from .treatments import STYLES, legend_marks, legend_rows

Metric = Literal["accuracy", "generalization_gap"]
TITLES = {"accuracy": "Accuracy at the end (%)", "generalization_gap": "Training minus reported accuracy (points)"}
_ARMS = {
    "nothing removed": "unpruned",
    "removed before training": "before",
    "smallest removed": "smallest_high",
    "largest removed": "largest_high",
    "random removed": "random_high",
    "zeroed for a while": "zero_middle",
    "noise": "noise",
    "restored": "zero_short",
}
"""Treatment -> the arm of the study `instability` whose colour and mark it takes."""


@public
def instability(frame: Tidy, *, metric: Metric = "accuracy", width: Side = 240, height: Side = 240) -> alt.HConcatChart:
    """Draw the accuracy (or the generalization gap) at the last epoch against mean stability, a panel per domain.

    Colour and mark are those of a run's treatment. Hollow marks are controls, from which nothing was removed while they
    trained: they stand at 100 % by definition, drawn side by side around it, and do not count in the correlations. The
    text above gives each domain's rank correlation over the other runs, or a warning if these are fewer than 8.

    Args:
        frame: the table of `diagnostics.instability`.
        metric: "accuracy" or "generalization_gap".
        width, height: size of one panel, in pixels.
    """
    check_table(frame, "diagnostics.instability(runs)", columns=("run", "rate", "treatment"))
    rows, styles = instability_rows(frame, metric=metric), domain_styles_of(frame)
    stable = [row["stable"] for row in rows] or [100.0]
    margin = max(2.0, 0.08 * (max(stable) - min(stable)))
    _place_controls(rows, margin=margin)
    span: Rows = [{"stable": min(stable) - margin}, {"stable": max(100.0, *stable) + margin}]
    panels, domains = [], grouped(rows, lambda row: row["domain"]) or {"": Rows()}
    for k, (name, runs) in enumerate(domains.items()):
        legend = legend_marks(legend_rows(rows), left=width + 22) if k == len(domains) - 1 else []
        layers = [*_draw_layers(runs, span, place=k, metric=metric), *_draw_heading(name, runs, styles), *legend]
        panels.append(layered(*layers).properties(width=width, height=height))
    below = _correlation_lines(frame, metric)
    if any(row["control"] for row in rows):
        below.append("Controls (hollow marks) are not counted.")
    title = titled("Instability of pruning and the end of training", frame, below=below)
    return beside(*panels, title=title, padding=(28, 28, 6, 6))


def instability_rows(frame: pd.DataFrame, *, metric: str = "accuracy") -> Rows:
    """Return the chart's rows; runs without a mean stability are not drawn."""
    stable = {r["run"]: r["value"] for r in records(frame, metric="mean_stability") if is_missing(r["domain"])}
    rows: Rows = []
    for row in records(frame, metric=metric):
        if row["stage"] != "last" or is_missing(stable.get(row["run"])):
            continue
        arm = _ARMS[row["treatment"]]
        exposure, control = exposure_of(row), arm in ("unpruned", "before")
        point = point_of(STYLES[arm], exposure=exposure)
        about = {name: row[name] for name in ("domain", "treatment", "settings")} | {"run": int(row["run"]), "arm": arm}
        about |= {"stable": stable[row["run"]], "control": control, "exposure": exposure}
        rows.append({**about, **interval_of(row), **point, **({"fill": "transparent"} if control else {})})
    return rows


def _place_controls(rows: Rows, *, margin: float) -> None:
    """Add each run's position: its mean stability, but with controls spread side by side around it."""
    controls = sorted({row["run"] for row in rows if row["control"]})
    step = margin * min(0.6, 1.5 / max(1, len(controls)))
    shift = {run: step * (place - (len(controls) - 1) / 2) for place, run in enumerate(controls)}
    for row in rows:
        row["at"] = row["stable"] + shift.get(row["run"], 0.0)


def _draw_heading(name: str, rows: Rows, styles: dict[str, DomainStyle]) -> list[alt.Chart]:
    """Write a panel's domain in its colour, at a fixed height, whatever the labels of the axes."""
    if not rows:
        return []
    about = role_label(styles[name].role) + exposure_label(strongest_exposure(row["exposure"] for row in rows))
    style: Any = {"style": "strong", "fontWeight": "bold", "fill": styles[name].colour}
    head = alt.Chart(alt.InlineData(values=[{}]))
    return [head.mark_text(align="left", x=0, y=-14, text=fitted(name, about), **style)]


def _correlation_lines(frame: pd.DataFrame, metric: str) -> list[str]:
    """Return lines of text: the correlation of each domain, or a warning if there are few runs."""
    lines = []
    for row in records(frame, metric="kendall"):
        if row["of_metric"] == metric and row["within"] == "all rates":
            if not is_missing(row["warning"]):
                return [str(row["warning"])[0].upper() + str(row["warning"])[1:]]
            tau = "undefined" if is_missing(row["value"]) else f"{row['value']:+.2f}"
            ends = "" if is_missing(row["low"]) else f" ({row['low']:+.2f} to {row['high']:+.2f})"
            lines.append(f"{row['domain']}: rank correlation {with_minus(tau + ends)}")
    return lines[:3]


def _draw_layers(rows: Rows, span: Rows, *, place: int, metric: str) -> list[alt.Chart]:
    scale = alt.Scale(nice=False, zero=False)
    x = alt.X("at:Q", scale=scale, title="Mean stability of the run (%)", axis=alt.Axis(tickCount=5))
    y = alt.Y("value:Q", scale=alt.Scale(zero=False, nice=True), title=TITLES[metric])
    base = rows_of(f"runs_{place}", rows)
    fields = {
        "treatment": "Treatment",
        "run": "Run",
        "domain": "Domain",
        "settings": "Settings",
        "stable": ("Mean stability %", ".1f"),
        "value": ("At the end", ".1f"),
    }
    tips = tooltip(fields, ends=".1f", looked=True)
    rule = base.mark_rule(strokeWidth=1.4, opacity=0.5)
    return [
        rows_of("ends", span).mark_point(opacity=0).encode(x=for_field(x, "stable")),
        rule.encode(x=x, y=for_field(y, "low"), y2=alt.Y2("high:Q"), stroke=COLOUR),
        *point_marks(base, size=70, stroke=1.6, at={"x": x, "y": y}, tips=tips),
    ]
