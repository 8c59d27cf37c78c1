"""Limits on pruning besides the ratio: ratios of single layers, a cap on all layers, filters set by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from ..core import DgpruneError, FilterGraph, forced_filters, unknown


@dataclass(frozen=True, eq=False, kw_only=True)
class Limits:
    """Limits on which filters are removed.

    Attributes:
        ratios: group -> the share of its filters that is removed, whatever the others lose.
        max_ratio: largest share of its filters that any layer may lose.
        remove, keep: group -> (C,) bool, True for filters that are removed, or kept, whatever their score.
    """

    ratios: Mapping[str, float] = field(default_factory=dict)
    max_ratio: float = 1.0
    remove: Mapping[str, Tensor] = field(default_factory=dict)
    keep: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def forced(self) -> bool:
        """Whether any filter is removed or kept by hand."""
        return any(bool(flags.any()) for flags in (*self.remove.values(), *self.keep.values()))

    @property
    def key(self) -> tuple[object, ...]:
        """Cache key: equal for equal limits."""
        flags = tuple(column.numpy().tobytes() for column in (*self.remove.values(), *self.keep.values()))
        return (*sorted(self.ratios.items()), self.max_ratio, *(flags if self.forced else ()))

    @classmethod
    def of(
        cls,
        graph: FilterGraph,
        *,
        layers: Mapping[str, float] | None,
        max_layer_ratio: float | None,
        remove: Mapping[str, Any] | None,
        keep: Mapping[str, Any] | None,
    ) -> Limits:
        """Build the limits from the arguments of `allocate`.

        Raises:
            DgpruneError: an unknown layer or filter; one group of filters with two ratios; a ratio above the cap;
                conflicting filters.
        """
        if not (layers or remove or keep) and max_layer_ratio is None:
            return cls()
        max_ratio = 1.0 if max_layer_ratio is None else max_layer_ratio
        ratios = own_ratios(graph, layers or {})
        for name, ratio in ratios.items():
            if ratio > max_ratio:
                raise DgpruneError(
                    f"layers= asks to remove {ratio:g} of layer {name!r}, more than max_layer_ratio={max_ratio:g} "
                    "allows; change one of them."
                )
        removed, kept = forced_filters(graph, remove=remove, keep=keep)
        return cls(ratios=ratios, max_ratio=max_ratio, remove=removed, keep=kept)


def own_ratios(graph: FilterGraph, layers: Mapping[str, float]) -> dict[str, float]:
    """Return group -> its own ratio, from names of layers and patterns ("layer1.*") of such names.

    The name of any layer that produces a group stands for the whole group. A name takes precedence over a pattern.

    Raises:
        DgpruneError: a name or pattern that fits no group; layers of one group with different ratios.
    """
    ratios: dict[str, float] = {}
    origin: dict[str, str] = {}
    for name, ratio in sorted(layers.items(), key=lambda item: _is_pattern(item[0])):
        for group in _groups_of(graph, name):
            first = origin.get(group, name)
            if group in ratios and ratios[group] != ratio and _is_pattern(first) == _is_pattern(name):
                raise DgpruneError(
                    f"layers: {first!r} and {name!r} share the filters of layer {group!r}, which are removed together, "
                    f"but got the ratios {ratios[group]:g} and {ratio:g}; give them one ratio."
                )
            ratios.setdefault(group, ratio)
            origin.setdefault(group, name)
    return ratios


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _groups_of(graph: FilterGraph, name: str) -> list[str]:
    """Return the names of the groups that a layer, or the layers that match a pattern, produce."""
    matches = fnmatchcase if _is_pattern(name) else str.__eq__
    groups = [
        group.name for group in graph.groups if any(matches(layer, name) for layer in (group.name, *group.producers))
    ]
    if not groups and (why := graph.refused.get(name)):
        raise DgpruneError(f"layers: the filters of layer {name!r} cannot be pruned: {why.rstrip('.')}. Leave it out.")
    if not groups:
        raise unknown("layer", name, graph.names)
    return groups
