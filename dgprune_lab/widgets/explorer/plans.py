"""Plans: the removal order of the filters and what remains at every ratio; all that a page needs for its slider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ...charts.size_and_cost import size_row
from ...charts.theme import with_minus
from ...core import Budget, FilterGroup, Mask, Scope, Scores
from ...pruning import Order, removal_order

PLAN_RATIOS = [round(k / 100, 2) for k in range(100)]
Row = dict[str, Any]


def plan(scores: Scores, *, scope: Scope, budget: Budget, ratios: Sequence[float] = PLAN_RATIOS) -> Row:
    """Return the plan of these scores: for each layer the filters' ranks and scores, and for each ratio a step."""
    order = removal_order(scores, scope=scope)
    values = [(scores.values[group.name], group) for group in scores.graph.groups]
    return {
        "key": [scores.scorer, scope, budget],
        "groups": [{"rank": ranks(v, g).tolist(), "score": np.round(v.numpy(), 6).tolist()} for v, g in values],
        "steps": [step(scores, order, ratio=ratio, scope=scope, budget=budget) for ratio in ratios],
        "spread": spread(scores),
    }


def step(scores: Scores, order: Order, *, ratio: float, scope: Scope, budget: Budget) -> Row:
    """Return what remains at one ratio: number of filters per layer, the four costs, and the rows of chart C."""
    graph = scores.graph
    keep = order.keep(order.count(ratio, budget))
    mask = Mask(keep, ratio, graph, scope=scope, budget=budget, scorer=scores.scorer)
    costs, full = mask.cost._asdict(), graph.cost()._asdict()
    return {
        "ratio": ratio,
        "ratio_achieved": mask.ratio_achieved,
        "kept": [int(kept.sum()) for kept in keep.values()],
        "left": [size_row(metric, value, full=full[metric]) for metric, value in costs.items()],
        **costs,
    }


def spread(scores: Scores) -> str:
    """Return range and quartiles of the scores as text, which shows whether the scores are nearly equal."""
    flat = np.concatenate([value.numpy() for value in scores.values.values()])
    low, first, third, high = (with_minus(f"{value:.3g}") for value in np.quantile(flat, [0, 0.25, 0.75, 1]))
    return f"Scores from {low} to {high}; the middle half from {first} to {third}."


def ranks(values: Tensor, group: FilterGroup) -> Tensor:
    """Return the (C,) removal rank of each filter, 0 first; filters of one unit have neighbouring ranks."""
    count = group.units.bincount()
    mean = values.new_zeros(len(count)).scatter_add_(0, group.units, values) / count
    order = np.lexsort((np.arange(group.filters), group.units.numpy(), mean[group.units].numpy()))
    rank = values.new_zeros(group.filters).long()
    rank[order] = rank.new_tensor(range(group.filters))
    return rank
