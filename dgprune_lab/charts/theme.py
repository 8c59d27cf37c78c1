"""The style of a domain in every chart (colour, dash, mark and text, never colour alone), and the house style."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, Literal, TypeVar, cast

import altair as alt
import pandas as pd

from ..core import (
    DIAMOND,
    EXPOSURE_WORDS,
    DgpruneError,
    Exposure,
    batchnorm_words,
    is_missing,
    public,
    rounded,
    scorer_exposure,
    unknown,
)
from .projector import in_theme
from .renderer import PAPER, image, vegalite_to_svg

FIRST_SOURCE = "#0072B2"
FIRST_TARGET = "#D55E00"
FURTHER = ("#009E73", "#56B4E9", "#8C6D31", "#6A51A3")
TARGET_AWARE = "#CC79A7"
FULL = "#000000"
QUIET = "#8A8F98"
INK = "#22272E"
AXIS_INK = "#5B6470"
GRID = "#E8EAED"

SOLID = (1, 0)
LONG_DASH = (9, 5)
DASHED = (5, 4)
DOTTED = (1.5, 3)
PIN_DASHES = {"a": (1.5, 3), "b": (5, 2, 1.5, 2), "c": (3, 2)}

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MINUS = "\N{MINUS SIGN}"
LETTERS = 52

_INKS = {"ink": FULL, "words": AXIS_INK, "strong": INK, "quiet": QUIET, "track": "#E6E9ED", "kept": "#4C5B6B"}
_SHAPES = ("circle", "square", "triangle-up", "triangle-down", "triangle-right", "cross")

Rows = list[dict[str, Any]]
Data = dict[str, Rows]
Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True)
class DomainStyle:
    """The style of one domain: a colour, a dash for its lines, a mark for its points, and its role ("": unknown)."""

    colour: str
    dash: tuple[float, ...]
    shape: str
    role: str = ""


@public
def domain_styles(domains: Iterable[tuple[str, str]]) -> dict[str, DomainStyle]:
    """Return a style per domain from (name, role) pairs; role is "source" or "target".

    The first source is blue and solid, the first target vermilion and long-dashed; the others get the remaining
    colours in order, and every domain has its own mark.

    >>> domain_styles([("mnist", "source"), ("mnist_m", "target")])["mnist_m"].colour
    '#D55E00'
    """
    styles: dict[str, DomainStyle] = {}
    first = {"source": FIRST_SOURCE, "target": FIRST_TARGET}
    for name, role in domains:
        if name in styles:
            continue
        spare = FURTHER[sum(style.colour in FURTHER for style in styles.values()) % len(FURTHER)]
        known, dash = role if role in ("source", "target") else "", LONG_DASH if role == "target" else SOLID
        shape = _SHAPES[len(styles) % len(_SHAPES)]
        styles[name] = DomainStyle(colour=first.pop(role, spare), dash=dash, shape=shape, role=known)
    return styles


def scorer_styles() -> Iterator[DomainStyle]:
    """Yield styles for the lines of scorers, endlessly; none has a domain's colour."""
    colours = ("#4C5B6B", "#7A5195", "#B07D00", "#2A788E", "#6B8E23", "#8C564B")
    dashes = (SOLID, (8, 3), (4, 3), (2, 2), (10, 3, 2, 3), (6, 2, 2, 2), (3, 1))
    for k in count():
        dash, shape = dashes[k % len(dashes)], _SHAPES[k % len(_SHAPES)]
        yield DomainStyle(colour=colours[k % len(colours)], dash=dash, shape=shape)


def domain_styles_of(frame: pd.DataFrame) -> dict[str, DomainStyle]:
    """Return the styles of the domains of a tidy table, in the order in which they appear."""
    rows = (row for row in records(frame) if not is_missing(row["domain"]))
    return domain_styles((str(row["domain"]), str(row["role"])) for row in rows)


def records(frame: pd.DataFrame, *, metric: str | None = None) -> Rows:
    """Return the rows of a tidy table as plain dicts; only those of `metric`, if given."""
    rows = cast(Rows, frame.to_dict("records"))
    return rows if metric is None else [row for row in rows if row["metric"] == metric]


