"""One pass of a model over a domain: what the chosen scorers need, as running sums."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .contract import Need
from .running import Running
from .surgery import rebuild
from .types.domain import Domain
from .types.errors import DgpruneError, note
from .types.graph import FilterGraph, FilterGroup
from .types.statistics import Statistics

Site = Literal["door", "conv"]
_LABELLED: frozenset[Need] = frozenset({"gate", "weight_gradient", "risk", "class_co_moments"})


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
        domain: where images (and labels, for gate, weight_gradient, risk and class_co_moments) come from.
        needs: which fields of Statistics to fill.
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
    wants_gradient, wants_labels = bool({"gate", "weight_gradient"} & set(needs)), bool(_LABELLED & set(needs))
    if wants_labels and domain.labels is None:
        raise DgpruneError(f"domain {domain.name!r} has no labels; the risk, its gradients and classes need them.")
    twin = rebuild(model, lambda _, tensor: tensor.detach()).eval()
    sites = _gate_sites(twin, graph) if "gate" in needs else {}
    watched = _watched(twin, graph, sites, whole="weight_gradient" in needs)
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_(name in watched)
    sums = Running(twin, graph, needs=needs, classes=domain.classes if wants_labels else 0)
    gradients: dict[str, Tensor] = {}
    risk, count, device = 0.0, 0, next(twin.parameters()).device
    for batch in domain.batches(split, size=size, device=device):
        sums.begin(batch.labels if wants_labels else None)
        with torch.set_grad_enabled(wants_gradient):
            logits = twin(batch.images)
            _check_finite(logits, domain)
            if wants_labels:
                assert batch.labels is not None
                loss = F.cross_entropy(logits, batch.labels, reduction="sum")
                risk += float(loss.detach().double())
                if wants_gradient:
                    _accumulate(gradients, twin, watched, loss)
        sums.end(logits)
        count += len(batch.images)
    if count == 0:
        raise DgpruneError(f"domain {domain.name!r} has no image in its part {split!r}.")
    gradients = {name: value / count for name, value in gradients.items()}
    tensors = dict(twin.named_parameters())
    gate = {name: _gate(graph[name], held, tensors, gradients) for name, held in sites.items()}
    shown = gradients if "weight_gradient" in needs else {}
    return Statistics(
        domain.name, split, count, wants_labels, risk / count if wants_labels else None, gate=gate,
        weight_gradient=shown, **sums.results(),
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


def paired_cosines(
    model: nn.Module, graph: FilterGraph, *, domains: tuple[Domain, Domain], site: Site, split: str = "score",
    size: int = 125,
) -> dict[str, Tensor]:  # fmt: skip
    """Per group, (C,) mean over i of the cosine of a filter's maps on the i-th image of each of two domains.

    A pass of its own, over both together, as many images as the smaller part has; a zero map has cosine 0. Of several
    convolutions that write a group, the mean (site "conv").
    """
    twin = rebuild(model, lambda _, tensor: tensor.detach()).eval()
    running = _Pairs(twin, graph, site)
    count = min(len(domain.rows(split)) for domain in domains)
    device = next(twin.parameters()).device
    streams = [domain.batches(split, size=size, images=count, device=device) for domain in domains]
    for first, second in zip(*streams, strict=True):
        with torch.no_grad():
            twin(torch.cat([first.images, second.images]))
    return running.means()


class _Pairs(Running):
    """Sums of cosines between the first and the second half of every batch, instead of maps."""

    def __init__(self, model: nn.Module, graph: FilterGraph, site: Site) -> None:
        self._kind: Need = "mean_map" if site == "door" else "conv_map"
        super().__init__(model, graph, needs=[self._kind])

    def _maps(self, y: Tensor, mean: tuple[str, ...], unit: tuple[str, ...]) -> None:
        first, second = y.flatten(2).double().chunk(2)
        self._add(mean, F.cosine_similarity(first, second, dim=2, eps=1e-30).sum(0), len(first))

    def means(self) -> dict[str, Tensor]:
        """Group -> (C,)."""
        found = self.results()[self._kind]
        return {name: torch.stack(v).mean(0) if isinstance(v, tuple) else v for name, v in found.items()}


def map_shapes(model: nn.Module, graph: FilterGraph, example: Tensor) -> dict[str, list[tuple[int, ...]]]:
    """Per group, the shape (C, H, W) of its map at the door, then of each raw convolution output that writes it."""
    twin = rebuild(model, lambda _, tensor: tensor.detach()).eval()
    running = Running(twin, graph, needs=["mean_map", "conv_map"])
    with torch.no_grad():
        twin(example)
    return running.shapes()
