"""Test loss and prunability over the width of a network, one panel above the other on one axis of widths.

Named data: `losses` and `shares`, one row per width and line: width, value, low, high, line, colour, dash, seeds; and
`names`, the lines' names at their right ends: label, width, value, colour.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import altair as alt

from ..core import Count, Tidy, public
from ..stats import intervals
from .marks import COLOUR, DASH, FILL, check_table, layered, line_names, of_field, rows_of, tooltip
from .theme import Rows, beside, records, scorer_styles

_LINES = {("loss", "report"): "new images", ("training_loss", "train"): "training images"}
_FLOOR = 1e-6


@public
def double_descent(frame: Tidy, *, width: Count = 460, height: Count = 170) -> alt.VConcatChart:
    """Draw the loss on new and on training images against the number of hidden units, and prunability below it.

    Each line is the mean over training seeds, with its 95 % t interval as a bar where there are two seeds or more.
    Widths and losses are on log scales; the means and intervals of losses are those of their logarithms. Where the
    training losses differ, prunabilities are compared at unequal losses.

    Args:
        frame: the table of the study `double_descent`.
        width, height: size of one panel, in pixels.

    Raises:
        DgpruneError: a table of another kind.
    """
    check_table(frame, "experiments.shipped('double_descent')", metrics=("loss", "prunability"), columns=("width",))
    first, second = [style for style, _ in zip(scorer_styles(), range(2), strict=False)]
    losses: Rows = []
    for style, ((metric, split), name) in zip((first, second), _LINES.items(), strict=True):
        losses += _means(frame, metric, split=split, line=name, style=style, logarithmic=True)
    shares = _means(frame, "prunability", split="train", line="prunability", style=first, logarithmic=False)
    scale = alt.Scale(type="log", nice=False, padding=12)
    ticks = sorted({row["width"] for row in shares})
    axis: dict[str, Any] = {"values": ticks, "format": "~g", "grid": False, "labelOverlap": "greedy"}
    above = alt.X("width:Q", scale=scale, title=None, axis=alt.Axis(**axis, labels=False))
    below = alt.X("width:Q", scale=scale, title="Hidden units", axis=alt.Axis(**axis))
    y = alt.Y("value:Q", title="Cross-entropy", scale=alt.Scale(type="log"), axis=alt.Axis(tickCount=4, format="~g"))
    z = alt.Y("value:Q", title="Prunability", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=4, format="%"))
    panels = [
        _panel("losses", losses, x=above, y=y, unit="nats").properties(width=width, height=height),
        _panel("shares", shares, x=below, y=z, unit="").properties(width=width, height=height),
    ]
    title = alt.Title("Double descent", subtitle="Mean over training seeds; bar: 95 % interval", anchor="start")
    return beside(alt.vconcat(*panels, spacing=14), title=title, padding=(28, 118, 8, 8))


def _means(frame: Any, metric: str, *, split: str, line: str, style: Any, logarithmic: bool) -> Rows:
    """A row per width: the mean over training seeds with its interval; of the logarithm where the axis has one."""
    by_width: dict[float, dict[Any, float]] = defaultdict(dict)
    for row in records(frame, metric=metric):
        if row["split"] == split:
            by_width[float(row["width"])][row["training_seed"]] = float(row["value"])
    rows: Rows = []
    for place, values in sorted(by_width.items()):
        numbers = [math.log(max(value, _FLOOR)) for value in values.values()] if logarithmic else list(values.values())
        ends = [math.exp(end) if logarithmic else end for end in intervals.over_seeds(numbers)]
        cells = {
            name: None if math.isnan(end) else end for name, end in zip(("value", "low", "high"), ends, strict=True)
        }
        about = {
            "line": line,
            "colour": style.colour,
            "fill": style.colour,
            "dash": list(style.dash),
            "seeds": len(values),
        }
        rows.append({"width": place, **cells, **about})
    return rows


def _panel(name: str, rows: Rows, *, x: alt.X, y: alt.Y, unit: str) -> alt.LayerChart:
    """One panel: lines, dots, bars of the intervals, and the name of each line at its right end."""
    base, lines = rows_of(name, rows), {row["line"]: row for row in rows}
    ends: Rows = [{**row, "label": label} for label, row in lines.items()]
    fields = {"line": "Line", "width": "Hidden units", "value": (unit or "share", ".3~g"), "seeds": "Training seeds"}
    return layered(
        base.mark_rule(strokeWidth=1.4, opacity=0.6).encode(x=x, y=of_field(y, "low"), y2="high:Q", stroke=COLOUR),
        base.mark_line(strokeWidth=1.6).encode(x=x, y=y, stroke=COLOUR, strokeDash=DASH, detail="line:N"),
        base.mark_point(size=26, filled=True, opacity=1).encode(
            x=x, y=y, fill=FILL, tooltip=tooltip(fields, ends=".3~g")
        ),
        line_names(rows_of(f"{name}_names", ends), x=of_field(x, "width"), y=y),
    )
