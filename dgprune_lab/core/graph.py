"""Groups of filters, and where each filter of a network sits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .border import public
from .errors import DgpruneError, unknown
from .frozen import Frozen

Product = tuple[int, tuple[Tensor, ...]]
"""Multiply-accumulates of one operation, and the global filter ids along each axis that it multiplies."""


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


class _Copied:
    """A field that cannot be changed: reading it gives a copy."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = "_" + name

    def __get__(self, instance: object, owner: type) -> Any:
        return instance.__dict__[self._name].clone()  # an AttributeError on the class, so that the field has no default

    def __set__(self, instance: object, value: Tensor) -> None:
        instance.__dict__[self._name] = value.clone()


@dataclass(frozen=True, eq=False, kw_only=True)
class FilterGroup:
    """Filters that must be removed together wherever they are produced or consumed.

    Attributes:
        name: dotted name of the first layer that produces the group, in the order of execution.
        filters: number of filters C.
        members: every (tensor, axis) on which the filters lie.
        units: (C,) the unit of each filter; filters of one unit are removed together (grouped convolutions tie them).
        producers: dotted names of the convolution, linear and normalisation layers that produce the group.
        consumer_inputs: dotted name of each layer whose input is the group's output, in the order of execution -> (K,)
            positions on its input axis and (K,) the filters there.
        depth: position of the group in the order of execution, from 0.
        ends: the producers whose output reaches a consumer without another producer in between (of a convolution and
            its BatchNorm, the BatchNorm): a gate on the group's output is one gate on all of these.
        feeds: each consumer -> the convolution and linear layers of the group whose output arrives there (through
            normalisation, activations, pooling and additions) without another such layer in between.
    """

    name: str
    filters: int
    members: tuple[Member, ...] = field(repr=False)
    units: Tensor = _Copied()  # type: ignore[assignment]
    producers: tuple[str, ...] = ()
    consumer_inputs: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    depth: int = 0
    ends: tuple[str, ...] = ()
    feeds: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        step = f" in steps of {self.step}" if self.step > 1 else ""
        return f"FilterGroup({self.name!r}: {self.filters:,} filters{step}, read by {len(self.consumers)} layers)"

    @property
    def consumers(self) -> tuple[str, ...]:
        """Dotted names of the layers that consume the group, in the order of execution."""
        return tuple(self.consumer_inputs)

    @cached_property
    def end_places(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Name of each of `ends` -> (K,) channels of its output and (K,) the filters on them."""
        places: dict[str, tuple[Tensor, Tensor]] = {}
        for member in self.members:
            layer, _, tensor = member.tensor.rpartition(".")
            if layer in self.ends and member.side == "out" and tensor in ("weight", "running_mean"):
                places.setdefault(layer, (member.positions, member.filters))
        return places

    @cached_property
    def step(self) -> int:
        """Number of filters in the largest unit: 1 unless grouped convolutions tie filters."""
        return int(self.units.bincount().max())


def whole_units(group: FilterGroup, keep: Tensor) -> bool:
    """Return whether `keep`, (C,) bool, keeps or removes each unit of a group as a whole."""
    if group.step == 1:
        return True
    counts = torch.zeros(group.filters, dtype=torch.int64).scatter_add_(0, group.units, keep.long())
    return bool(((counts == 0) | (counts == group.units.bincount(minlength=group.filters))).all())


class Cost(NamedTuple):
    """Size of a network: filters, parameters, MACs per image, and bytes of parameters and buffers."""

    filters: int
    parameters: int
    macs: int
    bytes: int


@dataclass(frozen=True, eq=False, kw_only=True)
class FilterGraph:
    """Every filter group of a network and where each filter sits: the dependency graph.

    Each filter of the network has one global id (its group's offset plus its index in the group). `axes[tensor][axis]`
    is a (length,) tensor of global ids, with the id `free` (the last) where a position belongs to no group.

    Attributes:
        groups: the groups in the order of execution.
        axes: tensor name -> axis -> the global ids along it, for every axis on which filters lie.
        shapes: shape and element size in bytes of every parameter and buffer.
        parameters: names of the trainable tensors, each shared tensor once.
        uses: name of each convolution or linear weight -> number of output positions per image that it is applied to.
        refused: layer name -> why its filters cannot be cut.
        total: number of filters, including refused ones; see `share`.
        products: multiply-accumulates per image of operations not in `uses` (attention, sums over branches), each
            with the global ids along the axes that it multiplies; () where no filter changes them.
        input_shape: shape (C, H, W) of the image that the network was traced with.
        layers: which layers have groups: "conv" (convolutions) or "all" (hidden linear layers too).
    """

    groups: tuple[FilterGroup, ...]
    axes: Mapping[str, Mapping[int, Tensor]] = field(repr=False)
    shapes: Mapping[str, tuple[tuple[int, ...], int]] = field(repr=False)
    parameters: frozenset[str] = field(repr=False)
    uses: Mapping[str, int] = field(repr=False)
    refused: Mapping[str, str]
    input_shape: tuple[int, int, int]
    layers: Literal["conv", "all"] = "conv"
    total: int = 0
    products: tuple[Product, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for name in ("axes", "refused"):
            self.__dict__[name] = Frozen(getattr(self, name))

    def __repr__(self) -> str:
        refused = f", {len(self.refused)} layers refused" if self.refused else ""
        return f"FilterGraph({self.share} in {len(self.groups)} layers{refused})"

    @property
    def share(self) -> str:
        """How many of all filters can be pruned, as text: "1,504 of 2,880 filters can be pruned".

        A filter counts once, however many layers its output is added to (a residual stream of 64 channels has 64
        filters). The network's own outputs, and layers with a single filter, are not counted; hidden units of linear
        layers are counted with layers="all".
        """
        return f"{self.free:,} of {max(self.total, self.free):,} filters can be pruned"

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
        """Group name -> global id of its filter 0."""
        return dict(zip(self.names, accumulate((group.filters for group in self.groups), initial=0), strict=False))

    @cached_property
    def free(self) -> int:
        """Number of filters that can be pruned, and the global id of a position that belongs to no group."""
        return sum(group.filters for group in self.groups)

    @property
    def maps(self) -> dict[tuple[str, int], int]:
        """(tensor, axis) -> index in `distinct` of the tensor of its global ids; many axes share one tensor."""
        return self._distinct[0]

    @property
    def product_maps(self) -> list[list[int]]:
        """For each of `products`, the index in `distinct` of each of its tensors of global ids."""
        return self._distinct[2]

    @property
    def distinct(self) -> list[Tensor]:
        """The different tensors of global ids in `axes` and `products`, each once."""
        return self._distinct[1]

    @cached_property
    def cuts(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """Tensor name -> the axes on which filters lie, in order, each with its index in `distinct`."""
        return {name: tuple((axis, self.maps[name, axis]) for axis in sorted(axes)) for name, axes in self.axes.items()}

    @cached_property
    def lengths(self) -> list[int]:
        """Length of each tensor in `distinct`."""
        return [len(ids) for ids in self.distinct]

    @cached_property
    def _distinct(self) -> tuple[dict[tuple[str, int], int], list[Tensor], list[list[int]]]:
        index: dict[bytes, int] = {}
        distinct: list[Tensor] = []

        def number(ids: Tensor) -> int:
            position = index.setdefault(ids.numpy().tobytes(), len(index))
            if len(index) > len(distinct):
                distinct.append(ids)
            return position

        maps = {(tensor, axis): number(ids) for tensor, axes in self.axes.items() for axis, ids in axes.items()}
        return maps, distinct, [[number(ids) for ids in labels] for _, labels in self.products]

    @cached_property
    def _stacked(self) -> tuple[Tensor, Tensor]:
        """The tensors of `distinct` concatenated; the offset at which each begins, followed by the total length."""
        return torch.cat(self.distinct), torch.tensor([0, *self.lengths]).cumsum(0)

    @public
    def vector(self, keep: Mapping[str, Tensor]) -> Tensor:
        """Return a bool vector (free + 1,), True for each global id that stays; the last is always True.

        Raises:
            DgpruneError: a layer without a bool for each of its filters.
        """
        parts = [keep.get(group.name) for group in self.groups]
        for group, part in zip(self.groups, parts, strict=True):
            if part is None or part.shape != (group.filters,) or part.dtype != torch.bool:
                raise DgpruneError(f"keep needs ({group.filters},) bool for layer {group.name!r}, True = keep.")
        return torch.cat([*(part for part in parts if part is not None), torch.ones(1, dtype=torch.bool)])

    @public
    def kept_lengths(self, vector: Tensor) -> list[int]:
        """Return how many positions of each tensor in `distinct` stay, given the result of `vector`."""
        if vector.shape != (self.free + 1,) or vector.dtype != torch.bool:
            raise DgpruneError(f"vector must be what vector(keep) returns: ({self.free + 1},) bool.")
        ids, ends = self._stacked
        counts = torch.cat([torch.zeros(1, dtype=torch.int64), vector[ids].cumsum(0)])
        return counts[ends].diff().tolist()

    @cached_property
    def full(self) -> Cost:
        """Cost of the whole network."""
        return self.cost()

    @public
    def cost(self, keep: Mapping[str, Tensor] | None = None) -> Cost:
        """Return filters, parameters, MACs per image and bytes of the network under a mask, or of the full network.

        MACs of convolution and linear layers: elements of the weight times output positions per image (torch's
        FlopCounterMode counts two operations for each). `products` are added, in proportion to what stays along each
        of their axes.
        """
        lengths = self.lengths if keep is None else self.kept_lengths(self.vector(keep))
        parameters, macs, size = 0, 0, 0
        for (count, _), maps in zip(self.products, self.product_maps, strict=True):
            for number in maps:
                count = count * lengths[number] // self.lengths[number]
            macs += count
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
