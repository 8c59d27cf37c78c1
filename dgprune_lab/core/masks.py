"""Masks: which filters stay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

import pandas as pd
import torch
from torch import Tensor

from .border import public
from .errors import DgpruneError, unknown
from .files import FORMATS, check_format, parse_json
from .filter_lists import Forced, filter_numbers, forced_filters, forced_lists
from .frozen import Frozen
from .graph import Cost, FilterGraph, whole_units
from .kinds import Share
from .provenance import Reads, check_reads, declared, merged
from .tables import Budget, Scope, Seen

_READS, _FIELDS = ("reads", "selection"), ("scope", "budget", "scorer", "options", "nested", "reads")
_ADDED: Mapping[str, Any] = {"layer_ratios": {}, "max_layer_ratio": None, "forced": {}, "selection": {}}
"""Fields that a mask's file may lack, with their default values."""


@public
@dataclass(frozen=True, eq=False)
class Mask:
    """Which filters stay: one bool per filter and group, True = keep. A mask cannot be changed; reading gives a copy.

    Attributes:
        keep: group name -> (C,) bool; at least one True in each.
        ratio_requested: the requested pruning ratio, in [0, 1).
        graph: the filter groups of the network; not saved with the mask.
        scope: "layer" (the same share of each layer is removed) or "global" (the network's lowest scores are removed).
        budget: what the ratio counts: "filters", "parameters" or "macs".
        scorer: name of the scorer that the mask comes from.
        options: options and seed of that scorer.
        nested: True where a larger ratio of the same scores keeps a subset of these filters.
        reads: which splits the choice of filters has read, as in `Scores`.
        layer_ratios: layer -> the share of its filters that was requested for this layer alone; see `allocate`.
        max_layer_ratio: the largest share that could be removed of any layer; None for no limit.
        forced: {"remove": layer -> indices, "keep": layer -> indices} of the filters forced by hand; {} for none.
        selection: which splits the choice of the ratio has read, as in `Scores`; {} where nothing was searched.
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
    layer_ratios: Mapping[str, float] = field(default_factory=dict)
    max_layer_ratio: Share | None = None
    forced: Forced = field(default_factory=dict)
    selection: Reads = field(default_factory=dict)

    def __post_init__(self) -> None:
        for group in self.graph.groups:
            keep = self.keep.get(group.name)
            if keep is None or tuple(keep.shape) != (group.filters,) or keep.dtype != torch.bool:
                actual = "nothing" if keep is None else f"{keep.dtype} of shape {tuple(keep.shape)}"
                raise DgpruneError(
                    f"a mask needs bool of shape ({group.filters},) for layer {group.name!r}; got {actual}."
                )
            if not keep.any():
                raise DgpruneError(f"a mask must keep at least one filter of layer {group.name!r}.")
            if not whole_units(group, keep):
                raise DgpruneError(
                    f"layer {group.name!r}: grouped convolutions tie its filters in steps of {group.step}; "
                    "the filters of one unit are kept or removed together."
                )
        for name in self.keep:
            if name not in self.graph.names:
                raise unknown("layer", name, self.graph.names)
        for name in ("keep", "options", "reads", "layer_ratios", "forced", "selection"):
            if (value := getattr(self, name)) is not None:
                self.__dict__[name] = Frozen((check_reads(value, what="a mask") or {}) if name in _READS else value)

    def __repr__(self) -> str:
        kept, free, layers = self.cost.filters, self.graph.free, len(self.graph.groups)
        rest = "" if self.graph.total <= free else f"; {self.graph.share}"
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
            DgpruneError: an unknown layer; indices without a filter or repeated ones; a bool vector of another length;
                all filters of a layer.
        """
        reads = declared(reads, what="a mask by hand")
        keep = {group.name: torch.ones(group.filters, dtype=torch.bool) for group in graph.groups}
        for name, filters in (removed or {}).items():
            index = filter_numbers(name, filters, count=graph[name].filters)
            keep[name][index] = False
        count = sum(int((~column).sum()) for column in keep.values())
        return cls(keep, count / max(graph.free, 1), graph, reads=reads)

    @cached_property
    def cost(self) -> Cost:
        """Filters, parameters, MACs and bytes of the network without the removed filters."""
        return self.graph.cost(self.keep)

    @property
    def ratio_achieved(self) -> float:
        """Removed share of all filters, parameters or MACs, whichever the budget counts."""
        return 1 - getattr(self.cost, self.budget) / getattr(self.graph.full, self.budget)

    @cached_property
    def key(self) -> bytes:
        """The kept filters as bytes: equal masks have equal keys."""
        return self.graph.vector(self.keep).numpy().tobytes()

    def kept(self, layer: str) -> list[int]:
        """Return the original indices of the filters of a layer that stay."""
        return self.keep[self.graph[layer].name].nonzero().flatten().tolist()

    @property
    def layers(self) -> pd.DataFrame:
        """A line per layer: its filters, how many stay, the requested and the achieved ratio, and those forced by hand.

        `ratio_requested` is empty where none applies to the layer by itself: under scope "global", under a budget other
        than filters, and where layers or filters were set by hand.
        """
        plain = self.nested and (self.scope, self.budget) == ("layer", "filters")
        shared = self.ratio_requested if plain and not self.layer_ratios and not self.forced else math.nan
        rows = []
        for group in self.graph.groups:
            count = int(self.keep[group.name].sum())
            by_hand = {name: len(self.forced.get(name, {}).get(group.name, ())) for name in ("remove", "keep")}
            rows.append(
                {
                    "layer": group.name,
                    "filters": group.filters,
                    "kept": count,
                    "ratio_requested": self.layer_ratios.get(group.name, shared),
                    "ratio_achieved": 1 - count / group.filters,
                    "removed_by_hand": by_hand["remove"],
                    "kept_by_hand": by_hand["keep"],
                }
            )
        return pd.DataFrame(rows)

    def with_filters(
        self,
        *,
        remove: Mapping[str, Any] | None = None,
        keep: Mapping[str, Any] | None = None,
        reads: Mapping[str, Any] | None = None,
    ) -> Mask:
        """Return the mask with some filters removed or kept by hand; all others stay as they are.

        `ratio_requested` stays and `ratio_achieved` follows; to reach the requested ratio with these filters fixed,
        pass them to `allocate`. Filters that were forced before stay forced, unless this call changes them.

        Args:
            remove, keep: layer -> indices, {"conv2": [0, 5]}, or (C,) bool, True for each filter to remove or to keep.
            reads: the splits that the choice is based on, as in `Scores.from_frame`; None for unknown.

        Raises:
            DgpruneError: an unknown layer or filter; a filter both removed and kept; a layer that would lose all its
                filters; only some of the filters that grouped convolutions tie together.
        """
        removed, kept = forced_filters(self.graph, remove=remove, keep=keep)
        reads = declared(reads, what="filters by hand")
        if not any(flags.any() for flags in (*removed.values(), *kept.values())):
            return self
        columns = {name: (column & ~removed[name]) | kept[name] for name, column in self.keep.items()}
        if emptied := [name for name, column in columns.items() if not column.any()]:
            raise DgpruneError(
                f"remove leaves no filter of layer {emptied[0]!r}, of which this mask keeps "
                f"{self.kept(emptied[0])}; leave one of them out of remove=."
            )
        before = forced_filters(self.graph, remove=self.forced.get("remove"), keep=self.forced.get("keep"))
        removed = {name: (before[0][name] & ~kept[name]) | flags for name, flags in removed.items()}
        kept = {name: (before[1][name] & ~removed[name]) | flags for name, flags in kept.items()}
        name = self.scorer if self.scorer.endswith("by hand") else f"{self.scorer}, by hand"
        merged_reads, forced = merged(self.reads, reads), forced_lists(removed, kept)
        return replace(self, keep=columns, scorer=name, nested=False, reads=merged_reads, forced=forced)

    def then(self, inner: Mask) -> Mask:
        """Return one mask, in original indices, for this mask followed by `inner`, a mask of the pruned network."""
        keep = {}
        for group in self.graph.groups:
            column, second = self.keep[group.name].clone(), inner.keep.get(group.name)
            count = int(column.sum())
            if second is None and count == 1:  # a layer with one filter is not a group: it cannot be pruned
                second = torch.ones(1, dtype=torch.bool)
            if second is None or len(second) != count:
                raise DgpruneError(f"the second mask does not fit layer {group.name!r}: {count} filters remain in it.")
            column[column.nonzero().flatten()] = second
            keep[group.name] = column
        ratio = 1 - (1 - self.ratio_requested) * (1 - inner.ratio_requested)
        changed = {"scorer": inner.scorer, "options": inner.options, "reads": merged(self.reads, inner.reads)}
        changed |= {**_ADDED, "selection": merged(self.selection, inner.selection)}
        return replace(self, keep=keep, ratio_requested=ratio, nested=False, **changed)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary with the original indices of the filters that stay."""
        fields = {name: getattr(self, name) for name in (*_FIELDS, *_ADDED)}
        return {
            "format": FORMATS["mask"],
            "keep": {name: column.nonzero().flatten().tolist() for name, column in self.keep.items()},
            "filters": {group.name: group.filters for group in self.graph.groups},
            "ratio_requested": self.ratio_requested,
            "ratio_achieved": self.ratio_achieved,
            **{name: dict(value) if isinstance(value, Mapping) else value for name, value in fields.items()},
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
        if missing := [key for key in ("keep", "filters", "ratio_requested", *_FIELDS) if key not in value]:
            raise DgpruneError(f"this is not a mask that to_json wrote; it lacks {', '.join(missing)}.")
        value = {**_ADDED, **value}
        _check_entries(value)
        sizes, saved = {group.name: group.filters for group in graph.groups}, dict(value["filters"])
        if saved != sizes:
            wrong = [
                f"{name} ({saved.get(name, 'none')}, here {sizes.get(name, 'none')})"
                for name in {**sizes, **saved}
                if saved.get(name) != sizes.get(name)
            ]
            raise DgpruneError(f"the mask is for another network; numbers of filters differ: {', '.join(wrong[:4])}.")
        if layers := set(value["keep"]) ^ set(sizes):
            raise DgpruneError(f"keep and filters of the mask differ in layers: {', '.join(sorted(map(str, layers)))}.")
        keep = {name: torch.zeros(count, dtype=torch.bool) for name, count in sizes.items()}
        for name, count in sizes.items():
            keep[name][filter_numbers(name, value["keep"][name], count=count, start="the mask: ")] = True
        forced_filters(graph, **{name: value["forced"].get(name) for name in ("remove", "keep")})
        return cls(keep, value["ratio_requested"], graph, **{key: value[key] for key in (*_FIELDS, *_ADDED)})


def _check_entries(value: Mapping[str, Any]) -> None:
    """Refuse values in a mask's file that `to_json` does not write."""
    limit, layer_ratios, forced = value["max_layer_ratio"], value["layer_ratios"], value["forced"]
    is_valid = {
        "keep": isinstance(value["keep"], Mapping),
        "filters": isinstance(value["filters"], Mapping),
        "ratio_requested": _is_share(value["ratio_requested"]) and value["ratio_requested"] < 1,
        "scope": value["scope"] in get_args(Scope),
        "budget": value["budget"] in get_args(Budget),
        "scorer": isinstance(value["scorer"], str),
        "options": isinstance(value["options"], Mapping),
        "nested": isinstance(value["nested"], bool),
        "layer_ratios": isinstance(layer_ratios, Mapping) and all(map(_is_share, layer_ratios.values())),
        "max_layer_ratio": limit is None or _is_share(limit),
        "forced": isinstance(forced, Mapping) and all(isinstance(lists, Mapping) for lists in forced.values()),
    }
    for name in ("reads", "selection"):
        reads = value[name]
        uses = reads.values() if isinstance(reads, Mapping) else [None]
        is_valid[name] = reads is None or all(use in get_args(Seen) for use in uses)
    if wrong := [name for name, valid in is_valid.items() if not valid]:
        raise DgpruneError(f"the mask has an invalid {wrong[0]}, {value[wrong[0]]!r:.80}; save it again.")


def _is_share(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value <= 1
