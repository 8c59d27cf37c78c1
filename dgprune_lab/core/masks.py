"""Scores of filters, and the masks that say which stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .errors import DgpruneError, unknown
from .graph import Cost, FilterGraph
from .provenance import Reads, declared, merged
from .tables import Budget, Scope


@dataclass(frozen=True, eq=False)
class Mask:
    """Which filters stay: one bool per filter and group, True = keep.

    Attributes:
        keep: group name -> (C,) bool; at least one True in each.
        asked: the ratio that was asked for, 0 <= asked < 1.
        scope: "layer" (the same share in every layer) or "global" (the lowest anywhere).
        of: what the ratio counts.
        scorer: name of the scorer behind it, with its options and seed.
        graph: the groups; not part of the file form.
        nested: True where a larger ratio of the same scores keeps a subset of these filters.
        reads: what was looked at on the way to this mask, as in `Scores`.
    """

    keep: Mapping[str, Tensor]
    ratio_requested: float
    graph: FilterGraph = field(repr=False)
    scope: Scope = "layer"
    budget: Budget = "filters"
    scorer: str = "by hand"
    options: Mapping[str, Any] = field(default_factory=dict)
    nested: bool = False
    reads: Reads = None

    def __post_init__(self) -> None:
        for group in self.graph.groups:
            part = self.keep.get(group.name)
            if part is None or tuple(part.shape) != (group.filters,) or part.dtype != torch.bool:
                got = "nothing" if part is None else f"{part.dtype} of shape {tuple(part.shape)}"
                raise DgpruneError(
                    f"a mask needs bool of shape ({group.filters},) for layer {group.name!r}; got {got}."
                )
            if not part.any():
                raise DgpruneError(f"a mask must keep at least one filter of layer {group.name!r}.")
            tied = torch.zeros(group.filters, dtype=torch.int64).scatter_add_(0, group.units, part.long())
            size = group.units.bincount(minlength=group.filters)
            if ((tied != 0) & (tied != size)).any():
                raise DgpruneError(
                    f"layer {group.name!r}: grouped convolutions tie its filters in steps of {group.step}; "
                    "filters of one unit go together."
                )
        for name in self.keep:
            if name not in self.graph.names:
                raise unknown("layer", name, self.graph.names)

    @classmethod
    def by_hand(
        cls,
        graph: FilterGraph,
        *,
        removed: Mapping[str, Iterable[int]] | None = None,
        reads: Mapping[str, Any] | None = None,
    ) -> Mask:
        """A mask that removes the filters one names, {"conv2": [0, 5]}; everything stays where nothing is named.

        What guided the hand is unknown unless `reads` says it, as in `Scores.from_frame`.
        """
        said = declared(reads, what="a mask by hand")
        keep = {group.name: torch.ones(group.filters, dtype=torch.bool) for group in graph.groups}
        for name, filters in (removed or {}).items():
            group, index = graph[name], torch.as_tensor(list(filters), dtype=torch.int64)
            if len(index) and (int(index.min()) < 0 or int(index.max()) >= group.filters):
                raise DgpruneError(f"layer {name!r} has filters 0 to {group.filters - 1}; got {index.tolist()}.")
            keep[name][index] = False
        total = sum(int((~part).sum()) for part in keep.values())
        return cls(keep, total / max(graph.free, 1), graph, reads=said)

    @cached_property
    def cost(self) -> Cost:
        """What it leaves."""
        return self.graph.cost(self.keep)

    @property
    def ratio_achieved(self) -> float:
        """The share really removed, of what the ratio counts."""
        full = getattr(self.graph.full, self.budget)
        return 1 - getattr(self.cost, self.budget) / full

    @cached_property
    def key(self) -> bytes:
        """The kept filters as bytes: equal masks have equal keys."""
        return self.graph.vector(self.keep).numpy().tobytes()

    def kept(self, layer: str) -> list[int]:
        """Original indices of the filters of a layer that stay."""
        return self.keep[self.graph[layer].name].nonzero().flatten().tolist()

    def then(self, inner: Mask) -> Mask:
        """The mask of two rounds: `inner` was made for the network this mask left; indices become original ones."""
        keep = {}
        for group in self.graph.groups:
            part = self.keep[group.name].clone()
            second = inner.keep.get(group.name)
            if second is None or len(second) != int(part.sum()):
                raise DgpruneError(
                    f"the second mask does not fit layer {group.name!r}, which has {int(part.sum())} left."
                )
            part[part.nonzero().flatten()] = second
            keep[group.name] = part
        left = (1 - self.ratio_requested) * (1 - inner.ratio_requested)
        return replace(
            self,
            keep=keep,
            ratio_requested=1 - left,
            nested=False,
            reads=merged(self.reads, inner.reads),
            scorer=inner.scorer,
            options=inner.options,
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary with the original indices of the filters that stay."""
        return {
            "keep": {name: part.nonzero().flatten().tolist() for name, part in self.keep.items()},
            "filters": {group.name: group.filters for group in self.graph.groups},
            "ratio_requested": self.ratio_requested,
            "ratio_achieved": self.ratio_achieved,
            "scope": self.scope,
            "budget": self.budget,
            "scorer": self.scorer,
            "options": dict(self.options),
            "nested": self.nested,
            "reads": None if self.reads is None else dict(self.reads),
            "input_shape": list(self.graph.input_shape),
            "layers": self.graph.layers,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, graph: FilterGraph) -> Mask:
        """The mask that `to_json` wrote, for the network whose groups are given.

        Raises:
            DgpruneError: the network has other layers or other numbers of filters.
        """
        sizes = {group.name: group.filters for group in graph.groups}
        wanted = ("keep", "filters", "ratio_requested", "scope", "budget", "scorer", "options", "nested", "reads")
        if lacking := [key for key in wanted if key not in value]:
            raise DgpruneError(f"this is not a mask that to_json wrote; it lacks {', '.join(lacking)}.")
        if dict(value["filters"]) != sizes:
            wrong = sorted(set(value["filters"].items()) ^ set(sizes.items()))
            raise DgpruneError(f"the mask is for another network; layers that differ: {wrong[:4]}.")
        keep = {}
        for name, count in sizes.items():
            kept = value["keep"].get(name, [])
            if kept and not (min(kept) >= 0 and max(kept) < count):
                raise DgpruneError(f"the mask names filters of layer {name!r} outside 0 to {count - 1}.")
            keep[name] = torch.zeros(count, dtype=torch.bool)
            keep[name][torch.tensor(kept, dtype=torch.int64)] = True
        return cls(
            keep,
            value["ratio_requested"],
            graph,
            value["scope"],
            value["budget"],
            value["scorer"],
            value["options"],
            value["nested"],
            value["reads"],
        )


@dataclass(frozen=True, eq=False)
class WeightMask:
    """Which single weights stay: parameter name -> bool of its shape. It can be masked, never removed."""

    keep: Mapping[str, Tensor]
    ratio_requested: float
    scope: Scope = "global"
    scorer: str = "by hand"
    reads: Reads = None

    @property
    def ratio_achieved(self) -> float:
        """Share of the weights that are zeroed."""
        total = sum(part.numel() for part in self.keep.values())
        return 1 - sum(int(part.sum()) for part in self.keep.values()) / total
