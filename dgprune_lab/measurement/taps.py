"""Hooks of one pass that send every group's maps, at one of three sites, to the collectors.

A group's output directly after its activation and before any pooling is found in any network that can be traced.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..core import CONV, DgpruneError, FilterGraph, FilterGroup
from ..pruning import shared_copy
from .autograd_path import Edge, Path
from .hooks import ConsumerInput, Selection, Site, on_output, produced

Call = tuple[str, int]
"""The name of a torch function, and the number of earlier calls of that name in the forward pass."""


class ActivationMap(NamedTuple):
    """Location of a group's maps directly after its activation: the result of one call of a torch function.

    Attributes:
        call: the call whose result holds the maps.
        axis: the axis of the result on which the filters lie.
        index: (C, P) positions of each filter on that axis; P > 1 where the maps were flattened before the activation.
        shape: shape of the result, without the image axis.
    """

    call: Call
    axis: int
    index: Tensor
    shape: tuple[int, ...]

    def read(self, y: Tensor, select: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the group's maps (N, C, ...); `select` takes the positions of `index` from axis 1 of a tensor."""
        maps = select(y.detach().movedim(self.axis, 1))
        return maps if maps.ndim > 2 and self.index.shape[1] == 1 else maps.reshape(len(maps), len(self.index), -1)


class Calls(TorchFunctionMode):
    """Passes each tensor that a torch function returns to `receive(call, result)`, for a forward pass in this block.

    The hooks of this package compute under `hooks.uncounted`, so that their calls are left out.
    """

    def __init__(self, receive: Callable[[Call, Tensor], None]) -> None:
        super().__init__()
        self._receive, self._counts = receive, Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.ndim > 1:
            name = getattr(func, "__name__", str(func))
            self._receive((name, self._counts[name]), result)
            self._counts[name] += 1
        return result


def activation_maps(model: nn.Module, graph: FilterGraph) -> dict[str, tuple[ActivationMap, ...]]:
    """Return group -> the locations of its maps right after the activation, before pooling; () where unknown.

    Two blank images run through a private copy. From the input of the group's last consumer, PyTorch's autograd graph
    is followed back through pooling, reshaping, padding, concatenation and multiplicative gates (squeeze-excite) to the
    layer or the residual sum that produced the input: see `Path`. The first nonlinear elementwise operation after that
    layer or sum is the activation, a module or a function, in place or not. Without one, the layer's output after
    BatchNorm, or the sum, is taken. A consumer that is called several times has one map for each call.
    """
    twin = shared_copy(model).requires_grad_(True)
    parameter = next((p for p in twin.parameters() if p.is_floating_point()), torch.zeros(()))
    images = torch.zeros(2, *graph.input_shape, device=parameter.device, dtype=parameter.dtype, requires_grad=True)
    calls: dict[Edge, Call] = {}
    pending: list[tuple[Call, Tensor]] = []  # of a custom autograd function, which assigns their nodes at its end
    inputs: dict[str, list[Edge]] = {group.consumers[-1]: [] for group in graph.groups}

    def receive(call: Call, result: Tensor) -> None:
        if result.grad_fn is None:
            pending.append((call, result))
        else:
            calls.setdefault((result.grad_fn, result.output_nr), call)

    def record_input(_: nn.Module, values: tuple[Any, ...], edges: list[Edge]) -> None:
        edges.append((values[0].grad_fn, values[0].output_nr))

    for name, edges in inputs.items():
        twin.get_submodule(name).register_forward_pre_hook(partial(record_input, edges=edges))
    try:
        # Only the graph is followed, so the tensors that a backward pass would need are dropped.
        nothing_saved = torch.autograd.graph.saved_tensors_hooks(lambda _: None, lambda _: torch.empty(0))
        with torch.enable_grad(), nothing_saved, Calls(receive):
            twin(images)
    except Exception:  # a network that runs, but not with gradients or not under a function mode
        return {group.name: () for group in graph.groups}
    for call, result in pending:
        if isinstance(result.grad_fn, torch.autograd.function.BackwardCFunction):
            calls.setdefault((result.grad_fn, result.output_nr), call)
    path = Path(calls, image=torch.autograd.graph.get_gradient_edge(images).node)
    maps: dict[str, tuple[ActivationMap, ...]] = {}
    for group in graph.groups:
        edges = [edge for edge in dict.fromkeys(inputs[group.consumers[-1]]) if edge[0] is not None]
        on_last_axis = isinstance(twin.get_submodule(group.consumers[-1]), nn.Linear)
        index = ConsumerInput(group).index.view(group.filters, -1)
        places = [path.activation(edge, axis=-1 if on_last_axis else 1, index=index) for edge in edges]
        taps = [ActivationMap(calls[p.edge], p.axis, p.index, p.shape[1:]) for p in places if p is not None]
        maps[group.name] = tuple(taps) if taps and len(taps) == len(edges) else ()
    return maps


