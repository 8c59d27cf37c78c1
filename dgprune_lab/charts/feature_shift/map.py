"""The map of `feature_shift`: each image in the full network (pale) and in the pruned one (filled).

Everything has a fixed place in one picture, so nothing moves when the data are swapped. Named data:

| name | one row is | fields |
|---|---|---|
| points | an image | domain, image, class, domain_colour, class_colour, shape, full_x, full_y, xs, ys (per ratio) |
| legend | an entry of the legend | text, colour, shape, x and line (pixels), beside, kind ("domain", "mark", ...) |
| words | a line of text | text, line (pixels), below, kind ("title", "line", "live") |

Places lie in the unit square. The parameter `at` is the share removed; between two ratios, an image lies on the
line that joins its two places. The parameter `by` is what colour shows, the domain or the class; the mark is always
the domain's. The parameter `side` is the map's side in pixels: a live page sets it to fit. Rows `beside` the map
count x from its right edge; rows `below` it count line from its lower edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import altair as alt

from ..marks import COLOUR, SHAPE, TEXT_COLOUR, layered, rows_of, tooltip
from ..theme import QUIET, Data, Rows, finish
from .map_rows import HEAD, OTHER, SIDE

SMALL, LARGE, FOOT, LEGEND = 326, 620, 38, 156
_NARROW = 440  # the text above a map is wider than the map
_LOWER_EDGE, _ACROSS = f"{HEAD} + side", "datum.x + (datum.beside ? side : 0)"

Colour = Literal["domain", "class"]


def map_chart(data: Mapping[str, Rows] | None = None, *, knots: Sequence[float], at: float) -> alt.LayerChart:
    """Return a live page's map, which follows the page's ratio and lets images be picked. Data may come later.

    The knots are the ratios of the positions, ascending from 0; `at` is the initial ratio.
    """
    empty: Data = {"points": [], "legend": [], "words": []}
    plot = map_plot(data or empty, knots=knots, brush=True)
    padding = {"left": 4, "right": 4, "top": 4, "bottom": 4}
    chart = finish(plot, width=SIDE + LEGEND, height=HEAD + SIDE + FOOT, padding=padding)
    chart.params = [*parameters(knots, at=at), *cast("list[Any]", chart.params)]
    options = {"actions": False, "renderer": "canvas"}
    grows = {"parameter": "side", "from": SIDE, "to": LARGE, "beside": LEGEND, "above": HEAD + FOOT}
    chart.usermeta = {"embedOptions": options, "follows": {"ratio": "at"}, "brushes": "brush", "grows": grows}
    return chart


def map_plot(
    data: Mapping[str, Rows],
    *,
    knots: Sequence[float],
    side: int = SIDE,
    brush: bool = False,
    suffix: str = "",
    legend: bool = True,
) -> alt.LayerChart:
    """Return the map as part of a chart to which the `parameters` are added.

    With `brush`, dragging a rectangle picks images; `suffix` ends the names of the data; without a legend the map is
    narrower, to stand beside another.
    """
    ends: Any = {"x": 0, "x2": {"expr": "side"}, "y": HEAD, "y2": {"expr": _LOWER_EDGE}}
    frame = alt.Chart(alt.InlineData(values=[{}])).mark_rect(fillOpacity=0, stroke=OTHER, strokeOpacity=0.7, **ends)
    points = _draw_points(data["points"], f"points{suffix}", knots=knots, brush=brush)
    legend_marks = _draw_legend(rows_of(f"legend{suffix}", data["legend"])) if legend else []
    texts = _draw_text(rows_of(f"words{suffix}", data["words"]))
    chart = layered(frame, points, *legend_marks, *texts)
    width = side + LEGEND if legend else max(side, _NARROW)
    return chart.properties(width=width, height=HEAD + side + FOOT)


def parameters(
    knots: Sequence[float], *, at: float, side: int = SIDE, slider: bool = False, by: Colour = "domain"
) -> list[Any]:
    """Return the parameters: `by`, `side`, `at` (with or without a slider), and the place of `at` between two knots."""
    bind: Any = alt.Undefined
    if slider:
        bind = alt.binding_range(min=0, max=max(knots), step=0.01, name="Share of the filters removed ")
    stretch = " + ".join(["0", *(f"(at >= {knot})" for knot in knots[1:-1])])
    share = "0" if len(knots) < 2 else "clamp((at - knots[stretch]) / (knots[stretch + 1] - knots[stretch]), 0, 1)"
    params = [
        alt.param(
            name="by", value=by, bind=alt.binding_select(options=list(get_args(Colour)), name="Colour shows the ")
        ),
        alt.param(name="side", value=side),
        alt.param(name="at", value=at, bind=bind),
        alt.param(name="knots", value=list(knots)),
        alt.param(name="stretch", expr=stretch),
        alt.param(name="share", expr=share),
    ]
    return [parameter.param for parameter in params]


def _draw_points(rows: Rows, name: str, *, knots: Sequence[float], brush: bool) -> alt.LayerChart:
    """Draw each image: a line from full to pruned, a pale mark (full), a filled mark on top (pruned)."""

    def scaled(field: str) -> Any:
        right, lower = {"expr": "side"}, {"expr": _LOWER_EDGE}
        kind, ends = (alt.X, [0, right]) if field.endswith("x") else (alt.Y, [lower, HEAD])
        scale = alt.Scale(domain=[0, 1], range=ends, nice=False, zero=False)
        return kind(f"{field}:Q", axis=None, title=None, scale=scale)

    x, y, full_x, full_y = map(scaled, ("x", "y", "full_x", "full_y"))
    tips = tooltip({"domain": "Domain", "class": "Class", "image": "Image number"})
    base = alt.Chart().encode(stroke=COLOUR)
    full = base.mark_point(size=34, strokeWidth=1, opacity=0.45).encode(x=full_x, y=full_y, shape=SHAPE, tooltip=tips)
    pruned = base.mark_point(size=44, strokeWidth=0.6, opacity=0.8).encode(
        x=x, y=y, fill=TEXT_COLOUR, shape=SHAPE, tooltip=tips
    )
    if brush:
        pruned = pruned.add_params(alt.selection_interval(name="brush", encodings=["x", "y"], zoom=False))
    chosen = "by === 'class' ? datum.class_colour : datum.domain_colour"
    lines = base.mark_rule(strokeWidth=0.7, opacity=0.3).encode(x=full_x, y=full_y, x2=alt.X2("x:Q"), y2=alt.Y2("y:Q"))
    chart = layered(lines, full, pruned)
    chart.data = rows_of(name, rows).data
    chart = chart.transform_calculate(colour=chosen)
    for axis in "xy":
        start = f"datum.{axis}s[stretch]"
        end = f"datum.{axis}s[stretch + 1]" if len(knots) > 1 else start
        chart = chart.transform_calculate(**{axis: f"{start} + share * ({end} - {start})"})
    return chart


def _draw_legend(base: alt.Chart) -> list[alt.Chart]:
    y: Any = {"y": {"expr": "datum.line"}}
    text: dict[str, Any] = {"align": "left", "baseline": "middle", "fontSize": 11, **y}
    quiet = f"by === 'class' && datum.kind === 'domain' ? '{QUIET}' : datum.colour"
    base = base.transform_filter("by === 'class' || indexof(datum.kind, 'class') < 0").transform_calculate(colour=quiet)
    marks = base.transform_filter("datum.kind === 'domain' || datum.kind === 'class'")
    headings, others = (base.transform_filter(f"indexof(datum.kind, 'heading') {sign} 0") for sign in (">=", "<"))
    symbols = marks.mark_point(size=42, opacity=1, x={"expr": _ACROSS}, **y)
    return [
        symbols.encode(stroke=COLOUR, fill=TEXT_COLOUR, shape=SHAPE),
        headings.mark_text(style="strong", x={"expr": f"{_ACROSS} - 6"}, **text).encode(text=alt.Text("text:N")),
        others.mark_text(style="words", x={"expr": f"{_ACROSS} + 11"}, **text).encode(text=alt.Text("text:N")),
    ]


def _draw_text(base: alt.Chart) -> list[alt.Chart]:
    place = {"y": {"expr": "datum.line + (datum.below ? side : 0)"}, "limit": {"expr": f"side + {LEGEND}"}}
    text: Any = {"align": "left", "baseline": "middle", **place}
    end = "(at > knots[0] ? ' % removed.' : ' % removed, on top of the pale ones.')"
    live = f"datum.kind === 'live' ? datum.text + format(100 * at, '.3~g') + {end} : datum.text"
    title, others = (base.transform_filter(f"datum.kind {sign} 'title'") for sign in ("===", "!=="))
    return [
        title.mark_text(style="strong", fontSize=13, fontWeight=600, **text).encode(
            x=alt.XValue(0), text=alt.Text("text:N")
        ),
        others.transform_calculate(shown=live)
        .mark_text(style="words", fontSize=11, **text)
        .encode(x=alt.XValue(0), text=alt.Text("shown:N")),
    ]
