"""The effect of each operation on the channels of its tensors.

Most operations act on each element (then the operands' channels are the same filters) or move elements (then the labels
move too). Convolutions and normalisations begin or end filters (`layers`); means and matrix products sum over axes
(`sums`). The channels that enter an unknown operation cannot be removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .elements import Marks, compact, tensors_of, varying
from .layers import LAYERS
from .sums import MIXES, RECURRENT, SUMS

if TYPE_CHECKING:
    from .following import Followed

_MOST = 2**25  # elements of a map whose labels are moved one by one
_POINTWISE = frozenset(
    {"hardswish", "_prelu_kernel", "clone", "_to_copy", "contiguous", "detach", "alias", "lift_fresh", "copy"}
    | {"native_dropout", "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "softplus"}
)
_MOVES = frozenset(
    ("permute", "transpose", "t", "unsqueeze", "squeeze", "select", "slice", "flip", "roll", "diagonal", "repeat")
)
_SPATIAL = re.compile(
    r"(?:_?adaptive_)?(?:avg|max)_pool(\d)d|_?upsample_[a-z_]+(\d)d|(?:reflection|replication)_pad(\d)d"
    r"|grid_sampler_(\d)d|max_unpool(\d)d"
)


def follow(trace: Followed, func: Any, *, given: dict[str, Any], output: Any) -> None:
    """Mark the outputs of one operation, and record which channels it ties or makes impossible to remove."""
    name = func._schema.name.partition("::")[2]
    rule = _rule(name, func)
    # An operation in place that changes the shape has lost the shape it began with.
    if rule is None or (name.endswith("_") and rule in (_moved, _reshaped)):
        _unknown(trace, name, given=given)
        return
    try:
        rule(trace, given=given, output=output, name=name)
    except Exception:  # a use of the operation that its rule does not know: what enters it is refused
        _unknown(trace, name, given=given)


def _rule(name: str, func: Any) -> Callable[..., None] | None:
    base = name.removesuffix("_").removesuffix("_copy") if name != "copy_" else "copy"
    for rules in (LAYERS, SUMS, _RULES):
        if base in rules:
            return rules[base]
    if base in _MOVES:
        return lambda trace, *, given, output, name: _moved(trace, func, given=given, output=output)
    if torch.Tag.pointwise in func.tags or base in _POINTWISE:
        return _pointwise
    return _spatial if _SPATIAL.match(base) else None


def _unknown(trace: Followed, name: str, *, given: dict[str, Any]) -> None:
    """Mark all channels that enter an unknown operation as not removable."""
    what = f"applies {name}, which is not known to keep channels apart"
    if "attention" in name or name == "baddbmm":
        what = MIXES
    elif "rnn" in name or "lstm" in name or "gru" in name:
        what = RECURRENT
    elif name in ("index", "index_select", "gather", "scatter", "index_put", "index_put_"):
        what = "picks channels by their number"
    for value in given.values():
        for tensor in tensors_of(value):
            trace.fix(tensor, what)


def _pointwise(trace: Followed, *, given: dict[str, Any], output: Any, name: str) -> None:
    """Elementwise operations: channels of all operands are the same filters, except along axes of size 1."""
    tensors = [tensor for value in given.values() for tensor in tensors_of(value)]
    results = list(tensors_of(output))
    if not results:
        return
    marks = joined(trace, tensors, product=name.rstrip("_") == "mul")
    if name == "copy_" and given["self"]._is_view():
        trace.fix(given["src"], "writes into a part of a tensor")
    for result in results:
        if result.ndim == max(tensor.ndim for tensor in tensors):
            trace.mark(result, marks)


def joined(trace: Followed, tensors: list[Tensor], *, product: bool = False) -> Marks:
    """Tie tensors that are added or multiplied, and return the marks of the result."""
    ndim = max(tensor.ndim for tensor in tensors)
    sizes = [(1,) * (ndim - tensor.ndim) + tuple(tensor.shape) for tensor in tensors]
    marks = [trace.marks(tensor) for tensor in tensors]
    labels = [[label.view((1,) * (ndim - label.ndim) + label.shape) for label in mark.labels] for mark in marks]
    reason = (
        f"{trace.where()} adds it to, or multiplies it with, a tensor whose channels cannot be cut (the network's "
        "input, a constant, a layer that is refused)"
    )
    result: dict[tuple[int, ...], Tensor] = {}
    for k, own in enumerate(labels):
        for label in own:
            result.setdefault(varying(label), label)
            for other in range(len(tensors)):
                if other == k or any(sizes[other][axis] == 1 for axis in varying(label)):
                    continue
                match = _matching(label, labels[other], size=sizes[k])
                if match is None:
                    trace.elements.fix(label, reason)
                elif other > k or match.shape != label.shape:
                    trace.elements.join(label, match, reason=reason)
    for kind in [kind for kind in result if any(set(less) < set(kind) for less in result)]:
        del result[kind]
    if not all(mark.source for mark in marks):  # axes of parameters that are no channels
        kept = {kind for mark, own in zip(marks, labels, strict=True) if not mark.source for kind in map(varying, own)}
        result = {kind: label for kind, label in result.items() if kind in kept or not kept}
    writers = [mark for mark in marks if mark.labels and mark.source is None]
    if product and len(writers) > 1:  # a gate sits on the map that it is computed from, once: the map was written first
        order = {name: k for k, name in enumerate(trace.producers)}
        writers = [min(writers, key=lambda mark: min((order[name] for name in mark.ends), default=len(order)))]
    large = [mark for mark, tensor in zip(marks, tensors, strict=True) if tensor.numel() > 1]
    is_weight = all(mark.source for mark in large)
    return Marks(
        labels=tuple(result.values()),
        source=next((mark.source for mark in large), None) if is_weight else None,
        ends=frozenset().union(*(mark.ends for mark in writers)),
        feeds=frozenset().union(*(mark.feeds for mark in writers)),
    )


def _matching(label: Tensor, others: list[Tensor], *, size: tuple[int, ...]) -> Tensor | None:
    """The label of another operand that meets this one: of the same shape, or varying along more or fewer axes."""
    same = [each for each in others if each.shape == label.shape]
    crossing = [
        each
        for each in others
        if set(varying(each)) & set(varying(label)) and all(size[axis] > 1 for axis in varying(each))
    ]
    return next(iter((*same, *crossing)), None)


def _moved(trace: Followed, func: Any, *, given: dict[str, Any], output: Tensor) -> None:
    """Operations that move elements: the labels are moved in the same way."""
    x, rest = given["self"], {name: value for name, value in given.items() if name != "self"}
    labels = []
    for label in trace.marks(x).labels:
        moved = func(label.expand(x.shape), **rest)
        new = compact(moved)
        if func._schema.name == "aten::slice":
            _tie_slices(trace, label, slice_=rest)
        if varying(new):
            labels.append(new)
    trace.mark(output, replace(trace.marks(x), labels=tuple(labels)))


def _tie_slices(trace: Followed, label: Tensor, *, slice_: dict[str, Any]) -> None:
    """Tie the equal parts (halves, every other channel) into which slices divide a channel axis."""
    axis = slice_.get("dim", 0) % label.ndim
    size = label.shape[axis]
    start, end, step = slice_.get("start") or 0, slice_.get("end"), slice_.get("step", 1)
    start, end, _ = slice(start, end, step).indices(size)
    length = end - start
    if size > 1 and step > 1 and size % step == 0:
        _tie_parts(trace, label, axis=axis, length=step, inner=True)
    elif 0 < length < size and size % length == 0 and start % length == 0:
        _tie_parts(trace, label, axis=axis, length=length)


def _tie_parts(trace: Followed, label: Tensor, *, axis: int, length: int, inner: bool = False) -> None:
    """Tie equal positions in all parts of an axis; with `inner`, tie all positions within each part."""
    parts = label.unflatten(axis, (-1, length))
    first = parts.narrow(axis + 1, 0, 1) if inner else parts.narrow(axis, 0, 1)
    trace.elements.join(first, parts, reason=f"{trace.where()} splits its channels", tie=trace.where())


def _reshaped(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    """Reshapes: where an axis is split in two, filters at the same inner position are tied."""
    x, labels = given["self"], []
    for label in trace.marks(x).labels:
        if x.numel() > _MOST:
            trace.fix(x, f"reshapes a map of more than {_MOST:,} elements, which is not followed")
            continue
        new = compact(label.expand(x.shape).reshape(output.shape))
        if len(varying(new)) > 1 and len(varying(label)) == 1 and new.numel() == label.numel():
            flat = new.reshape(-1, new.shape[varying(new)[-1]])
            trace.elements.join(flat[:1], flat, reason="", tie=trace.where())
        if varying(new):
            labels.append(new)
    trace.mark(output, replace(trace.marks(x), labels=tuple(labels)))


def _padded(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    """Padding: padded channels have no id; padding of other axes changes nothing."""
    labels, ends = [], given["pad"]
    for label in trace.marks(given["self"]).labels:
        own = [(ends[2 * k], ends[2 * k + 1]) for k in range(len(ends) // 2)]
        pads = [end for k, pair in enumerate(own) for end in (pair if label.shape[-1 - k] > 1 else (0, 0))]
        labels.append(torch.nn.functional.pad(label, pads))
    trace.mark(output, replace(trace.marks(given["self"]), labels=tuple(labels)))


def _expanded(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    marks = trace.marks(given["self"])
    labels = (label.view((1,) * (output.ndim - label.ndim) + label.shape) for label in marks.labels)
    trace.mark(output, replace(marks, labels=tuple(labels)))


def _split(trace: Followed, *, given: dict[str, Any], output: Any, name: str) -> None:
    """Splits of an axis: if the parts are equal, equal positions of the parts are tied."""
    x, outputs = given["self"], list(tensors_of(output))
    axis = given.get("dim", 0) % x.ndim
    marks, unbind = trace.marks(x), name == "unbind"
    sizes = [1 if unbind else part.shape[axis] for part in outputs]
    parts: list[list[Tensor]] = [[] for _ in outputs]
    for label in marks.labels:
        cut = label.shape[axis] > 1
        if cut and len(sizes) > 1 and len(set(sizes)) == 1:
            _tie_parts(trace, label, axis=axis, length=sizes[0])
        pieces = label.split(sizes, axis) if cut else [label] * len(sizes)
        for k, piece in enumerate(pieces):
            new = compact(piece.squeeze(axis) if unbind else piece)
            parts[k] += [new] if varying(new) else []
    for part, labels in zip(outputs, parts, strict=True):
        trace.mark(part, replace(marks, labels=tuple(labels)))


def _concatenated(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    tensors = [t for t in given["tensors"] if not (t.ndim == 1 and t.numel() == 0)]
    axis = given.get("dim", 0) % output.ndim
    marks, found = [trace.marks(t) for t in tensors], {}
    own = [[label.unsqueeze(axis) for label in m.labels] if name == "stack" else list(m.labels) for m in marks]
    shapes = [(*t.shape[:axis], 1, *t.shape[axis:]) if name == "stack" else tuple(t.shape) for t in tensors]
    reason = f"{trace.where()} concatenates it with a tensor of fixed size"
    kinds = {varying(label) for labels in own for label in labels}
    for kind in kinds:
        if axis not in kind and tuple(sorted({*kind, axis})) in kinds:
            continue
        pieces = []
        for labels, shape in zip(own, shapes, strict=True):
            size = [shape[k] if k in (*kind, axis) else 1 for k in range(output.ndim)]
            label = next((each for each in labels if set(varying(each)) <= {*kind, axis}), None)
            missing = torch.zeros(size, dtype=torch.long)
            pieces.append(missing if label is None else label.expand(size))
        rest = [k for k in kind if k != axis]
        first = next((piece.narrow(axis, 0, 1) for piece in pieces if bool(piece.any())), None)
        if rest and axis not in kind and first is not None:  # other channels than those that are concatenated
            for piece in pieces:
                trace.elements.join(first.expand_as(piece), piece, reason=reason)
            pieces = [first]
        new = compact(torch.cat(pieces, axis))
        if varying(new):
            found[varying(new)] = new
    ends, feeds = (frozenset().union(*(getattr(m, what) for m in marks)) for what in ("ends", "feeds"))
    trace.mark(output, Marks(labels=tuple(found.values()), ends=ends, feeds=feeds))


def _spatial(trace: Followed, *, given: dict[str, Any], output: Any, name: str) -> None:
    """Pooling, resizing and padding of the last axes; channels on these axes cannot be removed."""
    x = given.get("self", given.get("input"))
    match = _SPATIAL.match(name)
    assert isinstance(x, Tensor) and match is not None
    first = x.ndim - int(next(group for group in match.groups() if group))
    for label in trace.marks(x).labels:
        if max(varying(label)) >= first:
            trace.elements.fix(label, f"{trace.where()} applies {name} over channels")
    labels = tuple(label for label in trace.marks(x).labels if max(varying(label)) < first)
    for result in tensors_of(output):
        trace.mark(result, replace(trace.marks(x), labels=labels))


_RULES: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), _reshaped),
    "expand": _expanded,
    "constant_pad_nd": _padded,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "unbind"), _split),
    **dict.fromkeys(("cat", "stack"), _concatenated),
}
