"""The path back from a tensor to the layer that produced it, in PyTorch's autograd graph."""

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
# Operations that may keep the shape of a map although each of their outputs depends on more than one position.
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
        """Return the first activation after the layer or sum behind a tensor, or that layer's or sum's output if none.

        A layer's output is taken after its BatchNorm. None if the path begins at an operation of unknown effect and
        has no activation, or if the chosen tensor is not visible. `axis` and `index` are the positions of the group's
        filters in the tensor; see `Place`.
        """
        path = list(self._walk_back(edge, axis % len(_shape(edge)), index))[::-1]
        start, *after = path
        chosen = next((place for place in path if place.role == "activation"), None)
        if chosen is None and start.role != "unknown":
            chosen = start
            for place in after:
                if place.role != "linear":
                    break
                chosen = place
        return chosen if chosen is not None and chosen.edge in self._visible else None

    def _walk_back(self, edge: Edge, axis: int, index: Tensor) -> Iterator[Place]:
        """Yield the tensors on the path back from this one to the layer or sum that produced all filters of a group."""
        while True:
            if _is_op(edge[0], ("Cat",)) and _find_part(edge[0], axis, index)[0] is None:
                yield self._common_origin(edge, axis, index)
                return
            role, parent = self._classify_op(edge, axis, index)
            yield Place(edge, axis, index, _shape(edge), role)
            if parent is None:
                return
            moved = _positions(edge, parent, axis=axis, index=index, elementwise=role in ("activation", "linear"))
            if moved is None:
                yield Place(parent, 0, index, _shape(parent), "unknown")
                return
            edge, (axis, index) = parent, moved

    def _common_origin(self, edge: Edge, axis: int, index: Tensor) -> Place:
        """Return the common origin of a group that a concatenation holds several times, "unknown" if there is none."""
        places, start, columns = [], 0, 0
        for part in edge[0].next_functions:
            end = start + (_shape(part)[axis] if part[0] is not None else 0)
            inside = ((index >= start) & (index < end)).all(0)
            if part[0] is not None and bool(inside.any()):
                columns += int(inside.sum())
                places.append(self.activation(part, axis=axis, index=index[:, inside] - start))
            start = end
        edges = {place.edge for place in places if place is not None}
        if columns == index.shape[1] and len(edges) == 1 and None not in places:
            return next(place for place in places if place is not None)
        return Place(edge, axis, index, _shape(edge), "unknown")

    def _classify_op(self, edge: Edge, axis: int, index: Tensor) -> tuple[Role, Edge | None]:
        """Return the role of the operation that made a tensor, and its input; None where the path ends."""
        node, inputs = edge[0], self._inputs(edge[0])
        if _is_op(node, _LAYERS):
            fixed = len(inputs) == 1 and node.next_functions[1][0] is None  # a fixed filter, such as a blur
            depthwise = fixed and _shape(edge)[1] == _shape(inputs[0])[1] and axis == 1
            return ("spatial", inputs[0]) if _is_op(node, ("Convolution",)) and depthwise else ("layer", None)
        if _is_op(node, ("Cat",)):
            return "spatial", _find_part(node, axis, index)[0]
        if len(inputs) != 1:
            return self._classify_join(edge, inputs) if _is_op(node, _JOINS) else ("unknown", None)
        hidden = _is_op(node, _VIEWS) and _is_op(inputs[0][0], _LAYERS) and inputs[0] not in self._visible
        if hidden and edge in self._visible:  # a linear layer on more than two axes computes a matrix and reshapes it
            return "layer", None
        if _is_op(node, _SPATIAL) or _shape(edge) != _shape(inputs[0]):
            return "spatial", inputs[0]
        return "linear" if _is_op(node, _LINEAR) else "activation", inputs[0]

    def _classify_join(self, edge: Edge, inputs: list[Edge]) -> tuple[Role, Edge | None]:
        """Classify an operation with several inputs as a gate on one of them, a hand-written activation, or the end."""
        full_maps = [parent for parent in inputs if math.prod(_shape(parent)) == math.prod(_shape(edge))]
        if len(full_maps) == 1:  # the others have one number per channel or per position
            return "spatial", full_maps[0]
        if len(full_maps) < len(inputs):
            return "unknown", None
        if (single := self._elementwise_input(edge)) is not None:
            return "activation", single
        if _is_op(edge[0], _SUMS):
            return "sum", None
        if _is_op(edge[0], ("Mul", "Div")):
            for first, other in (full_maps, full_maps[::-1]):
                if self._is_computed_from(other, first):
                    return "spatial", first
        return "activation", None

    def _elementwise_input(self, edge: Edge) -> Edge | None:
        """Return the single tensor from which elementwise operations compute this, as in x * sigmoid(x), or None."""
        queue, seen, entries = [edge], {edge}, set()
        while queue:
            current = queue.pop()
            inputs = self._inputs(current[0])
            same_shape = all(_shape(parent) == _shape(current) for parent in inputs)
            fits = same_shape and (len(inputs) == 1 or _is_op(current[0], _JOINS))
            elementwise = inputs and fits and not _is_op(current[0], (*_SPATIAL, *_LAYERS, "Cat", "Norm"))
            if not elementwise:
                entries.add(current)
            if len(entries) > 1:
                return None
            for parent in inputs if elementwise else ():
                if parent not in seen:
                    seen.add(parent)
                    queue.append(parent)
        return next(iter(entries), None)

    def _is_computed_from(self, edge: Edge, ancestor: Edge) -> bool:
        nodes = autograd_nodes([edge[0]], wanted=self._depends_on_image)
        return any(ancestor in node.next_functions for node in nodes)

    def _inputs(self, node: Any) -> list[Edge]:
        """Return the distinct tensors that a node takes and that depend on the images."""
        return list(dict.fromkeys(edge for edge in node.next_functions if self._depends_on_image(edge[0])))

    def _depends_on_image(self, node: Any) -> bool:
        depends, stack = self._depends, [node]
        while stack:
            current = stack[-1]
            if current in depends:
                stack.pop()
                continue
            unknown = [parent for parent, _ in current.next_functions if parent not in depends]
            if unknown:
                stack += unknown
            else:
                depends[current] = any(depends[parent] for parent, _ in current.next_functions)
        return depends[node]


