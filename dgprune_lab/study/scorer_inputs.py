"""The data that scorers read: one pass over each domain for the requested scorers, further passes on demand."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Set
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..core import Domain, FilterGroup, Mask, Need, Seen, Statistics, drain, give_back_memory, unknown
from ..data import SHIFTS
from ..measurement import PAIRS, MapShapes, Site, gathering, map_shapes, paired_cosines
from ..pruning import ending_in_relu
from .snapshot import Snapshot


class ScorerInputs:
    """What scorers read from one split of all domains, measured on first use and cached; see `scorers.Inputs`.

    Args:
        snapshot: the network and its domains.
        split: the split that scorers read.
        model: the network that is passed to scorers. Statistics are always measured on the snapshot's own network.
    """

    def __init__(self, snapshot: Snapshot, *, split: str, model: nn.Module | None = None) -> None:
        self._snapshot, self.split = snapshot, split
        self.model, self.graph = model or snapshot.network, snapshot.graph
        self.domains: Mapping[str, Domain] = snapshot.domains
        self.example = torch.zeros((1, *snapshot.graph.input_shape), device=snapshot.images.device)
        self.touched: dict[str, Seen] = {}

    def statistics(self, domain: str, need: Need, *, shift: str | None = None) -> Statistics:
        source = self.domains[domain]
        if shift is None:
            return drain(self.gathered(source, {need}))
        if shift not in SHIFTS:
            raise unknown("shift", shift, SHIFTS)
        key = ("shifted", source.key, shift, need, self.split)
        return self._snapshot.once(key, lambda: drain(self._run_pass(SHIFTS[shift](source), {need})))

    def gathered(
        self, domain: Domain, needs: Set[Need], *, alongside: Set[Need] = frozenset()
    ) -> Generator[int, None, Statistics]:
        """Return the statistics of one pass over a domain: a cached pass if one measured all `needs`, else a new one.

        A new pass measures `alongside` too; it yields the number of images of each batch.
        """
        cache, prefix = self._snapshot.cache, ("statistics", self._snapshot.content, domain.key, self.split)
        cached = cache.find(lambda key: key[:4] == prefix and needs <= set(key[4]))  # type: ignore[call-overload]
        if cached is not None:
            return cached
        gathered = tuple(sorted(needs | alongside))
        value = yield from self._run_pass(domain, gathered)
        give_back_memory()  # memory of feature maps: up to 1 GB, in 2 ms
        light = tuple(need for need in gathered if need not in PAIRS)
        if 0 < len(light) < len(gathered):  # co-moments are large and are evicted alone
            part = replace(value, co_moments={}, class_co_moments={})
            cache.put((*prefix, light), part, size=part.nbytes)
        cache.put((*prefix, gathered), value, size=value.nbytes)
        return value

    def _run_pass(self, domain: Domain, needs: Iterable[Need]) -> Generator[int, None, Statistics]:
        network, layout = self._snapshot.network, self._snapshot.evaluator.layout
        return gathering(network, self.graph, domain=domain, needs=tuple(needs), split=self.split, layout=layout)

    def paired(self, first: str, second: str, *, site: Site) -> Mapping[str, Tensor]:
        domains, layout = (self.domains[first], self.domains[second]), self._snapshot.evaluator.layout
        return self._snapshot.once(
            ("paired", domains[0].key, domains[1].key, site, self.split),
            lambda: paired_cosines(
                self._snapshot.network, self.graph, domains=domains, site=site, split=self.split, layout=layout
            ),
        )

    def removal(self, domain: str) -> Mapping[str, Tensor]:
        def changes() -> Mapping[str, Tensor]:
            full = self._risk(domain, None)
            return {group.name: self._risk_changes(domain, group, full=full) for group in self.graph.groups}

        return self._snapshot.once(("removal", self.domains[domain].key, self.split), changes)

    def _risk_changes(self, domain: str, group: FilterGroup, *, full: float) -> Tensor:
        """Return the (C,) change of a domain's mean risk when each filter, with all those tied to it, is removed."""
        change = torch.zeros(group.filters, dtype=torch.float64)
        for unit in group.units.unique().tolist() if int(group.units.max()) else ():
            tied = (group.units == unit).nonzero().flatten()
            change[tied] = self._risk(domain, Mask.by_hand(self.graph, removed={group.name: tied.tolist()})) - full
        return change

    def _risk(self, domain: str, mask: Mask | None) -> float:
        evaluator = self._snapshot.evaluator
        steps = evaluator.steps(mask, domain=self.domains[domain], split=self.split, images=None, calibration=0)
        return float(drain(steps).loss.double().mean())

    @property
    def shapes(self) -> Mapping[str, MapShapes]:
        snapshot = self._snapshot
        return snapshot.once(("shapes",), lambda: map_shapes(snapshot.network, snapshot.graph, snapshot.images))

    @property
    def ending_in_relu(self) -> frozenset[str]:
        snapshot = self._snapshot
        return snapshot.once(("relu",), lambda: ending_in_relu(snapshot.network, snapshot.images))
