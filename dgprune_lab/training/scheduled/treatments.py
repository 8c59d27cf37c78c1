"""Treatments of filters during training: removed, zeroed for a while, noised, or zeroed and then restored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...core import FilterGraph, Mask, Member, WeightMask, generator
from .producers import Producer

How = Literal["remove", "zero", "noise", "restore"]
_Place = tuple[Tensor, int, Tensor]


@dataclass(kw_only=True)
class _Passing:
    """A temporary treatment of one layer: the treated filters, and the number of batches that it still lasts."""

    layer: str
    filters: Tensor
    batches: int
    std: float = 0.0
    saved: list[Tensor] = field(default_factory=list)


class Treatment:
    """The treatment of a network's filters so far, applied again after every step of training.

    remove: the convolution's rows, BatchNorm scale and shift, and the consumers' columns are zero after every step,
        permanently.
    zero: the rows of the convolution are zero for `batches` batches, then free to regrow; its BatchNorm stays as it is,
        because otherwise no gradient would reach the rows again.
    noise: normal noise is added to the rows before each of `batches` batches. Its standard deviation is computed when
        the event begins, over the weights of all filters in the layer that no event has chosen.
    restore: rows, scale and shift are zero for `batches` batches, then they are restored, together with the BatchNorm's
        running statistics.

    Each filter is chosen once: an event never takes filters of an earlier one (as in the paper's code).

    Args:
        model: the network in training; changed in place.
        producers: the convolutions of the network by name.
        how: one of the treatments above.
        batches: number of batches that a temporary treatment lasts.
        seed: random seed of the noise.

    Source: Bartoldson et al. 2020, arXiv:1906.03728, section 4.4 and their code. There the noise has the standard
    deviation of one filter and is added on test batches too; here it has that of all remaining filters and is added on
    training batches only.
    """

    def __init__(
        self, model: nn.Module, *, producers: Mapping[str, Producer], how: How, batches: int, seed: int
    ) -> None:
        self.producers, self.how, self.batches = producers, how, batches
        self.tensors = {name: t.detach() for name, t in [*model.named_parameters(), *model.named_buffers()]}
        self.chosen: dict[str, Tensor] = {}
        self._passing: list[_Passing] = []
        self._removed: list[_Place] = []
        self._noise = generator("noise", seed)

    def left(self, layer: str) -> Tensor:
        """Return the indices of a layer's filters that no event has chosen."""
        filters = self.producers[layer].filters
        return filters[~torch.isin(filters, self.chosen.get(layer, filters[:0]))]

    def begin(self, event: Mapping[str, Tensor]) -> None:
        """Begin the treatment of the filters (row indices) of each layer; call it between two optimizer steps."""
        for layer, filters in event.items():
            self.chosen[layer] = torch.cat([self.chosen.get(layer, filters[:0]), filters]).sort().values
            if self.how == "remove":
                continue
            passing = _Passing(layer=layer, filters=filters, batches=self.batches)
            if self.how == "noise":
                own = self.producers[layer].own
                weight = self.tensors[own.tensor]
                index = _index(own, self.left(layer)).to(weight.device)
                passing.std = float(weight.index_select(own.axis, index).std())
            if self.how == "restore":
                passing.saved = [t.index_select(axis, index) for t, axis, index in self._restored(layer, filters)]
            self._passing.append(passing)
        self._find_removed()
        self._apply()

    def after_step(self) -> None:
        """Apply the treatment again; call it after every step of the optimiser."""
        for passing in self._passing:
            passing.batches -= 1
            if passing.batches == 0 and passing.saved:
                places = self._restored(passing.layer, passing.filters)
                for (tensor, axis, index), rows in zip(places, passing.saved, strict=True):
                    tensor.index_copy_(axis, index, rows.to(tensor))
        self._passing = [passing for passing in self._passing if passing.batches]
        self._apply()

    def weight_mask(self, *, ratio_requested: float, reads: Any) -> WeightMask:
        """Return a mask of the permanently removed weights; empty if there are none."""
        keep: dict[str, Tensor] = {}
        if self.how == "remove":
            for layer, filters in self.chosen.items():
                for member in self._members(layer):
                    full = torch.ones(self.tensors[member.tensor].shape, dtype=torch.bool)
                    keep.setdefault(member.tensor, full).index_fill_(member.axis, _index(member, filters), False)
        return WeightMask(keep=keep, ratio_requested=ratio_requested, scope="layer", reads=reads)

    def filter_mask(self, graph: FilterGraph, *, reads: Any) -> Mask:
        """Return a mask of the filters that every layer producing them has lost; these can be removed physically."""
        chosen = self.chosen if self.how == "remove" else {}
        keep = {}
        for group in graph.groups:
            written = torch.zeros(group.filters, dtype=torch.bool)
            for producer in self.producers.values():
                if producer.group == group.name:
                    partner = next((name for name in producer.layers if name in chosen), None)
                    written[producer.filters if partner is None else self.left(partner)] = True
            # Filters that grouped convolutions tie are removed together or not at all.
            units = torch.zeros(group.filters, dtype=torch.int64).index_add_(0, group.units, written.long())
            keep[group.name] = units[group.units] > 0
        removed = sum(int((~part).sum()) for part in keep.values())
        return Mask(keep=keep, ratio_requested=removed / max(graph.free, 1), graph=graph, reads=reads)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state that the rest of the treatment needs: tensors, and plain values."""
        tensors = {f"treatment.{k}.{n}": t for k, entry in enumerate(self._passing) for n, t in enumerate(entry.saved)}
        chosen = {layer: filters.tolist() for layer, filters in self.chosen.items()}
        passing = [[p.layer, p.filters.tolist(), p.batches, p.std, len(p.saved)] for p in self._passing]
        return {**tensors, "treatment.noise": self._noise.get_state()}, {"chosen": chosen, "passing": passing}

    def resume(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.chosen = {layer: torch.tensor(filters) for layer, filters in values["chosen"].items()}
        self._noise.set_state(tensors["treatment.noise"])
        for k, (layer, filters, batches, std, count) in enumerate(values["passing"]):
            saved = [tensors[f"treatment.{k}.{n}"] for n in range(count)]
            filters = torch.tensor(filters)
            self._passing.append(_Passing(layer=layer, filters=filters, batches=batches, std=std, saved=saved))
        self._find_removed()

    def _apply(self) -> None:
        """Set the treated filters of the current network to zero, or add noise to them."""
        for tensor, axis, index in self._removed:
            tensor.index_fill_(axis, index, 0)
        for passing in self._passing:
            for tensor, axis, index in self._places(passing.layer, passing.filters):
                if self.how == "noise":
                    rows = tensor.index_select(axis, index)
                    noise = torch.randn(rows.shape, generator=self._noise).to(rows)
                    tensor.index_add_(axis, index, noise, alpha=passing.std)
                else:
                    tensor.index_fill_(axis, index, 0)

    def _members(self, layer: str) -> tuple[Member, ...]:
        """Return the tensor entries of a layer that this kind of treatment changes."""
        producer = self.producers[layer]
        if self.how == "remove":
            return (*producer.weights, *producer.norms, *producer.consumer_inputs)
        if self.how == "noise":
            return tuple(member for member in producer.weights if member.tensor.endswith(".weight"))
        return (*producer.weights, *producer.norms) if self.how == "restore" else producer.weights

    def _places(self, layer: str, filters: Tensor) -> Iterator[_Place]:
        for member in self._members(layer):
            tensor = self.tensors[member.tensor]
            yield tensor, member.axis, _index(member, filters).to(tensor.device)

    def _find_removed(self) -> None:
        chosen = self.chosen if self.how == "remove" else {}
        self._removed = [place for layer, filters in chosen.items() for place in self._places(layer, filters)]

    def _restored(self, layer: str, filters: Tensor) -> list[_Place]:
        """Return the entries to restore: the zeroed ones, and the BatchNorm's running statistics."""
        places = list(self._places(layer, filters))
        for member in self.producers[layer].norms:
            owner, _, leaf = member.tensor.rpartition(".")
            for name in (f"{owner}.running_mean", f"{owner}.running_var") if leaf == "weight" else ():
                if name in self.tensors:
                    tensor = self.tensors[name]
                    places.append((tensor, 0, _index(member, filters).to(tensor.device)))
        return places


def _index(member: Member, filters: Tensor) -> Tensor:
    """Return the positions on the member's axis that hold these filters."""
    return member.positions[torch.isin(member.filters, filters)]
