"""Gradients of a loss, refused where autograd cannot compute them; collectors of gradients for gates and weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import BATCHNORM, CONV, ClassMoments, DgpruneError, FilterGraph, FilterGroup, Need, note
from ..pruning import device_of
from ..stats import NOT_FINITE, class_moments, merged
from .collectors import Collector
from .hooks import output_count, uncounted
from .taps import Taps


def check_differentiable(loss: Tensor) -> None:
    """Refuse a loss or logit that is cut off from the network's autograd graph."""
    if not loss.requires_grad:
        raise DgpruneError(
            "the forward of this network cuts gradients off (by torch.no_grad, inference_mode, detach or numbers of "
            "numpy), so no scorer and no measure that uses gradients can run; take that out of the forward, or use a "
            "scorer of weights or outputs, such as l1."
        )


def note_cut_off(names: Iterable[str]) -> None:
    """Issue a note on layers that no gradient reaches but whose gradient a scorer reads, given their tensors' names."""
    if layers := list(dict.fromkeys(name.rpartition(".")[0] or name for name in names)):
        more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
        note(
            f"no gradient reaches {', '.join(layers[:3])}{more}: the forward cuts it off (by detach or torch.no_grad) "
            "or does not use the layer; what a scorer reads from its gradient is 0."
        )


def gradients_of(loss: Tensor, tensors: Sequence[Tensor], *, twice: bool = False) -> tuple[Tensor, ...]:
    """Return the gradient of a loss with respect to each tensor; 0 for a tensor that is not used.

    Args:
        twice: whether the gradient will be differentiated again.

    Raises:
        DgpruneError: a loss above 0 that has no gradient at all: the loss is not flat, but autograd is cut off.
    """
    if not loss.requires_grad:
        reason = "is cut off (by torch.no_grad, detach or numbers of numpy)"
    else:
        gradients = torch.autograd.grad(loss, tensors, create_graph=twice, allow_unused=True, materialize_grads=True)
        if not loss > 0 or any(bool(gradient.any()) for gradient in gradients):
            return gradients
        reason = "is 0 (as that of a rounding operation)"
    raise DgpruneError(
        f"the gradient of the loss by the weights {reason}, although the loss is {loss.item():.3g}, so its "
        "curvature cannot be computed; take a network whose forward pass can be differentiated."
    )


class RiskGradients(Collector):
    """The mean risk and its derivatives for a gate on every group's output and for every tensor with a filter axis.

    A gate on a group is one gate on the outputs of its last producers (`FilterGroup.ends`). Where such a producer is a
    BatchNorm, the gate's derivative is the sum of w dL/dw over gamma and beta, which needs no activation. Any other
    producer, and a BatchNorm without scale, gets an actual gate, a factor of ones, since the gradient of a layer's
    weights would cost more than everything else. Outputs that are rewritten before they are consumed (by a depthwise
    convolution, or by the BatchNorm on a concatenation) have no gate: the gate is on the group's output.

    `needs` selects "gate" and "weight_gradient"; the risk is always filled.
    """

    def __init__(self, graph: FilterGraph, *, needs: Collection[Need]) -> None:
        self._graph, self._needs = graph, needs
        self._watched: dict[str, Tensor] = {}
        self._gates: set[str] = set()
        self._cut_off: dict[str, None] = {}
        self._sums: dict[str, Tensor] = {}
        self._risk: Tensor | float = 0.0
        self._count = 0

    def attach(self, taps: Taps) -> None:
        weights: set[str] = set()
        if "weight_gradient" in self._needs:
            weights |= {member.tensor for group in self._graph.groups for member in group.members}
        if "gate" in self._needs:
            _refuse_bare_norms(taps.model)
            for name in dict.fromkeys(end for group in self._graph.groups for end in group.ends):
                module = taps.model.get_submodule(name)
                if isinstance(module, (*CONV, nn.Linear)) or module.weight is None:
                    self._watched[name] = _add_gate(module)
                else:
                    self._gates |= {f"{name}.{leaf}" for leaf, _ in module.named_parameters(recurse=False)}
        for name, parameter in taps.model.named_parameters():
            if name in weights or name in self._gates:
                self._watched[name] = parameter.requires_grad_()
        self.needs_gradients = bool(self._watched)
        self._weights = weights

    def end(self, logits: Tensor) -> None:
        assert self.labels is not None
        loss = F.cross_entropy(logits, self.labels, reduction="sum")
        self._risk = self._risk + loss.detach().double()
        self._count += len(logits)
        leaves = list(self._watched.values())
        if leaves:
            check_differentiable(loss)
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True) if leaves else ()
        for (name, leaf), gradient in zip(self._watched.items(), gradients, strict=True):
            if gradient is None:
                self._cut_off[name] = None
            value = (torch.zeros_like(leaf) if gradient is None else gradient).double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def sums(self) -> tuple[Tensor | float, dict[str, Tensor], dict[str, Tensor]]:
        return self._risk, self._sums, {name: self._watched[name].detach() for name in self._gates}

    def result(self, sums: tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]) -> dict[str, Any]:
        note_cut_off(self._cut_off)
        means = {name: total / self._count for name, total in sums[1].items()}
        fields: dict[str, Any] = {"risk": float(sums[0]) / self._count}
        if "gate" in self._needs:
            fields["gate"] = {group.name: self._gate(group, means, sums[2]) for group in self._graph.groups}
        if "weight_gradient" in self._needs:
            fields["weight_gradient"] = {name: mean for name, mean in means.items() if name in self._weights}
        return fields

    def _gate(self, group: FilterGroup, gradients: dict[str, Tensor], values: dict[str, Tensor]) -> Tensor:
        """Return (C,): the risk's derivative for each filter's gate, given the parameters' derivatives and values."""
        total = torch.zeros(group.filters, dtype=torch.float64)
        for name, (positions, filters) in group.end_places.items():
            tensors = [tensor for tensor in (f"{name}.weight", f"{name}.bias") if tensor in self._gates]
            parts = [values[tensor].double() * gradients[tensor] for tensor in tensors] or [gradients[name]]
            gate = torch.stack(parts).sum(0)
            total.index_add_(0, filters, gate[positions])
        return total


