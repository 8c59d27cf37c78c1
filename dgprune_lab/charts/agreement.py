"""Scorer agreement: every pair of scorers as heat maps, or one scorer against the others as dots.

Named data, all of which a live page may replace; shares in percent:

| name | one row is | fields |
|---|---|---|
| ranks, overlaps | a cell of a heat map | row, column, text, fill, ink, scorer, other, interval, chance |
| ranks, overlaps | a dot of one scorer | place, label, scorer, value, low, high, chance_low, chance_high, text, mark |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt
import pandas as pd

from ..core import Count, Tidy, is_missing, public, scorer_exposure
from .marks import FILL, check_table, for_field, layered, row_labels, row_numbers, rows_of, tooltip
from .pixels.heat import ink_on, mixed
from .theme import TARGET_AWARE, Rows, beside, check_present, interval_of, marked, records, with_minus

METRICS = {"ranks": "rank_correlation", "overlaps": "overlap"}
ROW = 24

_ALIKE, _OPPOSITE = "#542788", "#B35806"  # distinct with any colour vision
_BLANK = "#E6E9ED"


@public
def agreement(frame: Tidy, *, scorer: str | None = None, cell: Count = 44) -> alt.HConcatChart:
    """Draw the rank correlation of every pair of scorers, and beside it the share of kept filters that both keep.

    Two heat maps with the numbers in the cells. The colour of an overlap is (overlap - chance) / (1 - chance): white at
    the chance level, like a rank correlation of 0. A diamond marks a scorer that looked at a target.

    Args:
        frame: a table of `diagnostics.agreement`; its rows for the whole network are drawn.
        scorer: draw dots that compare this scorer with every other, instead of heat maps; the chance level is grey.
        cell: side of one cell, in pixels.
    """
    check_table(
        frame, "diagnostics.agreement(study)", columns=("other", "scorer_target_aware"), metrics=METRICS.values()
    )
    if scorer is None:
        return beside(*(_draw_map(name, frame, cell=cell) for name in METRICS), spacing=36)
    check_present(frame, "scorer", scorer)
    chart = dot_chart({name: dots(frame, scorer=scorer, metric=metric) for name, metric in METRICS.items()})
    aware = _read_awareness(_all_rows(frame, "overlap"))
    chart.title = alt.Title(text=f"Compared with {marked(scorer, aware.get(scorer, False))}")
    return chart


def dots(frame: pd.DataFrame, *, scorer: str, metric: str, labels: Mapping[str, str] | None = None) -> Rows:
    """Return the rows of a dot chart: one per scorer that `scorer` is compared with, in the order of the table.

    The metric is "rank_correlation" or "overlap" (in percent); `labels` maps a scorer to its name on screen.
    """
    chance = {_scorers(row): row for row in _all_rows(frame, f"{metric}_by_chance")}
    rows: Rows = []
    for row in _all_rows(frame, metric):
        if scorer not in _scorers(row):
            continue
        side = "other" if row["scorer"] == scorer else "scorer"
        name, target_aware = str(row[side]), row[f"{side}_target_aware"]
        value, low, high = _read_interval(row)
        _, chance_low, chance_high = _read_interval(chance[_scorers(row)])
        label, text = marked((labels or {}).get(name, name), target_aware), _format_number(value, row["unit"])
        ends = {"low": low, "high": high, "chance_low": chance_low, "chance_high": chance_high}
        about = {"place": len(rows), "label": label, "scorer": name, "text": text, "mark": dot_mark(target_aware)}
        rows.append({**about, "value": value, **ends})
    return rows


def waiting(label: str, *, text: str) -> dict[str, Any]:
    """Return the row of a scorer that has not been measured yet."""
    return {"label": label, "text": text, **dict.fromkeys(("value", "low", "high", "chance_low", "chance_high"))}


def dot_mark(target_aware: object, *, hollow: bool = False) -> Literal["diamond", "ring", "dot"]:
    """Return a scorer's mark: "diamond" (hollow) if it looked at a target, otherwise "ring" if `hollow`, or "dot"."""
    if scorer_exposure([{"target_aware": target_aware}]) == "target-aware":
        return "diamond"
    return "ring" if hollow else "dot"


def dot_chart(rows: Mapping[str, Rows] | None = None) -> alt.HConcatChart:
    """Return a chart of overlaps and rank correlations of one scorer with the others; rows may be added later."""
    plots = {
        "overlaps": ("Kept by both, in % of the kept filters", [0, 25, 50, 75, 100], ".0f"),
        "ranks": ("Rank correlation of the scores", [-1, -0.5, 0, 0.5, 1], ".1f"),
    }
    charts = []
    for name, (title, ticks, form) in plots.items():
        scale = alt.Scale(domain=[ticks[0], ticks[-1]], nice=False)
        value = alt.X("value:Q", scale=scale, title=title, axis=alt.Axis(values=ticks, format=form, orient="top"))
        digits = ".2f" if name == "ranks" else ".0f"
        fields = {
            "scorer": "Scorer",
            "value": ("Agreement", digits),
            "chance_low": ("by chance, from", digits),
            "chance_high": ("to", digits),
        }
        plot = dot_plot(name, (rows or {}).get(name, []), value=value, tips=tooltip(fields), labels=name == "overlaps")
        charts.append(plot.properties(width=200, height=alt.Step(ROW)))
    return beside(*charts)


