"""Hooks on the inputs and outputs of layers, and the positions of a group's filters in these tensors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core import DgpruneError, FilterGraph, FilterGroup

Site = Literal["activation", "consumer_input", "conv_output"]
"""Where the maps of a group are taken: directly after its activation and before any pooling (without an activation,
after the BatchNorm or the residual sum); at the input of the last layer that consumes it; at the raw output of each
convolution that produces it, before BatchNorm."""


def on_input(model: nn.Module, layer: str, receive: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `receive` with every input of a layer, detached, channels on axis 1."""

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        with uncounted():
            y = inputs[0].detach()
            receive(y.movedim(-1, 1) if isinstance(module, nn.Linear) else y)

    return model.get_submodule(layer).register_forward_pre_hook(hook)


def on_output(model: nn.Module, layer: str, receive: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `receive` with every output of a layer, detached."""

    def hook(module: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> None:
        with uncounted():
            receive(y.detach())

    return model.get_submodule(layer).register_forward_hook(hook)


def uncounted() -> AbstractContextManager[None]:
    """Return a context in which operations do not count as calls of the network, see `taps.Calls`."""
    return torch._C.DisableTorchFunction()


class ConsumerInput:
    """A group's output in the full network, read at the input of its last consumer.

    An in-place layer may overwrite the maps later, so a receiver must reduce or copy them at once.
    """

    def __init__(self, group: FilterGroup) -> None:
        self.group, self.layer = group, group.consumers[-1]
        positions, filters = group.consumer_inputs[self.layer]
        present = len(filters.unique())
        if present < group.filters:
            raise DgpruneError(
                f"layer {self.layer!r}, the last consumer of {group.name!r}, receives only {present} of its "
                f"{group.filters} filters, so their outputs cannot be measured in one place; use a scorer of weights, "
                "such as 'l1'."
            )
        self.index = positions[filters.argsort(stable=True)]
        self._selection = Selection(self.index)

    def listen(self, model: nn.Module, receive: Callable[[Tensor], None]) -> RemovableHandle:
        """Call `receive` with the maps, (N, C, H, W) or (N, C, P) after a flatten, whenever the consumer is called."""
        return on_input(model, self.layer, lambda y: receive(self._maps(y)))

    def _maps(self, y: Tensor) -> Tensor:
        spatial = y.shape[2:] if len(self.index) == self.group.filters else (-1, *y.shape[2:])
        return self._selection.select(y).reshape(len(y), self.group.filters, *(spatial or (1,)))


def produced(group: FilterGroup, layer: str) -> list[tuple[Tensor, Tensor]]:
    """Return pairs (positions on a layer's output axis, the group's filters there); empty if the layer has none."""
    return [(m.positions, m.filters) for m in group.members if m.tensor == f"{layer}.weight" and m.side == "out"]


def input_ids(graph: FilterGraph, layer: str) -> Tensor:
    """Return the global filter ids along a consumer's input (channels,), up to the last position with a filter."""
    inputs = [(graph.offsets[g.name], *g.consumer_inputs[layer]) for g in graph.groups if layer in g.consumer_inputs]
    ids = torch.full((1 + max(int(positions.max()) for _, positions, _ in inputs),), graph.free)
    for offset, positions, filters in inputs:
        ids[positions] = filters + offset
    return ids


class Selection:
    """An index into axis 1 of tensors, moved to a tensor's device on first use."""

    def __init__(self, index: Tensor) -> None:
        self._index, self._is_identity = index, in_order(index, len(index))

    def select(self, y: Tensor) -> Tensor:
        """Return y[:, index]; y itself if the index selects everything in order."""
        if self._is_identity and len(self._index) == y.shape[1]:
            return y
        if self._index.device != y.device:
            self._index = self._index.to(y.device, non_blocking=True)
        return y.index_select(1, self._index)


def in_order(index: Tensor, count: int) -> bool:
    """Return whether an index is 0, 1, ..., count - 1."""
    return len(index) == count and torch.equal(index, torch.arange(count))


def output_count(layer: nn.Module) -> int:
    """Return the number of output channels or units of a convolution or linear layer; 0 for other layers."""
    return int(getattr(layer, "out_channels", 0) or getattr(layer, "out_features", 0))
