"""The order in which the prunable units of a network are removed, and how many of them reach a ratio."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import Budget, DgpruneError, FilterGraph, FilterGroup, Scope, Scores
from .limits import Limits

Array = NDArray[Any]
_UNLIMITED = Limits()


@dataclass(frozen=True, eq=False, kw_only=True)
class Order:
    """Removal order of the prunable units of a network.

    Attributes:
        graph: the filter groups of the network.
        units: (U,) global unit numbers in the order of removal. Units that always stay are not listed: the last unit
            of each layer, and those that the limits keep.
        share: (U,) the share of its layer that is removed once this unit is, for scope "layer" where no layer or filter
            was set by hand; otherwise None.
        filters: (U,) number of filters in each unit.
        starts: group -> global number of its first unit.
        total: number of all units, including those that are never removed.
        own: number of units at the start that belong to layers with a ratio of their own.
        fixed: number of units at the start that are always removed: those in `own`, then those removed by hand.
        blocked: layer -> (global number of the next unit that only the layer's ratio or the cap protects, share of the
            layer that is removed once this unit is).
    """

    graph: FilterGraph = field(repr=False)
    units: Tensor
    share: Tensor | None
    filters: Tensor
    starts: dict[str, int]
    total: int
    own: int = 0
    fixed: int = 0
    blocked: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def count(self, ratio: float, budget: Budget) -> int:
        """Return how many units are removed at this ratio, at least the `fixed` ones."""
        if budget == "filters" and self.share is not None:
            return int((self.share <= ratio + 1e-9).sum())
        if budget == "filters":
            return max(self.fixed, int((self.filters.cumsum(0) <= ratio * self.graph.free + 1e-9).sum()))
        low, high = self.fixed, len(self.units)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._is_within(self.units[:middle], ratio, budget) else (low, middle - 1)
        return low

    def keep(self, count: int) -> dict[str, Tensor]:
        """Return group -> (C,) bool: the filters that stay once the first `count` units are removed."""
        return self._keep_without(self.units[:count])

    def possible(self, budget: Budget) -> tuple[float, float]:
        """Return the smallest and the largest ratio that can be achieved within the limits."""
        full = getattr(self.graph.full, budget)
        low, high = (self._removed(self.units[:count], budget) / full for count in (self.fixed, len(self.units)))
        return low, high

    def check(self, ratio: float, budget: Budget, *, limits: Limits) -> None:
        """Refuse a ratio that the layers' own ratios exceed, or that these or the cap make unreachable.

        Raises:
            DgpruneError: the message names the cause and the possible ratios.
        """
        if self.own and not self._is_within(self.units[: self.own], ratio, budget):
            causes, what = ["layers="], "alone removes more"
        elif blocked := self._blocked_layers(ratio, budget):
            capped = not set(blocked) <= set(limits.ratios)
            causes = ["layers="] * any(name in limits.ratios for name in blocked)
            causes += [f"max_layer_ratio={limits.max_ratio:g}"] * capped
            what = "protects the rest" if len(causes) == 1 else "protect the rest"
        else:
            return
        low, high = self.possible(budget)
        lowest, highest = math.ceil(low * 1e4) / 1e4, math.floor(high * 1e4) / 1e4
        advice = f"a ratio from {lowest:g} to {highest:g}" if lowest < highest else f"ratio={lowest:g}"
        raise DgpruneError(
            f"ratio={ratio:g} of all {budget} cannot be reached: {' and '.join(causes)} {what}. Ask for {advice}, or "
            f"change {' and '.join(causes)}."
        )

    def _blocked_layers(self, ratio: float, budget: Budget) -> list[str]:
        """Return the layers that could lose one more unit at this ratio if their limits allowed it."""
        if budget == "filters" and self.share is not None:
            return [name for name, (_, share) in self.blocked.items() if share <= ratio + 1e-9]
        if not self.blocked or not self._is_within(self.units, ratio, budget):
            return []
        more = {name: torch.cat([self.units, torch.tensor([unit])]) for name, (unit, _) in self.blocked.items()}
        return [name for name, units in more.items() if self._is_within(units, ratio, budget)]

    def _is_within(self, units: Tensor, ratio: float, budget: Budget) -> bool:
        return self._removed(units, budget) <= ratio * getattr(self.graph.full, budget) + 1e-6

    def _removed(self, units: Tensor, budget: Budget) -> int:
        """Return how many filters, parameters or MACs are removed with these units."""
        return getattr(self.graph.full, budget) - getattr(self.graph.cost(self._keep_without(units)), budget)

    def _keep_without(self, units: Tensor) -> dict[str, Tensor]:
        kept = torch.ones(self.total, dtype=torch.bool)
        kept[units] = False
        filters = {}
        for group in self.graph.groups:
            start = self.starts[group.name]
            tied = group.step > 1
            filters[group.name] = kept[group.units + start] if tied else kept[start : start + group.filters]
        return filters


@dataclass(frozen=True, eq=False, kw_only=True)
class _Layer:
    """The units of one layer, numbered within it; NumPy takes a fifth of torch's time on so few numbers.

    Attributes:
        mean, filters: (U,) mean score and number of filters of each unit.
        share: (U,) the share of the layer that is removed once this unit is.
        fixed: (U,) bool, units that are always removed.
        free: (U,) bool, units that the budget may remove.
        blocked: the first unit that only the layer's own ratio, or the cap, protects, and its `share`; or None.
    """

    mean: Array
    filters: Array
    share: Array
    fixed: Array
    free: Array
    blocked: tuple[int, float] | None


def removal_order(scores: Scores, *, scope: Scope, limits: Limits = _UNLIMITED) -> Order:
    """Return the removal order of the units by mean score: of the whole network, or as ranks within each layer.

    Raises:
        DgpruneError: limits that contradict each other within a layer.
    """
    layers = {group.name: _rank_layer(scores, group, limits) for group in scores.graph.groups}
    starts, total = {}, 0
    for name, layer in layers.items():
        starts[name], total = total, total + len(layer.mean)
    means, shares, sizes, fixed, free = (
        np.concatenate([getattr(layer, part) for layer in layers.values()])
        for part in ("mean", "share", "filters", "fixed", "free")
    )
    own = fixed & np.repeat([name in limits.ratios for name in layers], [len(layer.mean) for layer in layers.values()])
    start = np.concatenate([np.flatnonzero(own), np.flatnonzero(fixed & ~own)])
    ordered = np.argsort(shares if scope == "layer" else means, kind="stable")
    units = np.concatenate([start, ordered[free[ordered]]])
    same_share = scope == "layer" and not limits.ratios and not limits.forced
    return Order(
        graph=scores.graph,
        units=torch.from_numpy(units),
        share=torch.from_numpy(shares[units]) if same_share else None,
        filters=torch.from_numpy(sizes[units]),
        starts=starts,
        total=total,
        own=int(own.sum()),
        fixed=len(start),
        blocked={n: (starts[n] + layer.blocked[0], layer.blocked[1]) for n, layer in layers.items() if layer.blocked},
    )


def cached_order(scores: Scores, *, scope: Scope, limits: Limits) -> Order:
    """Return `removal_order`, cached on the immutable scores, since a slider tries many ratios with the same scores."""
    cached, key = scores.__dict__.setdefault("_orders", {}), (scope, *limits.key)
    order = cached.get(key)
    if order is None:
        order = removal_order(scores, scope=scope, limits=limits)
        while len(cached) > 7:  # dragging a layer's handle sets new limits at every move
            cached.pop(next(iter(cached)), None)
        cached[key] = order
    return order


def _rank_layer(scores: Scores, group: FilterGroup, limits: Limits) -> _Layer:
    """Rank the units of one layer: those removed by hand first, those kept by hand last, the others by score."""
    name, units = group.name, group.units.numpy()
    size = np.bincount(units)
    mean = np.bincount(units, weights=scores.values[name].double().numpy()) / size
    removed, kept = np.zeros((2, len(size)), dtype=bool)
    for mask, by_hand in ((removed, limits.remove), (kept, limits.keep)):
        if name in by_hand:
            mask[units[by_hand[name].numpy()]] = True
    ranked = np.lexsort((mean, kept.astype(int) - removed))
    share = np.empty(len(size))
    share[ranked] = size[ranked].cumsum() / group.filters
    movable = ~kept
    movable[ranked[-1]] = False  # the last unit: a layer is never emptied
    own = limits.ratios.get(name)
    allowed = share <= (limits.max_ratio if own is None else own) + 1e-9
    _check_by_hand(group, limits, lost=float(share[removed].max(initial=0.0)), kept=bool((allowed & kept).any()))
    fixed = removed if own is None else allowed & movable
    blocked = ranked[(movable & ~allowed)[ranked]]
    return _Layer(
        mean=mean,
        filters=size,
        share=share,
        fixed=fixed,
        free=movable & allowed & ~removed & (own is None),
        blocked=(int(blocked[0]), float(share[blocked[0]])) if len(blocked) else None,
    )


def _check_by_hand(group: FilterGroup, limits: Limits, *, lost: float, kept: bool) -> None:
    """Refuse filters set by hand that contradict the layer's own ratio, or the cap on every layer."""
    own, layer = limits.ratios.get(group.name), f"layer {group.name!r}"
    if lost > limits.max_ratio + 1e-9:
        raise DgpruneError(
            f"remove= names {lost:.1%} of the filters of {layer}, more than max_layer_ratio={limits.max_ratio:g} "
            "allows; change one of them."
        )
    if own is not None and (lost > own + 1e-9 or kept):
        what = f"remove= names {lost:.1%} of its filters" if lost > own + 1e-9 else "keep= leaves too few to remove"
        raise DgpruneError(f"layers= asks to remove {own:g} of {layer}, but {what}; change one of them.")
