"""The drop of accuracy against the share removed: a line per domain, a plot per scorer.

Named data of plot k: `curves_k`, `gaps_k`, `names_k`, as in `sweep`; in percentage points, or % of the accuracy before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import altair as alt
import pandas as pd

from ..core import Positive, Side, Tidy, exposure_label, is_missing, public, scorer_exposure
from .drop import CAPTION, NOT_OVERALL, POINTS, is_overall
from .marks import ZERO, check_table, curve_layers, layered, line_names, rows_of, step_above, tooltip
from .sweep import REMOVED, sweep_data, sweep_points
from .theme import Rows, beside, grouped, records, titled

Metric = Literal["accuracy_change", "relative_drop"]
TITLES = {"accuracy_change": POINTS, "relative_drop": "Share of the accuracy lost (%)"}


@public
def drop_curve(
    frame: Tidy, *, metric: Metric = "accuracy_change", step: Positive = 0.05, width: Side = 360, height: Side = 260
) -> alt.HConcatChart:
    """Draw the accuracy drop right after removal against the share removed, a line per domain with its interval.

    Neighbouring ratios at most `step` apart are joined by a solid line; a wider gap, where nothing was measured, by
    faint dots. A domain without a relative drop, because its accuracy was at chance before, is listed below the title.

    Args:
        frame: a table of `diagnostics.drop`; only rows about the whole network and all classes are drawn, several
            scorers or networks side by side on one scale.
        metric: "accuracy_change", in percentage points (negative: lost), or "relative_drop", in percent of the
            accuracy before (positive: lost).
        step: largest distance between neighbouring ratios that are joined by a solid line.
        width, height: size of one plot, in pixels.

    Raises:
        DgpruneError: an unknown metric.
    """
    check_table(frame, "diagnostics.drop(study)", metrics=(metric,), where=is_overall, instead=NOT_OVERALL)
    overall = cast(pd.DataFrame, frame[[is_overall(row) for row in records(frame)]])
    rows = records(overall, metric=metric)
    groups = grouped(rows, _plot_key) or {("", ""): Rows()}
    networks = {network for network, _ in groups}
    span = _axis_span(rows)
    plots = []
    for k, ((network, scorer), used) in enumerate(groups.items()):
        known = pd.DataFrame([row for row in used if not is_missing(row["value"])], columns=overall.columns)
        data = sweep_data(
            sweep_points(known, metric=metric), now=None, chance=None, step=step, height=height, ends=span
        )
        name = f"{scorer}{exposure_label(scorer_exposure(used))}" + (f", {network}" if len(networks) > 1 else "")
        at_chance = dict.fromkeys(str(row["domain"]) for row in used if is_missing(row["value"]))
        below = [f"{domain}: at chance before, so it has no relative drop" for domain in at_chance]
        title = alt.Title(text=name, subtitle=below)
        plot = _draw_plot(data, suffix=f"_{k}", metric=metric, span=span)
        plots.append(plot.properties(width=width, height=height, title=title))
    counts = sorted({int(row["images"]) for row in rows if not is_missing(row["images"])})
    ends = " to ".join(f"{count:,}" for count in dict.fromkeys((*counts[:1], *counts[-1:])))
    caption = f"{CAPTION} {ends} images of each domain." if ends else CAPTION
    return beside(*plots, title=titled("Accuracy change", frame, below=[caption], change=True))


def _plot_key(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("network")), str(row["scorer"])


def _axis_span(rows: Rows) -> tuple[float, float]:
    """Return both ends of the axis, each rounded away from 0 to the next step, and at least 5 from 0."""
    ends = [100 * row[name] for row in rows for name in ("value", "low", "high") if not is_missing(row[name])]
    return -float(step_above(-min([0.0, *ends]))), float(step_above(max([0.0, *ends])))


def _draw_plot(data: Mapping[str, Rows], *, suffix: str, metric: Metric, span: tuple[float, float]) -> alt.LayerChart:
    """Draw one plot: zero line, bands, lines, points and names."""
    curves, gaps, names = (rows_of(f"{name}{suffix}", data[name]) for name in ("curves", "gaps", "names"))
    scale, title = alt.Scale(domain=list(span), nice=False, clamp=True), TITLES[metric]
    value = alt.Y("value:Q", scale=scale, title=title, axis=alt.Axis(tickCount=6))
    fields = {"domain": "Domain", "removed": ("Removed %", ".0f"), "value": (title, "+.1f")}
    tips = tooltip(fields, ends="+.1f", looked=True)
    zero = alt.Chart(alt.InlineData(values=[{}])).mark_rule(**ZERO)
    return layered(
        zero.encode(y=alt.YDatum(0, scale=scale, title=title)),
        *curve_layers(curves, gaps, x=REMOVED, value=value, tips=tips),
        line_names(names, x=REMOVED, y=value),
    )
