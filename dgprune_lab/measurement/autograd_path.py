"""The way back from a tensor to the layer that produced it, in PyTorch's autograd graph."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from typing import Any, Literal, NamedTuple

from torch import Tensor

from ..pruning import autograd_nodes

Edge = tuple[Any, int]
"""A node of the autograd graph and the number of one of its outputs: a tensor of the forward pass."""
Role = Literal["layer", "activation", "linear", "spatial", "sum", "unknown"]

_LAYERS = ("Convolution", "Addmm", "Mm", "Bmm", "Baddbmm", "LinearBackward")
_LINEAR = ("Add", "Sub", "Rsub", "Mul", "Div", "Neg", "Clone", "ToCopy", "Dropout", "Alias", "Norm", "Contiguous")
_SUMS = ("Add", "Sub", "Rsub")
_JOINS = (*_SUMS, "Mul", "Div", "Where", "Maximum", "Minimum", "Lerp")
_VIEWS = ("View", "Reshape", "Squeeze")
_REDUCING = ("Mean", "Sum", "Amax", "Amin", "MaxBackward0", "MinBackward0", "Select")
# Operations that may put a filter at another position, or mix filters.
_MIXING = (
    "Index",
    "Gather",
    "Roll",
    "Flip",
    "Shuffle",
    "Sort",
    "Fft",
    "Attention",
    "Rnn",
    "Checkpoint",
    "Col2Im",
    "Im2Col",
)
# Operations that may return a map of the same shape and still are no function of one position alone.
_SPATIAL = (
    *(*_VIEWS, *_REDUCING, *_MIXING, "Permute", "Transpose", "TBackward", "Slice", "Split", "Expand", "Unfold"),
    *("Pool", "PadNd", "Pad1D", "Pad2D", "Upsample", "Interpolate", "GridSampler", "Softmax", "Cumsum"),
)


class Place(NamedTuple):
    """A tensor on the path.

    Attributes:
        edge: the tensor.
        axis: the axis on which the filters lie.
        index: (C, P) positions of each filter on that axis; P > 1 where the map was flattened onto it.
        shape: shape of the tensor.
        role: what made the tensor: a layer with weights, an activation, a linear elementwise or a spatial operation
            (pooling, reshaping, a gate), the sum of two maps, or an operation whose effect on positions is unknown.
    """

    edge: Edge
    axis: int
    index: Tensor
    shape: tuple[int, ...]
    role: Role


class Path:
    """Walks back through the graph of one forward pass of at least two images.

    Args:
        visible: the tensors at which the path may end, because another pass can read them.
        image: the node of the network's input; tensors that do not depend on it, such as weights, are not followed.
    """

    def __init__(self, visible: Container[Edge], *, image: Any) -> None:
        self._visible, self._depends = visible, {None: False, image: True}

    def activation(self, edge: Edge, *, axis: int, index: Tensor) -> Place | None:
        """Return the first activation after the layer or sum that a tensor comes from, or that layer's output or sum.

        The layer's output is taken after its BatchNorm. None if an operation of unknown effect comes before an
        activation is found, or if none of these tensors is visible. `axis` and `index` say where the group's filters
        are in the tensor; see `Place`.
        """
        way = list(self._back(edge, axis % len(_shape(edge)), index))[::-1]
        start, *after = way
        chosen = next((place for place in way if place.role == "activation"), None)
        if chosen is None and start.role != "unknown":
            chosen = start
            for place in after:
                if place.role != "linear":
                    break
                chosen = place
        return chosen if chosen is not None and chosen.edge in self._visible else None

    def _back(self, edge: Edge, axis: int, index: Tensor) -> Iterator[Place]:
        """Yield the tensors on the path back from this one to the layer or sum that made all filters of the group."""
        while True:
            if _is(edge[0], ("Cat",)) and _piece(edge[0], axis, index)[0] is None:
                yield self._from_parts(edge, axis, index)
                return
            role, before = self._step(edge, axis, index)
            yield Place(edge, axis, index, _shape(edge), role)
            if before is None:
                return
            moved = _positions(edge, before, axis=axis, index=index, elementwise=role in ("activation", "linear"))
            if moved is None:
                yield Place(before, 0, index, _shape(before), "unknown")
                return
            edge, (axis, index) = before, moved

    def _from_parts(self, edge: Edge, axis: int, index: Tensor) -> Place:
        """Where a group that a concatenation holds several times comes from, if all parts come from one place."""
        places, start, columns = [], 0, 0
        for part in edge[0].next_functions:
            end = start + (_shape(part)[axis] if part[0] is not None else 0)
            inside = ((index >= start) & (index < end)).all(0)
            if part[0] is not None and bool(inside.any()):
                columns += int(inside.sum())
                places.append(self.activation(part, axis=axis, index=index[:, inside] - start))
            start = end
        known = {place.edge for place in places if place is not None}
        if columns == index.shape[1] and len(known) == 1 and None not in places:
            return next(place for place in places if place is not None)
        return Place(edge, axis, index, _shape(edge), "unknown")

    def _step(self, edge: Edge, axis: int, index: Tensor) -> tuple[Role, Edge | None]:
        """The role of what made a tensor, and the tensor it was made from; None where the path ends."""
        node, inputs = edge[0], self._inputs(edge[0])
        if _is(node, _LAYERS):
            filtering = len(inputs) == 1 and node.next_functions[1][0] is None  # a fixed filter, such as a blur
            fits = filtering and _shape(edge)[1] == _shape(inputs[0])[1] and axis == 1
            return ("spatial", inputs[0]) if _is(node, ("Convolution",)) and fits else ("layer", None)
        if _is(node, ("Cat",)):
            return "spatial", _piece(node, axis, index)[0]
        if len(inputs) != 1:
            return self._joined(edge, inputs) if _is(node, _JOINS) else ("unknown", None)
        within = _is(node, _VIEWS) and _is(inputs[0][0], _LAYERS) and inputs[0] not in self._visible
        if within and edge in self._visible:  # a linear layer on more than two axes computes a matrix and reshapes it
            return "layer", None
        if _is(node, _SPATIAL) or _shape(edge) != _shape(inputs[0]):
            return "spatial", inputs[0]
        return "linear" if _is(node, _LINEAR) else "activation", inputs[0]

    def _joined(self, edge: Edge, inputs: list[Edge]) -> tuple[Role, Edge | None]:
        """As `_step`, for several inputs: the map that the others gate, a hand-written activation, or the end."""
        whole = [before for before in inputs if math.prod(_shape(before)) == math.prod(_shape(edge))]
        if len(whole) == 1:  # the others have one number per channel or per position
            return "spatial", whole[0]
        if len(whole) < len(inputs):
            return "unknown", None
        if (entry := self._entry(edge)) is not None:
            return "activation", entry
        if _is(edge[0], _SUMS):
            return "sum", None
        if _is(edge[0], ("Mul", "Div")):
            for first, other in (whole, whole[::-1]):
                if self._descends(other, first):
                    return "spatial", first
        return "activation", None

    def _entry(self, edge: Edge) -> Edge | None:
        """The single tensor that elementwise operations turn into this one, as in x * sigmoid(x); None if several."""
        queue, seen, entries = [edge], {edge}, set()
        while queue:
            current = queue.pop()
            inputs = self._inputs(current[0])
            same = all(_shape(before) == _shape(current) for before in inputs)
            fits = len(inputs) == 1 or _is(current[0], _JOINS)
            elementwise = inputs and same and fits and not _is(current[0], (*_SPATIAL, *_LAYERS, "Cat", "Norm"))
            if not elementwise:
                entries.add(current)
            if len(entries) > 1:
                return None
            for before in inputs if elementwise else ():
                if before not in seen:
                    seen.add(before)
                    queue.append(before)
        return next(iter(entries), None)

    def _descends(self, edge: Edge, ancestor: Edge) -> bool:
        """Whether a tensor was computed from another one."""
        nodes = autograd_nodes([edge[0]], wanted=self._depends_on_image)
        return any(ancestor in node.next_functions for node in nodes)

    def _inputs(self, node: Any) -> list[Edge]:
        """The tensors, each once, that a node was computed from and that depend on the images."""
        return list(dict.fromkeys(edge for edge in node.next_functions if self._depends_on_image(edge[0])))

    def _depends_on_image(self, node: Any) -> bool:
        known, stack = self._depends, [node]
        while stack:
            current = stack[-1]
            if current in known:
                stack.pop()
                continue
            unknown = [before for before, _ in current.next_functions if before not in known]
            if unknown:
                stack += unknown
            else:
                known[current] = any(known[before] for before, _ in current.next_functions)
        return known[node]


def _is(node: Any, names: tuple[str, ...]) -> bool:
    """Whether the name of a node's operation begins with one of these names, after a prefix such as "Native" too."""
    name = node.name()
    return any(name.startswith(start) or (len(start) > 3 and start in name) for start in names)


