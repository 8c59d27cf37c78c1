"""BatchNorm put into the layer before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core import BATCHNORM, CONV, TRANSPOSED, DgpruneError, provenance_of, set_provenance
from .surgery import rebuild


def folded(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy in which every BatchNorm is part of the convolution or linear layer directly before it; eval mode.

    W' = W gamma / sqrt(var + eps), b' = (b - mean) gamma / sqrt(var + eps) + beta. Which layer stands before which is
    seen by running one batch; the folded network must give the same answers on it.

    Args:
        model: untouched.
        example: a batch of images.

    Raises:
        DgpruneError: a BatchNorm that does not directly follow one such layer, by name; other answers.
    """
    twin = rebuild(model, lambda _, tensor: tensor.detach().clone()).eval().requires_grad_(False)
    modules = dict(twin.named_modules())
    pairs, before = _pairs(twin, modules, example)
    for norm, layer in pairs.items():
        _fold(modules[layer], modules[norm])
        owner, _, leaf = norm.rpartition(".")
        modules[owner]._modules[leaf] = nn.Identity()
    with torch.no_grad():
        after = twin(example)
    if not torch.allclose(after, before, rtol=0, atol=1e-3 * float(before.abs().max())):
        raise DgpruneError(
            "with BatchNorm folded this network gives other answers: some layer's output is also read before its "
            "BatchNorm. Use batchnorm='as_is' or 'recalibrate'."
        )
    set_provenance(twin, provenance_of(model))
    return twin


def _pairs(twin: nn.Module, modules: dict[str, nn.Module], example: Tensor) -> tuple[dict[str, str], Tensor]:
    """BatchNorm -> the layer whose very output it reads, and what the network answers."""
    written: list[tuple[str, Tensor, int]] = []
    read: list[tuple[str, str | None]] = []

    def listen(name: str, module: nn.Module) -> RemovableHandle:
        def wrote(_module: nn.Module, _given: Any, output: Tensor) -> None:
            written.append((name, output, output._version))

        def reads(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
            read.append((name, _writer(written, given[0])))

        if isinstance(module, BATCHNORM):
            return module.register_forward_pre_hook(reads)
        return module.register_forward_hook(wrote)

    heard = {name: module for name, module in modules.items() if isinstance(module, (*CONV, nn.Linear, BATCHNORM))}
    hooks = [listen(name, module) for name, module in heard.items()]
    with torch.no_grad():
        before = twin(example)
    for hook in hooks:
        hook.remove()
    calls, producers = [name for name, _, _ in written], [layer for _, layer in read]
    for name in (name for name, module in modules.items() if isinstance(module, BATCHNORM)):
        layers = [layer for norm, layer in read if norm == name]
        layer = layers[0] if len(layers) == 1 else None
        alone = layer is not None and calls.count(layer) == producers.count(layer) == 1
        ready = getattr(modules[name], "running_mean", None) is not None
        if layer is None or not alone or not ready or isinstance(modules[layer], TRANSPOSED):
            raise DgpruneError(
                f"BatchNorm {name!r} does not directly follow one convolution or linear layer of its own, so it "
                "cannot be folded; use batchnorm='as_is' or 'recalibrate'."
            )
    return {norm: layer for norm, layer in read if layer is not None}, before


def _writer(written: list[tuple[str, Tensor, int]], tensor: Tensor) -> str | None:
    """The layer that made this very tensor, unless something has been written into it since."""
    return next((name for name, out, version in written if out is tensor and out._version == version), None)


def _fold(layer: nn.Module, norm: nn.Module) -> None:
    """Put a BatchNorm into the layer before it, in place."""
    mean, var = norm.running_mean.double(), norm.running_var.double()  # type: ignore[union-attr,operator]
    scale = (var + norm.eps).rsqrt()  # type: ignore[operator]
    scale = scale if norm.weight is None else scale * norm.weight.double()  # type: ignore[operator]
    shift = -mean * scale if norm.bias is None else norm.bias.double() - mean * scale  # type: ignore[operator]
    weight: Tensor = layer.weight  # type: ignore[assignment]
    bias = shift if layer.bias is None else shift + layer.bias.double() * scale  # type: ignore[operator]
    ends = (-1,) + (1,) * (weight.ndim - 1)
    layer.weight = nn.Parameter((weight.double() * scale.view(ends)).to(weight.dtype), requires_grad=False)
    layer.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
