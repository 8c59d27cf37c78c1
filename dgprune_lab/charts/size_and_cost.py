"""Chart C, size and cost: the share of the network that remains; the title names a scorer that looked at a target.

Named data: `left`, one row per quantity: what, share (0 to 100), text, percent, opacity; in the order in which the
bars are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import DgpruneError, Side, Tidy, exposure_label, is_missing, public, scorer_exposure
from .marks import LEFT, OPACITY, RIGHT, check_table, layered, rows_of
from .theme import Rows, finish, records

PADDING = {"left": 2, "right": 2, "top": 2, "bottom": 2}
QUANTITIES = {"filters": "Filters", "parameters": "Parameters", "macs": "MACs", "bytes": "File size"}


@public
def size_and_cost(
    frame: Tidy, *, full: Mapping[str, float] | None = None, width: Side = 280, height: Side = 148
) -> alt.LayerChart:
    """Draw what remains of filters, parameters, MACs and file size as bars, with absolute numbers.

    Args:
        frame: a tidy table with rows of the metrics filters, parameters, macs and bytes; if it has several
            ratios, the largest is drawn.
        full: metric -> the full network's number; None takes the rows at ratio 0.
        width, height: size of the plot, in pixels.

    Raises:
        DgpruneError: the full network's number of a metric is missing.
    """
    check_table(frame, "dg.sweep(study)", metrics=QUANTITIES)
    y = alt.Y("what:N", sort=None, axis=None, scale=alt.Scale(paddingInner=0.0, paddingOuter=0.0))
    share = alt.X("share:Q", scale=alt.Scale(domain=[0, 100], nice=False), axis=None)
    base = rows_of("left", size_rows(frame, full=full))
    bar: dict[str, Any] = {"size": 8, "yOffset": 7, "cornerRadius": 2}
    above: dict[str, Any] = {"dy": -7, "baseline": "middle"}
    text = base.mark_text(style="words", align="right", dx=-46, **above)
    percent = base.mark_text(style="strong", align="right", fontWeight=600, **above)
    chart = layered(
        base.mark_bar(style="track", **bar).encode(x=LEFT, x2=alt.X2Value("width"), y=y),
        base.mark_bar(style="kept", **bar).encode(x=share, y=y, opacity=OPACITY),
        base.mark_text(style="words", align="left", **above).encode(x=LEFT, y=y, text=alt.Text("what:N")),
        text.encode(x=RIGHT, y=y, text=alt.Text("text:N"), opacity=OPACITY),
        percent.encode(x=RIGHT, y=y, text=alt.Text("percent:N"), opacity=OPACITY),
    )
    largest = [row for metric in QUANTITIES for row in _rows_by_ratio(frame, metric)[-1:]]
    exposure = scorer_exposure(largest)
    title = None
    if exposure:
        name = "" if is_missing(largest[0]["scorer"]) else str(largest[0]["scorer"])
        title = alt.Title(
            (name + exposure_label(exposure)).strip(), fontSize=11, fontWeight="normal", offset=4, limit=width
        )
    return finish(chart, width=width, height=height, padding=PADDING, title=title)


def size_rows(frame: pd.DataFrame, *, full: Mapping[str, float] | None = None) -> Rows:
    """Return the chart's rows from a tidy table."""
    rows: Rows = []
    for metric in QUANTITIES:
        by_ratio = _rows_by_ratio(frame, metric)
        if not by_ratio:
            continue
        before = (full or {}).get(metric)
        if before is None:
            if by_ratio[0]["ratio_requested"] != 0.0:
                raise DgpruneError(
                    f"size_and_cost draws shares of the full network, but the table has no row of {metric!r} at "
                    f"ratio_requested 0; pass full={{{metric!r}: number}}, or measure the full network too."
                )
            before = float(by_ratio[0]["value"])
        rows.append(size_row(metric, float(by_ratio[-1]["value"]), full=before))
    return rows


def size_row(metric: str, value: float, *, full: float) -> dict[str, Any]:
    """Return the row of one metric, from its number for the pruned network and for the full network."""
    share = 100.0 * value / full if full else 0.0
    text = f"{amount(value, metric=metric)} of {amount(full, metric=metric)}"
    percent = f"{share:.{1 if 0 < share < 1 else 0}f} %"
    return {"what": QUANTITIES[metric], "share": share, "text": text, "percent": percent, "opacity": 1.0}


def _rows_by_ratio(frame: pd.DataFrame, metric: str) -> Rows:
    return sorted(records(frame, metric=metric), key=lambda row: row["ratio_requested"])


def amount(value: float, *, metric: str) -> str:
    """Return an absolute number as text, in three digits with its unit.

    >>> amount(1_234_567, metric="macs"), amount(512_000, metric="bytes"), amount(96, metric="filters")
    ('1.23 M', '512 kB', '96')
    """
    unit = "B" if metric == "bytes" else ""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size and (value >= 1e4 or unit):
            scaled = value / size
            digits = 2 if scaled < 10 else 1 if scaled < 100 else 0
            return f"{scaled:.{digits}f} {letter}{unit}"
    return f"{value:,.0f}" + (f" {unit}" if unit else "")
