"""The rows as lines of a plain table, at most 100 columns wide."""

from __future__ import annotations

import textwrap
from datetime import date

import torch

from .timing import Row

_WIDTH = 100


def heading(reason: str, quick: bool) -> str:
    """Return the lines with date, machine and the names of the columns."""
    text = f"{date.today().isoformat()}, torch {torch.__version__}; {reason}{'; quick, small cases' if quick else ''}"
    lines = [*textwrap.wrap(text, _WIDTH), "ratio = peer / ours: above 1, ours is faster", ""]
    return "\n".join([*lines, _cells("", "ours", "peer", "ratio", "aim"), "-" * _WIDTH])


def line(row: Row) -> str:
    """Return the text of one row, with its note below it."""
    peer = "none" if row.peer is None else f"{_number(row.peer)} {row.unit}"
    ratio = "" if row.ratio is None else f"{_number(row.ratio)}"
    name = row.name if row.device == "cpu" else f"{row.name} ({row.device})"
    first, *rest = textwrap.wrap(name, 52)
    cells = _cells(first, f"{_number(row.ours)} {row.unit}", peer, ratio, row.aim)
    times = "once" if row.repeats == 1 else f"median of {row.repeats}"
    note = textwrap.wrap(f"{row.note}; {times}" if row.note else times, _WIDTH - 4)
    return "\n".join([cells, *(f"  {text}" for text in rest), *(f"    {text}" for text in note)])


def _cells(name: str, *numbers: str) -> str:
    ours, peer, ratio, aim = numbers
    return f"{name:<52}{ours:>12}{peer:>12}{ratio:>9}  {aim:<13}".rstrip()


def _number(value: float) -> str:
    """Return a number with three significant figures as text: 0.0123, 1.23, 12.3, 1,234."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"
