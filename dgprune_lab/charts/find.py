"""Networks that `dg.find` tried: accuracy and the goal against the ratio, and below, each size that has a limit.

Named data, shares in percent; plot 0 holds the accuracies, plot k the k-th size with a limit:

| name | one row is | fields |
|---|---|---|
| tried_k | a tried network (k 0: on a domain) | evaluation, removed, domain, label, value, low, high, text, verdict, |
| | | colour, dash, fill, shape, opacity, looked |
| goal_k | the goal | value, label |
| span_k | an end of the axis of values | value |
| chosen | the network that was chosen | removed, label |
| names | a line above the first plot | see `trade_off` |
"""

from __future__ import annotations

import altair as alt
import pandas as pd

from ..core import Side, Tidy, exposure_label, exposure_of, is_missing, public, rounded
from .marks import COLOUR, OPACITY, RIGHT, check_table, interval_marks, layered, rows_of, tooltip
from .size_and_cost import QUANTITIES, amount
from .sweep import REMOVED
from .theme import (
    DASHED,
    Data,
    DomainStyle,
    Rows,
    beside,
    domain_styles_of,
    ends_of,
    interval_of,
    mark_of,
    percent,
    records,
    titled,
)
from .trade_off import name_lines
from .trade_off_rows import axis_ends, name_rows

WANTED, LIMIT = "accuracy_wanted", "_limit"
_NETWORK_STYLE = DomainStyle(colour="#4C5B6B", dash=(1, 0), shape="square")
_NAMES = {**QUANTITIES, "latency": "Latency (ms)"}


@public
def find(frame: Tidy, *, width: Side = 560, height: Side = 200) -> alt.HConcatChart:
    """Draw the networks that a search tried: their accuracy against the ratio, the goal, and the one that was chosen.

    Networks that meet the goal are filled, the others hollow. Below is a plot for each size that has a limit. Nothing
    was measured between the ratios drawn.

    Args:
        frame: the table of `dg.find`, `found.table`.
        width: width of the whole chart, in pixels.
        height: height of the plot of accuracies, in pixels.
    """
    check_table(frame, "dg.find(study, keep=0.95), its found.table", columns=("evaluation", "meets", "chosen"))
    data, side = find_data(frame), width - 74
    limits = [str(metric) for metric in frame["metric"].unique() if str(metric).endswith(LIMIT)]
    plots = [_draw_accuracies(data).properties(width=side, height=height)]
    plots += [_draw_size(data, k, metric).properties(width=side, height=90) for k, metric in enumerate(limits, start=1)]
    title = titled("Networks that the search tried", frame, below=_describe_data(frame))
    return beside(alt.vconcat(*plots, spacing=16), padding=(6, 14, 6, 6), title=title)


def find_data(frame: pd.DataFrame) -> Data:
    """Return the named data of the chart."""
    styles = domain_styles_of(frame)
    tried = _tried_rows(frame, "accuracy", styles)
    data: Data = {"tried_0": tried, "goal_0": [], "span_0": [{"value": end} for end in axis_ends(tried)], "chosen": []}
    data["names"] = name_rows("", styles, lines=len(styles))[1:]
    for row in records(frame, metric=WANTED):
        where = "the worst source" if is_missing(row["domain"]) else str(row["domain"])
        value = percent(row["value"], row["unit"])
        data["goal_0"].append({"value": value, "label": f"Goal: at least {value:.1f} % on {where}"})
    for row in [row for row in records(frame, metric="accuracy") if row["chosen"]][:1]:
        removed = 100 * row["ratio_requested"]
        data["chosen"].append({"removed": removed, "label": f"line: chosen, {removed:.4g} % removed"})
    limits = [row for row in records(frame) if str(row["metric"]).endswith(LIMIT)]
    for k, row in enumerate(limits, start=1):
        metric = str(row["metric"]).removesuffix(LIMIT)
        data[f"tried_{k}"] = _tried_rows(frame, metric, styles)
        data[f"goal_{k}"] = [{"value": row["value"], "label": f"Limit: {_format_amount(row['value'], metric)}"}]
        largest = max([row["value"], *(tried["high"] for tried in data[f"tried_{k}"])])
        data[f"span_{k}"] = [{"value": 0.0}, {"value": 1.2 * largest}]
    return data


