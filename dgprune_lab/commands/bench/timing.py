"""Timing two or more ways to do the same thing, turn by turn, so that a busy machine is busy for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: what was timed.
        ours: median time of this toolkit, in `unit`.
        peer: median time of the peer; None where it has nothing like it.
        unit: "ms" or "s".
        repeats: how often each side ran.
        device: "cpu" or "cuda".
        aim: what was hoped for, in words.
        note: who the peer is and what the case is.
    """

    name: str
    ours: float
    peer: float | None
    unit: str
    repeats: int
    device: str = "cpu"
    aim: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Peer's time over ours: above 1, ours is faster."""
        return None if self.peer is None else self.peer / self.ours

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary, the ratio included."""
        held = asdict(self)
        return {key: held[key] for key in ("name", "ours", "peer")} | {"ratio": self.ratio} | held


def seconds(action: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call; work that a GPU still has queued is waited for before and after."""
    _wait(device)
    start = time.perf_counter()
    action()
    _wait(device)
    return time.perf_counter() - start


def race(sides: Mapping[str, Callable[[], float]], *, repeats: int, warm_up: bool = True) -> dict[str, float]:
    """Median seconds of each side; the sides take turns, each call returns its own seconds.

    Args:
        sides: name -> a call that does the work once and returns how long the part that counts took.
        repeats: counted turns.
        warm_up: whether one turn before them is not counted.
    """
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-1 if warm_up else 0, repeats):
        for name, side in sides.items():
            found = side()
            if turn >= 0:
                taken[name].append(found)
    return {name: statistics.median(values) for name, values in taken.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
