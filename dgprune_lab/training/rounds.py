"""Rounds of pruning with fine-tuning: the steps of a run, and its result so far."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd
from torch import nn

from ..core import BatchNorm, Budget, DgpruneError, Mask, Scope, note, provenance_of, roles_of, tidy, yielding
from ..core import seed as seeded
from ..measurement import ChanceWatch, evaluating, outcome_rows, recalibrate
from ..pruning import allocate, prune
from ..scorers import Scorer
from ..study import Study, batchnorm_cell, mask_columns, remaining_cost
from .events import EpochEvent, Moment, PruneEvent, RunEvent, StageEvent
from .loop import train
from .options import TrainingOptions

MeasureWhen = Literal["epochs", "rounds", "end"]
Rows = list[dict[str, Any]]

EXTRA = ("round", "epoch", "stage", "score_split")
"""Columns of the table beyond the shared ones."""
DENSE = "dense"
"""Name of the control from which nothing is removed."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Tuned:
    """The result of pruning in rounds.

    Attributes:
        network: pruned and fine-tuned, in eval mode, with its provenance and the mask of every round; `dg.save` takes
            it.
        mask: the mask of all rounds together, with the filter indices of the original network.
        table: accuracy and loss per domain, and size and cost, at every stage; extra columns round, epoch, stage and
            score_split (empty where the scorer reads no images).
        card: the options of the run, for `dg.save(tuned.network, path, card=tuned.card)`.
        finished: False if the run was stopped; the network is then that of the last completed stage.
        reached: the last completed stage, such as "round 2 of 2, tuned".
    """

    network: nn.Module = field(repr=False)
    mask: Mask
    table: pd.DataFrame = field(repr=False)
    card: dict[str, Any] = field(repr=False)
    finished: bool
    reached: str

    def __str__(self) -> str:
        return f"{self.mask.scorer} {100 * self.mask.ratio_requested:.3g} %, {self.reached}"


Steps = Generator[RunEvent | None, None, Tuned]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The checked options of a run; see `prune_and_tune`."""

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
    score_split: str

    @property
    def card(self) -> dict[str, Any]:
        """The options of the run as plain values."""
        return {
            "scorer": self.name,
            "score_split": self.scored,
            "ratio": self.ratio,
            "rounds": self.rounds,
            "epochs_per_round": self.epochs,
            "finetuning": {**self.options.to_json(), "epochs": self.epochs} if self.epochs else None,
            "batchnorm": self.batchnorm,
            "scope": self.scope,
            "budget": self.budget,
            "seed": self.seed,
        }

    @property
    def scored(self) -> str | None:
        """The split that the scorer reads; None where it reads no images."""
        return self.score_split if self.scorer is not None and self.scorer.reads else None

    @property
    def name(self) -> str:
        """Name of the scorer, or of the dense control, in tables."""
        return DENSE if self.scorer is None else self.scorer.name

    @property
    def share(self) -> float:
        """Pruning ratio of each round, relative to the remaining filters."""
        return 1 - (1 - self.ratio) ** (1 / self.rounds)

    def ratio_requested(self, number: int) -> float:
        """Return the share of the filters that the first `number` rounds together should remove."""
        return self.ratio if number == self.rounds else 1 - (1 - self.share) ** number

    def scorer_seed(self, number: int) -> int:
        """Return a round's scorer seed; with one seed for all rounds, a random scorer would keep the same filters."""
        return self.seed if number == 1 else seeded("scorer", self.seed, number)

    def options_of(self, number: int) -> TrainingOptions:
        """Return the options of a round's fine-tuning; the order of images differs by round, but not by scorer."""
        return replace(self.options, epochs=self.epochs, seed=seeded("tuning", self.seed, self.options.seed, number))

    def recalibrated(self, network: nn.Module) -> nn.Module:
        """Return the network, with any BatchNorm statistics re-estimated if the options ask for it."""
        recalibrates = self.batchnorm == "recalibrate" and self.study.has_batchnorm
        return recalibrate(network, self.study.sources) if recalibrates else network

    def measures(self, stage: Moment, number: int) -> bool:
        return self.measure != "end" or (number == self.rounds and stage == ("tuned" if self.epochs else "cut"))


