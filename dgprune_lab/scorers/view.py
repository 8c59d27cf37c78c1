"""What a scorer gets to see: one group, read-only, and only what the scorer declared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core import (
    BATCHNORM,
    ClassMap,
    ClassMoments,
    CoMoments,
    DgpruneError,
    Domain,
    FilterGraph,
    FilterGroup,
    Moments,
    Need,
    Role,
    Seen,
    Statistics,
    generator,
    unknown,
)
from ..measurement import Site, pairs, too_large, written
from .contract import Scorer


@dataclass(frozen=True)
class ScorerInputs:
    """Everything a study can show its scorers; what takes a pass is made when it is read.

    Attributes:
        model: the network; a private copy of its own where the scorer may read it.
        graph: its groups.
        domains: name -> domain, with its role.
        split: the part that scorers read.
        statistics: (domain, need) -> what one pass over it left.
        shifted: (source, shift, need) -> the same over a shifted copy of a source.
        paired: (first, second, site) -> group -> (C,) mean cosine of the i-th images' maps.
        removal: domain -> group -> (C,) change of the mean risk when a filter (its unit) is removed.
        shapes: group -> shape of its map at the door, then of each raw convolution output.
        ending_in_relu: names of the layers whose output goes straight into ReLUs.
        example: (1, C, H, W) zeros of the size the network takes.
        touched: filled while scorers read: domain -> images or labels.
    """

    model: nn.Module
    graph: FilterGraph
    domains: Mapping[str, Domain]
    split: str
    statistics: Callable[[str, Need], Statistics]
    shifted: Callable[[str, str, Need], Statistics]
    paired: Callable[[str, str, Site], Mapping[str, Tensor]]
    removal: Callable[[str], Mapping[str, Tensor]]
    shapes: Callable[[], Mapping[str, list[tuple[int, ...]]]]
    ending_in_relu: Callable[[], frozenset[str]]
    example: Tensor
    touched: dict[str, Seen] = field(default_factory=dict)


class GroupView:
    """One group as a scorer sees it. Reading what the scorer did not declare raises.

    Attributes:
        name: of the group's first layer.
        filters: their number C.
        depth: position in the order of execution, from 0.
        consumers: names of the layers that read it.
        sources, targets: names of the domains whose role the scorer declared.
    """

    def __init__(self, scorer: Scorer, group: FilterGroup, evidence: ScorerInputs) -> None:
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
        return self._norms("weight", [member.tensor.rpartition(".")[0] for member in self._group.members])

    @property
    def end_norms(self) -> tuple[Tensor, Tensor]:
        """gamma and beta, (C, B) float64 each, of the B BatchNorms behind which the group's output begins.

        Raises:
            DgpruneError: something else than a BatchNorm writes the group's output.
        """
        for name in self._group.ends:
            if not isinstance(self._evidence.model.get_submodule(name), BATCHNORM):
                raise DgpruneError(f"layer {name!r} is not followed by a BatchNorm, which this scorer needs.")
        return self._norms("weight", self._group.ends), self._norms("bias", self._group.ends)

    @property
    def ends_in_relu(self) -> bool:
        """Whether everything that writes the group's output goes straight into a ReLU."""
        self._declared("weights")
        return set(self._group.ends) <= self._evidence.ending_in_relu()

    @property
    def places(self) -> list[int]:
        """Number of places of a filter's map: at the door, then at each raw convolution output."""
        return [math.prod(shape[1:]) for shape in self._evidence.shapes()[self.name]]

    def class_counts(self, domain: str) -> Tensor:
        """(K,) how many images of each class the part that scorers read holds."""
        self._allowed(domain, "labels")
        found = self._evidence.domains[domain]
        assert found.labels is not None
        labels = found.labels[found.rows(self._evidence.split).to(found.labels.device)]
        return torch.bincount(labels.cpu(), minlength=found.classes)

    def maps(
        self, domain: str, *, site: Site = "consumer_input", unit: bool = False, shift: str | None = None
    ) -> tuple[Tensor, ...]:
        """Mean maps on a domain, (C, ...) float64 each: one at the door, or one per convolution that writes the group.

        Args:
            domain: its name.
            site: "consumer_input", the input of the last layer that reads the group, or "conv_output", raw convolution outputs.
            unit: each image's map divided by its Euclidean norm before the mean.
            shift: on a copy of the domain changed by this entry of `data.SHIFTS`, with its default strength.
        """
        needs: dict[tuple[Site, bool], Need] = {
            ("consumer_input", False): "mean_map",
            ("consumer_input", True): "unit_map",
            ("conv_output", False): "conv_map",
            ("conv_output", True): "conv_unit_map",
        }
        need = needs[site, unit]
        held = getattr(self._of(need, domain, "images", shift=shift), need)[self.name]
        return tuple(part.clone() for part in (held if isinstance(held, tuple) else (held,)))

    def mean_map(self, domain: str) -> Tensor:
        """(C, H, W) float64 mean output on a domain."""
        return self.maps(domain)[0]

    def class_map(self, domain: str, *, shift: str | None = None) -> ClassMap:
        """Mean output per class that the network itself predicts."""
        return ClassMap(*(t.clone() for t in self._of("class_map", domain, "images", shift=shift).class_map[self.name]))

    def paired_cosine(self, first: str, second: str, *, site: Site = "consumer_input") -> Tensor:
        """(C,) mean cosine of a filter's maps on the i-th image of one domain and the i-th of another."""
        self._declared("paired")
        for domain in (first, second):
            self._allowed(domain, "images")
        return self._evidence.paired(first, second, site)[self.name].clone()

    def moments(self, domain: str) -> Moments:
        """Mean, mean |y|, mean square and share of zeros on a domain, each (C,)."""
        return Moments(*(held.clone() for held in self._of("moments", domain, "images").moments[self.name]))

    def gate(self, domain: str) -> Tensor:
        """(C,) derivative of the domain's mean risk by the filter's gate."""
        return self._of("gate", domain, "labels").gate[self.name].clone()

    def class_gate(self, domain: str) -> ClassMoments:
        """Per true class, mean and variance over images of the filter's gate derivative of that class's logit."""
        return ClassMoments(*(held.clone() for held in self._of("class_gate", domain, "labels").class_gate[self.name]))

    def risk(self, domain: str) -> float:
        """Mean cross-entropy on a domain."""
        found = self._of("risk", domain, "labels").risk
        assert found is not None
        return found

    def removal(self, domain: str) -> Tensor:
        """(C,) change of the domain's mean risk when a filter is really removed, one network per filter."""
        self._declared("removal")
        self._allowed(domain, "labels")
        return self._evidence.removal(domain)[self.name].clone()

    def co_moments(self, domain: str, *, layer: str, by_class: bool) -> CoMoments | None:
        """Sums of products of this group's responses with the outputs of a layer that reads it; None for no pair."""
        need: Need = "class_co_moments" if by_class else "co_moments"
        held = getattr(self._of(need, domain, "labels" if by_class else "images"), need).get((self.name, layer))
        return None if held is None else CoMoments(*(part.clone() for part in held))

    @property
    def pairs(self) -> tuple[str, ...]:
        """Names of the layers that read the group and mix its filters; of each, co-moments can be read."""
        found = pairs(self._evidence.model, self._evidence.graph)
        return tuple(layer for group, layer in found if group.name == self.name)

    def co_moments_refused(self, *, tables: int) -> str | None:
        """Why a table of co-moments for each of so many classes is refused in this network, or None."""
        held = self._evidence
        return too_large(held.model, pairs(held.model, held.graph), tables=tables)

    def seen_by(self, scorer: Scorer) -> GroupView:
        """The same group as another scorer gets to see it, by what that one declares."""
        return GroupView(scorer, self._group, self._evidence)

    def places_on(self, layer: str) -> list[tuple[Tensor, Tensor]]:
        """Places on a layer's output axis and the filters of this group there; empty where it writes none of them."""
        return written(self._group, layer)

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
        return tuple(name for name, held in self._evidence.domains.items() if held.role == role)

    def _norms(self, leaf: str, names: Sequence[str]) -> Tensor:
        self._declared("weights")
        columns = []
        for member in self._group.members:
            owner, _, part = member.tensor.rpartition(".")
            module = self._evidence.model.get_submodule(owner)
            if part == leaf and owner in names and isinstance(module, BATCHNORM):
                column = torch.zeros(self.filters, dtype=torch.float64)
                column[member.filters] = getattr(module, leaf).detach().double().cpu()[member.positions]
                columns.append(column)
        if not columns:
            raise DgpruneError(f"layer {self.name!r} is not followed by a BatchNorm, so it has no scale to score.")
        return torch.stack(columns, dim=1)

    def _declared(self, need: Need) -> None:
        if need not in self._scorer.needs:
            have = ", ".join(map(repr, self._scorer.needs)) or "nothing"
            raise DgpruneError(
                f"scorer {self._scorer.name!r} reads {need!r} but declares {have}; add it to needs=(...), so that the "
                "record of what it saw is true."
            )

    def _allowed(self, domain: str, what: Literal["images", "labels"]) -> None:
        """Note that a domain is read, if the scorer said it would be."""
        if domain not in self._evidence.domains:
            raise unknown("domain", domain, self._evidence.domains)
        role = self._evidence.domains[domain].role or "source"
        declared = self._scorer.reads.get(role)
        if declared is None or (what == "labels" and declared != "labels"):
            raise DgpruneError(
                f"scorer {self._scorer.name!r} reads {what} of the {role} {domain!r} but does not declare it; "
                f"add reads={{{role!r}: {what!r}}}."
            )
        if self._evidence.touched.get(domain) != "labels":
            self._evidence.touched[domain] = what

    def _of(self, need: Need, domain: str, what: Literal["images", "labels"], shift: str | None = None) -> Statistics:
        self._declared(need)
        self._allowed(domain, what)
        if shift is None:
            return self._evidence.statistics(domain, need)
        self._declared("shifted")
        return self._evidence.shifted(domain, shift, need)

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
