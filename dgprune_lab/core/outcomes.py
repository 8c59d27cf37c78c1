"""What a network predicted for each image of a split of a domain."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcomes:
    """Predictions per image, in the fixed order of the split.

    Attributes:
        predicted: (N,) int64 class with the largest logit.
        loss: (N,) float64 cross-entropy; NaN where there are no labels.
        index: (N,) row numbers in the domain.
        labels: (N,) int64, or None.
        confidence: (N,) float64 softmax probability of the predicted class; None where it was not measured.
    """

    predicted: Tensor = field(repr=False)
    loss: Tensor = field(repr=False)
    index: Tensor = field(repr=False)
    labels: Tensor | None = field(repr=False)
    confidence: Tensor | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.predicted)

    @cached_property
    def correct(self) -> Tensor | None:
        """(N,) bool: whether each image is classified correctly; None where there are no labels."""
        return None if self.labels is None else self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        """Share of the images classified correctly; NaN where there are no labels."""
        return float("nan") if self.correct is None else float(self.correct.double().mean())
