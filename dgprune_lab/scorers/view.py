"""What a scorer gets to see: one group, read-only, and only what the scorer declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..contract import Need, Scorer
from ..runtime import generator
from ..types.domain import Role
from ..types.errors import DgpruneError, unknown
from ..types.graph import FilterGraph, FilterGroup
from ..types.layers import BATCHNORM
from ..types.statistics import Moments, Statistics


@dataclass(frozen=True)
class Evidence:
    """Everything a study can show its scorers.

    Attributes:
        model: a private copy of the network.
        graph: its groups.
        roles: domain name -> role.
        statistics: domain name -> what one pass left.
        example: (1, C, H, W) zeros of the size the network takes.
    """

    model: nn.Module
    graph: FilterGraph
    roles: Mapping[str, Role]
    statistics: Mapping[str, Statistics]
    example: Tensor


class GroupView:
    """One group as a scorer sees it. Reading what the scorer did not declare raises.

    Attributes:
        name: of the group's first layer.
        filters: their number C.
        depth: position in the order of execution, from 0.
        consumers: names of the layers that read it.
        sources, targets: names of the domains whose role the scorer declared.
    """

    def __init__(self, scorer: Scorer, group: FilterGroup, evidence: Evidence) -> None:
        self._scorer, self._group, self._evidence = scorer, group, evidence
        self.name, self.filters, self.depth, self.consumers = group.name, group.filters, group.depth, group.consumers
        self.sources = self._names("source")
        self.targets = self._names("target")

    @property
    def weight(self) -> Tensor:
        """(C, K) float64: every weight that writes the filter, of all convolutions and linear layers of the group."""
        self._declared("weights")
        return self._rows({name: p.detach() for name, p in self._evidence.model.named_parameters()})

    @property
    def scale(self) -> Tensor:
        """(C, B) float64: gamma of each of the group's B BatchNorms.

        Raises:
            DgpruneError: the group has none.
        """
        self._declared("weights")
        norms = BATCHNORM
        columns = []
        for member in self._group.members:
            owner, _, leaf = member.tensor.rpartition(".")
            module = self._evidence.model.get_submodule(owner)
            if leaf == "weight" and isinstance(module, norms):
                column = torch.zeros(self.filters, dtype=torch.float64)
                column[member.filters] = module.weight.detach().double().cpu()[member.positions]
                columns.append(column)
        if not columns:
            raise DgpruneError(f"layer {self.name!r} is not followed by a BatchNorm, so it has no scale to score.")
        return torch.stack(columns, dim=1)

    def mean_map(self, domain: str) -> Tensor:
        """(C, H, W) float64 mean output on a domain."""
        return self._of("mean_map", domain, "images").mean_map[self.name].clone()

    def moments(self, domain: str) -> Moments:
        """Mean, mean |y|, mean square and share of zeros on a domain, each (C,)."""
        return Moments(*(held.clone() for held in self._of("moments", domain, "images").moments[self.name]))

    def gate(self, domain: str) -> Tensor:
        """(C,) derivative of the domain's mean risk by the filter's gate."""
        return self._of("gate", domain, "labels").gate[self.name].clone()

    def weight_gradient(self, domain: str) -> Tensor:
        """(C, K) derivative of the domain's mean risk by `weight`, place for place."""
        return self._rows(self._of("weight_gradient", domain, "labels").weight_gradient)

    def over_sources(self, read: Any) -> Tensor:
        """Mean over the sources, each with equal weight, of what `read(domain)` gives."""
        if not self.sources:
            raise DgpruneError(f"scorer {self._scorer.name!r} needs a source; the study has none that it may read.")
        return torch.stack([read(domain) for domain in self.sources]).mean(0)

    def generator(self, seed: int) -> torch.Generator:
        """A generator of its own for this group and seed."""
        return generator("scorer", seed, self.name)

    @property
    def model(self) -> nn.Module:
        """A private copy of the whole network."""
        self._declared("model")
        return self._evidence.model

    @property
    def example(self) -> Tensor:
        """(1, C, H, W) zeros of the size the network takes."""
        self._declared("model")
        return self._evidence.example

    def fill_gradients(self) -> None:
        """Write the gradient of the mean source risk into `.grad` of the private copy, for code that reads it there."""
        parameters = dict(self.model.named_parameters())
        for name in parameters:
            held = [self._of("weight_gradient", d, "labels").weight_gradient.get(name) for d in self.sources]
            if all(value is not None for value in held):
                mean = torch.stack([value for value in held if value is not None]).mean(0)
                parameters[name].grad = mean.to(parameters[name])

    def _names(self, role: Role) -> tuple[str, ...]:
        if role not in self._scorer.reads:
            return ()
        return tuple(name for name, held in self._evidence.roles.items() if held == role)

    def _declared(self, need: Need) -> None:
        if need not in self._scorer.needs:
            have = ", ".join(map(repr, self._scorer.needs)) or "nothing"
            raise DgpruneError(
                f"scorer {self._scorer.name!r} reads {need!r} but declares {have}; add it to needs=(...), so that the "
                "record of what it saw is true."
            )

    def _of(self, need: Need, domain: str, what: str) -> Statistics:
        self._declared(need)
        roles = self._evidence.roles
        if domain not in roles:
            raise unknown("domain", domain, roles)
        declared = self._scorer.reads.get(roles[domain])
        if declared is None or (what == "labels" and declared != "labels"):
            raise DgpruneError(
                f"scorer {self._scorer.name!r} reads {what} of the {roles[domain]} {domain!r} but does not declare it; "
                f"add reads={{{roles[domain]!r}: {what!r}}}."
            )
        return self._evidence.statistics[domain]

    def _rows(self, tensors: Mapping[str, Tensor]) -> Tensor:
        parts = []
        for member in self._group.members:
            owner, _, leaf = member.tensor.rpartition(".")
            module = self._evidence.model.get_submodule(owner)
            if member.side != "out" or leaf != "weight" or isinstance(module, BATCHNORM | nn.PReLU):
                continue
            held = tensors[member.tensor].double().cpu().movedim(member.axis, 0).flatten(1)
            rows = torch.zeros(self.filters, held.shape[1], dtype=torch.float64)
            parts.append(rows.index_copy_(0, member.filters, held[member.positions]))
        return torch.cat(parts, dim=1)
