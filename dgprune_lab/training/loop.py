"""The one training loop: a generator of events, so that whoever watches decides what it shows and when it ends."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..core import DgpruneError, Domain, drain, provenance_of, set_provenance, unknown
from ..data import AUGMENTATIONS
from .events import BatchEvent, EpochEvent, Event, Events
from .options import TrainingOptions
from .random_streams import Streams, drawn_from, dropouts

TrainingStage = Literal["training", "tuning"]


def train(
    model: nn.Module,
    *,
    sources: Sequence[Domain],
    options: TrainingOptions | None = None,
    stage: TrainingStage = "training",
) -> Events:
    """Trains a copy of a network on the `train` parts of the sources; a generator that returns the trained network.

    The train parts are put together and shuffled anew in each epoch: every image counts once an epoch, so a source
    with more images weighs more. The argument stays as it was, and so does the global random state between events.
    On one CPU thread the result is the same to the bit for the same network, sources and options.

    Args:
        model: any network that gives logits (B, classes); trained where its parameters are.
        sources: domains with labels and a `train` part, all of one image size.
        options: `TrainingOptions()` where None.
        stage: which stage of the network's record the reading goes to; "tuning" for what follows a pruning.

    Returns:
        A generator of `BatchEvent` and `EpochEvent`; closing it ends the training. `finish` runs it to the end.

    Raises:
        DgpruneError: no source, one without labels or train part, images of two sizes, an unknown augmentation, a model
            without parameters (all at once, before the first event); labels beyond the outputs, or a loss that is no
            longer a number (when it happens).
    """
    chosen = TrainingOptions() if options is None else options
    check_training(model, sources=sources, options=chosen)
    return _training(TrainingLoop(copy.deepcopy(model), sources=sources, options=chosen, stage=stage))


def check_training(model: nn.Module, *, sources: Sequence[Domain], options: TrainingOptions) -> None:
    """Refuse what no training can begin with; see `train`."""
    if options.augmentation not in AUGMENTATIONS:
        raise unknown("augmentation", options.augmentation, AUGMENTATIONS)
    _Pool(sources)
    if not any(p.requires_grad for p in model.parameters()):
        raise DgpruneError("this model has no parameter that can be trained; check requires_grad.")
    if options.dropout is not None and not dropouts(model):
        raise DgpruneError(
            "dropout sets the nn.Dropout layers of a network, and this one has none (torch.nn.functional.dropout "
            "cannot be set from outside); add such a layer, or leave dropout=None."
        )


def finish(events: Events) -> nn.Module:
    """Runs a training to its end and returns the trained network, in eval mode."""
    return drain(events)


def with_progress(events: Events, *, label: str = "training") -> Events:
    """The same events, with a tqdm bar that counts batches and shows the loss of the last epoch."""
    from tqdm.auto import tqdm

    with tqdm(desc=label, unit="batch") as bar:
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                return stop.value
            if isinstance(event, BatchEvent):
                bar.total = event.epochs * event.batches
                bar.update()
            else:
                bar.set_postfix_str(f"epoch {event.epoch}/{event.epochs}, loss {event.loss:.3f}", refresh=False)
            yield event


def learning_rate(options: TrainingOptions, *, progress: float) -> float:
    """The learning rate at a progress p from 0 to 1 (epochs done / schedule_epochs).

    constant: lr; cosine: lr (1 + cos(pi p)) / 2; dss: lr / (1 + 10 p)^0.75 (Sun 2023, arXiv:2306.13237, its code);
    steps: lr times 0.1 for every milestone (an epoch) that is over.

    >>> round(learning_rate(TrainingOptions(lr=0.01, schedule="dss"), progress=0.2), 4)
    0.0044
    """
    if options.schedule == "cosine":
        return options.lr * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    if options.schedule == "steps":
        done = progress * (options.schedule_epochs or options.epochs) + 1e-6
        return options.lr * 0.1 ** sum(done >= milestone for milestone in options.milestones)
    return options.lr / (1 + 10 * progress) ** 0.75 if options.schedule == "dss" else options.lr


def accuracy_by_part(model: nn.Module, domains: Iterable[Domain]) -> dict[str, dict[str, dict[str, float]]]:
    """Per domain with labels and part: images, correct, accuracy (0 to 1); eval mode, batches of 250."""
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    table: dict[str, dict[str, dict[str, float]]] = {}
    try:
        model.eval()
        with torch.inference_mode():
            for domain in (one for one in domains if one.labels is not None):
                for part, rows in domain.splits.items():
                    correct = sum(
                        int((model(batch.images).argmax(1) == batch.labels).sum())
                        for batch in domain.batches(part, size=250, device=device)
                    )
                    row = {"images": len(rows), "correct": correct, "accuracy": correct / max(1, len(rows))}
                    table.setdefault(domain.name, {})[part] = row
    finally:
        for module, mode in modes.items():
            module.training = mode
    return table


class _Pool:
    """The train parts of several domains as one set of images, read batch by batch."""

    def __init__(self, sources: Sequence[Domain]) -> None:
        if not sources:
            raise DgpruneError("training needs at least one source domain; got none.")
        for source in sources:
            if source.labels is None:
                raise DgpruneError(f"domain {source.name!r} has no labels, so no network can be trained on it.")
            if source.shape != sources[0].shape:
                raise DgpruneError(
                    f"domain {source.name!r} has images of {source.shape}, {sources[0].name!r} of {sources[0].shape}; "
                    "bring them to one size first (domain.padded)."
                )
        rows = [source.rows("train") for source in sources]
        self.sources = list(sources)
        self.where = torch.cat([torch.full_like(part, number) for number, part in enumerate(rows)])
        self.rows = torch.cat(rows)
        if len(self.rows) < 2:
            raise DgpruneError(f"training needs at least two images; the train parts hold {len(self.rows)}.")

    def take(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images and labels at these places, one source after the other."""
        parts = [
            source.take(self.rows[index[self.where[index] == number]], device=device)
            for number, source in enumerate(self.sources)
        ]
        labels = [part.labels for part in parts if part.labels is not None]
        return torch.cat([part.images for part in parts]), torch.cat(labels)


