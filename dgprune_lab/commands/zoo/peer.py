"""The same job by Torch-Pruning alone, in a child process: half of each layer is removed, except the outputs."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from ...core import CONV
from .architectures import Architecture
from .examine import prepared
from .limits import Stage


def prune_by_torch_pruning(architecture: Architecture, stage: Stage) -> dict[str, Any]:
    """Return {"outcome": text}: the result of `tp.pruner.MagnitudePruner` on the architecture.

    "works" means that the pruned network runs and has fewer parameters and equally many outputs; whether its logits are
    those of the masked network is not checked. Exceptions are passed to the caller.
    """
    import torch_pruning as tp

    warnings.simplefilter("ignore")
    model, images = prepared(architecture)
    stage("read")
    before, outputs = sum(p.numel() for p in model.parameters()), model(images).shape
    pruner = tp.pruner.MagnitudePruner(
        model,
        images[:1],
        importance=tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.5,
        ignored_layers=[_last_layer(model, images)],
    )
    pruner.step()
    share = 1 - sum(p.numel() for p in model.parameters()) / before
    with torch.no_grad():
        shape = model(images).shape
    if shape != outputs:
        return {"outcome": f"removes outputs ({outputs[1]} to {shape[1]})"}
    return {"outcome": f"works, {share:.0%} of parameters" if share > 0 else "removes nothing"}


def _last_layer(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """The convolution or linear layer that runs last."""
    ran: list[nn.Module] = []
    layers = [module for module in model.modules() if isinstance(module, (*CONV, nn.Linear))]
    handles = [layer.register_forward_hook(lambda module, *_: ran.append(module)) for layer in layers]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return ran[-1]
