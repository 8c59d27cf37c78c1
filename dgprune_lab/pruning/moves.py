"""Rules for operations that move elements: labels move in the same way, and equal parts are tied."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .elements import PADDING, Marks, compact, tensors_of, varying

if TYPE_CHECKING:
    from .channel_trace import ChannelTrace

_MAX_ELEMENTS = 2**25  # of a map whose labels are moved element by element


def move_labels(trace: ChannelTrace, func: Any, *, args: dict[str, Any], output: Tensor) -> None:
    """Move the labels as the operation moves the elements."""
    x, rest = args["self"], {name: value for name, value in args.items() if name != "self"}
    labels = []
    for label in trace.marks(x).labels:
        shifted = func(label.expand(x.shape), **rest)
        new = compact(shifted)
        if func._schema.name == "aten::slice":
            _tie_slices(trace, label, slice_=rest)
        if varying(new):
            labels.append(new)
    trace.propagate(x, output, labels)


def pick_labels(trace: ChannelTrace, func: Any, *, args: dict[str, Any], output: Tensor) -> None:
    """Pick labels as the operation picks elements by index; channels on the indexed axes cannot be removed."""
    x = args["self"]
    rest = {name: _on_cpu(value) for name, value in args.items() if name != "self"}
    indexed = [axis for axis, index in enumerate(args.get("indices", ())) if index is not None]
    indexed = indexed or [args["dim"] % x.ndim]
    is_exact = x.numel() <= _MAX_ELEMENTS and not any(t.dtype == torch.bool for t in tensors_of(args))
    fix_all = trace.marks(x).source is not None or not is_exact
    labels = trace.fix(x, "picked", along=lambda axes: fix_all or not set(indexed).isdisjoint(axes))
    new = [compact(func(label.expand(x.shape), **rest)) for label in labels]
    trace.propagate(x, output, filter(varying, new))


def _on_cpu(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_on_cpu(item) for item in value]
    return value.cpu() if isinstance(value, Tensor) else value


def _tie_slices(trace: ChannelTrace, label: Tensor, *, slice_: dict[str, Any]) -> None:
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


def _tie_parts(trace: ChannelTrace, label: Tensor, *, axis: int, length: int, inner: bool = False) -> None:
    """Tie equal positions in all parts of an axis; with `inner`, tie all positions within each part."""
    parts = label.unflatten(axis, (-1, length))
    first = parts.narrow(axis + 1, 0, 1) if inner else parts.narrow(axis, 0, 1)
    trace.elements.join(first, parts, reason=trace.reason("mixed"), tie=trace.location())


def reshape_labels(trace: ChannelTrace, *, args: dict[str, Any], output: Tensor, name: str) -> None:
    """Reshape the labels; where an axis is split in two, tie filters at the same inner position.

    This assumes that the outer size is fixed in the code, as in a shuffle of groups; in the layers listed in
    `trace.pairs`, the inner size is fixed, as in a maximum over pairs of channels.
    """
    x, labels = args["self"], []
    for label in trace.marks(x).labels:
        if x.numel() > _MAX_ELEMENTS:
            trace.fix(x, "large", detail=f"{_MAX_ELEMENTS:,}")
            continue
        new = compact(label.expand(x.shape).reshape(output.shape))
        if len(varying(new)) > 1 and len(varying(label)) == 1 and new.numel() == label.numel():
            flat = new.reshape(-1, new.shape[varying(new)[-1]])
            flat = flat.t() if trace.location() in trace.pairs else flat
            trace.elements.join(flat[:1], flat, reason="", tie=trace.location())
        if any(varying(new) == varying(other) for other in labels) and trace.marks(x).source is None:
            trace.elements.fix(label, trace.reason("merged"))
        elif varying(new):
            labels.append(new)
    trace.propagate(x, output, labels)


def _pad(trace: ChannelTrace, *, args: dict[str, Any], output: Tensor, name: str) -> None:
    """Pad the labels: padded channels get no id; padding of other axes changes nothing."""
    labels, ends = [], args["pad"]
    for label in trace.marks(args["self"]).labels:
        own = [(ends[2 * k], ends[2 * k + 1]) for k in range(len(ends) // 2)]
        pads = [end for k, pair in enumerate(own) for end in (pair if label.shape[-1 - k] > 1 else (0, 0))]
        labels.append(torch.nn.functional.pad(label, pads, value=PADDING))
    trace.propagate(args["self"], output, labels)


def _expand(trace: ChannelTrace, *, args: dict[str, Any], output: Tensor, name: str) -> None:
    labels = (label.view((1,) * (output.ndim - label.ndim) + label.shape) for label in trace.marks(args["self"]).labels)
    trace.propagate(args["self"], output, labels)


def _split(trace: ChannelTrace, *, args: dict[str, Any], output: Any, name: str) -> None:
    """Split the labels along an axis; if the parts have equal sizes, tie equal positions."""
    x, outputs = args["self"], list(tensors_of(output))
    axis = args.get("dim", 0) % x.ndim
    unbind = name == "unbind"
    sizes = [1 if unbind else part.shape[axis] for part in outputs]
    parts: list[list[Tensor]] = [[] for _ in outputs]
    for label in trace.marks(x).labels:
        cut = label.shape[axis] > 1
        if cut and len(sizes) > 1 and len(set(sizes)) == 1:
            _tie_parts(trace, label, axis=axis, length=sizes[0])
        pieces = label.split(sizes, axis) if cut else [label] * len(sizes)
        for k, piece in enumerate(pieces):
            new = compact(piece.squeeze(axis) if unbind else piece)
            parts[k] += [new] if varying(new) else []
    for part, labels in zip(outputs, parts, strict=True):
        trace.propagate(x, part, labels)


def _concatenate(trace: ChannelTrace, *, args: dict[str, Any], output: Tensor, name: str) -> None:
    tensors = [t for t in args["tensors"] if not (t.ndim == 1 and t.numel() == 0)]
    axis = args.get("dim", 0) % output.ndim
    marks, joined = [trace.marks(t) for t in tensors], {}
    own = [[label.unsqueeze(axis) for label in m.labels] if name == "stack" else list(m.labels) for m in marks]
    shapes = [(*t.shape[:axis], 1, *t.shape[axis:]) if name == "stack" else tuple(t.shape) for t in tensors]
    reason = trace.reason("mixed")
    axis_sets = {varying(label) for labels in own for label in labels}
    for axes in axis_sets:
        if axis not in axes and tuple(sorted({*axes, axis})) in axis_sets:
            continue
        pieces = []
        for labels, shape in zip(own, shapes, strict=True):
            size = [shape[k] if k in (*axes, axis) else 1 for k in range(output.ndim)]
            label = next((each for each in labels if set(varying(each)) <= {*axes, axis}), None)
            missing = torch.zeros(size, dtype=torch.long)
            pieces.append(missing if label is None else label.expand(size))
        rest = [k for k in axes if k != axis]
        first = next((piece.narrow(axis, 0, 1) for piece in pieces if bool(piece.any())), None)
        if rest and axis not in axes and first is not None:  # other channels than those that are concatenated
            for piece in pieces:
                trace.elements.join(first.expand_as(piece), piece, reason=reason)
            pieces = [first]
        new = compact(torch.cat(pieces, axis))
        if varying(new):
            joined[varying(new)] = new
    ends, feeds = (frozenset().union(*(getattr(m, field) for m in marks)) for field in ("ends", "feeds"))
    trace.mark(output, Marks(labels=tuple(joined.values()), ends=ends, feeds=feeds))


MOVES: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), reshape_labels),
    "expand": _expand,
    "constant_pad_nd": _pad,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "unbind"), _split),
    **dict.fromkeys(("cat", "stack"), _concatenate),
}
