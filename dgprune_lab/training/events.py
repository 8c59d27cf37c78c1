"""What decides a training, and what a training says while it runs."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

Moment = Literal["full", "cut", "tuned", "trained"]


@dataclass(frozen=True)
class BatchEvent:
    """One step was taken: epochs and batches count from 1, `loss` is the mean of the batch, `lr` what the step used."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    images: int
    loss: float
    lr: float


@dataclass(frozen=True)
class EpochEvent:
    """One epoch is over.

    Attributes:
        epoch: from 1.
        epochs: how many there will be.
        loss: mean over the images of the epoch, each as it was when its batch was taken.
        lr: of the last step.
        seconds: in the training steps since it began; what a consumer does between events is not counted.
        model: the network itself, in eval mode, not a copy: look at it now, or copy it to keep it.
    """

    epoch: int
    epochs: int
    loss: float
    lr: float
    seconds: float
    model: nn.Module = field(repr=False, compare=False)


@dataclass(frozen=True)
class PruneEvent:
    """Filters were removed between two epochs; one in every round, or at every event of a training with pruning.

    Attributes:
        round: from 1; in a training with pruning, the number of the event.
        rounds: how many there will be.
        removed: layer -> numbers, in the original network, of the filters that went now; empty where none were to go.
        rows: of the table, about the network right after the cut; empty where it was not measured.
        so_far: what the run gives back if it ends here.
    """

    round: int
    rounds: int
    removed: Mapping[str, Sequence[int]]
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    so_far: Any = field(repr=False, compare=False)


@dataclass(frozen=True)
class StageEvent:
    """The network was measured, or a stage is over.

    Attributes:
        stage: "full" (before the first cut), "cut", "tuned" or, where training and pruning are one, "trained".
        round: from 1; 0 before the first.
        rounds: how many there will be.
        epoch: epochs of tuning (or training) so far, over all rounds.
        rows: of the table; empty where nothing was measured.
        so_far: what the run gives back if it ends here.
    """

    stage: Moment
    round: int
    rounds: int
    epoch: int
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    so_far: Any = field(repr=False, compare=False)


Event = BatchEvent | EpochEvent
Events = Generator[Event, None, nn.Module]
RunEvent = BatchEvent | EpochEvent | PruneEvent | StageEvent
