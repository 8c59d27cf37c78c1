"""Scorers that ask how strongly a filter's effect on the true class's logit differs between two domains."""

from __future__ import annotations

from itertools import combinations, product
from typing import Literal

import torch
from torch import Tensor

from ..core import choice
from ..stats import matched_d
from .contract import scorer
from .domains import named_domains
from .risks import one_source
from .view import GroupView

Over = Literal["mean", "max"]
_CITE = (
    "gradient x activation: Shrikumar et al. 2016, arXiv:1605.01713; effect size: Cohen 1988, chapter 2; "
    "as a filter score it is ours"
)


@scorer(
    "sensitivity",
    needs=("class_gate",),
    reads={"source": "labels", "target": "labels"},
    level="network",
    instead="sensitivity_sources",
    label="Notice the new look most",
    cite=_CITE,
)
def sensitivity(
    views: dict[str, GroupView], *, source: str | None = None, target: str | None = None
) -> dict[str, Tensor]:
    """Minus the effect size of the domain on a filter's attribution: those that notice the new look most go first.

    -|d|, d = Cohen's d matched by true class (`contrast.effects`) of a_i = sum over places of y dl/dy, l the logit of
    image i's true class, y the filter's output: gradient x activation. Without names the mean of |d| over all pairs of
    a source and a target. A filter without any spread in either domain whose attribution yet differs counts as the
    most sensitive of the network. It reads target labels: target-aware.
    Returns (C,) <= 0 per layer. Source: gradient x activation as Shrikumar et al. 2016; Cohen 1988; the score is ours.
    `diagnostics.sensitivity` gives the same d with intervals, by Captum.
    """
    first = next(iter(views.values()))
    return _scores(
        views, list(product(named_domains(source, first.sources), named_domains(target, first.targets))), over="mean"
    )


@scorer(
    "sensitivity_sources",
    needs=("class_gate",),
    reads={"source": "labels"},
    level="network",
    refuses=one_source,
    label="Notice the training looks most",
    cite=f"{_CITE}, between sources",
)
def sensitivity_sources(views: dict[str, GroupView], *, over: Over = "mean") -> dict[str, Tensor]:
    """Minus the effect size of the domain on a filter's attribution, between sources: no target is read.

    As `sensitivity`, over all pairs of sources: the mean of |d|, or the largest.
    Returns (C,) <= 0 per layer. Source: as `sensitivity`; ours.
    """
    choice("over", over, Over)
    return _scores(views, list(combinations(next(iter(views.values())).sources, 2)), over=over)


def _scores(views: dict[str, GroupView], pairs: list[tuple[str, str]], *, over: Over) -> dict[str, Tensor]:
    found = {name: _absolute(view, pairs) for name, view in views.items()}
    known = torch.cat([sizes.flatten() for sizes in found.values()])
    most = max(known[known.isfinite()].tolist(), default=0.0) or 1.0  # above those that notice nothing
    filled = {name: torch.nan_to_num(sizes, nan=most) for name, sizes in found.items()}
    return {name: -(sizes.mean(0) if over == "mean" else sizes.amax(0)) for name, sizes in filled.items()}


def _absolute(view: GroupView, pairs: list[tuple[str, str]]) -> Tensor:
    """(P, C) |d| of every pair of domains."""
    return torch.stack([matched_d(view.class_gate(a), view.class_gate(b)).abs() for a, b in pairs])