MapKey = tuple[str, str]
"""A group, and the layer at which its maps are taken."""
Receive = Callable[[MapKey, Tensor], None]


class Taps:
    """Hooks of one pass on a private copy of the network; each map is selected once and sent to all receivers."""

    def __init__(self, model: nn.Module, graph: FilterGraph) -> None:
        self.model, self.graph = model, graph
        self._receivers: dict[Site, list[Receive]] = {}
        self._calls: dict[Call, list[tuple[ActivationMap, Selection, Callable[[Tensor], None]]]] = defaultdict(list)

    def listen(self, site: Site, receive: Receive) -> None:
        """Call `receive((group, layer), maps)` with every group's maps at a site.

        The layer is where the maps are taken: the last consumer, a convolution, or "" after the activation. If the map
        after the activation was not found, the input of the last consumer is sent instead.
        """
        if site in self._receivers:
            self._receivers[site].append(receive)
            return
        receivers = self._receivers[site] = [receive]

        def deliver(maps: Tensor, key: MapKey) -> None:
            for receive in receivers:
                receive(key, maps)

        if site == "conv_output":
            for layer in [name for name, module in self.model.named_modules() if isinstance(module, CONV)]:
                for group, index in _complete(self.graph, layer):
                    select, send = Selection(index).select, partial(deliver, key=(group.name, layer))
                    on_output(self.model, layer, lambda y, select=select, send=send: send(select(y)))
            return
        activations = activation_maps(self.model, self.graph) if site == "activation" else {}
        for group in self.graph.groups:
            for tap in activations.get(group.name, ()):
                send = partial(deliver, key=(group.name, ""))
                self._calls[tap.call].append((tap, Selection(tap.index.flatten()), send))
            if not activations.get(group.name):
                consumer = ConsumerInput(group)
                consumer.listen(self.model, partial(deliver, key=(group.name, consumer.layer)))

    def run(self, images: Tensor) -> Tensor:
        """Run the network on a batch, sending its maps to the receivers, and return the logits.

        Raises:
            DgpruneError: the network runs other operations than when its activations were located.
        """
        if not self._calls:
            return self.model(images)
        missing = set(self._calls)

        def receive(call: Call, result: Tensor) -> None:
            for tap, selection, send in self._calls.get(call, ()):
                if tuple(result.shape[1:]) == tap.shape:
                    missing.discard(call)
                    send(tap.read(result, selection.select))

        with Calls(receive):
            logits = self.model(images)
        if missing:
            size = " x ".join(map(str, self.graph.input_shape))
            raise DgpruneError(
                f"the network runs other operations on these images than on the {size} "
                "images it was traced with, so the maps after its activations cannot be identified; take "
                "site='consumer_input'."
            )
        return logits


def _complete(graph: FilterGraph, layer: str) -> Iterator[tuple[FilterGroup, Tensor]]:
    """Yield each group of which a convolution produces every filter exactly once, with the positions on its output."""
    for group in graph.groups:
        for positions, filters in produced(group, layer):
            if len(filters) == len(filters.unique()) == group.filters:
                index = torch.empty(group.filters, dtype=torch.int64)
                index[filters] = positions
                yield group, index
