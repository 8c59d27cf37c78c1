"""Which filters must be removed together: Torch-Pruning's dependency graph, read once, as plain FilterGroups.

Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023. Only `tracing` and the importance adapter import it.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core import BATCHNORM, CONV, TRANSPOSED, DgpruneError, FilterGraph, FilterGroup, Member, is_depthwise
from .tracing import Flow, Item, Layers, dependency_groups, refuse_uncalled, refuse_wrappers, run_order

_NORMS = ("LayerNorm", "GroupNorm", "LocalResponseNorm", "LayerNorm2d")


def trace(model: nn.Module, example: Tensor, *, layers: Literal["conv", "all"] = "conv") -> FilterGraph:
    """Return the filter groups of a network as the dependency graph reports them; `verify.read_groups` checks them.

    Raises:
        DgpruneError: a wrapper, a layer that does not run in eval mode, an image size that does not fit.
    """
    refuse_wrappers(model)
    try:
        twin = copy.deepcopy(model).eval()
    except Exception as error:
        raise DgpruneError(
            f"the network cannot be copied ({error}); tensors with a history must not be attributes."
        ) from error
    ran = run_order(twin, example)
    refuse_uncalled(twin, ran)
    names = {module: name for name, module in twin.named_modules()}
    candidates, refused = [], {}
    for items, flow in dependency_groups(twin, example, names=names, ran=ran):
        try:
            group = _Reader(twin, names=names, ran=ran).read(items, flow)
        except DgpruneError as error:
            refused[names[items[0].target]] = str(error)
            continue
        if group is not None and (layers == "all" or isinstance(twin.get_submodule(group.name), CONV)):
            candidates.append(group)
    return assemble(model, candidates, refused=refused, ran=ran, example=example, layers=layers)


def assemble(
    model: nn.Module,
    groups: Iterable[FilterGroup],
    *,
    refused: dict[str, str],
    ran: Layers,
    example: Tensor,
    layers: Literal["conv", "all"],
) -> FilterGraph:
    """Return a FilterGraph of these groups in the order of execution; refuse a group whose positions do not fit."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    fitting = []
    for group in groups:
        beyond = next((m for m in group.members if int(m.positions.max()) >= tensors[m.tensor].shape[m.axis]), None)
        if beyond is None:
            fitting.append(group)
        else:  # after a concatenation with the network's own input, whose positions the dependency graph does not count
            refused[group.name] = (
                f"the positions of its filters in {beyond.tensor} are unknown: is the input image concatenated to it?"
            )
    ordered = sorted(fitting, key=lambda group: ran.order[group.name])
    free = sum(group.filters for group in ordered)
    axes: dict[str, dict[int, Tensor]] = defaultdict(dict)
    start = 0
    for group in ordered:
        for member in group.members:
            length = tensors[member.tensor].shape[member.axis]
            ids = axes[member.tensor].setdefault(member.axis, torch.full((length,), free))
            ids[member.positions] = member.filters + start
        start += group.filters
    channels, height, width = example.shape[1:]
    return FilterGraph(
        groups=tuple(replace(group, depth=depth) for depth, group in enumerate(ordered)),
        axes=dict(axes),
        shapes={name: (tuple(t.shape), t.element_size()) for name, t in tensors.items()},
        parameters=frozenset(name for name, _ in model.named_parameters()),
        uses={f"{name}.weight": places for name, places in ran.places.items()},
        refused=refused,
        input_shape=(channels, height, width),
        layers=layers,
    )


