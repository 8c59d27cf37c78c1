"""Which filters must go together: Torch-Pruning's dependency graph, read once, as plain FilterGroups.

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
from .tracing import Flow, Item, Layers, dependency_groups, refuse_silent, refuse_wrappers, run_order

_ACROSS = "takes statistics across channels, so a removed filter would still change its neighbours"


def trace(model: nn.Module, example: Tensor, *, layers: Literal["conv", "all"] = "conv") -> FilterGraph:
    """The groups of a network as the dependency graph reports them, not yet checked by `gate.read_groups`.

    Args:
        model: any module; a copy is traced, the argument is not touched.
        example: (1, C, H, W) or more images of the size the network takes.
        layers: "conv" groups that a convolution writes first; "all" hidden units of linear layers too.

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
    refuse_silent(twin, ran)
    names = {module: name for name, module in twin.named_modules()}
    candidates, refused = [], {}
    for items, flow in dependency_groups(twin, example, names, ran):
        reader = _Reader(twin, names, ran, flow)
        try:
            found = reader.read(items)
        except DgpruneError as error:
            refused[names[items[0][0]]] = str(error)
            continue
        if found is not None and (layers == "all" or isinstance(twin.get_submodule(found.name), CONV)):
            candidates.append(found)
    return assemble(model, candidates, refused, ran, example, layers)


