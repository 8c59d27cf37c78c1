"""Options of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ..core import DgpruneError, choice, public, unknown

Optimiser = Literal["sgd", "adam"]
Schedule = Literal["constant", "cosine", "dss", "steps"]

_LEAST = {"epochs": 1, "batch_size": 2, "schedule_epochs": 1}
_MOST = {"augmented_share": 1, "momentum": 1, "lr": math.inf, "weight_decay": math.inf, "gamma_l1": math.inf}


@public
@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Everything that decides a training beside the network and the data; plain values, so that a card can hold them.

    Attributes:
        epochs: passes over the train splits of all sources.
        batch_size: images per step; the last batch of an epoch may be smaller, and is skipped where it is one image.
        optimiser: "sgd" (with momentum) or "adam".
        lr: initial learning rate.
        momentum: of sgd; adam ignores it.
        weight_decay: L2 penalty on every parameter, as PyTorch's optimisers add it to the gradient.
        schedule: "constant", "cosine" to 0, "dss", or "steps" (a tenth from each of `milestones` on): see
            `learning_rate`.
        schedule_epochs: the epochs that the schedule divides by; `epochs` where None. The DSS code fine-tunes 20 epochs
            and divides by 100.
        milestones: of "steps": the epochs after which the rate falls to a tenth, ascending.
        augmentation: a name in `dgprune_lab.data.AUGMENTATIONS`, drawn anew for every image in every epoch.
        augmented_share: probability that an image of a batch is augmented at all.
        gamma_l1: sparsity of network slimming (Liu et al. 2017, arXiv:1708.06519, section 3): the subgradient
            gamma_l1 * sign(gamma) is added to the gradient of every BatchNorm scale after the backward pass.
        double_softmax: a softmax before the cross-entropy, which applies a second one, as in the code of the DSS paper
            (Sun 2023, arXiv:2306.13237); in the loss only, never in the network.
        dropout: the probability of every nn.Dropout layer (1d to 3d too); unchanged where None.
        seed: of the order of the images, of the augmentation and of dropout; each has a stream of its own.
    """

    epochs: int = 20
    batch_size: int = 64
    optimiser: Optimiser = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    schedule_epochs: int | None = None
    milestones: tuple[int, ...] = ()
    augmentation: str = "none"
    augmented_share: float = 1.0
    gamma_l1: float = 0.0
    double_softmax: bool = False
    dropout: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        choice("optimiser", self.optimiser, Optimiser)
        choice("schedule", self.schedule, Schedule)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise DgpruneError(f"{name} must be at least {least}; got {value}.")
        for name, most in _MOST.items():
            if not 0 <= getattr(self, name) <= most:
                raise DgpruneError(f"{name} must lie in 0 to {most:g}; got {getattr(self, name)}.")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise DgpruneError(f"dropout must lie in 0 to below 1; got {self.dropout}.")
        object.__setattr__(self, "milestones", tuple(self.milestones))  # a card holds a list
        if (self.schedule == "steps") != bool(self.milestones) or list(self.milestones) != sorted(set(self.milestones)):
            raise DgpruneError(
                'schedule="steps" takes milestones, ascending epochs such as (150, 300), and no other schedule does; '
                f"got schedule={self.schedule!r}, milestones={self.milestones}."
            )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary, for a card."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingOptions:
        """Return the options of a card.

        Raises:
            DgpruneError: an unknown option.
        """
        known = [field.name for field in fields(cls)]
        for name in value:
            if name not in known:
                raise unknown("training option", name, known)
        return cls(**value)
