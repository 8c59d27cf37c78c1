"""How much each filter has to do with the true class's logit, image by image: Captum's attributions, per filter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core import Batch, DgpruneError, FilterGraph, FilterGroup, choice
from ..pruning import rebuild

Method = Literal["gradient_x_activation", "integrated_gradients", "conductance", "activation", "ablation"]
TOGETHER: frozenset[Method] = frozenset({"gradient_x_activation", "activation"})
"""Methods that take all layers in one call; the others take one layer at a time."""
STEPS = 20
_BYTES = 192 * 2**20
_LARGEST = 125


Parts = list[tuple[Tensor, tuple[Tensor, Tensor]]]
"""Attributed tensors, channels on axis 1, each with places on it and the filters there."""


class Attributor:
    """Attributions of one network by Captum, on a copy on which they can be trusted.

    The output of a group is what its last writers give (`FilterGroup.ends`; of a residual stream the attributions of
    all of them are added up), for "activation" the input of the last layer that reads it. On the copy every in-place
    activation works out of place, a module that is called several times without having parameters becomes one module
    per call, and what is read behind an attributed layer is a copy: torchvision's residual blocks add to it in place,
    over which integrated gradients fail.

    Args:
        model: untouched; the copy shares its parameters.
        graph: its groups.
        example: a few images, to see which modules are called how often.

    Raises:
        DgpruneError: a layer that ends a group is called more than once; Captum would keep one of the calls.
    """

    def __init__(self, model: nn.Module, graph: FilterGraph, *, example: Tensor) -> None:
        self.graph = graph
        self._model = separated(model, example)
        self._gate: dict[str, tuple[Tensor, Tensor]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        ends = {end: None for group in graph.groups for end in group.ends}
        counts = _calls(self._model, example, shapes=self._shapes)
        for name in ends:
            if counts.get(name, 1) > 1:
                raise DgpruneError(
                    f"layer {name!r} is called {counts[name]} times for one image, and Captum keeps only one of the "
                    "calls; use a network in which each layer is called once."
                )
            _behind(self._model.get_submodule(name), lambda output, name=name: self._behind_end(name, output))

    def batch_size(self, method: Method) -> int:
        """Images per call, so that what Captum and the backward pass hold stays at about 192 MB; at least one."""
        room = self._room // (STEPS if method in ("integrated_gradients", "conductance") else 1)
        return int(min(max(room, 1), _LARGEST))

    @property
    def _room(self) -> int:
        """How many images (or images at one step) may be in the network at once."""
        return _BYTES // (3 * 4 * max(sum(map(math.prod, self._shapes.values())), 1))

    def values(self, batch: Batch, *, method: Method, layers: Sequence[str]) -> dict[str, Tensor]:
        """Group -> (N, C) float32 attributions to the logit of the true class, summed over places.

        gradient_x_activation  y dl/dy (Shrikumar et al. 2016)
        integrated_gradients   from the layer's output on a black image to its own (Sundararajan et al. 2017), 20 steps
        conductance            integrated gradients of the input that flow through the layer (Dhamdhere et al. 2018)
        activation             y itself
        ablation               l - l with the filter closed everywhere at once; 1e-6 of a logit is rounding

        Args:
            batch: images with labels.
            method: which.
            layers: names of groups.
        """
        choice("method", method, Method)
        groups = [self.graph[name] for name in layers]
        if method == "ablation":
            return {group.name: self._ablated(group, batch) for group in groups}
        return {group.name: _by_filter(group, parts) for group, parts in self._parts(batch, method, groups)}

    def maps(self, batch: Batch, *, method: Method, layer: str, filter: int) -> Tensor:
        """(N, H, W) attributions of one filter, place by place; of "ablation", which knows no places, y dl/dy."""
        group = self.graph[layer]
        shown: Method = "gradient_x_activation" if method == "ablation" else method
        total: Tensor | None = None
        for _, parts in self._parts(batch, shown, [group]):
            for held, (positions, filters) in parts:
                mine = held[:, positions[filters == filter].to(held.device)]
                mine = mine.sum(1) if mine.ndim > 2 else mine
                mine = mine if mine.ndim == 3 else self._as_map(mine)
                total = mine if total is None else total + mine
        assert total is not None
        return total.cpu()

    def _parts(
        self, batch: Batch, method: Method, groups: Sequence[FilterGroup]
    ) -> Iterator[tuple[FilterGroup, Parts]]:
        """Of each group its attributed tensors, channels on axis 1, each with the places and filters on it."""
        wanted = {group.name: _last_door(group) if method == "activation" else group.end_places for group in groups}
        names = list(dict.fromkeys(name for places in wanted.values() for name in places))
        found = dict(zip(names, self._by_captum(batch, method, names), strict=True))
        for group in groups:
            yield group, [(found[name], where) for name, where in wanted[group.name].items()]

    def _by_captum(self, batch: Batch, method: Method, names: Sequence[str]) -> list[Tensor]:
        """The attributions of some layers, channels on axis 1: one call for all where Captum can take several."""
        from captum import attr

        layers = [self._model.get_submodule(name) for name in names]
        images, target = batch.images.detach().clone().requires_grad_(), batch.labels
        if method == "gradient_x_activation":
            found = attr.LayerGradientXActivation(self._model, layers).attribute(images, target=target)
        elif method == "activation":
            found = attr.LayerActivation(self._model, layers).attribute(images, attribute_to_layer_input=True)
        else:
            # Given several layers, integrated gradients interpolate all of them at once: wrong for layers in a row.
            kind: Any = attr.LayerIntegratedGradients if method == "integrated_gradients" else attr.LayerConductance
            few = max(2, self._room) if len(images) == 1 and self._room < STEPS else None
            steps = {"n_steps": STEPS, "internal_batch_size": few}  # of one image too large for all steps at once
            found = [kind(self._model, layer).attribute(images, target=target, **steps) for layer in layers]
        held = [(part[0] if isinstance(part, tuple) else part).detach() for part in found]
        linear = [isinstance(layer, nn.Linear) for layer in layers]
        return [part.movedim(-1, 1) if last else part for part, last in zip(held, linear, strict=True)]

    def _ablated(self, group: FilterGroup, batch: Batch) -> Tensor:
        """(N, C) fall of the logit when one filter's gate is closed on all layers that end the group."""
        from captum import attr

        labels = batch.labels
        assert labels is not None

        def logit(gate: Tensor) -> Tensor:
            for name, (positions, filters) in group.end_places.items():
                self._gate[name] = positions, gate[0, filters.to(gate.device)]
            return self._model(batch.images).gather(1, labels[:, None]).squeeze(1)

        try:
            with torch.no_grad():
                gates = batch.images.new_ones(1, group.filters)
                return attr.FeatureAblation(logit).attribute(gates).float().cpu()
        finally:
            self._gate.clear()

    def _behind_end(self, name: str, output: Tensor) -> Tensor:
        """What is read behind a layer that ends a group: a copy, with some filters closed while one is ablated."""
        if name not in self._gate:
            return output.clone()
        places, closed = self._gate[name]
        axis = output.ndim - 1 if isinstance(self._model.get_submodule(name), nn.Linear) else 1
        gate = output.new_ones(output.shape[axis])
        gate[places.to(gate.device)] = closed
        return output * gate.view([-1 if k == axis else 1 for k in range(output.ndim)])

    def _as_map(self, flat: Tensor) -> Tensor:
        """(N, K) places in a row as (N, H, W): as the last layer with maps of K places has them, else as they are."""
        for shape in reversed(self._shapes.values()):
            if len(shape) == 3 and shape[1] * shape[2] == flat.shape[1]:
                return flat.reshape(len(flat), *shape[1:])
        return flat[:, None]


