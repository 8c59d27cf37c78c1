"""BatchNorm folded into the layer before it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.hooks import RemovableHandle

from ..core import BATCHNORM, CONV, TRANSPOSED, DgpruneError, full_precision, provenance_of, set_provenance
from .copies import deep_copy


def folded(model: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy, in eval mode, with every BatchNorm folded into the convolution or linear layer directly before it.

    W' = W gamma / sqrt(var + eps), b' = (b - mean) gamma / sqrt(var + eps) + beta. One batch is run to find the layer
    before each BatchNorm; the folded network must give the same logits on it.

    Args:
        model: the network; it stays unchanged.
        example: a batch of images.

    Raises:
        DgpruneError: a BatchNorm that does not directly follow such a layer (the message names it); a folded network
            whose logits differ from the original's.
    """
    twin = deep_copy(model).eval().requires_grad_(False)
    with full_precision(example.device):
        producers, logits = _find_producers(twin, example)
        modules = dict(twin.named_modules())
        for norm, layer in producers.items():
            _fold(modules[layer], modules[norm])
            owner, _, leaf = norm.rpartition(".")
            modules[owner]._modules[leaf] = nn.Identity()
        with torch.no_grad():
            folded_logits = twin(example)
    if not torch.allclose(folded_logits, logits, rtol=0, atol=1e-3 * float(logits.abs().max())):
        raise DgpruneError(
            "with BatchNorm folded this network gives other logits: some layer's output is also used before its "
            "BatchNorm. Use batchnorm='as_is' or 'recalibrate'."
        )
    set_provenance(twin, provenance_of(model))
    return twin


def _find_producers(twin: nn.Module, example: Tensor) -> tuple[dict[str, str], Tensor]:
    """Return BatchNorm name -> name of the layer whose output is its direct input, and the network's logits."""
    modules = dict(twin.named_modules())
    outputs: list[tuple[str, Tensor, int]] = []
    inputs: list[tuple[str, str | None]] = []

    def add_hook(name: str, module: nn.Module) -> RemovableHandle:
        def record_output(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            outputs.append((name, output, output._version))

        def record_input(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0]  # no longer the layer's output once it was written to in place
            inputs.append((name, next((n for n, y, version in outputs if y is x and y._version == version), None)))

        if isinstance(module, BATCHNORM):
            return module.register_forward_pre_hook(record_input)
        return module.register_forward_hook(record_output)

    with ExitStack() as hooks, torch.no_grad():
        for name, module in modules.items():
            if isinstance(module, (*CONV, nn.Linear, BATCHNORM)):
                hooks.enter_context(add_hook(name, module))
        logits = twin(example)
    calls, used = [name for name, _, _ in outputs], [layer for _, layer in inputs]
    for name in (name for name, module in modules.items() if isinstance(module, BATCHNORM)):
        layers = [layer for norm, layer in inputs if norm == name]
        layer = layers[0] if len(layers) == 1 else None
        is_private = layer is not None and calls.count(layer) == used.count(layer) == 1
        has_statistics = getattr(modules[name], "running_mean", None) is not None
        if layer is None or not is_private or not has_statistics or isinstance(modules[layer], TRANSPOSED):
            raise DgpruneError(
                f"BatchNorm {name!r} does not directly follow one convolution or linear layer of its own, so it "
                "cannot be folded; use batchnorm='as_is' or 'recalibrate'."
            )
    return {norm: layer for norm, layer in inputs if layer is not None}, logits


def _fold(layer: Any, norm: Any) -> None:
    """Fold a BatchNorm into the layer before it, in place, computing in float64, so that only the result is rounded."""
    tensors = (layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    exact: list[Any] = [None if tensor is None else tensor.double() for tensor in tensors]
    w, b, mean, var, gamma, beta = exact
    weight, bias = fuse_conv_bn_weights(w, b, mean, bn_rv=var, bn_eps=norm.eps, bn_w=gamma, bn_b=beta)
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
    layer.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
