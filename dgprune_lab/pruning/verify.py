"""The filter groups of a network, each verified: removing and masking must give the same logits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from ..core import DgpruneError, FilterGraph, FilterGroup, Mask, public
from .copies import device_of, rebuild
from .groups import assemble, trace
from .holders import refuse_uncopyable
from .proof import prove_copies
from .surgery import prune, zeroed
from .tracing import refuse_wrappers, run_order

_TOLERANCE = 1e-3


@public
def read_groups(model: nn.Module, example: Tensor, *, layers: Literal["conv", "all"] = "conv") -> FilterGraph:
    """Return which filters of a network must be removed together, for any architecture that can be traced.

    Each group is tested: half of its filters are removed from a copy with random weights, and the logits must equal
    those of the same copy with these filters masked, to 0.1 % of their standard deviation. A group that fails is
    refused by name; the others remain.

    Args:
        model: the network; it stays unchanged.
        example: (N, C, H, W) float images of the size the network takes; two of them are used.
        layers: "conv" for filters of convolutions; "all" for hidden units of linear layers too.

    Raises:
        DgpruneError: a network with nothing to prune, an operation that cannot be traced, a wrapper, images of a size
            that the network does not take.
    """
    refuse_uncopyable(model)
    refuse_wrappers(model)
    prove_copies(model, example)
    example = example[:2].to(device_of(model))
    graph = trace(model, example[:1], layers=layers)
    if graph.groups:
        graph = _verified(model, graph, example=example)
    if not graph.groups:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(graph.refused.items())[:3])
        more = "" if layers == "all" else " Hidden units of linear layers can be pruned with layers='all'."
        raise DgpruneError(
            f"the network has nothing to prune{': ' + why if why else ' (no convolution before the last layer)'}.{more}"
        )
    return graph


def _verified(model: nn.Module, graph: FilterGraph, *, example: Tensor) -> FilterGraph:
    twin = _random_twin(model).eval()
    images = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    if _failure(twin, images, graph=graph, groups=graph.groups) is None:
        return graph
    reasons = {group.name: _failure(twin, images, graph=graph, groups=(group,)) for group in graph.groups}
    good = [group for group in graph.groups if reasons[group.name] is None]
    refused = {**graph.refused, **{name: reason for name, reason in reasons.items() if reason is not None}}
    ran = run_order(twin, images)
    graph = assemble(model, good, refused=refused, ran=ran, example=example, layers=graph.layers)
    why = _failure(twin, images, graph=graph, groups=graph.groups) if good else None
    if why is not None:
        raise DgpruneError(f"the layers of this network cannot be pruned together ({why}).")
    return graph


def _failure(model: nn.Module, images: Tensor, *, graph: FilterGraph, groups: tuple[FilterGroup, ...]) -> str | None:
    """Why removing half of the filters of these groups is not the same as masking them; None if it is."""
    mask = _half(graph, groups)
    with torch.no_grad():
        dense, zero = model(images), zeroed(model, mask)(images)
        if not isinstance(dense, Tensor):
            raise DgpruneError(f"the network must return logits as one tensor; it returned {type(dense).__name__}.")
        try:
            small = prune(model, mask)(images)
        except Exception as error:
            return f"removing filters breaks the network ({type(error).__name__}: {str(error).splitlines()[0]})"
    spread = float(dense.double().std())
    if not math.isfinite(spread) or spread == 0:
        raise DgpruneError("the network's logits do not depend on its input, so its pruning cannot be verified.")
    if small.shape != dense.shape:
        return "removing its filters changes the number of outputs"
    difference = float((small - zero).abs().max()) / spread
    if difference <= _TOLERANCE:
        return None
    return f"removed and masked differ by {difference:.1%} of the standard deviation of the logits"


def _half(graph: FilterGraph, groups: tuple[FilterGroup, ...]) -> Mask:
    """A mask that removes a random half of the units of these groups."""
    generator = torch.Generator().manual_seed(1)
    keep = {group.name: torch.ones(group.filters, dtype=torch.bool) for group in graph.groups}
    for group in groups:
        units = int(group.units.max()) + 1
        removed = torch.randperm(units, generator=generator)[: units // 2]
        keep[group.name] = ~torch.isin(group.units, removed)
    return replace(Mask.by_hand(graph), keep=keep)


def _random_twin(model: nn.Module) -> nn.Module:
    """A copy with random weights and statistics, since a zero-initialised head would hide any difference."""
    generator = torch.Generator().manual_seed(0)
    parameters = {name for name, _ in model.named_parameters()}

    def random(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor.clone()
        normal = torch.randn(tensor.shape, generator=generator).to(tensor)
        leaf = name.rpartition(".")[2]
        if tensor.ndim > 1:
            return normal * math.sqrt(2 / max(1, tensor[0].numel()))
        if leaf == "running_var" or (leaf == "weight" and name in parameters):
            return 0.5 + normal.abs().clamp(max=2)
        return normal * 0.2 if name in parameters or leaf in ("bias", "running_mean") else tensor.clone()

    return rebuild(model, random)
