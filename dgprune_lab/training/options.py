"""Options of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from ..core import Count, DgpruneError, NotNegative, Probability, Seed, Share, Whole, Within, public, unknown
from ..data import AUGMENTATIONS

ObjectiveName = Literal["erm", "group_dro", "vrex", "coral", "miro"]
Optimiser = Literal["sgd", "adam"]
Schedule = Literal["constant", "cosine", "dss", "steps"]
BatchSize = Annotated[int, Within("be at least 2", lambda value: value >= 2)]


@public
@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """All that determines training besides the network and the data, as plain values that a card can hold.

    Attributes:
        epochs: passes over the train splits of all sources.
        batch_size: images per step; the last batch of an epoch may be smaller, and is skipped if it is a single image.
        optimiser: "sgd" (with momentum) or "adam".
        lr: initial learning rate.
        momentum: momentum of sgd; adam ignores it.
        weight_decay: L2 penalty on every parameter, as PyTorch's optimisers add it to the gradient.
        schedule: learning-rate schedule: "constant", "cosine" to 0, "dss", or "steps" (falls to a tenth at each of
            `milestones`): see `learning_rate`.
        schedule_epochs: number of epochs by which the schedule divides the epochs done; None for `epochs`. The DSS code
            fine-tunes for 20 epochs and divides by 100.
        milestones: for "steps", the epochs after which the learning rate falls to a tenth, ascending.
        augmentation: a name in `dgprune_lab.data.AUGMENTATIONS`; drawn for every image in every epoch.
        augmented_share: probability that an image of a batch is augmented.
        gamma_l1: sparsity of network slimming (Liu et al. 2017, arXiv:1708.06519, section 3): the subgradient
            gamma_l1 * sign(gamma) is added to the gradient of every BatchNorm scale after the backward pass.
        double_softmax: whether a softmax precedes the cross-entropy, which applies a second one, as in the code of the
            DSS paper (Sun 2023, arXiv:2306.13237); only in the loss, never in the network.
        dropout: probability of every nn.Dropout layer (1d to 3d too); None leaves them unchanged.
        objective: the loss that a step minimises. A source's risk is its mean loss in the step. "erm": the mean risk;
            "group_dro": risks weighted by how high they have been; "vrex": mean risk and variance of the risks;
            "coral": mean risk and difference between the sources' features; "miro": mean risk and distance from the
            features of the network as given, which must be pretrained (in fine-tuning after pruning: from those of the
            network right after the removal). Formulas and papers: `dgprune_lab.training.objectives`. The loss that
            events and tables show is the mean cross-entropy, whatever the objective.
        weight: weight of the objective's additional term; None for the paper's: group_dro (the step eta of its weights)
            0.01, vrex 10, coral 1, miro 0.1.
        annealing: for "vrex", the number of steps for which the weight is 1 before `weight` applies; then the state of
            the optimiser is reset. In fine-tuning, each round counts its own steps.
        balanced: whether each step holds equally many images of each of the E sources, batch_size // E; every objective
            but "erm" requires and implies it. Without it, a source with more images weighs more. An epoch has as many
            steps either way; a source with too few images is repeated in a new order, and each epoch leaves out some
            images of a larger one. Compare other objectives with "erm" and balanced=True.
        seed: random seed of the order of the images, the augmentation and dropout; each has its own stream.
    """

    epochs: Count = 20
    batch_size: BatchSize = 64
    optimiser: Optimiser = "sgd"
    lr: NotNegative = 0.05
    momentum: Share = 0.9
    weight_decay: NotNegative = 0.0
    schedule: Schedule = "cosine"
    schedule_epochs: Count | None = None
    milestones: tuple[Count, ...] = ()
    augmentation: str = "none"
    augmented_share: Share = 1.0
    gamma_l1: NotNegative = 0.0
    double_softmax: bool = False
    dropout: Probability | None = None
    objective: ObjectiveName = "erm"
    weight: NotNegative | None = None
    annealing: Whole = 500
    balanced: bool = False
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.augmentation not in AUGMENTATIONS:
            raise unknown("augmentation", self.augmentation, AUGMENTATIONS)
        object.__setattr__(self, "milestones", tuple(self.milestones))  # a card holds a list
        if (self.schedule == "steps") != bool(self.milestones) or list(self.milestones) != sorted(set(self.milestones)):
            raise DgpruneError(
                'schedule="steps" takes milestones, ascending epochs such as (150, 300), and no other schedule does; '
                f"got schedule={self.schedule!r}, milestones={self.milestones}."
            )
        if self.objective == "erm" and self.weight is not None:
            raise DgpruneError(
                f'weight={self.weight} is the weight of what an objective adds to the mean risk, and objective="erm" '
                "adds nothing; name another objective, or leave weight=None."
            )

    @property
    def equal_batches(self) -> bool:
        """Whether each step holds equally many images of every source."""
        return self.balanced or self.objective != "erm"

    def to_json(self) -> dict[str, Any]:
        """Return the options as a plain dictionary, for a JSON card."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingOptions:
        """Return the options that a JSON card holds.

        Raises:
            DgpruneError: an unknown option.
        """
        known = [field.name for field in fields(cls)]
        for name in value:
            if name not in known:
                raise unknown("training option", name, known)
        return cls(**value)
