"""Run training to its end, with or without a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..core import has_stderr, note
from .events import BatchEvent, EpochEvent, PruneEvent, RunEvent, StageEvent

Result = TypeVar("Result")
Show = Callable[[RunEvent | None], object]


def finish(steps: Generator[Any, None, Result], show: Show = lambda _: None) -> Result:
    """Run training to its end and return its result; Ctrl-C between two events acts as during a training step.

    Args:
        steps: a generator of training events.
        show: function called with every event.
    """
    while True:
        try:
            show(next(steps))
        except StopIteration as end:
            return end.value
        except KeyboardInterrupt as interrupt:
            try:
                steps.throw(interrupt)
            except StopIteration as end:
                return end.value


@contextmanager
def event_bar(label: str, *, progress: bool = True) -> Iterator[Show]:
    """Open a tqdm bar that counts batches; yields a function to be called with every training event."""
    from tqdm.auto import tqdm

    with tqdm(desc=label, unit="batch", disable=not (progress and has_stderr())) as bar:
        epochs, reached, loss = 0, "", ""

        def show(event: RunEvent | None) -> None:
            nonlocal epochs, reached, loss
            if isinstance(event, BatchEvent):
                bar.total = (epochs or event.epochs) * event.batches
                bar.update()
            elif isinstance(event, EpochEvent):
                loss = f"epoch {event.epoch}/{event.epochs}, loss {event.loss:.3f}"
            elif isinstance(event, PruneEvent | StageEvent):
                epochs = event.epochs if isinstance(event, StageEvent) else epochs
                reached = str(event.so_far)
            bar.set_postfix_str(", ".join(filter(None, (reached, loss))), refresh=False)

        yield show


def run_events(steps: Generator[Any, None, Any], *, label: str, progress: bool) -> Any:
    """Run training with pruning to its end; issue a note if it was stopped early."""
    with event_bar(label, progress=progress) as show:
        result = finish(steps, show)
    if not result.finished and not result.reached.startswith("diverged"):
        note(f"stopped early; networks and tables are those of {result.reached}, finished=False.")
    return result
