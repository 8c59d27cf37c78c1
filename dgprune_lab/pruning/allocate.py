"""Scores + budget -> Mask."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import overload

import numpy as np
import torch
from torch import Tensor

from ..core import Budget, DgpruneError, FilterGraph, Mask, Ratio, Scope, Scores, WeightMask, WeightScores, public


@overload
def allocate(scores: Scores, *, ratio: float, scope: Scope = ..., budget: Budget = ...) -> Mask: ...
@overload
def allocate(scores: WeightScores, *, ratio: float, scope: Scope = ..., budget: Budget = ...) -> WeightMask: ...
@public
def allocate(
    scores: Scores | WeightScores, *, ratio: Ratio, scope: Scope = "layer", budget: Budget = "filters"
) -> Mask | WeightMask:
    """Choose which filters stay when a share of the network is removed, lowest scores first.

    Of N filters, floor(ratio N + 1e-9) are removed: less than one filter (one step where grouped convolutions tie
    filters) below the request, unless every layer is down to its last filter. Ties are broken by filter index. A
    larger ratio always keeps a subset of the filters that a smaller one keeps.

    Args:
        scores: one number per filter, higher = keep; or one per single weight, for a WeightMask.
        ratio: the share to remove, 0 <= ratio < 1.
        scope: "layer" removes the same share of every layer; "global" removes the lowest scores of the whole network
            (they must then be comparable between layers, as those of `lamp` and `taylor` are meant to be).
        budget: what the share is a share of: "filters", "parameters" or "macs" (multiply-accumulates).

    Raises:
        DgpruneError: a ratio outside [0, 1), an unknown scope or budget.

    >>> import torch, dgprune_lab as dg
    >>> graph = dg.read_groups(dg.models.networks.lenet(), torch.zeros(1, 3, 28, 28))
    >>> scores = dg.Scores("mine", {"conv1": torch.arange(32.0), "conv2": torch.arange(48.0)}, graph)
    >>> [len(dg.allocate(scores, ratio=0.7).kept(layer)) for layer in graph.names]
    [10, 15]
    """
    if isinstance(scores, WeightScores):
        return _weight_mask(scores, ratio, scope=scope, budget=budget)
    order = _cached_order(scores, scope)
    return Mask(
        keep=order.keep(order.count(ratio, budget)),
        ratio_requested=ratio,
        graph=scores.graph,
        scope=scope,
        budget=budget,
        scorer=scores.scorer,
        options=scores.options,
        nested=True,
        reads=scores.reads,
    )


def checked_ratio(ratio: float) -> float:
    """Return a pruning ratio as a float in [0, 1).

    Raises:
        DgpruneError: the value is no number in [0, 1).
    """
    value = float(ratio) if isinstance(ratio, Real) and not isinstance(ratio, bool) else math.nan
    if not (math.isfinite(value) and 0 <= value < 1):
        raise DgpruneError(f"ratio must lie in [0, 1): the share removed, so 0.5 is half; got {ratio!r}.")
    return value


@dataclass(frozen=True, eq=False, kw_only=True)
class Order:
    """Removal order of the prunable units of a network.

    Attributes:
        graph: the filter groups of the network.
        units: (U,) global unit numbers in the order of removal; the last unit of each layer is not listed.
        share: for scope "layer", (U,) the share of its layer that is removed once this unit is; otherwise None.
        filters: (U,) number of filters in each unit.
        starts: group -> global number of its first unit.
        total: number of all units, including those that are never removed.
    """

    graph: FilterGraph = field(repr=False)
    units: Tensor
    share: Tensor | None
    filters: Tensor
    starts: dict[str, int]
    total: int

    def count(self, ratio: float, budget: Budget) -> int:
        """Return how many units are removed at this ratio."""
        if budget == "filters" and self.share is not None:
            return int((self.share <= ratio + 1e-9).sum())
        if budget == "filters":
            return int((self.filters.cumsum(0) <= ratio * self.graph.free + 1e-9).sum())
        full = getattr(self.graph.full, budget)
        low, high = 0, len(self.units)
        while low < high:
            middle = (low + high + 1) // 2
            kept = getattr(self.graph.cost(self.keep(middle)), budget)
            low, high = (middle, high) if full - kept <= ratio * full + 1e-6 else (low, middle - 1)
        return low

    def keep(self, count: int) -> dict[str, Tensor]:
        """Return group -> (C,) bool: the filters that stay once the first `count` units are removed."""
        kept = torch.ones(self.total, dtype=torch.bool)
        kept[self.units[:count]] = False
        return {group.name: kept[group.units + self.starts[group.name]] for group in self.graph.groups}


def _cached_order(scores: Scores, scope: Scope) -> Order:
    """`removal_order`, cached on the scores, which never change: a slider asks for many ratios of the same scores."""
    cached = scores.__dict__.setdefault("_orders", {})
    if scope not in cached:
        cached[scope] = removal_order(scores, scope=scope)
    return cached[scope]


def removal_order(scores: Scores, *, scope: Scope) -> Order:
    """Return the removal order of the units by their mean score, in the whole network or as ranks within each layer."""
    starts, means, sizes, shares, last = {}, [], [], [], []
    total = 0
    for group in scores.graph.groups:
        starts[group.name] = total
        size = torch.bincount(group.units)
        values = scores.values[group.name].double()
        mean = torch.zeros(len(size), dtype=torch.float64).scatter_add_(0, group.units, values) / size
        ranked = _argsort(mean)
        share = torch.empty(len(size), dtype=torch.float64)
        share[ranked] = size[ranked].cumsum(0).double() / group.filters
        means.append(mean)
        sizes.append(size)
        shares.append(share)
        last.append(int(ranked[-1]) + total)
        total += len(size)
    units = _argsort(torch.cat(shares if scope == "layer" else means))
    units = units[~torch.isin(units, torch.tensor(last))]
    share, filters = torch.cat(shares)[units] if scope == "layer" else None, torch.cat(sizes)[units]
    return Order(graph=scores.graph, units=units, share=share, filters=filters, starts=starts, total=total)


def _argsort(values: Tensor) -> Tensor:
    return torch.from_numpy(np.argsort(values.numpy(), kind="stable"))


def _weight_mask(scores: WeightScores, ratio: float, *, scope: Scope, budget: Budget) -> WeightMask:
    if budget == "macs":
        raise DgpruneError(f"single weights are counted as parameters; budget={budget!r} has no meaning for them.")
    if scope == "layer":
        keep = {name: _largest(value, ratio) for name, value in scores.values.items()}
    else:
        flat = _largest(torch.cat([value.flatten() for value in scores.values.values()]), ratio)
        parts = flat.split([value.numel() for value in scores.values.values()])
        keep = {name: part.view(value.shape) for (name, value), part in zip(scores.values.items(), parts, strict=True)}
    return WeightMask(keep=keep, ratio_requested=ratio, scope=scope, scorer=scores.scorer, reads=scores.reads)


def _largest(values: Tensor, ratio: float) -> Tensor:
    flat = values.flatten()
    keep = torch.ones(len(flat), dtype=torch.bool)
    keep[flat.argsort(stable=True)[: math.floor(ratio * len(flat) + 1e-9)]] = False
    return keep.view(values.shape)
