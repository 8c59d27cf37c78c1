"""The checked options of a training run with pruning, and its result."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from torch import nn

from ...core import Mask, WeightMask, public, unknown
from ...pruning import prune
from ...scorers import Scorer
from ...study import Study
from ..events import RunEvent
from ..options import TrainingOptions
from .producers import Producer
from .rows import mean_stability, plain
from .schedules import PruneSchedule
from .treatments import How

Remove = Literal["smallest", "largest", "random"]


@public
@dataclass(frozen=True, eq=False, kw_only=True)
class PruningRun:
    """The result of a training run with pruning.

    Attributes:
        network: the trained network in eval mode, with its full shape: removed weights are exactly zero. `dg.save`
            takes it.
        mask: which weights of the network were removed.
        filters: which filters were removed in every layer that produces them.
        table: the training curve: accuracy and loss per domain after every epoch ("trained") and right after every
            event ("cut"), and the training loss; extra columns epoch, stage, event.
        events: for each event and domain, the accuracy before and after, their difference and the relative drop; extra
            columns event, epoch, layers, filters.
        end: accuracy and loss at the last epoch ("last") and at the epoch that was best on `split`, the gap between
            training images and reported images, and the mean stability; empty until training is complete. The best
            epoch may come before the last event or before any, so that its network has more filters than `network`;
            `epoch` says which it is, while `ratio_achieved` and `event` are those of the whole run.
        settings: all options, as plain values.
        finished: False if the run was stopped or diverged; the network is then that of the last complete epoch.
        reached: the last complete epoch, such as "epoch 3 of 20".
    """

    network: nn.Module = field(repr=False)
    mask: WeightMask = field(repr=False)
    filters: Mask = field(repr=False)
    table: pd.DataFrame = field(repr=False)
    events: pd.DataFrame = field(repr=False)
    end: pd.DataFrame = field(repr=False)
    settings: Mapping[str, Any] = field(repr=False)
    finished: bool
    reached: str

    def __str__(self) -> str:
        return f"{self.reached}, mean stability {self.stability():.1f} %"

    def stability(self, domain: str | None = None) -> float:
        """Return the mean stability in percent: 100 (1 - mean relative drop over the events); 100 without events.

        Args:
            domain: name of a domain; None averages the relative drops over all sources.

        Returns:
            NaN if accuracy was at chance before every event. Events before training (epoch 0) do not count.

        Raises:
            DgpruneError: a domain that the run has not measured.

        Source: Bartoldson et al. 2020, arXiv:1906.03728, section 3.
        """
        measured = sorted(set(self.table["domain"].dropna()))
        if domain is not None and domain not in measured:
            raise unknown("domain", domain, measured)
        return mean_stability(self.events, domain=domain)

    @property
    def rate(self) -> float:
        """The pruning rate: the share of the scheduled layers' filters that an event removes, or treats, on average.

        0 without events.
        """
        removed = {row["event"]: row["filters"] for row in self.events.to_dict("records")}
        total = sum(self.settings["filters"].values())
        return round(sum(removed.values()) / len(removed) / total, 4) if removed else 0.0

    def pruned(self) -> nn.Module:
        """Return the smaller network with the same logits, without the filters that every producer has lost.

        A filter of a residual stream can be removed physically only if all layers that produce it have lost it.
        """
        return prune(self.network, self.filters)


PruningSteps = Generator[RunEvent | None, None, PruningRun]


@dataclass(frozen=True, kw_only=True)
class PruningPlan:
    """The checked options of a run; see `train_with_pruning`."""

    study: Study
    producers: Mapping[str, Producer]
    schedule: PruneSchedule
    timetable: Mapping[int, Mapping[str, int]]
    options: TrainingOptions
    scorer: Scorer
    remove: Remove
    how: How
    batches: int
    split: str
    report: str
    seed: int
    images: int | None
    checkpoint: Path | None

    @property
    def name(self) -> str:
        """Name of the scorer in tables."""
        return "random" if self.remove == "random" else self.scorer.name

    @property
    def settings(self) -> dict[str, Any]:
        """The options as plain values."""
        return {
            "network": self.study.content,
            "sources": {d.name: d.key for d in self.study.sources},
            "targets": {d.name: d.key for d in self.study.targets},
            "schedule": self.schedule.to_json(),
            "scorer": self.name,
            **{name: getattr(self, name) for name in ("remove", "how", "split", "report", "seed", "images")},
            "batches": self.batches if self.how != "remove" else None,
            "options": plain(self.options.to_json()),
            "filters": {layer: len(self.producers[layer].filters) for layer in self.scheduled},
            "events": len(self.timetable),
        }

    @property
    def scheduled(self) -> list[str]:
        """The layers that lose filters, in the order of execution."""
        due = {layer for counts in self.timetable.values() for layer in counts}
        return [layer for layer in self.producers if layer in due]
