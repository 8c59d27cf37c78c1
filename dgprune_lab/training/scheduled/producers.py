"""The convolutions that a schedule can name, and where their filters are in the network's tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...core import BATCHNORM, CONV, FilterGraph, FilterGroup, Member, is_depthwise
from ...pruning import shared_copy


@dataclass(frozen=True, eq=False, kw_only=True)
class Producer:
    """A convolution that a schedule can name, and the tensor entries that are set to zero when a filter is removed.

    Filters are numbered as in the group. A residual stream is a group with several producers. Convolutions whose
    outputs are added in the same sum (a block's last one and the projection on its shortcut) are pruned together; so
    are those of a group with a depthwise convolution.

    Attributes:
        name: dotted name of the convolution.
        group: name of the group that the convolution produces.
        filters: (N,) the filters of the group that the convolution produces.
        layers: the convolutions that are pruned together, including this one.
        weights: rows of the weights and biases of these convolutions.
        norms: scale and shift of the BatchNorms right after these convolutions; if no other convolution produces the
            group, of all its BatchNorms.
        consumer_inputs: columns of the layers that read the sum before a later convolution adds to it.
        own: rows of this convolution's weight, from which its norm is computed.
    """

    name: str
    group: str
    filters: Tensor = field(repr=False)
    layers: tuple[str, ...]
    weights: tuple[Member, ...] = field(repr=False)
    norms: tuple[Member, ...] = field(repr=False)
    consumer_inputs: tuple[Member, ...] = field(repr=False)
    own: Member = field(repr=False)

    def norm(self, parameters: Mapping[str, Tensor], power: int) -> Tensor:
        """Return (sum |w|^power)^(1/power) of this layer's weights for each filter; infinity for filters it lacks."""
        rows = parameters[self.own.tensor].detach().double().cpu().movedim(self.own.axis, 0).flatten(1)
        sums = rows[self.own.positions].abs().pow(power).sum(1).pow(1 / power)
        norms = torch.full((int(self.filters.max()) + 1,), torch.inf, dtype=torch.float64)
        return norms.index_copy_(0, self.own.filters, sums)


def find_producers(model: nn.Module, graph: FilterGraph, *, example: Tensor) -> dict[str, Producer]:
    """Return every convolution that produces a group, by name, in the order of execution.

    Args:
        model: the network; it stays unchanged.
        graph: the filter groups of the network.
        example: (N, C, H, W) images.
    """
    order, preceding = _trace(shared_copy(model), example)
    producers = {
        name: _producer(name, together, group=group, preceding=preceding)
        for group in graph.groups
        for together in _pruned_together(model, group)
        for name in together
    }
    return {name: producers[name] for name in sorted(producers, key=order.index)}


def _pruned_together(model: nn.Module, group: FilterGroup) -> list[tuple[str, ...]]:
    """Return the names of a group's convolutions; a tuple holds those that are pruned together."""
    layers = [name for name in group.producers if isinstance(model.get_submodule(name), CONV)]
    if any(is_depthwise(model.get_submodule(name)) for name in layers):
        return [tuple(layers)]
    # Outputs that are added in one sum have the same consumers; one that was there before has more.
    by_consumers: dict[frozenset[str], list[str]] = defaultdict(list)
    for name in layers:
        consumers = frozenset(consumer for consumer, producers in group.feeds.items() if name in producers)
        by_consumers[consumers].append(name)
    return [tuple(names) for names in by_consumers.values()]


def _producer(name: str, together: tuple[str, ...], *, group: FilterGroup, preceding: Mapping[str, str]) -> Producer:
    """Return a Producer with the tensor entries of one convolution and of those that are pruned with it."""
    feeds = {consumer: producers for consumer, producers in group.feeds.items() if producers}
    last = {consumer: max(producers, key=group.producers.index) for consumer, producers in feeds.items()}
    alone = {layer for producers in feeds.values() for layer in producers} <= set(together)
    weights, norms, consumer_inputs, own = [], [], [], None
    for member in group.members:
        owner, _, leaf = member.tensor.rpartition(".")
        if member.side == "in":
            # A grouped convolution reads several filters through one column, which the remaining ones still need.
            if group.step == 1 and (alone or last.get(owner) in together):
                consumer_inputs.append(member)
        elif owner in together and member.side == "out":
            weights.append(member)
            own = member if owner == name and leaf == "weight" else own
        elif leaf in ("weight", "bias") and (preceding.get(owner) in together or (alone and owner in group.producers)):
            norms.append(member)
    assert own is not None
    return Producer(
        name=name,
        group=group.name,
        filters=own.filters.unique(),
        layers=together,
        weights=tuple(weights),
        norms=tuple(norms),
        consumer_inputs=tuple(consumer_inputs),
        own=own,
    )


def _trace(twin: nn.Module, example: Tensor) -> tuple[list[str], dict[str, str]]:
    """Run the network once; return its convolutions in order, and the convolution directly before each BatchNorm."""
    outputs: list[tuple[str, Tensor]] = []
    preceding: dict[str, str] = {}

    def after(name: str, _m: nn.Module, _i: Any, output: Tensor) -> None:
        outputs.append((name, output))  # keep a reference, so that its memory is not reused

    def before(name: str, _m: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for layer, output in outputs:
            if inputs[0] is output:
                preceding[name] = layer

    for name, module in twin.named_modules():
        if isinstance(module, CONV):
            module.register_forward_hook(partial(after, name))
        elif isinstance(module, BATCHNORM):
            module.register_forward_pre_hook(partial(before, name))
    with torch.no_grad():
        twin(example)
    return [name for name, _ in outputs], preceding
