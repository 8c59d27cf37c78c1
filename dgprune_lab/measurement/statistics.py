"""One pass of a model over a domain: what the chosen scorers need, as running sums."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import CONV, LABELLED, ClassMoments, DgpruneError, Domain, FilterGraph, FilterGroup, Need, Statistics, note
from ..pruning import rebuild
from ..stats import class_moments, merged
from .hooks import Running, outputs
from .memory_format import layout_of

Site = Literal["consumer_input", "conv_output"]
# Maps of twice as many images of 28 pixels are too large for the allocator to keep, and a LeNet's pass takes 1.5 times
# as long; with fewer a ResNet's last layers have too little to do.
SIZE = 125


def gather(
    model: nn.Module,
    graph: FilterGraph,
    *,
    domain: Domain,
    needs: Collection[Need],
    split: str = "score",
    size: int = SIZE,
    layout: torch.memory_format | None = None,
) -> Statistics:
    """One pass over one part of a domain, in eval mode, on a private copy of the network.

    Memory does not grow with the number of images: every hook reduces what it sees to sums.

    Args:
        model: untouched; its parameters are shared with the copy, not duplicated.
        graph: its groups.
        domain: where images (and labels, for gate, class_gate, weight_gradient, risk and class_co_moments) come from.
        needs: which fields of Statistics to fill.
        split: the part to read.
        size: images per batch; halved, and said, when memory runs out.
        layout: of the images in memory; tried with two of them where not given.

    Raises:
        DgpruneError: labels are needed and there are none; the network gives non-finite outputs.
    """
    layout = layout_of(model, domain) if layout is None else layout
    try:
        return _gather(model, graph, domain, needs, split, size, layout)
    except torch.OutOfMemoryError:
        if size == 1:
            raise DgpruneError(
                "the device has too little memory for a single image; use a smaller network or the CPU."
            ) from None
    # Outside the handler, which would keep the failed pass alive; from the start, as some sums were already made.
    half = -(-min(size, len(domain.rows(split))) // 2)
    note(f"memory ran out at {size} images a batch; starting again with {half}.")
    return gather(model, graph, domain=domain, needs=needs, split=split, size=half, layout=layout)


def _gather(
    model: nn.Module,
    graph: FilterGraph,
    domain: Domain,
    needs: Collection[Need],
    split: str,
    size: int,
    layout: torch.memory_format,
) -> Statistics:
    wants_labels = bool(LABELLED & set(needs))
    if wants_labels and domain.labels is None:
        raise DgpruneError(f"domain {domain.name!r} has no labels; the risk, its gradients and classes need them.")
    twin = rebuild(model, lambda _, tensor: tensor.detach()).eval()
    gates = _Gates(twin, graph) if "gate" in needs else None
    whole = {m.tensor for group in graph.groups for m in group.members} if "weight_gradient" in needs else set()
    watched: dict[str, Tensor] = {} if gates is None else dict(gates.opened)
    for name, parameter in twin.named_parameters():
        wanted = name in whole or (gates is not None and name in gates.parameters)
        if parameter.requires_grad_(wanted).requires_grad:
            watched[name] = parameter
    by_class = _ClassGates(twin, graph, domain.classes) if "class_gate" in needs else None
    sums = Running(twin, graph, needs=needs, classes=domain.classes if wants_labels else 0)
    gradients: dict[str, Tensor] = {}
    risk, count, device = 0.0, 0, next(twin.parameters()).device
    for batch in domain.batches(split, size=size, device=device, layout=layout):
        sums.begin(batch.labels if wants_labels else None)
        with torch.set_grad_enabled(bool(watched) or by_class is not None):
            logits = twin(batch.images)
            _check_finite(logits, domain)
            if wants_labels:
                assert batch.labels is not None
                if by_class is not None:
                    by_class.add(logits, batch.labels, again=bool(watched))
                loss = F.cross_entropy(logits, batch.labels, reduction="sum")
                risk += float(loss.detach().double())
                _accumulate(gradients, watched, loss)
        sums.end(logits)
        count += len(batch.images)
    if count == 0:
        raise DgpruneError(f"domain {domain.name!r} has no image in its part {split!r}.")
    gradients = {name: value / count for name, value in gradients.items()}
    return Statistics(
        domain.name,
        split,
        count,
        wants_labels,
        risk / count if wants_labels else None,
        gate={} if gates is None else gates.gradient(gradients),
        class_gate={} if by_class is None else by_class.found,
        weight_gradient={name: gradients[name] for name in watched if name in whole},
        **sums.results(),
    )


def _check_finite(logits: Tensor, domain: Domain) -> None:
    if not torch.isfinite(logits).all():
        raise DgpruneError(f"the network gives NaN or infinite logits on domain {domain.name!r}; check its weights.")
    if domain.labels is not None and logits.shape[1] < domain.classes:
        raise DgpruneError(
            f"the network has {logits.shape[1]} outputs, domain {domain.name!r} has labels up to {domain.classes - 1}."
        )


def _accumulate(into: dict[str, Tensor], watched: dict[str, Tensor], loss: Tensor) -> None:
    found = torch.autograd.grad(loss, list(watched.values()), allow_unused=True) if watched else ()
    for (name, leaf), gradient in zip(watched.items(), found, strict=True):
        value = torch.zeros_like(leaf) if gradient is None else gradient
        into[name] = into[name] + value.double() if name in into else value.double()


class _Gates:
    """One gate on the output of every group: on those of its last writers.

    Behind a BatchNorm its derivative is that of gamma and beta, sum of w dL/dw, for which no activation is read.
    A layer without one, and a BatchNorm without scale, gets a real gate, a factor of ones: the gradient of a layer's
    weights would cost more than all else. What is rewritten before a layer reads it (by a depthwise
    convolution, or by the BatchNorm on a concatenation) does not count: the gate sits on the group's output.
    """

    def __init__(self, model: nn.Module, graph: FilterGraph) -> None:
        self._graph = graph
        self._tensors = dict(model.named_parameters())
        self.parameters: set[str] = set()
        self.opened: dict[str, Tensor] = {}
        for group in graph.groups:
            for name, module in {name: model.get_submodule(name) for name in group.ends}.items():
                if not isinstance(module, (*CONV, nn.Linear)) and module.weight is not None:
                    self.parameters |= {f"{name}.{part}" for part, _ in module.named_parameters(recurse=False)}
                elif name not in self.opened:
                    self.opened[name] = _open(module)

    def gradient(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Group -> (C,), from the gradients of `parameters` and `opened`."""
        return {group.name: self._of(group, gradients) for group in self._graph.groups}

    def _of(self, group: FilterGroup, gradients: dict[str, Tensor]) -> Tensor:
        total = torch.zeros(group.filters, dtype=torch.float64)
        for member in group.members:
            owner, _, part = member.tensor.rpartition(".")
            if owner not in group.ends or member.side != "out":
                continue
            if member.tensor in self.parameters:
                held = self._tensors[member.tensor].detach().double() * gradients[member.tensor]
            elif owner in self.opened and part in ("weight", "running_mean"):
                held = gradients[owner]
            else:
                continue
            total.index_add_(0, member.filters, held.cpu()[member.positions])
        return total