def _is_op(node: Any, names: tuple[str, ...]) -> bool:
    """Return whether a node's operation has one of these names, with or without a prefix such as "Native"."""
    name = node.name()
    return any(name.startswith(start) or (len(start) > 3 and start in name) for start in names)


def _shape(edge: Edge) -> tuple[int, ...]:
    node, number = edge
    return tuple(int(size) for size in node._input_metadata[number].shape)


def _find_part(node: Any, axis: int, index: Tensor) -> tuple[Edge | None, int]:
    """Return the part of a concatenation that holds all these positions, and its start; None if no single part does."""
    dim, start = _axis_of(node._saved_dim, len(_shape((node, 0)))), 0
    for edge in node.next_functions:
        size = _shape(edge)[dim] if edge[0] is not None else 0
        if edge[0] is not None and (dim == axis and start <= int(index.min()) and int(index.max()) < start + size):
            return edge, start
        start += size
    return None, 0


def _positions(edge: Edge, parent: Edge, *, axis: int, index: Tensor, elementwise: bool) -> tuple[int, Tensor] | None:
    """Return the axis and positions of the filters in `parent`, from which `edge` was made; None if unknown."""
    node, shape, parent_shape, count = edge[0], _shape(edge), _shape(parent), len(_shape(parent))
    if elementwise:
        return axis, index
    if _is_op(node, ("Cat",)):
        return axis, index - _find_part(node, axis, index)[1]
    if _is_op(node, _MIXING):
        return None
    if _is_op(node, _VIEWS):
        return _undo_reshape(parent_shape, shape, axis=axis, index=index)
    if _is_op(node, ("Permute",)):
        return _axis_of(node._saved_dims[axis], count), index
    if _is_op(node, ("Transpose", "TBackward")):
        first, second = (_axis_of(getattr(node, f"_saved_dim{k}", k), count) for k in (0, 1))
        return {first: second, second: first}.get(axis, axis), index
    if _is_op(node, ("Slice", "Split")) and _axis_of(node._saved_dim, count) == axis:
        if _is_op(node, ("Slice",)):
            start = _signed(node._saved_start or 0)
            return axis, index * node._saved_step + (start if start >= 0 else start + parent_shape[axis])
        return axis, index + sum(_shape((node, number))[axis] for number in range(edge[1]))
    if _is_op(node, ("Unfold",)):
        return (axis, index) if axis not in (count, _axis_of(node._saved_dimension, count)) else None
    if len(shape) == count:
        return (axis, index) if shape[axis] == parent_shape[axis] else None
    return _before_reduction(node, axis=axis, index=index, count=count) if _is_op(node, _REDUCING) else None


def _before_reduction(node: Any, *, axis: int, index: Tensor, count: int) -> tuple[int, Tensor] | None:
    """Return the axis and positions before a mean, sum, maximum or item selection over some of `count` axes."""
    dims = node._saved_dim if isinstance(node._saved_dim, tuple) else (node._saved_dim,)
    remaining = [k for k in range(count) if k not in [_axis_of(dim, count) for dim in dims]]
    return (remaining[axis], index) if axis < len(remaining) else None


def _undo_reshape(old: tuple[int, ...], new: tuple[int, ...], *, axis: int, index: Tensor) -> tuple[int, Tensor] | None:
    """Return the axis and positions before a reshape that keeps the filters' axis or merges it with later axes."""
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
    """Convert a dimension number saved by autograd to an axis number, counted from 0."""
    return _signed(dim) % count


def _signed(number: int) -> int:
    """Restore the sign of a number that autograd has saved as unsigned."""
    return number - 2**64 if number >= 2**63 else number