def _shape(edge: Edge) -> tuple[int, ...]:
    node, number = edge
    return tuple(int(size) for size in node._input_metadata[number].shape)


def _piece(node: Any, axis: int, index: Tensor) -> tuple[Edge | None, int]:
    """The part of a concatenation that holds all these positions, and where it begins; None if several parts do."""
    dim, start = _axis_of(node._saved_dim, len(_shape((node, 0)))), 0
    for edge in node.next_functions:
        size = _shape(edge)[dim] if edge[0] is not None else 0
        if edge[0] is not None and (dim == axis and start <= int(index.min()) and int(index.max()) < start + size):
            return edge, start
        start += size
    return None, 0


def _positions(edge: Edge, before: Edge, *, axis: int, index: Tensor, elementwise: bool) -> tuple[int, Tensor] | None:
    """The axis and positions of the filters in the tensor `before`, from which `edge` was made; None if unknown."""
    node, new, old = edge[0], _shape(edge), _shape(before)
    if elementwise:
        return axis, index
    if _is(node, ("Cat",)):
        return axis, index - _piece(node, axis, index)[1]
    if _is(node, _MIXING):
        return None
    if _is(node, _VIEWS):
        return _unflattened(old, new, axis=axis, index=index)
    if _is(node, ("Permute",)):
        return _axis_of(node._saved_dims[axis], len(old)), index
    if _is(node, ("Transpose", "TBackward")):
        first, second = (_axis_of(getattr(node, f"_saved_dim{k}", k), len(old)) for k in (0, 1))
        return {first: second, second: first}.get(axis, axis), index
    if _is(node, ("Slice", "Split")) and _axis_of(node._saved_dim, len(old)) == axis:
        if _is(node, ("Slice",)):
            start = _signed(node._saved_start or 0)
            return axis, index * node._saved_step + (start if start >= 0 else start + old[axis])
        return axis, index + sum(_shape((node, number))[axis] for number in range(edge[1]))
    if _is(node, ("Unfold",)):
        return (axis, index) if axis not in (len(old), _axis_of(node._saved_dimension, len(old))) else None
    if len(new) == len(old):
        return (axis, index) if new[axis] == old[axis] else None
    return _before_reduction(node, axis=axis, index=index, count=len(old)) if _is(node, _REDUCING) else None


