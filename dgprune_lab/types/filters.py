"""Filters: the groups they come in, their scores, and the masks that say which stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from .errors import DgpruneError, unknown
from .record import Record
from .tables import Of, Scope, Seen


class Member(NamedTuple):
    """Where a group's filters sit on one axis of one tensor.

    Attributes:
        tensor: dotted name of a parameter or buffer.
        axis: the axis that is cut.
        side: "out" where the tensor writes the filters, "in" where it reads them.
        positions: (K,) places on the axis.
        filters: (K,) the filter of the group that sits at each place.
    """

    tensor: str
    axis: int
    side: Literal["out", "in"]
    positions: Tensor
    filters: Tensor


@dataclass(frozen=True, eq=False)
class FilterGroup:
    """Filters that must go together wherever they are written or read.

    Attributes:
        name: dotted name of the first layer that writes the group, in the order of execution.
        filters: their number C.
        members: every (tensor, axis) that holds them.
        units: (C,) the unit of each filter; filters of one unit go together (grouped convolutions tie them).
        writers: dotted names of the convolution, linear and normalisation layers that write the group.
        doors: dotted name of each layer that reads it -> (K,) places on its input axis and (K,) the filters there, in
            the order of execution; the input of these layers is the group's output.
        depth: position of the group in the order of execution, from 0.
        ends: the writers whose output reaches a reader without another writer in between (of a convolution and its
            BatchNorm, the BatchNorm): a gate on the group's output is one gate on all of these.
    """

    name: str
    filters: int
    members: tuple[Member, ...] = field(repr=False)
    units: Tensor = field(repr=False)
    writers: tuple[str, ...] = ()
    doors: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    depth: int = 0
    ends: tuple[str, ...] = ()

    @property
    def consumers(self) -> tuple[str, ...]:
        """Dotted names of the layers that read the group, in the order of execution."""
        return tuple(self.doors)

    @cached_property
    def step(self) -> int:
        """How many filters go at once at the least (1 unless grouped convolutions tie them)."""
        return int(self.units.bincount().max())


class Cost(NamedTuple):
    """What is left of a network: counts, and bytes of parameters and buffers."""

    filters: int
    parameters: int
    macs: int
    bytes: int


@dataclass(frozen=True, eq=False)
class FilterGraph:
    """Every group of a network and where each filter sits: what the dependency graph says, read once.

    Each filter of the network has one global id (its group's offset plus its number). `axes[tensor][axis]` is a
    (length,) tensor of global ids, with the id `free` (the last) where a place belongs to no group.

    Attributes:
        groups: in the order of execution.
        axes: global ids along every axis that some group cuts.
        shapes: shape and element size in bytes of every parameter and buffer.
        parameters: names of the trainable tensors, each shared tensor once.
        uses: of each convolution or linear weight, at how many output places per image it is applied.
        refused: layer name -> why its filters cannot be cut.
        input_shape: (C, H, W) that the network was traced with.
        layers: "conv" (filters of convolutions) or "all" (hidden units of linear layers too).
    """

    groups: tuple[FilterGroup, ...]
    axes: Mapping[str, Mapping[int, Tensor]] = field(repr=False)
    shapes: Mapping[str, tuple[tuple[int, ...], int]] = field(repr=False)
    parameters: frozenset[str] = field(repr=False)
    uses: Mapping[str, int] = field(repr=False)
    refused: Mapping[str, str]
    input_shape: tuple[int, int, int]
    layers: Literal["conv", "all"] = "conv"

    def __getitem__(self, name: str) -> FilterGroup:
        for group in self.groups:
            if group.name == name:
                return group
        raise unknown("layer", name, self.names)

    @cached_property
    def names(self) -> list[str]:
        """Names of the groups."""
        return [group.name for group in self.groups]

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Global id of each group's filter 0."""
        starts, total = {}, 0
        for group in self.groups:
            starts[group.name] = total
            total += group.filters
        return starts

    @cached_property
    def free(self) -> int:
        """Number of filters, and the global id of a place that belongs to no group."""
        return sum(group.filters for group in self.groups)

    @cached_property
    def maps(self) -> dict[tuple[str, int], int]:
        """Which of the distinct maps each (tensor, axis) uses: many axes share one."""
        return self._distinct[0]

    @cached_property
    def distinct(self) -> list[Tensor]:
        """The distinct maps, each once."""
        return self._distinct[1]

    @cached_property
    def _distinct(self) -> tuple[dict[tuple[str, int], int], list[Tensor]]:
        seen: dict[bytes, int] = {}
        where: dict[tuple[str, int], int] = {}
        listed: list[Tensor] = []
        for tensor, axes in self.axes.items():
            for axis, ids in axes.items():
                content = ids.numpy().tobytes()
                if content not in seen:
                    seen[content] = len(listed)
                    listed.append(ids)
                where[tensor, axis] = seen[content]
        return where, listed

    @cached_property
    def _stacked(self) -> tuple[Tensor, Tensor]:
        return torch.cat(self.distinct), torch.tensor([len(ids) for ids in self.distinct])

    def vector(self, keep: Mapping[str, Tensor]) -> Tensor:
        """(free + 1,) bool: which global ids stay; the last is True."""
        return torch.cat([*(keep[group.name] for group in self.groups), torch.ones(1, dtype=torch.bool)])

    def kept_lengths(self, vector: Tensor) -> list[int]:
        """Length that each distinct map has left."""
        ids, lengths = self._stacked
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), vector[ids].cumsum(0)])[
            torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        ]
        return ends.diff().tolist()

    def cost(self, keep: Mapping[str, Tensor] | None = None) -> Cost:
        """Filters, parameters, multiply-accumulates per image and bytes that a mask leaves; the full network without one.

        MACs are those of convolution and linear layers: elements of the weight times the output places per image
        (Torch's FlopCounterMode counts two operations for each).
        """
        lengths = [len(ids) for ids in self.distinct] if keep is None else self.kept_lengths(self.vector(keep))
        parameters = macs = size = 0
        for tensor, (shape, element) in self.shapes.items():
            count = 1
            for axis, length in enumerate(shape):
                which = self.maps.get((tensor, axis))
                count *= length if which is None else lengths[which]
            size += count * element
            if tensor in self.parameters:
                parameters += count
            macs += count * self.uses.get(tensor, 0)
        filters = self.free if keep is None else sum(int(part.sum()) for part in keep.values())
        return Cost(filters, parameters, macs, size)