def _last_door(group: FilterGroup) -> Mapping[str, tuple[Tensor, Tensor]]:
    """The last layer that reads a group, with the places of its filters there."""
    return {group.consumers[-1]: group.consumer_inputs[group.consumers[-1]]}


def _by_filter(group: FilterGroup, parts: Parts) -> Tensor:
    """(N, C): what belongs to one filter, at all places of all layers, is added up."""
    total = parts[0][0].new_zeros(len(parts[0][0]), group.filters)
    for held, (positions, filters) in parts:
        values = held.flatten(2).sum(2) if held.ndim > 2 else held
        total.index_add_(1, filters.to(total.device), values[:, positions.to(total.device)])
    return total.float().cpu()


def separated(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy in eval mode whose modules each work on their own: nothing in place, one module for each call.

    Attributions listen to modules. One that rewrites its input in place changes what was heard before it, and of one
    that is called several times only one call is kept. A module without parameters that is called k times becomes k
    modules, called in turn; one with parameters is left.
    """
    twin = rebuild(model, lambda _, tensor: tensor.detach()).eval().requires_grad_(False)
    for module in twin.modules():
        if getattr(module, "inplace", False):
            module.__dict__["inplace"] = False
    turns = {
        id(module): _Turns(module, count)
        for name, count in _calls(twin, example).items()
        if count > 1 and not _holds(module := twin.get_submodule(name))
    }
    for name, module in list(twin.named_modules(remove_duplicate=False)):
        if id(module) in turns:  # a Sequential may hold one module under several names
            owner, _, leaf = name.rpartition(".")
            setattr(twin.get_submodule(owner), leaf, turns[id(module)])
    return twin


def _holds(module: nn.Module) -> bool:
    """Whether a module has parameters or buffers of its own."""
    return next(module.parameters(), None) is not None or next(module.buffers(), None) is not None


class _Turns(nn.Module):
    """As many modules as there are calls, called in turn."""

    def __init__(self, module: nn.Module, count: int) -> None:
        super().__init__()
        self.turns = nn.ModuleList(rebuild(module, lambda _, tensor: tensor) for _ in range(count))
        self._next = 0

    def forward(self, *inputs: Any) -> Any:
        turn = self.turns[self._next]
        self._next = (self._next + 1) % len(self.turns)
        return turn(*inputs)


def _calls(model: nn.Module, example: Tensor, *, shapes: dict[str, tuple[int, ...]] | None = None) -> dict[str, int]:
    """How often each module without children is called for one batch; `shapes` gets those of what it gives."""
    counts: dict[str, int] = {}

    def hook(name: str) -> Callable[..., None]:
        def heard(module: nn.Module, inputs: Any, output: Any) -> None:
            counts[name] = counts.get(name, 0) + 1
            if shapes is not None and isinstance(output, Tensor):
                shapes[name] = tuple(output.shape[1:])

        return heard

    leaves = {name: module for name, module in model.named_modules() if not list(module.children())}
    handles = [module.register_forward_hook(hook(name)) for name, module in leaves.items()]
    try:
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return counts


def _behind(layer: nn.Module, act: Callable[[Tensor], Tensor]) -> None:
    """Pass what a layer gives, after all hooks on it, through `act`: no hook can be sure to be the last."""
    kind = type(layer)

    def call(self: nn.Module, *inputs: Any, **options: Any) -> Any:
        return act(kind.__call__(self, *inputs, **options))

    layer.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