def _tried_rows(frame: pd.DataFrame, metric: str, styles: dict[str, DomainStyle]) -> Rows:
    """Return the rows of one plot, in the order of the search; a network that misses the goal is hollow."""
    rows: Rows = []
    for row in records(frame, metric=metric):
        of_domain, exposure = not is_missing(row["domain"]), exposure_of(row)
        style = styles[str(row["domain"])] if of_domain else _NETWORK_STYLE
        name = str(row["domain"]) if of_domain else ""
        about = {"evaluation": int(row["evaluation"]), "removed": 100 * row["ratio_requested"], "domain": name}
        ends = interval_of(row) if of_domain else ends_of(row)
        text = f"{rounded(ends['value'], 1):.1f} %" if of_domain else _format_amount(row["value"], metric)
        mark = {**mark_of(style), "looked": mark_of(style, exposure=exposure)["looked"]}
        if not row["meets"]:
            mark["fill"] = "transparent"
        about |= {"label": f"{name}{exposure_label(exposure)}", "text": text, **ends, **mark, "opacity": 1.0}
        rows.append({**about, "verdict": "meets the goal" if row["meets"] else "misses the goal"})
    return rows


def _format_amount(value: float, metric: str) -> str:
    return f"{value:.3g} ms" if metric == "latency" else amount(value, metric=metric)


def _describe_data(frame: pd.DataFrame) -> list[str]:
    """Return the lines below the title: which images were read, and what that means for a report."""
    used = records(frame, metric="accuracy")
    splits = sorted({str(row["split"]) for row in used})
    names = list(dict.fromkeys(str(row["domain"]) for row in used))
    sentence = f"Accuracy on the split {' and '.join(splits)} of {', '.join(names)}, which the search has seen"
    return [f"{sentence} (seen_by_selection).", "Filled: meets the goal; hollow: misses it. Report on another split."]


def _draw_accuracies(data: Data) -> alt.LayerChart:
    """Draw the accuracies, the goal, and the ratio that was chosen."""
    y = alt.Y("value:Q", scale=alt.Scale(zero=False, nice=False), title="Accuracy (%)")
    chosen = rows_of("chosen", data["chosen"])
    return layered(
        chosen.mark_rule(style="ink", strokeWidth=1.2, opacity=0.75).encode(x=REMOVED),
        chosen.mark_text(style="strong", fontWeight=600, align="right", dy=-8, baseline="bottom").encode(
            x=RIGHT, y=alt.YValue(0), text=alt.Text("label:N")
        ),
        *_draw_marks(data, 0, y=y, fields={"label": "Domain", "text": "Accuracy"}, ends=".1f"),
        *name_lines(rows_of("names", data["names"])),
    )


def _draw_size(data: Data, k: int, metric: str) -> alt.LayerChart:
    """Draw one of the sizes that have a limit, for each network, and the limit."""
    name = _NAMES[metric.removesuffix(LIMIT)]
    y = alt.Y("value:Q", scale=alt.Scale(zero=True, nice=False), title=name, axis=alt.Axis(tickCount=3, format="~s"))
    return layered(*_draw_marks(data, k, y=y, fields={"text": name}))


def _draw_marks(data: Data, k: int, *, y: alt.Y, fields: dict[str, str], ends: str = "") -> list[alt.Chart]:
    """Draw the goal as a dashed line with its name, then intervals and points."""
    tried, goal = rows_of(f"tried_{k}", data[f"tried_{k}"]), rows_of(f"goal_{k}", data[f"goal_{k}"])
    columns: dict[str, str | tuple[str, str]] = {"evaluation": "Evaluation", "removed": ("Removed %", ".4g"), **fields}
    tips = tooltip({**columns, "verdict": "Verdict"}, ends=ends, looked=k == 0)
    joined = tried.mark_line(strokeDash=[1, 5], strokeWidth=1.2, opacity=0.55)
    return [
        rows_of(f"span_{k}", data[f"span_{k}"]).mark_point(opacity=0).encode(y=y),
        joined.encode(x=REMOVED, y=y, stroke=COLOUR, detail=alt.Detail("domain:N")),
        goal.mark_rule(style="ink", strokeDash=list(DASHED), opacity=0.6).encode(y=y),
        goal.mark_text(style="words", align="left", dy=6, baseline="top").encode(
            x=alt.XValue(5), y=y, text=alt.Text("label:N")
        ),
        *interval_marks(tried, y, at={"x": REMOVED}, tips=tips, size=56, opacity=OPACITY),
    ]
