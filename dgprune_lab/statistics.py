"""One pass of a model over a domain: what the chosen scorers need, as running sums."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .contract import Need
from .surgery import rebuild
from .types.domain import Domain
from .types.errors import DgpruneError, note
from .types.graph import FilterGraph, FilterGroup
from .types.statistics import Moments, Statistics


def gather(
    model: nn.Module,
    graph: FilterGraph,
    *,
    domain: Domain,
    needs: Collection[Need],
    split: str = "score",
    size: int = 250,
) -> Statistics:
    """One pass over one part of a domain, in eval mode, on a private copy of the network.

    Memory does not grow with the number of images: every hook reduces what it sees to sums.

    Args:
        model: untouched; its parameters are shared with the copy, not duplicated.
        graph: its groups.
        domain: where images (and labels, for gate and weight_gradient) come from.
        needs: of mean_map, moments, gate, weight_gradient.
        split: the part to read.
        size: images per batch; halved, and said, when memory runs out.

    Raises:
        DgpruneError: labels are needed and there are none; the network gives non-finite outputs.
    """
    try:
        return _gather(model, graph, domain, needs, split, size)
    except torch.OutOfMemoryError:
        if size == 1:
            raise DgpruneError(
                "the device has too little memory for a single image; use a smaller network or the CPU."
            ) from None
    # Outside the handler, which would keep the failed pass alive; from the start, as some sums were already made.
    half = -(-min(size, len(domain.rows(split))) // 2)
    note(f"memory ran out at {size} images a batch; starting again with {half}.", stacklevel=2)
    return gather(model, graph, domain=domain, needs=needs, split=split, size=half)


def _gather(
    model: nn.Module, graph: FilterGraph, domain: Domain, needs: Collection[Need], split: str, size: int
) -> Statistics:
    wants_gradient = bool({"gate", "weight_gradient"} & set(needs))
    if wants_gradient and domain.labels is None:
        raise DgpruneError(f"domain {domain.name!r} has no labels; gradients of the risk need them.")
    twin = rebuild(model, lambda _, tensor: tensor.detach()).eval()
    sites = _gate_sites(twin, graph) if "gate" in needs else {}
    watched = _watched(twin, graph, sites, whole="weight_gradient" in needs)
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_(name in watched)
    sums = _Sums(graph, {"mean_map", "moments"} & set(needs))
    sums.listen(twin)
    gradients: dict[str, Tensor] = {}
    risk, count, device = 0.0, 0, next(twin.parameters()).device
    for batch in domain.batches(split, size=size, device=device):
        with torch.set_grad_enabled(wants_gradient):
            logits = twin(batch.images)
            _check_finite(logits, domain)
            if wants_gradient:
                assert batch.labels is not None
                loss = F.cross_entropy(logits, batch.labels, reduction="sum")
                _accumulate(gradients, twin, watched, loss)
                risk += float(loss.detach().double())
        count += len(batch.images)
    if count == 0:
        raise DgpruneError(f"domain {domain.name!r} has no image in its part {split!r}.")
    gradients = {name: value / count for name, value in gradients.items()}
    tensors = dict(twin.named_parameters())
    gate = {name: _gate(graph[name], held, tensors, gradients) for name, held in sites.items()}
    shown = gradients if "weight_gradient" in needs else {}
    return Statistics(
        domain.name, split, count, wants_gradient, risk / count if wants_gradient else None,
        sums.mean_maps(), sums.moments(), gate, shown,
    )  # fmt: skip


def _check_finite(logits: Tensor, domain: Domain) -> None:
    if not torch.isfinite(logits).all():
        raise DgpruneError(f"the network gives NaN or infinite logits on domain {domain.name!r}; check its weights.")
    if domain.labels is not None and logits.shape[1] < domain.classes:
        raise DgpruneError(
            f"the network has {logits.shape[1]} outputs, domain {domain.name!r} has labels up to {domain.classes - 1}."
        )


def _accumulate(into: dict[str, Tensor], model: nn.Module, watched: set[str], loss: Tensor) -> None:
    named = [(name, p) for name, p in model.named_parameters() if name in watched]
    found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    for (name, parameter), gradient in zip(named, found, strict=True):
        value = torch.zeros_like(parameter) if gradient is None else gradient
        into[name] = into[name] + value.double() if name in into else value.double()


def _watched(model: nn.Module, graph: FilterGraph, sites: dict[str, list[str]], *, whole: bool) -> set[str]:
    chosen = {name for held in sites.values() for name in held}
    if whole:
        parameters = dict(model.named_parameters())
        chosen |= {m.tensor for g in graph.groups for m in g.members if m.tensor in parameters}
    return chosen


def _gate_sites(model: nn.Module, graph: FilterGraph) -> dict[str, list[str]]:
    """Per group, the tensors whose sum of w dL/dw is the gate's derivative: those of the group's last writers.

    BatchNorms (gamma and beta), or convolutions where none follows. What is rewritten before a layer reads it (by a
    depthwise convolution, or by the BatchNorm on a concatenation) does not count: the gate sits on the group's output.
    """
    sites = {}
    for group in graph.groups:
        modules = [(name, model.get_submodule(name)) for name in group.ends]
        if any(m.weight is None for _, m in modules):
            raise DgpruneError(f"layer {group.name!r}: its BatchNorm has no scale, so a gate gradient is not defined.")
        sites[group.name] = [
            f"{name}.{part}" for name, m in modules for part in ("weight", "bias") if getattr(m, part, None) is not None
        ]
    return sites


def _gate(
    group: FilterGroup, names: list[str], tensors: dict[str, nn.Parameter], gradients: dict[str, Tensor]
) -> Tensor:
    total = torch.zeros(group.filters, dtype=torch.float64)
    for member in group.members:
        if member.tensor in names and member.side == "out":
            product = tensors[member.tensor].detach().double() * gradients[member.tensor]
            per_place = product.movedim(member.axis, 0).flatten(1).sum(1) if product.ndim > 1 else product
            total.index_add_(0, member.filters, per_place.cpu()[member.positions])
    return total


class _Sums:
    """Sums at every group's door, reduced inside the hook: an in-place layer behind it would rewrite what was kept."""

    def __init__(self, graph: FilterGraph, needs: set[str]) -> None:
        self.graph, self.needs = graph, needs
        self._maps: dict[str, Tensor] = {}
        self._moments: dict[str, Tensor] = {}
        self._places: dict[str, int] = defaultdict(int)
        self._seen: dict[str, int] = defaultdict(int)

    def listen(self, model: nn.Module) -> None:
        """Hook the last consumer of every group of this private copy."""
        if self.needs:
            for group in self.graph.groups:
                model.get_submodule(group.consumers[-1]).register_forward_pre_hook(self._hook(group))

    def _hook(self, group: FilterGroup) -> Callable[..., None]:
        places, filters = group.doors[group.consumers[-1]]
        order = filters.argsort(stable=True)
        index = places[order]

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            with torch.no_grad():
                y = inputs[0].detach()
                if isinstance(module, nn.Linear):
                    y = y.movedim(-1, 1)
                spatial = y.shape[2:] if len(index) == group.filters else (-1, *y.shape[2:])
                if len(index) != y.shape[1] or not torch.equal(index, torch.arange(len(index))):
                    y = y.index_select(1, index.to(y.device))
                self._add(group.name, y.reshape(len(y), group.filters, *(spatial or (1,))))

        return hook

    def _add(self, name: str, y: Tensor) -> None:
        if "mean_map" in self.needs:
            total = y.double().sum(0)
            self._maps[name] = self._maps[name] + total if name in self._maps else total
            # Not the number of images: a layer that is called twice sees each of them twice.
            self._seen[name] += len(y)
        if "moments" in self.needs:
            flat = y.flatten(2).double()
            sums = torch.stack([
                flat.sum((0, 2)), flat.abs().sum((0, 2)), flat.square().sum((0, 2)), (flat == 0).double().sum((0, 2)),
            ])  # fmt: skip
            self._moments[name] = self._moments[name] + sums if name in self._moments else sums
            self._places[name] += flat.shape[0] * flat.shape[2]

    def mean_maps(self) -> dict[str, Tensor]:
        return {name: (total / self._seen[name]).cpu() for name, total in self._maps.items()}

    def moments(self) -> dict[str, Moments]:
        return {name: Moments(*(sums / self._places[name]).cpu()) for name, sums in self._moments.items()}
