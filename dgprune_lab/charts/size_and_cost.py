"""Chart C: what is left of the network; its title names a choice that looked at a target, or that nobody knows of.

Named data: `left`, one row per quantity: what, share (0 to 100), text, opacity; in the order in which they are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import DgpruneError, exposure_label, is_missing, scorer_exposure
from .theme import finish, layered, named, records

PADDING = {"left": 2, "right": 2, "top": 2, "bottom": 2}
QUANTITIES = {"filters": "Filters", "parameters": "Weights", "macs": "Computation", "bytes": "File size"}


def size_and_cost(
    frame: pd.DataFrame, *, full: Mapping[str, float] | None = None, width: int = 280, height: int = 148
) -> alt.LayerChart:
    """Draw what is left of filters, weights, computation and file size as bars, with absolute numbers.

    Args:
        frame: a tidy table with rows of the metrics filters, parameters, macs and bytes; of several ratios the
            largest is drawn.
        full: the full network's numbers by metric; without it they are the rows at ratio 0.

    Raises:
        DgpruneError: the full network's number of a metric is nowhere to be found.
    """
    chart = _layers(left_rows(frame, full=full))
    drawn = [row for metric in QUANTITIES for row in _by_ratio(frame, metric)[-1:]]
    exposure = scorer_exposure(drawn)
    if not exposure:
        return finish(chart, width=width, height=height, padding=PADDING)
    name = "" if is_missing(drawn[0]["scorer"]) else str(drawn[0]["scorer"])
    title = alt.Title(
        (name + exposure_label(exposure)).strip(), fontSize=11, fontWeight="normal", offset=4, limit=width
    )
    return finish(chart.properties(title=title), width=width, height=height, padding={**PADDING, "top": 22})


def left_rows(frame: pd.DataFrame, *, full: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
    """The chart's rows from a tidy table."""
    rows: list[dict[str, Any]] = []
    for metric, words in QUANTITIES.items():
        found = _by_ratio(frame, metric)
        if not found:
            continue
        whole = (full or {}).get(metric)
        if whole is None:
            if found[0]["ratio_requested"] != 0.0:
                raise DgpruneError(
                    f"left draws shares of the full network, but the table has no row of {metric!r} at "
                    f"ratio_requested 0; pass full={{{metric!r}: number}}, or measure the full network too."
                )
            whole = float(found[0]["value"])
        now = float(found[-1]["value"])
        share = 100.0 * now / whole if whole else 0.0
        text = f"{amount(now, metric=metric)} of {amount(whole, metric=metric)}"
        percent = f"{share:.{1 if 0 < share < 1 else 0}f} %"
        rows.append({"what": words, "share": share, "text": text, "percent": percent, "opacity": 1.0})
    return rows


def _by_ratio(frame: pd.DataFrame, metric: str) -> list[dict[str, Any]]:
    return sorted(records(frame, metric=metric), key=lambda row: row["ratio_requested"])


def amount(value: float, *, metric: str) -> str:
    """An absolute number in three digits, with its unit.

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


def _layers(rows: list[dict[str, Any]]) -> alt.LayerChart:
    """A track for the full network, a bar for what is left, and the words above it."""
    band = alt.Y("what:N", sort=None, axis=None, scale=alt.Scale(paddingInner=0.0, paddingOuter=0.0))
    share = alt.X("share:Q", scale=alt.Scale(domain=[0, 100], nice=False), axis=None)
    seen = alt.Opacity("opacity:Q", scale=None)
    base = alt.Chart(alt.NamedData(name="left"))
    words: dict[str, Any] = {"dy": -7, "baseline": "middle"}
    return layered(
        alt.Chart(named("left", rows))
        .mark_bar(style="track", size=8, yOffset=7, cornerRadius=2)
        .encode(x=alt.value(0), x2=alt.value("width"), y=band),
        base.mark_bar(style="kept", size=8, yOffset=7, cornerRadius=2).encode(x=share, y=band, opacity=seen),
        base.mark_text(style="words", align="left", **words).encode(x=alt.value(0), y=band, text="what:N"),
        base.mark_text(style="words", align="right", dx=-46, **words).encode(
            x=alt.value("width"), y=band, text="text:N", opacity=seen
        ),
        base.mark_text(style="strong", align="right", fontWeight=600, **words).encode(
            x=alt.value("width"), y=band, text="percent:N", opacity=seen
        ),
    )
