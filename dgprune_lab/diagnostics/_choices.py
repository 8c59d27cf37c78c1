"""A network to compare: a mask of the study's network, a network pruned from it, or the full network as given."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..core import BatchNorm, DgpruneError, Domain, Mask, Outcomes, Provenance, provenance_of
from ..measurement import LATENCY_IMAGES, cost_rows, evaluating, latency_row, timings
from ..pruning import device_of, prove_copies, refuse_other_types
from ..study import Study, mask_provenance, remaining_cost
from ._contract import Row, Rows
from ._removal import mask_cells


@dataclass(frozen=True, eq=False, kw_only=True)
class Choice:
    """One of the compared networks.

    Attributes:
        network: a network to measure as it is; None for the study's, under `mask`.
        mask: which filters stay; None where that is unknown.
        full: whether this is the full network as given.
    """

    name: str
    study: Study
    network: nn.Module | None
    mask: Mask | None
    full: bool
    batchnorm: BatchNorm

    @property
    def provenance(self) -> Provenance:
        """The data that each stage of the network's life has read."""
        if self.network is not None:
            return provenance_of(self.network)
        if self.full or self.mask is None:
            return self.study.provenance
        return mask_provenance(self.study.provenance, self.mask, batchnorm=self.batchnorm, study=self.study)

    def outcomes(self, domain: Domain, *, split: str, images: int | None) -> Generator[Any, None, Outcomes]:
        """Return the outcomes on a split; yields between batches."""
        if self.network is not None:
            return (yield from evaluating(self.network, domain, split, images=images))
        mask, setting = (None, None) if self.full else (self.mask, self.batchnorm)
        return (yield from self.study.steps(mask, domain=domain.name, split=split, images=images, batchnorm=setting))

    def cells(self, *, domain: Domain | None = None, split: str | None = None) -> Row:
        """Return the columns of a row about this network."""
        mask, setting = None if self.full else self.mask, self.batchnorm
        cells = mask_cells(self.study, mask, batchnorm=setting, domain=domain, split=split, provenance=self.provenance)
        unknown = {"ratio_requested": None, "ratio_achieved": None} if self.mask is None else {}
        return {**cells, **unknown}

    def size_rows(self) -> Rows:
        """Return the rows with the numbers of remaining filters (if known), parameters, MACs and bytes."""
        if self.mask is None:
            rows = cost_rows(self.network, self.study.domains[0]) if self.network is not None else []
        else:
            rows = [{"metric": name, "value": value, "unit": unit} for name, value, unit in remaining_cost(self.mask)]
        return [{**self.cells(), **row} for row in rows]

    def latency_row(self, split: str) -> Row:
        """Measure the latency on images of the first domain, and return its row."""
        domain, device = self.study.domains[0], self.study.device
        network = self.network
        if network is None:
            network = self.study.network(self.mask, batchnorm="as_is").to(device)
        example = domain.take(domain.rows(split, LATENCY_IMAGES), device=device_of(network)).images
        return {**self.cells(), **latency_row(list(timings(network, example)), len(example))}


def choice_of(study: Study, name: str, chosen: Mask | nn.Module | None, *, batchnorm: BatchNorm) -> Choice:
    """Return the `Choice` for a mask, a network or None that the user passed.

    Raises:
        DgpruneError: a mask or network of another study; a network that cannot be copied.
    """
    full_mask = Mask.by_hand(study.graph, reads={})
    if isinstance(chosen, nn.Module):
        example = study.domains[0].take(torch.arange(1), device=device_of(chosen)).images
        refuse_other_types(chosen, example)
        prove_copies(chosen, example)
        mask = _read_mask(full_mask, chosen)
        return Choice(name=name, study=study, network=chosen, mask=mask, full=mask is full_mask, batchnorm="as_is")
    sizes = {group.name: group.filters for group in study.graph.groups}
    if chosen is not None and {name: len(keep) for name, keep in chosen.keep.items()} != sizes:
        raise DgpruneError(f"{name} is a mask of another network than this study's; make it from study.score(...).")
    full = chosen is None
    return Choice(name=name, study=study, network=None, mask=chosen or full_mask, full=full, batchnorm=batchnorm)


def _read_mask(full_mask: Mask, network: nn.Module) -> Mask | None:
    """Return one mask for all rounds in which `dg.prune` made a network, in original indices; None if it is unknown.

    Raises:
        DgpruneError: a network pruned from one with other layers.
    """
    graph, rounds = full_mask.graph, getattr(network, "dgprune_masks", ())
    if not rounds:
        shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        unpruned = all(shapes.get(name) == shape for name, (shape, _) in graph.shapes.items())
        return full_mask if unpruned else None
    mask = Mask.from_json(rounds[0], graph=graph)
    remaining = {name: mask.kept(name) for name in graph.names}
    for later in rounds[1:]:
        for name, indices in later["keep"].items():  # a layer with one filter left is no group in the next round
            remaining[name] = [remaining[name][index] for index in indices]
    removed = {g.name: sorted(set(range(g.filters)) - set(remaining[g.name])) for g in graph.groups}
    requested = 1 - math.prod(1 - later["ratio_requested"] for later in rounds)
    keep = Mask.by_hand(graph, removed=removed).keep
    return replace(mask, keep=keep, ratio_requested=requested, nested=mask.nested and len(rounds) == 1)
