"""Agreement of each scorer with itself: a dot per scorer with its range, and the chance level in grey.

Named data `halves`, `training_seeds`: place, label, value, low, high, chance_low, chance_high, text, mark.
"""

from __future__ import annotations

import altair as alt
import pandas as pd

from ..core import DgpruneError, Side, Tidy, is_missing, public
from .agreement import dot_mark, dot_plot
from .marks import check_table, tooltip
from .theme import Rows, beside, marked, records, with_minus

TITLES = {"halves": "On other images of the same domains", "training_seeds": "On another training of the network"}
ROW = 26


@public
def stability(frame: Tidy, *, width: Side = 300) -> alt.HConcatChart:
    """Draw the rank correlation of every scorer with itself, over halves of the images and over training seeds.

    A dot is the mean over the pairs, and its line their range; grey is the 95 % range of random matchings. A hollow dot
    is a scorer that read no images and agrees by construction; a hollow diamond is a scorer that looked at a target.

    Args:
        frame: a table of `diagnostics.stability`, or two of them concatenated; the rows for the whole network are
            drawn.
        width: width of one plot, in pixels.
    """
    check_table(frame, "diagnostics.stability(study)", columns=("over", "pair"))
    if frame.empty:
        raise DgpruneError("frame has no row to draw; pass the table of diagnostics.stability.")
    present = set(frame["over"])
    kinds = [kind for kind in TITLES if kind in present] or ["halves"]
    return beside(*(_draw_plot(frame, kind, width=width) for kind in kinds))


def stability_rows(frame: pd.DataFrame, *, over: str) -> Rows:
    """Return the chart's rows for one value of the column `over`: a row per scorer, in the order of the table."""
    chance = {str(row["scorer"]): row for row in _mean_rows(frame, over, metric="rank_correlation_by_chance")}
    rows: Rows = []
    for row in _mean_rows(frame, over, metric="rank_correlation"):
        name, target_aware = str(row["scorer"]), row["target_aware"]
        unread = row["over"] == "halves" and row["images"] == 0 and row["interval"] != "seeds"
        number = "–" if is_missing(row["value"]) else with_minus(f"{row['value']:.2f}")
        numbers = {key: row[key] for key in ("value", "low", "high")}
        numbers |= {f"chance_{key}": chance[name][key] for key in ("low", "high")}
        numbers = {key: None if is_missing(value) else value for key, value in numbers.items()}
        texts = {"label": marked(name, target_aware), "text": number + (", reads no images" if unread else "")}
        rows.append({"place": len(rows), **texts, **numbers, "mark": dot_mark(target_aware, hollow=unread)})
    return rows


def _draw_plot(frame: pd.DataFrame, over: str, *, width: int) -> alt.LayerChart:
    """Draw the plot of one value of `over`: names, numbers, the chance level in grey, ranges and dots."""
    rows = stability_rows(frame, over=over)
    ends = [row[key] for row in rows for key in ("value", "low", "chance_low") if row[key] is not None]
    scale = alt.Scale(domain=[-0.5 if min(ends, default=0) >= -0.5 else -1, 1], nice=False)
    axis = alt.Axis(values=[-1, -0.5, 0, 0.5, 1], format=".1f")
    value = alt.X("value:Q", scale=scale, title="Rank correlation with itself", axis=axis)
    fields = {"label": "Scorer", "value": ("Mean", ".3f"), "chance_high": ("by chance up to", ".2f")}
    chart = dot_plot(over, rows, value=value, tips=tooltip(fields, ends=".3f"))
    title = alt.Title(text=TITLES[over], subtitle=_describe_ranges(frame, over), offset=10)
    return chart.properties(width=width, height=alt.Step(ROW), title=title)


def _describe_ranges(frame: pd.DataFrame, over: str) -> list[str]:
    """Return lines of text on the meaning of the ranges and the grey, and on the quality of the matching."""
    pairs = {row["pair"] for row in records(frame, metric="rank_correlation") if row["over"] == over}
    count = len({pair.split(",")[0] for pair in pairs if not is_missing(pair)})
    grey = "grey: filters paired at random, 95 %"
    if over == "halves":
        return [f"mean and range of {count} {'cut' if count == 1 else 'cuts'} into halves", grey]
    match = [r["value"] for r in _mean_rows(frame, over, metric="match_correlation")][:1]
    alike = "".join(f"; outputs of matched filters correlate {value:.2f}" for value in match)
    return [f"mean and range of {count} {'pair' if count == 1 else 'pairs'} of trainings{alike}", grey]


def _mean_rows(frame: pd.DataFrame, over: str, *, metric: str) -> Rows:
    rows = records(frame, metric=metric)
    return [row for row in rows if row["over"] == over and row["group"] == "all" and is_missing(row["pair"])]
