"""How a network runs and what its dependency graph says, as plain values; refuses what cannot be traced."""

from __future__ import annotations

import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..core import BATCHNORM, CONV, DgpruneError, is_depthwise

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.jit.ScriptModule)
_WRAPPER_NAMES = ("OptimizedModule", "GraphModule", "FullyShardedDataParallel")
_SECONDS = 60.0


class Item(NamedTuple):
    """One axis on which filters of a dependency group lie.

    Attributes:
        target: a module or a parameter.
        side: "out", "in" or "output" (of the network) for a module; the axis for a parameter.
        places: positions of the filters on the axis.
        filters: the filter of the group at each position.
    """

    target: Any
    side: str
    places: list[int]
    filters: list[int]


@dataclass(frozen=True)
class Layers:
    """The layers that ran in one forward pass.

    Attributes:
        order: leaf layer name -> position of its first call.
        places: convolution or linear layer -> number of output positions per image, summed over its calls.
    """

    order: dict[str, int]
    places: dict[str, int]


@dataclass(frozen=True)
class Flow:
    """How a group's output reaches its consumers.

    Attributes:
        ends: layers (BatchNorms too) whose output reaches a consumer without another layer of the group in between.
        feeds: consumer -> the convolution and linear layers of the group whose output it gets, through BatchNorms.
    """

    ends: tuple[str, ...]
    feeds: Mapping[str, tuple[str, ...]]


class _TooLong(Exception):
    """Reading the groups took longer than the limit."""


def holds_tensors(module: nn.Module) -> bool:
    """Return whether a module has parameters or buffers of its own, whatever layers it contains."""
    return any(tensor is not None for tensor in (*module._parameters.values(), *module._buffers.values()))


