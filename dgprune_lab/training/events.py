"""The events that a training run yields."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

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
