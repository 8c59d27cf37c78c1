"""How a domain looks in every chart: colour, dash, mark and words, so that nothing is told by colour alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, cast

import altair as alt
import pandas as pd

from ..core import DIAMOND, EXPOSURE_WORDS, Exposure, is_missing, scorer_exposure

FIRST_SOURCE = "#0072B2"
FIRST_TARGET = "#D55E00"
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
class DomainStyle:
    """How one domain is drawn: a colour, a dash for its lines, a mark for its points, and words for its role."""

    colour: str
    dash: tuple[float, ...]
    shape: str
    words: str


def domain_styles(domains: Iterable[tuple[str, str]]) -> dict[str, DomainStyle]:
    """A look per domain from (name, role) pairs; role is "source" or "target".

    The first source is blue and solid, the first target vermilion and long-dashed; the others take the further
    colours in order, and every domain has a mark of its own.

    >>> looks([("mnist", "source"), ("mnist_m", "target")])["mnist_m"].colour
    '#D55E00'
    """
    found: dict[str, DomainStyle] = {}
    first = {"source": FIRST_SOURCE, "target": FIRST_TARGET}
    for name, role in domains:
        if name in found:
            continue
        spare = FURTHER[sum(look.colour in FURTHER for look in found.values()) % len(FURTHER)]
        dash = LONG_DASH if role == "target" else SOLID
        shape = _SHAPES[len(found) % len(_SHAPES)]
        found[name] = DomainStyle(first.pop(role, spare), dash, shape, WORDS.get(role, ""))
    return found


def scorer_styles() -> Iterator[DomainStyle]:
    """Looks for lines that stand for scorers, without end; none has a domain's colour."""
    colours = ("#4C5B6B", "#7A5195", "#B07D00", "#2A788E", "#6B8E23", "#8C564B")
    dashes = (SOLID, (8, 3), (4, 3), (2, 2), (10, 3, 2, 3), (6, 2, 2, 2), (3, 1))
    for index in count():
        yield DomainStyle(colours[index % len(colours)], dashes[index % len(dashes)], _SHAPES[index % len(_SHAPES)], "")


def domain_styles_of(frame: pd.DataFrame) -> dict[str, DomainStyle]:
    """The looks of the domains of a tidy table, in the order in which they appear."""
    return domain_styles(
        (str(row["domain"]), str(row["role"])) for row in records(frame) if not is_missing(row["domain"])
    )


def records(frame: pd.DataFrame, *, metric: str | None = None) -> list[dict[str, Any]]:
    """The rows of a tidy table as plain dicts, those of one metric where it is named."""
    rows = cast("list[dict[str, Any]]", frame.to_dict("records"))
    return rows if metric is None else [row for row in rows if row["metric"] == metric]


def interval_of(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Value, low and high of a row in percent; where there is no interval, both ends are the value."""
    value, low, high = (row["value"] if is_missing(row[name]) else row[name] for name in ("value", "low", "high"))
    return percent(value, row["unit"]), percent(low, row["unit"]), percent(high, row["unit"])


def mark_of(look: DomainStyle, *, exposure: Exposure = "", keep_colour: bool = False) -> dict[str, Any]:
    """The fields of a data row that say how its point is drawn; what was looked at is a hollow diamond.

    Args:
        look: of the domain or scorer.
        sight: its mark; target-aware lines have a colour of their own.
        keep_colour: not so, where several such lines must be told apart.
    """
    marked = exposure not in ("", "?")
    colour = TARGET_AWARE if exposure.startswith("target-aware") and not keep_colour else look.colour
    return {
        "colour": colour,
        "dash": list(look.dash),
        "shape": "diamond" if marked else look.shape,
        "fill": "transparent" if marked else colour,
        "looked": EXPOSURE_WORDS[exposure],
    }


def percent(value: float, unit: object) -> float:
    """A table's number in percent: shares are multiplied by 100, what is already in % or points is left."""
    return float(value) if unit in ("%", "points", "percent") else 100.0 * float(value)


def config() -> alt.Config:
    """The quiet house style of every chart, for a light page; a dark page overrides the inks when embedding."""
    axis = alt.AxisConfig(
        labelColor=AXIS_INK,
        titleColor=AXIS_INK,
        tickColor=GRID,
        domainColor="#B9BEC6",
        gridColor=GRID,
        labelFont=FONT,
        titleFont=FONT,
        labelFontSize=11,
        titleFontSize=11,
        titleFontWeight="normal",
        tickSize=4,
        labelPadding=3,
        titlePadding=6,
    )
    return alt.Config(
        axis=axis,
        background="transparent",
        font=FONT,
        title=alt.TitleConfig(
            font=FONT, fontSize=13, fontWeight=600, anchor="start", color="#22272E", subtitleColor=AXIS_INK
        ),
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


def beside(*charts: alt.LayerChart, spacing: int = 24) -> alt.HConcatChart:
    """Charts side by side in the house style, each as large as what it holds, also after its data were swapped."""
    whole = cast(alt.HConcatChart, alt.hconcat(*charts, spacing=spacing))
    whole.autosize = alt.AutoSizeParams(type="pad", resize=True)
    whole.padding = {"left": 28, "right": 44, "top": 6, "bottom": 6}  # a page's font may be wider than the one here
    whole.config = config()
    whole.usermeta = {"embedOptions": {"actions": False}}
    object.__setattr__(whole, "__class__", _still(type(whole)))
    return whole


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


def shortened(name: str, *, most: int) -> str:
    """A name of at most `most` characters, so that the words after it are not cut off.

    >>> shortened("photographs_of_digits", most=12)
    'photographs…'
    """
    return name if len(name) <= most else name[: most - 1] + "…"


def spread(rows: list[dict[str, Any]], *, gap: float) -> list[dict[str, Any]]:
    """Move labels apart vertically until none overlaps: at least `gap` between neighbours, within 0 to 100.

    >>> [row["value"] for row in spread([{"value": 50.0}, {"value": 49.0}], gap=4)]
    [53.0, 49.0]
    """
    ordered = sorted(rows, key=lambda row: row["value"])
    floor = 0.0
    for row in ordered:
        row["value"] = max(row["value"], floor)
        floor = row["value"] + gap
    ceiling = 100.0
    for row in reversed(ordered):
        row["value"] = min(row["value"], ceiling)
        ceiling = row["value"] - gap
    return rows


LETTERS = 52


def marked(name: str, looked: object) -> str:
    """A scorer's name, shortened, and behind it the mark of what it looked at: the cell `target_aware` of its own."""
    exposure = scorer_exposure([{"target_aware": looked}])
    mark = {"": "", "?": " ?"}.get(exposure, f" {DIAMOND}")
    return shortened(name, most=LETTERS - len(mark)) + mark


def ink_on(colour: str) -> str:
    """Black or white, whichever can be read on a colour (relative luminance, WCAG 2.1).

    >>> ink_on("#f6f6f4"), ink_on("#542788")
    ('#22272E', '#FFFFFF')
    """
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return "#22272E" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.2 else "#FFFFFF"
