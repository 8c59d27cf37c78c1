"""Parts that charts share: encodings, tooltips, labels, intervals with points, lines with bands.

Channels are typed objects (`alt.Text("text:N")`, `alt.XValue(0)`): for any other kind, Altair hashes its whole schema.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, cast

import altair as alt
import pandas as pd

from ..core import DgpruneError, is_missing
from .theme import QUIET, Rows, plain, records, shortened

COLOUR = alt.Stroke("colour:N", scale=None)
DASH = alt.StrokeDash("dash:N", scale=None)
FILL = alt.Fill("fill:N", scale=None)
OPACITY = alt.Opacity("opacity:Q", scale=None)
OPAQUE = alt.OpacityValue(1)
SHAPE = alt.Shape("shape:N", scale=None)
TEXT_COLOUR = alt.Fill("colour:N", scale=None)
POINT: dict[str, Any] = {"stroke": COLOUR, "fill": FILL, "shape": SHAPE}
"""Encodings of a point whose row has the fields of `theme.point_of`."""
RING: dict[str, Any] = {
    "stroke": alt.Stroke("ring:N", scale=None),
    "shape": alt.ShapeValue("diamond"),
    "fill": alt.FillValue("transparent"),
}
"""Encodings of the hollow diamond that marks a domain that was looked at."""
LEFT, RIGHT = alt.XValue(0), alt.XValue("width")
ZERO: dict[str, Any] = {"style": "ink", "strokeWidth": 1, "opacity": 0.6}
ZERO_LINE: dict[str, Any] = {
    "gridColor": QUIET,
    "gridOpacity": alt.condition("datum.value === 0", alt.value(1), alt.value(0.22)),
}
"""Options of an axis whose grid line at 0 stands out, on a light and on a dark page."""
LABEL_HEIGHT = 14
"""Pixels between two labels at the ends of lines."""
STEPS = (5, 10, 25, 50, 100)
_TICK, _END = 32, 24  # minimum pixels between numbers on an axis, and from an end to 0


def check_table(
    frame: pd.DataFrame,
    maker: str,
    *,
    columns: Collection[str] = (),
    metrics: Collection[str] = (),
    where: Callable[[Mapping[str, Any]], bool] | None = None,
    instead: str = "",
) -> None:
    """Refuse a table of another diagnostic, which the chart cannot draw; accept a table without rows.

    Args:
        frame: the table to check.
        maker: name of the function that makes the right kind of table.
        columns: columns that the table must have.
        metrics: metrics of which the table must have at least one; any metric if empty.
        where: condition that at least one row of these metrics must satisfy.
        instead: end of the message if rows have these metrics but none satisfies the condition.
    """
    used = [row for row in records(frame) if not metrics or row["metric"] in metrics]
    fits = any(where(row) for row in used) if where is not None else bool(used)
    if len(frame) and not (fits and set(columns) <= set(frame.columns)):
        if used and instead:
            raise DgpruneError(f"frame is of the right kind, but this chart draws none of its rows: {instead}")
        present = ", ".join(map(str, frame["metric"].dropna().unique()[:6]))
        raise DgpruneError(
            f"frame is a table of another kind (its metrics: {present}); this chart draws a table of {maker}."
        )


def check_alike(rows: Rows) -> None:
    """Refuse rows that would be drawn as one number, unless they are draws or training runs with different seeds."""
    domain = f"domain {rows[0]['domain']!r}" if rows else ""
    for name in ("network", "scope", "budget", "batchnorm", "split"):
        first, *others = dict.fromkeys(row[name] for row in rows if not is_missing(row.get(name))) or [""]
        if others:
            raise DgpruneError(
                f"frame holds rows of {domain} with {name} {first!r} and with {others[0]!r}, which would be drawn as "
                f"one number; draw each by itself: frame[frame.{name} == {first!r}]."
            )
    if len({(str(row.get("seed")), str(row.get("training_seed"))) for row in rows}) < len(rows):
        raise DgpruneError(
            f"frame holds several rows of {domain} that differ in no setting, as after joining the tables of two "
            "networks or one table twice; draw each table by itself."
        )


def layered(*charts: Any) -> alt.LayerChart:
    """Put charts on top of each other, the first at the back; data that several of them share are embedded once."""
    sent: set[str] = set()
    layers: list[alt.Chart] = []
    for chart in charts:
        _share_parts(chart)
        name = getattr(chart.data, "name", None)
        if name in sent:
            chart = chart.copy(deep=False)
            chart.data = alt.NamedData(name=str(name))
        elif isinstance(name, str):
            sent.add(name)
        layers.append(chart)
    return cast(alt.LayerChart, alt.layer(*layers))


def _share_parts(chart: Any) -> None:
    """Let copies of a chart share its rows, mark and encoding, as Altair copies these dozens of times when nesting."""
    for name in ("data", "mark", "encoding"):
        part = getattr(chart, name, None)
        if isinstance(part, alt.SchemaBase):
            object.__setattr__(part, "__deepcopy__", lambda _, part=part: part)  # Altair's copy looks this name up


def rows_of(name: str, rows: Rows) -> alt.Chart:
    """Return a chart without marks whose rows have a name, so that a page can replace them: `view.data(name, rows)`."""
    return alt.Chart(alt.InlineData(values=rows, name=name))


def tooltip(fields: Mapping[str, str | tuple[str, str]], *, ends: str = "", looked: bool = False) -> list[alt.Tooltip]:
    """Return tooltip fields from field -> title, or field -> (title, number format).

    `ends`, a number format, adds low and high of the interval; `looked` adds which stages looked at the domain.
    """
    interval = {"low": ("from", ends), "high": ("to", ends)} if ends else {}
    entries = {**fields, **interval, **({"looked": "Looked at before"} if looked else {})}
    return [
        alt.Tooltip(f"{name}:N", title=spec)
        if isinstance(spec, str)
        else alt.Tooltip(f"{name}:Q", title=spec[0], format=spec[1])
        for name, spec in entries.items()
    ]


def menu(name: str, options: Sequence[str], *, value: str, labels: Sequence[str] | None = None) -> Any:
    """Return a chart parameter that a live page offers as a menu below the chart; `labels`, if given, are its texts."""
    names: Any = alt.Undefined if labels is None else list(labels)
    bind = alt.binding_select(options=list(options), labels=names, name=f"{plain(name)} ")
    return alt.param(name=name, value=value, bind=bind).param


def for_field(channel: Any, field: str) -> Any:
    """Return a copy of the channel for another numeric field."""
    other = channel.copy()
    other.shorthand = f"{field}:Q"
    return other


def signed_axis(**options: Any) -> alt.Axis:
    """Return an axis that writes a plus before positive numbers, and centres each number below its tick."""
    expr = "datum.value > 0 ? '+' + datum.label : datum.label"
    return alt.Axis(**{"labelExpr": expr, "labelFlush": False, **options})


def ticks_around_zero(low: float, high: float, *, width: float) -> list[float]:
    """Return the ticks of an axis `width` pixels wide: 0 and multiples of a round step that do not touch.

    >>> ticks_around_zero(-30, 80, width=125), ticks_around_zero(-1, 2, width=125)
    ([0.0, 50.0], [-1.0, 0.0, 1.0, 2.0])
    """
    steps = [number * 10.0**power for power in range(-2, 3) for number in (1, 2, 5)]
    step = next((step for step in steps if step * width >= _TICK * (high - low)), steps[-1])
    return [round(k * step, 2) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def span_ticks(name: str, *, width: int) -> Any:
    """Return an axis's ticks: its ends, given by the two rows of the named data `name`, and 0 between them.

    An end so near to 0 that the labels would touch has no tick; the page computes this from the rows.
    """
    low, high = (f"data('{name}')[{k}].change" for k in (0, 1))
    near = f"{_END} * ({high} - {low}) / {width}"
    return alt.expr(f"-{low} < {near} ? [0, {high}] : {high} < {near} ? [{low}, 0] : [{low}, 0, {high}]")


def canvas(width: float, height: float) -> tuple[alt.X, alt.Y]:
    """Return channels for the fields x and y in pixels, y counted from the top."""
    x = alt.X("x:Q", scale=alt.Scale(domain=[0, width], nice=False, zero=False), axis=None)
    return x, alt.Y("y:Q", scale=alt.Scale(domain=[height, 0], nice=False, zero=False), axis=None)


def interval_marks(
    base: alt.Chart,
    value: Any,
    *,
    at: Mapping[str, Any],
    tips: Sequence[alt.Tooltip],
    size: int = 60,
    opacity: Any = OPAQUE,
) -> list[alt.Chart]:
    """Draw an interval from `low` to `high` and a point on it, from rows with the fields of `theme.point_of`.

    `value` is the channel of the number, X or Y; `at` holds the other channel.
    """
    axis, end = ("x", alt.X2) if isinstance(value, alt.X) else ("y", alt.Y2)
    ends = {axis: for_field(value, "low"), f"{axis}2": end("high:Q")}
    ring, point = point_marks(base, size=size, stroke=1.8, at={**at, axis: value}, tips=tips, opacity=opacity)
    return [ring, base.mark_rule(strokeWidth=2.2).encode(**at, **ends, stroke=COLOUR, opacity=opacity), point]


def point_marks(
    base: alt.Chart,
    *,
    size: int,
    at: Mapping[str, Any],
    tips: Sequence[alt.Tooltip] = (),
    opacity: Any = OPAQUE,
    stroke: float = 1,
) -> list[alt.Chart]:
    """Draw points, with a hollow diamond around those of a domain that was looked at; `at` holds X and Y."""
    return [
        base.mark_point(size=3.2 * size + 40, strokeWidth=1.5).encode(**at, **RING, opacity=opacity),
        base.mark_point(size=size, strokeWidth=stroke).encode(**at, **POINT, opacity=opacity, tooltip=list(tips)),
    ]


def curve_layers(
    curves: alt.Chart, gaps: alt.Chart, *, x: alt.X, value: alt.Y, tips: Sequence[alt.Tooltip]
) -> list[alt.Chart]:
    """Draw bands, points and a line per domain and measured range; dotted lines bridge unmeasured ranges."""
    stretch = [alt.Detail("domain:N"), alt.Detail("stretch:N")]
    band = {"x": x, "y": for_field(value, "low"), "y2": alt.Y2("high:Q"), "color": alt.Color("colour:N", scale=None)}
    return [
        curves.mark_area(opacity=0.16).encode(**band, detail=stretch),
        gaps.mark_line(strokeDash=[1, 5], strokeWidth=1.2, opacity=0.55).encode(
            x=x, y=value, stroke=COLOUR, detail=[alt.Detail("domain:N"), alt.Detail("gap:N")]
        ),
        curves.mark_line(strokeWidth=2).encode(x=x, y=value, stroke=COLOUR, strokeDash=DASH, detail=stretch),
        *point_marks(curves, size=16, at={"x": x, "y": value}, tips=tips),
    ]


def line_names(base: alt.Chart, *, x: Any, y: alt.Y, **options: Any) -> alt.Chart:
    """Write `label` to the right of a line's end, in the line's colour."""
    marks = base.mark_text(align="left", dx=8, fontSize=10.7, fontWeight=600, **options)
    return marks.encode(x=x, y=y, text=alt.Text("label:N"), fill=TEXT_COLOUR)


def row_labels(base: alt.Chart, *, y: alt.Y) -> alt.Chart:
    """Write `label` to the left of the plot."""
    return base.mark_text(style="words", align="right", dx=-9).encode(x=LEFT, y=y, text=alt.Text("label:N"))


def row_numbers(base: alt.Chart, *, y: alt.Y, **options: Any) -> alt.Chart:
    """Write `text` to the right of the plot."""
    return base.mark_text(style="strong", align="left", **{"dx": 12, **options}).encode(
        x=RIGHT, y=y, text=alt.Text("text:N")
    )


def spread(rows: Rows, *, gap: float, low: float = 0.0, high: float = 100.0) -> Rows:
    """Move the `value` of labels apart until neighbours are at least `gap` apart, within `low` to `high`.

    >>> [row["value"] for row in spread([{"value": 50.0}, {"value": 49.0}], gap=4)]
    [53.0, 49.0]
    """
    ordered = sorted(rows, key=lambda row: row["value"])
    for row in ordered:
        row["value"] = max(row["value"], low)
        low = row["value"] + gap
    for row in reversed(ordered):
        row["value"] = min(row["value"], high)
        high = row["value"] - gap
    return rows


def fitted(name: str, suffix: str) -> str:
    """Return a name and its suffix in at most 34 characters; only the name is shortened."""
    return shortened(name, most=max(8, 34 - len(suffix))) + suffix


def shortened_apart(names: Iterable[str], *, most: int) -> dict[str, str]:
    """Return name -> its shortened form; names that would be cut to the same form lose their beginning instead.

    >>> list(shortened_apart(["photos_indoor", "photos_outdoor", "art_painting"], most=8).values())
    ['…s_indo…', '…s_outd…', 'art_pai…']
    """
    forms, cut = dict[str, str](), {name: shortened(name, most=most) for name in dict.fromkeys(names)}
    for name, text in cut.items():
        alike = [other for other in cut if cut[other] == text]
        common = len(list(takewhile(lambda letters: len(set(letters)) == 1, zip(*alike, strict=False))))
        start = max(min(common - 2, len(name) - most + 1), 0) if len(alike) > 1 else 0
        forms[name] = shortened("…" * (start > 0) + name[start:], most=most)
    return forms


def step_above(value: float, steps: Sequence[float] = STEPS) -> float:
    """Return the end of an axis: the smallest step that is not below a value, or the last step.

    >>> step_above(12.0), step_above(0.0), step_above(140.0)
    (25, 5, 100)
    """
    return next((step for step in steps if value <= step), steps[-1])