def dot_plot(
    name: str, rows: Rows, *, value: alt.X, tips: Sequence[alt.Tooltip], labels: bool = True
) -> alt.LayerChart:
    """Draw labels, numbers, the chance level in grey, ranges, and dots, rings and diamonds.

    Each kind of mark is a layer, so that a dark page can colour it.
    """
    base, y = rows_of(name, rows), alt.Y("place:O", axis=None)
    size: dict[str, Any] = {"size": 66, "opacity": 1, "strokeWidth": 1.8}
    marks = {
        "dot": base.mark_point(style="kept", filled=True, **size),
        "ring": base.mark_point(style="kept", filled=False, **size),
        "diamond": base.mark_point(color=TARGET_AWARE, shape="diamond", filled=False, **size),
    }
    return layered(
        row_numbers(base, y=y),
        base.mark_bar(style="track", height=15).encode(
            x=for_field(value, "chance_low"), x2=alt.X2("chance_high:Q"), y=y
        ),
        *([row_labels(base, y=y)] if labels else []),
        base.mark_rule(style="kept", strokeWidth=2).encode(x=for_field(value, "low"), x2=alt.X2("high:Q"), y=y),
        *(
            mark.transform_filter(f"datum.mark === '{kind}'").encode(x=value, y=y, tooltip=list(tips))
            for kind, mark in marks.items()
        ),
    )


def _draw_map(name: str, frame: pd.DataFrame, *, cell: int) -> alt.LayerChart:
    """Draw one heat map; only the first has row names at the left."""
    rows = _cell_rows(frame, METRICS[name])
    side = max(cell * len({row["column"] for row in rows}), 1)
    scale = alt.Scale(paddingInner=0.04, paddingOuter=0.0)
    plain: dict[str, Any] = {"title": None, "ticks": False, "domain": False}
    x = alt.X("column:N", sort=None, axis=alt.Axis(orient="top", labelAngle=0, **plain), scale=scale)
    y = alt.Y("row:N", sort=None, axis=alt.Axis(labelLimit=320, labels=name == "ranks", **plain), scale=scale)
    fields = {"scorer": "Scorer", "other": "and", "text": "Agreement", "interval": "95 %", "chance": "by chance"}
    base = rows_of(name, rows).encode(x=x, y=y)
    chart = layered(
        base.mark_rect().encode(fill=FILL, tooltip=tooltip(fields)),
        base.mark_text(fontSize=11).encode(text=alt.Text("text:N"), fill=alt.Fill("ink:N", scale=None)),
    )
    return chart.properties(width=side, height=side, title=_make_title(name, frame))


def _make_title(name: str, frame: pd.DataFrame) -> alt.Title:
    """Return the title of a heat map, with the meaning of its colours below."""
    if name == "ranks":
        text, below = "Rank correlation of the scores", "purple alike, brown opposite"
    else:
        shares = [100 * row["value"] for row in _all_rows(frame, "overlap_by_chance")]
        removed = {row["ratio_requested"] for row in _all_rows(frame, "overlap")}
        ratio = f"{100 * removed.pop():.4g} % removed; " if len(removed) == 1 else ""
        ends = sorted({f"{share:.0f}" for share in (min(shares), max(shares))}, key=int) if shares else ["?"]
        text, below = "Kept by both, in %", f"{ratio}white is chance: {' to '.join(ends)} %"
    return alt.Title(text=text, subtitle=[below], offset=8)


def _cell_rows(frame: pd.DataFrame, metric: str) -> Rows:
    """Return the rows of a heat map: each pair of scorers in both orders; the diagonal is blank."""
    known, chance = ({_scorers(row): row for row in _all_rows(frame, kind)} for kind in (metric, f"{metric}_by_chance"))
    aware = _read_awareness(known.values())
    rows: Rows = []
    for k, scorer in enumerate(aware, start=1):
        for m, other in enumerate(aware, start=1):
            cell = {"row": f"{k}  {marked(scorer, aware[scorer])}", "column": str(m), "scorer": scorer, "other": other}
            row = known.get((scorer, other), known.get((other, scorer)))
            if row is None:
                rows.append({**cell, "text": "", "fill": _BLANK, "ink": _BLANK, "interval": "", "chance": ""})
                continue
            value, low, high = _read_interval(row)
            middle, *ends = _read_interval(chance[_scorers(row)])
            most = 1.0 if row["unit"] == "correlation" else 100.0
            defined = value is not None and middle is not None and middle < most
            shade = (value - middle) / (most - middle) if defined else 0.0  # type: ignore[operator]
            fill = mixed(_ALIKE if shade > 0 else _OPPOSITE, min(abs(shade), 1.0)).lower()
            interval = "" if is_missing(row["low"]) else f"{low:.2f} to {high:.2f}"
            by_chance = " to ".join(_format_number(end, row["unit"]) for end in ends)
            cell |= {"text": _format_number(value, row["unit"]), "fill": fill, "ink": ink_on(fill)}
            rows.append({**cell, "interval": interval, "chance": by_chance})
    return rows


def _all_rows(frame: pd.DataFrame, metric: str) -> Rows:
    """Return the table rows of this metric that are about the whole network."""
    return [row for row in records(frame, metric=metric) if row.get("group") == "all"]


def _scorers(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["scorer"]), str(row["other"])


def _read_awareness(rows: Any) -> dict[str, Any]:
    """Return scorer -> whether it is target-aware, in the order of the table."""
    return {str(row[side]): row[f"{side}_target_aware"] for row in rows for side in ("scorer", "other")}


def _read_interval(row: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    """Return value, low and high of a row; shares in percent, all three None if the value is missing."""
    if is_missing(row["value"]):
        return None, None, None
    scale = 0.01 if row["unit"] == "correlation" else 1.0
    value, low, high = (scale * number for number in interval_of(row).values())
    return value, low, high


def _format_number(value: float | None, unit: object) -> str:
    return "–" if value is None else with_minus(f"{value:.2f}" if unit == "correlation" else f"{value:.0f}")
