"""Does a scorer remove domain-sensitive filters first? Each filter's |d| against its place in the scorer's order.

Named data: `against_0`, `against_1`, ...: a row per filter (place in %, size, mark, group, filter).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from textwrap import wrap
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from ...core import is_missing
from ..marks import layered, rows_of, tooltip
from ..theme import Rows, grouped, marked, records, with_minus
from .map import is_significant

COLUMNS = 4
_HEIGHT, _SPACING, _AXIS = 150, 30, 44
_LETTER = 5.9  # pixels of a letter below a title, on average
_ORDER = ["removed first → last", "(% of the filters removed before)"]
_STACK = 5  # number of filters at one place from which their count is written
_JOIN = "\N{NO-BREAK SPACE}"


def against(frame: pd.DataFrame, *, width: int) -> alt.VConcatChart | None:
    """Return a plot per scorer in a table of `diagnostics.sensitivity`, `width` pixels per line; None for no scorer."""
    rows = against_rows(frame)
    if not rows:
        return None
    columns = min(COLUMNS, len(rows))
    side = (width - _AXIS * columns - _SPACING * (columns - 1)) // max(columns, 3)
    end = math.ceil(5 * max(row["size"] for points in rows.values() for row in points)) / 5
    below = {scorer: _correlation_lines(frame, scorer, letters=int((side + _AXIS) / _LETTER)) for scorer in rows}
    deepest = max(map(len, below.values()))
    plots = []
    for k, (scorer, points) in enumerate(rows.items()):
        target_aware = next(row["target_aware"] for row in records(frame, metric="score") if row["scorer"] == scorer)
        lines = below[scorer] + [""] * (deepest - len(below[scorer]))
        title = alt.Title(text=marked(scorer, target_aware), subtitle=lines, offset=8, limit=side + _AXIS)
        plots.append(_draw_plot(f"against_{k}", points, end=end).properties(width=side, height=_HEIGHT, title=title))
    lines = [alt.hconcat(*plots[k : k + columns], spacing=_SPACING) for k in range(0, len(plots), columns)]
    return alt.vconcat(*lines, spacing=26)


def against_rows(frame: pd.DataFrame) -> dict[str, Rows]:
    """Return scorer -> a row per filter; place 0 is removed first, place 100 last; ties share their mean place."""
    from scipy.stats import rankdata

    effects = {(str(row["group"]), int(row["filter"])): row for row in records(frame, metric="cohens_d")}
    sizes = {key: abs(float(row["value"])) for key, row in effects.items()}
    most = max((size for size in sizes.values() if not math.isnan(size)), default=0.0)
    points: dict[str, Rows] = {}
    for name, rows in grouped(records(frame, metric="score"), lambda row: str(row["scorer"])).items():
        places = 100 * (rankdata([row["value"] for row in rows]) - 1) / max(len(rows) - 1, 1)
        points[name] = []
        for row, place in zip(rows, np.round(places, 2).tolist(), strict=True):
            key = str(row["group"]), int(row["filter"])
            size = most if math.isnan(sizes[key]) else sizes[key]
            mark = "dot" if is_significant(effects[key]) else "ring"
            points[name].append(
                {"place": place, "size": round(size, 4), "mark": mark, "group": key[0], "filter": key[1]}
            )
    return points


def _correlation_lines(frame: pd.DataFrame, scorer: str, *, letters: int) -> list[str]:
    """Return the rank correlations as lines of at most `letters` characters, ending with the one over all filters."""
    overall, *active = (
        row
        for metric in ("rank_correlation", "rank_correlation_active")
        for row in records(frame, metric=metric)
        if row["scorer"] == scorer
    )
    lines = correlation_words(overall)
    if active:  # constant filters alone give a correlation, as most scorers remove them together
        number = lines[1].removeprefix("rank correlation ") or "none"
        lines = [*correlation_words(active[0]), "of active filters", f"all filters: {number}"]
    joined = (re.sub(r"\([^)]*\)", lambda match: match.group().replace(" ", _JOIN), line) for line in lines)
    return [part.replace(_JOIN, " ") for line in joined for part in wrap(line, letters) or [""]]


def correlation_words(row: Mapping[str, Any]) -> list[str]:
    """Return the meaning of a "rank_correlation" row as text: which filters the scorer removes first.

    >>> correlation_words({"value": -0.5, "low": -0.6, "high": -0.4})[0]
    'removes the most sensitive filters last'
    """
    if is_missing(row["value"]):
        return ["no order to compare", ""]
    known = not (is_missing(row["low"]) or is_missing(row["high"]))
    verdict = "order not significant"
    if known and row["low"] > 0:
        verdict = "removes the most sensitive filters first"
    elif known and row["high"] < 0:
        verdict = "removes the most sensitive filters last"
    ends = f" ({row['low']:.2f} to {row['high']:.2f})" if known else ""
    return [verdict, with_minus(f"rank correlation {row['value']:.2f}{ends}")]


def _draw_plot(name: str, rows: Rows, *, end: float) -> alt.LayerChart:
    axis = alt.Axis(values=[0, 25, 50, 75, 100])
    scale = alt.Scale(domain=[0, 100], nice=False)
    x = alt.X("place:Q", scale=scale, title=_ORDER, axis=axis)
    scale = alt.Scale(domain=[0, end], nice=False)
    y = alt.Y("size:Q", scale=scale, title="effect size |d|", axis=alt.Axis(tickCount=4))
    tips = tooltip({"group": "Layer", "filter": "Filter", "size": ("|d|", ".2f")})
    size = 22 if len(rows) < 600 else 8
    base = rows_of(name, rows).encode(x=x, y=y, tooltip=tips)
    rings, dots = (base.transform_filter(f"datum.mark === '{mark}'") for mark in ("ring", "dot"))
    stacks = rows_of(name, rows).transform_aggregate(filters="count()", groupby=["place", "size"])
    stacks = stacks.transform_filter(f"datum.filters >= {_STACK}").transform_calculate(text="datum.filters + ' here'")
    return layered(
        rings.mark_point(style="quiet", size=size, strokeWidth=1, opacity=0.8),
        dots.mark_point(style="kept", size=size, filled=True, opacity=0.75),
        stacks.mark_text(style="words", fontSize=10.7, dy=-11).encode(x=x, y=y, text=alt.Text("text:N")),
    )
