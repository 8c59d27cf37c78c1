"""The training loop: a generator of events, so that the caller decides what is shown and when training ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..core import DgpruneError, Domain, Reads, check_domains, provenance_of, set_provenance
from ..data import AUGMENTATIONS
from ..pruning import deep_copy, prove_copies_if_suspect, refuse_other_types
from .events import BatchEvent, EpochEvent, Event, Events
from .objectives import OBJECTIVES, check_objective
from .options import TrainingOptions
from .pool import Pool
from .random_streams import Streams, draw_from, dropouts

TrainingStage = Literal["training", "finetuning"]


def train(
    model: nn.Module,
    *,
    sources: Sequence[Domain],
    options: TrainingOptions | None = None,
    stage: TrainingStage = "training",
) -> Events:
    """Train a copy of a network on the train splits of the sources.

    The train splits are pooled and shuffled again in each epoch: every image counts once, so a source with more images
    weighs more, unless the options set `balanced` or an objective other than "erm". `model` stays unchanged, and so
    does the global random state between events. On one CPU thread the result is bitwise the same for the same network,
    sources and options.

    Args:
        model: any network that gives logits (B, classes); it is trained on the device of its parameters.
        sources: domains with labels and a `train` split, all of one image size.
        options: the options of training; None for `TrainingOptions()`.
        stage: the stage of the network's provenance that records the labels; "finetuning" for training after pruning.

    Returns:
        A generator of `BatchEvent` and `EpochEvent` that returns the trained network; closing it ends the training.
        `finish` runs it to the end.

    Raises:
        DgpruneError: before the first event: no source, a source without labels or train split, images of two sizes,
            a model without parameters, an objective that lacks what it needs (a second source, a linear layer at the
            end, a pretrained network); during training: labels that the network has no output for, a loss that is not
            finite.
    """
    options = options or TrainingOptions()
    check_training(model, sources=sources, options=options)
    first = sources[0].take(torch.arange(min(2, len(sources[0])))).images
    refuse_other_types(model, first)
    prove_copies_if_suspect(model, first, training=True)
    loop = TrainingLoop(deep_copy(model), sources=sources, options=options, stage=stage)

    def events() -> Events:
        while loop.done < loop.options.epochs:
            yield from loop.epoch()
        return loop.model

    return events()


def check_training(model: nn.Module, *, sources: Sequence[Domain], options: TrainingOptions) -> None:
    """Refuse arguments with which training cannot start; see `train`."""
    Pool(sources)
    check_domains(sources)
    check_objective(options, sources=len(sources))
    if not any(p.requires_grad for p in model.parameters()):
        raise DgpruneError("this model has no parameter that can be trained; check requires_grad.")
    if options.dropout is not None and not dropouts(model):
        raise DgpruneError(
            "dropout sets the nn.Dropout layers of a network, and this one has none (torch.nn.functional.dropout "
            "cannot be set from outside); add such a layer, or leave dropout=None."
        )


def learning_rate(options: TrainingOptions, *, progress: float) -> float:
    """Return the learning rate at progress p = epochs done / schedule_epochs, where a batch is a fraction of an epoch.

    constant: lr; cosine: lr (1 + cos(pi p)) / 2; dss: lr / (1 + 10 p)^0.75 (Sun 2023, arXiv:2306.13237, its code);
    steps: lr times 0.1 for every milestone (an epoch) that has passed.

    >>> round(learning_rate(TrainingOptions(lr=0.01, schedule="dss"), progress=0.2), 4)
    0.0044
    """
    if options.schedule == "cosine":
        return options.lr * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    if options.schedule == "steps":
        done = progress * (options.schedule_epochs or options.epochs) + 1e-6
        return options.lr * 0.1 ** sum(done >= milestone for milestone in options.milestones)
    return options.lr / (1 + 10 * progress) ** 0.75 if options.schedule == "dss" else options.lr


class TrainingLoop:
    """Trains a network one epoch at a time; holds the network, the optimiser and the random streams.

    Attributes:
        model: the network, trained in place.
        done: number of completed epochs.
        diverged: whether the loss became infinite or NaN.
        after_step: function called after every step of the optimiser.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sources: Sequence[Domain],
        options: TrainingOptions,
        stage: TrainingStage = "training",
    ) -> None:
        self.model, self.options, self.pool = model, options, Pool(sources)
        self.stage: TrainingStage = stage
        self.device = next(model.parameters()).device
        self.streams = Streams(options.seed, self.device)
        self.objective = OBJECTIVES[options.objective](model, pool=self.pool, options=options)
        self.optimiser = _optimiser(model, options, further=self.objective.parameters())
        self.after_step: Callable[[], None] = lambda: None
        self.done, self.seconds, self.diverged = 0, 0.0, False
        self._dropouts = dropouts(model)
        if options.dropout is not None:
            for layer in self._dropouts:
                layer.p = options.dropout

    def epoch(self) -> Iterator[Event]:
        """Train one epoch: yield a `BatchEvent` per step and one `EpochEvent`.

        Raises:
            DgpruneError: labels that the network has no output for, or a loss that is not finite.
        """
        options, epoch = self.options, self.done + 1
        batches = self.pool.batches(options, self.streams.order)
        total, images, lr = 0.0, 0, options.lr
        for number, index in enumerate(batches, start=1):
            start = time.perf_counter()
            done = epoch - 1 + (number - 1) / len(batches)
            lr = learning_rate(options, progress=done / (options.schedule_epochs or options.epochs))
            loss = self._step(index, lr)
            if not math.isfinite(loss):
                self.diverged = True
                smaller = "" if options.objective == "erm" else " or a smaller weight"
                where = f"in epoch {epoch}, batch {number}"
                raise DgpruneError(f"the loss is {loss} {where}; try an lr below {lr:.3g}{smaller}.")
            total, images = total + loss * len(index), images + len(index)
            self.seconds += time.perf_counter() - start
            yield BatchEvent(
                epoch=epoch,
                epochs=options.epochs,
                batch=number,
                batches=len(batches),
                images=len(index),
                loss=loss,
                lr=lr,
            )
        self.model.eval()
        reads: Reads = {f"{source.name}/train": "labels" for source in self.pool.sources}
        set_provenance(self.model, provenance_of(self.model).adding(self.stage, reads))
        self.done, mean = epoch, total / images
        yield EpochEvent(epoch=epoch, epochs=options.epochs, loss=mean, lr=lr, seconds=self.seconds, model=self.model)

    def _step(self, index: Tensor, lr: float) -> float:
        """Take one step on these images; return the loss before it."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["times"]
        x, y = self.pool.take(index, self.device)
        with self.streams.noise.stream():
            x = _augmented(x, self.options, self.streams.augmentation)
            self.model.train()
            with draw_from(self.streams.dropout, self._dropouts):
                loss = self._descend(x, y)
        self.after_step()
        return loss

    def _descend(self, x: Tensor, y: Tensor) -> float:
        with torch.enable_grad():
            with self.objective.watching(self.model, x):
                logits = self.model(x)
            if logits.ndim != 2 or int(y.max()) >= logits.shape[1]:
                raise DgpruneError(
                    f"the network gives outputs of shape {tuple(logits.shape)}; labels go up to {int(y.max())}, so it "
                    f"must give (images, classes) with at least {int(y.max()) + 1} classes."
                )
            scores = logits.softmax(1) if self.options.double_softmax else logits
            risks = self.pool.risks(scores, y, equal=self.options.equal_batches)
            loss = self.objective.loss(risks)
            if self.objective.renewing:
                self.optimiser.state.clear()
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
        if self.options.gamma_l1:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm) and module.weight is not None and module.weight.grad is not None:
                    module.weight.grad.add_(module.weight.detach().sign(), alpha=self.options.gamma_l1)
        self.optimiser.step()
        return float(torch.where(loss.isfinite(), risks.mean(), loss).detach())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state that the next epoch needs besides network, data and options: tensors, and plain values."""
        tensors = {f"streams.{name}": state for name, state in self.streams.state().items()}
        tensors |= {f"objective.{name}": state for name, state in self.objective.state.items()}
        values: dict[str, Any] = {"done": self.done, "seconds": self.seconds, "optimiser": {}}
        for number, state in self.optimiser.state_dict()["state"].items():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimiser.{number}.{name}"] = value
                else:
                    values["optimiser"].setdefault(str(number), {})[name] = value
        return tensors, values

    def resume(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Continue from what `state` returned; the caller must restore the network's own tensors."""
        states: dict[int, dict[str, Any]] = {int(number): dict(state) for number, state in values["optimiser"].items()}
        for key, tensor in tensors.items():
            if key.startswith("optimiser."):
                _, number, name = key.split(".", 2)
                states.setdefault(int(number), {})[name] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": states})
        for prefix, part in {"streams.": self.streams, "objective.": self.objective}.items():
            part.resume({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
        self.done, self.seconds = int(values["done"]), float(values["seconds"])


def _augmented(x: Tensor, options: TrainingOptions, generator: torch.Generator) -> Tensor:
    """Return the batch with each image augmented with the probability `augmented_share`."""
    augment = AUGMENTATIONS[options.augmentation]
    if options.augmented_share >= 1:
        return augment(x, generator)
    chosen = torch.rand(len(x), generator=generator, device=generator.device) < options.augmented_share
    return torch.where(chosen[:, None, None, None], augment(x, generator), x)


def _optimiser(model: nn.Module, options: TrainingOptions, *, further: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser of the network; the objective's own parameters learn at ten times the network's rate."""
    groups: list[dict[str, Any]] = [{"params": [p for p in model.parameters() if p.requires_grad], "times": 1}]
    if further:
        groups.append({"params": list(further), "times": 10})
    if options.optimiser == "adam":
        return torch.optim.Adam(groups, lr=options.lr, weight_decay=options.weight_decay)
    return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay)
