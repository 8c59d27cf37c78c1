"""Does a scorer remove those first that notice the domain? Each filter's |d| against its place in the scorer's order.

Named data: `against_0`, `against_1`, ...: a row per filter (place in %, size, look, group, filter).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ...core import is_missing
from ..theme import layered, marked, named, records

COLUMNS = 4
_HEIGHT, _SPACING, _AXIS = 150, 30, 44

Rows = list[dict[str, Any]]


def against(frame: pd.DataFrame, *, width: int) -> alt.VConcatChart | None:
    """A plot per scorer of a table of `diagnostics.sensitivity`; None where it has none.

    Args:
        frame: the table.
        width: of all plots of a line together, in pixels.
    """
    found = against_rows(frame)
    if not found:
        return None
    columns = min(COLUMNS, len(found))
    each = (width - _AXIS * columns - _SPACING * (columns - 1)) // max(columns, 3)
    most = max(row["size"] for rows in found.values() for row in rows)
    plots = [_plot(f"against_{k}", found[name], _title(frame, name), each, most) for k, name in enumerate(found)]
    lines = [alt.hconcat(*plots[k : k + columns], spacing=_SPACING) for k in range(0, len(plots), columns)]
    return alt.vconcat(*lines, spacing=26)


def against_rows(frame: pd.DataFrame) -> dict[str, Rows]:
    """Scorer -> a row per filter; place 0 goes first, 100 last, over the whole network, ties share their mean place."""
    known: dict[tuple[str, int], tuple[float, bool]] = {}
    for row in records(frame, metric="cohens_d"):
        told = not is_missing(row["low"]) and (row["low"] > 0 or row["high"] < 0)
        known[str(row["group"]), int(row["filter"])] = float(row["value"]), bool(told)
    most = max((abs(value) for value, _ in known.values() if value == value), default=0.0)
    found: dict[str, Rows] = {}
    for row in records(frame, metric="score"):
        found.setdefault(str(row["scorer"]), []).append(row)
    drawn: dict[str, Rows] = {}
    for name, rows in found.items():
        places = 100 * (rankdata([row["value"] for row in rows]) - 1) / max(len(rows) - 1, 1)
        drawn[name] = []
        for row, place in zip(rows, np.round(places, 2).tolist(), strict=True):
            value, told = known[str(row["group"]), int(row["filter"])]
            size = abs(value) if value == value else most
            drawn[name].append(
                {
                    "place": place,
                    "size": round(size, 4),
                    "look": "dot" if told else "ring",
                    "group": row["group"],
                    "filter": int(row["filter"]),
                }
            )
    return drawn


def _title(frame: pd.DataFrame, scorer: str) -> alt.Title:
    """The scorer's name with its mark, and the rank correlation in words, that of all filters last."""
    one = next(row for row in records(frame, metric="score") if row["scorer"] == scorer)
    whole, *answering = (
        row
        for metric in ("rank_correlation", "rank_correlation_answering")
        for row in records(frame, metric=metric)
        if row["scorer"] == scorer
    )
    words = correlation_words(whole)
    if answering:  # filters that never answer make an order by themselves, as most scorers remove them first
        words = [*correlation_words(answering[0]), f"with silent filters: {words[1].removeprefix('rank correlation ')}"]
    return alt.Title(text=marked(scorer, one["target_aware"]), subtitle=words, offset=8)


def correlation_words(row: Mapping[str, Any]) -> list[str]:
    """What a row of metric "rank_correlation" says: which filters the scorer removes first.

    >>> correlation_words({"value": -0.5, "low": -0.6, "high": -0.4})[0]
    'removes those last that notice most'
    """
    if is_missing(row["value"]):
        return ["no order to compare", ""]
    known = not (is_missing(row["low"]) or is_missing(row["high"]))
    words = "no order that can be told from chance"
    if known and row["low"] > 0:
        words = "removes those first that notice most"
    elif known and row["high"] < 0:
        words = "removes those last that notice most"
    ends = f" ({row['low']:.2f} to {row['high']:.2f})" if known else ""
    return [words, f"rank correlation {row['value']:.2f}{ends}".replace("-", "\N{MINUS SIGN}")]


def _plot(name: str, rows: Rows, title: alt.Title, width: int, most: float) -> alt.LayerChart:
    x = alt.X(
        "place:Q",
        scale=alt.Scale(domain=[0, 100], nice=False),
        title="goes first → goes last (%)",
        axis=alt.Axis(values=[0, 25, 50, 75, 100]),
    )
    y = alt.Y(
        "size:Q",
        scale=alt.Scale(domain=[0, math.ceil(5 * most) / 5], nice=False),
        title="effect size |d|",
        axis=alt.Axis(tickCount=4),
    )
    tips = [
        alt.Tooltip("group:N", title="Layer"),
        alt.Tooltip("filter:Q", title="Filter"),
        alt.Tooltip("size:Q", title="|d|", format=".2f"),
    ]
    size = 22 if len(rows) < 600 else 8
    base = alt.Chart(alt.NamedData(name=name))
    drawn = layered(
        alt.Chart(named(name, rows))
        .transform_filter("datum.look === 'ring'")
        .mark_point(style="quiet", size=size, strokeWidth=1, opacity=0.8)
        .encode(x=x, y=y, tooltip=tips),
        base.transform_filter("datum.look === 'dot'")
        .mark_point(style="kept", size=size, filled=True, opacity=0.75)
        .encode(x=x, y=y, tooltip=tips),
    )
    return drawn.properties(width=width, height=_HEIGHT, title=title)
