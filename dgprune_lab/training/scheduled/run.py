"""One training with pruning on its way: epochs, events, what is measured, and where it can be taken up again."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...core import DgpruneError, Outcomes, Provenance, generator, note, provenance_of, set_provenance, tidy
from ...core import seed as seeded
from ...measurement import evaluating
from ...pruning import device_of, private, rebuild
from ...study import Study
from ..events import EpochEvent, Moment, PruneEvent, RunEvent, StageEvent
from ..loop import TrainingLoop
from .checkpoints import load_position, save_position
from .plan import PruningPlan, PruningRun, PruningSteps
from .rows import CURVE, END, EVENT, Rows, curve_rows, end_rows, event_rows, mean_stability, plain
from .treatments import Treatment

NORMS = {"l1": 1, "l2": 2}
"""Scorers that read the named layer's own weights, also where other layers write the same filters."""
_PREFIXES = ("network.", "best.")


class PruningLoop:
    """One run on its way."""

    def __init__(self, plan: PruningPlan) -> None:
        self.plan = plan
        model = rebuild(plan.study.model, lambda _, tensor: tensor.clone()).train()
        self.loop = TrainingLoop(model, sources=plan.study.sources, options=plan.options)
        self.treatment = Treatment(
            model,
            producers=plan.producers,
            how=plan.how,
            batches=plan.batches,
            seed=seeded(plan.seed, plan.options.seed),
        )
        self.loop.after_step = self.treatment.after_step
        self.rows: Rows = []
        self.event_rows: Rows = []
        self.ending: Rows = []
        self.event, self.reached = 0, "the network as given"
        self.network = self._copy()
        self.best: tuple[float, int, nn.Module] = (-1.0, 0, self.network)

    def so_far(self, *, finished: bool = False) -> PruningRun:
        """What the run gives back if it ends now."""
        plan, reads = self.plan, provenance_of(self.network).scorer
        filters = self.treatment.filter_mask(plan.study.graph, reads=reads)
        return PruningRun(
            self.network,
            self.treatment.weight_mask(ratio_requested=self.ratio_achieved, reads=reads),
            filters,
            tidy(self.rows, extra=CURVE),
            tidy(self.event_rows, extra=EVENT),
            tidy(self.ending, extra=END),
            plan.settings,
            finished,
            self.reached,
        )

    @property
    def ratio_achieved(self) -> float:
        """Share of the scheduled layers' filters that events have chosen so far."""
        total = sum(len(self.plan.producers[layer].filters) for layer in self.plan.scheduled)
        return sum(len(filters) for filters in self.treatment.chosen.values()) / max(total, 1)

    def steps(self) -> PruningSteps:
        """The run itself."""
        try:
            if not self._resumed():
                yield from self._boundary(None)
            while self.loop.done < self.plan.options.epochs:
                loss = yield from self._epoch()
                yield from self._boundary(loss)
            yield from self._end()
        except KeyboardInterrupt:
            return self.so_far()
        except DgpruneError as error:
            if not self.loop.diverged and self._finite():
                raise
            self.reached = f"diverged in epoch {self.loop.done + self.loop.diverged}"
            note(f"the training diverged: {error} The tables hold what came before; the network is that of before.")
            return self.so_far()
        return self.so_far(finished=True)

    def _epoch(self) -> Generator[RunEvent | None, None, float]:
        """Train one epoch; its loss."""
        loss = 0.0
        for event in self.loop.epoch():
            loss = event.loss if isinstance(event, EpochEvent) else loss
            yield event
        return loss

    def _boundary(self, loss: float | None) -> Iterator[RunEvent | None]:
        """Measure the network between two epochs; let go what is due, and measure again; put it down."""
        epoch, plan = self.loop.done, self.plan
        before = yield from self._outcomes(self.loop.model, plan.split)
        train = {} if loss is None else (yield from self._outcomes(self.loop.model, "train"))
        stage: Moment = "full" if loss is None else "trained"
        fresh = curve_rows(self._about(stage), before, train, loss=loss, **self._where)
        removed: dict[str, list[int]] = {}
        after, events = before, []
        if epoch in plan.timetable:
            removed = self._treat(epoch)
            after = yield from self._outcomes(self.loop.model, plan.split)
            fresh += curve_rows(self._about("cut"), after, {}, loss=None, **self._where)
            events = event_rows(self._about("cut"), before, after, removed, **self._where)
        self._take_down(fresh, events, after)
        if removed:
            yield PruneEvent(self.event, len(plan.timetable), removed, tuple(fresh), self.so_far())
        else:
            yield StageEvent(stage, self.event, len(plan.timetable), epoch, tuple(fresh), self.so_far())

    def _take_down(self, fresh: Rows, events: Rows, after: Mapping[str, Outcomes]) -> None:
        """Everything that an epoch's end leaves behind, at once: nothing can be stopped within it."""
        self.rows, self.event_rows = self.rows + fresh, self.event_rows + events
        self.network, self.reached = self._copy(), f"epoch {self.loop.done} of {self.plan.options.epochs}"
        found = [after[d.name].accuracy for d in self.plan.study.sources]
        if sum(found) / len(found) > self.best[0]:
            self.best = (sum(found) / len(found), self.loop.done, self.network)
        self._save()

    def _treat(self, epoch: int) -> dict[str, list[int]]:
        """Choose the filters of every layer that is due, and do to them what is to be done."""
        self.event += 1
        chosen = {}
        for layer, kept in self.plan.timetable[epoch].items():
            left = self.treatment.left(layer)
            order = self._scores(layer)[left].sort(stable=True, descending=self.plan.remove == "largest").indices
            chosen[layer] = left[order[: len(left) - kept]].sort().values
        self._studied = None
        self.treatment.begin(chosen)
        return {layer: filters.tolist() for layer, filters in chosen.items()}

    _studied: Mapping[str, Tensor] | None = None

    def _scores(self, layer: str) -> Tensor:
        """One number per filter of the layer's group, as the network is now; the lowest is the smallest."""
        plan, producer = self.plan, self.plan.producers[layer]
        if plan.remove == "random":
            drawn = generator("random filters", plan.seed, self.event, layer)
            return torch.rand(int(producer.filters.max()) + 1, generator=drawn, dtype=torch.float64)
        if plan.scorer.name in NORMS:
            return producer.norm(dict(self.loop.model.named_parameters()), NORMS[plan.scorer.name])
        if self._studied is None:
            study, model = plan.study, self.loop.model
            now = Study(
                self._copy(), sources=study.sources, targets=study.targets, name=study.name, device=device_of(model)
            )
            scores = now.score(plan.scorer, seed=seeded("scorer", plan.seed, self.event))
            set_provenance(model, provenance_of(model).adding("scorer", scores.reads))
            self._studied = scores.values
        return self._studied[producer.group]

    def _end(self) -> Iterator[None]:
        """The reported part, at the last epoch and at the one that was best on `split`."""
        plan, (_, epoch, best) = self.plan, self.best
        train = yield from self._outcomes(self.network, "train", every=True)
        last = yield from self._outcomes(self.network, plan.report)
        rows = end_rows(
            self._about("last"), last, train, study=plan.study, record=provenance_of(self.network), split=plan.report
        )
        if epoch != self.loop.done:
            train = yield from self._outcomes(best, "train", every=True)
            last = yield from self._outcomes(best, plan.report)
        looked = {f"{domain.name}/{plan.split}": "labels" for domain in plan.study.sources}
        record: Provenance = provenance_of(best).adding("selection", looked)  # pyright: ignore[reportArgumentType]
        about = {**self._about(f"selected on {plan.split}"), "epoch": epoch}
        rows += end_rows(about, last, train, study=plan.study, record=record, split=plan.report)
        events = tidy(self.event_rows, extra=EVENT)
        for domain in (None, *(d for d in plan.study.domains if d.labels is not None)):
            where = {} if domain is None else {"domain": domain.name, "role": domain.role}
            value = plain(mean_stability(events, domain=where.get("domain")))
            found = {**where, "split": plan.split, "metric": "mean_stability", "value": value, "unit": "%"}
            rows.append({**self._about("last"), **found})
        self.ending = rows

    def _outcomes(
        self, network: nn.Module, split: str, *, every: bool = False
    ) -> Generator[None, None, dict[str, Outcomes]]:
        """Of every domain; of the train part only sources, and no more images than of the measured part."""
        plan, found = self.plan, {}
        for domain in plan.study.domains:
            if split == "train" and domain.role != "source":
                continue
            images = plan.images
            if split == "train":
                images = None if every else min(len(domain.rows("train")), len(domain.rows(plan.split, plan.images)))
            found[domain.name] = yield from evaluating(network, domain, split, images=images)
        return found

    @property
    def _where(self) -> dict[str, Any]:
        """What the rows of the measured part are about."""
        return {"study": self.plan.study, "record": provenance_of(self.loop.model), "split": self.plan.split}

    def _about(self, stage: str) -> dict[str, Any]:
        """The cells that all rows of a stage share."""
        plan = self.plan
        draws = plan.remove == "random" or plan.scorer.draws or plan.how == "noise"
        return {
            "scorer": plan.name,
            "ratio_achieved": self.ratio_achieved if plan.how == "remove" else 0.0,
            "scope": "layer",
            "budget": "filters",
            "batchnorm": "as_is",
            "seed": plan.seed if draws else None,
            "training_seed": plan.options.seed,
            "epoch": self.loop.done,
            "stage": stage,
            "event": self.event,
        }

    def _copy(self) -> nn.Module:
        return rebuild(self.loop.model, lambda _, tensor: tensor.clone()).eval()

    def _finite(self) -> bool:
        """Whether the network still gives numbers."""
        source = self.plan.study.sources[0]
        x = source.take(source.rows("train", 2), device=self.loop.device).images
        with torch.no_grad():
            return bool(torch.isfinite(private(self.loop.model)(x)).all())

    # --- where it can be taken up again --------------------------------------------------------------------------

    def _save(self) -> None:
        """Put down everything the rest of the run depends on, at the end of an epoch."""
        if self.plan.checkpoint is None:
            return
        loop, loop_values = self.loop.state()
        treated, treatment = self.treatment.state()
        networks = {
            f"{prefix}{name}": tensor
            for network, prefix in zip((self.network, self.best[2]), _PREFIXES, strict=True)
            for name, tensor in network.state_dict().items()
        }
        values = {
            "settings": self.plan.settings,
            "loop": loop_values,
            "treatment": treatment,
            "event": self.event,
            "rows": self.rows,
            "event_rows": self.event_rows,
            "best": self.best[:2],
            "records": [provenance_of(self.network).to_json(), provenance_of(self.best[2]).to_json()],
        }
        save_position(
            self.plan.checkpoint, number=self.loop.done, tensors={**loop, **treated, **networks}, values=values
        )

    def _resumed(self) -> bool:
        """Take up what the checkpoint holds, where it holds something.

        Raises:
            DgpruneError: it holds another run.
        """
        held = None if self.plan.checkpoint is None else load_position(self.plan.checkpoint)
        if held is None:
            return False
        tensors, values = held
        asked, there = plain(self.plan.settings), values["settings"]
        if other := [name for name in asked if asked[name] != there.get(name)]:
            raise DgpruneError(
                f"{self.plan.checkpoint} holds another run: {', '.join(other)} differ. Name another folder, or ask for "
                "the same to go on with it."
            )
        best = self._copy()
        for network, prefix, record in zip((self.loop.model, best), _PREFIXES, values["records"], strict=True):
            network.load_state_dict({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
            set_provenance(network, Provenance.from_json(record))
        self.best = (values["best"][0], values["best"][1], best)
        self.loop.resume(tensors, values["loop"])
        self.treatment.resume(tensors, values["treatment"])
        self.rows, self.event_rows, self.event = values["rows"], values["event_rows"], values["event"]
        self.network, self.reached = self._copy(), f"epoch {self.loop.done} of {self.plan.options.epochs}"
        return True
