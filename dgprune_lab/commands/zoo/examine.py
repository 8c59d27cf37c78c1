"""Examine one architecture in a child process: read its groups, remove half of each, and check independently.

Then Torch-Pruning alone does the same job: it removes half of each layer, except the outputs.
"""

from __future__ import annotations

import copy
import hashlib
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...core import CONV, DgpruneError, Domain, FilterGraph, Mask
from ...measurement import measure
from ...pruning import prune, read_groups
from .architectures import Architecture
from .limits import Stage

TOLERANCE = 1e-3
"""Logits count as equal if their largest difference is at most this fraction of their standard deviation."""
_VISIBLE = 1e-2  # a mask that changes the logits by less than this share cannot show a difference
_BATCH = 4


def examine(architecture: Architecture, stage: Stage) -> dict[str, Any]:
    """Return the row of an architecture; see `rows.Row` for its columns.

    The check does not use the package's own masking: hooks on a dense network set the removed channels to zero at the
    input of every layer that consumes them; the logits must then equal those of the pruned network.
    """
    warnings.simplefilter("ignore")
    model, images = prepared(architecture)
    row: dict[str, Any] = {"size": images.shape[-1], "parameters": sum(p.numel() for p in model.parameters())}
    state = state_of(model)
    stage("read")
    started = time.process_time()
    try:
        graph = _groups(model, images, row=row)
    except DgpruneError as error:
        row["seconds"] = time.process_time() - started
        return {**row, **_outcome_columns(model, state, outcome="refused"), "reason": str(error)}
    row["seconds"] = time.process_time() - started
    reasons = "; ".join(f"{name}: {why}" for name, why in graph.refused.items())
    row |= {"groups": len(graph.groups), "prunable": graph.free, "filters": graph.total, "reason": reasons}
    stage("check")
    mask = Mask.by_hand(graph, removed={group.name: _half_of_filters(group.units) for group in graph.groups})
    row |= compare(model, mask, images=images)
    stage("measure")
    before, after = (_measured_parameters(net, images) for net in (model, prune(model, mask)))
    row["parameters_removed"] = 1 - after / before
    equal = row["difference"] <= TOLERANCE and row["effect"] >= _VISIBLE and after < before
    return row | _outcome_columns(model, state, outcome=("partial" if graph.refused else "full") if equal else "wrong")


def _groups(model: nn.Module, images: Tensor, *, row: dict[str, Any]) -> FilterGraph:
    """Return the groups of the convolutions; if there are none, those of hidden linear layers too."""
    row["layers"] = "conv"
    try:
        return read_groups(model, images)
    except DgpruneError as error:
        if "layers='all'" not in str(error):
            raise
    row["layers"] = "all"
    return read_groups(model, images, layers="all")


def _outcome_columns(model: nn.Module, state: str, *, outcome: str) -> dict[str, Any]:
    """Return the columns on the outcome, which is "wrong" if the original network has changed."""
    same = state_of(model) == state
    return {"outcome": outcome if same else "wrong", "unchanged": same}


def prepared(architecture: Architecture) -> tuple[nn.Module, Tensor]:
    """Return the network with random weights in eval mode, and images of the first size that it takes.

    Nothing in the network is zero or neutral by construction: BatchNorm statistics are those of random images with some
    noise; BatchNorm's scales and shifts, and every other parameter whose values are all equal, are random.
    """
    torch.manual_seed(0)
    model = architecture.build().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            _randomise(parameter, generator)
        images = _images(model, architecture.sizes)
        _set_statistics(model, images, generator=generator)
    return model, images


def _randomise(parameter: Tensor, generator: torch.Generator) -> None:
    """Draw random values for a parameter whose values are all equal, such as a zero-initialised one."""
    values = parameter.flatten()
    if len(values) < 2 or not bool((values == values[0]).all()):
        return
    normal = torch.randn(parameter.shape, generator=generator)
    if parameter.ndim < 2 and float(values[0]) != 0:
        parameter.copy_(0.5 + normal.abs().clamp(max=2))
    else:
        parameter.copy_(normal * (0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5))


