"""Masks: which filters, or single weights, stay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from .border import public
from .errors import DgpruneError, unknown
from .files import FORMATS, check_format, parse_json
from .frozen import Frozen
from .graph import Cost, FilterGraph
from .kinds import Share
from .provenance import Reads, declared, merged
from .tables import Budget, Scope, Seen

_ABOUT = ("scope", "budget", "scorer", "options", "nested", "reads")


@public
@dataclass(frozen=True, eq=False)
class Mask:
    """Which filters stay: one bool per filter and group, True = keep. A mask cannot be changed; reading gives a copy.

    Attributes:
        keep: group name -> (C,) bool; at least one True in each.
        ratio_requested: the requested pruning ratio, in [0, 1).
        graph: the filter groups of the network; not saved with the mask.
        scope: "layer" (the same share of each layer is removed) or "global" (the lowest scores of the whole network).
        budget: what the ratio counts: "filters", "parameters" or "macs".
        scorer: name of the scorer that the mask comes from.
        options: options and seed of that scorer.
        nested: True where a larger ratio of the same scores keeps a subset of these filters.
        reads: which splits the choice of filters has read, as in `Scores`.
    """

    keep: Mapping[str, Tensor]
    ratio_requested: Share
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
        own = {"keep": self.keep, "options": self.options, **({} if self.reads is None else {"reads": self.reads})}
        self.__dict__.update({name: Frozen(value) for name, value in own.items()})

    def __repr__(self) -> str:
        kept, free, layers = self.cost.filters, self.graph.free, len(self.graph.groups)
        can, every = _prunable(self.graph)
        rest = "" if can == every else f"; {can} of {every} filters of all convolutions can be pruned"
        return (
            f"Mask({self.scorer}: {self.ratio_requested:.1%} of {self.budget} requested, scope {self.scope}, "
            f"{self.ratio_achieved:.1%} removed; {kept} of {free} filters stay in {layers} layers{rest})"
        )

    @classmethod
    def by_hand(
        cls, graph: FilterGraph, *, removed: Mapping[str, Any] | None = None, reads: Mapping[str, Any] | None = None
    ) -> Mask:
        """Make a mask that removes these filters and keeps all others.

        Args:
            graph: the groups of the network.
            removed: layer -> indices of the filters to remove, {"conv2": [0, 5]}, or (C,) bool, True = removed.
            reads: the splits that the choice is based on, as in `Scores.from_frame`; None for unknown.

        Raises:
            DgpruneError: an unknown layer; indices without a filter, or repeated; a bool vector of another length; all
                filters of a layer.
        """
        reads = declared(reads, what="a mask by hand")
        keep = {group.name: torch.ones(group.filters, dtype=torch.bool) for group in graph.groups}
        for name, filters in (removed or {}).items():
            index = _numbers(name, filters, count=graph[name].filters)
            keep[name][index] = False
        count = sum(int((~column).sum()) for column in keep.values())
        return cls(keep, count / max(graph.free, 1), graph, reads=reads)

    @cached_property
    def cost(self) -> Cost:
        """Filters, parameters, MACs and bytes of the network without the removed filters."""
        return self.graph.cost(self.keep)

    @property
    def ratio_achieved(self) -> float:
        """Share that is removed of all filters, parameters or MACs, whichever the budget counts."""
        return 1 - getattr(self.cost, self.budget) / getattr(self.graph.full, self.budget)

    @cached_property
    def key(self) -> bytes:
        """The kept filters as bytes: equal masks have equal keys."""
        return self.graph.vector(self.keep).numpy().tobytes()

    def kept(self, layer: str) -> list[int]:
        """Return the original indices of the filters of a layer that stay."""
        return self.keep[self.graph[layer].name].nonzero().flatten().tolist()

    def then(self, inner: Mask) -> Mask:
        """Return one mask, in original indices, for this mask followed by `inner`, a mask of the pruned network."""
        keep = {}
        for group in self.graph.groups:
            column, second = self.keep[group.name].clone(), inner.keep.get(group.name)
            count = int(column.sum())
            if second is None and count == 1:  # a layer of one filter is no group: nothing of it can be removed
                second = torch.ones(1, dtype=torch.bool)
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
            "format": FORMATS["mask"],
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
    def from_json(cls, value: Mapping[str, Any] | str, *, graph: FilterGraph) -> Mask:
        """Return the mask that `to_json` wrote, for the network with these groups.

        Args:
            value: the dictionary, or its JSON text.
            graph: the groups of the network.

        Raises:
            DgpruneError: another format, values that `to_json` does not write, or a network with other layers or
                another number of filters in a layer.
        """
        value = parse_json(value, name="the mask") if isinstance(value, str) else value
        if "keep" in value and "filters" in value:
            check_format(value, name="the mask", kind="mask")
        if missing := [key for key in ("keep", "filters", "ratio_requested", *_ABOUT) if key not in value]:
            raise DgpruneError(f"this is not a mask that to_json wrote; it lacks {', '.join(missing)}.")
        _check_entries(value)
        sizes, saved = {group.name: group.filters for group in graph.groups}, dict(value["filters"])
        if saved != sizes:
            wrong = [
                f"{name} ({saved.get(name, 'none')}, here {sizes.get(name, 'none')})"
                for name in {**sizes, **saved}
                if saved.get(name) != sizes.get(name)
            ]
            raise DgpruneError(f"the mask is for another network; layers with other filters: {', '.join(wrong[:4])}.")
        if other := set(value["keep"]) ^ set(sizes):
            raise DgpruneError(f"the mask and its list of layers differ in {', '.join(map(str, sorted(other)))}.")
        keep = {name: torch.zeros(count, dtype=torch.bool) for name, count in sizes.items()}
        for name, count in sizes.items():
            keep[name][_numbers(name, value["keep"][name], count=count, start="the mask: ")] = True
        return cls(keep, value["ratio_requested"], graph, **{key: value[key] for key in _ABOUT})


def _numbers(layer: str, filters: Any, *, count: int, start: str = "") -> Tensor:
    """The (K,) indices of filters of a layer, given as indices or as a bool vector; `start` begins the message.

    Raises:
        DgpruneError: values that are no indices, or that name no filter of this layer.
    """
    what = f"{start}filters of layer {layer!r} must be numbers from 0 to {count - 1}, or True or False for each of them"
    if isinstance(filters, (str, bytes, Mapping)):
        raise DgpruneError(f"{what}; got {filters!r:.80}.")
    plain = filters.tolist() if hasattr(filters, "tolist") else filters
    items = list(plain) if isinstance(plain, Iterable) else [plain]
    listed = [item.item() if isinstance(item, Tensor | np.generic) and item.ndim == 0 else item for item in items]
    flags = [isinstance(item, bool) for item in listed]
    if flags and all(flags):
        if len(flags) != count:
            raise DgpruneError(
                f"{start}layer {layer!r} has {count} filters; got {len(flags)} values of True and False."
            )
        return torch.tensor(listed).nonzero().flatten()
    if any(flags) or not all(isinstance(item, int) for item in listed):
        raise DgpruneError(f"{what}; got {listed!r:.80}.")
    if not all(0 <= item < count for item in listed):
        raise DgpruneError(f"{start}layer {layer!r} has filters 0 to {count - 1}; got {listed!r:.80}.")
    if repeated := sorted({item for item in listed if listed.count(item) > 1}):
        raise DgpruneError(f"{start}layer {layer!r}: filters {repeated[:8]} are named more than once; name each once.")
    return torch.tensor(listed, dtype=torch.int64)


def _prunable(graph: FilterGraph) -> tuple[int, int]:
    """How many output channels belong to groups, and how many the convolutions have but for one that gives logits."""
    reached: dict[str, tuple[int, set[int]]] = {}
    for member in (member for group in graph.groups for member in group.members if member.side == "out"):
        reached.setdefault(member.tensor, (member.axis, set()))[1].update(member.positions.tolist())
    can = every = 0
    for weight in (weight for weight in graph.uses if weight in graph.shapes):
        shape, (axis, places) = graph.shapes[weight][0], reached.get(weight, (0, set()))
        if places or (len(shape) > 2 and weight != list(graph.uses)[-1]):
            can, every = can + len(places), every + shape[axis]
    return can, every


def _check_entries(value: Mapping[str, Any]) -> None:
    """Refuse the content of a mask's file where `to_json` would not have written it."""
    ratio, reads = value["ratio_requested"], value["reads"]
    number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
    right = {
        "keep": isinstance(value["keep"], Mapping),
        "filters": isinstance(value["filters"], Mapping),
        "ratio_requested": number and math.isfinite(ratio) and 0 <= ratio < 1,
        "scope": value["scope"] in get_args(Scope),
        "budget": value["budget"] in get_args(Budget),
        "scorer": isinstance(value["scorer"], str),
        "options": isinstance(value["options"], Mapping),
        "nested": isinstance(value["nested"], bool),
        "reads": reads is None or (isinstance(reads, Mapping) and all(use in get_args(Seen) for use in reads.values())),
    }
    if wrong := [name for name, is_right in right.items() if not is_right]:
        raise DgpruneError(f"the mask has another {wrong[0]} than to_json writes; got {value[wrong[0]]!r:.80}.")


@public
@dataclass(frozen=True, eq=False)
class WeightMask:
    """Which single weights stay: parameter name -> bool of the parameter's shape. They can be masked, not removed."""

    keep: Mapping[str, Tensor]
    ratio_requested: Share
    _: KW_ONLY
    scope: Scope = "global"
    scorer: str = "by hand"
    reads: Reads = None

    def __post_init__(self) -> None:
        for name, keep in self.keep.items():
            if keep.dtype != torch.bool:
                raise DgpruneError(f"a mask of single weights needs bool, True = keep; {name} has {keep.dtype}.")

    def __repr__(self) -> str:
        total, kept = (sum(int(k.numel() if all_ else k.sum()) for k in self.keep.values()) for all_ in (True, False))
        return (
            f"WeightMask({self.scorer}: {self.ratio_requested:.1%} of the weights requested, scope {self.scope}, "
            f"{self.ratio_achieved:.1%} zeroed; {kept:,} of {total:,} stay in {len(self.keep)} tensors)"
        )

    @property
    def ratio_achieved(self) -> float:
        """Share of the weights that the mask sets to zero."""
        total = sum(keep.numel() for keep in self.keep.values())
        return 1 - sum(int(keep.sum()) for keep in self.keep.values()) / total