class TrainingLoop:
    """One training on its way: network, optimiser and streams of chance, one epoch at a time.

    Attributes:
        model: the network that is trained, in place.
        done: epochs that are over.
        diverged: whether it ended because the loss was no longer a number.
        after_step: called after every step of the optimiser; nothing where None.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sources: Sequence[Domain],
        options: TrainingOptions,
        stage: TrainingStage = "training",
    ) -> None:
        self.model, self.options = model, options
        self.stage: TrainingStage = stage
        self.pool = _Pool(sources)
        self.device = next(model.parameters()).device
        self.chance = Streams(options.seed, self.device)
        self.optimiser = _optimiser(model, options)
        self.after_step: Callable[[], None] | None = None
        self.done, self.seconds, self.diverged = 0, 0.0, False
        self._dropouts = dropouts(model)
        if options.dropout is not None:
            for layer in self._dropouts:
                layer.p = options.dropout

    def epoch(self) -> Iterator[Event]:
        """The next epoch: a `BatchEvent` per step and one `EpochEvent`.

        Raises:
            DgpruneError: labels beyond the outputs, or a loss that is no longer a number.
        """
        options, epoch = self.options, self.done + 1
        order = torch.randperm(len(self.pool.rows), generator=self.chance.order)
        batches = [part for part in order.split(options.batch_size) if len(part) > 1]
        total, images, rate = 0.0, 0, options.lr
        for number, index in enumerate(batches, start=1):
            start = time.perf_counter()
            done = epoch - 1 + (number - 1) / len(batches)
            rate = learning_rate(options, progress=done / (options.schedule_epochs or options.epochs))
            loss = self._take(index, rate)
            if not math.isfinite(loss):
                self.diverged = True
                raise DgpruneError(f"the loss is {loss} in epoch {epoch}, batch {number}; try an lr below {rate:.3g}.")
            total, images = total + loss * len(index), images + len(index)
            self.seconds += time.perf_counter() - start
            yield BatchEvent(epoch, options.epochs, number, len(batches), len(index), loss, rate)
        self.model.eval()
        _note(self.model, self.pool.sources, self.stage)
        self.done = epoch
        yield EpochEvent(epoch, options.epochs, total / images, rate, self.seconds, self.model)

    def _take(self, index: Tensor, rate: float) -> float:
        """One step on these images; the loss before it."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        x, y = self.pool.take(index, self.device)
        with self.chance.noise.stream():
            x = _augmented(x, self.options, self.chance.augmentation)
            self.model.train()
            with drawn_from(self.chance.dropout, self._dropouts):
                loss = _step(self.model, self.optimiser, x, y, self.options)
        if self.after_step is not None:
            self.after_step()
        return loss

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the next epoch depends on beside network, data and options: tensors, and plain values."""
        tensors = {f"chance.{name}": state for name, state in self.chance.state().items()}
        values: dict[str, Any] = {"done": self.done, "seconds": self.seconds, "optimiser": {}}
        for number, held in self.optimiser.state_dict()["state"].items():
            for name, value in held.items():
                if isinstance(value, Tensor):
                    tensors[f"optimiser.{number}.{name}"] = value
                else:
                    values["optimiser"].setdefault(str(number), {})[name] = value
        return tensors, values

    def resume(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Continue where `state` was taken; the network's own tensors are put back by whoever kept them."""
        held: dict[int, dict[str, Any]] = {int(number): dict(kept) for number, kept in values["optimiser"].items()}
        for key, tensor in tensors.items():
            if key.startswith("optimiser."):
                _, number, name = key.split(".", 2)
                held.setdefault(int(number), {})[name] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": held})
        self.chance.resume({key.removeprefix("chance."): t for key, t in tensors.items() if key.startswith("chance.")})
        self.done, self.seconds = int(values["done"]), float(values["seconds"])


