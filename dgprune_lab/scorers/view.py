"""The read-only view through which a scorer reads one group, limited to the data that the scorer declares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core import (
    BATCHNORM,
    CONV,
    LABELLED,
    ClassMap,
    ClassMoments,
    CoMoments,
    DgpruneError,
    FilterGroup,
    Member,
    Moments,
    Need,
    Role,
    cloned,
    generator,
    unknown,
)
from ..measurement import Site, pairs, produced, too_large
from .contract import Scorer, What
from .inputs import MAP_NEEDS, Inputs


class GroupView:
    """One group as a scorer reads it. Reading data that the scorer has not declared raises a DgpruneError.

    Attributes:
        name: name of the group, which is that of its first layer.
        filters: number of filters C.
        depth: position of the group in the order of execution, from 0.
        consumers: names of the layers that consume the group's output.
        sources, targets: names of the domains with this role; empty if the scorer has not declared the role.
    """

    def __init__(self, scorer: Scorer, group: FilterGroup, *, inputs: Inputs) -> None:
        self._scorer, self._group, self._inputs = scorer, group, inputs
        self.name, self.filters, self.depth, self.consumers = group.name, group.filters, group.depth, group.consumers
        self.sources = self._names("source")
        self.targets = self._names("target")

    @property
    def weight(self) -> Tensor:
        """(C, K) float64: every weight that produces the filter, of all convolutions and linear layers of the group."""
        self._check_need("weights")
        return self._weight_rows(self._inputs.model.get_parameter)

    @property
    def scale(self) -> Tensor:
        """(C, B) float64: gamma of each of the group's B BatchNorms.

        Raises:
            DgpruneError: the group has no BatchNorm.
        """
        return self._norms("weight", [layer for _, layer, _ in self._members("weight")])

    @property
    def end_norms(self) -> tuple[Tensor, Tensor]:
        """gamma and beta, (C, B) float64 each, of the B BatchNorms whose output is the group's output.

        Raises:
            DgpruneError: a layer other than a BatchNorm produces the group's output.
        """
        for name in self._group.ends:
            if not isinstance(self._inputs.model.get_submodule(name), BATCHNORM):
                raise DgpruneError(f"layer {name!r} is not followed by a BatchNorm, which this scorer needs.")
        return self._norms("weight", self._group.ends), self._norms("bias", self._group.ends)

    @property
    def ends_in_relu(self) -> bool:
        """Whether the output of every layer that produces the group's output goes only into ReLUs."""
        self._check_need("weights")
        return set(self._group.ends) <= self._inputs.ending_in_relu

    def places(self, site: Site) -> int:
        """Return the number of positions in a filter's smallest map at a site (for a linear layer, at its consumer)."""
        sites = self._inputs.shapes[self.name].sites
        return min(math.prod(shape[1:]) for shape in sites[site] or sites["consumer_input"])

    @property
    def activation_found(self) -> bool:
        """Whether the map after the activation was found; otherwise the consumer input replaces it."""
        return self._inputs.shapes[self.name].activation_found

    def class_counts(self, domain: str) -> Tensor:
        """Return the (K,) number of images of each class in the split that scorers read."""
        self._check_read(domain, "labels")
        labels, rows = self._inputs.domains[domain].labels, self._inputs.domains[domain].rows(self._inputs.split)
        assert labels is not None
        return torch.bincount(labels[rows.to(labels.device)].cpu(), minlength=self._inputs.domains[domain].classes)

    def maps(
        self, domain: str, *, site: Site = "consumer_input", unit: bool = False, shift: str | None = None
    ) -> tuple[Tensor, ...]:
        """Return the mean maps on a domain, (C, ...) float64: a single one, or at "conv_output" one per convolution.

        Args:
            domain: name of the domain.
            site: "activation", right after the activation and before any pooling; "consumer_input", the input of the
                last layer that reads the group; or "conv_output", raw convolution outputs.
            unit: whether to divide each image's map by its Euclidean norm before the mean.
            shift: an entry of `data.SHIFTS`; the maps are then those on a copy shifted with the default strength.
        """
        maps = self._read(MAP_NEEDS[site, unit], domain, shift=shift)[self.name]
        return tuple(part.clone() for part in (maps if isinstance(maps, tuple) else (maps,)))

    def mean_map(self, domain: str) -> Tensor:
        """Return the (C, H, W) float64 mean maps over the images of a domain, at the consumer input."""
        return self.maps(domain)[0]

    def class_map(self, domain: str, *, shift: str | None = None) -> ClassMap:
        """Return the mean output of each filter over the images of each predicted class."""
        return cloned(self._read("class_map", domain, shift=shift)[self.name])

    def paired_cosine(self, first: str, second: str, *, site: Site = "consumer_input") -> Tensor:
        """Return the (C,) mean over i of the cosine between a filter's maps on the i-th images of two domains."""
        self._check_need("paired")
        for domain in (first, second):
            self._check_read(domain, "images")
        return self._inputs.paired(first, second, site=site)[self.name].clone()

    def moments(self, domain: str) -> Moments:
        """Return the mean, mean |y|, mean square and share of zeros of the output y over a domain, each (C,)."""
        return cloned(self._read("moments", domain)[self.name])

    def gate(self, domain: str) -> Tensor:
        """Return the (C,) derivative of the domain's mean risk with respect to each filter's gate."""
        return self._read("gate", domain)[self.name].clone()

    def class_gate(self, domain: str) -> ClassMoments:
        """Return, per true class, the mean and variance over its images of d(its logit)/d(gate)."""
        return cloned(self._read("class_gate", domain)[self.name])

    def risk(self, domain: str) -> float:
        """Return the mean cross-entropy on a domain."""
        return self._read("risk", domain)

    def removal(self, domain: str) -> Tensor:
        """Return the (C,) change of the domain's mean risk when each filter is removed; runs one network per filter."""
        self._check_need("removal")
        self._check_read(domain, "labels")
        return self._inputs.removal(domain)[self.name].clone()

    def co_moments(self, domain: str, *, layer: str, by_class: bool) -> CoMoments | None:
        """Return the co-moments of this group's responses with those of a consumer; None if the two form no pair."""
        sums = self._read("class_co_moments" if by_class else "co_moments", domain).get((self.name, layer))
        return None if sums is None else cloned(sums)

    @property
    def pairs(self) -> tuple[str, ...]:
        """Names of the layers that consume the group and mix its filters; co-moments can be read for each of them."""
        all_pairs = pairs(self._inputs.model, self._inputs.graph)
        return tuple(layer for group, layer in all_pairs if group.name == self.name)

    def co_moments_refused(self, *, tables: int) -> str | None:
        """Return why this many tables of co-moments per pair are too large for this network, or None if not."""
        model = self._inputs.model
        return too_large(model, pairs(model, self._inputs.graph), tables=tables)

    def seen_by(self, scorer: Scorer) -> GroupView:
        """Return a view of the same group for another scorer, limited to the data which that scorer declares."""
        return GroupView(scorer, self._group, inputs=self._inputs)

    def places_on(self, layer: str) -> list[tuple[Tensor, Tensor]]:
        """Return (positions on a layer's output axis, the group's filters there); empty if that layer produces none."""
        return produced(self._group, layer)

    def weight_gradient(self, domain: str) -> Tensor:
        """Return the (C, K) derivative of the domain's mean risk with respect to each entry of `weight`."""
        return self._weight_rows(self._read("weight_gradient", domain).__getitem__)

    def over_sources(self, read: Callable[[str], Tensor]) -> Tensor:
        """Return the mean of `read(domain)` over the sources, with equal weight."""
        if not self.sources:
            raise DgpruneError(f"scorer {self._scorer.name!r} needs a source; the study has none that it may read.")
        return torch.stack([read(domain) for domain in self.sources]).mean(0)

    def generator(self, seed: int) -> torch.Generator:
        """Return a random generator for this group and seed."""
        return generator("scorer", seed, self.name)

    @property
    def model(self) -> nn.Module:
        """A private copy of the whole network."""
        self._check_need("model")
        return self._inputs.model

    @property
    def example(self) -> Tensor:
        """(1, C, H, W) zeros of the network's input size."""
        self._check_need("model")
        return self._inputs.example

    def fill_gradients(self) -> None:
        """Write the gradient of the mean source risk into `.grad` of the private copy, for other code to read."""
        gradients = [self._read("weight_gradient", domain) for domain in self.sources]
        for name, parameter in self.model.named_parameters():
            if all(name in gradient for gradient in gradients):
                parameter.grad = torch.stack([gradient[name] for gradient in gradients]).mean(0).to(parameter)

    def _names(self, role: Role) -> tuple[str, ...]:
        if role not in self._scorer.reads:
            return ()
        return tuple(name for name, domain in self._inputs.domains.items() if domain.role == role)

    def _check_need(self, need: Need) -> None:
        if need not in self._scorer.needs:
            declared = ", ".join(map(repr, self._scorer.needs)) or "nothing"
            raise DgpruneError(
                f"scorer {self._scorer.name!r} reads {need!r} but declares {declared}; add it to needs=(...), so that "
                "its provenance is complete."
            )

    def _check_read(self, domain: str, what: What) -> None:
        """Record that a domain is read; raise an error if the scorer has not declared this."""
        if domain not in self._inputs.domains:
            raise unknown("domain", domain, self._inputs.domains)
        role = self._inputs.domains[domain].role or "source"
        declared = self._scorer.reads.get(role)
        if declared is None or (what == "labels" and declared != "labels"):
            raise DgpruneError(
                f"scorer {self._scorer.name!r} reads {what} of the {role} {domain!r} but does not declare it; "
                f"add reads={{{role!r}: {what!r}}}."
            )
        if self._inputs.touched.get(domain) != "labels":
            self._inputs.touched[domain] = what

    def _read(self, need: Need, domain: str, *, shift: str | None = None) -> Any:
        """Return a domain's statistics for one need; raise an error if the scorer has not declared the need."""
        self._check_need(need)
        self._check_read(domain, "labels" if need in LABELLED else "images")
        if shift is not None:
            self._check_need("shifted")
        return getattr(self._inputs.statistics(domain, need, shift=shift), need)

    def _members(self, leaf: str) -> Iterator[tuple[Member, str, nn.Module]]:
        """Yield (member, layer name, layer) for each of the group's members whose tensor is called `leaf`."""
        for member in self._group.members:
            layer, _, part = member.tensor.rpartition(".")
            if part == leaf:
                yield member, layer, self._inputs.model.get_submodule(layer)

    def _entries_by_filter(self, member: Member, tensor: Tensor) -> Tensor:
        """Return the entries of a tensor that belong to each filter, (C, K) float64."""
        tensor = tensor.detach().double().cpu().movedim(member.axis, 0)
        flat = tensor.reshape(len(tensor), -1)
        return flat.new_zeros(self.filters, flat.shape[1]).index_copy_(0, member.filters, flat[member.positions])

    def _norms(self, leaf: str, layers: Sequence[str]) -> Tensor:
        self._check_need("weights")
        columns = [
            self._entries_by_filter(member, getattr(module, leaf))
            for member, layer, module in self._members(leaf)
            if layer in layers and isinstance(module, BATCHNORM)
        ]
        if not columns:
            raise DgpruneError(f"layer {self.name!r} is not followed by a BatchNorm, so it has no scale to score.")
        return torch.cat(columns, dim=1)

    def _weight_rows(self, tensor: Callable[[str], Tensor]) -> Tensor:
        parts = [
            self._entries_by_filter(member, tensor(member.tensor))
            for member, _, module in self._members("weight")
            if member.side == "out" and isinstance(module, (*CONV, nn.Linear))
        ]
        return torch.cat(parts, dim=1)
