"""The filter groups of a network, each verified: removing and masking must give the same logits."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..core import DgpruneError, FilterGraph, FilterGroup, Mask, full_precision, preserved_rng, public
from .copies import device_of, draw, random_copy, rebuild, shared_copy
from .groups import assemble, trace_groups
from .holders import refuse_uncopyable
from .proof import prove_copies
from .refusals import RANDOM, code_line, layer_label, layer_of, refusal
from .surgery import pruned_view, zeroing
from .tracing import in_parts, note_batch_statistics, refuse_wrappers, run_order

_TOLERANCE = 1e-3
_Removed = Literal["half", "first", "last", "most"]
_KINDS: tuple[_Removed, ...] = get_args(_Removed)
_SECONDS = 8.0  # of this thread's CPU time, after which failing groups are no longer searched for one by one


@public
def read_groups(model: nn.Module, example: Tensor, *, layers: Literal["conv", "all"] = "conv") -> FilterGraph:
    """Return which filters of a network must be removed together, for any architecture.

    Each group is tested: about half of its filters, then the first, the last, and about three quarters are cut from a
    copy with random weights, and the logits must equal those of the same copy with these filters masked, to 0.1 % of
    the difference between two images. Groups are tested all at once and, if that fails, by bisection. A group that
    fails is refused by name; the others remain.

    Args:
        model: the network; it stays unchanged.
        example: (N, C, H, W) images of the size the network takes; two of them are used, in the network's own type.
        layers: "conv" for filters of convolutions; "all" for hidden units of linear layers too.

    Raises:
        DgpruneError: a network with nothing to prune, a wrapper, layers that are not used, images of a size that the
            network does not take.
    """
    refuse_wrappers(model)
    refuse_uncopyable(model)
    if example.ndim != 4:
        shape = tuple(example.shape)
        raise DgpruneError(f"example must be images, a tensor with four axes (N, C, H, W); got shape {shape}.")
    prove_copies(model, example)
    note_batch_statistics(model)
    example = example[:2].to(device_of(model), _dtype(model))
    with preserved_rng():
        graph = trace_groups(model, example[:1], layers=layers)
        if graph.groups:
            with in_parts(model):
                graph = _drop_failing(model, graph, example=example)
    if not graph.groups:
        reasons = list(dict.fromkeys(f"{name}: {reason}" for name, reason in graph.refused.items()))
        why = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
        hidden = sum(isinstance(module, nn.Linear) for module in model.modules()) > 1
        hint = (
            "" if layers == "all" or not hidden else " Hidden units of linear layers can be pruned with layers='all'."
        )
        raise DgpruneError(
            f"the network has nothing to prune{': ' + why if why else ' (no convolution before the last layer)'}.{hint}"
        )
    return graph


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _drop_failing(model: nn.Module, graph: FilterGraph, *, example: Tensor) -> FilterGraph:
    """Return the graph without the groups for which removing and masking give different logits."""
    trial = _Trial(model, graph, example=example)
    failed = trial.failing(graph.groups)
    if not failed:
        return graph
    if not trial.repeats():
        raise DgpruneError(RANDOM)
    passed = [group for group in graph.groups if group.name not in failed]
    order = run_order(shared_copy(model), example)
    refused = {**graph.refused, **failed}
    uses = dict(graph.uses)
    verified = assemble(model, passed, refused=refused, order=order, example=example, layers=graph.layers, uses=uses)
    new = torch.full((graph.free + 1,), verified.free)
    for group in verified.groups:
        start = graph.offsets[group.name]
        new[start : start + group.filters] = torch.arange(group.filters) + verified.offsets[group.name]
    products = tuple((macs, tuple(new[ids] for ids in labels)) for macs, labels in graph.products)
    return replace(verified, total=graph.total, products=products)


class _Trial:
    """Compares removing and masking the filters of some groups, on a copy with random weights."""

    _kind: _Removed = "half"

    def __init__(self, model: nn.Module, graph: FilterGraph, *, example: Tensor) -> None:
        self._graph = graph
        self._raised_in = ""
        self._draw = partial(draw, generator=torch.Generator().manual_seed(2))
        dtype = torch.float64 if _dtype(model) == torch.float64 else torch.float32
        self._twin = _cast(random_copy(model), dtype).eval()  # in 16 bits, rounding alone is 1 %
        images = torch.rand((2, *example.shape[1:]), generator=torch.Generator().manual_seed(0))
        self._images = images.to(example.device, dtype)
        with torch.no_grad():
            dense = self._twin(self._images)
            if isinstance(dense, Tensor) and not bool(dense.isfinite().all()):  # overflow in 32 bits?
                self._twin, self._images = _cast(self._twin, torch.float64), self._images.double()
                _set_statistics(self._twin, self._images)
                dense = self._twin(self._images)
        if not isinstance(dense, Tensor):
            raise DgpruneError(
                f"the network must return logits as one tensor; it returned {type(dense).__name__}. Wrap it in a "
                "module whose forward returns the logits alone."
            )
        self._shape, self._spread = dense.shape, float(dense.double().std())
        if not math.isfinite(self._spread):
            raise DgpruneError(
                "with random weights the network's logits are not finite numbers, so its pruning cannot be verified; "
                "normalise within it (BatchNorm), or remove layers that divide or exponentiate feature maps."
            )
        if self._spread == 0:
            raise DgpruneError(
                "with random weights the network's logits do not depend on its input, so its pruning cannot be "
                "verified; remove layers that saturate or are zero for all images."
            )

    def repeats(self) -> bool:
        """Return whether the copy gives the same logits for the same images in every pass."""
        with torch.no_grad():
            return self._difference(self._twin(self._images), self._twin(self._images)) <= _TOLERANCE / 100

    def failing(self, groups: tuple[FilterGroup, ...]) -> dict[str, str]:
        """Return name -> reason of the groups that fail; the others pass together."""
        failed: dict[str, str] = {}
        started = time.thread_time()
        for self._kind in _KINDS:
            failed |= self._test_groups(tuple(group for group in groups if group.name not in failed), started=started)
        return failed

    def _test_groups(self, groups: tuple[FilterGroup, ...], *, started: float) -> dict[str, str]:
        """Return `failing` for the current kind of mask."""
        failed: dict[str, str] = {}
        remaining = groups
        while remaining and (why := self.failure(remaining)) is not None:
            overrun = (time.thread_time() - started) / _SECONDS
            if overrun > 1:  # refuse all groups near the failure at once; later all that remain
                near = remaining if overrun > 2 else next(self._near_failure(remaining), remaining)
                reason = refusal("unproven", detail=f"{_SECONDS:.0f} s")
                failed |= {group.name: reason for group in near}
                remaining = tuple(group for group in remaining if group not in near)
                continue
            cause = self._find_failing(remaining)
            failed[cause.name] = why if len(remaining) == 1 else self.failure((cause,)) or why
            remaining = tuple(group for group in remaining if group is not cause)
        return failed

    def _find_failing(self, groups: tuple[FilterGroup, ...]) -> FilterGroup:
        """Return one group that may be why these groups fail together: search near the failure, then bisect."""
        for near in self._near_failure(groups):
            if self.failure(near) is not None:
                groups = near
                break
        remaining = list(groups)
        while len(remaining) > 1:
            first, second = remaining[: len(remaining) // 2], remaining[len(remaining) // 2 :]
            remaining = second if self.failure(tuple(first)) is None else first
        return remaining[0]

    def _near_failure(self, groups: tuple[FilterGroup, ...]) -> Iterator[tuple[FilterGroup, ...]]:
        """Yield the groups of the layers in which the last trial raised an error, innermost layer first."""
        seen = len(groups)
        parts = self._raised_in.split(".") if self._raised_in else []
        for depth in range(len(parts), 0, -1):
            outer = ".".join(parts[:depth])
            near = tuple(
                group
                for group in groups
                if any(f"{layer}.".startswith(f"{outer}.") for layer in (*group.producers, *group.consumers))
            )
            if near and len(near) < seen:
                yield near

    def failure(self, groups: tuple[FilterGroup, ...]) -> str | None:
        """Return why removing filters of these groups differs from masking them; None if it does not."""
        mask, self._raised_in = _trial_mask(self._graph, groups, kind=self._kind), ""
        with torch.no_grad(), full_precision(self._images.device):
            copy = pruned_view(self._twin, mask)
            try:
                pruned = copy(self._images)
            except Exception as error:
                self._raised_in = layer_of(error, copy)
                return refusal("breaks", where=layer_label(self._raised_in, copy), detail=code_line(error))
            del copy
            if pruned.shape != self._shape:
                return refusal("outputs")
            with zeroing(self._twin, mask, renew=self._draw):
                masked = self._twin(self._images)
            difference = self._difference(pruned, masked)
            del pruned, masked
            # It may be rounding, where values grow or shrink from layer to layer: compare with higher precision.
            for recheck in (self._scaled_difference, self._exact_difference):
                if not difference <= _TOLERANCE:
                    difference = recheck(mask)
        if difference <= _TOLERANCE:
            return None
        return refusal("differs", where=" or ".join(groups[0].consumers[:3]), detail=f"{difference:.1%}")

    def _scaled_difference(self, mask: Mask) -> float:
        """Return the difference with weights scaled up so that removing their inputs does not shrink signals.

        This rules out most rounding at a fraction of the time and memory of 64 bits.
        """
        vector, parameters = mask.graph.vector(mask.keep), dict(self._twin.named_parameters())
        cut = {name: axes[1] for name, axes in mask.graph.axes.items() if name in parameters and 1 in axes}
        gains = {name: math.sqrt(len(ids) / max(1, int(vector[ids].sum()))) for name, ids in cut.items()}
        with zeroing(self._twin, mask, renew=self._draw):
            try:
                for name, gain in gains.items():
                    parameters[name].mul_(gain)
                pruned = pruned_view(self._twin, mask)(self._images)
                return self._difference(pruned, self._twin(self._images))
            finally:
                for name, gain in gains.items():
                    parameters[name].div_(gain)

    def _exact_difference(self, mask: Mask) -> float:
        """Return the difference in 64 bits, with the masked network's BatchNorm statistics so that signals survive."""
        twin, images = _cast(self._twin, torch.float64), self._images.double()
        with zeroing(twin, mask, renew=lambda _: None):
            _set_statistics(twin, images)
            return self._difference(pruned_view(twin, mask)(images), twin(images))

    def _difference(self, pruned: Tensor, masked: Tensor) -> float:
        """Return the largest difference of logits, relative to that between the two images in the masked network.

        After many layers that lose half their filters, the latter may be a millionth of the full network's.
        """
        spread = min(self._spread, float((masked[0] - masked[1]).abs().max()))
        return float((pruned - masked).abs().max()) / (spread or self._spread)


