"""How a network runs: which layers, in what order; refusal of networks that cannot be traced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode

from ..core import BATCHNORM, DgpruneError, note
from .copies import is_large, tensors_of_layer
from .refusals import input_error

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_PARTS = 32
_WRAPPER_NAMES = ("OptimizedModule", "FullyShardedDataParallel")


@contextmanager
def layer_hooks(model: nn.Module, hook: Callable[[str, nn.Module, Any, Any], None]) -> Iterator[None]:
    """Within the block, call `hook(name, module, inputs, output)` after each module that is a leaf or has tensors."""
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if not list(module.children()) or tensors_of_layer(module):
                hooks.enter_context(module.register_forward_hook(partial(hook, name)))
        yield


def run_order(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Run one pass and return layer -> position of its first call; hooks are removed.

    Layers are modules without children, or with tensors of their own.

    Raises:
        DgpruneError: the network does not take these images.
    """
    order: dict[str, int] = {}

    def record(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        order.setdefault(name, len(order))

    try:
        with layer_hooks(model, record), torch.no_grad():
            model(example)
    except DgpruneError:
        raise
    except Exception as error:
        raise input_error(error, model, images=example) from error
    return order


class _InParts(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _CONVOLUTIONS or kwargs or args[6:] not in ((), (1,)) or not is_large(args[1]):
            return func(*args, **(kwargs or {}))
        x, weight, bias, *rest = (*args, None) if len(args) == 2 else args
        weights = weight.chunk(_PARTS)
        biases = [None] * len(weights) if bias is None else bias.chunk(_PARTS)
        outputs = [func(x, *part, *rest) for part in zip(weights, biases, strict=True)]
        return torch.cat(outputs, dim=1 - weight.ndim)


def in_parts(model: nn.Module) -> AbstractContextManager[object]:
    """Return a context in which convolutions with large weights compute their filters in parts, to save memory.

    A convolution on a CPU copies its weight into another layout; in parts, it copies one part at a time.
    """
    return _InParts() if any(map(is_large, model.parameters())) else nullcontext()


def autograd_nodes(ends: Iterable[Any], *, wanted: Callable[[Any], bool] = lambda _: True) -> Iterator[Any]:
    """Yield each node of PyTorch's autograd graph once, backwards from `ends`, through `wanted` nodes only."""
    queue, seen = list(ends), {None}
    while queue:
        if (node := queue.pop()) not in seen:
            seen.add(node)
            yield node
            queue += [before for before, _ in node.next_functions if before not in seen and wanted(before)]


def ending_in_relu(model: nn.Module, example: Tensor) -> frozenset[str]:
    """Return the names of the layers whose output goes only into ReLUs, whether modules or functions."""
    nodes: dict[Any, str] = {}

    def record(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.grad_fn is not None:
            nodes.setdefault(output.grad_fn, name)

    with layer_hooks(model, record), torch.enable_grad():
        output = model(example.clone().requires_grad_(True)).grad_fn  # None where the network runs under no_grad
    consumers: dict[Any, set[str]] = defaultdict(set)
    for node in autograd_nodes([output]):
        for before, _ in node.next_functions:
            consumers[before].add(type(node).__name__)
    return frozenset(name for node, name in nodes.items() if consumers[node] == {"ReluBackward0"})


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


def note_probabilities(model: nn.Module, images: Tensor) -> None:
    """Note that a network ends in a softmax or sigmoid, since losses are computed from logits."""
    with torch.enable_grad():
        try:
            output = model(images * images.new_ones((), requires_grad=True))
        except Exception:  # whether the network runs is checked elsewhere
            return
    end = output.grad_fn.name() if isinstance(output, Tensor) and output.grad_fn is not None else ""
    if kind := next((kind for kind in ("Softmax", "Sigmoid") if end.startswith(kind)), ""):
        note(
            f"this network ends in a {kind.lower()}, so it returns probabilities, and the cross-entropy of logits is "
            "computed from them: accuracy is right, but losses and all scores by gradients are wrong; leave the "
            f"{kind.lower()} out of the forward."
        )


def note_batch_statistics(model: nn.Module) -> None:
    """Note BatchNorm layers that use the statistics of each batch in eval mode too."""
    names = [name for name, m in model.named_modules() if isinstance(m, BATCHNORM) and m.running_mean is None]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        note(
            f"the BatchNorm layers {', '.join(names[:3])}{more} keep no running statistics and normalise each batch by "
            "its own, in eval mode too: every number of this network depends on which images share a batch, and on how "
            "many; build and train it with track_running_stats=True to compare numbers."
        )


def refuse_unused(model: nn.Module, used: set[str]) -> None:
    """Refuse a network with layers whose parameters are all unused in the pass, under any name."""
    seen = {id(parameter) for name, parameter in model.named_parameters() if name in used}
    own = {name: [*map(id, module.parameters(recurse=False))] for name, module in model.named_modules()}
    unused = [name for name, parameters in own.items() if parameters and seen.isdisjoint(parameters)]
    if unused:
        layers = list(dict.fromkeys(_outermost(name, model, uncalled=unused) for name in unused))
        more = f" and {len(layers) - 4} more" if len(layers) > 4 else ""
        raise DgpruneError(
            f"the layers {', '.join(layers[:4])}{more} hold parameters but are not called in eval mode with images "
            "alone (auxiliary heads, BatchNorm layers of other domains, branches that are switched off), so what must "
            "be removed together with them is unknown; set to None, or replace by torch.nn.Identity, what is not "
            "needed, and keep one BatchNorm layer where there is one per domain."
        )


def _outermost(name: str, model: nn.Module, *, uncalled: list[str]) -> str:
    """Return the outermost module around an uncalled layer in which no layer with parameters is called."""
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
