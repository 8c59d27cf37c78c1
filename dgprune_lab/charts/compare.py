"""Two networks of one study: paired differences per domain and per class, flips, and the filters that differ.

Named data, all of which a live page may replace; changes in percentage points, shares in percent:

| name | one row is | fields |
|---|---|---|
| words | a line above the plots | text, y in pixels |
| differences, calibration | a domain | place, domain, label, lines, change, low, high, text, colour, ... |
| turned_wrong, turned_right | a domain | as above, with value instead of change |
| classes_k | a class on the k-th labelled domain | class, name, images, label, and those of differences |
| class_head_k | the name of that domain | text, ink |
| layers | a layer | place, label, lines, value, text |
| differences_span, calibration_span, classes_k_span | an end of the axis | change |
| flips_span | an end of the axis | value |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import altair as alt
import pandas as pd

from ..core import Side, Tidy, public
from .compare_rows import BOTH, FLIPS, compare_data
from .marks import (
    LEFT,
    ZERO,
    check_table,
    interval_marks,
    layered,
    row_numbers,
    rows_of,
    signed_axis,
    span_ticks,
    tooltip,
)
from .theme import Rows, beside, titled
from .trade_off_rows import LINE

_NUMBER, _LABEL, _SPACING, _ROW, _BAR, _STRIP = 76, 6.4, 12, 27, 16, 72
BELOW = [
    "95 % intervals over images, each by itself: about one in 20 misses 0 though nothing differs.",
    "Calibration error: how far confidence lies from accuracy, on average. Above 0: b is better.",
]
_PLOTS = {
    "differences": "Accuracy of a − b (points)",
    "calibration": "Calibration error of a − b (points)",
    "turned_wrong": "a wrong, b right (% of the images)",
    "turned_right": "a right, b wrong (% of the images)",
}


@public
def compare(frame: Tidy, *, names: tuple[str, str] | None = None, width: Side = 560) -> alt.HConcatChart:
    """Draw how network a differs from network b: accuracy and calibration, flips, classes and filters.

    Differences stand around 0 with intervals paired by image. Accuracy above 0: a is better; calibration error above 0:
    b is better. At most 30 classes and 16 layers are drawn: those that differ most.

    Args:
        frame: a table of `diagnostics.compare`.
        names: what a and b are; None for their scorer and ratio.
        width: width of the whole chart, in pixels.
    """
    check_table(frame, "diagnostics.compare(study, a, b)", columns=("choice", "group", "class"))
    data = compare_data(frame, names=names)
    both = cast(pd.DataFrame, frame[frame["choice"] == BOTH])
    chart = compare_chart(data, width=width, labels=label_room(data))
    chart.title = titled("Network a minus network b", both, below=BELOW, change=True) or alt.Undefined
    return chart


def compare_chart(data: Mapping[str, Rows], *, width: int, labels: int) -> alt.HConcatChart:
    """Return the chart of these data; rows may be swapped later. `labels` is the room for names, in pixels."""
    side = (width - 16 - labels - 2 * _NUMBER - _SPACING) // 2
    stack: list[Any] = [_draw_lines(data["words"], width=width, labels=labels)]
    for pair in (("differences", "calibration"), ("turned_wrong", "turned_right")):
        plots = [_draw_dots(name, data, first=name == pair[0], width=side) for name in pair]
        if data[pair[0]]:
            stack.append(alt.hconcat(*plots, spacing=_SPACING))
    strips = [name for name in data if name.startswith("classes_") and not name.endswith("_span")]
    inner = 2 * side + _NUMBER + _SPACING
    stack += [_draw_classes(k, data, last=name == strips[-1], width=inner) for k, name in enumerate(strips)]
    if data["layers"]:
        stack.append(_draw_layers(data["layers"]).properties(width=inner - _NUMBER, height=alt.Step(_BAR)))
    stacked: Any = alt.vconcat(*stack, spacing=14)
    return beside(stacked, padding=(6, 10, 6, 6))


def label_room(data: Mapping[str, Rows]) -> int:
    """Return the room that the longest name needs left of the plots, in pixels."""
    rows = [row for name in ("differences", "turned_wrong", "layers") for row in data[name]]
    letters = [len(line) for row in rows for line in str(row["lines"]).split("\n")]
    return 22 + round(_LABEL * max(letters, default=10))


def _draw_lines(rows: Rows, *, width: int, labels: int) -> alt.Chart:
    base = rows_of("words", rows).mark_text(style="words", align="left")
    text = base.encode(x=alt.XValue(-labels + 16), y=alt.Y("y:Q", scale=None, axis=None), text=alt.Text("text:N"))
    return text.properties(width=width - labels - 20, height=LINE * max(len(rows), 1))


def _draw_dots(name: str, data: Mapping[str, Rows], *, first: bool, width: int) -> alt.LayerChart:
    """Draw one metric, a difference or the share of images that flip, as a dot with interval and number per domain."""
    base, y = rows_of(name, data[name]), alt.Y("place:O", axis=None)
    if name in FLIPS:
        span, zero = "flips_span", []
        scale, axis = alt.Scale(nice=False, zero=True), alt.Axis(tickCount=max(2, width // 40), labelFlush=False)
        x = alt.X("value:Q", scale=scale, title=_PLOTS[name], axis=axis)
        fields = {"label": "Domain", "text": "images", "value": ("% of the images", ".1f")}
        tips = tooltip(fields, ends=".1f", looked=True)
    else:
        span, zero = f"{name}_span", [base.mark_rule(**ZERO).encode(x=alt.XDatum(0))]
        axis = signed_axis(values=span_ticks(span, width=width), tickCount=3)  # Vega leaves out values beyond the count
        x = alt.X("change:Q", scale=alt.Scale(nice=False), title=_PLOTS[name], axis=axis)
        tips = tooltip({"label": "Domain", "change": ("a − b, points", "+.1f")}, ends="+.1f", looked=True)
    return layered(
        rows_of(span, data[span]).mark_point(opacity=0).encode(x=x),
        *zero,
        *([_write_names(base, y=y)] if first else []),
        *interval_marks(base, x, at={"y": y}, tips=tips),
        row_numbers(base, y=y),
    ).properties(width=width, height=alt.Step(_ROW))


def _draw_classes(k: int, data: Mapping[str, Rows], *, last: bool, width: int) -> alt.LayerChart:
    """Draw the difference per class on one domain."""
    base, head = rows_of(f"classes_{k}", data[f"classes_{k}"]), rows_of(f"class_head_{k}", data[f"class_head_{k}"])
    x = alt.X("class:O", axis=None)
    upright = all(len(row["name"]) < 4 for row in data[f"classes_{k}"])
    turned: dict[str, Any] = {} if upright else {"angle": 270, "align": "right", "baseline": "middle"}
    text = base.mark_text(style="words", **turned).encode(x=x, y=alt.YValue(_STRIP + 11), text=alt.Text("name:N"))
    y = alt.Y("change:Q", scale=alt.Scale(nice=False), title="a − b (points)", axis=signed_axis(tickCount=3))
    fields = {"label": "Domain", "name": "Class", "change": ("a − b, points", "+.1f"), "images": ("images", ",")}
    return layered(
        rows_of(f"classes_{k}_span", data[f"classes_{k}_span"]).mark_point(opacity=0).encode(y=y),
        base.mark_rule(**ZERO).encode(y=alt.YDatum(0)),
        *interval_marks(base, y, at={"x": x}, tips=tooltip(fields, ends="+.1f", looked=True), size=36),
        head.mark_text(align="left", fontWeight=600, dy=-9).encode(
            x=LEFT, y=alt.YValue(0), text=alt.Text("text:N"), fill=alt.Fill("ink:N", scale=None)
        ),
        *([text] if last else []),
    ).properties(width=width, height=_STRIP)


def _write_names(base: alt.Chart, *, y: alt.Y) -> alt.Chart:
    """Write the names of domains or layers to the left of a plot, with their exposure marks below."""
    text = base.mark_text(style="words", align="right", dx=-9, lineBreak="\n", lineHeight=12)
    return text.encode(x=LEFT, y=y, text=alt.Text("lines:N"))


def _draw_layers(rows: Rows) -> alt.LayerChart:
    """Draw the number of filters that one network keeps and the other removes, per layer."""
    base, y = rows_of("layers", rows), alt.Y("place:O", axis=None)
    x = alt.X(
        "value:Q",
        scale=alt.Scale(zero=True),
        title="Filters that only one of the two keeps",
        axis=alt.Axis(tickCount=4),
    )
    tips = tooltip({"label": "Layer", "text": "filters that differ"})
    bars = base.mark_bar(style="kept", height=9).encode(x=x, y=y, tooltip=tips)
    return layered(_write_names(base, y=y), bars, row_numbers(base, y=y))
