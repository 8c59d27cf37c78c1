"""The map of `feature_shift`: where each image lies in the full network, pale, and where in the pruned one, filled.

Everything stands in one picture of fixed size, so nothing jumps when the data are swapped. Named data:

| name | one row is | fields |
|---|---|---|
| points | an image | domain, image, class, colour, shape, full_x, full_y, xs and ys (a place per ratio of `knots`) |
| legend | a domain, a class, or a heading | text, colour, shape, line (pixels), kind ("domain", "class", "heading") |
| words | a line of text | text, line (pixels), kind ("title", "line", "live") |

Places lie in the unit square. The parameter `at` is the share removed; places between two ratios are on the straight
line that joins them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import altair as alt
import numpy as np
from numpy.typing import NDArray

from ...core import Exposure, exposure_label, is_missing
from ..theme import QUIET, WORDS, DomainStyle, finish, layered, named, shortened

CLASS_COLOURS = (
    "#1F77B4",
    "#FF7F0E",
    "#2CA02C",
    "#D62728",
    "#9467BD",
    "#8C564B",
    "#E377C2",
    "#17BECF",
    "#BCBD22",
    "#7F7F7F",
)
OTHER = "#C3C8D0"
SIDE, HEAD, FOOT, LEGEND = 326, 62, 38, 156
WIDTH, HEIGHT = SIDE + LEGEND, HEAD + SIDE + FOOT
_ROW = 17
_NARROW = 440  # the words above a map are wider than the map
_LETTERS = 25

Rows = list[dict[str, Any]]
Places = NDArray[np.floating]


@dataclass(frozen=True)
class Dot:
    """What is known of an image of the map, apart from its places."""

    domain: str
    image: int
    label: int | None = None


def boxed(places: Places) -> NDArray[np.float64]:
    """Places moved and scaled, both axes alike, into the middle of the unit square.

    >>> boxed(np.array([[0.0, 0.0], [4.0, 2.0]])).round(2).tolist()
    [[0.02, 0.26], [0.98, 0.74]]
    """
    flat = np.asarray(places, dtype=np.float64).reshape(-1, 2)
    low, high = flat.min(0), flat.max(0)
    span = max(float((high - low).max()), 1e-12)
    return 0.5 + 0.96 * (places - (low + high) / 2) / span


def point_rows(dots: Sequence[Dot], places: Places, *, domain_styles: Mapping[str, DomainStyle]) -> Rows:
    """The rows of `points`.

    Args:
        dots: the images.
        places: (K, N, 2) in the unit square, the full network's first.
        looks: of the domains.
    """
    colours = class_colours(dot.label for dot in dots)
    held = np.asarray(places, dtype=np.float64).round(4)
    rows: Rows = []
    for k, dot in enumerate(dots):
        xs, ys = held[:, k, 0].tolist(), held[:, k, 1].tolist()
        rows.append(
            {
                "domain": dot.domain,
                "image": dot.image,
                "class": "not labelled" if dot.label is None else str(dot.label),
                "colour": colours.get(dot.label, OTHER),
                "shape": domain_styles[dot.domain].shape,
                "full_x": xs[0],
                "full_y": ys[0],
                "xs": xs,
                "ys": ys,
            }
        )
    return rows


def class_colours(labels: Any) -> dict[int | None, str]:
    """A colour for each of the ten lowest classes; the others share one that is not in the result.

    >>> class_colours([7, 2, None])
    {2: '#1F77B4', 7: '#FF7F0E'}
    """
    classes = sorted({label for label in labels if label is not None})
    return dict(zip(classes, CLASS_COLOURS, strict=False))


def legend_rows(
    domains: Mapping[str, tuple[str, Exposure]],
    labels: Sequence[int | None],
    *,
    domain_styles: Mapping[str, DomainStyle],
) -> Rows:
    """The rows of `legend`: domains by shape, with role and mark, then classes by colour.

    Args:
        domains: name -> its role, and the mark of what was looked at.
        labels: the classes of the images.
        looks: of the domains.
    """
    rows: Rows = [{"kind": "heading", "text": "Domain: shape", "colour": QUIET, "shape": "circle"}]
    for name, (role, exposure) in domains.items():
        words = f" ({WORDS[role]})" if role in WORDS else ""
        rows.append(
            {
                "kind": "domain",
                "text": shortened(name, most=_LETTERS - len(words)) + words,
                "colour": QUIET,
                "shape": domain_styles[name].shape,
            }
        )
        rows += (
            [{"kind": "mark", "text": exposure_label(exposure).strip(), "colour": QUIET, "shape": "circle"}]
            if exposure
            else []
        )
    colours, classes = class_colours(labels), {label for label in labels if label is not None}
    heading = {"kind": "heading", "text": "Class: colour", "colour": QUIET, "shape": "circle"}
    rows += [heading] if classes else []
    rows += [
        {"kind": "class", "text": str(label), "colour": colour, "shape": "circle"} for label, colour in colours.items()
    ]
    left = len(classes) - len(colours)
    more = [f"{left} further classes"] * (left > 0) + ["not labelled"] * (None in labels)
    rows += [{"kind": "class", "text": " or ".join(more), "colour": OTHER, "shape": "circle"}] if more else []
    line = 0.0
    for row in rows:
        line += _ROW * (1.6 if row["kind"] == "heading" and line else 1)
        row["line"] = round(line, 1)
    return rows


def map_words(
    kind: str, trust: Mapping[str, Any] | None, *, images: int, only: float | None = None, knots: Sequence[float] = ()
) -> Rows:
    """The rows of `words`: which map it is, how far it can be trusted, what is drawn, and what not to read.

    Args:
        kind: "umap" or "linear".
        trust: value, low and high of its trustworthiness; None where it is not known.
        images: how many.
        only: the ratio that is drawn; None where it is the parameter's.
        knots: the ratios that were measured.
    """
    title = {
        "umap": "UMAP of all images, full and pruned together",
        "linear": "Linear projection (two principal axes of the full network)",
    }[kind]
    told = (
        ""
        if trust is None or is_missing(trust["value"])
        else (
            f"Trustworthiness {trust['value']:.2f} ({trust['low']:.2f} to {trust['high']:.2f}); "
            "1: neighbours here are true neighbours."
        )
    )
    drawn = f"{images:,} images. Pale: full network. Filled: "
    live = {"text": drawn, "kind": "live"} if only is None else {"text": f"{drawn}{100 * only:.4g} % removed."}
    if len(knots) == 1:
        live = {"text": f"{images:,} images in the full network."}
    below = {
        "umap": "Distances and cloud sizes mean nothing here, nor do the axes.",
        "linear": "Distances and cloud sizes mean little here: two axes of many.",
    }[kind]
    between = "Places between the measured ratios are interpolated." if only is None and len(knots) > 1 else ""
    bottom = HEAD + SIDE
    return [
        {"kind": "title", "text": title, "line": 10},
        {"kind": "line", "text": told, "line": 29},
        {"kind": "line", "line": 46, **live},
        {"kind": "line", "text": below, "line": bottom + 14},
        {"kind": "line", "text": between, "line": bottom + 30},
    ]


def map_chart(data: Mapping[str, Rows] | None = None, *, knots: Sequence[float], at: float) -> alt.LayerChart:
    """The map for a live page, whose data are fed later: it follows the page's ratio, and images can be picked.

    Args:
        data: named data.
        knots: the ratios of the places, the first 0, growing.
        at: the share removed at the beginning.
    """
    empty: Mapping[str, Rows] = {"points": [], "legend": [], "words": []}
    whole = map_plot(data or empty, knots=knots, brush=True)
    sized = finish(whole, width=WIDTH, height=HEIGHT, padding=dict.fromkeys(("left", "right", "top", "bottom"), 4))
    sized.params = [*parameters(knots, at=at), *cast("list[Any]", sized.params)]
    sized.usermeta = {
        "embedOptions": {"actions": False, "renderer": "canvas"},
        "follows": {"ratio": "at"},
        "brushes": "brush",
    }
    return sized


def map_plot(
    data: Mapping[str, Rows], *, knots: Sequence[float], brush: bool = False, suffix: str = "", legend: bool = True
) -> alt.LayerChart:
    """The map as part of a chart that has the `parameters`.

    With `brush` images can be picked with a rectangle; `suffix` ends the names of its data; without a `legend` it is
    narrower, for one that stands beside another.
    """
    points = _points(named(f"points{suffix}", data["points"]), knots, brush=brush)
    words = _words(named(f"words{suffix}", data["words"]))
    shown = _legend(named(f"legend{suffix}", data["legend"])) if legend else []
    whole = layered(_frame(), cast(Any, points), *shown, *words)
    return whole.properties(width=WIDTH if legend else _NARROW, height=HEIGHT)


def parameters(knots: Sequence[float], *, at: float, slider: bool = False) -> list[Any]:
    """`at`, with a slider of its own if asked, and from it the stretch between two knots and the share of it."""
    bind = alt.binding_range(min=0, max=max(knots), step=0.01, name="Share of the filters removed ")
    stretch = " + ".join(["0", *(f"(at >= {knot})" for knot in knots[1:-1])])
    share = "0" if len(knots) < 2 else "clamp((at - knots[stretch]) / (knots[stretch + 1] - knots[stretch]), 0, 1)"
    made = [
        alt.param(name="at", value=at, bind=bind) if slider else alt.param(name="at", value=at),
        alt.param(name="knots", value=list(knots)),
        alt.param(name="stretch", expr=stretch),
        alt.param(name="share", expr=share),
    ]
    return [one.param for one in made]


def at_ratio(places: Places, knots: Sequence[float], ratio: float) -> NDArray[np.float64]:
    """(N, 2) where the chart draws the images at a ratio, from (K, N, 2): what its expressions compute in the page."""
    held = np.asarray(places, dtype=np.float64)
    flat = held.reshape(len(held), -1)
    return np.stack([np.interp(ratio, knots, column) for column in flat.T]).reshape(held.shape[1:])


def _points(rows: alt.InlineData, knots: Sequence[float], *, brush: bool) -> alt.LayerChart:
    """Lines from full to pruned, pale full ones, filled pruned ones on top."""
    x, y = (_scaled(f"{axis}:Q", axis) for axis in "xy")
    colour, shape = alt.Stroke("colour:N", scale=None), alt.Shape("shape:N", scale=None)
    tips = [
        alt.Tooltip("domain:N", title="Domain"),
        alt.Tooltip("class:N", title="Class"),
        alt.Tooltip("image:N", title="Image number"),
    ]
    base = alt.Chart()
    full = base.mark_point(size=26, strokeWidth=1, opacity=0.45).encode(
        x=_scaled("full_x:Q", "x"), y=_scaled("full_y:Q", "y"), stroke=colour, shape=shape, tooltip=tips
    )
    pruned = base.mark_point(size=34, strokeWidth=0.6, opacity=0.85).encode(
        x=x, y=y, stroke=colour, fill=alt.Fill("colour:N", scale=None), shape=shape, tooltip=tips
    )
    if brush:
        pruned = pruned.add_params(alt.selection_interval(name="brush", encodings=["x", "y"], zoom=False))
    lines = base.mark_rule(strokeWidth=0.7, opacity=0.3).encode(
        x=_scaled("full_x:Q", "x"), y=_scaled("full_y:Q", "y"), x2="x:Q", y2="y:Q", stroke=colour
    )
    whole = layered(lines, full, pruned)
    whole.data = rows
    for axis in "xy":
        here = f"datum.{axis}s[stretch]"
        there = f"datum.{axis}s[stretch + 1]" if len(knots) > 1 else here
        whole = whole.transform_calculate(**{axis: f"{here} + share * ({there} - {here})"})
    return whole


def _scaled(field: str, axis: str) -> Any:
    ends = [0, SIDE] if axis == "x" else [HEAD + SIDE, HEAD]
    kind = alt.X if axis == "x" else alt.Y
    return kind(field, axis=None, title=None, scale=alt.Scale(domain=[0, 1], range=ends, nice=False, zero=False))


def _frame() -> alt.Chart:
    ends = {"x": alt.value(0), "x2": alt.value(SIDE), "y": alt.value(HEAD), "y2": alt.value(HEAD + SIDE)}
    return (
        alt.Chart(alt.InlineData(values=[{}])).mark_rect(fillOpacity=0, stroke=OTHER, strokeOpacity=0.7).encode(**ends)
    )


def _legend(rows: alt.InlineData) -> list[alt.Chart]:
    at: Any = {"y": {"expr": f"{HEAD} - 8 + datum.line"}}
    marks = (
        alt.Chart(rows)
        .transform_filter("datum.kind === 'domain' || datum.kind === 'class'")
        .mark_point(size=42, opacity=1, **at)
        .encode(
            x=alt.value(SIDE + 18),
            stroke=alt.Stroke("colour:N", scale=None),
            fill=alt.Fill("colour:N", scale=None),
            shape=alt.Shape("shape:N", scale=None),
        )
    )
    texts = [
        alt.Chart(alt.NamedData(name=str(rows.name)))
        .transform_filter(f"datum.kind {sign} 'heading'")
        .mark_text(style=style, align="left", baseline="middle", fontSize=11, limit=LEGEND - 30, **at)
        .encode(x=alt.value(left), text="text:N")
        for sign, style, left in (("===", "strong", SIDE + 12), ("!==", "words", SIDE + 29))
    ]
    return [marks, *texts]


def _words(rows: alt.InlineData) -> list[alt.Chart]:
    at: Any = {"align": "left", "baseline": "middle", "y": {"expr": "datum.line"}, "limit": SIDE + LEGEND}
    live = "datum.kind === 'live' ? datum.text + format(100 * at, '.3~g') + ' % removed.' : datum.text"
    first = alt.Chart(rows).transform_filter("datum.kind === 'title'")
    others = alt.Chart(alt.NamedData(name=str(rows.name))).transform_filter("datum.kind !== 'title'")
    return [
        first.mark_text(style="strong", fontSize=13, fontWeight=600, **at).encode(x=alt.value(0), text="text:N"),
        others.transform_calculate(shown=live)
        .mark_text(style="words", fontSize=11, **at)
        .encode(x=alt.value(0), text="shown:N"),
    ]
