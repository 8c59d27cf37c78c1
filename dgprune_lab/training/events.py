"""The events that a training run yields, and running it to its end, with or without a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from torch import nn

from ..core import has_stderr, note

Moment = Literal["full", "cut", "tuned", "trained"]


@dataclass(frozen=True, kw_only=True)
class BatchEvent:
    """A step of the optimiser.

    Attributes:
        epoch, epochs: number of the epoch, from 1, and how many there will be.
        batch, batches: number of the batch, from 1, and how many an epoch has.
        images: number of images in the batch.
        loss: mean cross-entropy over these images, before the step, whatever the objective.
        lr: learning rate of the step.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    images: int
    loss: float
    lr: float


@dataclass(frozen=True, kw_only=True)
class EpochEvent:
    """The end of an epoch.

    Attributes:
        epoch, epochs: number of the epoch, from 1, and how many there will be.
        loss: mean cross-entropy over the images of the epoch, each before the step on its batch.
        lr: learning rate of the last step.
        seconds: time spent in training steps so far, without the time that the caller takes between events.
        model: the network itself in eval mode, not a copy: evaluate it at once, or copy it.
    """

    epoch: int
    epochs: int
    loss: float
    lr: float
    seconds: float
    model: nn.Module = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class PruneEvent:
    """Filters were removed: once per round, or at every event of a training run with pruning.

    Attributes:
        round, rounds: number of the round or event, from 1, and how many there will be.
        removed: layer -> indices, in the original network, of the filters removed now; empty for the dense control.
        rows: rows of the table for the network right after the removal; empty if it was not measured.
        so_far: the result of the run if it ended here.
    """

    round: int
    rounds: int
    removed: Mapping[str, Sequence[int]]
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    so_far: Any = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class StageEvent:
    """The network was measured, or a stage is complete.

    Attributes:
        stage: "full" (before the first removal), "cut", "tuned", or "trained" in a training run with pruning.
        round, rounds: number of the last round or event, 0 before the first, and how many there will be.
        epoch, epochs: number of epochs trained so far, over all rounds, and how many there will be.
        rows: the new rows of the table; empty if nothing was measured.
        so_far: the result of the run if it ended here.
    """

    stage: Moment
    round: int
    rounds: int
    epoch: int
    epochs: int
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    so_far: Any = field(repr=False, compare=False)


Event = BatchEvent | EpochEvent
Events = Generator[Event, None, nn.Module]
RunEvent = BatchEvent | EpochEvent | PruneEvent | StageEvent
Result = TypeVar("Result")
Show = Callable[[RunEvent | None], object]


def finish(steps: Generator[Any, None, Result], show: Show = lambda _: None) -> Result:
    """Run training to its end and return its result; Ctrl-C between two events acts as it does in a training step.

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
    """Open a tqdm bar that counts batches; yield a function to be called with every training event."""
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
