"""A training with pruning that one watches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ...core import Domain
from ...scorers import Scorer, resolve
from ...training import How, PruneSchedule, PruningRun, Remove, TrainingOptions, training_steps
from .live import Live

_LEAVING = {"smallest": "the lowest leave", "largest": "the highest leave"}
_PASSING = {"zero": "zeroed, then free", "noise": "noise", "restore": "zeroed, then restored"}


class Training(Live):
    """`dg.train_with_pruning` live: stop it, go on with it, look at it while it runs; `result` is its `PruningRun`.

    All arguments are those of `dg.train_with_pruning`. A rule marks every event and says how many points the first
    source lost at once; dotted is how the images are read that the network is trained on.

    Raises:
        DgpruneError: what `dg.train_with_pruning` refuses, at once.
    """

    _cut = "event"

    def __init__(
        self,
        network: nn.Module,
        *,
        sources: Sequence[Domain],
        targets: Sequence[Domain] = (),
        schedule: PruneSchedule | None,
        options: TrainingOptions | None = None,
        scorer: str | Scorer = "l2",
        remove: Remove = "smallest",
        how: How = "remove",
        batches: int | None = None,
        split: str = "score",
        report: str = "report",
        seed: int = 0,
        images: int | None = None,
        checkpoint: str | Path | None = None,
    ) -> None:
        steps = training_steps(
            network,
            sources=sources,
            targets=targets,
            schedule=schedule,
            options=options,
            scorer=scorer,
            remove=remove,
            how=how,
            batches=batches,
            split=split,
            report=report,
            seed=seed,
            images=images,
            checkpoint=checkpoint,
        )
        what = "random filters leave" if remove == "random" else f"{resolve(scorer).name}: {_LEAVING[remove]}"
        if how != "remove":
            what += f" ({_PASSING[how]}, {batches} batches)"
        what = "nothing is removed" if schedule is None or not schedule.epochs else what
        epochs = (options or TrainingOptions()).epochs
        super().__init__(lambda: steps, title=f"Training with pruning, {what}, {epochs} epochs", epochs=epochs)

    @property
    def result(self) -> PruningRun:
        """The `PruningRun`; waits while it runs. Of a run that is stopped or closed, what is done so far."""
        return super().result
