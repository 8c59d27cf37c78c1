"""How a domain looks in every chart: colour, dash, mark and words, so that nothing is told by colour alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, cast

import altair as alt
import pandas as pd

TRAINED_ON = "#0072B2"
NEW_LOOK = "#D55E00"
FURTHER = ("#009E73", "#56B4E9", "#8C6D31", "#6A51A3")
TARGET_AWARE = "#CC79A7"
FULL = "#000000"
PINNED = "#7A7A7A"
QUIET = "#8A8F98"

SOLID = (1, 0)
LONG_DASH = (9, 5)
DASHED = (5, 4)
DOTTED = (1.5, 3)

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
AXIS_INK = "#5B6470"
GRID = "#E8EAED"

_SHAPES = ("circle", "square", "triangle-up", "triangle-down", "triangle-right", "cross")
WORDS = {"source": "trained on", "target": "new look"}


@dataclass(frozen=True)
class Look:
    """How one domain is drawn: a colour, a dash for its lines, a mark for its points, and words for its role."""

    colour: str
    dash: tuple[float, ...]
    shape: str
    words: str


def looks(domains: Iterable[tuple[str, str]]) -> dict[str, Look]:
    """A look per domain from (name, role) pairs; role is "source" or "target".

    The first source is blue and solid, the first target vermilion and long-dashed; the others take the further
    colours in order, and every domain has a mark of its own.

    >>> looks([("mnist", "source"), ("mnist_m", "target")])["mnist_m"].colour
    '#D55E00'
    """
    found: dict[str, Look] = {}
    first = {"source": TRAINED_ON, "target": NEW_LOOK}
    for name, role in domains:
        if name in found:
            continue
        spare = FURTHER[sum(look.colour in FURTHER for look in found.values()) % len(FURTHER)]
        dash = LONG_DASH if role == "target" else SOLID
        shape = _SHAPES[len(found) % len(_SHAPES)]
        found[name] = Look(first.pop(role, spare), dash, shape, WORDS.get(role, ""))
    return found


def scorer_looks() -> Iterator[Look]:
    """Looks for lines that stand for scorers, without end; none has a domain's colour."""
    colours = ("#4C5B6B", "#7A5195", "#B07D00", "#2A788E", "#6B8E23", "#8C564B")
    dashes = (SOLID, (8, 3), (4, 3), (2, 2), (10, 3, 2, 3), (6, 2, 2, 2), (3, 1))
    for index in count():
        yield Look(colours[index % len(colours)], dashes[index % len(dashes)], _SHAPES[index % len(_SHAPES)], "")


def looks_of(frame: pd.DataFrame) -> dict[str, Look]:
    """The looks of the domains of a tidy table, in the order in which they appear."""
    return looks((str(row["domain"]), str(row["role"])) for row in records(frame) if not is_missing(row["domain"]))


def records(frame: pd.DataFrame, *, metric: str | None = None) -> list[dict[str, Any]]:
    """The rows of a tidy table as plain dicts, those of one metric where it is named."""
    rows = cast("list[dict[str, Any]]", frame.to_dict("records"))
    return rows if metric is None else [row for row in rows if row["metric"] == metric]


def is_missing(value: object) -> bool:
    """Whether a cell of a table is empty."""
    return value is None or value is pd.NA or value != value


def interval_of(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Value, low and high of a row in percent; where there is no interval, both ends are the value."""
    value, low, high = (row["value"] if is_missing(row[name]) else row[name] for name in ("value", "low", "high"))
    return percent(value, row["unit"]), percent(low, row["unit"]), percent(high, row["unit"])


def is_target_aware(row: Mapping[str, Any]) -> bool:
    """Whether what a row reports was also looked at by the scorer, the tuning or the selection of this target.

    A source is meant to be looked at; only a target's rows can be target-aware.
    """
    if row.get("role") != "target":
        return False
    used = (row.get(name) for name in ("seen_by_scorer", "seen_by_tuning", "seen_by_selection"))
    return any(use in ("images", "labels") for use in used)


def mark_of(look: Look, *, aware: bool) -> dict[str, Any]:
    """The fields of a data row that say how its point is drawn; target-aware points are hollow diamonds."""
    colour = TARGET_AWARE if aware else look.colour
    return {
        "colour": colour,
        "dash": list(look.dash),
        "shape": "diamond" if aware else look.shape,
        "fill": "transparent" if aware else colour,
    }


def percent(value: float, unit: object) -> float:
    """A table's number in percent: shares are multiplied by 100, what is already in % or points is left."""
    return float(value) if unit in ("%", "points", "percent") else 100.0 * float(value)


def config() -> alt.Config:
    """The quiet house style of every chart, for a light page; a dark page overrides the inks when embedding."""
    axis = alt.AxisConfig(
        labelColor=AXIS_INK, titleColor=AXIS_INK, tickColor=GRID, domainColor="#B9BEC6", gridColor=GRID,
        labelFont=FONT, titleFont=FONT, labelFontSize=11, titleFontSize=11, titleFontWeight="normal",
        tickSize=4, labelPadding=3, titlePadding=6,
    )  # fmt: skip
    return alt.Config(
        axis=axis,
        background="transparent",
        font=FONT,
        title=alt.TitleConfig(font=FONT, fontSize=13, fontWeight=600, anchor="start", color="#22272E"),
        text=alt.MarkConfig(font=FONT, fontSize=11),
        view=alt.ViewConfig(stroke="transparent"),
        style={
            "ink": {"color": FULL},
            "words": {"color": AXIS_INK},
            "strong": {"color": "#22272E"},
            "quiet": {"color": QUIET},
            "track": {"color": "#E6E9ED"},
            "kept": {"color": "#4C5B6B"},
            "pinned": {"color": PINNED},
        },
    )


def layered(*charts: alt.Chart) -> alt.LayerChart:
    """Charts on top of each other, the first at the back."""
    return cast(alt.LayerChart, alt.layer(*charts))


def finish(chart: alt.LayerChart, *, width: int, height: int, padding: Mapping[str, int]) -> alt.LayerChart:
    """Set the size of a chart's plot and a fixed room around it.

    The room does not depend on the data (autosize "none"), so nothing jumps when the data are swapped; the whole
    picture is `width + padding["left"] + padding["right"]` wide.
    """
    sized = chart.properties(
        width=width, height=height, padding=dict(padding), autosize=alt.AutoSizeParams(type="none")
    )
    sized.config = config()
    sized.usermeta = {"embedOptions": {"actions": False}}
    object.__setattr__(sized, "__class__", _still(type(sized)))  # Altair takes plain assignments for its own fields
    return sized


def svg(chart: Any) -> str:
    """The chart as a picture, made here."""
    import vl_convert

    return vl_convert.vegalite_to_svg(chart.to_dict())


class _Still:
    """Shows a chart in a notebook as a picture made here: Altair's own default loads Vega from the web."""

    def _repr_mimebundle_(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {"image/svg+xml": svg(self)}


@cache
def _still(kind: type) -> type:
    return type(kind.__name__, (_Still, kind), {"__module__": __name__})


def named(name: str, rows: list[dict[str, Any]]) -> alt.InlineData:
    """Data carried by the chart under a name, so that a page can swap them: `view.data(name, rows)`."""
    return alt.InlineData(values=rows, name=name)
