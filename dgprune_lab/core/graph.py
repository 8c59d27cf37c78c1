"""Groups of filters, and where each filter of a network sits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .border import public
from .errors import unknown


class Member(NamedTuple):
    """Where a group's filters sit on one axis of one tensor.

    Attributes:
        tensor: dotted name of a parameter or buffer.
        axis: the axis that is cut.
        side: "out" where the tensor produces the filters, "in" where it consumes them.
        positions: (K,) indices along the axis.
        filters: (K,) the filter of the group that sits at each index.
    """

    tensor: str
    axis: int
    side: Literal["out", "in"]
    positions: Tensor
    filters: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class FilterGroup:
    """Filters that must be removed together wherever they are produced or consumed.

    Attributes:
        name: dotted name of the first layer that produces the group, in the order of execution.
        filters: their number C.
        members: every (tensor, axis) that holds them.
        units: (C,) the unit of each filter; filters of one unit are removed together (grouped convolutions tie them).
        producers: dotted names of the convolution, linear and normalisation layers that produce the group.
        consumer_inputs: dotted name of each consumer -> (K,) positions on its input axis and (K,) the filters there, in
            the order of execution; the input of these layers is the group's output.
        depth: position of the group in the order of execution, from 0.
        ends: the producers whose output reaches a consumer without another producer in between (of a convolution and
            its BatchNorm, the BatchNorm): a gate on the group's output is one gate on all of these.
        feeds: each consumer -> the convolution and linear layers of the group whose output arrives there (through
            normalisation, activations, pooling and additions) without another one of them in between.
    """

    name: str
    filters: int
    members: tuple[Member, ...] = field(repr=False)
    units: Tensor = field(repr=False)
    producers: tuple[str, ...] = ()
    consumer_inputs: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    depth: int = 0
    ends: tuple[str, ...] = ()
    feeds: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    @property
    def consumers(self) -> tuple[str, ...]:
        """Dotted names of the layers that consume the group, in the order of execution."""
        return tuple(self.consumer_inputs)

    @cached_property
    def end_places(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Each of `ends` -> (K,) positions on the channels of its output and (K,) the filters there."""
        places: dict[str, tuple[Tensor, Tensor]] = {}
        for member in self.members:
            layer, _, tensor = member.tensor.rpartition(".")
            if layer in self.ends and member.side == "out" and tensor in ("weight", "running_mean"):
                places.setdefault(layer, (member.positions, member.filters))
        return places

    @cached_property
    def step(self) -> int:
        """Filters in the largest unit: 1 unless grouped convolutions tie them."""
        return int(self.units.bincount().max())


class Cost(NamedTuple):
    """Size of a network: counts, and bytes of parameters and buffers."""

    filters: int
    parameters: int
    macs: int
    bytes: int


@dataclass(frozen=True, eq=False, kw_only=True)
class FilterGraph:
    """Every group of a network and where each filter sits: the dependency graph, read once.

    Each filter of the network has one global id (its group's offset plus its number). `axes[tensor][axis]` is a
    (length,) tensor of global ids, with the id `free` (the last) where a position belongs to no group.

    Attributes:
        groups: in the order of execution.
        axes: global ids along every axis that some group cuts.
        shapes: shape and element size in bytes of every parameter and buffer.
        parameters: names of the trainable tensors, each shared tensor once.
        uses: of each convolution or linear weight, at how many output positions per image it is applied.
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
        return dict(zip(self.names, accumulate((group.filters for group in self.groups), initial=0), strict=False))

    @cached_property
    def free(self) -> int:
        """Number of filters, and the global id of a position that belongs to no group."""
        return sum(group.filters for group in self.groups)

    @property
    def maps(self) -> dict[tuple[str, int], int]:
        """Index in `distinct` of the map of each (tensor, axis): many axes share one."""
        return self._distinct[0]

    @property
    def distinct(self) -> list[Tensor]:
        """The distinct maps, each once."""
        return self._distinct[1]

    @cached_property
    def cuts(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """Of each tensor that a group cuts, its axes in order, each with its distinct map."""
        return {name: tuple((axis, self.maps[name, axis]) for axis in sorted(axes)) for name, axes in self.axes.items()}

    @cached_property
    def lengths(self) -> list[int]:
        """Length of each distinct map."""
        return [len(ids) for ids in self.distinct]

    @cached_property
    def _distinct(self) -> tuple[dict[tuple[str, int], int], list[Tensor]]:
        index: dict[bytes, int] = {}
        maps: dict[tuple[str, int], int] = {}
        distinct: list[Tensor] = []
        for tensor, axes in self.axes.items():
            for axis, ids in axes.items():
                maps[tensor, axis] = index.setdefault(ids.numpy().tobytes(), len(index))
                if len(index) > len(distinct):
                    distinct.append(ids)
        return maps, distinct

    @cached_property
    def _stacked(self) -> tuple[Tensor, Tensor]:
        """The distinct maps as one, and where each starts and ends in it."""
        return torch.cat(self.distinct), torch.tensor([0, *self.lengths]).cumsum(0)

    @public
    def vector(self, keep: Mapping[str, Tensor]) -> Tensor:
        """Return (free + 1,) bool: which global ids stay; the last is True."""
        return torch.cat([*(keep[group.name] for group in self.groups), torch.ones(1, dtype=torch.bool)])

    @public
    def kept_lengths(self, vector: Tensor) -> list[int]:
        """Return the remaining length of each distinct map."""
        ids, ends = self._stacked
        counts = torch.cat([torch.zeros(1, dtype=torch.int64), vector[ids].cumsum(0)])
        return counts[ends].diff().tolist()

    @cached_property
    def full(self) -> Cost:
        """Cost of the whole network."""
        return self.cost()

    @public
    def cost(self, keep: Mapping[str, Tensor] | None = None) -> Cost:
        """Return filters, parameters, MACs per image and bytes under a mask; of the full network without one.

        MACs are those of convolution and linear layers: elements of the weight times the output positions per image
        (Torch's FlopCounterMode counts two operations for each).
        """
        lengths = self.lengths if keep is None else self.kept_lengths(self.vector(keep))
        parameters = macs = size = 0
        for tensor, (shape, element) in self.shapes.items():
            count = 1
            for axis, length in enumerate(shape):
                index = self.maps.get((tensor, axis))
                count *= length if index is None else lengths[index]
            size += count * element
            parameters += count * (tensor in self.parameters)
            macs += count * self.uses.get(tensor, 0)
        filters = self.free if keep is None else sum(int(column.sum()) for column in keep.values())
        return Cost(filters, parameters, macs, size)
