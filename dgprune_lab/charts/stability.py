"""Whether a scorer agrees with itself: a dot per scorer, its range, and in grey what chance gives.

Named data, per kind `halves` and `training_seeds`: place, label, value, low, high, chance_low, chance_high, text, look.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from ..core import is_missing
from .agreement import dot_layers, dot_look
from .theme import beside, layered, marked, named, records

TITLES = {"halves": "On other images of the same domains", "training_seeds": "On another training of the network"}
ROW = 26


def stability(frame: pd.DataFrame, *, width: int = 300) -> alt.HConcatChart:
    """Draw the rank correlation of every scorer with itself, over halves of the images and over trainings.

    A dot is the mean over the pairs, its line their range; grey is the 95 % range of random matchings. A hollow dot
    read no images and agrees by construction; a hollow diamond looked at a target.

    Args:
        frame: a table of `diagnostics.stability`, or two of them one below the other; the rows of the whole network
            are drawn.
        width: of one plot, in pixels.
    """
    there = set(frame["over"])
    kinds = [kind for kind in TITLES if kind in there] or ["halves"]
    return beside(*(_plot(frame, kind, width) for kind in kinds))


def stability_rows(frame: pd.DataFrame, *, over: str) -> list[dict[str, Any]]:
    """The rows of one kind, one per scorer in the order of the table."""
    chance = {str(row["scorer"]): row for row in _means(frame, over, "rank_correlation_by_chance")}
    rows = []
    for row in _means(frame, over, "rank_correlation"):
        name, looked, unread = str(row["scorer"]), row["target_aware"], _reads_nothing(row)
        value = None if is_missing(row["value"]) else row["value"]
        words = "–" if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
        rows.append(
            {
                "place": len(rows),
                "label": marked(name, looked),
                "value": value,
                "low": row["low"],
                "high": row["high"],
                "chance_low": chance[name]["low"],
                "chance_high": chance[name]["high"],
                "text": words + (", reads no images" if unread else ""),
                "look": dot_look(looked, hollow=unread),
            }
        )
    return [{key: None if is_missing(held) else held for key, held in row.items()} for row in rows]


def _plot(frame: pd.DataFrame, over: str, width: int) -> alt.LayerChart:
    """One kind: names, numbers, chance in grey, range and dot."""
    rows = stability_rows(frame, over=over)
    ends = [row[key] for row in rows for key in ("value", "low", "chance_low") if row[key] is not None]
    scale = alt.Scale(domain=[-0.5 if min(ends, default=0) >= -0.5 else -1, 1], nice=False)
    title, axis = "Rank correlation with itself", alt.Axis(values=[-1, -0.5, 0, 0.5, 1], format=".1f")
    place = alt.Y("place:O", axis=None)
    value, low, least = (
        alt.X(f"{field}:Q", scale=scale, title=title, axis=axis) for field in ("value", "low", "chance_low")
    )
    base = alt.Chart(alt.NamedData(name=over))
    tips = [
        alt.Tooltip("label:N", title="Scorer"),
        alt.Tooltip("value:Q", title="Mean", format=".3f"),
        alt.Tooltip("low:Q", title="from", format=".3f"),
        alt.Tooltip("high:Q", title="to", format=".3f"),
        alt.Tooltip("chance_high:Q", title="by chance up to", format=".2f"),
    ]
    chart = layered(
        alt.Chart(named(over, rows))
        .mark_text(style="words", align="right", dx=-9)
        .encode(x=alt.value(0), y=place, text="label:N"),
        base.mark_text(style="strong", align="left", dx=12).encode(x=alt.value("width"), y=place, text="text:N"),
        base.mark_bar(style="track", height=16).encode(x=least, x2="chance_high:Q", y=place),
        *dot_layers(base, x=value, low=low, y=place, tips=tips),
    )
    title = alt.Title(text=TITLES[over], subtitle=_below(frame, over), offset=10)
    return chart.properties(width=width, height=alt.Step(ROW), title=title)


def _below(frame: pd.DataFrame, over: str) -> list[str]:
    """What the lines and the grey mean, and how good the matching is."""
    pairs = {row["pair"] for row in records(frame, metric="rank_correlation") if row["over"] == over}
    count = len({pair.split(",")[0] for pair in pairs if not is_missing(pair)})
    grey = "grey: filters paired at random, 95 %"
    if over == "halves":
        return [f"mean and range of {count} {'cut' if count == 1 else 'cuts'} into halves", grey]
    alike = [
        f"; outputs of matched filters correlate {r['value']:.2f}" for r in _means(frame, over, "match_correlation")
    ]
    return [f"mean and range of {count} {'pair' if count == 1 else 'pairs'} of trainings{''.join(alike[:1])}", grey]


def _means(frame: pd.DataFrame, over: str, metric: str) -> list[dict[str, Any]]:
    rows = records(frame, metric=metric)
    return [row for row in rows if row["over"] == over and row["group"] == "all" and is_missing(row["pair"])]


def _reads_nothing(row: dict[str, Any]) -> bool:
    return row["over"] == "halves" and row["images"] == 0 and row["interval"] != "seeds"
