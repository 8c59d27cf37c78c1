"""The card of one filter: the images that move it most, what it shows, its order by each scorer, what if it goes.

Named data; x and y in pixels where not said otherwise:

| name | one row is | fields |
|---|---|---|
| pictures | an image, an overlay or a mean map | x, y, side, url, text |
| words | some words | x, y, text, look ("name", "plain", "small") |
| histogram | the left edge of a bin of one domain | domain, x (contribution), share (%), colour, dash |
| names | a domain's name in the histogram | text, at, colour |
| changes | a domain without the filter | place, label, change, low, high (points), text and the fields of a mark |
| span | the ends of its axis | change |
| weights, weight_words | a picture of the filter's weights, and what it is | x, y, side, url, text |
| ranks | a scorer | place, label, at, text |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import altair as alt

from ..theme import beside, layered, named

SIDE, PAIRS = 68, 5
LEFT = SIDE + 26
STEP = 2 * SIDE + 14
WIDTH = LEFT + PAIRS * STEP
LINE = SIDE + 46
TOP = 26
TRACK = (206, 306)
_RANK, _WEIGHTS, _PLOT = 16, 128, 310

Rows = list[dict[str, Any]]
EMPTY: Mapping[str, Rows] = {
    name: []
    for name in ("pictures", "words", "histogram", "names", "changes", "span", "weights", "weight_words", "ranks")
}


def pictures_chart(data: Mapping[str, Rows] | None = None) -> alt.HConcatChart:
    """Images in pairs, a line per domain, mean maps at the left; rows may be fed later."""
    data = {**EMPTY, **(data or {})}
    return _framed(_canvas(data, "pictures", "words", width=WIDTH, height=TOP + 2 * LINE))


def facts_chart(data: Mapping[str, Rows] | None = None) -> alt.HConcatChart:
    """The histogram, below it what happens without the filter, and its weights; rows may be fed later."""
    data = {**EMPTY, **(data or {})}
    left = alt.vconcat(_histogram(data), _changes(data), spacing=26)
    weights = _canvas(data, "weights", "weight_words", width=_WEIGHTS, height=260)
    return _framed(cast(alt.LayerChart, alt.hconcat(left, weights, spacing=30)))


def ranks_chart(data: Mapping[str, Rows] | None = None) -> alt.HConcatChart:
    """How early each scorer would remove it; rows may be fed later."""
    return _framed(_ranks({**EMPTY, **(data or {})}))


def _framed(chart: alt.LayerChart) -> alt.HConcatChart:
    """With little room around it."""
    whole = beside(chart)
    whole.padding = {"left": 4, "right": 14, "top": 4, "bottom": 4}
    return whole


def _canvas(data: Mapping[str, Rows], pictures: str, words: str, *, width: int, height: int) -> alt.LayerChart:
    """Pictures and words at places in pixels."""
    x, y = (
        alt.X("x:Q", scale=alt.Scale(domain=[0, width], nice=False, zero=True), axis=None),
        alt.Y("y:Q", scale=alt.Scale(domain=[height, 0], nice=False, zero=False), axis=None),
    )
    below = alt.Y2("y2:Q")
    texts = alt.Chart(alt.NamedData(name=words)).encode(x=x, y=y, text="text:N")
    domain_styles = {"name": ("strong", 13, 600), "plain": ("words", 11, 400), "small": ("words", 10.5, 400)}
    drawn = layered(
        alt.Chart(named(pictures, data[pictures]))
        .transform_calculate(x2="datum.x + datum.side", y2="datum.y + datum.side")
        .mark_image(smooth=False, aspect=False)
        .encode(x=x, x2="x2:Q", y=y, y2=below, url="url:N", tooltip=[alt.Tooltip("text:N")]),
        alt.Chart(named(words, data[words])).mark_text(opacity=0).encode(x=x, y=y),
        *(
            texts.transform_filter(f"datum.look === '{look}'").mark_text(
                style=style, align="left", fontSize=size, fontWeight=cast(Any, weight)
            )
            for look, (style, size, weight) in domain_styles.items()
        ),
    )
    return drawn.properties(width=width, height=height)


def _histogram(data: Mapping[str, Rows]) -> alt.LayerChart:
    """Shares of the images of both domains over the filter's contribution, as steps."""
    colour = alt.Stroke("colour:N", scale=None)
    drawn = layered(
        alt.Chart(named("histogram", data["histogram"]))
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X(
                "x:Q",
                title="contribution to the true answer, image by image",
                scale=alt.Scale(zero=False, nice=False),
                axis=alt.Axis(tickCount=6),
            ),
            y=alt.Y("share:Q", title="% of the images", axis=alt.Axis(tickCount=4)),
            stroke=colour,
            strokeDash=alt.StrokeDash("dash:N", scale=None),
            detail="domain:N",
        ),
        alt.Chart(named("names", data["names"]))
        .mark_text(align="right", fontWeight=600)
        .encode(
            x=alt.value(_PLOT - 4),
            y=alt.Y("at:Q", scale=None, axis=None),
            text="text:N",
            fill=alt.Fill("colour:N", scale=None),
        ),
    )
    return drawn.properties(width=_PLOT, height=110)