def _images(model: nn.Module, sizes: tuple[int, ...]) -> Tensor:
    """Return random images of the first size that the network takes; if it takes none, raise its last error."""
    size, *larger = sizes
    images = torch.rand(_BATCH, 3, size, size, generator=torch.Generator().manual_seed(2))
    try:
        model(images)
    except Exception:
        if not larger:
            raise
        return _images(model, tuple(larger))
    return images


def _set_statistics(model: nn.Module, images: Tensor, *, generator: torch.Generator) -> None:
    """Set BatchNorm statistics as after training: those of the images, with some noise, so that none is neutral."""
    norms = [module for module in model.modules() if isinstance(getattr(module, "running_mean", None), Tensor)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # type: ignore[assignment]
    model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
        mean, variance = norm.running_mean, norm.running_var
        assert isinstance(mean, Tensor) and isinstance(variance, Tensor)
        variance.clamp_(min=1e-3).mul_(0.5 + torch.rand(variance.shape, generator=generator))
        mean.add_(0.2 * variance.sqrt() * torch.randn(mean.shape, generator=generator))


def state_of(model: nn.Module) -> str:
    """Return a hash of everything that must not change: values, modes, hooks, and which parameters are trained."""
    digest = hashlib.blake2b()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.requires_grad} {tensor.grad is None}".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
    for name, module in model.named_modules():
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        digest.update(f"{name} {type(module).__name__} {module.training} {hooks}".encode())
    return digest.hexdigest()


def _half_of_filters(units: Tensor) -> list[int]:
    """Return the filters in a random half of the units of a group."""
    count = int(units.max()) + 1
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(3))[: count // 2]
    return torch.isin(units, chosen).nonzero().flatten().tolist()


def compare(model: nn.Module, mask: Mask, *, images: Tensor) -> dict[str, float]:
    """Return the largest differences of the pruned and the dense network's logits from the masked one's.

    Both are divided by the standard deviation of the masked logits. The compared float64 copy of the network has
    BatchNorm statistics measured under the mask: with the dense network's statistics, hardly anything of the image
    reaches the logits of a deep network without half of its filters, and mistakes would not show.
    """
    exact, images = copy.deepcopy(model).double(), images.double()
    with torch.no_grad():
        with silenced(exact, mask):
            _set_statistics(exact, images, generator=torch.Generator().manual_seed(4))
            masked = exact(images)
        dense, removed = exact(images), prune(exact, mask)(images)
    spread = max(float(masked.std()), 1e-30)
    difference, effect = (float((x - masked).abs().max()) / spread for x in (removed, dense))
    finite = bool(torch.isfinite(removed).all() and torch.isfinite(masked).all())
    return {"difference": difference if finite else float("inf"), "effect": effect if finite else 0.0}


@contextmanager
def silenced(model: nn.Module, mask: Mask) -> Iterator[None]:
    """Within the block, hooks set each removed channel to zero at the input of every layer that consumes it."""
    gates: dict[str, list[Tensor]] = {}
    for group in mask.graph.groups:
        removed = ~mask.keep[group.name]
        for name, (positions, filters) in group.consumer_inputs.items():
            gates.setdefault(name, []).append(positions[removed[filters]])
    handles = []
    for name, places in gates.items():
        layer = model.get_submodule(name)
        handles.append(layer.register_forward_pre_hook(_hook(torch.cat(places), linear=isinstance(layer, nn.Linear))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(places: Tensor, *, linear: bool) -> Any:
    def zero(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        first, *others = arguments
        return (first.index_fill(-1 if linear else 1, places, 0), *others)

    return zero


def _measured_parameters(model: nn.Module, images: Tensor) -> float:
    """Return the number of parameters that `measure` reports."""
    domain = Domain.from_arrays(
        "random",
        images=images[:2],
        labels=torch.arange(2),
        splits={"report": [0, 1]},
        classes=model(images[:1]).shape[1],
    )
    table = measure(model, domain, latency=False)
    return float(table.loc[table.metric == "parameters", "value"].iloc[0])


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
    """Return the convolution or linear layer that runs last."""
    ran: list[nn.Module] = []
    layers = [module for module in model.modules() if isinstance(module, (*CONV, nn.Linear))]
    handles = [layer.register_forward_hook(lambda module, *_: ran.append(module)) for layer in layers]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return ran[-1]
