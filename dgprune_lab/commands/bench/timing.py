"""Time several ways to do the same thing, taking turns so that other load affects all alike; format the rows."""

from __future__ import annotations

import statistics
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import torch

_WIDTH = 100


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: the medians, in `unit`, of this toolkit and of the peer (None if it has no counterpart).

    `aim` is the goal; `note` describes the peer and the case.
    """

    name: str
    ours: float
    peer: float | None = None
    unit: str = "s"
    repeats: int = 1
    device: str = "cpu"
    aim: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The time of the peer divided by the time of this package; None without a peer."""
        return None if self.peer is None else self.peer / self.ours

    def as_json(self) -> dict[str, Any]:
        """Return the row as a plain dictionary, with the ratio."""
        return {**asdict(self), "ratio": self.ratio}


def seconds(action: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of one call with the GPU work that it queues; work queued earlier is finished first."""
    _synchronise(device)
    start = time.perf_counter()
    action()
    _synchronise(device)
    return time.perf_counter() - start


def race(sides: Mapping[str, Callable[[], float]], *, repeats: int, warm_up: bool | None = None) -> dict[str, float]:
    """Return the median seconds of each side; the sides take turns.

    Args:
        sides: name -> function that does the work once and returns the seconds that count.
        repeats: number of turns that are counted.
        warm_up: whether an uncounted turn comes first; None for yes if there are several repeats.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    warm_up = repeats > 1 if warm_up is None else warm_up
    for turn in range(-1 if warm_up else 0, repeats):
        for name, side in sides.items():
            elapsed = side()
            if turn >= 0:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def race_calls(
    sides: Mapping[str, Callable[[], object]], device: torch.device, *, repeats: int, unit: str = "s"
) -> dict[str, float]:
    """Return the median time of one call of each side, in seconds or in "ms"; see `race`."""
    scale = {"s": 1, "ms": 1e3}[unit]
    calls = {name: lambda side=side: scale * seconds(side, device) for name, side in sides.items()}
    return race(calls, repeats=repeats)


def require_same(same: bool, what: str) -> None:
    """Refuse to time two sides that did not do the same work.

    Raises:
        RuntimeError: they did different work.
    """
    if not same:
        raise RuntimeError(f"the two sides have different {what}; their times cannot be compared.")


def heading(reason: str, quick: bool) -> str:
    """Return the lines with date, machine and the names of the columns."""
    text = f"{date.today().isoformat()}, torch {torch.__version__}; {reason}{'; quick, small cases' if quick else ''}"
    lines = [*textwrap.wrap(text, _WIDTH), "ratio = peer / ours: above 1, ours is faster", ""]
    return "\n".join([*lines, _format_cells("", "ours", "peer", "ratio", "aim"), "-" * _WIDTH])


def line(row: Row) -> str:
    """Return the text of one row, with its note below it."""
    peer = "none" if row.peer is None else f"{_format_number(row.peer)} {row.unit}"
    ratio = "" if row.ratio is None else f"{_format_number(row.ratio)}"
    name = row.name if row.device == "cpu" else f"{row.name} ({row.device})"
    first, *rest = textwrap.wrap(name, 52)
    cells = _format_cells(first, f"{_format_number(row.ours)} {row.unit}", peer, ratio, row.aim)
    times = "once" if row.repeats == 1 else f"median of {row.repeats}"
    note = textwrap.wrap(f"{row.note}; {times}" if row.note else times, _WIDTH - 4)
    return "\n".join([cells, *(f"  {text}" for text in rest), *(f"    {text}" for text in note)])


def _format_cells(name: str, *numbers: str) -> str:
    ours, peer, ratio, aim = numbers
    return f"{name:<52}{ours:>12}{peer:>12}{ratio:>9}  {aim:<13}".rstrip()


def _format_number(value: float) -> str:
    """Return a number with three significant figures as text: 0.0123, 1.23, 12.3, 1,234."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
