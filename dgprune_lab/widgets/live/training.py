"""Pruning in rounds and pruning during training, live."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...charts.training import COUNTED
from ...core import Budget, Count, Ratio, Repeats, Whole, batchnorm_words, public
from ...measurement import has_batchnorm
from ...scorers import Scorer, resolve
from ...study import Study
from ...training import (
    How,
    PruneSchedule,
    PruningRun,
    Remove,
    TrainingOptions,
    Tuned,
    prune_and_tune,
    rounds_of,
    train_with_pruning,
)
from .live import Live

_REMOVED = {"smallest": "lowest scores removed", "largest": "highest scores removed"}
_TREATED = {"zero": "zeroed before removal", "noise": "noise", "restore": "zeroed, then restored"}


@public
class Tuning(Live):
    """`dg.prune_and_tune` as a live run that can be stopped and resumed; `result` is its `Tuned`.

    Takes the arguments of `dg.prune_and_tune`; measures after every epoch unless `measure` is given.

    Raises:
        DgpruneError: as `dg.prune_and_tune`, before the run starts.
    """

    def __init__(
        self,
        study: Study,
        scorer: str | Scorer | None,
        *,
        ratio: Ratio,
        rounds: Repeats | None = None,
        epochs: Whole = 20,
        budget: Budget = "filters",
        **options: Any,
    ) -> None:
        shared = {"ratio": ratio, "rounds": rounds, "epochs": epochs, "budget": budget}
        steps = prune_and_tune.steps(study, scorer, **{"measure": "epochs", **shared, **options})
        count = rounds_of(ratio, rounds)
        label = "Dense control, nothing removed" if scorer is None else resolve(scorer).label
        share = "" if scorer is None else f", {100 * ratio:g} % of the {COUNTED[budget]}"
        extent = f"{count} round{'s' if count > 1 else ''} of {epochs} epoch{'s' if epochs != 1 else ''}"
        super().__init__(steps, title=f"{label}{share}, in {extent}", epochs=count * epochs)

    @property
    def result(self) -> Tuned:
        """The `Tuned` of the run. Blocks until the run ends; a stopped or closed run gives the result so far."""
        return super().result


@public
class Training(Live):
    """`dg.train_with_pruning` as a live run that can be stopped and resumed; `result` is its `PruningRun`.

    Takes the arguments of `dg.train_with_pruning`. A vertical line marks each event, with the percentage points of
    accuracy that the first source lost; the dotted line is the accuracy on the training images.

    Raises:
        DgpruneError: as `dg.train_with_pruning`, before the run starts.
    """

    _removal = "event"

    def __init__(
        self,
        network: nn.Module,
        *,
        schedule: PruneSchedule | None,
        options: TrainingOptions | None = None,
        scorer: str | Scorer = "l2",
        remove: Remove = "smallest",
        how: How = "remove",
        batches: Count | None = None,
        **further: Any,
    ) -> None:
        shared = {"schedule": schedule, "options": options, "scorer": scorer, "remove": remove, "how": how}
        steps = train_with_pruning.steps(network, **shared, batches=batches, **further)
        removal = "random filters removed" if remove == "random" else f"{resolve(scorer).name}: {_REMOVED[remove]}"
        if how != "remove":
            removal += f" ({_TREATED[how]}, {batches} batches)"
        removal = "nothing removed" if schedule is None or not schedule.epochs else removal
        epochs = (options or TrainingOptions()).epochs
        setting = f", {batchnorm_words(['as_is'])}" if has_batchnorm(network) else ""
        super().__init__(steps, title=f"Training with pruning, {removal}, {epochs} epochs{setting}", epochs=epochs)

    @property
    def result(self) -> PruningRun:
        """The `PruningRun` of the run. Blocks until the run ends; a stopped or closed run gives the result so far."""
        return super().result
