"""Rows of the map of `feature_shift`: points, legend and text; `map` lists their fields."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core import Exposure, exposure_label, is_missing
from ..theme import QUIET, DomainStyle, Rows, role_label, shortened

_FIRST, _SECOND = ("#1F77B4", "#FF7F0E", "#2CA02C", "#D62728", "#9467BD"), ("#8C564B", "#E377C2", "#17BECF", "#BCBD22")
CLASS_COLOURS = (*_FIRST, *_SECOND, "#7F7F7F")
OTHER = "#C3C8D0"
SIDE, HEAD = 440, 98
_ROW = 17
_LETTERS = 25

Places = NDArray[np.floating]


@dataclass(frozen=True)
class Dot:
    """An image on the map: its domain, row number, class and class name, but not its positions."""

    domain: str
    image: int
    label: int | None = None
    name: str = ""

    @property
    def text(self) -> str:
        """The image's class name; without one, the class index, or "not labelled" if it has no class."""
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
    """Return the rows of `points` from positions (K, N, 2) in the unit square at K ratios, the full network first.

    Rows of the domains alternate, so that no domain covers another.
    """
    colours = class_colours(dot.label for dot in dots)
    columns = np.asarray(places, dtype=np.float64).round(4).transpose(1, 2, 0).tolist()
    rows: Rows = []
    for dot, (xs, ys) in zip(dots, columns, strict=True):
        style = styles[dot.domain]
        mark = {"domain_colour": style.colour, "class_colour": colours.get(dot.label, OTHER), "shape": style.shape}
        positions = {"full_x": xs[0], "full_y": ys[0], "xs": xs, "ys": ys}
        rows.append({"domain": dot.domain, "image": dot.image, "class": dot.text, **mark, **positions})
    turns: dict[str, Iterator[int]] = defaultdict(count)
    return sorted(rows, key=lambda row: next(turns[row["domain"]]))


def class_colours(labels: Any) -> dict[int | None, str]:
    """Return a colour for each of the ten lowest classes; the other classes share a colour that is not in the result.

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
        suffix = role_label(role)
        style = styles[name]
        add("domain", shortened(name, most=_LETTERS - len(suffix)) + suffix, colour=style.colour, shape=style.shape)
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
    return _place_entries(rows, side=side)


def _place_entries(rows: Rows, *, side: int) -> Rows:
    """Place the domains above the map if two lines hold them, and all other entries to the right of it."""
    x, line, above = 6.0, 0, [row for row in rows if row["kind"] in ("domain", "mark")]
    for row in above:
        width = 28 + 6.4 * len(row["text"])
        if x > 6.0 and x + width > side:
            x, line = 6.0, line + 1
        row.update(x=round(x, 1), line=HEAD - 32 + _ROW * line, beside=False)
        x += width
    right = rows if line > 1 else [row for row in rows if "class" in row["kind"]]
    below = 0.0
    for row in right:
        below += _ROW * (1.6 if "heading" in row["kind"] and below else 1)
        row.update(x=18.0, line=round(HEAD - 8 + below, 1), beside=True)
    return right if line > 1 else [*above, *right]


def map_words(
    kind: str, trust: Mapping[str, Any] | None, *, images: int, only: float | None = None, knots: Sequence[float] = ()
) -> Rows:
    """Return the rows of `words`: which map it is, its trustworthiness, what is drawn, and what a map does not show.

    `kind` is "umap" or "linear"; `trust` holds value, low and high of the trustworthiness, if known; `only` is the
    ratio that is drawn, if it does not follow the parameter `at`; `knots` are the measured ratios.
    """
    title, below = {
        "umap": (
            "UMAP of all images, full and pruned together",
            "Distances and cloud sizes mean little here, and the axes nothing.",
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
    intro = f"{images:,} images. Pale: full network. Filled: "
    live = {"text": intro, "kind": "live"} if only is None else {"text": f"{intro}{100 * only:.4g} % removed."}
    if len(knots) == 1:
        live = {"text": f"{images:,} images in the full network."}
    between = (
        "Places between measured ratios are interpolated; the frame fits all ratios."
        if only is None and len(knots) > 1
        else ""
    )
    return [
        {"kind": "title", "text": title, "line": 10},
        {"kind": "line", "text": trusted, "line": 29},
        {"kind": "line", "line": 46, **live},
        {"kind": "line", "text": below, "line": HEAD + 14, "below": True},
        {"kind": "line", "text": between, "line": HEAD + 30, "below": True},
    ]


def at_ratio(places: Places, knots: Sequence[float], *, ratio: float) -> NDArray[np.float64]:
    """Return (N, 2) map positions at a ratio, interpolated from the (K, N, 2) positions at the ratios `knots`."""
    values = np.asarray(places, dtype=np.float64)
    flat = values.reshape(len(values), -1)
    return np.stack([np.interp(ratio, knots, column) for column in flat.T]).reshape(values.shape[1:])
