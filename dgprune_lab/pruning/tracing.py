"""How a network runs and what its dependency graph says, as plain values; or why it cannot be followed."""

from __future__ import annotations

import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..core import BATCHNORM, CONV, DgpruneError, is_depthwise

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.jit.ScriptModule)
_SECONDS = 60.0

# What a group touches: module or parameter, "out" | "in" | "output" | axis, the graph's kind, places, root places.
Item = tuple[Any, str, Any, list[int], list[int]]


@dataclass(frozen=True)
class Layers:
    """The layers that ran in one forward pass.

    Attributes:
        order: leaf layer name -> position of its first call.
        places: convolution or linear layer -> output places per image, summed over calls.
    """

    order: dict[str, int]
    places: dict[str, int]


@dataclass(frozen=True)
class Flow:
    """How a group's output gets to the layers that read it.

    Attributes:
        ends: layers (BatchNorms too) whose output arrives somewhere without another layer of the group in between.
        feeds: reader -> the convolution and linear layers that it gets the group from, BatchNorms looked through.
    """

    ends: tuple[str, ...]
    feeds: Mapping[str, tuple[str, ...]]


class _TooLong(Exception):
    """Reading one group takes longer than anyone waits."""


def run_order(model: nn.Module, example: Tensor) -> Layers:
    """Which leaf layers run, in what order, at how many output places per image; one pass, hooks removed."""
    order: dict[str, int] = {}
    places: dict[str, int] = defaultdict(int)

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            order.setdefault(name, len(order))
            if isinstance(module, CONV):
                places[name] += math.prod(output.shape[2:])
            elif isinstance(module, nn.Linear):
                places[name] += math.prod(output.shape[1:-1])

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(note(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            model(example)
    except DgpruneError:
        raise
    except Exception as error:
        size = " x ".join(map(str, example.shape[1:]))
        raise DgpruneError(
            f"the network does not take images of {size} ({_words(error)}); give images of the size it was built for."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return Layers(order, dict(places))


def ending_in_relu(model: nn.Module, example: Tensor) -> frozenset[str]:
    """Names of the layers whose output goes into ReLUs and nothing else, as modules or as functions.

    Args:
        model: a private copy in eval mode.
        example: a few images.
    """
    nodes: dict[Any, str] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_m: nn.Module, _i: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.grad_fn is not None:
                nodes.setdefault(output.grad_fn, name)

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(note(name)) for name, module in leaves]
    try:
        with torch.enable_grad():
            waiting = [model(example.clone().requires_grad_(True)).grad_fn]
    finally:
        for handle in handles:
            handle.remove()
    consumers: dict[Any, set[str]] = defaultdict(set)
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        for before, _ in node.next_functions:
            consumers[before].add(type(node).__name__)
            if before is not None and before not in seen:
                seen.add(before)
                waiting.append(before)
    return frozenset(name for node, name in nodes.items() if consumers[node] == {"ReluBackward0"})


def _words(error: BaseException) -> str:
    """What went wrong first, on one line: the graph tries again after an error, and fails on its own try."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def refuse_wrappers(model: nn.Module) -> None:
    wrapped = type(model).__name__
    if isinstance(model, _WRAPPERS) or wrapped in ("OptimizedModule", "GraphModule", "FullyShardedDataParallel"):
        inside = {"OptimizedModule": "model._orig_mod"}.get(wrapped, "model.module")
        raise DgpruneError(
            f"the network is wrapped in {wrapped}, which cannot be cut; pass the network inside ({inside})."
        )
    bent = [name for name, module in model.named_modules() if is_parametrized(module)]
    if bent:
        raise DgpruneError(
            f"the layers {', '.join(bent[:4])} are parametrized (a masked network, or weight normalisation), so their "
            "weights cannot be cut; use the network before masking, or remove the parametrizations first."
        )


def refuse_silent(model: nn.Module, ran: Layers) -> None:
    silent = [
        name
        for name, module in model.named_modules()
        if name not in ran.order
        and not list(module.children())
        and any(True for _ in module.parameters(recurse=False))
        and not isinstance(module, nn.MultiheadAttention)
        and "parametrizations" not in name
        and not any(
            name.startswith(f"{outer}.") and isinstance(model.get_submodule(outer), nn.MultiheadAttention)
            for outer in _parents(name)
        )
    ]
    if silent:
        heads = list(dict.fromkeys(_whole(name, silent, model) for name in silent))
        more = f" and {len(heads) - 4} more" if len(heads) > 4 else ""
        raise DgpruneError(
            f"the layers {', '.join(heads[:4])}{more} hold parameters but are not called in eval mode "
            "(auxiliary heads, or weights that a function uses directly, as windowed attention does), so what must go "
            "together with them cannot be read; auxiliary heads can be set to None."
        )


def _whole(name: str, silent: list[str], model: nn.Module) -> str:
    """The outermost part around a silent layer in which every layer with parameters is silent."""
    for outer in _parents(name):
        inside = [
            f"{outer}.{inner}"
            for inner, m in model.get_submodule(outer).named_modules()
            if inner and next(m.parameters(recurse=False), None) is not None
        ]
        if all(layer in silent for layer in inside):
            return outer
    return name


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:k]) for k in range(1, len(parts))]


def dependency_groups(
    model: nn.Module, example: Tensor, names: dict[Any, str], ran: Layers
) -> list[tuple[list[Item], Flow]]:
    """The groups of the graph, (module or parameter, out | in | axis, pruner, places, root places), and their flow."""
    import torch_pruning as tp

    graph = tp.DependencyGraph()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        try:
            graph.build_dependency(model, example_inputs=(example,), verbose=False)
        except Exception as error:
            raise DgpruneError(
                f"the layers of this network cannot be followed ({_words(error)}); "
                "an operation between them is not one that the dependency graph knows."
            ) from error
        _bound(graph, time.monotonic() + _SECONDS)
        try:
            found = list(graph.get_all_groups(root_module_types=[*CONV, nn.Linear]))
        except _TooLong:
            raise DgpruneError(
                f"reading which filters belong together took more than {_SECONDS:.0f} s; this network's layers are "
                "coupled in a way the dependency graph does not resolve (shifted windows do this)."
            ) from None
    dimension = {id(p.parameters): p.pruning_dim for p in graph.unwrapped_parameters}
    groups = []
    for group in found:
        items = []
        for item in group.items:
            target = item.dep.target.module
            side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
            if isinstance(target, nn.Parameter):
                names[target] = graph._param_to_name[target]
                side = str(dimension.get(id(target), 0))
            elif type(target).__name__ == "_OutputOp":
                side = "output"
            items.append((target, side, item.dep.target.type, list(item.idxs), list(item.root_idxs)))
        groups.append((items, _flow(graph, items, names, ran)))
    return groups


def _flow(graph: Any, items: list[Item], names: dict[Any, str], ran: Layers) -> Flow:
    """Which layers of a group its readers get it from; see `Flow`."""
    layers = [(t, side) for t, side, *_ in items if isinstance(t, (*CONV, nn.Linear, BATCHNORM)) and t in names]
    reads = {layer for layer, side in layers if side == "in" and not is_depthwise(layer)}
    writes = {layer for layer, side in layers if side == "out" or is_depthwise(layer)}
    ends = tuple(names[producer] for producer, reached in _reached(graph, reads, writes, names, ran) if reached)
    feeds: dict[str, list[str]] = defaultdict(list)
    mixing = {layer for layer in writes if not isinstance(layer, BATCHNORM)}
    for producer, reached in _reached(graph, reads, mixing, names, ran):
        for reader in reached:
            feeds[names[reader]].append(names[producer])
    return Flow(ends, {reader: tuple(held) for reader, held in feeds.items()})


def _reached(
    graph: Any, reads: set[Any], writes: set[Any], names: dict[Any, str], ran: Layers
) -> Iterator[tuple[Any, set[Any]]]:
    """Each writer, in order, with the readers its output gets to before another rewrites it; of factors, the first."""
    factor: dict[Any, Any] = {}
    for producer in sorted(writes, key=lambda layer: ran.order[names[layer]]):
        waiting, seen, reached = [graph.module2node[producer]], set(), set()
        while waiting:
            node = waiting.pop()
            for after in node.outputs:
                # Squeeze-excite multiplies a map by a function of itself: the gate sits on the map, once.
                other = (
                    "Mul" in str(getattr(after.module, "_grad_fn", "")) and factor.setdefault(after, node) is not node
                )
                if after.module in reads:
                    reached.add(after.module)
                elif not (other or after in seen or after.module in writes):
                    seen.add(after)
                    waiting.append(after)
        yield producer, reached


def _bound(graph: Any, deadline: float) -> None:
    """Make every step of the graph's walk look at the clock: on some networks it never ends."""
    for node in graph.module2node.values():
        for dependency in node.dependencies:

            def triggered(handler: Any, dependency: Any = dependency) -> bool:
                if time.monotonic() > deadline:
                    raise _TooLong
                return type(dependency).is_triggered_by(dependency, handler)

            dependency.is_triggered_by = triggered
