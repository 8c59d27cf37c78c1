"""The map of `feature_shift`: where each image lies in the full network, pale, and where in the pruned one, filled.

Everything stands in one picture of fixed size, so nothing moves when the data are swapped. Named data:

| name | one row is | fields |
|---|---|---|
| points | an image | domain, image, class, domain_colour, class_colour, shape, full_x, full_y, xs, ys (per ratio) |
| legend | an entry of the legend | text, colour, shape, x and line (pixels), kind ("domain", "mark", ...) |
| words | a line of text | text, line (pixels), kind ("title", "line", "live") |

Places lie in the unit square. The parameter `at` is the share removed; places between two ratios are on the straight
line that joins them. The parameter `by` is what colour shows: the domain, or the class; the mark is the domain's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import altair as alt
import numpy as np
from numpy.typing import NDArray

from ...core import Exposure, exposure_label, is_missing
from ..marks import COLOUR, SHAPE, TEXT_COLOUR, layered, rows_of, tooltip
from ..theme import QUIET, Data, DomainStyle, Rows, finish, role_label, shortened

_FIRST, _SECOND = ("#1F77B4", "#FF7F0E", "#2CA02C", "#D62728", "#9467BD"), ("#8C564B", "#E377C2", "#17BECF", "#BCBD22")
CLASS_COLOURS = (*_FIRST, *_SECOND, "#7F7F7F")
OTHER = "#C3C8D0"
SIDE, SMALL, HEAD, FOOT, LEGEND = 440, 326, 98, 38, 156
_ROW = 17
_NARROW = 440  # the text above a map is wider than the map
_LETTERS = 25

Places = NDArray[np.floating]
Colour = Literal["domain", "class"]


@dataclass(frozen=True)
class Dot:
    """An image on the map: domain, row number, class and the name of the class, without its positions."""

    domain: str
    image: int
    label: int | None = None
    name: str = ""

    @property
    def text(self) -> str:
        """The name of its class, or its index where it has no name."""
        return self.name or ("not labelled" if self.label is None else str(self.label))


def boxed(places: Places) -> NDArray[np.float64]:
    """Return positions shifted and scaled, by the same factor on both axes, into the middle of the unit square.

    >>> boxed(np.array([[0.0, 0.0], [4.0, 2.0]])).round(2).tolist()
    [[0.02, 0.26], [0.98, 0.74]]
    """
    flat = np.asarray(places, dtype=np.float64).reshape(-1, 2)
    low, high = flat.min(0), flat.max(0)
    span = max(float((high - low).max()), 1e-12)
    return 0.5 + 0.96 * (places - (low + high) / 2) / span


def point_rows(dots: Sequence[Dot], places: Places, *, styles: Mapping[str, DomainStyle]) -> Rows:
    """Return the rows of `points` from positions (K, N, 2) in the unit square at K ratios, the full network first."""
    colours = class_colours(dot.label for dot in dots)
    columns = np.asarray(places, dtype=np.float64).round(4).transpose(1, 2, 0).tolist()
    rows: Rows = []
    for dot, (xs, ys) in zip(dots, columns, strict=True):
        style = styles[dot.domain]
        mark = {"domain_colour": style.colour, "class_colour": colours.get(dot.label, OTHER), "shape": style.shape}
        places_of = {"full_x": xs[0], "full_y": ys[0], "xs": xs, "ys": ys}
        rows.append({"domain": dot.domain, "image": dot.image, "class": dot.text, **mark, **places_of})
    return rows


def class_colours(labels: Any) -> dict[int | None, str]:
    """Return a colour for each of the ten lowest classes; the other classes share one that is not in the result.

    >>> class_colours([7, 2, None])
    {2: '#1F77B4', 7: '#FF7F0E'}
    """
    classes = sorted({label for label in labels if label is not None})
    return dict(zip(classes, CLASS_COLOURS, strict=False))


def legend_rows(
    domains: Mapping[str, tuple[str, Exposure]],
    dots: Sequence[Dot],
    *,
    styles: Mapping[str, DomainStyle],
    side: int = SIDE,
) -> Rows:
    """Return the legend: an entry per domain with colour, mark and role, then one per class with its colour."""
    rows: Rows = []

    def add(kind: str, text: str, *, colour: str = QUIET, shape: str = "circle") -> None:
        rows.append({"kind": kind, "text": text, "colour": colour, "shape": shape})

    add("heading", "Domain")
    for name, (role, exposure) in domains.items():
        words = role_label(role)
        style = styles[name]
        add("domain", shortened(name, most=_LETTERS - len(words)) + words, colour=style.colour, shape=style.shape)
        if exposure:
            add("mark", exposure_label(exposure).strip())
    labels, names = [dot.label for dot in dots], {dot.label: dot.text for dot in dots}
    colours, classes = class_colours(labels), {label for label in labels if label is not None}
    if classes:
        add("class heading", "Class: colour")
    for label, colour in colours.items():
        add("class", shortened(names[label], most=_LETTERS), colour=colour)
    further = len(classes) - len(colours)
    if others := [f"{further} further classes"] * (further > 0) + ["not labelled"] * (None in labels):
        add("class", " or ".join(others), colour=OTHER)
    return _placed(rows, side=side)


def _placed(rows: Rows, *, side: int) -> Rows:
    """Place the domains above the map, if two lines hold them, and all else to the right of it."""
    x, line, above = 6.0, 0, [row for row in rows if row["kind"] in ("domain", "mark")]
    for row in above:
        width = 28 + 6.4 * len(row["text"])
        if x > 6.0 and x + width > side:
            x, line = 6.0, line + 1
        row.update(x=round(x, 1), line=HEAD - 32 + _ROW * line)
        x += width
    right = rows if line > 1 else [row for row in rows if "class" in row["kind"]]
    below = 0.0
    for row in right:
        below += _ROW * (1.6 if "heading" in row["kind"] and below else 1)
        row.update(x=side + 18, line=round(HEAD - 8 + below, 1))
    return right if line > 1 else [*above, *right]


def map_words(
    kind: str,
    trust: Mapping[str, Any] | None,
    *,
    images: int,
    only: float | None = None,
    knots: Sequence[float] = (),
    side: int = SIDE,
) -> Rows:
    """Return the rows of `words`: which map it is, its trustworthiness, what is drawn, and what a map does not show.

    `kind` is "umap" or "linear"; `trust` holds value, low and high of the trustworthiness, if known; `only` is the
    ratio that is drawn, if it does not follow the parameter `at`; `knots` are the measured ratios.
    """
    title, below = {
        "umap": (
            "UMAP of all images, full and pruned together",
            "Distances and cloud sizes mean nothing here, nor do the axes.",
        ),
        "linear": (
            "Linear projection (two principal axes of the full network)",
            "Distances and cloud sizes mean little here: two axes of many.",
        ),
    }[kind]
    trusted = ""
    if trust is not None and not is_missing(trust["value"]):
        ends = f"{trust['low']:.2f} to {trust['high']:.2f}"
        trusted = f"Trustworthiness {trust['value']:.2f} ({ends}); 1: neighbours here are true neighbours."
    drawn = f"{images:,} images. Pale: full network. Filled: "
    live = {"text": drawn, "kind": "live"} if only is None else {"text": f"{drawn}{100 * only:.4g} % removed."}
    if len(knots) == 1:
        live = {"text": f"{images:,} images in the full network."}
    between = "Places between the measured ratios are interpolated." if only is None and len(knots) > 1 else ""
    return [
        {"kind": "title", "text": title, "line": 10},
        {"kind": "line", "text": trusted, "line": 29},
        {"kind": "line", "line": 46, **live},
        {"kind": "line", "text": below, "line": HEAD + side + 14},
        {"kind": "line", "text": between, "line": HEAD + side + 30},
    ]


def map_chart(data: Mapping[str, Rows] | None = None, *, knots: Sequence[float], at: float) -> alt.LayerChart:
    """Return the map for a live page; it follows the page's ratio, and images can be picked. Data may come later.

    The knots are the ratios of the positions, ascending from 0; `at` is the initial ratio.
    """
    empty: Data = {"points": [], "legend": [], "words": []}
    plot = map_plot(data or empty, knots=knots, brush=True)
    padding = {"left": 4, "right": 4, "top": 4, "bottom": 4}
    chart = finish(plot, width=SIDE + LEGEND, height=HEAD + SIDE + FOOT, padding=padding)
    chart.params = [*parameters(knots, at=at), *cast("list[Any]", chart.params)]
    options = {"actions": False, "renderer": "canvas"}
    chart.usermeta = {"embedOptions": options, "follows": {"ratio": "at"}, "brushes": "brush"}
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
    """Return the map as part of a chart that has the `parameters`.

    With `brush` images can be picked with a rectangle; `suffix` ends the names of the data; without a legend the map is
    narrower, to stand beside another.
    """
    ends = {"x": alt.value(0), "x2": alt.value(side), "y": alt.value(HEAD), "y2": alt.value(HEAD + side)}
    frame = alt.Chart(alt.InlineData(values=[{}])).mark_rect(fillOpacity=0, stroke=OTHER, strokeOpacity=0.7)
    points = _points(data["points"], f"points{suffix}", knots=knots, side=side, brush=brush)
    shown = _legend(rows_of(f"legend{suffix}", data["legend"])) if legend else []
    words = _words(rows_of(f"words{suffix}", data["words"]), width=side + LEGEND)
    chart = layered(frame.encode(**ends), points, *shown, *words)
    width = side + LEGEND if legend else max(side, _NARROW)
    return chart.properties(width=width, height=HEAD + side + FOOT)


def parameters(knots: Sequence[float], *, at: float, slider: bool = False, by: Colour = "domain") -> list[Any]:
    """Return the parameters: what colour shows, `at`, optionally with a slider, and its place between two knots."""
    bind: Any = alt.Undefined
    if slider:
        bind = alt.binding_range(min=0, max=max(knots), step=0.01, name="Share of the filters removed ")
    stretch = " + ".join(["0", *(f"(at >= {knot})" for knot in knots[1:-1])])
    share = "0" if len(knots) < 2 else "clamp((at - knots[stretch]) / (knots[stretch + 1] - knots[stretch]), 0, 1)"
    made = [
        alt.param(
            name="by", value=by, bind=alt.binding_select(options=list(get_args(Colour)), name="Colour shows the ")
        ),
        alt.param(name="at", value=at, bind=bind),
        alt.param(name="knots", value=list(knots)),
        alt.param(name="stretch", expr=stretch),
        alt.param(name="share", expr=share),
    ]
    return [parameter.param for parameter in made]


def at_ratio(places: Places, knots: Sequence[float], *, ratio: float) -> NDArray[np.float64]:
    """Return (N, 2) map positions at a ratio, interpolated from the (K, N, 2) positions at the ratios `knots`."""
    values = np.asarray(places, dtype=np.float64)
    flat = values.reshape(len(values), -1)
    return np.stack([np.interp(ratio, knots, column) for column in flat.T]).reshape(values.shape[1:])


def _points(rows: Rows, name: str, *, knots: Sequence[float], side: int, brush: bool) -> alt.LayerChart:
    """Draw each image: a line from full to pruned, a pale mark (full), a filled mark on top (pruned)."""

    def scaled(field: str) -> Any:
        kind, ends = (alt.X, [0, side]) if field.endswith("x") else (alt.Y, [HEAD + side, HEAD])
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
    lines = base.mark_rule(strokeWidth=0.7, opacity=0.3).encode(x=full_x, y=full_y, x2="x:Q", y2="y:Q")
    chart = layered(lines, full, pruned)
    chart.data = rows_of(name, rows).data
    chart = chart.transform_calculate(colour=chosen)
    for axis in "xy":
        start = f"datum.{axis}s[stretch]"
        end = f"datum.{axis}s[stretch + 1]" if len(knots) > 1 else start
        chart = chart.transform_calculate(**{axis: f"{start} + share * ({end} - {start})"})
    return chart


def _legend(base: alt.Chart) -> list[alt.Chart]:
    y: Any = {"y": {"expr": "datum.line"}}
    text: dict[str, Any] = {"align": "left", "baseline": "middle", "fontSize": 11, **y}
    quiet = f"by === 'class' && datum.kind === 'domain' ? '{QUIET}' : datum.colour"
    base = base.transform_filter("by === 'class' || indexof(datum.kind, 'class') < 0").transform_calculate(colour=quiet)
    marks = base.transform_filter("datum.kind === 'domain' || datum.kind === 'class'")
    headings, others = (base.transform_filter(f"indexof(datum.kind, 'heading') {sign} 0") for sign in (">=", "<"))
    symbols = marks.mark_point(size=42, opacity=1, x={"expr": "datum.x"}, **y)
    return [
        symbols.encode(stroke=COLOUR, fill=TEXT_COLOUR, shape=SHAPE),
        headings.mark_text(style="strong", x={"expr": "datum.x - 6"}, **text).encode(text="text:N"),
        others.mark_text(style="words", x={"expr": "datum.x + 11"}, **text).encode(text="text:N"),
    ]


def _words(base: alt.Chart, *, width: int) -> list[alt.Chart]:
    text: Any = {"align": "left", "baseline": "middle", "y": {"expr": "datum.line"}, "limit": width}
    live = "datum.kind === 'live' ? datum.text + format(100 * at, '.3~g') + ' % removed.' : datum.text"
    title, others = (base.transform_filter(f"datum.kind {sign} 'title'") for sign in ("===", "!=="))
    return [
        title.mark_text(style="strong", fontSize=13, fontWeight=600, **text).encode(x=alt.value(0), text="text:N"),
        others.transform_calculate(shown=live)
        .mark_text(style="words", fontSize=11, **text)
        .encode(x=alt.value(0), text="shown:N"),
    ]