def assemble(
    model: nn.Module,
    groups: Iterable[FilterGroup],
    refused: dict[str, str],
    ran: Layers,
    example: Tensor,
    layers: Literal["conv", "all"],
) -> FilterGraph:
    """A FilterGraph of these groups, in the order of execution; a group whose places are taken is refused."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    fitting = []
    for group in groups:
        beyond = next((m for m in group.members if int(m.positions.max()) >= tensors[m.tensor].shape[m.axis]), None)
        if beyond is None:
            fitting.append(group)
        else:  # behind a concatenation with the network's own input, whose places the dependency graph does not count
            refused[group.name] = f"where its filters lie in {beyond.tensor} cannot be told: is the image joined to it?"
    ordered = sorted(fitting, key=lambda group: ran.order[group.name])
    total = sum(group.filters for group in ordered)
    axes: dict[str, dict[int, Tensor]] = defaultdict(dict)
    start, chosen = 0, []
    for depth, group in enumerate(ordered):
        for member in group.members:
            ids = axes[member.tensor].setdefault(
                member.axis, torch.full((tensors[member.tensor].shape[member.axis],), -1)
            )
            ids[member.positions] = member.filters + start
        start += group.filters
        chosen.append(replace(group, depth=depth))
    for held in axes.values():
        for ids in held.values():
            ids[ids < 0] = total
    uses = {f"{name}.weight": places for name, places in ran.places.items()}
    shapes = {name: (tuple(t.shape), t.element_size()) for name, t in tensors.items()}
    parameters = frozenset(name for name, _ in model.named_parameters())
    channels, height, width = example.shape[1:]
    return FilterGraph(tuple(chosen), dict(axes), shapes, parameters, uses, refused, (channels, height, width), layers)


class _Reader:
    """Turns the items of one group into a FilterGroup."""

    def __init__(self, model: nn.Module, names: dict[Any, str], ran: Layers, flow: Flow) -> None:
        self.model, self.names, self.ran, self.flow = model, names, ran, flow
        self.members: list[Member] = []
        self.producers: list[str] = []
        self.consumer_inputs: dict[str, tuple[Tensor, Tensor]] = {}
        self.ties: list[tuple[int, int]] = []

    def read(self, items: list[Item]) -> FilterGroup | None:
        """The group; None where it writes the network's output, which is never cut."""
        root = items[0]
        count = len(root[3])
        if any(side == "output" for _, side, *_ in items):
            return None
        for target, side, _, places, roots in items:
            if isinstance(target, nn.Parameter):
                self._add(self.names[target], int(side), "out", places, roots)
            elif isinstance(target, nn.Module) and target in self.names:
                self._module(target, side, places, roots)
        units = _units(count, self.ties)
        producers = tuple(sorted(dict.fromkeys(self.producers), key=lambda name: self.ran.order[name]))
        consumer_inputs = {
            name: self.consumer_inputs[name]
            for name in sorted(self.consumer_inputs, key=lambda name: self.ran.order[name])
        }
        if not consumer_inputs:
            return None
        layers = [name for name in producers if isinstance(self.model.get_submodule(name), (*CONV, nn.Linear))]
        if int(units.max()) == 0 and count > 1:
            raise DgpruneError(f"a grouped convolution ties all {count} filters together")
        return FilterGroup(
            layers[0],
            count,
            tuple(self.members),
            units,
            producers,
            consumer_inputs,
            ends=self.flow.ends,
            feeds=self.flow.feeds,
        )

    def _module(self, module: nn.Module, side: str, places: list[int], roots: list[int]) -> None:
        name = self.names[module]
        if isinstance(module, CONV):
            self._conv(module, name, side, places, roots)
        elif isinstance(module, nn.Linear):
            self._add(f"{name}.weight", 0 if side == "out" else 1, side, places, roots)
            self._optional(module, name, ("bias",) if side == "out" else (), places, roots)
            self._end(name, side, places, roots)
        elif isinstance(module, BATCHNORM):
            self._optional(module, name, ("weight", "bias", "running_mean", "running_var"), places, roots)
            self.producers.append(name)
        elif isinstance(module, nn.PReLU):
            if module.weight.numel() > 1:
                self._optional(module, name, ("weight",), places, roots)
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)) or type(module).__name__ in (
            "LocalResponseNorm",
            "LayerNorm2d",
        ):
            raise DgpruneError(f"{name} ({type(module).__name__}) {_ACROSS}")
        elif list(module.parameters()):
            raise DgpruneError(f"{name} ({type(module).__name__}) is a layer whose channels cannot be cut")

    def _conv(self, conv: Any, name: str, side: str, places: list[int], roots: list[int]) -> None:
        out_axis, in_axis = (1, 0) if isinstance(conv, TRANSPOSED) else (0, 1)
        groups = conv.groups
        if groups > 1 and isinstance(conv, TRANSPOSED):
            raise DgpruneError(f"{name} is a grouped transposed convolution, which cannot be cut")
        depthwise = is_depthwise(conv)
        side = "out" if depthwise else side
        self._end(name, side, places, roots)
        if groups > 1 and not depthwise:
            width = (conv.out_channels if side == "out" else conv.in_channels) // groups
            if len(places) != width * groups:
                raise DgpruneError(f"{name} is a grouped convolution that this layer feeds only in part")
            at = dict(zip(places, roots, strict=True))
            self.ties += [(at[place], at[place % width]) for place in places]
            if side == "in":
                places, roots = list(range(width)), [at[place] for place in range(width)]
        self._add(f"{name}.weight", out_axis if side == "out" else in_axis, side, places, roots)
        if side == "out":
            self._optional(conv, name, ("bias",), places, roots)

    def _end(self, name: str, side: str, places: list[int], roots: list[int]) -> None:
        if side == "out":
            self.producers.append(name)
        else:
            self.consumer_inputs[name] = (torch.tensor(places), torch.tensor(roots))

    def _optional(
        self, module: nn.Module, name: str, held: tuple[str, ...], places: list[int], roots: list[int]
    ) -> None:
        for part in held:
            if isinstance(getattr(module, part, None), Tensor):
                self._add(f"{name}.{part}", 0, "out", places, roots)

    def _add(self, tensor: str, axis: int, side: str, places: list[int], roots: list[int]) -> None:
        self.members.append(
            Member(tensor, axis, "out" if side == "out" else "in", torch.tensor(places), torch.tensor(roots))
        )


def _units(count: int, ties: list[tuple[int, int]]) -> Tensor:
    """(count,) unit numbers: the classes of the ties, numbered by their first filter."""
    parent = list(range(count))

    def top(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in ties:
        low, high = sorted((top(a), top(b)))
        parent[high] = low
    tops = torch.tensor([top(i) for i in range(count)])
    return tops.unique(return_inverse=True)[1]
