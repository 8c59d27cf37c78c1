"""A training run with pruning: its epochs, events and measurements, and how it is saved and resumed."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...core import DgpruneError, Outcomes, Provenance, Reads, generator, note, provenance_of, set_provenance, tidy
from ...core import seed as seeded
from ...measurement import evaluating, has_batchnorm
from ...pruning import deep_copy, shared_copy
from ..events import EpochEvent, PruneEvent, RunEvent, StageEvent
from ..loop import TrainingLoop
from ..options import TrainingOptions
from ..rounds import with_network
from .checkpoints import load_state, save_state
from .plan import PruningPlan, PruningRun, PruningSteps
from .rows import CURVE, END, EVENT, Rows, Where, curve_rows, end_rows, event_rows, mean_stability, plain
from .treatments import Treatment

NORMS = {"l1": 1, "l2": 2}
"""Scorers that use only the weights of the named layer, even if other layers produce the same filters."""
_PREFIXES = ("network.", "best.")


class PruningLoop:
    """The state of a run: the training loop, the treatment of filters, and the result of the last complete epoch."""

    def __init__(self, plan: PruningPlan) -> None:
        self.plan = plan
        model = deep_copy(plan.study.model).train()
        self.loop = TrainingLoop(model, sources=plan.study.sources, options=plan.options)
        seed = seeded(plan.seed, plan.options.seed)
        self.treatment = Treatment(model, producers=plan.producers, how=plan.how, batches=plan.batches, seed=seed)
        self.loop.after_step = self.treatment.after_step
        self.rows: Rows = []
        self.event_rows: Rows = []
        self.end_rows: Rows = []
        self.event, self.reached = 0, "the network as given"
        self.network = deep_copy(model).eval()
        self.best: tuple[float, int, nn.Module] = (-1.0, 0, self.network)
        self._scored: Mapping[str, Tensor] | None = None

    def so_far(self, *, finished: bool = False) -> PruningRun:
        """Return the result that the run would have if it ended now."""
        reads = provenance_of(self.network).scorer
        return PruningRun(
            network=self.network,
            mask=self.treatment.weight_mask(ratio_requested=self.ratio_achieved, reads=reads),
            filters=self.treatment.filter_mask(self.plan.study.graph, reads=reads),
            table=tidy(self.rows, extra=CURVE),
            events=tidy(self.event_rows, extra=EVENT),
            end=tidy(self.end_rows, extra=END),
            settings=self.plan.settings,
            finished=finished,
            reached=self.reached,
        )

    @property
    def ratio_achieved(self) -> float:
        """Share of the filters in scheduled layers that events have chosen so far."""
        total = sum(len(self.plan.producers[layer].filters) for layer in self.plan.scheduled)
        return sum(len(filters) for filters in self.treatment.chosen.values()) / max(total, 1)

    def steps(self) -> PruningSteps:
        try:
            if not self._resume():
                yield from self._between_epochs(None)
            while self.loop.done < self.plan.options.epochs:
                loss = yield from self._epoch()
                yield from self._between_epochs(loss)
            yield from self._end()
        except KeyboardInterrupt:
            return self.so_far()
        except DgpruneError as error:
            if not self.loop.diverged and self._finite():
                raise
            self.reached = f"diverged in epoch {self.loop.done + self.loop.diverged}"
            note(f"the training diverged: {error} Tables and network are those of the last complete epoch.")
            return self.so_far()
        return self.so_far(finished=True)

    def _epoch(self) -> Generator[RunEvent | None, None, float]:
        loss = 0.0
        for event in self.loop.epoch():
            loss = event.loss if isinstance(event, EpochEvent) else loss
            yield event
        return loss

    def _between_epochs(self, loss: float | None) -> Iterator[RunEvent | None]:
        """Measure the network; remove the filters that are due, and measure again; save the state."""
        plan, stage = self.plan, "full" if loss is None else "trained"
        before = yield from self._outcomes(self.loop.model, plan.split)
        train = {} if loss is None else (yield from self._outcomes(self.loop.model, "train"))
        rows = curve_rows(self._where, self._about(stage), measured=before, train=train, loss=loss)
        removed: dict[str, list[int]] = {}
        after, events = before, []
        if self.loop.done in plan.timetable:
            removed = self._treat(plan.timetable[self.loop.done])
            after = yield from self._outcomes(self.loop.model, plan.split)
            about = self._about("cut")
            rows += curve_rows(self._where, about, measured=after, train={})
            events = event_rows(self._where, about, before=before, after=after, removed=removed)
        self._complete_epoch(rows, events, after=after)
        event = {"round": self.event, "rounds": len(plan.timetable), "rows": tuple(rows), "so_far": self.so_far()}
        if removed:
            yield PruneEvent(removed=removed, **event)
        else:
            yield StageEvent(stage=stage, epoch=self.loop.done, epochs=plan.options.epochs, **event)

    def _complete_epoch(self, rows: Rows, events: Rows, *, after: Mapping[str, Outcomes]) -> None:
        """Record all results of an epoch in one call, so that the caller cannot interrupt in between."""
        self.rows, self.event_rows = self.rows + rows, self.event_rows + events
        self.network, self.reached = deep_copy(self.loop.model).eval(), self._epoch_reached
        accuracies = [after[domain.name].accuracy for domain in self.plan.study.sources]
        if sum(accuracies) / len(accuracies) > self.best[0]:
            self.best = (sum(accuracies) / len(accuracies), self.loop.done, self.network)
        if self.plan.checkpoint is not None:
            self._save()

    @property
    def _epoch_reached(self) -> str:
        return f"epoch {self.loop.done} of {self.plan.options.epochs}"

    def _treat(self, due: Mapping[str, int]) -> dict[str, list[int]]:
        """Choose filters in each layer that is due now, and apply the treatment to them."""
        self.event += 1
        chosen = {}
        for layer, kept in due.items():
            left = self.treatment.left(layer)
            order = self._scores(layer)[left].sort(stable=True, descending=self.plan.remove == "largest").indices
            chosen[layer] = left[order[: len(left) - kept]].sort().values
        self._scored = None
        self.treatment.begin(chosen)
        return {layer: filters.tolist() for layer, filters in chosen.items()}

    def _scores(self, layer: str) -> Tensor:
        """Return the current score of each filter in the layer's group; random numbers where `remove` is "random"."""
        plan, producer = self.plan, self.plan.producers[layer]
        if plan.remove == "random":
            stream = generator("random filters", plan.seed, self.event, layer)
            return torch.rand(int(producer.filters.max()) + 1, generator=stream, dtype=torch.float64)
        if plan.scorer.name in NORMS:
            return producer.norm(dict(self.loop.model.named_parameters()), NORMS[plan.scorer.name])
        if self._scored is None:
            model = self.loop.model
            study = with_network(plan.study, deep_copy(model).eval())
            scores = study.score(plan.scorer, seed=seeded("scorer", plan.seed, self.event))
            set_provenance(model, provenance_of(model).adding("scorer", scores.reads))
            self._scored = scores.values
        return self._scored[producer.group]

    def _end(self) -> Iterator[None]:
        """Measure the reported split with the network of the last epoch and of the epoch that was best on `split`."""
        plan, (_, epoch, best) = self.plan, self.best
        train = yield from self._outcomes(self.network, "train", all_images=True)
        reported = yield from self._outcomes(self.network, plan.report)
        where = Where(plan.study, provenance_of(self.network), plan.report)
        rows = end_rows(where, self._about("last"), measured=reported, train=train)
        if epoch != self.loop.done:
            train = yield from self._outcomes(best, "train", all_images=True)
            reported = yield from self._outcomes(best, plan.report)
        selection: Reads = {f"{domain.name}/{plan.split}": "labels" for domain in plan.study.sources}
        provenance = provenance_of(best).adding("selection", selection)
        about = {**self._about(f"selected on {plan.split}"), "epoch": epoch}
        rows += end_rows(Where(plan.study, provenance, plan.report), about, measured=reported, train=train)
        events, where = tidy(self.event_rows, extra=EVENT), replace(where, split=plan.split)
        about = {**self._about("last"), "split": plan.split, "metric": "mean_stability", "unit": "%"}
        for domain in (None, *(d for d in plan.study.domains if d.labels is not None)):
            cells = plain(where.of_events(domain))
            rows.append({**about, **cells, "value": plain(mean_stability(events, domain=cells.get("domain")))})
        self.end_rows = rows

    def _outcomes(
        self, network: nn.Module, split: str, *, all_images: bool = False
    ) -> Generator[None, None, dict[str, Outcomes]]:
        """Evaluate every domain on a split; on "train" only sources, with as many images as in `plan.split` or all."""
        plan, outcomes = self.plan, {}
        for domain in plan.study.domains:
            if split == "train" and domain.role != "source":
                continue
            images = plan.images
            if split == "train":
                measured = len(domain.rows(plan.split, plan.images))
                images = None if all_images else min(len(domain.rows("train")), measured)
            outcomes[domain.name] = yield from evaluating(network, domain, split, images=images)
        return outcomes

    @property
    def _where(self) -> Where:
        return Where(self.plan.study, provenance_of(self.loop.model), self.plan.split)

    def _about(self, stage: str) -> dict[str, Any]:
        """Return the columns that all rows of a stage share."""
        plan = self.plan
        draws = plan.remove == "random" or plan.scorer.draws or plan.how == "noise"
        return {
            "scorer": plan.name,
            "ratio_achieved": self.ratio_achieved if plan.how == "remove" else 0.0,
            "scope": "layer",
            "budget": "filters",
            "batchnorm": "as_is" if has_batchnorm(self.network) else None,
            "seed": plan.seed if draws else None,
            "training_seed": plan.options.seed,
            "epoch": self.loop.done,
            "stage": stage,
            "event": self.event,
        }

    def _finite(self) -> bool:
        source = self.plan.study.sources[0]
        x = source.take(source.rows("train", 2), device=self.loop.device).images
        with torch.no_grad():
            return bool(torch.isfinite(shared_copy(self.loop.model)(x)).all())

    def _save(self) -> None:
        """Save all state that the rest of the run needs, at the end of an epoch."""
        assert self.plan.checkpoint is not None
        loop_tensors, loop = self.loop.state()
        treatment_tensors, treatment = self.treatment.state()
        networks = dict(zip(_PREFIXES, (self.network, self.best[2]), strict=True))
        tensors = {f"{p}{name}": tensor for p, net in networks.items() for name, tensor in net.state_dict().items()}
        values = {
            "settings": self.plan.settings,
            "loop": loop,
            "treatment": treatment,
            "event": self.event,
            "rows": self.rows,
            "event_rows": self.event_rows,
            "best": self.best[:2],
            "provenance": [provenance_of(network).to_json() for network in networks.values()],
        }
        tensors = {**loop_tensors, **treatment_tensors, **tensors}
        save_state(self.plan.checkpoint, epoch=self.loop.done, tensors=tensors, values=values)

    def _resume(self) -> bool:
        """Restore the state from the checkpoint folder, and return whether it holds one.

        Raises:
            DgpruneError: the folder holds another run.
        """
        state = None if self.plan.checkpoint is None else load_state(self.plan.checkpoint)
        if state is None:
            return False
        tensors, values = state
        settings, saved = plain(self.plan.settings), values["settings"]
        options = TrainingOptions.from_json(saved.get("options", {}))  # an older run lacks newer options
        saved |= {"options": plain(options.to_json())}
        if different := [name for name in settings if settings[name] != saved.get(name)]:
            raise DgpruneError(
                f"{self.plan.checkpoint} holds another run: {', '.join(different)} differ. Name another folder, or "
                "give the same options to resume it."
            )
        best = deep_copy(self.loop.model).eval()
        networks = dict(zip(_PREFIXES, (self.loop.model, best), strict=True))
        for (prefix, network), provenance in zip(networks.items(), values["provenance"], strict=True):
            network.load_state_dict({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
            set_provenance(network, Provenance.from_json(provenance))
        self.best = (values["best"][0], values["best"][1], best)
        self.loop.resume(tensors, values["loop"])
        self.treatment.resume(tensors, values["treatment"])
        self.rows, self.event_rows, self.event = values["rows"], values["event_rows"], values["event"]
        self.network, self.reached = deep_copy(self.loop.model).eval(), self._epoch_reached
        return True