def grouped(rows: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], Key]) -> dict[Key, Rows]:
    """Return key -> the rows that have it; keys and rows in the order of `rows`."""
    groups: dict[Key, Rows] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def check_present(frame: pd.DataFrame, column: Literal["metric", "scorer"], name: str) -> None:
    """Refuse a metric or scorer that a table with rows lacks; its chart would be empty."""
    present = sorted(set(frame[column].dropna()))
    if present and name not in present:
        raise unknown(column, name, present)


def percent(value: float, unit: object) -> float:
    """Convert a table's number to percent: shares are multiplied by 100, numbers in % or percentage points stay."""
    return float(value) if unit in ("%", "points", "percent") else 100.0 * float(value)


def interval_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return value, low and high of a row in percent; without an interval, low and high equal the value."""
    return {name: percent(cell, row["unit"]) for name, cell in ends_of(row).items()}


def ends_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return value, low and high of a row in its unit; without an interval, low and high equal the value."""
    return {name: float(row["value"] if is_missing(row[name]) else row[name]) for name in ("value", "low", "high")}


def point_of(style: DomainStyle, *, exposure: Exposure = "") -> dict[str, Any]:
    """Return the fields of a data row that style its point.

    Colour and mark are always the domain's. `ring` is the colour of a hollow diamond around the point of a target that
    was looked at, or None.
    """
    ring = TARGET_AWARE if exposure.startswith("target-aware") else None
    point = {"colour": style.colour, "shape": style.shape, "fill": style.colour}
    return {**point, "ring": ring, "looked": EXPOSURE_WORDS[exposure]}


def mark_of(style: DomainStyle, *, exposure: Exposure = "") -> dict[str, Any]:
    """Return the fields of `point_of`, and the dash of the line."""
    return {**point_of(style, exposure=exposure), "dash": list(style.dash)}


def config() -> alt.Config:
    """Return the house style of every chart, for a light page; a dark page overrides the inks when embedding."""
    inks = {"labelColor": AXIS_INK, "titleColor": AXIS_INK, "tickColor": GRID, "gridColor": GRID}
    fonts: dict[str, Any] = {"labelFont": FONT, "titleFont": FONT, "labelFontSize": 11, "titleFontSize": 11}
    space: dict[str, Any] = {"titleFontWeight": "normal", "tickSize": 4, "labelPadding": 3, "titlePadding": 6}
    title: dict[str, Any] = {"fontSize": 13, "fontWeight": 600, "anchor": "start"}
    return alt.Config(
        axis=alt.AxisConfig(domainColor="#B9BEC6", **inks, **fonts, **space),
        background="transparent",
        font=FONT,
        title=alt.TitleConfig(font=FONT, color=INK, subtitleColor=AXIS_INK, **title),
        text=alt.MarkConfig(font=FONT, fontSize=11),
        view=alt.ViewConfig(stroke="transparent"),
        style={
            **{name: {"color": colour} for name, colour in _INKS.items()},
            "halo": {"color": PAPER, "fill": PAPER, "stroke": PAPER},
        },
    )


def finish(
    chart: alt.LayerChart, *, width: int, height: int, padding: Mapping[str, int], title: alt.Title | None = None
) -> alt.LayerChart:
    """Set the size of a chart's plot and of a fixed padding around it, larger above if there is a title.

    The padding does not depend on the data (autosize "none"), so nothing moves when the data are replaced; the whole
    picture is `width + padding["left"] + padding["right"]` pixels wide.
    """
    sized = chart.properties(width=width, height=height, autosize=alt.AutoSizeParams(type="none"))
    sized.padding = dict(padding)
    if title is not None:
        lines = [] if title.subtitle is alt.Undefined else cast("list[str]", title.subtitle)
        sized.title = title
        sized.padding["top"] += 26 + 14 * len(lines)
    return _apply_style(sized)


