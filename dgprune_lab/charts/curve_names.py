"""Text on the lines of chart A: the names of domains at the left, and the letters of pinned views."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import altair as alt

from .marks import LEFT, TEXT_COLOUR, point_marks
from .theme import PIN_DASHES, Rows

LETTER, BEFORE = 6.3, 22
"""Width of a letter of a name, and of the space before the name, in pixels."""
CLEAR = 0.7
"""Minimum distance of a name from a line, in heights of a name."""
FAR = 5
"""Maximum distance, in heights of a name, that a name moves from its `value` to cover fewer points."""
APART = 6.0
"""Minimum vertical distance between two letters of the same pin, in percent."""
RIGHT_OF_NAMES = 55.0
Points = Sequence[tuple[float, float]]


def place_names(
    rows: Rows, *, gap: float, width: float, lines: Sequence[float], texts: Sequence[float], points: Points
) -> Rows:
    """Place each name, from the highest down, at the free height nearest to its `value`, in percent.

    A free height is at least `gap` from other names and `texts`, and clear of `lines` and of the `points` (share
    removed, value) that the name reaches in a plot of `width` pixels. If no height nearby is free, as when steep curves
    cross the names, a name goes where it covers the fewest points, and if it can below those of higher curves.

    >>> place = {"gap": 4, "width": 400, "lines": [98.0], "texts": [], "points": [(10.0, 95.0)]}
    >>> [row["value"] for row in place_names([{"value": 98.0, "label": "mnist"}], **place)]
    [92.0]
    """
    taken = [*((height, CLEAR * gap) for height in lines), *((height, gap) for height in texts)]
    steps = [sign * k * gap / 4 for k in range(math.ceil(400 / gap)) for sign in (-1, 1)] if gap > 0.01 else [0.0]
    placed = []
    for row in sorted(rows, key=lambda row: -row["value"]):
        reach = 100 * (BEFORE + LETTER * len(row["label"])) / width
        near = [value for removed, value in points if removed <= reach]
        inside = [y for step in steps if gap / 2 <= (y := row["value"] + step) <= 100 - gap / 2] or [row["value"]]
        clear = [y for y in inside if all(abs(y - height) >= room - 1e-9 for height, room in taken)] or inside
        close = [y for y in clear if abs(y - row["value"]) <= FAR * gap] or clear
        close = [y for y in close if all(y < other["value"] for other in placed)] or close  # in the curves' order
        covered = {y: sum(abs(y - value) < CLEAR * gap for value in near) for y in close}
        height = min(close, key=lambda y, value=row["value"]: (covered[y], round(1e6 * abs(y - value))))
        taken.append((height, gap))
        placed.append({**row, "value": height})
    return placed


def names_inside(base: alt.Chart, *, y: alt.Y) -> list[alt.Chart]:
    """Write `label` inside the plot at the left, after its domain's mark, with a halo so that lines do not hide it."""
    text: dict[str, Any] = {"align": "left", "dx": 18, "fontSize": 10.7, "fontWeight": 600}
    place = {"x": LEFT, "y": y}
    return [
        base.mark_text(style="halo", strokeWidth=4, strokeJoin="round", opacity=0.85, **text).encode(
            **place, text=alt.Text("label:N")
        ),
        *point_marks(base, size=26, at={"x": alt.XValue(10), "y": y}),
        base.mark_text(**text).encode(**place, text=alt.Text("label:N"), fill=TEXT_COLOUR),
    ]


def obstacles(data: Mapping[str, Rows], *, gap: float) -> dict[str, Any]:
    """Return the `lines`, `texts` and `points` that `place_names` keeps names away from.

    Curves become points close to each other; the edges of a band are points too.
    """
    levels = [row["value"] for row in data["chance"]]
    curves = data["curves"]
    points = [(row["removed"], row[end]) for row in curves for end in ("value", "low", "high")]
    for before, row in pairwise(curves):
        steps = math.ceil(abs(row["value"] - before["value"]) / gap) if row["domain"] == before["domain"] else 0
        for k in range(1, steps):
            share = k / steps
            points.append(tuple(before[key] + share * (row[key] - before[key]) for key in ("removed", "value")))
    return {
        "lines": [*(row["value"] for row in data["full"]), *levels],
        "texts": [level + 0.45 * gap for level in levels],
        "points": points,
    }


def pinned_rows(points: Sequence[Mapping[str, Any]], *, letter: str) -> Rows:
    """Return the rows of a pinned view's curves, in the colours of their domains, from its `sweep_points`."""
    keys = ("domain", "removed", "value", "colour")
    return [{"pin": letter, **{key: row[key] for key in keys}, "opacity": 1.0} for row in points]


def letter_rows(rows: Sequence[Mapping[str, Any]], *, letter: str) -> Rows:
    """Return the places of a pin's letter: on each domain's curve, right of the names, at a ratio that differs by pin.

    Where curves of the same pin meet, only one of them gets the letter.
    """
    place, letters = 74 + 12 * (list(PIN_DASHES).index(letter) - 1), {}
    for row in rows:
        if row["pin"] != letter or row["removed"] < RIGHT_OF_NAMES:
            continue
        best = letters.get(row["domain"])
        if best is None or abs(row["removed"] - place) < abs(best["removed"] - place):
            letters[row["domain"]] = dict(row)
    placed: Rows = []
    for row in letters.values():
        if all(abs(row["value"] - other["value"]) >= APART for other in placed):
            placed.append(row)
    return placed
