"""What a training reports while it runs."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

Moment = Literal["full", "cut", "tuned", "trained"]


@dataclass(frozen=True, kw_only=True)
class BatchEvent:
    """A step of the optimiser: epoch and batch from 1, the mean loss before the step, and its learning rate."""

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
        epoch, epochs: from 1, and how many there will be.
        loss: mean over the images of the epoch, each taken before the step on its batch.
        lr: learning rate of the last step.
        seconds: spent in training steps so far, without what the consumer does between events.
        model: the network itself in eval mode, not a copy: evaluate it now, or copy it.
    """

    epoch: int
    epochs: int
    loss: float
    lr: float
    seconds: float
    model: nn.Module = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class PruneEvent:
    """Filters were removed between two epochs: once per round, or at every event of a training with pruning.

    Attributes:
        round, rounds: number of the round or event, from 1, and how many there will be.
        removed: layer -> filters removed now, numbered as in the original network; empty for the dense control.
        rows: of the table, for the network right after the removal; empty where it was not measured.
        so_far: the result, if the run ended here.
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
        stage: "full" (before the first removal), "cut", "tuned", or "trained" in a training with pruning.
        round, rounds: number of the last round or event, 0 before the first, and how many there will be.
        epoch, epochs: epochs trained so far, over all rounds, and how many there will be.
        rows: of the table; empty where nothing was measured.
        so_far: the result, if the run ended here.
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