@contextmanager
def _leaf_hooks(model: nn.Module, hook: Callable[[str, nn.Module, Any], None]) -> Iterator[None]:
    """Within the block, call `hook(name, module, output)` after each module without children or with own tensors."""
    handles = [
        module.register_forward_hook(lambda module, _, output, name=name: hook(name, module, output))
        for name, module in model.named_modules()
        if not list(module.children()) or holds_tensors(module)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_order(model: nn.Module, example: Tensor) -> Layers:
    """Run one pass and return the order in which leaf layers run, and the output positions per image of each."""
    order: dict[str, int] = {}
    places: dict[str, int] = defaultdict(int)

    def note(name: str, module: nn.Module, output: Any) -> None:
        order.setdefault(name, len(order))
        if isinstance(module, CONV):
            places[name] += math.prod(output.shape[2:])
        elif isinstance(module, nn.Linear):
            places[name] += math.prod(output.shape[1:-1])

    try:
        with _leaf_hooks(model, note), torch.no_grad():
            model(example)
    except DgpruneError:
        raise
    except Exception as error:
        size = " x ".join(map(str, example.shape[1:]))
        raise DgpruneError(
            f"the network does not take images of {size} ({_root_cause(error)}); give images of the size it was built "
            "for."
        ) from error
    return Layers(order, dict(places))


def ending_in_relu(model: nn.Module, example: Tensor) -> frozenset[str]:
    """Return the names of the layers whose output goes only into ReLUs, whether modules or functions."""
    nodes: dict[Any, str] = {}

    def note(name: str, _: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor) and output.grad_fn is not None:
            nodes.setdefault(output.grad_fn, name)

    with _leaf_hooks(model, note), torch.enable_grad():
        queue = [model(example.clone().requires_grad_(True)).grad_fn]
    consumers: dict[Any, set[str]] = defaultdict(set)
    seen = set(queue)
    while queue:
        node = queue.pop()
        for before, _ in node.next_functions:
            consumers[before].add(type(node).__name__)
            if before is not None and before not in seen:
                seen.add(before)
                queue.append(before)
    return frozenset(name for node, name in nodes.items() if consumers[node] == {"ReluBackward0"})


def _root_cause(error: BaseException) -> str:
    """The first error of a chain, on one line: the graph tries again after an error, and its retry fails too."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def refuse_wrappers(model: nn.Module) -> None:
    """Refuse a network that is wrapped or parametrized, because its tensors cannot be cut."""
    kind = type(model).__name__
    if isinstance(model, _WRAPPERS) or kind in _WRAPPER_NAMES:
        inside = "model._orig_mod" if kind == "OptimizedModule" else "model.module"
        raise DgpruneError(
            f"the network is wrapped in {kind}, which cannot be cut; pass the network inside ({inside})."
        )
    parametrized = [name for name, module in model.named_modules() if is_parametrized(module)]
    if parametrized:
        raise DgpruneError(
            f"the layers {', '.join(parametrized[:4])} are parametrized (a masked network, or weight normalisation), "
            "so their weights cannot be cut; use the network before masking, or remove the parametrizations first."
        )


def refuse_uncalled(model: nn.Module, ran: Layers) -> None:
    """Refuse a network with parameters in layers that are not called in eval mode."""
    attention = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention))
    uncalled = [
        name
        for name, module in model.named_modules()
        if name not in ran.order
        and not list(module.children())
        and next(module.parameters(recurse=False), None) is not None
        and "parametrizations" not in name
        and not f"{name}.".startswith(attention)
    ]
    if uncalled:
        layers = list(dict.fromkeys(_outermost(name, model, uncalled=uncalled) for name in uncalled))
        more = f" and {len(layers) - 4} more" if len(layers) > 4 else ""
        raise DgpruneError(
            f"the layers {', '.join(layers[:4])}{more} hold parameters but are not called in eval mode "
            "(auxiliary heads, or weights that a function uses directly, as windowed attention does), so what must be "
            "removed together with them is unknown; auxiliary heads can be set to None."
        )


def _outermost(name: str, model: nn.Module, *, uncalled: list[str]) -> str:
    """The outermost module around an uncalled layer in which no layer with parameters is called."""
    parts = name.split(".")
    for outer in (".".join(parts[:k]) for k in range(1, len(parts))):
        inside = [
            f"{outer}.{inner}"
            for inner, module in model.get_submodule(outer).named_modules()
            if inner and next(module.parameters(recurse=False), None) is not None
        ]
        if all(layer in uncalled for layer in inside):
            return outer
    return name


def dependency_groups(
    model: nn.Module, example: Tensor, *, names: dict[Any, str], ran: Layers
) -> list[tuple[list[Item], Flow]]:
    """Return each group of Torch-Pruning's graph as its items and its flow; adds names of parameters to `names`."""
    graph, groups = _built(model, example)
    dimension = {id(p.parameters): p.pruning_dim for p in graph.unwrapped_parameters}
    read = []
    for group in groups:
        items = []
        for item in group.items:
            target = item.dep.target.module
            side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
            if isinstance(target, nn.Parameter):
                names[target] = graph._param_to_name[target]
                side = str(dimension.get(id(target), 0))
            elif type(target).__name__ == "_OutputOp":
                side = "output"
            items.append(Item(target, side, places=list(item.idxs), filters=list(item.root_idxs)))
        read.append((items, _flow(graph, items, names=names, ran=ran)))
    return read


def _built(model: nn.Module, example: Tensor) -> tuple[Any, list[Any]]:
    """Torch-Pruning's dependency graph of the network, and all groups in it."""
    import torch_pruning as tp

    graph = tp.DependencyGraph()
    model.requires_grad_(True)
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        try:
            graph.build_dependency(model, example_inputs=(example,), verbose=False)
        except Exception as error:
            raise DgpruneError(
                f"the layers of this network cannot be traced ({_root_cause(error)}); "
                "an operation between them is unknown to the dependency graph."
            ) from error
        _limit_time(graph, time.monotonic() + _SECONDS)
        try:
            return graph, list(graph.get_all_groups(root_module_types=[*CONV, nn.Linear]))
        except _TooLong:
            raise DgpruneError(
                f"reading which filters belong together took more than {_SECONDS:.0f} s; this network's layers are "
                "coupled in a way the dependency graph does not resolve (shifted windows do this)."
            ) from None


def _flow(graph: Any, items: list[Item], *, names: dict[Any, str], ran: Layers) -> Flow:
    """The Flow of a group: from which of its layers each consumer gets the output."""
    layers = [(item.target, item.side) for item in items if isinstance(item.target, (*CONV, nn.Linear, BATCHNORM))]
    layers = [(layer, side) for layer, side in layers if layer in names]
    consumers = {layer for layer, side in layers if side == "in" and not is_depthwise(layer)}
    producers = {layer for layer, side in layers if side == "out" or is_depthwise(layer)}
    mixing = {layer for layer in producers if not isinstance(layer, BATCHNORM)}

    def reached(producers: set[Any]) -> Iterator[tuple[str, list[str]]]:
        ordered = sorted(producers, key=lambda layer: ran.order[names[layer]])
        for producer, reads in zip(ordered, _reached(graph, ordered, consumers=consumers), strict=True):
            yield names[producer], [names[consumer] for consumer in reads]

    feeds: dict[str, list[str]] = defaultdict(list)
    for producer, reads in reached(mixing):
        for consumer in reads:
            feeds[consumer].append(producer)
    ends = tuple(producer for producer, reads in reached(producers) if reads)
    return Flow(ends, {consumer: tuple(fed) for consumer, fed in feeds.items()})


def _reached(graph: Any, producers: list[Any], *, consumers: set[Any]) -> Iterator[set[Any]]:
    """Yield for each producer the consumers it reaches before another producer; a product counts for one factor."""
    factor: dict[Any, Any] = {}
    others = set(producers)
    for producer in producers:
        queue, seen, reads = [graph.module2node[producer]], set(), set()
        while queue:
            node = queue.pop()
            for after in node.outputs:
                # Squeeze-excite multiplies a map by a function of itself: the gate sits on the map, once.
                is_product = "Mul" in str(getattr(after.module, "_grad_fn", ""))
                other_factor = is_product and factor.setdefault(after, node) is not node
                if after.module in consumers:
                    reads.add(after.module)
                elif not (other_factor or after in seen or after.module in others):
                    seen.add(after)
                    queue.append(after)
        yield reads


def _limit_time(graph: Any, deadline: float) -> None:
    """Make every step of the graph traversal check the time limit: on some networks the traversal never ends."""
    for node in graph.module2node.values():
        for dependency in node.dependencies:

            def triggered(handler: Any, dependency: Any = dependency) -> bool:
                if time.monotonic() > deadline:
                    raise _TooLong
                return type(dependency).is_triggered_by(dependency, handler)

            dependency.is_triggered_by = triggered
