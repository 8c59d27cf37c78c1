"""Attributions of the true class's logit to filters, per image, computed by Captum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core import Batch, DgpruneError, FilterGraph, FilterGroup, choice, full_precision
from ..pruning import layer_hooks, shared_copy
from .collectors import on_cpu

Method = Literal["gradient_x_activation", "integrated_gradients", "conductance", "activation", "ablation"]
TOGETHER: frozenset[Method] = frozenset({"gradient_x_activation", "activation"})
"""Methods that take all layers in one call; the others take one layer at a time."""
STEPS = 20
_BYTES = 192 * 2**20
_MAX_BATCH = 125
_ROUNDING = 16  # changes of a logit below this many times its precision may be rounding

Positions = Mapping[str, tuple[Tensor, Tensor]]
"""Layer -> positions on its channel axis, and the filter at each position."""


class Attributor:
    """Computes attributions with Captum on a copy of the network, modified so that the attributions are correct.

    A group's output is the output of its last producers (`FilterGroup.ends`; the attributions of a residual stream's
    producers are added up); for the method "activation" it is the input of the last consumer. In the copy, no module
    works in place, a module without parameters that is called several times becomes one module per call, and the
    operation after an attributed layer gets a copy of the layer's output: torchvision's residual blocks add to it in
    place, which would make integrated gradients fail.

    Args:
        model: the network; it stays unchanged, and the copy shares its parameters.
        graph: the filter groups of the network.
        example: a few images for counting the calls of each module.

    Raises:
        DgpruneError: a layer that ends a group is called more than once; Captum would keep only one of the calls.
    """

    def __init__(self, model: nn.Module, graph: FilterGraph, *, example: Tensor) -> None:
        self.graph = graph
        self._model = separated(model, example)
        self._gates: dict[str, tuple[Tensor, Tensor]] = {}
        outputs = _output_shapes(self._model, example)
        self._shapes = {name: shapes[-1] for name, shapes in outputs.items() if shapes[-1] is not None}
        for name in dict.fromkeys(end for group in graph.groups for end in group.ends):
            if (calls := len(outputs.get(name, ()))) > 1:
                raise DgpruneError(
                    f"layer {name!r} is called {calls} times for one image, and Captum keeps only one of the "
                    "calls; use a network in which each layer is called once."
                )
            _transform_output(self._model.get_submodule(name), lambda output, name=name: self._apply_gate(name, output))

    def batch_size(self, method: Method) -> int:
        """Return how many images per call make Captum and the backward pass take about 192 MB; at least one."""
        images = self._max_images // (STEPS if method in ("integrated_gradients", "conductance") else 1)
        return int(min(max(images, 1), _MAX_BATCH))

    @property
    def _max_images(self) -> int:
        """Maximum number of images, or interpolated images, in the network at once."""
        return _BYTES // (3 * 4 * max(sum(map(math.prod, self._shapes.values())), 1))

    def values(self, batch: Batch, *, method: Method, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return group -> (N, C) float32 attributions of the true class's logit l, summed over positions.

        gradient_x_activation  y dl/dy (Shrikumar et al. 2016)
        integrated_gradients   of y, in 20 steps from its value for a black image (Sundararajan et al. 2017)
        conductance            integrated gradients of the input that flow through the layer (Dhamdhere et al. 2018)
        activation             y itself
        ablation               l minus l with the filter set to 0 at all positions; 0 if the difference is rounding

        y is the group's output, `layers` are names of groups; the batch must have labels.
        """
        choice("method", method, Method)
        groups = [self.graph[name] for name in layers]
        with full_precision(batch.images.device):
            if method == "ablation":
                return on_cpu({group.name: self._ablate_filters(group, batch) for group in groups})
            tensors, places = self._attribute_layers(batch, method, groups)
            return on_cpu({group.name: _sum_by_filter(tensors, places[group.name], group.filters) for group in groups})

    def maps(self, batch: Batch, *, method: Method, layer: str, filter: int) -> Tensor:
        """Return the attribution maps (N, H, W) of one filter; for "ablation", which has no map, those of y dl/dy."""
        with_maps: Method = "gradient_x_activation" if method == "ablation" else method
        with full_precision(batch.images.device):
            tensors, positions = self._attribute_layers(batch, with_maps, [self.graph[layer]])
        total: Tensor | int = 0
        for name, (places, filters) in positions[self.graph[layer].name].items():
            values = tensors[name][:, places[filters == filter].to(batch.images.device)]
            values = values.sum(1) if values.ndim > 2 else values
            total = total + (values if values.ndim == 3 else self._as_map(values))
        return torch.as_tensor(total).cpu()

    def _attribute_layers(
        self, batch: Batch, method: Method, groups: Sequence[FilterGroup]
    ) -> tuple[dict[str, Tensor], dict[str, Positions]]:
        """Return the layers' attributions, with channels on axis 1, and the positions of each group's filters on it."""
        positions: dict[str, Positions] = {group.name: group.end_places for group in groups}
        if method == "activation":
            positions = {g.name: {g.consumers[-1]: g.consumer_inputs[g.consumers[-1]]} for g in groups}
        names = list(dict.fromkeys(name for of_group in positions.values() for name in of_group))
        return dict(zip(names, self._run_captum(batch, method, names), strict=True)), positions

    def _run_captum(self, batch: Batch, method: Method, names: Sequence[str]) -> list[Tensor]:
        """Return each layer's attributions, channels on axis 1; one call for all layers where the method allows it."""
        from captum import attr

        layers = [self._model.get_submodule(name) for name in names]
        images, target = batch.images.detach().clone().requires_grad_(), batch.labels
        if method == "gradient_x_activation":
            attributed = attr.LayerGradientXActivation(self._model, layers).attribute(images, target=target)
        elif method == "activation":
            attributed = attr.LayerActivation(self._model, layers).attribute(images, attribute_to_layer_input=True)
        else:
            # Given several layers, integrated gradients interpolate all of them at once: wrong for layers in a row.
            kind: Any = attr.LayerIntegratedGradients if method == "integrated_gradients" else attr.LayerConductance
            size = max(2, self._max_images) if len(images) == 1 and self._max_images < STEPS else None
            steps = {"n_steps": STEPS, "internal_batch_size": size}  # for one image too large for all steps at once
            attributed = [kind(self._model, layer).attribute(images, target=target, **steps) for layer in layers]
        tensors = [(value[0] if isinstance(value, tuple) else value).detach() for value in attributed]
        return [t.movedim(-1, 1) if isinstance(m, nn.Linear) else t for t, m in zip(tensors, layers, strict=True)]

    def _ablate_filters(self, group: FilterGroup, batch: Batch) -> Tensor:
        """Return the (N, C) drop of the true class's logit when a filter is set to 0 in all layers of `group.ends`."""
        from captum import attr

        labels = batch.labels
        assert labels is not None

        def logit(gate: Tensor) -> Tensor:
            for name, (positions, filters) in group.end_places.items():
                self._gates[name] = positions, gate[0, filters.to(gate.device)]
            return self._model(batch.images).gather(1, labels[:, None]).squeeze(1)

        try:
            with torch.no_grad():
                gates = batch.images.new_ones(1, group.filters)
                limit = _ROUNDING * torch.finfo(gates.dtype).eps * logit(gates).abs()[:, None]
                changes = attr.FeatureAblation(logit).attribute(gates)
                return changes.masked_fill(changes.abs() <= limit, 0).float()
        finally:
            self._gates.clear()

    def _apply_gate(self, name: str, output: Tensor) -> Tensor:
        """Return a copy of the output of a layer that ends a group, with a filter set to 0 during an ablation."""
        if name not in self._gates:
            return output.clone()
        positions, values = self._gates[name]
        axis = output.ndim - 1 if isinstance(self._model.get_submodule(name), nn.Linear) else 1
        gate = output.new_ones(output.shape[axis])
        gate[positions.to(gate.device)] = values
        return output * gate.view([-1 if k == axis else 1 for k in range(output.ndim)])

    def _as_map(self, flat: Tensor) -> Tensor:
        """Reshape (N, K) to the (N, H, W) of the last layer whose maps have K positions, or to (N, 1, K)."""
        for shape in reversed(self._shapes.values()):
            if len(shape) == 3 and shape[1] * shape[2] == flat.shape[1]:
                return flat.reshape(len(flat), *shape[1:])
        return flat[:, None]


