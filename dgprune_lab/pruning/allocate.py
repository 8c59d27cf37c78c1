"""Scores + budget -> Mask."""

from __future__ import annotations

import math
from typing import overload

import numpy as np
import torch
from torch import Tensor

from ..core import Budget, DgpruneError, FilterGraph, FilterGroup, Mask, Scope, Scores, WeightMask, WeightScores, choice


@overload
def allocate(scores: Scores, *, ratio: float, scope: Scope = "layer", budget: Budget = "filters") -> Mask: ...
@overload
def allocate(
    scores: WeightScores, *, ratio: float, scope: Scope = "layer", budget: Budget = "filters"
) -> WeightMask: ...
def allocate(
    scores: Scores | WeightScores, *, ratio: float, scope: Scope = "layer", budget: Budget = "filters"
) -> Mask | WeightMask:
    """Which filters stay when a share of the network is removed, lowest scores first.

    Of N, floor(ratio N + 1e-9) are removed, so what is removed is less than one filter (one step where grouped
    convolutions tie filters) below what was asked, unless every layer is down to its last filter. Ties go by filter
    index. A larger ratio always keeps a subset.

    Args:
        scores: one number per filter, higher = keep; or one per single weight, for a WeightMask.
        ratio: the share removed, 0 <= ratio < 1.
        scope: "layer" removes the same share of every layer; "global" the lowest scores anywhere (scores must then be
            comparable between layers, as `lamp` and `taylor` are meant to be).
        of: what the share counts: filters, parameters or multiply-accumulates.

    Raises:
        DgpruneError: a ratio outside [0, 1), an unknown scope or count.

    >>> import torch, dgprune_lab as dg
    >>> graph = dg.read_groups(dg.models.networks.lenet(), torch.zeros(1, 3, 28, 28))
    >>> scores = dg.Scores("mine", {"conv1": torch.arange(32.0), "conv2": torch.arange(48.0)}, graph)
    >>> [len(dg.allocate(scores, ratio=0.7).kept(layer)) for layer in graph.names]
    [10, 15]
    """
    ratio = checked_ratio(ratio)
    choice("scope", scope, Scope)
    choice("budget", budget, Budget)
    if isinstance(scores, WeightScores):
        return _weights(scores, ratio, scope, budget)
    order = _known_order(scores, scope)
    keep = _keep(scores.graph, order, order.count(scores.graph, ratio, budget))
    return Mask(keep, ratio, scores.graph, scope, budget, scores.scorer, scores.options, True, scores.reads)


def checked_ratio(ratio: float) -> float:
    """The ratio as a float in [0, 1).

    Raises:
        DgpruneError: it is not one.
    """
    value = float(ratio)
    if not (math.isfinite(value) and 0 <= value < 1):
        raise DgpruneError(f"ratio must lie in [0, 1): the share removed, so 0.5 is half; got {ratio!r}.")
    return value


class Order:
    """The order in which the units of a network leave.

    Attributes:
        units: (U,) global unit numbers, first to leave first; the last unit of each layer is not listed.
        share: (U,) for scope "layer", the share of its layer that has left once this unit has; else None.
        filters: (U,) filters in each unit.
    """

    def __init__(
        self, units: Tensor, share: Tensor | None, filters: Tensor, starts: dict[str, int], total: Tensor
    ) -> None:
        self.units, self.share, self.filters = units, share, filters
        self._starts, self._total = starts, total

    def count(self, graph: FilterGraph, ratio: float, budget: Budget) -> int:
        """How many of the units leave at this ratio."""
        if budget == "filters" and self.share is not None:
            return int((self.share <= ratio + 1e-9).sum())
        if budget == "filters":
            return int((self.filters.cumsum(0) <= ratio * graph.free + 1e-9).sum())
        full = getattr(graph.full, budget)
        low, high = 0, len(self.units)
        while low < high:
            middle = (low + high + 1) // 2
            left = getattr(graph.cost(_keep(graph, self, middle)), budget)
            low, high = (middle, high) if full - left <= ratio * full + 1e-6 else (low, middle - 1)
        return low

    def gone(self, count: int) -> Tensor:
        """(all units,) bool: which have left once `count` units are gone."""
        flags = torch.zeros(len(self._total), dtype=torch.bool)
        flags[self.units[:count]] = True
        return flags

    def of_group(self, group: FilterGroup, gone: Tensor) -> Tensor:
        """(C,) bool: which filters of a group stay."""
        return ~gone[group.units + self._starts[group.name]]


def _known_order(scores: Scores, scope: Scope) -> Order:
    """`removal_order`, kept with the scores: a slider asks for one ratio after the other of the same ones."""
    values = [scores.values[group.name] for group in scores.graph.groups]
    if any(value.is_inference() for value in values):  # no version number, so a change would not be noticed
        return removal_order(scores, scope=scope)
    stamp = [(id(value), value._version) for value in values]
    held = scores.__dict__.setdefault("_orders", {})
    if scope not in held or held[scope][0] != stamp:
        held[scope] = stamp, removal_order(scores, scope=scope)
    return held[scope][1]


def removal_order(scores: Scores, *, scope: Scope) -> Order:
    """The order in which units leave: by score anywhere, or by rank within each layer. A unit has its mean score."""
    starts, values, sizes, share, last = {}, [], [], [], []
    total = 0
    for group in scores.graph.groups:
        starts[group.name] = total
        count = torch.bincount(group.units)
        mean = (
            torch.zeros(len(count), dtype=torch.float64).scatter_add_(
                0, group.units, scores.values[group.name].double()
            )
            / count
        )
        ranked = torch.from_numpy(np.argsort(mean.numpy(), kind="stable"))
        left = torch.empty(len(count), dtype=torch.float64)
        left[ranked] = count[ranked].cumsum(0).double() / group.filters
        values.append(mean)
        sizes.append(count)
        share.append(left)
        last.append(int(ranked[-1]) + total)
        total += len(count)
    value, size, part = torch.cat(values), torch.cat(sizes), torch.cat(share)
    order = torch.from_numpy(np.argsort((part if scope == "layer" else value).numpy(), kind="stable"))
    order = order[~torch.isin(order, torch.tensor(last))]
    return Order(order, part[order] if scope == "layer" else None, size[order], starts, size)


def _keep(graph: FilterGraph, order: Order, count: int) -> dict[str, Tensor]:
    gone = order.gone(count)
    return {group.name: order.of_group(group, gone) for group in graph.groups}


def _weights(scores: WeightScores, ratio: float, scope: Scope, budget: Budget) -> WeightMask:
    if budget != "filters" and budget != "parameters":
        raise DgpruneError(f"single weights are counted as parameters; budget={budget!r} has no meaning for them.")
    if scope == "layer":
        keep = {name: _largest(value, ratio) for name, value in scores.values.items()}
    else:
        flat = _largest(torch.cat([value.flatten() for value in scores.values.values()]), ratio)
        parts = flat.split([value.numel() for value in scores.values.values()])
        keep = {name: part.view(value.shape) for (name, value), part in zip(scores.values.items(), parts, strict=True)}
    return WeightMask(keep, ratio, scope, scores.scorer, scores.reads)


def _largest(values: Tensor, ratio: float) -> Tensor:
    flat = values.flatten()
    keep = torch.ones(len(flat), dtype=torch.bool)
    keep[flat.argsort(stable=True)[: math.floor(ratio * len(flat) + 1e-9)]] = False
    return keep.view(values.shape)