def beside(
    *charts: Any, spacing: int = 24, padding: tuple[int, int, int, int] = (28, 44, 6, 6), title: alt.Title | None = None
) -> alt.HConcatChart:
    """Put charts side by side in the house style; each is as large as its content, even with other data.

    `padding` is the space left, right, above and below, in pixels; a page's font may be wider than the one here.
    """
    chart = cast(alt.HConcatChart, alt.hconcat(*charts, spacing=spacing))
    chart.autosize = alt.AutoSizeParams(type="pad", resize=True)
    chart.padding = dict(zip(("left", "right", "top", "bottom"), padding, strict=True))
    if title is not None:
        chart.title = title
    return _apply_style(chart)


@public
def svg(chart: alt.TopLevelMixin) -> str:
    """Render a chart as SVG on white, in the size of the current `dg.theme`, without a browser.

    Raises:
        DgpruneError: the memory limit of this process leaves no room for the rendering engine.
    """
    return in_theme(vegalite_to_svg(chart.to_dict()))


class _Picture:
    """A chart that a notebook shows as a rendered picture; Altair's default would load Vega from the web."""

    def _repr_mimebundle_(self, *_: Any, **__: Any) -> dict[str, Any]:
        try:
            return {"text/html": image(svg(cast(Any, self)))}
        except DgpruneError as error:
            return {"text/plain": str(error)}


@cache
def _picture_class(kind: type) -> type:
    return type(kind.__name__, (_Picture, kind), {"__module__": __name__})


def _apply_style(chart: Any) -> Any:
    chart.config = config()
    chart.usermeta = {"embedOptions": {"actions": False}}
    object.__setattr__(chart, "__class__", _picture_class(type(chart)))  # Altair would take an assignment for a field
    return chart


def shortened(name: str, *, most: int) -> str:
    """Return a name shortened to at most `most` characters, so that the text after it is not cut off.

    >>> shortened("photographs_of_digits", most=12)
    'photographs…'
    """
    return name if len(name) <= most else name[: most - 1] + "…"


def plain(name: object) -> str:
    """Return the name of a column, a metric or a setting with spaces in place of underscores."""
    return str(name).replace("_", " ")


def marked(name: str, target_aware: object) -> str:
    """Return a scorer's name, shortened, with the mark for this value of `target_aware`."""
    exposure = scorer_exposure([{"target_aware": target_aware}])
    mark = {"": "", "?": " ?"}.get(exposure, f" {DIAMOND}")
    return shortened(name, most=LETTERS - len(mark)) + mark


def role_label(role: object) -> str:
    """Return the suffix of a domain's name: " (source)", " (target)", or nothing where the role is unknown."""
    return f" ({role})" if role in ("source", "target") else ""


def titled(title: str, frame: pd.DataFrame, *, below: Sequence[str] = (), change: bool = False) -> alt.Title | None:
    """Return a title followed by the pruned networks' BatchNorm setting, as in "Accuracy, BatchNorm re-estimated".

    If the table has rows at ratio 0 with re-estimated statistics, a line below says that the re-estimation causes their
    difference from the full network; `change` says whether the chart draws such differences. None if the table has no
    setting and there are no lines `below`.
    """
    rows = frame.loc[frame["value"].notna()]
    pruned = cast(pd.DataFrame, rows[rows["ratio_requested"] != 0])  # the full network is never recalibrated
    setting = batchnorm_words((pruned if len(pruned) else rows)["batchnorm"])
    lines = list(below)
    if ((rows["ratio_requested"] == 0) & (rows["batchnorm"] == "recalibrate")).any():
        quantity = "the change" if change else "the difference to the full network"
        lines.append(f"At 0 % {quantity} is due to re-estimation alone.")
    if not setting and not lines:
        return None
    text = ", ".join(part for part in (title, setting) if part)
    return alt.Title(text=text, offset=12, subtitle=lines or alt.Undefined)


def with_minus(text: str) -> str:
    """Return the text of numbers with typographic minus signs in place of hyphens."""
    return text.replace("-", MINUS)


def points_text(change: float) -> str:
    """Return a change in percentage points as text, with its sign.

    >>> points_text(-2.04), points_text(0.01), points_text(-12.25)
    ('−2.0', '0.0', '−12.3')
    """
    change = rounded(change, 1)
    return with_minus(f"{change:+.1f}") if change else "0.0"
