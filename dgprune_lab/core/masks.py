"""Masks: which filters, or single weights, stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .border import public
from .errors import DgpruneError, unknown
from .files import FORMAT, check_format
from .graph import Cost, FilterGraph
from .provenance import Reads, declared, merged
from .tables import Budget, Scope

_ABOUT = ("scope", "budget", "scorer", "options", "nested", "reads")


@public
@dataclass(frozen=True, eq=False)
class Mask:
    """Which filters stay: one bool per filter and group, True = keep.

    Attributes:
        keep: group name -> (C,) bool; at least one True in each.
        ratio_requested: the requested ratio, in [0, 1).
        graph: the groups; not part of the file.
        scope: "layer" (the same share in every layer) or "global" (the lowest scores anywhere).
        budget: what the ratio counts.
        scorer: name of the scorer that it comes from; `options`: its options and seed.
        nested: True where a larger ratio of the same scores keeps a subset of these filters.
        reads: which data the choice has read, as in `Scores`.
    """

    keep: Mapping[str, Tensor]
    ratio_requested: float
    graph: FilterGraph = field(repr=False)
    _: KW_ONLY
    scope: Scope = "layer"
    budget: Budget = "filters"
    scorer: str = "by hand"
    options: Mapping[str, Any] = field(default_factory=dict)
    nested: bool = False
    reads: Reads = None

    def __post_init__(self) -> None:
        for group in self.graph.groups:
            keep = self.keep.get(group.name)
            if keep is None or tuple(keep.shape) != (group.filters,) or keep.dtype != torch.bool:
                got = "nothing" if keep is None else f"{keep.dtype} of shape {tuple(keep.shape)}"
                raise DgpruneError(
                    f"a mask needs bool of shape ({group.filters},) for layer {group.name!r}; got {got}."
                )
            if not keep.any():
                raise DgpruneError(f"a mask must keep at least one filter of layer {group.name!r}.")
            kept = torch.zeros(group.filters, dtype=torch.int64).scatter_add_(0, group.units, keep.long())
            if ((kept != 0) & (kept != group.units.bincount(minlength=group.filters))).any():
                raise DgpruneError(
                    f"layer {group.name!r}: grouped convolutions tie its filters in steps of {group.step}; "
                    "the filters of one unit are kept or removed together."
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
        """Make a mask that removes these filters, {"conv2": [0, 5]}, and keeps all others.

        `reads` says what the choice is based on, as in `Scores.from_frame`; it is unknown where None.
        """
        reads = declared(reads, what="a mask by hand")
        keep = {group.name: torch.ones(group.filters, dtype=torch.bool) for group in graph.groups}
        for name, filters in (removed or {}).items():
            group, index = graph[name], torch.as_tensor(list(filters), dtype=torch.int64)
            if len(index) and (int(index.min()) < 0 or int(index.max()) >= group.filters):
                raise DgpruneError(f"layer {name!r} has filters 0 to {group.filters - 1}; got {index.tolist()}.")
            keep[name][index] = False
        count = sum(int((~column).sum()) for column in keep.values())
        return cls(keep, count / max(graph.free, 1), graph, reads=reads)

    @cached_property
    def cost(self) -> Cost:
        """Filters, parameters, MACs and bytes of what stays."""
        return self.graph.cost(self.keep)

    @property
    def ratio_achieved(self) -> float:
        """Removed share of what the budget counts."""
        return 1 - getattr(self.cost, self.budget) / getattr(self.graph.full, self.budget)

    @cached_property
    def key(self) -> bytes:
        """The kept filters as bytes: equal masks have equal keys."""
        return self.graph.vector(self.keep).numpy().tobytes()

    def kept(self, layer: str) -> list[int]:
        """Return the original indices of the filters of a layer that stay."""
        return self.keep[self.graph[layer].name].nonzero().flatten().tolist()

    def then(self, inner: Mask) -> Mask:
        """Compose two rounds: `inner` is a mask of the network pruned by this one; the result has original indices."""
        keep = {}
        for group in self.graph.groups:
            column, second = self.keep[group.name].clone(), inner.keep.get(group.name)
            count = int(column.sum())
            if second is None or len(second) != count:
                raise DgpruneError(f"the second mask does not fit layer {group.name!r}, which has {count} left.")
            column[column.nonzero().flatten()] = second
            keep[group.name] = column
        ratio = 1 - (1 - self.ratio_requested) * (1 - inner.ratio_requested)
        made_by = {"scorer": inner.scorer, "options": inner.options, "reads": merged(self.reads, inner.reads)}
        return replace(self, keep=keep, ratio_requested=ratio, nested=False, **made_by)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary with the original indices of the filters that stay."""
        return {
            "format": FORMAT,
            "keep": {name: column.nonzero().flatten().tolist() for name, column in self.keep.items()},
            "filters": {group.name: group.filters for group in self.graph.groups},
            "ratio_requested": self.ratio_requested,
            "ratio_achieved": self.ratio_achieved,
            **{name: getattr(self, name) for name in _ABOUT},
            "options": dict(self.options),
            "reads": None if self.reads is None else dict(self.reads),
            "input_shape": list(self.graph.input_shape),
            "layers": self.graph.layers,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, graph: FilterGraph) -> Mask:
        """Return the mask that `to_json` wrote, for the network with these groups.

        Raises:
            DgpruneError: another format, or a network of other layers or numbers of filters.
        """
        if "keep" in value and "filters" in value:
            check_format(value, name="the mask")
        if missing := [key for key in ("keep", "filters", "ratio_requested", *_ABOUT) if key not in value]:
            raise DgpruneError(f"this is not a mask that to_json wrote; it lacks {', '.join(missing)}.")
        sizes = {group.name: group.filters for group in graph.groups}
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
        return cls(keep, value["ratio_requested"], graph, **{key: value[key] for key in _ABOUT})


@public
@dataclass(frozen=True, eq=False)
class WeightMask:
    """Which single weights stay: parameter name -> bool of its shape. Single weights can be masked, not removed."""

    keep: Mapping[str, Tensor]
    ratio_requested: float
    _: KW_ONLY
    scope: Scope = "global"
    scorer: str = "by hand"
    reads: Reads = None

    @property
    def ratio_achieved(self) -> float:
        """Share of the weights that are zeroed."""
        total = sum(keep.numel() for keep in self.keep.values())
        return 1 - sum(int(keep.sum()) for keep in self.keep.values()) / total
