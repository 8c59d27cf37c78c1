"""Which elements of a network's tensors belong together: an id for each element, and ties between ids.

Every position on every axis of every parameter and buffer has an id, from 1; 0 stands for a position without an id (a
channel of the image, say), and -1 for a padded one. In one forward pass each tensor carries labels: the ids on its
axes. A label has as many axes as its tensor, and size 1 along the axes on which it does not vary, so the output of a
convolution has a label of shape (1, C, 1, 1). The dependency groups (Fang et al., "DepGraph", CVPR 2023) are then
connected components of ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

PADDING = -1


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Labels and origin of a tensor during the pass.

    Attributes:
        labels: the ids on its axes; a weight matrix has one label per axis, a feature map rarely more than one.
        source: name of the parameter or buffer, if the tensor was computed from it alone.
        ends: layers (BatchNorms too) whose output reached the tensor without another layer in between.
        feeds: convolution and linear layers whose output reached it, possibly through BatchNorms.
    """

    labels: tuple[Tensor, ...] = ()
    source: str | None = None
    ends: frozenset[str] = frozenset()
    feeds: frozenset[str] = frozenset()


def varying(label: Tensor) -> tuple[int, ...]:
    """Return the axes on which a label varies."""
    return tuple(axis for axis, size in enumerate(label.shape) if size > 1)


def compact(ids: Tensor) -> Tensor:
    """Return ids with size 1 along every axis on which they do not vary."""
    for axis in range(ids.ndim):
        if ids.shape[axis] > 1:
            first = ids.narrow(axis, 0, 1)
            if ids.stride(axis) == 0 or bool((ids == first).all()):
                ids = first
    return ids


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors_of(part)
    elif isinstance(value, dict):
        yield from tensors_of(list(value.values()))


class Elements:
    """The ids of one network's elements, the ties between them, and the ids that cannot be removed.

    Attributes:
        names: Python's id() of a parameter or buffer -> its name.
        starts: (name, axis) -> the first id of that axis, and the axis's length.
        sides: (name, axis) -> "in" for the input axis of a weight.
        fixed: lists of ids that cannot be removed, each with the reason.
    """

    def __init__(self, model: nn.Module) -> None:
        tensors = [*model.named_parameters(), *model.named_buffers()]
        self.names = {id(tensor): name for name, tensor in tensors}
        self._tensors = [tensor for _, tensor in tensors]  # referenced, so that no id() is reused
        self.starts: dict[tuple[str, int], tuple[int, int]] = {}
        self.sides: dict[tuple[str, int], Literal["out", "in"]] = {}
        self.fixed: list[tuple[Tensor, str]] = []
        self.count = 1
        for name, tensor in tensors:
            for axis, size in enumerate(tensor.shape):
                self.starts[name, axis] = self.count, size
                self.count += size
        self._equal: list[tuple[Tensor, Tensor]] = []
        self._tied: list[tuple[Tensor, Tensor, str]] = []

    def marks_of(self, tensor: Tensor) -> Marks | None:
        """Return the marks of a parameter or buffer: one label per axis; None for another tensor."""
        name = self.names.get(id(tensor))
        if name is None:
            return None
        axes = [(axis, *self.starts[name, axis]) for axis, size in enumerate(tensor.shape) if size > 1]
        return Marks(
            labels=tuple(
                torch.arange(start, start + size).view([size if k == axis else 1 for k in range(tensor.ndim)])
                for axis, start, size in axes
            ),
            source=name,
        )

    def fix(self, ids: Tensor, reason: str) -> None:
        """Mark ids as not removable, for a reason."""
        ids = ids[ids > 0]
        if len(ids):
            self.fixed.append((ids.unique(), reason))

    def join(self, first: Tensor, second: Tensor, *, reason: str, tie: str = "") -> None:
        """Record ids at equal positions as one filter or, if `tie` names a layer, as removed together because of it.

        Where only one of two positions has an id, that id is marked as not removable, for `reason`.
        """
        first, second = (part.flatten() for part in torch.broadcast_tensors(first, second))
        self.fix(first[second <= 0], reason)
        self.fix(second[first <= 0], reason)
        valid = (first > 0) & (second > 0) & (first != second)
        if bool(valid.any()):
            pairs = torch.stack([first[valid], second[valid]])
            pairs = pairs.unique(dim=1) if pairs.shape[1] > 4096 else pairs
            if tie:
                self._tied.append((pairs[0], pairs[1], tie))
            else:
                self._equal.append((pairs[0], pairs[1]))

    def filters(self) -> Tensor:
        """Return (ids,) the filter of each id; ids that are added together or passed on are one filter."""
        return self.components(self._equal)

    def units(self) -> Tensor:
        """Return (ids,) the unit of each id: filters of one unit are removed together."""
        return self.components([*self._equal, *((first, second) for first, second, _ in self._tied)])

    def ties(self) -> Iterator[tuple[Tensor, str]]:
        """Yield the ids that were tied, and the layer that tied them."""
        return ((first, layer) for first, _, layer in self._tied)

    def components(self, edges: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Return (ids,) the connected component of each id."""
        empty = torch.empty(0, dtype=torch.long)
        rows, columns = (torch.cat([empty, *(edge[k] for edge in edges)]).numpy() for k in (0, 1))
        graph = coo_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(self.count, self.count))
        return torch.from_numpy(connected_components(graph, directed=False)[1]).long()