class Run:
    """The state of a run: network and mask of the last completed stage, and all rows so far."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.network = plan.study.network(None).to(plan.study.device).eval()
        full = Mask.by_hand(plan.study.graph, reads={})
        self.mask = replace(full, ratio_requested=0.0, scope=plan.scope, budget=plan.budget, scorer=plan.name)
        self.rows: Rows = []
        stale = plan.study.has_batchnorm and plan.batchnorm == "as_is"
        self._chance = ChanceWatch(batchnorm=stale, pruned=plan.scorer is not None)
        self.stage: Moment = "full"
        self.reached = "the full network"
        self.round = self.epoch = 0

    def so_far(self, *, finished: bool = False) -> Tuned:
        """Return the result that the run would have if it ended now."""
        table = tidy(self.rows, extra=EXTRA)
        return Tuned(
            network=self.network,
            mask=self.mask,
            table=table,
            card=self.plan.card,
            finished=finished,
            reached=self.reached,
        )

    def steps(self) -> Steps:
        try:
            rows = yield from self._complete("full", self.network, mask=self.mask)
            yield self._stage_event(rows)
            for number in range(1, self.plan.rounds + 1):
                self.round = number
                yield from self._cut()
                if self.plan.epochs:
                    yield from self._finetune()
        except KeyboardInterrupt:
            return self.so_far()
        except DgpruneError as error:
            if self.stage == "full":  # there is no result to keep
                raise
            note(f"round {self.round} of {self.plan.rounds} failed: {error}")
            return self.so_far()
        return self.so_far(finished=True)

    def _cut(self) -> Iterator[RunEvent | None]:
        """Score the filters, allocate, and remove; the dense control removes nothing."""
        plan, study = self.plan, self.plan.study
        network, mask = self.network, self.mask
        if plan.scorer is not None:
            current = study if self.round == 1 else with_network(study, network)
            scores = current.score(plan.scorer, seed=plan.scorer_seed(self.round), split=plan.score_split)
            cut = allocate(scores, ratio=plan.share, scope=plan.scope, budget=plan.budget)
            if plan.share and not cut.ratio_achieved:
                note(
                    f"round {self.round} of {plan.rounds} removes nothing: its share of the {plan.budget}, "
                    f"{plan.share:.2%}, is less than one filter of each layer; take fewer rounds."
                )
            network = prune(network, cut)
            mask = replace(mask.then(cut), ratio_requested=plan.ratio_requested(self.round))
        network = plan.recalibrated(network)
        yield None
        removed = {
            name: (keep & ~mask.keep[name]).nonzero().flatten().tolist() for name, keep in self.mask.keep.items()
        }
        removed = {name: filters for name, filters in removed.items() if filters}
        rows = tuple((yield from self._complete("cut", network, mask=mask)))
        yield PruneEvent(round=self.round, rounds=plan.rounds, removed=removed, rows=rows, so_far=self.so_far())

    def _finetune(self) -> Iterator[RunEvent | None]:
        """Fine-tune the network of this round; the stage before it stays the result until training is complete."""
        plan = self.plan
        events = train(
            self.network, sources=plan.study.sources, options=plan.options_of(self.round), stage="finetuning"
        )
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                rows = yield from self._complete("tuned", plan.recalibrated(end.value), mask=self.mask)
                yield self._stage_event(rows)
                return
            yield event
            if isinstance(event, EpochEvent):
                self.epoch += 1
                if plan.measure == "epochs" and event.epoch < plan.epochs:
                    rows = yield from self._measure("tuned", plan.recalibrated(event.model), mask=self.mask)
                    self.rows += rows
                    yield self._stage_event(rows, stage="tuned")

    def _complete(self, stage: Moment, network: nn.Module, *, mask: Mask) -> Generator[None, None, Rows]:
        """Measure the network of a stage if its rows are needed, then make it the result so far."""
        rows: Rows = []
        if self.plan.measures(stage, self.round):
            rows = yield from self._measure(stage, network, mask=mask)
            aware = provenance_of(network).target_aware(roles_of(self.plan.study.domains))
            about = {**self._about(stage, mask), "target_aware": aware}
            rows += [
                {**about, "metric": metric, "value": value, "unit": unit}
                for metric, value, unit in remaining_cost(mask)
            ]
        self.network, self.mask, self.stage = network, mask, stage
        self.reached = f"round {self.round} of {self.plan.rounds}, {stage}" if self.round else self.reached
        self.rows += rows
        return rows

    def _measure(self, stage: Moment, network: nn.Module, *, mask: Mask) -> Generator[None, None, Rows]:
        """Measure accuracy and loss of a stage's network on each domain, and its size and cost; return the rows."""
        plan, about, rows = self.plan, self._about(stage, mask), []
        for domain in plan.study.domains:
            if stage == "full":
                steps = plan.study.steps(None, domain=domain.name, split=plan.split, images=plan.images)
                outcomes = yield from yielding(steps, None)
            else:
                outcomes = yield from evaluating(network, domain, plan.split, images=plan.images)
            if stage == "tuned":
                self._chance.see(outcomes, domain, split=plan.split)
            where = {"domain": domain.name, "role": domain.role, "split": plan.split, "images": len(outcomes)}
            seen = provenance_of(network).columns(domain.name, plan.split, roles=roles_of(plan.study.domains))
            rows += [{**about, **where, **row, **seen} for row in outcome_rows(outcomes)]
        return rows

    def _about(self, stage: Moment, mask: Mask) -> dict[str, Any]:
        """Return the columns that all rows of a stage share."""
        plan = self.plan
        return {
            **mask_columns(mask),
            "ratio_requested": plan.ratio_requested(self.round),
            "batchnorm": batchnorm_cell(plan.study, "as_is" if stage == "full" else plan.batchnorm),
            "seed": plan.seed if plan.scorer is not None and plan.scorer.draws else None,
            "training_seed": plan.study.training_seed,
            "round": self.round,
            "epoch": self.epoch,
            "stage": stage,
            "score_split": plan.scored,
        }

    def _stage_event(self, rows: Rows, *, stage: Moment | None = None) -> StageEvent:
        return StageEvent(
            stage=stage or self.stage,
            round=self.round,
            rounds=self.plan.rounds,
            epoch=self.epoch,
            epochs=self.plan.rounds * self.plan.epochs,
            rows=tuple(rows),
            so_far=self.so_far(),
        )


def with_network(study: Study, network: nn.Module) -> Study:
    """Return a study of another network on the same domains."""
    return Study(
        network,
        sources=study.sources,
        targets=study.targets,
        name=study.name,
        layers=study.layers,
        device=study.device,
        origin=study.origin,
    )
