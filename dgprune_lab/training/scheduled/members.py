"""Where the filters of one convolution sit when it, and not its whole group, is pruned: what a schedule names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...core import BATCHNORM, CONV, FilterGraph, FilterGroup, Member, is_depthwise
from ...pruning import private


@dataclass(frozen=True, eq=False)
class Producer:
    """A convolution whose filters a schedule can name, and every place that is zero when one of them is gone.

    Filters are numbered as in the group. A residual stream is a group with several writers. Convolutions whose outputs
    meet in the same sum (a block's last one and the projection on its shortcut) go together; so do those of a group
    with a depthwise convolution.

    Attributes:
        name: its dotted name.
        group: name of the group it writes.
        filters: (N,) the group's filters that it writes.
        layers: the convolutions that go together, itself included.
        weights: rows of their weights and biases.
        norms: scale and shift of the BatchNorms right behind them; of all where nothing else writes the group.
        doors: columns of the layers that read the sum before another convolution has written into it.
        own: rows of the named layer's weight alone: what its norm is computed from.
    """

    name: str
    group: str
    filters: Tensor = field(repr=False)
    layers: tuple[str, ...] = ()
    weights: tuple[Member, ...] = field(default=(), repr=False)
    norms: tuple[Member, ...] = field(default=(), repr=False)
    consumer_inputs: tuple[Member, ...] = field(default=(), repr=False)
    own: Member | None = field(default=None, repr=False)

    def norm(self, parameters: Mapping[str, Tensor], power: int) -> Tensor:
        """(sum |w|^power)^(1/power) per filter of the group: the named layer's weights; infinite where it has none."""
        assert self.own is not None
        rows = parameters[self.own.tensor].detach().double().cpu().movedim(self.own.axis, 0).flatten(1)
        sums = rows[self.own.positions].abs().pow(power).sum(1).pow(1 / power)
        found = torch.full((int(self.filters.max()) + 1,), torch.inf, dtype=torch.float64)
        return found.index_copy_(0, self.own.filters, sums)


def find_producers(model: nn.Module, graph: FilterGraph, example: Tensor) -> dict[str, Producer]:
    """Every convolution that writes a group, by its name, in the order of execution.

    Args:
        model: untouched.
        graph: its groups.
        example: (N, C, H, W) images of the size it takes.
    """
    ran, behind = _one_pass(private(model), example)
    found = {}
    for group in graph.groups:
        for together in _together(model, group):
            for name in together:
                found[name] = _writer(name, together, group, behind)
    return {name: found[name] for name in sorted(found, key=ran.index)}


def _together(model: nn.Module, group: FilterGroup) -> list[tuple[str, ...]]:
    """The convolutions of a group, those that go together in one entry."""
    layers = [name for name in group.producers if isinstance(model.get_submodule(name), CONV)]
    if any(is_depthwise(model.get_submodule(name)) for name in layers):
        return [tuple(layers)]
    # Outputs that meet in one sum are read by the same layers; one that was there before is read by more.
    consumers = {
        name: frozenset(consumer_input for consumer_input, held in group.feeds.items() if name in held)
        for name in layers
    }
    kinds: dict[frozenset[str], list[str]] = {}
    for name in layers:
        kinds.setdefault(consumers[name], []).append(name)
    return [tuple(names) for names in kinds.values()]


def _writer(name: str, together: tuple[str, ...], group: FilterGroup, behind: Mapping[str, str]) -> Producer:
    """The places of one convolution and of those that go with it."""
    order = {layer: place for place, layer in enumerate(group.producers)}
    last = {
        consumer_input: max(held, key=lambda layer: order[layer])
        for consumer_input, held in group.feeds.items()
        if held
    }
    alone = {layer for held in group.feeds.values() for layer in held} <= set(together)
    norms = {norm for norm, layer in behind.items() if layer in together}
    every = set(group.producers)
    weights, scales, consumer_inputs, own = [], [], [], None
    for member in group.members:
        owner, _, leaf = member.tensor.rpartition(".")
        if member.side == "in":
            # A grouped convolution reads several filters through one column, which must serve those that stay.
            if group.step == 1 and (alone or last.get(owner) in together):
                consumer_inputs.append(member)
        elif owner in together and member.side == "out":
            weights.append(member)
            own = member if owner == name and leaf == "weight" else own
        elif leaf in ("weight", "bias") and (owner in norms or (alone and owner in every)):
            scales.append(member)
    assert own is not None
    places = (tuple(weights), tuple(scales), tuple(consumer_inputs))
    return Producer(name, group.name, own.filters.unique(), together, *places, own)


def _one_pass(twin: nn.Module, example: Tensor) -> tuple[list[str], dict[str, str]]:
    """The convolutions as they run, and BatchNorm -> the one whose output, the very tensor, it reads; on a copy."""
    made: list[tuple[str, Tensor]] = []
    found: dict[str, str] = {}

    def after(name: str, _m: nn.Module, _i: Any, output: Tensor) -> None:
        made.append((name, output))  # held, so that no other tensor can take its place in memory

    def before(name: str, _m: nn.Module, given: tuple[Tensor, ...]) -> None:
        for layer, output in made:
            if given[0] is output:
                found[name] = layer

    for name, module in twin.named_modules():
        if isinstance(module, CONV):
            module.register_forward_hook(partial(after, name))
        elif isinstance(module, BATCHNORM):
            module.register_forward_pre_hook(partial(before, name))
    with torch.no_grad():
        twin(example)
    return [name for name, _ in made], found