@dataclass(frozen=True, eq=False)
class Scores:
    """One number per filter and group; higher = keep.

    Attributes:
        scorer: name of what made them.
        values: group name -> (C,) float64, finite.
        graph: the groups they belong to.
        options: the scorer's options, seed included where it draws.
        reads: what the scorer looked at, {"mnist/score": "labels"}; None where nobody knows.
    """

    scorer: str
    values: Mapping[str, Tensor]
    graph: FilterGraph = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    reads: Mapping[str, Seen] | None = field(default_factory=dict)

    def __post_init__(self) -> None:
        for group in self.graph.groups:
            if group.name not in self.values:
                raise DgpruneError(f"scores of {self.scorer!r} lack the layer {group.name!r}; every layer needs them.")
            got = self.values[group.name]
            if tuple(got.shape) != (group.filters,):
                raise DgpruneError(
                    f"scorer {self.scorer!r} must give one number per filter: layer {group.name!r} has "
                    f"{group.filters} filters, it gave shape {tuple(got.shape)}."
                )
            if not torch.isfinite(got).all():
                bad = (~torch.isfinite(got)).nonzero().flatten().tolist()
                raise DgpruneError(
                    f"scorer {self.scorer!r} gave NaN or infinite scores in layer {group.name!r}, filters {bad[:8]}; "
                    "scores must be finite."
                )

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, *, graph: FilterGraph, scorer: str = "from_frame") -> Scores:
        """Scores from a table with the columns layer, filter and score; what was read is unknown."""
        values = {}
        for group in graph.groups:
            rows = frame[frame["layer"] == group.name]
            column = torch.full((group.filters,), torch.nan, dtype=torch.float64)
            if len(rows) and not rows["filter"].between(0, group.filters - 1).all():
                raise DgpruneError(
                    f"layer {group.name!r} has filters 0 to {group.filters - 1}; the table names others."
                )
            column[torch.tensor(rows["filter"].to_numpy(), dtype=torch.int64)] = torch.tensor(
                rows["score"].to_numpy(), dtype=torch.float64
            )
            values[group.name] = column
        return cls(scorer, values, graph, reads=None)

    def to_frame(self) -> pd.DataFrame:
        """A row per filter: scorer, layer, filter, score."""
        parts = [
            pd.DataFrame({"scorer": self.scorer, "layer": name, "filter": range(len(column)), "score": column.numpy()})
            for name, column in self.values.items()
        ]
        return pd.concat(parts, ignore_index=True)


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
        record: what was read on the way to this mask.
    """

    keep: Mapping[str, Tensor]
    asked: float
    graph: FilterGraph = field(repr=False)
    scope: Scope = "layer"
    of: Of = "filters"
    scorer: str = "by hand"
    options: Mapping[str, Any] = field(default_factory=dict)
    nested: bool = False
    reads: Mapping[str, Seen] | None = field(default_factory=dict)

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
    def by_hand(cls, graph: FilterGraph, *, removed: Mapping[str, Iterable[int]] | None = None) -> Mask:
        """A mask that removes the filters one names, {"conv2": [0, 5]}; everything stays where nothing is named."""
        keep = {group.name: torch.ones(group.filters, dtype=torch.bool) for group in graph.groups}
        for name, filters in (removed or {}).items():
            group, index = graph[name], torch.as_tensor(list(filters), dtype=torch.int64)
            if len(index) and (int(index.min()) < 0 or int(index.max()) >= group.filters):
                raise DgpruneError(f"layer {name!r} has filters 0 to {group.filters - 1}; got {index.tolist()}.")
            keep[name][index] = False
        total = sum(int((~part).sum()) for part in keep.values())
        return cls(keep, total / max(graph.free, 1), graph)

    @cached_property
    def cost(self) -> Cost:
        """What it leaves."""
        return self.graph.cost(self.keep)

    @property
    def got(self) -> float:
        """The share really removed, of what the ratio counts."""
        full = getattr(self.graph.cost(), self.of)
        return 1 - getattr(self.cost, self.of) / full

    @cached_property
    def key(self) -> bytes:
        """The kept filters as bytes: equal masks have equal keys."""
        return self.graph.vector(self.keep).numpy().tobytes()

    def kept(self, layer: str) -> list[int]:
        """Original indices of the filters of a layer that stay."""
        return self.keep[self.graph[layer].name].nonzero().flatten().tolist()

    def then(self, inner: Mask) -> Mask:
        """The mask of two rounds: `inner` was made for the network that this mask left; indices become original ones."""
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
        left = (1 - self.asked) * (1 - inner.asked)
        reads = Record(scorer=self.reads).adding("scorer", inner.reads).scorer
        return replace(
            self, keep=keep, asked=1 - left, nested=False, reads=reads, scorer=inner.scorer, options=inner.options
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary with the original indices of the filters that stay."""
        return {
            "keep": {name: part.nonzero().flatten().tolist() for name, part in self.keep.items()},
            "filters": {group.name: group.filters for group in self.graph.groups},
            "asked": self.asked, "got": self.got, "scope": self.scope, "of": self.of, "scorer": self.scorer,
            "options": dict(self.options), "nested": self.nested,
            "reads": None if self.reads is None else dict(self.reads),
            "input_shape": list(self.graph.input_shape), "layers": self.graph.layers,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, graph: FilterGraph) -> Mask:
        """The mask that `to_json` wrote, for the network whose groups are given.

        Raises:
            DgpruneError: the network has other layers or other numbers of filters.
        """
        sizes = {group.name: group.filters for group in graph.groups}
        wanted = ("keep", "filters", "asked", "scope", "of", "scorer", "options", "nested", "reads")
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
            keep, value["asked"], graph, value["scope"], value["of"], value["scorer"], value["options"],
            value["nested"], value["reads"],
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class WeightScores:
    """One number per single weight: parameter name -> tensor of the parameter's shape; higher = keep."""

    scorer: str
    values: Mapping[str, Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    reads: Mapping[str, Seen] | None = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class WeightMask:
    """Which single weights stay: parameter name -> bool of its shape. It can be masked, never removed."""

    keep: Mapping[str, Tensor]
    asked: float
    scope: Scope = "global"
    scorer: str = "by hand"
    reads: Mapping[str, Seen] | None = field(default_factory=dict)

    @property
    def got(self) -> float:
        """Share of the weights that are zeroed."""
        total = sum(part.numel() for part in self.keep.values())
        return 1 - sum(int(part.sum()) for part in self.keep.values()) / total
