"""Share of images that turned from right to wrong, and from wrong to right, per domain.

Named data: `turned_wrong` and `turned_right` (place, label, domain, value, low, high in percent of the images; text,
colour, fill, shape, looked).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import Side, Tidy, exposure_label, exposure_of, public, scorer_exposure
from .drop import CAPTION, at_largest_ratio, is_overall
from .marks import check_table, interval_marks, layered, row_labels, row_numbers, rows_of, step_above, tooltip
from .theme import Rows, beside, domain_styles_of, interval_of, point_of, records, titled

METRICS = {"right_to_wrong": "Turned wrong (% of the images)", "wrong_to_right": "Turned right (% of the images)"}
_NAMES = {"right_to_wrong": "turned_wrong", "wrong_to_right": "turned_right"}
ROW = 24


@public
def flips(frame: Tidy, *, width: Side = 260) -> alt.HConcatChart:
    """Draw the shares of images that turned wrong and that turned right, for each domain a dot with its interval.

    Args:
        frame: a table of `diagnostics.flips`; if it has several ratios, the largest is drawn.
        width: width of one plot, in pixels.
    """
    check_table(frame, "diagnostics.flips(study)", metrics=METRICS)
    rows = {metric: flip_rows(frame, metric=metric) for metric in METRICS}
    end = step_above(max((row["high"] for plot_rows in rows.values() for row in plot_rows), default=0.0))
    plots = (_draw_plot(metric, rows[metric], end=end, width=width) for metric in METRICS)
    return beside(*plots, spacing=36, title=titled("Prediction flips", frame, below=[CAPTION], change=True))


def flip_rows(frame: pd.DataFrame, *, metric: str) -> Rows:
    """Return the rows of one plot in percent, with the number of images as text."""
    counts = {_row_key(row): row["value"] for row in records(frame, metric=f"{metric}_count")}
    used = at_largest_ratio([row for row in records(frame, metric=metric) if is_overall(row)])
    styles = domain_styles_of(frame)
    several = {name: len({row.get(name) for row in used}) > 1 for name in ("scorer", "network")}
    rows: Rows = []
    for row in used:
        exposure = exposure_of(row)
        labels = [f"{row['network']}"] * several["network"]
        labels += [f"{row['scorer']}{exposure_label(scorer_exposure([row]))}"] * several["scorer"]
        label = ", ".join([*labels, f"{row['domain']}{exposure_label(exposure)}"])
        text = f"{counts[_row_key(row)]:,.0f} of {row['images']:,}" if _row_key(row) in counts else ""
        about = {"place": len(rows), "label": label, "domain": str(row["domain"]), "text": text}
        rows.append({**about, **interval_of(row), **point_of(styles[str(row["domain"])], exposure=exposure)})
    return rows


def _row_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("network", "scorer", "ratio_requested", "domain"))


def _draw_plot(metric: str, rows: Rows, *, end: float, width: int) -> alt.LayerChart:
    """Draw one plot: intervals, dots and numbers of images; only the first plot has the names of the domains."""
    y = alt.Y("place:O", axis=None)
    value = alt.X("value:Q", scale=alt.Scale(domain=[0, end], nice=False), title=METRICS[metric])
    base = rows_of(_NAMES[metric], rows)
    tips = tooltip({"label": "Domain", "text": "images", "value": ("% of the images", ".1f")}, ends=".1f", looked=True)
    chart = layered(
        row_numbers(base, y=y),
        *([row_labels(base, y=y)] if metric == "right_to_wrong" else []),
        *interval_marks(base, value, at={"y": y}, tips=tips),
    )
    return chart.properties(width=width, height=alt.Step(ROW))
