"""Copies of a network: the same modules with other tensors."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..core import BATCHNORM, CONV, TRANSPOSED, is_depthwise

_TABLES = frozenset({"_parameters", "_buffers", "_modules"})
_HOOKS = frozenset(name for name, value in nn.Module().__dict__.items() if "hooks" in name and isinstance(value, dict))
_SIZES = ("channels", "num_channels", "num_features", "num_groups")  # of the first axis of a layer's tensors
_ATOMS = frozenset({bool, int, float, str, type(None), tuple})
_CONTAINERS = frozenset({list, dict, set, OrderedDict, defaultdict, deque})
_LARGE_BYTES = 32 * 2**20
_CHUNK_NUMBERS = 2**20  # random numbers drawn at once


def rebuild(model: nn.Module, replace: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """Return a copy of a module tree with every parameter and buffer replaced by `replace(name, old)`, without hooks.

    Nothing is initialised and no weight is copied twice, so this takes well under a millisecond for a ResNet-18.
    Modules and tensors that occur twice are still shared within the copy. Sizes such as `out_channels` follow the new
    tensors. Tensors that are plain attributes, or items of plain lists and dicts, are cloned; if they are registered as
    well, the copy of the registered tensor is used. What `net.compile()` made is left out, since it calls the original.
    Layers reached in another way (from a plain list, a closure) are not copied; `prove_copies` refuses such networks.
    """
    with torch.no_grad():
        return _Copier(replace).copy_network(model)


def deep_copy(model: nn.Module) -> nn.Module:
    """Return a copy with its own weights and no hooks; each module keeps its train or eval mode."""
    return rebuild(model, lambda _, tensor: tensor.clone())


def shared_copy(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode that shares the parameters and has its own buffers, without hooks and gradients."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    twin = rebuild(model, lambda name, tensor: tensor if name in names else tensor.clone())
    return twin.eval().requires_grad_(False)


def random_copy(model: nn.Module) -> nn.Module:
    """Return a copy with random weights and statistics, since a zero-initialised head would hide any difference."""
    generator = torch.Generator().manual_seed(0)
    parameters = {name for name, _ in model.named_parameters()}

    def random(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor.clone()
        if tensor.ndim > 1:
            return draw(tensor.new_empty(tensor.shape), generator=generator)
        normal = torch.randn(tensor.shape, generator=generator).to(tensor)
        leaf = name.rpartition(".")[2]
        if leaf == "running_var" or (leaf == "weight" and name in parameters):
            return 0.5 + normal.abs().clamp(max=2)
        return normal * 0.2 if name in parameters or leaf in ("bias", "running_mean") else tensor.clone()

    return rebuild(model, random)


def draw(weight: Tensor, *, generator: torch.Generator) -> Tensor:
    """Fill a weight with He-normal values, which keep the scale of signals through ReLUs, and return it."""
    rows = max(1, len(weight) * _CHUNK_NUMBERS // max(1, weight.numel()))
    for part in weight.split(rows):
        part.copy_(torch.randn(part.shape, generator=generator))
    return weight.mul_(math.sqrt(2 / max(1, weight[0].numel())))


def is_large(tensor: Tensor) -> bool:
    """Return whether a tensor is a weight so large that a second copy of it is avoided."""
    return tensor.nbytes > _LARGE_BYTES and tensor.ndim > 1 and tensor.is_floating_point()


def with_hooks_of(model: nn.Module, twin: nn.Module) -> nn.Module:
    """Register a network's hooks on a copy of it too, and return the copy."""
    for original, module in zip(model.modules(), twin.modules(), strict=True):
        module.__dict__.update({name: copy.copy(vars(original)[name]) for name in _HOOKS if name in vars(original)})
    return twin


def plain_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors that are plain attributes of a network's modules, or items of lists and dicts in these."""
    queue = [value for module in model.modules() for name, value in vars(module).items() if name not in _TABLES]
    seen: set[int] = set()
    while queue:
        value = queue.pop()
        if isinstance(value, Tensor):
            yield value
        elif type(value) in _CONTAINERS and id(value) not in seen:
            seen.add(id(value))
            queue += [item for _, item in _changeable_items(value)]


def _is_changeable(value: Any) -> bool:
    return type(value) in _CONTAINERS or isinstance(value, Tensor)


