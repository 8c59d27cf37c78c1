"""What keeps a network from being copied, found by inspecting it, without running it."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..core import DgpruneError
from .copies import device_of, plain_tensors, shared_copy

_TABLES = frozenset(name for name in vars(nn.Module()) if name != "training") | {"_compiled_call_impl"}
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type, ModuleType, torch.dtype, torch.device, torch.Size)
_NAMES_ONLY = (torch.fx.Graph,)  # names the layers that it calls, and refers to the module that it was made for
_LIBRARIES = ("torch.", "torchvision.", "timm.", "builtins")
_MAX_OBJECTS = 10_000  # visited from one attribute
Matches = Callable[[nn.Module | Tensor], bool]


def refuse_uncopyable(model: nn.Module) -> None:
    """Refuse a network with layers that cannot be copied, without running it.

    Raises:
        DgpruneError: compiled or scripted layers, weights that a hook computes from other weights, layers that have no
            size yet, tensors without values or made in inference mode.
    """
    for name, module in model.named_modules():
        where = f"layer {name!r}" if name else "the network"
        _refuse_compiled(where, name, module)
        for hook in module._forward_pre_hooks.values():
            _refuse_reparametrised(where, f"model.{name}" if name else "model", hook)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise DgpruneError(
                f"{name} has no size yet (a lazy layer); run one batch through the network first: model(images)."
            )
        if tensor.is_meta:
            raise DgpruneError(
                f"{name} is on the meta device, which holds no values; give the network memory by "
                "model.to_empty(device='cpu') and load its weights first."
            )
        if tensor.is_inference():
            raise DgpruneError(
                f"{name} was made under torch.inference_mode(), so it can be neither cut nor trained; make the network "
                "outside that block."
            )


def _refuse_compiled(where: str, name: str, module: nn.Module) -> None:
    """Refuse a layer that is TorchScript, an exported program, or compiled."""
    if isinstance(module, torch.jit.ScriptModule):
        raise DgpruneError(
            f"{where} is TorchScript ({type(module).__name__}), which can be neither copied nor cut; use the Python "
            "module that it was made from."
        )
    if isinstance(module, torch.fx.GraphModule) and "eval" in vars(module):  # torch.export replaces this method
        raise DgpruneError(
            f"{where} is the module of an exported program (torch.export), whose shapes are fixed; use the Python "
            "module that was exported, and export the pruned network."
        )
    if type(module).__name__ == "OptimizedModule":
        inside = f"put model.{name}._orig_mod in its place" if name else "pass the network inside (model._orig_mod)"
        raise DgpruneError(
            f"{where} is wrapped in OptimizedModule by torch.compile, which cannot be cut, and a copy of it would "
            f"still compute with the original's weights; {inside}."
        )
    if getattr(module, "_compiled_call_impl", None) is not None:
        raise DgpruneError(
            f"{where} was compiled in place (by its method compile), so a copy of it would still compute with the "
            "original's weights; pass copy.deepcopy(model), which is not compiled, and compile the result."
        )


def _refuse_reparametrised(where: str, module: str, hook: Any) -> None:
    """Refuse a weight that a hook recomputes before every pass: a copy has no hooks and would keep the old value."""
    if isinstance(hook, BasePruningMethod):
        name, what = getattr(hook, "_tensor_name", "weight"), "torch.nn.utils.prune"
        advice = f"torch.nn.utils.prune.remove({module}, {name!r})"
    elif isinstance(hook, (WeightNorm, SpectralNorm)):
        norm = "weight_norm" if isinstance(hook, WeightNorm) else "spectral_norm"
        name, what = hook.name, f"torch.nn.utils.{norm}"
        advice = f"torch.nn.utils.remove_{norm}({module}, {name!r})"
    else:
        return
    raise DgpruneError(
        f"{where} computes its {name} from other tensors before every pass ({what}), so it cannot be cut; make it "
        f"permanent first: {advice}."
    )


def refuse_other_types(model: nn.Module, images: Tensor) -> None:
    """Refuse a network whose weights are not float32 if it cannot take the images of a domain.

    A network that converts its input itself is accepted. Groups can be read and filters removed in any type.

    Raises:
        DgpruneError: another type; the message says how to convert the network.
    """
    types = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point()}
    if types - {"float32"}:
        try:
            with torch.no_grad():
                shared_copy(model)(images[:1].to(device_of(model)))
        except Exception:
            raise DgpruneError(
                f"the weights of this network are {' and '.join(sorted(types))}, and images are float32: pass "
                "copy.deepcopy(model).float(). Afterwards dg.prune(model, mask) removes filters in the network's own "
                "type."
            ) from None


def outside_reference(model: nn.Module, *, tensors: bool = True) -> str | None:
    """Describe where layers or parameters (with `tensors`, any tensors) are held outside the module tree; None if not.

    The search covers the attributes of modules and what their methods use: closures, global variables, attributes of
    the class. Such a reference may be harmless; `proof.prove_copies` decides.
    """
    kinds, own = Tensor if tensors else nn.Parameter, set(map(id, plain_tensors(model)))

    def is_relevant(item: nn.Module | Tensor) -> bool:
        if isinstance(item, nn.Module):
            return next(chain(item.parameters(), item.buffers()), None) is not None
        return isinstance(item, kinds) and id(item) not in own

    reference = next(_find_references(model, is_relevant), None)
    return None if reference is None else reference[0]


def unregistered(model: nn.Module) -> str | None:
    """Describe where the network holds layers or parameters that no module has registered; None if nowhere.

    Such layers and parameters are missing in `model.state_dict()`.
    """
    own = set(map(id, [*model.parameters(), *model.buffers()]))

    def is_loose(item: nn.Module | Tensor) -> bool:
        tensors = [item] if isinstance(item, nn.Parameter) else []
        tensors = [*item.parameters(), *item.buffers()] if isinstance(item, nn.Module) else tensors
        return any(id(tensor) not in own for tensor in tensors)

    reference = next(_find_references(model, is_loose), None)
    return None if reference is None else f"{reference[0]}. {reference[1]}"


def find_holder(model: nn.Module, tensor: Tensor) -> tuple[str, str]:
    """Return where the network refers to a tensor outside its module tree, and what to do about it: two sentences."""
    address = tensor.untyped_storage().data_ptr()

    def owns(item: nn.Module | Tensor) -> bool:
        tensors = [item] if isinstance(item, Tensor) else [*item.parameters(), *item.buffers()]
        return any(t.untyped_storage().data_ptr() == address for t in tensors)

    reference = next(_find_references(model, owns), None)
    unknown = "something outside its registered layers holds on to them"
    return (unknown, "Register all layers as attributes of modules.") if reference is None else reference


def _find_references(model: nn.Module, matches: Matches) -> Iterator[tuple[str, str]]:
    """Yield each place where an attribute or class of a module reaches a matching object, and what to do about it."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            copied = attribute in _TABLES or isinstance(value, (*_PLAIN, *_NAMES_ONLY, Tensor))
            if not copied and _reaches(value, matches):
                kind, advice = _describe_holder(value)
                where = f"layer {name!r}" if name else "the network"
                yield f"the attribute {attribute!r} of {where} is {kind}", advice
    for kind in {kind: None for module in model.modules() for kind in type(module).__mro__}:
        for attribute, value in () if kind.__module__.startswith(_LIBRARIES) else vars(kind).items():
            if not attribute.startswith("__") and _reaches(value, matches):
                what = "uses layers or tensors of its surroundings (a closure, a global variable, its class)"
                yield f"{attribute} of {kind.__name__} {what}", "Register them as attributes of the network."


