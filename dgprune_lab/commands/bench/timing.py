"""Time several ways to do the same thing in turns, so that other load on the machine affects all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch


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
        """The time of the implementation compared with, divided by the time of this package; None if there is none."""
        return None if self.peer is None else self.peer / self.ours

    def as_json(self) -> dict[str, Any]:
        """Return the row as a plain dictionary, with the ratio."""
        return {**asdict(self), "ratio": self.ratio}


def seconds(action: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of one call; queued work of a GPU is finished before and after it."""
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
        warm_up: whether there is one more turn before these, which is not counted; None: if there are several repeats.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    warm_up = repeats > 1 if warm_up is None else warm_up
    for turn in range(-1 if warm_up else 0, repeats):
        for name, side in sides.items():
            taken = side()
            if turn >= 0:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def require_same(same: bool, what: str) -> None:
    """Refuse to time two sides that did not do the same work.

    Raises:
        RuntimeError: they did different work.
    """
    if not same:
        raise RuntimeError(f"the two sides have different {what}; their times cannot be compared.")


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
