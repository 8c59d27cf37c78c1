"""What is written on the lines of chart A: the names of domains at the left, and the letters of pinned views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from .marks import LEFT, TEXT_COLOUR, point_marks
from .theme import PIN_DASHES, Rows

REACH = 45.0
"""Names inside a plot stand over shares removed up to this one, in percent."""
APART = 6.0
"""Least distance between two letters of a pin, in percent."""


def place_names(
    rows: Rows, *, gap: float, lines: Sequence[float], texts: Sequence[float], points: Sequence[float]
) -> Rows:
    """Give each label, the highest first, the free height that is nearest to its `value`, in percent.

    Heights are at least `gap` from other labels and from `texts`, and clear of `lines`; of the others, those are taken
    that cover few `points`. Where nothing is free, labels may cover lines.

    >>> [row["value"] for row in place_names([{"value": 98.0}], gap=4, lines=[98.0], texts=[], points=[])]
    [95.0]
    """
    taken = [*((height, 0.6 * gap) for height in lines), *((height, gap) for height in texts)]
    steps = [sign * k * gap / 4 for k in range(4 * len(rows) + 12) for sign in (-1, 1)]
    placed = []
    for row in sorted(rows, key=lambda row: -row["value"]):
        inside = [y for step in steps if gap / 2 <= (y := row["value"] + step) <= 100 - gap / 2]
        free = [y for y in inside if all(abs(y - height) >= room - 1e-9 for height, room in taken)]

        def cost(y: float, value: float = row["value"]) -> int:
            return round(1e6 * (abs(y - value) / gap + 0.3 * sum(abs(y - point) < 0.6 * gap for point in points)))

        height = min(free or inside or [row["value"]], key=cost)
        taken.append((height, gap))
        placed.append({**row, "value": height})
    return placed


def names_inside(base: alt.Chart, *, y: alt.Y) -> list[alt.Chart]:
    """Write `label` at the left inside the plot, legible over lines, after the mark of its domain."""
    text: dict[str, Any] = {"align": "left", "dx": 18, "fontSize": 10.5, "fontWeight": 600}
    place = {"x": LEFT, "y": y}
    return [
        base.mark_text(style="halo", strokeWidth=4, strokeJoin="round", opacity=0.85, **text).encode(
            **place, text="label:N"
        ),
        *point_marks(base, size=26, at={"x": alt.value(10), "y": y}),
        base.mark_text(**text).encode(**place, text="label:N", fill=TEXT_COLOUR),
    ]


def obstacles(data: Mapping[str, Rows], *, gap: float) -> dict[str, list[float]]:
    """Return the heights that names at the left must not, or should not, cover; see `marks.place_names`."""
    levels = [row["value"] for row in data["chance"]]
    return {
        "lines": [*(row["value"] for row in data["full"]), *levels],
        "texts": [level + 0.45 * gap for level in levels],
        "points": [row["value"] for row in data["curves"] if row["removed"] <= REACH],
    }


def pinned_rows(points: Sequence[Mapping[str, Any]], *, letter: str) -> Rows:
    """Return the rows of a pinned view's curves, in the colours of their domains, from its `sweep_points`."""
    keys = ("domain", "removed", "value", "colour")
    return [{"pin": letter, **{key: row[key] for key in keys}, "opacity": 1.0} for row in points]


def letter_rows(rows: Sequence[Mapping[str, Any]], *, letter: str) -> Rows:
    """Return where the letter of a pin stands: on each domain's curve, right of the names, each pin at another ratio.

    Where curves of a pin meet, one of them has the letter.
    """
    place, letters = 74 + 12 * (list(PIN_DASHES).index(letter) - 1), {}
    for row in rows:
        if row["pin"] != letter or row["removed"] < REACH + 10:
            continue
        best = letters.get(row["domain"])
        if best is None or abs(row["removed"] - place) < abs(best["removed"] - place):
            letters[row["domain"]] = dict(row)
    placed: Rows = []
    for row in letters.values():
        if all(abs(row["value"] - other["value"]) >= APART for other in placed):
            placed.append(row)
    return placed
