"""Hooks that deliver consumer inputs and convolution outputs while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core import CONV, FilterGraph, FilterGroup

Site = Literal["consumer_input", "conv_output"]
MapKey = tuple[str, str]
"""A group, and the layer at which its maps are taken."""


def on_input(model: nn.Module, layer: str, receive: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `receive` with every input of a layer, detached, channels on axis 1."""

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        y = inputs[0].detach()
        receive(y.movedim(-1, 1) if isinstance(module, nn.Linear) else y)

    return model.get_submodule(layer).register_forward_pre_hook(hook)


def on_output(model: nn.Module, layer: str, receive: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `receive` with every output of a layer, detached."""
    return model.get_submodule(layer).register_forward_hook(lambda _module, _inputs, y: receive(y.detach()))


class ConsumerInput:
    """A group's output in the full network, taken from the input of its last consumer.

    An in-place layer may rewrite the maps later: reduce or copy them on receipt.
    """

    def __init__(self, group: FilterGroup) -> None:
        self.group, self.layer = group, group.consumers[-1]
        positions, filters = group.consumer_inputs[self.layer]
        self._index = positions[filters.argsort(stable=True)]

    def listen(self, model: nn.Module, receive: Callable[[Tensor], None]) -> RemovableHandle:
        """Call `receive` with (N, C, H, W) maps, or with (N, C, P) after a flatten, on every call of the layer."""
        return on_input(model, self.layer, lambda y: receive(self._maps(y)))

    def _maps(self, y: Tensor) -> Tensor:
        spatial = y.shape[2:] if len(self._index) == self.group.filters else (-1, *y.shape[2:])
        return select(y, self._index).reshape(len(y), self.group.filters, *(spatial or (1,)))


class Taps:
    """Hooks of one pass on a private copy of the network; each map is selected once and sent to all receivers."""

    def __init__(self, model: nn.Module, graph: FilterGraph) -> None:
        self.model, self.graph = model, graph
        self._receivers: dict[Site, list[Callable[[MapKey, Tensor], None]]] = {}

    def listen(self, site: Site, receive: Callable[[MapKey, Tensor], None]) -> None:
        """Call `receive((group, layer), maps)` with every group's maps at its last consumer or its convolutions."""
        if site in self._receivers:
            self._receivers[site].append(receive)
            return
        receivers = self._receivers[site] = [receive]

        def deliver(maps: Tensor, key: MapKey) -> None:
            for receive in receivers:
                receive(key, maps)

        if site == "consumer_input":
            for tap in map(ConsumerInput, self.graph.groups):
                tap.listen(self.model, partial(deliver, key=(tap.group.name, tap.layer)))
            return
        for layer in [name for name, module in self.model.named_modules() if isinstance(module, CONV)]:
            for group, index in _complete(self.graph, layer):
                send = partial(deliver, key=(group.name, layer))
                on_output(self.model, layer, lambda y, index=index, send=send: send(select(y, index)))


def produced(group: FilterGroup, layer: str) -> list[tuple[Tensor, Tensor]]:
    """Return the positions on a layer's output axis that hold filters of the group, and these filters; may be empty."""
    return [(m.positions, m.filters) for m in group.members if m.tensor == f"{layer}.weight" and m.side == "out"]


def input_ids(graph: FilterGraph, layer: str) -> Tensor:
    """Return the (channels,) global filter ids along the input of a consumer, up to its last filter."""
    inputs = [(graph.offsets[g.name], *g.consumer_inputs[layer]) for g in graph.groups if layer in g.consumer_inputs]
    ids = torch.full((1 + max(int(positions.max()) for _, positions, _ in inputs),), graph.free)
    for offset, positions, filters in inputs:
        ids[positions] = filters + offset
    return ids


def _complete(graph: FilterGraph, layer: str) -> Iterator[tuple[FilterGroup, Tensor]]:
    """The groups of which a convolution produces every filter once, each with the filters' positions on its output."""
    for group in graph.groups:
        for positions, filters in produced(group, layer):
            if len(filters) == len(filters.unique()) == group.filters:
                index = torch.empty(group.filters, dtype=torch.int64)
                index[filters] = positions
                yield group, index


def select(y: Tensor, index: Tensor) -> Tensor:
    """Return y[:, index], and y itself where that is all of it in order."""
    return y if in_order(index, y.shape[1]) else y.index_select(1, index.to(y.device))


def in_order(index: Tensor, count: int) -> bool:
    """Whether an index is 0, 1, ..., count - 1."""
    return len(index) == count and torch.equal(index, torch.arange(count))


def output_count(layer: nn.Module) -> int:
    """Return the number of channels or units that a convolution or linear layer computes; 0 for other layers."""
    return int(getattr(layer, "out_channels", 0) or getattr(layer, "out_features", 0))
