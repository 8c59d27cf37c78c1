"""What is done to chosen filters in a training: removed, zeroed for a while, noised, or zeroed and put back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...core import FilterGraph, Mask, Member, WeightMask, generator
from .members import Producer

How = Literal["remove", "zero", "noise", "restore"]
_Place = tuple[Tensor, int, Tensor]


@dataclass
class _Held:
    """What one event does to one layer for some more batches."""

    layer: str
    filters: Tensor
    left: int
    spread: float = 0.0
    saved: list[Tensor] = field(default_factory=list)


class Treatment:
    """What was done to which filters of a network so far, and what is kept up after every step of its training.

    remove: rows, BatchNorm scale and shift, and the columns that read them are zero after every step, for good.
    zero: the rows of the convolution are zero in so many batches, then free to regrow; its BatchNorm is left alone, or
        nothing would ever reach the rows again.
    noise: normal noise is added to the rows before each of so many batches; its standard deviation is that of the
        layer's weights that no event has chosen, when the event begins.
    restore: rows, scale and shift are zero in so many batches, then all is put back as it was, with the BatchNorm's
        running statistics.

    Filters are chosen once: an event takes others than those before it (as the paper's code does).

    Args:
        model: the network that trains; changed in place.
        writers: its convolutions.
        how: see above.
        batches: of training that a passing treatment lasts.
        seed: of the noise.

    Source: Bartoldson et al. 2020, arXiv:1906.03728, section 4.4 and their code. There the noise takes the spread of
    one filter, and falls on test batches too; here of all that are left, and on training batches only.
    """

    def __init__(
        self, model: nn.Module, *, producers: Mapping[str, Producer], how: How, batches: int, seed: int
    ) -> None:
        self.model, self.producers, self.how, self.batches = model, producers, how, batches
        self.tensors = {name: t.detach() for name, t in [*model.named_parameters(), *model.named_buffers()]}
        self.chosen: dict[str, Tensor] = {}
        self._held: list[_Held] = []
        self._zeroed: list[_Place] = []
        self._noise = generator("noise", seed)

    def left(self, layer: str) -> Tensor:
        """The filters of a layer that no event has chosen."""
        every = self.producers[layer].filters
        return every[~torch.isin(every, self.chosen.get(layer, torch.empty(0, dtype=torch.int64)))]

    def begin(self, event: Mapping[str, Tensor]) -> None:
        """Treat these filters of each layer, in the network as it stands between two steps."""
        for layer, filters in event.items():
            before = self.chosen.get(layer, filters[:0])
            self.chosen[layer] = torch.cat([before, filters]).sort().values
            if self.how == "remove":
                continue
            held = _Held(layer, filters, self.batches)
            if self.how == "noise":
                own = self.producers[layer].own
                assert own is not None
                index = _index(own, self.left(layer)).to(self.tensors[own.tensor].device)
                held.spread = float(self.tensors[own.tensor].index_select(own.axis, index).std())
            if self.how == "restore":
                held.saved = [t.index_select(axis, index) for t, axis, index in self._restored(layer, filters)]
            self._held.append(held)
        if self.how == "remove":
            self._find_zeroed()
        self._keep_up()

    def after_step(self) -> None:
        """To be called after every step of the optimiser."""
        for held in self._held:
            held.left -= 1
        for held in [held for held in self._held if held.left == 0]:
            self._put_back(held)
            self._held.remove(held)
        self._keep_up()

    def weight_mask(self, *, ratio_requested: float, reads: Any) -> WeightMask:
        """What is gone for good, as a mask of single weights; everything stays where nothing is."""
        keep: dict[str, Tensor] = {}
        if self.how == "remove":
            for layer, filters in self.chosen.items():
                for member in self._members(layer):
                    part = keep.setdefault(
                        member.tensor, torch.ones(self.tensors[member.tensor].shape, dtype=torch.bool)
                    )
                    part.index_fill_(member.axis, _index(member, filters), False)
        return WeightMask(keep, ratio_requested, "layer", reads=reads)

    def filter_mask(self, graph: FilterGraph, *, reads: Any) -> Mask:
        """The filters whose writers are all gone: those that can be removed physically."""
        if self.how != "remove":
            return Mask.by_hand(graph, reads=reads)
        keep = {}
        for group in graph.groups:
            written = torch.zeros(group.filters, dtype=torch.bool)
            for layer, producer in self.producers.items():
                if producer.group == group.name:
                    partner = next((name for name in producer.layers if name in self.chosen), layer)
                    written[self.left(partner)] = True
            # Filters that grouped convolutions tie go together or not at all.
            tied = torch.zeros(group.filters, dtype=torch.int64).index_add_(0, group.units, written.long())
            keep[group.name] = tied[group.units] > 0
        total = sum(int((~part).sum()) for part in keep.values())
        return Mask(keep, total / max(graph.free, 1), graph, reads=reads)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What it is in the middle of: tensors, and plain values."""
        tensors = {f"treated.{k}.{n}": t for k, held in enumerate(self._held) for n, t in enumerate(held.saved)}
        chosen = {layer: filters.tolist() for layer, filters in self.chosen.items()}
        held = [[h.layer, h.filters.tolist(), h.left, h.spread, len(h.saved)] for h in self._held]
        return {**tensors, "treated.noise": self._noise.get_state()}, {"chosen": chosen, "held": held}

    def resume(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.chosen = {layer: torch.tensor(filters) for layer, filters in values["chosen"].items()}
        self._noise.set_state(tensors["treated.noise"])
        self._held = [
            _Held(layer, torch.tensor(filters), left, spread, [tensors[f"treated.{k}.{n}"] for n in range(count)])
            for k, (layer, filters, left, spread, count) in enumerate(values["held"])
        ]
        if self.how == "remove":
            self._find_zeroed()

    def _keep_up(self) -> None:
        """Make what is held true of the network as it is now."""
        for tensor, axis, index in self._zeroed:
            tensor.index_fill_(axis, index, 0)
        for held in self._held:
            for tensor, axis, index in self._places(held.layer, held.filters):
                if self.how == "noise":
                    rows = tensor.index_select(axis, index)
                    drawn = torch.randn(rows.shape, generator=self._noise).to(rows)
                    tensor.index_add_(axis, index, drawn, alpha=held.spread)
                else:
                    tensor.index_fill_(axis, index, 0)

    def _put_back(self, held: _Held) -> None:
        """What was saved when it began; nothing unless it is to be restored."""
        if held.saved:
            for (tensor, axis, index), rows in zip(self._restored(held.layer, held.filters), held.saved, strict=True):
                tensor.index_copy_(axis, index, rows.to(tensor))

    def _members(self, layer: str) -> tuple[Member, ...]:
        """The places that this kind of treatment touches."""
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

    def _find_zeroed(self) -> None:
        self._zeroed = [place for layer, filters in self.chosen.items() for place in self._places(layer, filters)]

    def _restored(self, layer: str, filters: Tensor) -> list[_Place]:
        """What is put back: the places that are zeroed, and the running statistics behind them."""
        places = list(self._places(layer, filters))
        for member in self.producers[layer].norms:
            owner, _, leaf = member.tensor.rpartition(".")
            for name in (f"{owner}.running_mean", f"{owner}.running_var") if leaf == "weight" else ():
                if name in self.tensors:
                    tensor = self.tensors[name]
                    places.append((tensor, 0, _index(member, filters).to(tensor.device)))
        return places


def _index(member: Member, filters: Tensor) -> Tensor:
    """Places on the member's axis that hold these filters."""
    return member.positions[torch.isin(member.filters, filters)]
