"""The runs of an experiment that is about to start, and how long they take."""

from __future__ import annotations

import pkgutil
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..core import DgpruneError, duration
from .executors import width
from .experiment import Experiment
from .results import seconds_left
from .settings import key_of

_RESULTS = ("metric", "value", "low", "high", "interval", "unit")
_RECOUNT = 5.0  # seconds after which the workers are counted again
_SPARE = 32  # runs submitted beyond two per worker, so that no worker waits for the driver


def keys_of(experiment: Experiment) -> list[str]:
    """Return the key of each run.

    Raises:
        DgpruneError: no run; settings that are not plain, or have the name of a result column; two runs with the same
            settings.
    """
    if not experiment.grid:
        raise DgpruneError("experiment: its grid has no run; name at least one: experiments.grid(scorer=['l1']).")
    names = dict.fromkeys([*experiment.protocol, *(name for settings in experiment.grid for name in settings)])
    if reserved := [name for name in names if name in _RESULTS]:
        raise DgpruneError(
            f"experiment: {' and '.join(map(repr, reserved))} cannot name settings, as columns of the results have "
            "these names; rename them."
        )
    indices: dict[str, int] = {}
    for index in range(len(experiment.grid)):
        if (first := indices.setdefault(experiment.key(index), index)) != index:
            raise DgpruneError(
                f"experiment: runs {first} and {index} of its grid have the same settings, "
                f"{dict(experiment.grid[index])}; name each once."
            )
    return list(indices)


def about_experiment(experiment: Experiment) -> dict[str, Any]:
    """Return the description of an experiment that its folder stores."""
    axes = list(dict.fromkeys(name for settings in experiment.grid for name in settings))
    return {
        "name": experiment.name,
        "question": experiment.question,
        "protocol": dict(experiment.protocol),
        "axes": axes,
        "extra": list(experiment.extra),
        "cite": experiment.cite,
        "total": len(experiment.grid),
        "grid": key_of({"runs": tuple(map(dict, experiment.grid))}),
    }


def name_of(function: Callable[..., Any]) -> str:
    """Return "module:name" of a function, by which workers import it.

    Raises:
        DgpruneError: a function that is not at the top level of a module.
    """
    name = f"{getattr(function, '__module__', None)}:{getattr(function, '__qualname__', None)}"
    try:
        resolved = pkgutil.resolve_name(name)
    except (ValueError, ImportError, AttributeError):
        resolved = None
    if resolved is not function:
        raise DgpruneError(
            f"experiment: workers import its function by name, and {name} is not at the top level of a module; "
            "write it there, or leave out executor=."
        )
    return name


@dataclass(kw_only=True)
class Pace:
    """How many runs are finished, and how fast.

    Attributes:
        total, done, failed: numbers of runs.
        workers: how many runs are computed at a time.
        lost: the error of each run whose worker ended before the run did.
    """

    total: int
    done: int
    failed: int
    workers: int
    lost: list[BaseException] = field(default_factory=list)
    _seconds: float = 0.0
    _count: int = 0
    _counted_at: float = field(default_factory=time.monotonic)

    @property
    def finished(self) -> int:
        """Number of runs that are done or have failed."""
        return self.done + self.failed

    @property
    def room(self) -> int:
        """Number of runs that may be submitted at a time."""
        return 2 * self.workers + _SPARE

    @property
    def broken(self) -> bool:
        """Whether the executor accepts no more runs."""
        return any(isinstance(error, BrokenExecutor) for error in self.lost)

    def count(self, answer: dict[str, Any]) -> None:
        if answer["state"] == "failed":
            self.failed += 1
        else:
            self.done += 1
            self._count += 1
            self._seconds += answer["seconds"]

    def recount_workers(self, executor: Executor | None) -> bool:
        """Count the workers again from time to time; return whether their number has changed."""
        previous = self.workers
        if time.monotonic() - self._counted_at > _RECOUNT:
            self._counted_at = time.monotonic()
            with suppress(OSError):  # a scheduler that does not answer
                self.workers = width(executor)
        return self.workers != previous

    def status(self) -> str:
        """Return the time left and the number of failed runs as text."""
        mean = self._seconds / self._count if self._count else None
        left = seconds_left(mean, left=self.total - self.finished, workers=self.workers)
        parts = [f"about {duration(left)} left"] if left else []
        parts += [f"{self.failed} failed"] if self.failed else []
        return ", ".join(parts if self.workers else ["no worker has joined yet", *parts])

    def lost_message(self) -> str:
        """Return the message about runs whose workers ended."""
        why = f"{type(self.lost[-1]).__name__}: {self.lost[-1]}".rstrip(": ")
        return (
            f"executor: workers ended before their runs did ({why}). {self.total - self.finished} of {self.total} runs "
            "are open, and nothing that is done is lost: start again. A worker that needs more memory than there is "
            "is killed by the system: use fewer."
        )