def _training(loop: TrainingLoop) -> Events:
    """All epochs, one after the other."""
    while loop.done < loop.options.epochs:
        yield from loop.epoch()
    return loop.model


def _step(model: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor, options: TrainingOptions) -> float:
    """One step of the optimiser on a network in training mode; returns the loss before it."""
    with torch.enable_grad():
        logits = model(x)
        if logits.ndim != 2 or int(y.max()) >= logits.shape[1]:
            raise DgpruneError(
                f"the network gives outputs of shape {tuple(logits.shape)}; labels go up to {int(y.max())}, so it must "
                f"give (images, classes) with at least {int(y.max()) + 1} classes."
            )
        loss = F.cross_entropy(logits.softmax(1) if options.double_softmax else logits, y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
    if options.gamma_l1:
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.weight is not None and module.weight.grad is not None:
                module.weight.grad.add_(module.weight.detach().sign(), alpha=options.gamma_l1)
    optimiser.step()
    return float(loss.detach())


def _augmented(x: Tensor, options: TrainingOptions, chance: torch.Generator) -> Tensor:
    """The batch after augmentation; images the share leaves out stay as they are."""
    augment = AUGMENTATIONS[options.augmentation]
    if options.augmented_share >= 1:
        return augment(x, chance)
    chosen = torch.rand(len(x), generator=chance, device=chance.device) < options.augmented_share
    return torch.where(chosen[:, None, None, None], augment(x, chance), x)


def _optimiser(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    if options.optimiser == "adam":
        return torch.optim.Adam(trained, lr=options.lr, weight_decay=options.weight_decay)
    return torch.optim.SGD(trained, lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay)


def _note(model: nn.Module, sources: Sequence[Domain], stage: TrainingStage) -> None:
    """Writes into the network's record that the labels of the train parts were read; a bare network stays unknown."""
    set_provenance(model, provenance_of(model).adding(stage, {f"{source.name}/train": "labels" for source in sources}))
