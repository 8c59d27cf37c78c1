"""Filters that a user names by hand: lists of indices, or a bool for each filter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import DgpruneError
from .graph import FilterGraph

Forced = Mapping[str, Mapping[str, list[int]]]
"""{"remove": layer -> indices, "keep": layer -> indices} of the filters that were forced by hand; {} for none."""


def filter_numbers(layer: str, filters: Any, *, count: int, start: str = "") -> Tensor:
    """Return the (K,) indices of a layer's filters, given as indices or a bool vector; `start` begins error messages.

    Raises:
        DgpruneError: values that are not indices, indices outside this layer, or repeated ones.
    """
    rule = f"{start}filters of layer {layer!r} must be numbers from 0 to {count - 1}, or True or False for each of them"
    if isinstance(filters, (str, bytes, Mapping)):
        raise DgpruneError(f"{rule}; got {filters!r:.80}.")
    plain = filters.tolist() if hasattr(filters, "tolist") else filters
    items = list(plain) if isinstance(plain, Iterable) else [plain]
    values = [item.item() if isinstance(item, Tensor | np.generic) and item.ndim == 0 else item for item in items]
    flags = [isinstance(item, bool) for item in values]
    if flags and all(flags):
        if len(flags) != count:
            raise DgpruneError(
                f"{start}layer {layer!r} has {count} filters; got {len(flags)} values of True and False."
            )
        return torch.tensor(values).nonzero().flatten()
    if any(flags) or not all(isinstance(item, int) for item in values):
        raise DgpruneError(f"{rule}; got {values!r:.80}.")
    if not all(0 <= item < count for item in values):
        raise DgpruneError(f"{start}layer {layer!r} has filters 0 to {count - 1}; got {values!r:.80}.")
    if repeated := sorted({item for item in values if values.count(item) > 1}):
        raise DgpruneError(f"{start}layer {layer!r}: filters {repeated[:8]} are named more than once; name each once.")
    return torch.tensor(values, dtype=torch.int64)


def forced_filters(
    graph: FilterGraph, *, remove: Mapping[str, Any] | None, keep: Mapping[str, Any] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return layer -> (C,) bool, True for the filters that must be removed, and for those that must be kept.

    Args:
        graph: the groups of the network.
        remove, keep: layer -> indices or (C,) bool; layers that are left out have none.

    Raises:
        DgpruneError: an unknown layer or filter; a filter that is both removed and kept; all filters of a layer
            removed; only some of the filters that grouped convolutions tie together.
    """
    flags = []
    for name, layers in (("remove", remove), ("keep", keep)):
        forced = {group.name: torch.zeros(group.filters, dtype=torch.bool) for group in graph.groups}
        for layer, filters in (layers or {}).items():
            group = graph[layer]
            forced[layer][filter_numbers(layer, filters, count=group.filters, start=f"{name}: ")] = True
            named = set(group.units[forced[layer]].tolist())
            tied = [k for k, unit in enumerate(group.units.tolist()) if unit in named and not forced[layer][k]]
            if tied:
                raise DgpruneError(
                    f"{name}: grouped convolutions tie the filters of layer {layer!r}; name filters {tied[:8]} too."
                )
        flags.append(forced)
    for layer, removed in flags[0].items():
        if both := (removed & flags[1][layer]).nonzero().flatten().tolist():
            raise DgpruneError(
                f"filters {both[:8]} of layer {layer!r} stand in both remove= and keep=; leave each in one of them."
            )
        if removed.all():
            raise DgpruneError(f"remove names every filter of layer {layer!r}; a layer keeps at least one filter.")
    return flags[0], flags[1]


def forced_lists(remove: Mapping[str, Tensor], keep: Mapping[str, Tensor]) -> dict[str, dict[str, list[int]]]:
    """Return what a mask records about filters forced by hand, leaving out layers that have none."""
    lists = {
        name: {layer: flags.nonzero().flatten().tolist() for layer, flags in forced.items() if flags.any()}
        for name, forced in (("remove", remove), ("keep", keep))
    }
    return lists if any(lists.values()) else {}
