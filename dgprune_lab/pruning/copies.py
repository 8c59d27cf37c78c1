"""Copies of a network: the same modules with other tensors."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..core import BATCHNORM, CONV, TRANSPOSED, is_depthwise

_TABLES = frozenset({"_parameters", "_buffers", "_modules"})
_HOOKS = frozenset(name for name, value in nn.Module().__dict__.items() if "hooks" in name and isinstance(value, dict))
_ATOMS = frozenset({bool, int, float, str, type(None), tuple})
_CONTAINERS = frozenset({list, dict, set, OrderedDict, defaultdict, deque})


def rebuild(model: nn.Module, tensor: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """Return a copy of a module tree with every parameter and buffer replaced by `tensor(name, old)`, without hooks.

    Nothing is initialised and no weight is copied twice, so this takes well under a millisecond for a ResNet-18.
    Shared modules and shared tensors stay shared. Sizes such as `out_channels` follow the new tensors. Tensors that are
    plain attributes are cloned, plain lists and dicts copied. What `net.compile()` made is left out, since it calls the
    original. Layers that are not registered (in a plain list, in a closure) are not copied: `prove_copies` refuses
    networks that have them.
    """
    with torch.no_grad():
        return _Copier(tensor).module(model, "")


def deep_copy(model: nn.Module) -> nn.Module:
    """Return a copy with its own weights and no hooks, in the modes of the argument."""
    return rebuild(model, lambda _, tensor: tensor.clone())


def shared_copy(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode that shares the parameters, without hooks or gradients; it has its own buffers."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    twin = rebuild(model, lambda name, tensor: tensor if name in names else tensor.clone())
    return twin.eval().requires_grad_(False)


def with_hooks_of(model: nn.Module, twin: nn.Module) -> nn.Module:
    """Give a copy of a network the hooks of the original, in tables of its own; return the copy."""
    for original, module in zip(model.modules(), twin.modules(), strict=True):
        module.__dict__.update({name: copy.copy(vars(original)[name]) for name in _HOOKS if name in vars(original)})
    return twin


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network's parameters."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


class _Copier:
    """Copies one module tree; modules and tensors that occur twice are copied once."""

    def __init__(self, tensor: Callable[[str, Tensor], Tensor]) -> None:
        self._tensor = tensor
        self._tensors: dict[int, Tensor] = {}
        self._modules: dict[int, nn.Module] = {}

    def module(self, module: nn.Module, prefix: str) -> nn.Module:
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
                state[name] = self._plain(value)
        for table in ("_parameters", "_buffers"):
            state[table] = {key: self._copied(old, prefix + key) for key, old in state[table].items()}
        state["_modules"] = {
            key: None if child is None else self.module(child, f"{prefix}{key}.")
            for key, child in module._modules.items()
        }
        twin.__dict__.update(state)
        if state["_parameters"] or state["_buffers"]:
            _follow_sizes(twin)
        return twin

    def _plain(self, value: Any) -> Any:
        """An attribute that is no parameter, buffer or layer: its own, where it can be changed in place."""
        if isinstance(value, Tensor):
            return self._tensors.setdefault(id(value), value.detach().clone())
        return value.copy() if type(value) in _CONTAINERS else value

    def _copied(self, old: Tensor | None, name: str) -> Tensor | None:
        if old is not None and id(old) not in self._tensors:
            new = self._tensor(name, old.detach())
            is_parameter = isinstance(old, nn.Parameter)
            self._tensors[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad) if is_parameter else new
        return None if old is None else self._tensors[id(old)]


def _follow_sizes(module: nn.Module) -> None:
    """Make a layer's sizes match its tensors; plain assignments would take torch's slow path."""
    own = module.__dict__
    if isinstance(module, CONV):
        first, second = module.weight.shape[:2]
        if is_depthwise(module):
            own.update(in_channels=first, out_channels=first, groups=first)
        elif isinstance(module, TRANSPOSED):
            own.update(in_channels=first, out_channels=second * module.groups)
        else:
            own.update(out_channels=first, in_channels=second * module.groups)
    elif isinstance(module, nn.Linear):
        own.update(out_features=module.weight.shape[0], in_features=module.weight.shape[1])
    elif isinstance(module, BATCHNORM):
        tensor = module.weight if module.weight is not None else module.running_mean
        own.update(num_features=module.num_features if tensor is None else tensor.shape[0])
    elif isinstance(module, nn.PReLU):
        own.update(num_parameters=module.weight.numel())