def _set_statistics(model: nn.Module, images: Tensor) -> None:
    """Set the BatchNorm statistics of a network in eval mode to those of some images."""
    norms: list[Any] = [m for m in model.modules() if isinstance(getattr(m, "running_mean", None), Tensor)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    model(images)
    model.eval()


def _cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy whose floating-point tensors have this type."""
    return rebuild(model, lambda _, tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor.clone())


def _trial_mask(graph: FilterGraph, groups: tuple[FilterGroup, ...], *, kind: _Removed) -> Mask:
    """Return a mask that removes the first, the last, a random half or three quarters of the units of these groups.

    The shares near half and three quarters vary by group, up and down: equal shares in two groups would hide code that
    takes the number of channels of one of them from the other.
    """
    generator = torch.Generator().manual_seed(1)
    keep = {group.name: torch.ones(group.filters, dtype=torch.bool) for group in graph.groups}
    for group in groups:
        units = int(group.units.max()) + 1
        order = torch.randperm(units, generator=generator)
        base, shift = (units // 4, group.depth) if kind == "half" else (units // 2, -group.depth)
        count = max(1, base + (units // 4 + shift) % (units // 2 + 1 if kind == "half" else units - units // 2))
        removed = {"first": torch.tensor([0]), "last": torch.tensor([units - 1])}.get(kind, order[:count])
        if units > 1:
            keep[group.name] = ~torch.isin(group.units, removed)
    return replace(Mask.by_hand(graph), keep=keep)