def _before_reduction(node: Any, *, axis: int, index: Tensor, count: int) -> tuple[int, Tensor] | None:
    """As `_positions`, for a mean, sum or maximum over some of `count` axes, or for one item selected from an axis."""
    dims = node._saved_dim if isinstance(node._saved_dim, tuple) else (node._saved_dim,)
    left = [k for k in range(count) if k not in [_axis_of(dim, count) for dim in dims]]
    return (left[axis], index) if axis < len(left) else None


def _unflattened(old: tuple[int, ...], new: tuple[int, ...], *, axis: int, index: Tensor) -> tuple[int, Tensor] | None:
    """The axis and positions before a reshape that keeps the filters' axis, or merges it with the axes after it."""
    for start in range(1, len(old)):
        for end in range(start + 1, len(old) + 1):
            if math.prod(old[:start]) != math.prod(new[:axis]) or math.prod(old[start:end]) != new[axis]:
                continue
            inner = math.prod(old[start + 1 : end])
            channels = index // inner
            if inner == 1:
                return start, index
            if index.shape[1] % inner == 0 and bool(
                (channels[:, ::inner].repeat_interleave(inner, 1) == channels).all()
            ):
                return start, channels[:, ::inner]
    return None


def _axis_of(dim: int, count: int) -> int:
    """A dimension that autograd has saved, converted to an axis from 0."""
    return _signed(dim) % count


def _signed(number: int) -> int:
    """A number that autograd has saved as unsigned, with its sign restored."""
    return number - 2**64 if number >= 2**63 else number
