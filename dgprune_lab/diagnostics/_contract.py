"""The contract of a diagnostic: a documented function from a study to a tidy table."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from typing import Any, ParamSpec, TypeVar

import pandas as pd

from ..core import COLUMNS, DgpruneError, Stepwise, public

Parameters = ParamSpec("Parameters")
Step = TypeVar("Step")
Mapped = TypeVar("Mapped")
Result = TypeVar("Result")

Row = dict[str, Any]
Rows = list[Row]
"""Rows from which `tidy` makes a table."""
Steps = Generator[tuple[int, int] | tuple[int, int, str], None, pd.DataFrame]
"""A generator that yields (done, total) or (done, total, label), and returns the table."""


class Diagnostic(Stepwise[Parameters, pd.DataFrame]):
    """A function from a study to a tidy table; it runs to its end when called, or step by step with `.steps(...)`.

    Attributes:
        name: name of the diagnostic.
        extra: key columns of the table besides the shared ones.
        cite: the source.
    """

    def __init__(
        self, name: str, function: Callable[Parameters, pd.DataFrame | Steps], *, extra: tuple[str, ...], cite: str
    ) -> None:
        @functools.wraps(function)
        def start(*args: Parameters.args, **options: Parameters.kwargs) -> Steps:
            return self._checked(function(*args, **options))

        super().__init__(start)  # pyright: ignore[reportArgumentType] (the default of its `run` is generic)
        self.name, self.extra, self.cite = name, extra, cite
        self.__signature__ = inspect.signature(function).replace(return_annotation="pd.DataFrame")

    def __repr__(self) -> str:
        return f"<diagnostic {self.name}>"

    def _checked(self, result: pd.DataFrame | Steps) -> Steps:
        frame = (yield from result) if isinstance(result, Generator) else result
        problem = f"diagnostic {self.name!r} must return a table from tidy(); it"
        if not isinstance(frame, pd.DataFrame):
            raise DgpruneError(f"{problem} returned {type(frame).__name__}.")
        if missing := [column for column in (*COLUMNS, *self.extra) if column not in frame.columns]:
            raise DgpruneError(f"{problem} lacks {', '.join(missing)}.")
        if self.cite:
            frame.attrs["cite"] = self.cite  # for `dg.cite`
        return frame


def map_steps(steps: Generator[Step, None, Result], apply: Callable[[Step], Mapped]) -> Generator[Mapped, None, Result]:
    """Run a generator, passing each step that it yields through a function."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        yield apply(step)


@public
def diagnostic(
    name: str, *, extra: tuple[str, ...] = (), cite: str = ""
) -> Callable[[Callable[Parameters, pd.DataFrame | Steps]], Diagnostic[Parameters]]:
    """Turn a function that answers one question about a study into a `Diagnostic`.

    The function returns the table, or a generator that yields (done, total) and returns the table: it may be a
    generator function, or check its arguments and then return a generator. Its argument
    `progress: bool = False`, if there is one, draws a bar when the diagnostic is called, not in `.steps(...)`.

    Args:
        name: name of the diagnostic; `charts.<name>` draws its table.
        extra: key columns of the table besides the shared ones, such as group, class, event or epoch.
        cite: the source.

    Raises:
        DgpruneError: a function without docstring.
    """

    def decorate(function: Callable[Parameters, pd.DataFrame | Steps]) -> Diagnostic[Parameters]:
        if not (function.__doc__ or "").strip():
            raise DgpruneError(f"diagnostic {name!r} needs a docstring.")
        return Diagnostic(name, function, extra=extra, cite=cite)

    return public(decorate)