def _describe_holder(value: Any) -> tuple[str, str]:
    """Describe what kind of object an attribute is, and what to use instead."""
    kind = type(value).__name__
    if isinstance(value, (Mapping, list, tuple, set, frozenset, deque)):
        suffix = "Dict" if isinstance(value, Mapping) else "List"
        if _reaches(value, lambda item: isinstance(item, nn.Module)):
            return f"a plain {kind} that holds layers", f"Use a torch.nn.Module{suffix}."
        advice = f"Use a torch.nn.Parameter{suffix} for parameters, and register_buffer for other tensors."
        return f"a plain {kind} that holds tensors", advice
    if isinstance(value, MethodType):
        owner = type(value.__self__).__name__
        return f"a bound method of {owner}, and stays bound to the original", "Define the method in the class instead."
    if isinstance(value, FunctionType):
        return "a function that refers to layers from outside", "Make it a method, or a module of its own."
    if isinstance(value, functools.partial):
        return "a functools.partial that refers to layers", "Make it a method, or a module of its own."
    if isinstance(value, nn.Module):
        return "a layer that is not registered", "Assign it as an attribute of the module, which registers it."
    return f"a {kind} that holds layers", "Make it a torch.nn.Module, which registers them."


def _reaches(value: Any, matches: Matches, seen: set[int] | None = None) -> bool:
    """Return whether a bounded walk from a value, visiting each object once, reaches a matching module or tensor."""
    seen = set() if seen is None else seen
    if isinstance(value, _PLAIN) or id(value) in seen or len(seen) > _MAX_OBJECTS:
        return False
    seen.add(id(value))
    if isinstance(value, (nn.Module, Tensor)):
        return matches(value)
    return any(_reaches(part, matches, seen) for part in _referenced_objects(value))


def _referenced_objects(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(value)
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, FunctionType):
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values(), *vars(value).values()]
        return [*_closure_values(value), *defaults, *_global_values(value)]
    return list(vars(value).values()) if hasattr(value, "__dict__") else ()


def _global_values(function: FunctionType) -> list[Any]:
    """Return the globals that a function uses, if they are layers, tensors, or objects that its module defines."""
    values = [function.__globals__.get(name) for name in function.__code__.co_names]
    own = [item for item in values if getattr(item, "__module__", None) == function.__module__]
    return [*own, *(item for item in values if isinstance(item, (nn.Module, Tensor, list, tuple, dict)))]


def _closure_values(function: FunctionType) -> list[Any]:
    """Return the values in a function's closure, without cells that are still empty."""
    contents = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            contents.append(cell.cell_contents)
    return contents
