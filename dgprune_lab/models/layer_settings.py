"""What determines a network's output besides its tensors: the kind and settings of each layer, as in its card."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from ..core import BATCHNORM

_INTERNAL = frozenset(vars(nn.Module()))
# Sizes of tensors: their shapes are compared separately.
_SIZES = {"in_channels", "out_channels", "in_features", "out_features", "num_features", "num_channels", "channels"}
_SIZES |= {"num_parameters", "normalized_shape"}
_TRAINING = {"inplace", "drop_rate", "drop_prob", "drop_path_rate", "grad_checkpointing"}
_PAIRS = ("kernel_size", "stride", "padding", "dilation", "output_size", "scale_factor")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, Enum)


def layer_settings(model: nn.Module) -> dict[str, dict[str, str]]:
    """Return, for each layer by its dotted name, its kind and those settings that change what it computes in eval mode.

    A setting is an attribute that is a number, a text, a function (which counts by its name), or a list or tuple of
    these; so is the order of the layers of an nn.Sequential. Left out are dicts (hyperparameters, the origin of
    pretrained weights), the sizes of tensors, and what matters in training only: the momentum of BatchNorm, the
    probability of dropout, and whether a layer works in place.

    >>> layer_settings(nn.Sequential(nn.LeakyReLU(0.2)))
    {'': {'kind': 'Sequential', 'order': '0'}, '0': {'kind': 'LeakyReLU', 'negative_slope': '0.2'}}
    """
    return {name: {"kind": type(module).__name__, **_settings(module)} for name, module in model.named_modules()}


def layer_difference(saved: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    """Describe the first layer whose kind or settings differ, and say how many do; None if none does.

    A setting that only one of the two has is not compared: another version of PyTorch may have added it.
    """
    differing = {layer: names for layer in {**own, **saved} if (names := _differing(saved.get(layer), own.get(layer)))}
    if not differing:
        return None
    layer, names = next(iter(differing.items()))
    what = f"layer {layer!r}" if layer else "the network itself"
    more = f" ({len(differing)} layers differ)" if len(differing) > 1 else ""
    if names == ["kind"]:
        was, now = (_kind(layers.get(layer)) for layers in (saved, own))
        return f"{what} was {was}, is {now}{more}"
    had, has = (", ".join(f"{name}={layers[layer][name]}" for name in names) for layers in (saved, own))
    return f"{what} had {had}, has {has}{more}"


def _differing(saved: Any, own: Any) -> list[str]:
    """Return the names of the settings that differ; only "kind" if the kinds differ or one layer is missing."""
    if saved is None or own is None or _kind(saved) != _kind(own):
        return ["kind"]
    return [name for name in saved if name in own and saved[name] != own[name]]


def _kind(layer: Any) -> str:
    return str(layer.get("kind")) if isinstance(layer, Mapping) else "not there"


def _settings(module: nn.Module) -> dict[str, str]:
    left_out, of_torch = _INTERNAL | _SIZES | _TRAINING, type(module).__module__.startswith("torch.")
    left_out |= {"momentum"} if isinstance(module, BATCHNORM) else set()
    drops = isinstance(module, _DropoutNd) or type(module).__name__ == "StochasticDepth"  # torchvision's
    left_out |= {"p"} if drops else set()
    settings: dict[str, str] = {}
    if isinstance(module, nn.Sequential):
        settings["order"] = ", ".join(module._modules)
    for name, value in sorted(vars(module).items()):
        hidden = name in left_out or name.startswith("dgprune_") or (of_torch and name.startswith("_"))
        if not hidden and (text := _text(value)) is not None:
            pair = name in _PAIRS and isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]
            settings[name] = repr(value[0]) if pair else text  # nn.MaxPool2d(2) is nn.MaxPool2d((2, 2))
    return settings


def _text(value: object) -> str | None:
    """Return a setting as text that is the same in every process; None for a value that is not a setting."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, list | tuple):
        parts = [_text(part) for part in value]
        return None if None in parts else f"({', '.join(map(str, parts))})"
    if callable(value) and not isinstance(value, nn.Module | type):
        return getattr(value, "__qualname__", None)
    return None
