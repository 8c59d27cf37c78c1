"""Driving work that comes as a generator: to its end, under a bar, or step by step with something else to tell."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

Result = TypeVar("Result")
Told = TypeVar("Told")


def run_through(steps: Generator[Any, None, Result]) -> Result:
    """Run it to its end and return what it found."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def with_bar(steps: Generator[tuple[int, int], None, Result], *, progress: bool) -> Result:
    """Run what yields (done, total) to its end, under a tqdm bar where one is wanted."""
    from tqdm.auto import tqdm

    with tqdm(unit="evaluation", disable=not progress) as bar:
        while True:
            try:
                done, bar.total = next(steps)
            except StopIteration as end:
                return end.value
            bar.update(done - bar.n)


def telling(steps: Generator[Any, None, Result], what: Told) -> Generator[Told, None, Result]:
    """The same work, yielding `what` after each of its steps in place of what it yields."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        yield what
