"""What one pass of a network over one split of a domain measures, and what the network predicts for each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Maps = Literal[
    "activation_map", "activation_unit_map", "mean_map", "unit_map", "conv_map", "conv_unit_map", "class_map"
]
Sums = Literal["moments", "gate", "class_gate", "risk", "weight_gradient", "co_moments", "class_co_moments"]
Need = Literal["weights", Maps, Sums, "paired", "shifted", "removal", "model"]
"""What a scorer may need."""

LABELLED: frozenset[Need] = frozenset({"gate", "class_gate", "weight_gradient", "risk", "class_co_moments"})
"""The needs that read labels."""

COSTLY: frozenset[Need] = frozenset({"co_moments", "class_co_moments", "class_gate"})
"""The needs that are measured only on request: they are large, or take a separate backward pass."""

APART: tuple[Need, ...] = ("weights", "paired", "shifted", "removal", "model")
"""Needs that the pass over a domain does not measure: the network itself, and what takes a separate pass."""


class Moments(NamedTuple):
    """Mean of y, of |y|, of y squared, and share of zeros, over images and positions: (C,) float64, one per filter."""

    mean: Tensor
    mean_abs: Tensor
    mean_square: Tensor
    zero_share: Tensor


class ClassMap(NamedTuple):
    """Mean output per *predicted* class: `mean` (K, C) float64, 0 for a class without images; `images` (K,) counts."""

    mean: Tensor
    images: Tensor


class ClassMoments(NamedTuple):
    """Mean and variance, over the images of each *true* class, of a value that each image and filter has.

    Attributes:
        images: (K,) number of images of each class.
        mean: (K, C) float64; zero for a class without images.
        variance: (K, C) float64, sum of squared deviations / (images - 1); zero for a class with fewer than two images.
    """

    images: Tensor
    mean: Tensor
    variance: Tensor


class CoMoments(NamedTuple):
    """Sums over images, per class, of the responses of A filters and of the B outputs of a layer that consumes them.

    A response is the mean over positions of a raw convolution output. Without classes K = 1.

    Attributes:
        images: (K,) number of images of each class.
        first: (2, K, A) sums and sums of squares of the filters' responses.
        second: (2, K, B) sums and sums of squares of the layer's responses.
        cross: (K, A, B) sums of products of a filter's and an output's response.
        shuffled: (K, A', B') `cross` with the images of a class paired at random, for at most 64 filters and outputs.
    """

    images: Tensor
    first: Tensor
    second: Tensor
    cross: Tensor
    shuffled: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Statistics:
    """What one pass of a network over one split of a domain has measured.

    "At the activation" means right after the group's activation, before any pooling. "At the consumer input" means the
    input of the group's last consumer, in the order of execution (of a residual stream: the complete sum; after a
    pooling layer: the pooled map). "Raw output" means that of a convolution that produces the group, before BatchNorm.

    Attributes:
        domain: name of the domain.
        split: the split that was read.
        images: number of images.
        labels_read: whether labels were read.
        risk: mean cross-entropy over images, where labels were read.
        activation_map: group -> (C, H, W) mean over images of the map at the activation, float64.
        activation_unit_map: group -> the same mean, after each image's map is divided by its Euclidean norm.
        mean_map: group -> (C, H, W) mean over images of the map at the consumer input; (C, P) after a flatten.
        unit_map: group -> the same mean, after each image's map is divided by its Euclidean norm (zero stays zero).
        conv_map: group -> for each convolution that produces it, (C, H, W) mean over images of its raw output.
        conv_unit_map: group -> the same means, after each image's raw output is normalised as in `unit_map`.
        class_map: group -> ClassMap of the map's mean over positions.
        moments: group -> Moments.
        gate: group -> (C,) derivative of the mean risk with respect to a gate that multiplies the filter's output.
        class_gate: group -> ClassMoments of the gate derivative of the true class's logit: for each image, the sum over
            positions of y dlogit/dy at the group's output y.
        weight_gradient: tensor name -> gradient of the mean risk with respect to the tensor, in its shape.
        co_moments: (group, consumer) -> CoMoments over all images.
        class_co_moments: (group, consumer) -> CoMoments of each true class.
    """

    domain: str
    split: str
    images: int
    labels_read: bool
    risk: float | None = None
    activation_map: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    activation_unit_map: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    mean_map: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    unit_map: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    conv_map: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict, repr=False)
    conv_unit_map: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict, repr=False)
    class_map: Mapping[str, ClassMap] = field(default_factory=dict, repr=False)
    moments: Mapping[str, Moments] = field(default_factory=dict, repr=False)
    gate: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    class_gate: Mapping[str, ClassMoments] = field(default_factory=dict, repr=False)
    weight_gradient: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    co_moments: Mapping[tuple[str, str], CoMoments] = field(default_factory=dict, repr=False)
    class_co_moments: Mapping[tuple[str, str], CoMoments] = field(default_factory=dict, repr=False)

    @property
    def nbytes(self) -> int:
        """Total bytes of the tensors."""
        return sum(_bytes(value) for value in vars(self).values() if isinstance(value, dict))


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    return sum(map(_bytes, value.values() if isinstance(value, dict) else value))


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
