"""The rows as lines of a plain table, at most 100 columns wide."""

from __future__ import annotations

import textwrap
from datetime import date

import torch

from .timing import Row

_WIDTH = 100


def heading(reason: str, quick: bool) -> str:
    """What was run and when, and the names of the columns."""
    words = f"{date.today().isoformat()}, torch {torch.__version__}; {reason}{'; quick, small cases' if quick else ''}"
    said = [*textwrap.wrap(words, _WIDTH), "ratio = peer / ours: above 1, ours is faster", ""]
    return "\n".join([*said, _cells("", "ours", "peer", "ratio", "aim"), "-" * _WIDTH])


def line(row: Row) -> str:
    """One row, with its note below it."""
    peer = "none" if row.peer is None else f"{_number(row.peer)} {row.unit}"
    ratio = "" if row.ratio is None else f"{_number(row.ratio)}"
    name = row.name if row.device == "cpu" else f"{row.name} ({row.device})"
    first, *rest = textwrap.wrap(name, 52)
    cells = _cells(first, f"{_number(row.ours)} {row.unit}", peer, ratio, row.aim)
    times = "once" if row.repeats == 1 else f"median of {row.repeats}"
    note = textwrap.wrap(f"{row.note}; {times}" if row.note else times, _WIDTH - 4)
    return "\n".join([cells, *(f"  {part}" for part in rest), *(f"    {part}" for part in note)])


def _cells(name: str, ours: str, peer: str, ratio: str, aim: str) -> str:
    return f"{name:<52}{ours:>12}{peer:>12}{ratio:>9}  {aim:<13}".rstrip()


def _number(value: float) -> str:
    """Three figures: 0.0123, 1.23, 12.3, 1,234."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"
