"""Test loss, prunability and training loss over the width of a network, in stacked panels with a shared axis of widths.

Named data: `loss`, `prunability` and `training_loss`, one row per width: width, value, low, high, seeds.
"""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from ..core import Side, Tidy, public
from ..stats import intervals
from .marks import check_table, for_field, layered, rows_of, tooltip
from .theme import Rows, beside, grouped, records, scorer_styles

_FLOOR = 1e-6
_DECADES = [10.0**power for power in range(-6, 3)]
_PANELS = (
    # metric, split, title of the axis, its scale and numbers
    ("loss", "report", "Loss on new images", alt.Scale(zero=False, nice=True), alt.Axis(format="~g", tickCount=4)),
    ("prunability", "train", "Prunability", alt.Scale(domain=[0, 1]), alt.Axis(format="%", tickCount=4)),
    ("training_loss", "train", "Training loss", alt.Scale(type="log"), alt.Axis(format="~g", values=_DECADES)),
)


@public
def double_descent(frame: Tidy, *, width: Side = 460, height: Side = 130) -> alt.HConcatChart:
    """Draw the loss on new images, prunability and the training loss against the number of hidden units.

    Dots are means over training seeds, with their 95 % t interval as a bar where there are two seeds or more. Widths
    and training losses are on log scales; mean and interval of the training loss are those of its logarithm. Where the
    training losses differ, prunabilities are compared at unequal losses.

    Args:
        frame: the table of the study `double_descent`.
        width, height: size of one panel, in pixels.

    Raises:
        DgpruneError: a table of another kind.
    """
    check_table(frame, "experiments.shipped('double_descent')", metrics=("loss", "prunability"), columns=("width",))
    scale, panels = alt.Scale(type="log", nice=False, padding=12), []
    data = {name: _mean_rows(frame, name, split=split) for name, split, *_ in _PANELS}
    ticks = sorted({row["width"] for row in data["loss"]})
    axis: dict[str, Any] = {"values": ticks, "format": "~g", "grid": False, "labelOverlap": "greedy"}
    for name, _, title, limits, numbers in _PANELS:
        last = name == _PANELS[-1][0]
        x = alt.X("width:Q", scale=scale, title="Hidden units" if last else None, axis=alt.Axis(**axis, labels=last))
        y = alt.Y("value:Q", title=title, scale=limits, axis=numbers)
        panels.append(_draw_panel(name, data[name], x=x, y=y).properties(width=width, height=height))
    title = alt.Title("Double descent", subtitle="Mean over training seeds; bar: 95 % interval", anchor="start")
    return beside(alt.vconcat(*panels, spacing=14), title=title, padding=(28, 16, 8, 8))


def _mean_rows(frame: Any, metric: str, *, split: str) -> Rows:
    """Return a row per width: the mean over training seeds with its interval; on a log axis, those of the logarithm."""
    logarithmic = metric == "training_loss"
    used = [row for row in records(frame, metric=metric) if row["split"] == split]
    rows: Rows = []
    for width, seed_rows in sorted(grouped(used, lambda row: float(row["width"])).items()):
        values = [float(row["value"]) for row in seed_rows]
        numbers = [math.log(max(value, _FLOOR)) for value in values] if logarithmic else values
        ends = [math.exp(end) if logarithmic else end for end in intervals.over_seeds(numbers)]
        value, low, high = (None if math.isnan(end) else end for end in ends)
        rows.append({"width": width, "value": value, "low": low, "high": high, "seeds": len(values)})
    return rows


def _draw_panel(name: str, rows: Rows, *, x: alt.X, y: alt.Y) -> alt.LayerChart:
    """Draw one panel: a line, its dots and the bars of their intervals."""
    base, colour = rows_of(name, rows), next(scorer_styles()).colour
    fields = {"width": ("Hidden units", "~g"), "value": ("Mean", ".3~g"), "seeds": "Training seeds"}
    dots = base.mark_point(size=26, filled=True, opacity=1, color=colour)
    return layered(
        base.mark_rule(strokeWidth=1.6, opacity=0.6, clip=True, color=colour).encode(
            x=x, y=for_field(y, "low"), y2=alt.Y2("high:Q")
        ),
        base.mark_line(strokeWidth=1.6, color=colour).encode(x=x, y=y),
        dots.encode(x=x, y=y, tooltip=tooltip(fields, ends=".3~g")),
    )
