"""Scores + budget -> Mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, overload

import torch
from torch import Tensor

from ..core import (
    Budget,
    DgpruneError,
    Mask,
    Ratio,
    Scope,
    Scores,
    Share,
    WeightMask,
    WeightScores,
    declared,
    forced_lists,
    merged,
    public,
)
from .limits import Limits
from .removal_order import cached_order

Filters = Mapping[str, Any] | None


@overload
def allocate(
    scores: Scores,
    *,
    ratio: float,
    layers: Mapping[str, float] | None = ...,
    max_layer_ratio: float | None = ...,
    remove: Filters = ...,
    keep: Filters = ...,
    reads: Mapping[str, Any] | None = ...,
    scope: Scope = ...,
    budget: Budget = ...,
) -> Mask: ...
@overload
def allocate(scores: WeightScores, *, ratio: float, scope: Scope = ..., budget: Budget = ...) -> WeightMask: ...
@public
def allocate(
    scores: Scores | WeightScores,
    *,
    ratio: Ratio,
    layers: Mapping[str, Ratio] | None = None,
    max_layer_ratio: Share | None = None,
    remove: Filters = None,
    keep: Filters = None,
    reads: Mapping[str, Any] | None = None,
    scope: Scope = "layer",
    budget: Budget = "filters",
) -> Mask | WeightMask:
    """Choose which filters stay when a share of the network is removed, lowest scores first.

    Of N filters, floor(ratio N + 1e-9) are removed, falling short of the request by less than one filter (a unit where
    grouped convolutions tie filters), unless every layer is down to its last filter. Ties are broken by filter index. A
    larger ratio always keeps a subset of the filters that a smaller one keeps.

    Layers and filters can be set by hand. They count toward `ratio`, and the other layers lose the rest: with scope
    "layer" the same share each, to within one filter. `mask.layers` shows the ratio of each layer.

    Args:
        scores: one number per filter, higher = keep; or one per single weight, for a WeightMask.
        ratio: the share to remove, 0 <= ratio < 1.
        layers: layer -> its own ratio, {"conv2": 0.2, "layer1.*": 0.0}: the share of the filters of this layer that is
            removed, whatever `budget` counts; 0 keeps the whole layer. A name may be a pattern ("*" for any text); a
            full name takes precedence. Coupled layers have one ratio.
        max_layer_ratio: largest share of its filters that a layer may lose; None for all but the last filter.
        remove, keep: filters that are removed, or kept, whatever their score: layer -> indices or (C,) bool. They
            always apply, even if `ratio` is then missed; `ratio_achieved` shows it.
        reads: the splits that the choice of `remove` and `keep` is based on, as in `Mask.by_hand`; None for unknown.
        scope: "layer" removes the same share of every layer; "global" removes the lowest scores of the whole network
            (they must then be comparable between layers, as those of `lamp` and `taylor` are meant to be).
        budget: what `ratio` is a share of: "filters", "parameters" or "macs" (multiply-accumulates).

    Raises:
        DgpruneError: a ratio outside [0, 1), an unknown scope, budget, layer or filter; `layers` or `max_layer_ratio`
            that make the ratio unreachable; coupled layers with different ratios; a filter both removed and kept; for
            single weights, `layers`, `max_layer_ratio`, `remove`, `keep` or `reads`.

    >>> import torch, dgprune_lab as dg
    >>> graph = dg.read_groups(dg.models.networks.lenet(), torch.zeros(1, 3, 28, 28))
    >>> scores = dg.Scores("mine", {"conv1": torch.arange(32.0), "conv2": torch.arange(48.0)}, graph)
    >>> [len(dg.allocate(scores, ratio=0.7).kept(layer)) for layer in graph.names]
    [10, 15]
    >>> [len(dg.allocate(scores, ratio=0.5, layers={"conv1": 0.25}).kept(layer)) for layer in graph.names]
    [24, 16]
    """
    by_hand = {"layers": layers, "max_layer_ratio": max_layer_ratio, "remove": remove, "keep": keep}
    if isinstance(scores, WeightScores):
        if names := [name for name, value in {**by_hand, "reads": reads}.items() if value is not None]:
            raise DgpruneError(
                f"{names[0]} is for filters; scores of single weights take ratio, scope and budget only."
            )
        return _weight_mask(scores, ratio, scope=scope, budget=budget)
    limits = Limits.of(scores.graph, **by_hand)
    order = cached_order(scores, scope=scope, limits=limits)
    order.check(ratio, budget, limits=limits)
    all_reads = scores.reads
    if limits.forced or reads is not None:
        all_reads = merged(all_reads, declared(reads, what="filters by hand"))
    return Mask(
        keep=order.keep(order.count(ratio, budget)),
        ratio_requested=ratio,
        graph=scores.graph,
        scope=scope,
        budget=budget,
        scorer=_scorer_label(scores, limits),
        options=scores.options,
        nested=True,
        reads=all_reads,
        layer_ratios=limits.ratios,
        max_layer_ratio=max_layer_ratio,
        forced=forced_lists(limits.remove, limits.keep),
    )


def _scorer_label(scores: Scores, limits: Limits) -> str:
    """Return the scorer's name for tables, with the cap on layers and "by hand" where they apply."""
    cap = f", at most {limits.max_ratio:g} of a layer" if limits.max_ratio < 1 else ""
    return f"{scores.scorer}{cap}{', by hand' if limits.ratios or limits.forced else ''}"


def checked_ratio(ratio: float) -> float:
    """Return a pruning ratio as a float in [0, 1).

    Raises:
        DgpruneError: the value is not a number in [0, 1).
    """
    value = float(ratio) if isinstance(ratio, Real) and not isinstance(ratio, bool) else math.nan
    if not (math.isfinite(value) and 0 <= value < 1):
        raise DgpruneError(f"ratio must lie in [0, 1): the share removed, so 0.5 is half; got {ratio!r}.")
    return value


def _weight_mask(scores: WeightScores, ratio: float, *, scope: Scope, budget: Budget) -> WeightMask:
    if budget == "macs":
        raise DgpruneError(f"single weights are counted as parameters; budget={budget!r} has no meaning for them.")

    def keep_largest(flat: Tensor) -> Tensor:
        keep = torch.ones(len(flat), dtype=torch.bool)
        keep[flat.argsort(stable=True)[: math.floor(ratio * len(flat) + 1e-9)]] = False
        return keep

    keep = by_scope(scores.values, scope, keep_largest)
    return WeightMask(keep=keep, ratio_requested=ratio, scope=scope, scorer=scores.scorer, reads=scores.reads)


def by_scope(tensors: Mapping[str, Tensor], scope: Scope, function: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Apply a function to the entries (N,) of each tensor, or, for scope "global", of all together; keep the shapes."""
    if scope == "layer":
        return {name: function(tensor.flatten()).view(tensor.shape) for name, tensor in tensors.items()}
    joined = function(torch.cat([tensor.flatten() for tensor in tensors.values()]))
    parts = joined.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts, strict=True)}
