"""Plans: the removal order of the filters and what remains at every ratio; all that a page needs for its slider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...charts.size_and_cost import size_row
from ...charts.theme import with_minus
from ...core import Budget, FilterGroup, Mask, Scope, Scores, roles_of
from ...pruning import Limits, Order, cached_order
from ...study import Study, mask_provenance
from ..panels.protocol import Row
from .choices import Choices, Cut, Key, as_lists, cut, is_by_hand, plan_key
from .frames import SPLIT

PLAN_RATIOS = [round(k / 100, 2) for k in range(100)]
_FREE = Limits()
_MOST = 60  # plans, and curves, that are kept: each move of a layer's handle makes new ones


class Plans:
    """The plans of the network of a step, cached.

    Args:
        study: the network of the step.
        full, taken: the study of the full network, and which of its filters the step has; None for all.
        cached: plans of other steps too, by their keys.
    """

    def __init__(self, study: Study, *, full: Study, taken: Mask | None, cached: dict[Key, Row] | None = None) -> None:
        self._study, self._full, self._taken = study, full, taken
        self.cached: dict[Key, Row] = {} if cached is None else cached

    def cut(self, scores: Scores, choices: Choices) -> Cut:
        """Return what the choices remove; see `choices.cut`."""
        return cut(scores, choices, full=self._full, taken=self._taken)

    def plan(self, scores: Scores, choices: Choices) -> Row:
        """Return the plan of the choices, with a step for exactly their ratio, and the `exposure`."""
        key, chosen = plan_key(choices), self.cut(scores, choices)
        plan = self.cached.get(key) or self._plan(scores, choices, PLAN_RATIOS, limits=chosen.limits)
        if all(step["ratio"] != choices["ratio"] for step in plan["steps"]):
            more = self._plan(scores, choices, [choices["ratio"]], limits=chosen.limits)["steps"]
            plan = {**plan, "steps": sorted([*plan["steps"], *more], key=lambda step: step["ratio"])}
        put_newest(self.cached, key, plan)
        return {**plan, "exposure": self._exposure(chosen.mask, choices)}

    def at_once(self, scores: Scores, choices: Choices) -> Row | None:
        """Return a plan with the step of their ratio alone, with the `exposure`; None if there is a whole plan."""
        if plan_key(choices) in self.cached:
            return None
        chosen = self.cut(scores, choices)
        plan = self._plan(scores, choices, [choices["ratio"]], limits=chosen.limits)
        return {**plan, "exposure": self._exposure(chosen.mask, choices)}

    def allows(self, choices: Choices, ratio: float) -> bool:
        """Whether what is set by hand allows this ratio; if not, its point would repeat the nearest possible mask."""
        plan = self.cached.get(plan_key(choices)) if is_by_hand(choices) else None
        return plan is None or plan["range"][0] - 1e-9 <= ratio <= plan["range"][1] + 1e-9

    def _plan(self, scores: Scores, choices: Choices, ratios: Sequence[float], *, limits: Limits) -> Row:
        options: Any = {"scope": choices["scope"], "budget": choices["budget"], "ratios": ratios, "limits": limits}
        return {**plan(scores, **options, taken=self._taken), "key": as_lists(plan_key(choices))}

    def _exposure(self, mask: Mask, choices: Choices) -> Row | None:
        """Return which images the choice of filters is based on, as a sign and a sentence; None if nothing to say."""
        study, batchnorm = self._study, choices["batchnorm"]
        provenance = mask_provenance(study.provenance, mask, batchnorm=batchnorm, study=study)
        by_hand = is_by_hand(choices) or choices.get("step", 0) > 0  # an earlier step may have been
        notice = provenance.notice(roles_of(study.domains), split=SPLIT, by_hand=by_hand)
        return None if notice is None else notice._asdict()


def put_newest(cache: dict[Key, Any], key: Key, value: Any) -> None:
    """Store a value as the newest, and drop the oldest beyond the number that is kept."""
    cache.pop(key, None)
    cache[key] = value
    for old in list(cache)[:-_MOST]:
        cache.pop(old, None)


def plan(
    scores: Scores,
    *,
    scope: Scope,
    budget: Budget,
    ratios: Sequence[float] = PLAN_RATIOS,
    limits: Limits = _FREE,
    taken: Mask | None = None,
) -> Row:
    """Return the plan of these scores: for each layer the filters' ranks and scores, and for each ratio a step.

    Args:
        scores: the scores of the network that is pruned further.
        scope, budget: see `dg.allocate`.
        ratios: the ratios of the steps; each is taken to the nearest that `limits` allow.
        limits: layers and filters by hand.
        taken: which filters of the full network this network has; None for the full network.

    Returns:
        groups: {name, rank, score, index, full} per layer of the full network; `index` holds the filters left, numbered
        as in the full network, and `full` is how many that layer has; in each layer, those of highest rank are
        kept. `range`: the smallest and largest ratio that `limits` allow.
    """
    order = cached_order(scores, scope=scope, limits=limits)
    graph = scores.graph if taken is None else taken.graph
    return {
        "key": [scores.scorer, scope, budget, 0, [[], [], []]],
        "groups": [_group(group, scores, limits=limits, taken=taken) for group in graph.groups],
        "steps": [step(scores, order, ratio=ratio, scope=scope, budget=budget, taken=taken) for ratio in ratios],
        "range": list(order.possible(budget)),
        "spread": spread(scores),
    }


def step(scores: Scores, order: Order, *, ratio: float, scope: Scope, budget: Budget, taken: Mask | None = None) -> Row:
    """Return what remains at one ratio: number of filters per layer, the four costs, and the rows of chart C.

    `ratio_achieved` is a share of this network, `removed` a share of the full network.
    """
    mask = Mask(order.keep(order.count(ratio, budget)), ratio, scores.graph, scope=scope, budget=budget)
    full_mask = mask if taken is None else taken.then(mask)
    costs, full = full_mask.cost._asdict(), full_mask.graph.full._asdict()
    return {
        "ratio": ratio,
        "ratio_achieved": mask.ratio_achieved,
        "removed": 1 - costs[budget] / full[budget],
        "kept": [int(kept.sum()) for kept in full_mask.keep.values()],
        "left": [size_row(metric, value, full=full[metric]) for metric, value in costs.items()],
        **costs,
    }


def _group(group: FilterGroup, scores: Scores, *, limits: Limits, taken: Mask | None) -> Row:
    """A layer of the full network: with only one filter left, it is no longer a group of the smaller network."""
    name, index = group.name, list(range(group.filters)) if taken is None else taken.kept(group.name)
    row = {"name": name, "index": index, "full": group.filters}
    if name not in scores.graph.names:
        return {**row, "rank": [0], "score": [None]}
    values = scores.values[name]
    rank = ranks(values, scores.graph[name], limits=limits)
    return {**row, "rank": rank.tolist(), "score": np.round(values.numpy(), 6).tolist()}


def spread(scores: Scores) -> str:
    """Return range and quartiles of the scores as text, which shows whether the scores are nearly equal."""
    flat = np.concatenate([value.numpy() for value in scores.values.values()])
    low, first, third, high = (with_minus(f"{value:.3g}") for value in np.quantile(flat, [0, 0.25, 0.75, 1]))
    return f"Scores from {low} to {high}; the middle half from {first} to {third}."


def ranks(values: Tensor, group: FilterGroup, *, limits: Limits = _FREE) -> Tensor:
    """Return the (C,) removal rank of each filter, 0 first; filters of one unit have neighbouring ranks.

    Filters removed by hand come first, filters kept by hand last.
    """
    units, count = group.units, group.units.bincount()
    mean = values.new_zeros(len(count)).scatter_add_(0, units, values) / count
    none = torch.zeros(group.filters, dtype=torch.bool)
    out, stay = (forced.get(group.name, none).int() for forced in (limits.remove, limits.keep))
    order = np.lexsort((np.arange(group.filters), units.numpy(), mean[units].numpy(), (stay - out).numpy()))
    rank = values.new_zeros(group.filters).long()
    rank[order] = rank.new_tensor(range(group.filters))
    return rank
