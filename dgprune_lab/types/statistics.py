"""What one pass of a network over one part of a domain leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor


class Moments(NamedTuple):
    """Per filter, over images and places: mean, mean |y|, mean y squared, share of exact zeros; each (C,) float64."""

    mean: Tensor
    mean_abs: Tensor
    mean_square: Tensor
    zero_share: Tensor


@dataclass(frozen=True, eq=False)
class Statistics:
    """Running sums of one pass over one part of a domain, at the consumers' door.

    The output of a group is the input of the last layer that reads it, in the order of execution (of a residual
    stream: the finished sum; after a pooling layer: the pooled map).

    Attributes:
        domain: its name.
        split: the part that was read.
        images: how many.
        labels_read: whether labels were looked at.
        risk: mean cross-entropy, where labels were read.
        mean_map: group -> (C, H, W) mean output over images, float64; (C, P) after a flatten.
        moments: group -> Moments.
        gate: group -> (C,) derivative of the mean risk by a gate that multiplies the filter's output.
        weight_gradient: tensor name -> derivative of the mean risk, of the tensor's shape.
    """

    domain: str
    split: str
    images: int
    labels_read: bool
    risk: float | None = None
    mean_map: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    moments: Mapping[str, Moments] = field(default_factory=dict, repr=False)
    gate: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    weight_gradient: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
