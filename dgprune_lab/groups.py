"""Which filters must go together: Torch-Pruning's dependency graph, read once, as plain FilterGroups.

Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023. Only this file and the importance adapter import it.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from .types.errors import DgpruneError
from .types.filters import FilterGraph, FilterGroup, Member

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCHNORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.jit.ScriptModule)
_SECONDS = 60.0
_ACROSS = "takes statistics across channels, so a removed filter would still change its neighbours"


@dataclass(frozen=True)
class Layers:
    """The layers that ran in one forward pass.

    Attributes:
        order: leaf layer name -> position of its first call.
        places: convolution or linear layer -> output places per image, summed over calls.
    """

    order: dict[str, int]
    places: dict[str, int]


class _TooLong(Exception):
    """Reading one group takes longer than anyone waits."""


def trace(model: nn.Module, example: Tensor, *, layers: Literal["conv", "all"] = "conv") -> FilterGraph:
    """The groups of a network as the dependency graph reports them, not yet checked by `gate.read_groups`.

    Args:
        model: any module; a copy is traced, the argument is not touched.
        example: (1, C, H, W) or more images of the size the network takes.
        layers: "conv" groups that a convolution writes first; "all" hidden units of linear layers too.

    Raises:
        DgpruneError: a wrapper, a layer that does not run in eval mode, an image size that does not fit.
    """
    _refuse_wrappers(model)
    try:
        twin = copy.deepcopy(model).eval()
    except Exception as error:
        raise DgpruneError(
            f"the network cannot be copied ({error}); tensors with a history must not be attributes."
        ) from error
    ran = run_order(twin, example)
    _refuse_silent(twin, ran)
    names = {module: name for name, module in twin.named_modules()}
    candidates, refused = [], {}
    for items, ends in _dependency_groups(twin, example, names, ran):
        reader = _Reader(twin, names, ran, ends)
        try:
            found = reader.read(items)
        except DgpruneError as error:
            refused[names[items[0][0]]] = str(error)
            continue
        if found is not None and (layers == "all" or isinstance(twin.get_submodule(found.name), _CONV)):
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
    ordered = sorted(groups, key=lambda group: ran.order[group.name])
    tensors = {name: t for name, t in [*model.named_parameters(), *model.named_buffers()]}
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


def run_order(model: nn.Module, example: Tensor) -> Layers:
    """Which leaf layers run, in what order, and at how many output places per image; one forward pass, hooks removed."""
    order: dict[str, int] = {}
    places: dict[str, int] = defaultdict(int)

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            order.setdefault(name, len(order))
            if isinstance(module, _CONV):
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


def _words(error: BaseException) -> str:
    """What went wrong first, on one line: the graph tries again after an error, and fails on its own try."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _refuse_wrappers(model: nn.Module) -> None:
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


def _refuse_silent(model: nn.Module, ran: Layers) -> None:
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
            f"the layers {', '.join(heads[:4])}{more} hold parameters but are not called in eval mode (auxiliary heads, or "
            "weights that a function uses directly, as windowed attention does), so what must go together with them "
            "cannot be read; auxiliary heads can be set to None first."
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


def _dependency_groups(
    model: nn.Module, example: Tensor, names: dict[nn.Module, str], ran: Layers
) -> list[tuple[list[tuple[Any, str, Any, list[int], list[int]]], tuple[str, ...]]]:
    """The groups of the graph, (module or parameter, out | in | axis, pruner, places, root places), and their ends."""
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
            found = list(graph.get_all_groups(root_module_types=[*_CONV, nn.Linear]))
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
                names[target] = graph._param_to_name[target]  # type: ignore[index]
                side = str(dimension.get(id(target), 0))
            elif type(target).__name__ == "_OutputOp":
                side = "output"
            items.append((target, side, item.dep.target.type, list(item.idxs), list(item.root_idxs)))
        groups.append((items, _ends(graph, items, names, ran)))
    return groups