def _refuse_bare_norms(model: nn.Module) -> None:
    """Refuse a BatchNorm without tensors: no group contains it, so a gate would be placed before it."""
    for name, module in model.named_modules():
        if isinstance(module, BATCHNORM) and module.weight is None and module.running_mean is None:
            raise DgpruneError(
                f"BatchNorm {name!r} has neither scale nor statistics, so no gate on its output can be read; give it "
                "affine=True or track_running_stats=True, or take a scorer without gradients."
            )


def _add_gate(layer: Any) -> Tensor:
    """Make a layer multiply its output by a vector of ones, and return that vector."""
    tensor = layer.running_mean if layer.weight is None else layer.weight
    ones = tensor.detach().new_ones(output_count(layer) or len(tensor)).requires_grad_()

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        with uncounted():
            return output * (ones if isinstance(module, nn.Linear) else ones.view(-1, *(1,) * (output.ndim - 2)))

    layer.register_forward_hook(hook)
    return ones


class ClassGates(Collector):
    """For each image and filter, the sum over positions of y dl/dy: y is the group's output, l the true class's logit.

    y is the output of the last producers; their consumers get a copy of it, since torchvision adds to it in place. A
    residual stream has several producers, whose products are added up. `retain` keeps the autograd graph of a batch for
    another backward pass.
    """

    needs_gradients = True

    def __init__(self, graph: FilterGraph, *, classes: int, retain: bool) -> None:
        self._graph, self._classes, self._retain = graph, classes, retain
        self._outputs: list[tuple[str, int, Tensor]] = []
        self._moments: ClassMoments | None = None
        self._places: dict[str, tuple[Tensor, Tensor]] = {}

    def attach(self, taps: Taps) -> None:
        _refuse_bare_norms(taps.model)
        places: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for group in self._graph.groups:
            for name, (positions, filters) in group.end_places.items():
                places.setdefault(name, []).append((positions, filters + self._graph.offsets[group.name]))
        for name, pairs in places.items():
            joined = torch.stack([torch.cat(tensors) for tensors in zip(*pairs, strict=True)])
            positions, filters = joined.to(device_of(taps.model), non_blocking=True)
            self._places[name] = positions, filters
        for name in {end: None for group in self._graph.groups for end in group.ends}:

            def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor, name: str = name) -> Tensor:
                with uncounted():
                    y = output if output.requires_grad else output.detach().requires_grad_()
                    self._outputs.append((name, -1 if isinstance(module, nn.Linear) else 1, y))
                    return y.clone()

            taps.model.get_submodule(name).register_forward_hook(hook)

    def end(self, logits: Tensor) -> None:
        assert self.labels is not None
        outputs, self._outputs = self._outputs, []
        logit = logits.gather(1, self.labels[:, None]).sum()
        check_differentiable(logit)
        gradients = torch.autograd.grad(logit, [y for *_, y in outputs], retain_graph=self._retain, allow_unused=True)
        products: dict[str, Tensor] = {}
        for (name, axis, y), gradient in zip(outputs, gradients, strict=True):
            if gradient is not None:
                product = (y.detach() * gradient).movedim(axis, 1).flatten(1).unflatten(1, (y.shape[axis], -1))
                products[name] = products.get(name, 0) + product.sum(2, dtype=torch.float64)
        values = logits.new_zeros(len(logits), self._graph.free, dtype=torch.float64)  # all groups side by side
        for name, (positions, filters) in self._places.items():
            if name in products:
                values.index_add_(1, filters, products[name][:, positions])
        moments = class_moments(values, self.labels, classes=self._classes, check=False)
        self._moments = merged(self._moments, moments)

    def sums(self) -> ClassMoments | None:
        return self._moments

    def result(self, sums: ClassMoments) -> dict[str, Any]:
        if not torch.isfinite(sums.mean).all():
            raise DgpruneError(NOT_FINITE)
        sizes = [group.filters for group in self._graph.groups]
        parts = zip(self._graph.names, sums.mean.split(sizes, 1), sums.variance.split(sizes, 1), strict=True)
        return {"class_gate": {name: ClassMoments(sums.images, mean.clone(), v.clone()) for name, mean, v in parts}}