class _Reader:
    """Turns the items of one group into a FilterGroup."""

    def __init__(self, model: nn.Module, *, names: dict[Any, str], ran: Layers) -> None:
        self.model, self.names, self.ran = model, names, ran
        self.members: list[Member] = []
        self.producers: set[str] = set()
        self.consumer_inputs: dict[str, tuple[Tensor, Tensor]] = {}
        self.ties: list[tuple[int, int]] = []

    def read(self, items: list[Item], flow: Flow) -> FilterGroup | None:
        """The FilterGroup; None for the network's output, which is never pruned, and for filters without a consumer."""
        count = len(items[0].places)
        if any(item.side == "output" for item in items):
            return None
        for item in items:
            if isinstance(item.target, nn.Parameter):
                self._add(self.names[item.target], item, axis=int(item.side))
            elif item.target in self.names:
                self._module(self.names[item.target], item)
        if not self.consumer_inputs:
            return None
        units = _units(count, self.ties)
        if int(units.max()) == 0 and count > 1:
            raise DgpruneError(f"a grouped convolution ties all {count} filters together")
        producers = tuple(sorted(self.producers, key=self.ran.order.__getitem__))
        consumers = sorted(self.consumer_inputs, key=self.ran.order.__getitem__)
        return FilterGroup(
            name=next(n for n in producers if isinstance(self.model.get_submodule(n), (*CONV, nn.Linear))),
            filters=count,
            members=tuple(self.members),
            units=units,
            producers=producers,
            consumer_inputs={name: self.consumer_inputs[name] for name in consumers},
            ends=flow.ends,
            feeds=flow.feeds,
        )

    def _module(self, name: str, item: Item) -> None:
        module, kind = item.target, type(item.target).__name__
        if isinstance(module, CONV):
            self._conv(name, item)
        elif isinstance(module, nn.Linear):
            self._add(f"{name}.weight", item, axis=0 if item.side == "out" else 1)
            self._add_vectors(name, item, *(["bias"] if item.side == "out" else []))
            self._note_end(name, item)
        elif isinstance(module, BATCHNORM):
            self._add_vectors(name, item, "weight", "bias", "running_mean", "running_var")
            self.producers.add(name)
        elif isinstance(module, nn.PReLU):
            self._add_vectors(name, item, *(["weight"] if module.weight.numel() > 1 else []))
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)) or kind in _NORMS:
            raise DgpruneError(
                f"{name} ({kind}) takes statistics across channels, so a removed filter would still change the others"
            )
        elif list(module.parameters()):
            raise DgpruneError(f"{name} ({kind}) is a layer whose channels cannot be removed")

    def _conv(self, name: str, item: Item) -> None:
        conv: Any = item.target
        if conv.groups > 1 and isinstance(conv, TRANSPOSED):
            raise DgpruneError(f"{name} is a grouped transposed convolution, which cannot be pruned")
        depthwise = is_depthwise(conv)
        item = item._replace(side="out") if depthwise else item
        self._note_end(name, item)
        if conv.groups > 1 and not depthwise:
            item = self._tied(name, item, channels=conv.out_channels if item.side == "out" else conv.in_channels)
        out_axis = 1 if isinstance(conv, TRANSPOSED) else 0
        self._add(f"{name}.weight", item, axis=out_axis if item.side == "out" else 1 - out_axis)
        self._add_vectors(name, item, *(["bias"] if item.side == "out" else []))

    def _tied(self, name: str, item: Item, *, channels: int) -> Item:
        """Tie the filters at the same position in each group of a grouped convolution."""
        if len(item.places) != channels:
            raise DgpruneError(f"{name} is a grouped convolution that gets only part of its channels from this layer")
        width = channels // item.target.groups
        filter_at = dict(zip(item.places, item.filters, strict=True))
        self.ties += [(filter_at[place], filter_at[place % width]) for place in item.places]
        if item.side == "out":
            return item
        return item._replace(places=list(range(width)), filters=[filter_at[place] for place in range(width)])

    def _note_end(self, name: str, item: Item) -> None:
        if item.side == "out":
            self.producers.add(name)
        else:
            self.consumer_inputs[name] = (torch.tensor(item.places), torch.tensor(item.filters))

    def _add_vectors(self, name: str, item: Item, *leaves: str) -> None:
        for leaf in leaves:
            if isinstance(getattr(item.target, leaf, None), Tensor):
                self._add(f"{name}.{leaf}", item._replace(side="out"), axis=0)

    def _add(self, tensor: str, item: Item, *, axis: int) -> None:
        side: Literal["out", "in"] = "in" if item.side == "in" else "out"
        places, filters = torch.tensor(item.places), torch.tensor(item.filters)
        self.members.append(Member(tensor=tensor, axis=axis, side=side, positions=places, filters=filters))


def _units(count: int, ties: list[tuple[int, int]]) -> Tensor:
    """(count,) the unit of each filter: tied filters form one unit; units are numbered by their first filter."""
    parent = list(range(count))

    def top(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in ties:
        low, high = sorted((top(a), top(b)))
        parent[high] = low
    return torch.tensor([top(i) for i in range(count)]).unique(return_inverse=True)[1]
