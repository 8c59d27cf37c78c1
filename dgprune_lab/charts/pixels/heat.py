"""Colours of numbers, and tables of numbers as small pictures, since a mark per cell would mean ten thousand marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..theme import INK
from .images import png as encode

Floats = NDArray[np.float64]

# From 0 to strong; for signed numbers, from strongly negative to strongly positive. No domain has these colours.
SEQUENTIAL = ("#F3F6F7", "#A9CDD5", "#2A788E", "#0B2F3A")
DIVERGING = ("#6B4A00", "#B07D00", "#E3CB9A", "#F6F6F4", "#A9CDD5", "#2A788E", "#0B2F3A")
_PIXELS = 320


def blocks(values: Floats, *, most: int) -> tuple[Floats, tuple[int, int]]:
    """Return a table of means over blocks, so that no side is longer than `most`, and a block's rows and columns.

    >>> blocks(np.arange(6.0).reshape(2, 3), most=2)[0].tolist()
    [[0.5, 2.0], [3.5, 5.0]]
    """
    steps = [math.ceil(side / most) for side in values.shape]
    for axis, step in enumerate(steps):
        starts = np.arange(0, values.shape[axis], step)
        counts = np.diff(np.append(starts, values.shape[axis]))
        values = np.add.reduceat(values, starts, axis=axis) / (counts[:, None] if axis == 0 else counts)
    return values, (steps[0], steps[1])


def colours(values: Floats, *, low: float, high: float) -> NDArray[np.uint8]:
    """Return red, green and blue (..., 3) of numbers on a colour scale; it is diverging if `low` is below 0."""
    stops = DIVERGING if low < 0 else SEQUENTIAL
    table = np.array([[int(stop[k : k + 2], 16) for k in (1, 3, 5)] for stop in stops], dtype=np.float64)
    place = np.clip((values - low) / max(high - low, 1e-12), 0, 1) * (len(stops) - 1)
    return np.stack([np.interp(place, range(len(stops)), table[:, k]) for k in range(3)], -1).round().astype(np.uint8)


def hexes(values: Floats, *, low: float, high: float) -> list[str]:
    """Return the colours of a flat array as CSS colours."""
    return ["#{:02X}{:02X}{:02X}".format(*row) for row in colours(values, low=low, high=high).tolist()]


def png(values: Floats, *, low: float, high: float) -> str:
    """Return a table as a PNG data URL, row 0 on top; cells are blocks of pixels, so scaling does not blur them."""
    pixels: NDArray[Any] = colours(values, low=low, high=high)
    for axis in (0, 1):
        pixels = np.repeat(pixels, max(1, _PIXELS // values.shape[axis]), axis=axis)
    return encode(pixels, optimize=True)


def ends(tables: Sequence[Floats]) -> tuple[float, float]:
    """Return a common scale (low, high): high is the largest |number|, rounded up to .1; low: 0, or -high if signed."""
    most = max((float(np.abs(table).max()) for table in tables if table.size), default=0.0)
    high = max(0.1, math.ceil(most * 10 - 1e-9) / 10)
    return (-high if any(table.size and float(table.min()) < 0 for table in tables) else 0.0), high


def mixed(colour: str, share: float) -> str:
    """Return a colour mixed with a pale grey: the colour at share 1, the grey at 0.

    >>> mixed("#0072B2", 1.0), mixed("#0072B2", 0.0)
    ('#0072B2', '#F6F6F4')
    """
    pairs = ((int(end[k : k + 2], 16) for end in ("#F6F6F4", colour)) for k in (1, 3, 5))
    return "#" + "".join(f"{round((1 - share) * pale + share * full):02X}" for pale, full in pairs)


def ink_on(colour: str) -> str:
    """Return the text colour that is legible on a colour (relative luminance, WCAG 2.1).

    >>> ink_on("#f6f6f4"), ink_on("#542788")
    ('#22272E', '#FFFFFF')
    """
    shares = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return INK if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.2 else "#FFFFFF"