class _ClassGates:
    """Per image and filter the sum over places of y dl/dy, y the group's output and l the true class's logit.

    y is what the last writers give; what is read behind them is a copy, as torchvision adds to it in place. A residual
    stream has several writers, whose products are added up.
    """

    def __init__(self, model: nn.Module, graph: FilterGraph, classes: int) -> None:
        self._graph, self._classes = graph, classes
        self._kept: list[tuple[str, int, Tensor]] = []
        self.found: dict[str, ClassMoments] = {}
        for name in {end: None for group in graph.groups for end in group.ends}:
            model.get_submodule(name).register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            y = output if output.requires_grad else output.detach().requires_grad_()
            self._kept.append((name, -1 if isinstance(module, nn.Linear) else 1, y))
            return y.clone()

        return hook

    def add(self, logits: Tensor, labels: Tensor, *, again: bool) -> None:
        """A batch; `again` keeps the graph for another backward pass."""
        kept, self._kept = self._kept, []
        picked = logits.gather(1, labels[:, None]).sum()
        gradients = torch.autograd.grad(picked, [y for *_, y in kept], retain_graph=again, allow_unused=True)
        products: dict[str, Tensor] = {}
        for (name, axis, y), gradient in zip(kept, gradients, strict=True):
            if gradient is not None:
                found = (y.detach() * gradient).movedim(axis, 1).flatten(1).unflatten(1, (y.shape[axis], -1))
                products[name] = products.get(name, 0) + found.sum(2, dtype=torch.float64).cpu()
        for group in self._graph.groups:
            values = torch.zeros(len(labels), group.filters, dtype=torch.float64)
            for name, (positions, filters) in group.end_places.items():
                if name in products:
                    values.index_add_(1, filters, products[name][:, positions])
            moments = class_moments(values, labels.cpu(), classes=self._classes)
            self.found[group.name] = merged(self.found.get(group.name), moments)


def _open(layer: Any) -> Tensor:
    """Multiply a layer's outputs by ones from now on; these ones."""
    held = layer.running_mean if layer.weight is None else layer.weight
    if held is None:
        raise DgpruneError("a BatchNorm here has neither scale nor statistics, so no gate on its output can be read.")
    ones = held.detach().new_ones(outputs(layer) or len(held)).requires_grad_()

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * (ones if isinstance(module, nn.Linear) else ones.view(-1, *(1,) * (output.ndim - 2)))

    layer.register_forward_hook(hook)
    return ones


def paired_cosines(
    model: nn.Module,
    graph: FilterGraph,
    *,
    domains: tuple[Domain, Domain],
    site: Site,
    split: str = "score",
    size: int = SIZE,
    layout: torch.memory_format | None = None,
) -> dict[str, Tensor]:
    """Per group, (C,) mean over i of the cosine of a filter's maps on the i-th image of each of two domains.

    A pass of its own, over both together, as many images as the smaller part has; a zero map has cosine 0. Of several
    convolutions that write a group, the mean (site "conv_output").
    """
    twin = rebuild(model, lambda _, tensor: tensor.detach()).eval()
    running = _Pairs(twin, graph, site)
    count = min(len(domain.rows(split)) for domain in domains)
    device = next(twin.parameters()).device
    layout = layout_of(model, domains[0]) if layout is None else layout
    streams = [domain.batches(split, size=size, images=count, device=device, layout=layout) for domain in domains]
    for first, second in zip(*streams, strict=True):
        with torch.no_grad():
            twin(torch.cat([first.images, second.images]))
    return running.means()


class _Pairs(Running):
    """Sums of cosines between the first and the second half of every batch, instead of maps."""

    def __init__(self, model: nn.Module, graph: FilterGraph, site: Site) -> None:
        self._kind: Need = "mean_map" if site == "consumer_input" else "conv_map"
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
