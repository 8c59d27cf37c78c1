"""Scorers that measure how much a filter's effect on the true class's logit differs between two domains."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product
from typing import Literal

import torch
from torch import Tensor

from ..stats import filled, matched_d, resolution
from .contract import scorer
from .domains import named_domains
from .risks import one_source
from .view import GroupView

Over = Literal["mean", "max"]


@scorer(
    "sensitivity",
    needs=("class_gate",),
    reads={"source": "labels", "target": "labels"},
    level="network",
    instead="sensitivity_sources",
    label="Sensitivity (source vs target)",
)
def sensitivity(
    views: dict[str, GroupView], *, source: str | None = None, target: str | None = None
) -> dict[str, Tensor]:
    """Minus the effect size of source vs target on a filter's attribution; the most sensitive are removed first.

    -|d|, d = Cohen's d matched by true class (`stats.matched_d`) of a_i = sum over positions of y dl/dy, l the logit of
    image i's true class, y the filter's output: gradient x activation. Without names, the mean of |d| over all pairs of
    a source and a target. A filter whose attribution differs between the domains but varies in neither gets the lowest
    score of the network; rounding differences (`stats.resolution`) count as 0. It reads target labels, so it is
    target-aware. `diagnostics.sensitivity` computes the same d with intervals, by Captum. Returns (C,) <= 0 per layer.
    Source: gradient x activation, Shrikumar et al. 2016, arXiv:1605.01713; effect size, Cohen 1988, chapter 2; as a
    filter score it is ours.
    """
    first = next(iter(views.values()))
    return _scores(views, product(named_domains(source, first.sources), named_domains(target, first.targets)))


@scorer(
    "sensitivity_sources",
    needs=("class_gate",),
    reads={"source": "labels"},
    level="network",
    refuses=one_source,
    label="Sensitivity (between sources)",
)
def sensitivity_sources(views: dict[str, GroupView], *, over: Over = "mean") -> dict[str, Tensor]:
    """Minus the effect size between sources on a filter's attribution; the most sensitive are removed first.

    As `sensitivity`, but the mean or the largest |d| over all pairs of sources. No target is read.
    Returns (C,) <= 0 per layer. Source: gradient x activation, Shrikumar et al. 2016, arXiv:1605.01713; effect size,
    Cohen 1988, chapter 2; as a filter score, between sources, it is ours.
    """
    return _scores(views, combinations(next(iter(views.values())).sources, 2), over=over)


def _scores(views: dict[str, GroupView], pairs: Iterable[tuple[str, str]], *, over: Over = "mean") -> dict[str, Tensor]:
    pairs = list(pairs)
    sizes = filled({name: torch.stack([_effect_size(view, *pair) for pair in pairs]) for name, view in views.items()})
    return {name: -(size.mean(0) if over == "mean" else size.amax(0)) for name, size in sizes.items()}


def _effect_size(view: GroupView, first: str, second: str) -> Tensor:
    moments = view.class_gate(first), view.class_gate(second)
    return matched_d(*moments, resolution=resolution(*moments))
