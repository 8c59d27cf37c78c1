"""How far scorers agree: every two of them as heat maps, or one against the others as dots.

Named data, all of which a page may swap; shares in percent:

| name | one row is | fields |
|---|---|---|
| ranks, overlaps | a cell of a heat map | row, column, text, fill, ink, scorer, other, interval, chance |
| the same | a dot of one scorer | place, label, scorer, value, low, high, chance_low, chance_high, text, look |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt
import pandas as pd

from ..core import is_missing, scorer_exposure
from .theme import TARGET_AWARE, beside, ink_on, interval_of, layered, marked, named, records

METRICS = {"ranks": "rank_correlation", "overlaps": "overlap"}
ROW = 24

_ALIKE, _NEITHER, _OPPOSITE = (84, 39, 136), (246, 246, 244), (179, 88, 6)  # told apart with any colour vision
_BLANK = "#E6E9ED"
_MINUS = "\N{MINUS SIGN}"

Rows = list[dict[str, Any]]


def agreement(frame: pd.DataFrame, *, scorer: str | None = None, cell: int = 44) -> alt.HConcatChart:
    """Draw the rank correlation of every two scorers, and beside it how many of the kept filters they share.

    Heat maps with the numbers written in. The colour of an overlap is (overlap - chance) / (1 - chance): white where it
    is what chance gives, as a rank correlation of 0 is. A scorer that looked at a target carries a diamond.

    Args:
        frame: a table of `diagnostics.agreement`; the rows of the whole network are drawn.
        scorer: draw this one against the others instead, as dots with what chance gives in grey.
        cell: pixels of one cell.
    """
    if scorer is not None:
        whole = dot_chart({name: dots(frame, scorer=scorer, metric=metric) for name, metric in METRICS.items()})
        looked = {name: row[f"{side}_looked"] for row in _whole(frame, "overlap") for side, name in _sides(row)}
        whole.title = alt.Title(text=f"Compared with {marked(scorer, looked.get(scorer, 'none'))}")
        return whole
    return beside(_map("ranks", frame, cell), _map("overlaps", frame, cell), spacing=36)


def dots(frame: pd.DataFrame, *, scorer: str, metric: str, words: Mapping[str, str] | None = None) -> Rows:
    """The rows of a dot chart: one per other scorer, in the order of the table; shares in percent.

    Args:
        frame: a table of `diagnostics.agreement`.
        scorer: the one that the others are compared with.
        metric: "rank_correlation" or "overlap".
        words: what to call the others; by their names where not given.
    """
    chance = {_pair(row): row for row in _whole(frame, f"{metric}_by_chance")}
    rows: Rows = []
    for row in _whole(frame, metric):
        if scorer not in _pair(row):
            continue
        first = row["scorer"] == scorer
        name, looked = str(row["other"] if first else row["scorer"]), row["other_looked" if first else "scorer_looked"]
        value, low, high = _numbers(row)
        _, least, most = _numbers(chance[_pair(row)])
        rows.append(
            {
                "place": len(rows),
                "label": marked((words or {}).get(name, name), looked),
                "scorer": name,
                "value": value,
                "low": low,
                "high": high,
                "chance_low": least,
                "chance_high": most,
                "text": _text(value, row["unit"]),
                "look": dot_look(looked),
            }
        )
    return rows


def waiting(label: str, *, text: str) -> dict[str, Any]:
    """The row of a scorer whose numbers are not there yet."""
    return {"label": label, "text": text, **dict.fromkeys(("value", "low", "high", "chance_low", "chance_high"))}


def dot_look(looked: object, *, hollow: bool = False) -> Literal["diamond", "ring", "dot"]:
    """How a scorer is drawn: a hollow diamond where it looked at a target, else a ring or a dot."""
    if scorer_exposure([{"target_aware": looked}]) == "target-aware":
        return "diamond"
    return "ring" if hollow else "dot"


def dot_layers(base: alt.Chart, *, x: alt.X, low: alt.X, y: alt.Y, tips: list[alt.Tooltip]) -> list[alt.Chart]:
    """Ranges and, on them, dots, rings and diamonds; a layer each, so that a dark page can colour them."""
    size: dict[str, Any] = {"size": 66, "opacity": 1}
    marks = {
        "dot": base.mark_point(style="kept", filled=True, **size),
        "ring": base.mark_point(style="kept", filled=False, strokeWidth=1.8, **size),
        "diamond": base.mark_point(color=TARGET_AWARE, shape="diamond", filled=False, strokeWidth=1.8, **size),
    }
    points = [
        mark.transform_filter(f"datum.look === '{look}'").encode(x=x, y=y, tooltip=tips) for look, mark in marks.items()
    ]
    return [base.mark_rule(style="kept", strokeWidth=2).encode(x=low, x2="high:Q", y=y), *points]


def dot_chart(rows: Mapping[str, Rows] | None = None) -> alt.HConcatChart:
    """Overlaps and rank correlations of one scorer with the others, side by side; rows may be fed later."""
    return beside(*(_dots(name, (rows or {}).get(name, [])) for name in ("overlaps", "ranks")))


def _dots(name: str, rows: Rows) -> alt.LayerChart:
    """From the back: numbers, what chance gives in grey, the interval, the dot; the first chart has the names."""
    ranks = name == "ranks"
    scale = alt.Scale(domain=[-1, 1] if ranks else [0, 100], nice=False)
    title = "Rank correlation of the scores" if ranks else "Kept by both, in % of the kept filters"
    ticks, form = ([-1, -0.5, 0, 0.5, 1], ".1f") if ranks else ([0, 25, 50, 75, 100], ".0f")
    axis = alt.Axis(values=ticks, format=form, orient="top")
    place = alt.Y("place:O", axis=None)
    base = alt.Chart(alt.NamedData(name=name))
    value, low, ends = (
        alt.X(f"{field}:Q", scale=scale, title=title, axis=axis) for field in ("value", "low", "chance_low")
    )
    digits = ".2f" if ranks else ".0f"
    tips = [
        alt.Tooltip("scorer:N", title="Scorer"),
        alt.Tooltip("value:Q", title="Agreement", format=digits),
        alt.Tooltip("chance_low:Q", title="by chance, from", format=digits),
        alt.Tooltip("chance_high:Q", title="to", format=digits),
    ]
    chart = layered(
        alt.Chart(named(name, rows))
        .mark_text(style="strong", align="left", dx=12)
        .encode(x=alt.value("width"), y=place, text="text:N"),
        base.mark_bar(style="track", height=15).encode(x=ends, x2="chance_high:Q", y=place),
        *(
            []
            if ranks
            else [base.mark_text(style="words", align="right", dx=-9).encode(x=alt.value(0), y=place, text="label:N")]
        ),
        *dot_layers(base, x=value, low=low, y=place, tips=tips),
    )
    return chart.properties(width=200, height=alt.Step(ROW))


def _map(name: str, frame: pd.DataFrame, cell: int) -> alt.LayerChart:
    """One heat map; the second shares the names of the first."""
    rows, names = _cells(frame, METRICS[name])
    side = max(cell * len(names), 1)
    places = alt.Axis(title=None, labelLimit=320, ticks=False, domain=False, labels=name == "ranks")
    numbers = alt.Axis(title=None, orient="top", labelAngle=0, ticks=False, domain=False)
    apart = alt.Scale(paddingInner=0.04, paddingOuter=0.0)
    x, y = (
        alt.X("column:N", sort=None, axis=numbers, scale=apart),
        alt.Y("row:N", sort=None, axis=places, scale=apart),
    )
    tips = [
        alt.Tooltip("scorer:N", title="Scorer"),
        alt.Tooltip("other:N", title="and"),
        alt.Tooltip("text:N", title="Agreement"),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("chance:N", title="by chance"),
    ]
    chart = layered(
        alt.Chart(named(name, rows)).mark_rect().encode(x=x, y=y, fill=alt.Fill("fill:N", scale=None), tooltip=tips),
        alt.Chart(alt.NamedData(name=name))
        .mark_text(fontSize=11)
        .encode(x=x, y=y, text="text:N", fill=alt.Fill("ink:N", scale=None)),
    )
    return chart.properties(width=side, height=side, title=_title(name, frame))


def _title(name: str, frame: pd.DataFrame) -> alt.Title:
    """What is drawn, and what its colours say."""
    if name == "ranks":
        text, below = "Rank correlation of the scores", ["purple alike, brown opposite"]
    else:
        shares = [100 * row["value"] for row in _whole(frame, "overlap_by_chance")]
        removed = {row["ratio_requested"] for row in _whole(frame, "overlap")}
        at = f"{100 * removed.pop():.4g} % removed; " if len(removed) == 1 else ""
        ends = sorted({f"{share:.0f}" for share in (min(shares), max(shares))}, key=int) if shares else ["?"]
        text, below = "Kept by both, in %", [f"{at}white is chance: {' to '.join(ends)} %"]
    return alt.Title(text=text, subtitle=below, offset=8)


def _cells(frame: pd.DataFrame, metric: str) -> tuple[Rows, list[str]]:
    """Every cell of a heat map, both ways round, and the names in their order; the diagonal is blank."""
    found, chance = ({_pair(row): row for row in _whole(frame, kind)} for kind in (metric, f"{metric}_by_chance"))
    looked = {name: row[f"{side}_looked"] for row in found.values() for side, name in _sides(row)}
    names = list(looked)
    rows: Rows = []
    for k, scorer in enumerate(names, start=1):
        for m, other in enumerate(names, start=1):
            row = {"row": f"{k}  {marked(scorer, looked[scorer])}", "column": str(m), "scorer": scorer, "other": other}
            given = found.get((scorer, other), found.get((other, scorer)))
            if given is None:
                rows.append({**row, "text": "", "fill": _BLANK, "ink": _BLANK, "interval": "", "chance": ""})
                continue
            value, low, high = _numbers(given)
            middle, *ends = _numbers(chance[_pair(given)])
            whole = 1.0 if given["unit"] == "correlation" else 100.0
            shade = 0.0
            if value is not None and middle is not None and middle < whole:
                shade = (value - middle) / (whole - middle)
            interval = "" if is_missing(given["low"]) else f"{low:.2f} to {high:.2f}"
            rows.append(
                {
                    **row,
                    "text": _text(value, given["unit"]),
                    "fill": _colour(shade),
                    "ink": ink_on(_colour(shade)),
                    "interval": interval,
                    "chance": " to ".join(_text(end, given["unit"]) for end in ends),
                }
            )
    return rows, names


def _whole(frame: pd.DataFrame, metric: str) -> Rows:
    return [row for row in records(frame, metric=metric) if row.get("group") == "all"]


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["scorer"]), str(row["other"])


def _sides(row: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    return ("scorer", str(row["scorer"])), ("other", str(row["other"]))


def _numbers(row: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    """Value and ends; shares in percent; None where there is no number."""
    if is_missing(row["value"]):
        return None, None, None
    scale = 0.01 if row["unit"] == "correlation" else 1.0
    value, low, high = (scale * number for number in interval_of(row))
    return value, low, high


def _text(value: float | None, unit: object) -> str:
    if value is None:
        return "–"
    return (f"{value:.2f}" if unit == "correlation" else f"{value:.0f}").replace("-", _MINUS)


def _colour(shade: float) -> str:
    """From brown (-1) over white (0) to purple (1).

    >>> _colour(0.0), _colour(1.0)
    ('#f6f6f4', '#542788')
    """
    end, share = (_ALIKE if shade > 0 else _OPPOSITE), min(abs(shade), 1.0)
    mixed = (round((1 - share) * a + share * b) for a, b in zip(_NEITHER, end, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)