def _changes(data: Mapping[str, Rows]) -> alt.LayerChart:
    """Points of accuracy per domain without the filter, dots with intervals around 0."""
    axis = alt.Axis(tickCount=4, orient="top", labelExpr="datum.value > 0 ? '+' + datum.label : datum.label")
    scale, title = alt.Scale(nice=False, zero=True, range=[150, _PLOT - 46]), "If it alone goes: points of accuracy"
    place = alt.Y("place:O", axis=None)
    change, low = (alt.X(f"{field}:Q", scale=scale, title=title, axis=axis) for field in ("change", "low"))
    base = alt.Chart(alt.NamedData(name="changes"))
    known = base.transform_filter("datum.change !== null")
    tips = [
        alt.Tooltip("label:N", title="Domain"),
        alt.Tooltip("change:Q", title="Change, points", format="+.1f"),
        alt.Tooltip("low:Q", title="from", format="+.1f"),
        alt.Tooltip("high:Q", title="to", format="+.1f"),
        alt.Tooltip("looked:N", title="Looked at before"),
    ]
    drawn = layered(
        alt.Chart(named("span", data["span"])).mark_point(opacity=0).encode(x=change),
        alt.Chart(named("changes", data["changes"]))
        .mark_text(style="words", align="right")
        .encode(x=alt.value(138), y=place, text="label:N"),
        base.mark_text(style="strong", align="right").encode(x=alt.value(_PLOT), y=place, text="text:N"),
        base.mark_rule(style="ink", strokeWidth=1, opacity=0.6).encode(x=alt.XDatum(0)),
        known.mark_rule(strokeWidth=2.2).encode(x=low, x2="high:Q", y=place, stroke=alt.Stroke("colour:N", scale=None)),
        known.mark_point(size=55, strokeWidth=1.8, opacity=1).encode(
            x=change,
            y=place,
            stroke=alt.Stroke("colour:N", scale=None),
            fill=alt.Fill("fill:N", scale=None),
            shape=alt.Shape("shape:N", scale=None),
            tooltip=tips,
        ),
    )
    return drawn.properties(width=_PLOT, height=alt.Step(22))


def _ranks(data: Mapping[str, Rows]) -> alt.LayerChart:
    """How early each scorer would remove it: a dot on a track from first to last of its layer."""
    width = TRACK[1] + 74
    place = alt.Y("place:O", axis=None)
    scale = alt.Scale(domain=[0, 100], range=list(TRACK), nice=False)
    axis = alt.Axis(
        values=[0, 100], labelExpr="datum.value ? 'last' : 'first'", orient="top", ticks=False, grid=False, domain=False
    )
    at = alt.X("at:Q", scale=scale, axis=axis, title=None)
    base = alt.Chart(alt.NamedData(name="ranks"))
    drawn = layered(
        alt.Chart(named("ranks", data["ranks"]))
        .mark_text(style="words", align="right")
        .encode(x=alt.value(TRACK[0] - 12), y=place, text="label:N"),
        base.mark_rule(style="track", strokeWidth=5, strokeCap="round").encode(
            x=alt.value(TRACK[0]), x2=alt.value(TRACK[1]), y=place
        ),
        base.transform_filter("datum.at !== null")
        .mark_point(style="kept", filled=True, size=60, opacity=1)
        .encode(x=at, y=place),
        base.mark_text(style="strong", align="left").encode(x=alt.value(TRACK[1] + 12), y=place, text="text:N"),
    )
    title = alt.Title(text="Each choice would remove it, in its layer, as", fontSize=11, fontWeight="normal", dx=-4)
    return drawn.properties(width=width, height=alt.Step(_RANK), title=title)