def _changeable_items(container: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (key or index, item) for the tensors and containers in a list or dict; nothing for a set."""
    pairs = container.items() if isinstance(container, dict) else enumerate(container)
    return ((key, item) for key, item in pairs if type(container) is not set and _is_changeable(item))


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network's parameters."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


class _Copier:
    """Copies one module tree; modules and tensors that occur twice are copied once."""

    def __init__(self, tensor: Callable[[str, Tensor], Tensor]) -> None:
        self._tensor = tensor
        self._tensors: dict[int, Tensor] = {}
        self._modules: dict[int, nn.Module] = {}
        self._plain: list[tuple[dict[str, Any], str, Any]] = []
        self._containers: dict[int, Any] = {}

    def copy_network(self, model: nn.Module) -> nn.Module:
        """Copy the module tree, then the plain attributes of its modules that hold tensors."""
        twin = self.copy_module(model, "")
        for state, name, value in self._plain:
            state[name] = self._copy_plain(value)
        return twin

    def copy_module(self, module: nn.Module, prefix: str) -> nn.Module:
        if id(module) in self._modules:
            return self._modules[id(module)]
        kind = module.__class__
        # Not kind.__new__: that of a torch.fx.GraphModule makes a class without the generated forward.
        twin = self._modules[id(module)] = object.__new__(kind)
        state: dict[str, Any] = {}
        for name, value in module.__dict__.items():
            if type(value) in _ATOMS or name in _TABLES:
                state[name] = value
            elif name in _HOOKS:
                state[name] = type(value)()
            elif name != "_compiled_call_impl":
                state[name] = value
                if _is_changeable(value):
                    self._plain.append((twin.__dict__, name, value))
        for table in ("_parameters", "_buffers"):
            state[table] = {key: self._copy_tensor(old, prefix + key) for key, old in state[table].items()}
        state["_modules"] = {
            key: None if child is None else self.copy_module(child, f"{prefix}{key}.")
            for key, child in module._modules.items()
        }
        twin.__dict__.update(state)
        if state["_parameters"] or state["_buffers"]:
            _follow_sizes(twin, module)
        return twin

    def _copy_plain(self, value: Any) -> Any:
        """Copy an attribute that is not a parameter, buffer or layer, so that changing it leaves the original alone."""
        if isinstance(value, Tensor):
            if id(value) not in self._tensors:
                self._tensors[id(value)] = value.detach().clone()
            return self._tensors[id(value)]
        if id(value) not in self._containers:
            twin = self._containers[id(value)] = value.copy()
            for key, item in list(_changeable_items(value)):
                twin[key] = self._copy_plain(item)
        return self._containers[id(value)]

    def _copy_tensor(self, old: Tensor | None, name: str) -> Tensor | None:
        if old is not None and id(old) not in self._tensors:
            new = self._tensor(name, old.detach())
            is_parameter = isinstance(old, nn.Parameter)
            self._tensors[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad) if is_parameter else new
        return None if old is None else self._tensors[id(old)]


def _follow_sizes(module: nn.Module, original: nn.Module) -> None:
    """Set a layer's sizes to those of its tensors, in its `__dict__`: an assignment would take torch's slow path."""
    state = module.__dict__
    if isinstance(module, CONV):
        first, second = module.weight.shape[:2]
        if is_depthwise(module):
            state.update(in_channels=first, out_channels=first, groups=first)
        elif isinstance(module, TRANSPOSED):
            state.update(in_channels=first, out_channels=second * module.groups)
        else:
            state.update(out_channels=first, in_channels=second * module.groups)
    elif isinstance(module, nn.Linear):
        state.update(out_features=module.weight.shape[0], in_features=module.weight.shape[1])
    elif isinstance(module, BATCHNORM):
        tensor = module.weight if module.weight is not None else module.running_mean
        state.update(num_features=module.num_features if tensor is None else tensor.shape[0])
    elif isinstance(module, nn.PReLU):
        state.update(num_parameters=module.weight.numel())
    else:  # a custom layer, or torch's InstanceNorm
        tensors = zip(tensors_of_layer(original), tensors_of_layer(module), strict=True)
        sizes = {old.shape[0]: new.shape[0] for old, new in tensors if old.ndim and old.shape[0] != new.shape[0]}
        state.update({name: sizes[state[name]] for name in _SIZES if state.get(name) in sizes})


def tensors_of_layer(module: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers of a layer itself, without those of its sublayers."""
    return [tensor for tensor in (*module._parameters.values(), *module._buffers.values()) if tensor is not None]
