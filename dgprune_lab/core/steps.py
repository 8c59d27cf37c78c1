"""Operations that run in steps: written once as a generator, called as a function or advanced step by step."""

from __future__ import annotations

import functools
import multiprocessing
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Generic, ParamSpec, TypeVar

from torch.overrides import TorchFunctionMode

from .border import outside_inference, public

Result = TypeVar("Result")
Value = TypeVar("Value")
Parameters = ParamSpec("Parameters")
_thread = threading.local()


class Cancelled(BaseException):
    """Raised inside a step of a job that is no longer wanted."""


@contextmanager
def cancelled_when(unwanted: Callable[[], bool] | None) -> Iterator[None]:
    """Within the block, end this thread's `interruptible` work as soon as `unwanted()` is true; None never ends it."""
    before = getattr(_thread, "unwanted", None)
    _thread.unwanted = unwanted
    try:
        yield
    finally:
        _thread.unwanted = before


def interruptible() -> AbstractContextManager[object]:
    """Return a context in which each call of a torch function raises `Cancelled` once the work is unwanted.

    This lets a forward pass, which takes seconds in a large network, be cancelled between its layers.
    """
    unwanted = getattr(_thread, "unwanted", None)
    return nullcontext() if unwanted is None else _Interruptible(unwanted)


class _Interruptible(TorchFunctionMode):
    def __init__(self, unwanted: Callable[[], bool]) -> None:
        super().__init__()
        self._unwanted = unwanted

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._unwanted():
            raise Cancelled
        return func(*args, **(kwargs or {}))


def drain(steps: Generator[Any, None, Result]) -> Result:
    """Run a generator to its end and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def duration(seconds: float) -> str:
    """Return a duration, rounded, as text.

    >>> duration(0.4), duration(8.2), duration(43), duration(100), duration(4000)
    ('1 s', '8 s', '45 s', '2 min', '67 min')
    """
    if seconds < 90:
        return f"{max(1, round(seconds) if seconds < 20 else 5 * round(seconds / 5))} s"
    return f"{round(seconds / 60)} min"


def has_stderr() -> bool:
    """Return whether a bar can be drawn: a program without a console has no stderr, or a closed one."""
    return sys.stderr is not None and not sys.stderr.closed


def progress_bar(
    steps: Generator[tuple[Any, ...], None, Result], *, progress: bool, unit: str = "evaluation"
) -> Result:
    """Run to its end a generator that yields (done, total), with a tqdm bar if `progress`, and return its result.

    If a step has a third item, it is a label shown after the bar; where it changes and `done` goes back, a new stage
    begins and the bar starts again.
    """
    from tqdm.auto import tqdm

    last_label: str | None = None
    with tqdm(unit=unit, disable=not (progress and has_stderr())) as bar:
        while True:
            try:
                done, bar.total, *label = next(steps)
            except StopIteration as end:
                return end.value
            if label and label[0] != last_label:  # each refresh is a line, where the bar goes to a file
                last_label = label[0]
                bar.set_postfix_str(label[0], refresh=False)
                bar.reset(bar.total) if done < bar.n else bar.refresh()
            if done != bar.n:
                bar.update(done - bar.n)


def late_bar(items: Iterable[Value], *, label: str, total: int) -> Iterable[Value]:
    """Return the items with a tqdm bar that is drawn if they take over 3 s, and removed at their end.

    Only the main thread of the main process draws it.
    """
    from tqdm.auto import tqdm

    main = threading.current_thread() is threading.main_thread() and multiprocessing.parent_process() is None
    hidden = None if main and has_stderr() else True  # None: hidden where the output is no terminal or notebook
    return tqdm(items, desc=label, total=total, unit="image", delay=3.0, leave=False, disable=hidden)


def yielding(steps: Generator[Any, None, Result], value: Value) -> Generator[Value, None, Result]:
    """Yield `value` after each step of another generator, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        yield value


class Stepwise(Generic[Parameters, Result]):
    """An operation that runs to its end when called, or step by step with `.steps(...)`.

    Both take the same arguments. Among them, `progress=` draws a bar when the operation is called, and has no effect
    on `.steps`.
    """

    def __init__(
        self, start: Callable[Parameters, Generator[Any, None, Result]], run: Callable[..., Result] = progress_bar
    ) -> None:
        self.steps = public(start)
        self._run = run
        functools.update_wrapper(self, start)

    def __get__(self, instance: object, owner: type | None = None) -> Stepwise[Parameters, Result]:
        """Return self: because of this method, `inspect`, `help()` and pdoc treat the object as a function."""
        return self

    def __reduce__(self) -> str:
        """Pickle the operation by its name, as functions are pickled."""
        return self.__qualname__  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, *args: Parameters.args, **options: Parameters.kwargs) -> Result:
        with outside_inference():
            return self._run(self.steps(*args, **options), progress=bool(options.get("progress", False)))


def stepwise(
    run: Callable[..., Result],
) -> Callable[[Callable[Parameters, Generator[Any, None, Result]]], Stepwise[Parameters, Result]]:
    """Turn a function that returns a generator into a `Stepwise` operation.

    Args:
        run: `run(steps, progress=...)` runs the generator to its end and returns its result; for a generator that
            yields (done, total), `progress_bar`.
    """
    return lambda start: Stepwise(start, run)
