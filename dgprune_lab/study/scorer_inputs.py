"""What a network gives on its domains: one pass for the scorers that were chosen, others when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Domain, FilterGraph, FilterGroup, Mask, Need, Statistics, drain, unknown
from ..data import SHIFTS
from ..measurement import PAIRS, Evaluator, Site, gather, map_shapes, paired_cosines
from ..pruning import ending_in_relu
from ..scorers import ScorerInputs
from .cache import Cache


class Passes:
    """Passes of one network over its domains, each made once.

    Args:
        model: a private copy.
        graph: its groups.
        domains: with their roles.
        evaluator: of the same network.
        example: a few images.
        cache: where results are kept.
        content: the network's hash, under which they are kept.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: FilterGraph,
        *,
        domains: Sequence[Domain],
        evaluator: Evaluator,
        example: Tensor,
        cache: Cache,
        content: str,
    ) -> None:
        self._model, self._graph, self._evaluator, self._example = model, graph, evaluator, example
        self._domains = {domain.name: domain for domain in domains}
        self._cache, self._content = cache, content

    def evidence(self, split: str, *, model: nn.Module | None) -> ScorerInputs:
        """What scorers may be shown of one part of the domains; `model` in the place of the private copy."""
        return ScorerInputs(
            self._model if model is None else model,
            self._graph,
            self._domains,
            split,
            statistics=lambda name, need: self.statistics(self._domains[name], {need}, split),
            shifted=lambda name, shift, need: self._shifted(self._domains[name], shift, need, split),
            paired=lambda first, second, site: self._paired(first, second, site, split),
            removal=lambda name: self._removal(self._domains[name], split),
            shapes=lambda: self._once(("shapes",), lambda: map_shapes(self._model, self._graph, self._example)),
            ending_in_relu=lambda: self._once(("relu",), lambda: ending_in_relu(self._model, self._example)),
            example=torch.zeros((1, *self._graph.input_shape), device=self._example.device),
        )

    def statistics(
        self, domain: Domain, needs: Set[Need], split: str, *, alongside: Set[Need] = frozenset()
    ) -> Statistics:
        """One pass over one part of a domain; one that gathered more is taken, a new one gathers `alongside` too."""
        prefix = ("statistics", self._content, domain.key, split)
        kept = self._cache.find(lambda key: key[:4] == prefix and needs <= set(key[4]))  # type: ignore[call-overload]
        if kept is not None:
            return kept
        wanted: tuple[Need, ...] = tuple(sorted(needs | alongside))
        value = gather(
            self._model, self._graph, domain=domain, needs=wanted, split=split, layout=self._evaluator.layout
        )
        light = tuple(need for need in wanted if need not in PAIRS)
        if 0 < len(light) < len(wanted):  # co-moments are large and are given up alone
            part = replace(value, co_moments={}, class_co_moments={})
            self._cache.put((*prefix, light), part, size=part.nbytes)
        self._cache.put((*prefix, wanted), value, size=value.nbytes)
        return value

    def _shifted(self, domain: Domain, shift: str, need: Need, split: str) -> Statistics:
        """A pass over a changed copy of a domain, which is not kept."""
        if shift not in SHIFTS:
            raise unknown("shift", shift, SHIFTS)

        def work() -> Statistics:
            changed, layout = SHIFTS[shift](domain), self._evaluator.layout
            return gather(self._model, self._graph, domain=changed, needs=[need], split=split, layout=layout)

        return self._once(("shifted", domain.key, shift, need, split), work)

    def _paired(self, first: str, second: str, site: Site, split: str) -> Mapping[str, Tensor]:
        pair = self._domains[first], self._domains[second]

        def work() -> Mapping[str, Tensor]:
            layout = self._evaluator.layout
            return paired_cosines(self._model, self._graph, domains=pair, site=site, split=split, layout=layout)

        return self._once(("paired", pair[0].key, pair[1].key, site, split), work)

    def _removal(self, domain: Domain, split: str) -> Mapping[str, Tensor]:
        """Per group, (C,) change of a domain's mean risk when a filter goes, with all that it is tied to."""

        def risk(mask: Mask | None) -> float:
            steps = self._evaluator.steps(mask, domain=domain, split=split, images=None, calibration=0)
            return float(drain(steps).loss.double().mean())

        def change(group: FilterGroup, full: float) -> Tensor:
            found = torch.zeros(group.filters, dtype=torch.float64)
            for unit in group.units.unique().tolist() if int(group.units.max()) else ():
                tied = (group.units == unit).nonzero().flatten()
                found[tied] = risk(Mask.by_hand(self._graph, removed={group.name: tied.tolist()})) - full
            return found

        def work() -> Mapping[str, Tensor]:
            full = risk(None)
            return {group.name: change(group, full) for group in self._graph.groups}

        return self._once(("removal", domain.key, split), work)

    def _once(self, what: tuple[str, ...], work: Callable[[], Any]) -> Any:
        key = (*what, self._content)
        found = self._cache.get(key)
        if found is None:
            found = work()
            self._cache.put(key, found, size=found.nbytes if isinstance(found, Statistics) else 8 * self._graph.free)
        return found