def _sum_by_filter(tensors: Mapping[str, Tensor], positions: Positions, count: int) -> Tensor:
    """Return (N, C): for each filter, the sum over all its positions in all layers."""
    total: Tensor | None = None
    for name, (places, filters) in positions.items():
        values = tensors[name].flatten(2).sum(2) if tensors[name].ndim > 2 else tensors[name]
        total = values.new_zeros(len(values), count) if total is None else total
        filters, places = (index.to(total.device, non_blocking=True) for index in (filters, places))
        total.index_add_(1, filters, values[:, places])
    assert total is not None
    return total.float()


def separated(model: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy in eval mode without in-place modules and with one module per call.

    Attribution methods hook modules: an in-place module overwrites the output recorded before it, and only one call of
    a module that is called several times is kept. A module without parameters that is called k times becomes k modules,
    called in turn; a module with parameters stays as it is.
    """
    twin = shared_copy(model)
    for module in twin.modules():
        if getattr(module, "inplace", False):
            module.__dict__["inplace"] = False
    replacements: dict[int, nn.Module] = {}
    for name, shapes in _output_shapes(twin, example).items():
        module = twin.get_submodule(name)
        if len(shapes) > 1 and not [*module.parameters(), *module.buffers()]:
            replacements[id(module)] = _CopyPerCall(module, len(shapes))
    for name, module in list(twin.named_modules(remove_duplicate=False)):
        if id(module) in replacements:  # a Sequential may hold one module under several names
            twin.set_submodule(name, replacements[id(module)])
    return twin


class _CopyPerCall(nn.Module):
    """Copies of a module, one for each call in a forward pass, called in turn."""

    def __init__(self, module: nn.Module, count: int) -> None:
        super().__init__()
        self.copies = nn.ModuleList(shared_copy(module) for _ in range(count))
        self._next = 0

    def forward(self, *inputs: Any) -> Any:
        copy = self.copies[self._next]
        self._next = (self._next + 1) % len(self.copies)
        return copy(*inputs)


def _output_shapes(model: nn.Module, example: Tensor) -> dict[str, list[tuple[int, ...] | None]]:
    """Return module without children -> its output's shape per image in each call; None where it is no tensor."""
    shapes: dict[str, list[tuple[int, ...] | None]] = {}

    def record(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not list(module.children()):
            shapes.setdefault(name, []).append(tuple(output.shape[1:]) if isinstance(output, Tensor) else None)

    with layer_hooks(model, record), torch.no_grad():
        model(example)
    return shapes


def _transform_output(layer: nn.Module, transform: Callable[[Tensor], Tensor]) -> None:
    """Apply `transform` to a layer's output after all its hooks; if it were a hook itself, it might not run last."""
    kind = type(layer)

    def call(self: nn.Module, *inputs: Any, **options: Any) -> Any:
        return transform(kind.__call__(self, *inputs, **options))

    layer.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
