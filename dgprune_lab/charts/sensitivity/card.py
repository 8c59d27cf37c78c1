"""The card of one filter: the images that drive it most, its mean maps, its rank by each scorer, its removal.

The charts have no rows; the panel sends them. Named data, with x and y in pixels unless stated otherwise:

| name | one row is | fields |
|---|---|---|
| pictures | an image, an overlay or a mean map | x, y, side, url, text |
| words | a line of text | x, y, text, style ("name", "plain", "small") |
| histogram | the left edge of a bin of one domain | domain, x (contribution), share (%), colour, dash |
| names | a domain's name in the histogram | text, at, colour |
| changes | a domain without the filter | place, label, change, low, high (points), text, colour, shape, fill, looked |
| span | an end of the axis of changes | change |
| weights, weight_words | a picture of the filter's weights, and what it is | x, y, side, url, text, style |
| ranks | a scorer | place, label, at, text |
"""

from __future__ import annotations

from typing import Any

import altair as alt

from ..marks import COLOUR, DASH, TEXT_COLOUR, ZERO, canvas, interval_marks, layered, rows_of, signed_axis, tooltip
from ..theme import beside

SIDE, PAIRS = 61, 5
LEFT = SIDE + 26
STEP = 2 * SIDE + 14
WIDTH = LEFT + PAIRS * STEP
LINE = SIDE + 46
TOP = 26
TRACK = (206, 306)
FRAME = (4, 14, 4, 4)
_RANK, _WEIGHTS, _PLOT = 16, 128, 310
_STYLES: dict[str, dict[str, Any]] = {
    "name": {"style": "strong", "fontSize": 13, "fontWeight": 600},
    "plain": {"style": "words", "fontSize": 11, "fontWeight": 400},
    "small": {"style": "words", "fontSize": 10.7, "fontWeight": 400},
}


def pictures_chart() -> alt.HConcatChart:
    """Return the pictures: images in pairs, a line per domain, mean maps at the left."""
    return beside(_draw_pictures("pictures", caption_name="words", width=WIDTH, height=TOP + 2 * LINE), padding=FRAME)


def facts_chart() -> alt.HConcatChart:
    """Return the histogram, below it the effect of removal, and the filter's weights."""
    left = alt.vconcat(_draw_histogram(), _draw_changes("Accuracy change without this filter (points)"), spacing=26)
    weights = _draw_pictures("weights", caption_name="weight_words", width=_WEIGHTS, height=260)
    return beside(alt.hconcat(left, weights, spacing=30), padding=FRAME)


def changes_chart() -> alt.HConcatChart:
    """Return the effect of removing several filters together."""
    return beside(_draw_changes("Accuracy change without these filters (points)"), padding=FRAME)


def _draw_pictures(name: str, *, caption_name: str, width: int, height: int) -> alt.LayerChart:
    """Draw pictures and text at positions in pixels."""
    x, y = canvas(width, height)
    images = rows_of(name, []).transform_calculate(x2="datum.x + datum.side", y2="datum.y + datum.side")
    texts = rows_of(caption_name, []).encode(x=x, y=y)
    chart = layered(
        images.mark_image(smooth=False, aspect=False).encode(
            x=x, x2=alt.X2("x2:Q"), y=y, y2=alt.Y2("y2:Q"), url=alt.Url("url:N"), tooltip=[alt.Tooltip("text:N")]
        ),
        texts.mark_text(opacity=0),
        *(
            texts.transform_filter(f"datum.style === '{name}'")
            .mark_text(align="left", **mark)
            .encode(text=alt.Text("text:N"))
            for name, mark in _STYLES.items()
        ),
    )
    return chart.properties(width=width, height=height)


def _draw_histogram() -> alt.LayerChart:
    """Draw a histogram of the filter's contribution per image, one for each domain, as shares of its images."""
    scale = alt.Scale(zero=False, nice=False)
    title = "contribution to the true answer, image by image"
    x = alt.X("x:Q", title=title, scale=scale, axis=alt.Axis(tickCount=6))
    y = alt.Y("share:Q", title="% of the images", axis=alt.Axis(tickCount=4))
    steps = rows_of("histogram", []).mark_line(interpolate="step-after", strokeWidth=2)
    names = rows_of("names", []).mark_text(align="right", fontWeight=600)
    at = alt.Y("at:Q", scale=None, axis=None)
    return layered(
        steps.encode(x=x, y=y, stroke=COLOUR, strokeDash=DASH, detail=alt.Detail("domain:N")),
        names.encode(x=alt.XValue(_PLOT - 4), y=at, text=alt.Text("text:N"), fill=TEXT_COLOUR),
    ).properties(width=_PLOT, height=110)


def _draw_changes(title: str) -> alt.LayerChart:
    """Draw each domain's accuracy change without the filter, in percentage points: dots with intervals around 0."""
    scale = alt.Scale(nice=False, zero=True, range=[150, _PLOT - 46])
    change = alt.X("change:Q", scale=scale, title=title, axis=signed_axis(tickCount=2, orient="top"))
    y = alt.Y("place:O", axis=None)
    base = rows_of("changes", [])
    tips = tooltip({"label": "Domain", "change": ("Change, points", "+.1f")}, ends="+.1f", looked=True)
    known = base.transform_filter("datum.change !== null")
    return layered(
        rows_of("span", []).mark_point(opacity=0).encode(x=change),
        base.mark_text(style="words", align="right").encode(x=alt.XValue(138), y=y, text=alt.Text("label:N")),
        base.mark_text(style="strong", align="right").encode(x=alt.XValue(_PLOT), y=y, text=alt.Text("text:N")),
        base.mark_rule(**ZERO).encode(x=alt.XDatum(0)),
        *interval_marks(known, change, at={"y": y}, tips=tips, size=55),
    ).properties(width=_PLOT, height=alt.Step(22))


def ranks_chart() -> alt.HConcatChart:
    """Return the chart of removal ranks: per scorer, a dot on a track from the layer's first filter to its last."""
    start, end = TRACK
    y = alt.Y("place:O", axis=None)
    labels = "datum.value ? 'last' : 'first'"
    axis = alt.Axis(values=[0, 100], labelExpr=labels, orient="top", ticks=False, grid=False, domain=False)
    at = alt.X("at:Q", scale=alt.Scale(domain=[0, 100], range=[start, end], nice=False), axis=axis, title=None)
    base = rows_of("ranks", [])
    dots = base.transform_filter("datum.at !== null").mark_point(style="kept", filled=True, size=60, opacity=1)
    track = base.mark_rule(style="track", strokeWidth=5, strokeCap="round")
    chart = layered(
        base.mark_text(style="words", align="right").encode(x=alt.XValue(start - 12), y=y, text=alt.Text("label:N")),
        track.encode(x=alt.XValue(start), x2=alt.X2Value(end), y=y),
        dots.encode(x=at, y=y),
        base.mark_text(style="strong", align="left").encode(x=alt.XValue(end + 12), y=y, text=alt.Text("text:N")),
    )
    title = alt.Title(
        text="Place in the removal order of its layer (1st: removed first)", fontSize=11, fontWeight="normal", dx=-4
    )
    return beside(chart.properties(width=end + 74, height=alt.Step(_RANK), title=title), padding=FRAME)
