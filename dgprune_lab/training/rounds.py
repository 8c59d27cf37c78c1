"""The rounds of pruning with fine-tuning: what one run does, step by step, and what it has so far."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd
import torch
from torch import nn

from ..core import BatchNorm, Budget, DgpruneError, Mask, Scope, note, provenance_of, roles_of, tidy
from ..core import seed as seeded
from ..measurement import evaluating, outcome_rows, recalibrate
from ..pruning import allocate, prune
from ..scorers import Scorer
from ..study import Study, left
from .events import EpochEvent, Moment, PruneEvent, RunEvent, StageEvent
from .loop import train
from .options import TrainingOptions

MeasureWhen = Literal["epochs", "rounds", "end"]
Rows = list[dict[str, Any]]

EXTRA = ("round", "epoch", "stage")
"""Columns of the table beyond the shared ones."""
DENSE = "dense"
"""What tables call the control from which nothing is removed."""


@dataclass(frozen=True, eq=False)
class Tuned:
    """What pruning in rounds gave.

    Attributes:
        network: pruned and tuned, in eval mode, with its record and the mask of every round, so `dg.save` takes it.
        mask: all rounds in one, with the numbers of the original network's filters.
        table: accuracy and loss per domain, and what is left, at every stage; extra columns round, epoch and stage.
        finished: False where it was stopped; the network is then that of the last stage that was completed.
        reached: that stage in words, "round 2 of 2, tuned".
    """

    network: nn.Module = field(repr=False)
    mask: Mask
    table: pd.DataFrame = field(repr=False)
    finished: bool
    reached: str


Steps = Generator[RunEvent | None, None, Tuned]


@dataclass(frozen=True)
class Plan:
    """What was asked of a run, checked; see `prune_and_tune`."""

    study: Study
    scorer: Scorer | None
    ratio: float
    rounds: int
    epochs: int
    options: TrainingOptions
    batchnorm: BatchNorm
    scope: Scope
    budget: Budget
    seed: int
    split: str
    images: int | None
    measure: MeasureWhen

    @property
    def name(self) -> str:
        """What tables call the scorer, or the dense control."""
        return DENSE if self.scorer is None else self.scorer.name

    @property
    def share(self) -> float:
        """What each round removes of what is left."""
        return 1 - (1 - self.ratio) ** (1 / self.rounds)

    def ratio_requested(self, number: int) -> float:
        """The share that the first so many rounds remove."""
        return self.ratio if number == self.rounds else 1 - (1 - self.share) ** number

    def scorer_seed(self, number: int) -> int:
        """One per round: with the same one, a scorer that draws would favour the same places again."""
        return self.seed if number == 1 else seeded("scorer", self.seed, number)

    def tuning_seed(self, number: int) -> int:
        """One per round, so that each sees the images in another order; the same for every scorer."""
        return seeded("tuning", self.seed, self.options.seed, number)

    def wants(self, stage: Moment, number: int) -> bool:
        """Whether this stage of this round is measured."""
        return self.measure != "end" or (number == self.rounds and stage == ("tuned" if self.epochs else "cut"))


class Run:
    """One run on its way: network and mask of the last completed stage, and all rows so far."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        graph = plan.study.graph
        self.network = plan.study.network(None).to(plan.study.device).eval()
        keep = {group.name: torch.ones(group.filters, dtype=torch.bool) for group in graph.groups}
        self.mask = Mask(keep, 0.0, graph, plan.scope, plan.budget, plan.name, reads={})
        self.rows: Rows = []
        self.stage: Moment = "full"
        self.reached = "the full network"
        self.round = self.epoch = 0

    def so_far(self, *, finished: bool = False) -> Tuned:
        """What the run gives back if it ends now."""
        return Tuned(self.network, self.mask, tidy(self.rows, extra=EXTRA), finished, self.reached)

    def steps(self) -> Steps:
        """The run itself."""
        try:
            rows = yield from self._completed("full", self.network, self.mask)
            yield self._stage_event(rows)
            for number in range(1, self.plan.rounds + 1):
                self.round = number
                yield from self._cut()
                if self.plan.epochs:
                    yield from self._tune()
        except KeyboardInterrupt:
            return self.so_far()
        except DgpruneError as error:
            if self.stage == "full":  # nothing is done that could be lost
                raise
            note(f"round {self.round} of {self.plan.rounds} could not be done: {error}")
            return self.so_far()
        return self.so_far(finished=True)

    def _cut(self) -> Iterator[RunEvent | None]:
        """Score, allocate, remove; the dense control does all but remove."""
        plan, study = self.plan, self.plan.study
        network, mask = self.network, self.mask
        if plan.scorer is not None:
            now = study if self.round == 1 else _study_of(study, network)
            scores = now.score(plan.scorer, seed=plan.scorer_seed(self.round))
            cut = allocate(scores, ratio=plan.share, scope=plan.scope, budget=plan.budget)
            network, mask = (
                prune(network, cut),
                replace(mask.then(cut), ratio_requested=plan.ratio_requested(self.round)),
            )
        if plan.batchnorm == "recalibrate" and study.has_batchnorm:
            network = recalibrate(network, study.sources)
        yield None
        gone = {name: part & ~mask.keep[name] for name, part in self.mask.keep.items()}
        removed = {name: part.nonzero().flatten().tolist() for name, part in gone.items() if part.any()}
        rows = yield from self._completed("cut", network, mask)
        yield PruneEvent(self.round, plan.rounds, removed, tuple(rows), self.so_far())

    def _tune(self) -> Iterator[RunEvent | None]:
        """Train the network of this round; what it was before stays until the tuning is complete."""
        plan = self.plan
        options = replace(plan.options, epochs=plan.epochs, seed=plan.tuning_seed(self.round))
        events = train(self.network, sources=plan.study.sources, options=options, stage="tuning")
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                tuned: nn.Module = stop.value
                break
            yield event
            if not isinstance(event, EpochEvent):
                continue
            self.epoch += 1
            if plan.measure == "epochs" and event.epoch < plan.epochs:
                rows = yield from self._measured("tuned", event.model, self.mask)
                self.rows += rows
                yield self._stage_event(rows, stage="tuned")
        rows = yield from self._completed("tuned", tuned, self.mask)
        yield self._stage_event(rows)

    def _completed(self, stage: Moment, network: nn.Module, mask: Mask) -> Generator[None, None, Rows]:
        """Measure a stage where that was asked for; only then does it count as completed."""
        rows: Rows = []
        if self.plan.wants(stage, self.round):
            rows = yield from self._measured(stage, network, mask)
            about = self._about(stage, mask) | {
                "target_aware": provenance_of(network).target_aware(roles_of(self.plan.study.domains))
            }
            rows += [{**about, "metric": metric, "value": value, "unit": unit} for metric, value, unit in left(mask)]
        self.network, self.mask, self.stage = network, mask, stage
        self.reached = f"round {self.round} of {self.plan.rounds}, {stage}" if self.round else self.reached
        self.rows += rows
        return rows

    def _measured(self, stage: Moment, network: nn.Module, mask: Mask) -> Generator[None, None, Rows]:
        """Accuracy and loss per domain."""
        plan, about, record, rows = self.plan, self._about(stage, mask), provenance_of(network), []
        for domain in plan.study.domains:
            if stage == "full":
                outcomes = yield from plan.study.steps(None, domain=domain.name, split=plan.split, images=plan.images)
            else:
                outcomes = yield from evaluating(network, domain, plan.split, images=plan.images)
            part = {"domain": domain.name, "role": domain.role, "split": plan.split, "images": len(outcomes)}
            seen = record.columns(domain.name, plan.split, roles=roles_of(plan.study.domains))
            rows += [{**about, **part, **row, **seen} for row in outcome_rows(outcomes)]
        return rows

    def _about(self, stage: Moment, mask: Mask) -> dict[str, Any]:
        """The cells that all rows of a stage share."""
        plan = self.plan
        return {
            "scorer": plan.name,
            "ratio_requested": plan.ratio_requested(self.round),
            "ratio_achieved": mask.ratio_achieved,
            "scope": plan.scope,
            "budget": plan.budget,
            "batchnorm": "as_is" if stage == "full" else plan.batchnorm,
            "seed": plan.seed if plan.scorer is not None and plan.scorer.draws else None,
            "training_seed": plan.study.training_seed,
            "round": self.round,
            "epoch": self.epoch,
            "stage": stage,
        }

    def _stage_event(self, rows: Rows, *, stage: Moment | None = None) -> StageEvent:
        return StageEvent(stage or self.stage, self.round, self.plan.rounds, self.epoch, tuple(rows), self.so_far())


def _study_of(study: Study, network: nn.Module) -> Study:
    """The same domains with the network of a later round."""
    return Study(
        network,
        sources=study.sources,
        targets=study.targets,
        name=study.name,
        layers=study.layers,
        device=study.device,
        origin=study.origin,
    )