def _ends(
    graph: Any, items: list[tuple[Any, str, Any, list[int], list[int]]], names: dict[nn.Module, str], ran: Layers
) -> tuple[str, ...]:
    """The writers whose output a reader gets before another writer rewrites it; of the factors of a product, the first."""
    kinds = (*_CONV, nn.Linear, *_BATCHNORM)
    layers = [(target, side) for target, side, *_ in items if isinstance(target, kinds) and target in names]
    reads = {layer for layer, side in layers if side == "in" and not _is_depthwise(layer)}
    writes = {layer for layer, side in layers if side == "out" or _is_depthwise(layer)}
    factor: dict[Any, Any] = {}
    found = []
    for writer in sorted(writes, key=lambda layer: ran.order[names[layer]]):
        waiting, seen, reached = [graph.module2node[writer]], set(), False
        while waiting:
            node = waiting.pop()
            for after in node.outputs:
                # Squeeze-excite multiplies a map by a function of itself: the gate sits on the map, once.
                other = (
                    "Mul" in str(getattr(after.module, "_grad_fn", "")) and factor.setdefault(after, node) is not node
                )
                reached = reached or after.module in reads
                if not (other or after in seen or after.module in reads or after.module in writes):
                    seen.add(after)
                    waiting.append(after)
        if reached:
            found.append(names[writer])
    return tuple(found)


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, _CONV) and layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels


def _bound(graph: Any, deadline: float) -> None:
    """Make every step of the graph's walk look at the clock: on some networks it never ends."""
    for node in graph.module2node.values():
        for dependency in node.dependencies:

            def triggered(handler: Any, dependency: Any = dependency) -> bool:
                if time.monotonic() > deadline:
                    raise _TooLong
                return type(dependency).is_triggered_by(dependency, handler)

            dependency.is_triggered_by = triggered


class _Reader:
    """Turns the items of one group into a FilterGroup."""

    def __init__(self, model: nn.Module, names: dict[nn.Module, str], ran: Layers, ends: tuple[str, ...]) -> None:
        self.model, self.names, self.ran, self.ends = model, names, ran, ends
        self.members: list[Member] = []
        self.writers: list[str] = []
        self.doors: dict[str, tuple[Tensor, Tensor]] = {}
        self.ties: list[tuple[int, int]] = []

    def read(self, items: list[tuple[Any, str, Any, list[int], list[int]]]) -> FilterGroup | None:
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
        writers = tuple(sorted(dict.fromkeys(self.writers), key=lambda name: self.ran.order[name]))
        doors = {name: self.doors[name] for name in sorted(self.doors, key=lambda name: self.ran.order[name])}
        if not doors:
            return None
        layers = [name for name in writers if isinstance(self.model.get_submodule(name), (*_CONV, nn.Linear))]
        if int(units.max()) == 0 and count > 1:
            raise DgpruneError(f"a grouped convolution ties all {count} filters together")
        return FilterGroup(layers[0], count, tuple(self.members), units, writers, doors, ends=self.ends)

    def _module(self, module: nn.Module, side: str, places: list[int], roots: list[int]) -> None:
        name = self.names[module]
        if isinstance(module, _CONV):
            self._conv(module, name, side, places, roots)
        elif isinstance(module, nn.Linear):
            self._add(f"{name}.weight", 0 if side == "out" else 1, side, places, roots)
            self._optional(module, name, ("bias",) if side == "out" else (), places, roots)
            self._end(name, side, places, roots)
        elif isinstance(module, _BATCHNORM):
            self._optional(module, name, ("weight", "bias", "running_mean", "running_var"), places, roots)
            self.writers.append(name)
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
        out_axis, in_axis = (1, 0) if isinstance(conv, _TRANSPOSED) else (0, 1)
        groups = conv.groups
        if groups > 1 and isinstance(conv, _TRANSPOSED):
            raise DgpruneError(f"{name} is a grouped transposed convolution, which cannot be cut")
        depthwise = _is_depthwise(conv)
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
            self.writers.append(name)
        else:
            self.doors[name] = (torch.tensor(places), torch.tensor(roots))

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
