"""Rules for convolutions, normalisations and shuffles: what they do to channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .elements import Marks, varying

if TYPE_CHECKING:
    from .channel_trace import ChannelTrace


def ids_along(marks: Marks, axis: int) -> Tensor | None:
    """Return the ids of the label that varies only along this axis, as a vector; None if there is none."""
    return next((label.flatten() for label in marks.labels if varying(label) == (axis,)), None)


def channel_ids(trace: ChannelTrace, x: Tensor, *, axis: int) -> Tensor | None:
    """Return (C,) ids on an axis of a map, after tying ids at the same position on it; None if there are none."""
    for label in trace.marks(x).labels:
        if axis in varying(label):
            flat = label.movedim(axis, -1).reshape(-1, label.shape[axis])
            tie(trace, flat)
            return flat[0]
    return None


def as_labels(ids: Tensor | None, *, axis: int, ndim: int) -> tuple[Tensor, ...]:
    """Return a vector of ids as labels along one axis of a map with `ndim` axes; no label for None."""
    return () if ids is None else (ids.view([-1 if k == axis else 1 for k in range(ndim)]),)


def _convolution(trace: ChannelTrace, *, args: dict[str, Any], output: Tensor, name: str) -> None:
    x, weight, groups, transposed = (args[key] for key in ("input", "weight", "groups", "transposed"))
    applied = x if transposed else output  # the weight is applied at each of its positions
    marks = trace.marks(weight)
    for label in trace.marks(x).labels:
        if 1 not in varying(label):
            trace.elements.fix(label, trace.reason("neighbours" if max(varying(label)) > 1 else "batch"))
    depthwise = groups > 1 and groups == x.shape[1] == weight.shape[0] == output.shape[1]
    if depthwise and ids_along(marks, 0) is None:  # one kernel shared by all channels
        ids = channel_ids(trace, x, axis=1)
        labels = as_labels(ids, axis=1, ndim=output.ndim)
        join_vectors(trace, ids, vectors=[args["bias"]])
        trace.products.append((applied.numel() * weight[0].numel(), labels))
        trace.propagate(x, output, labels)
        return
    computed = marks.source is None or any(len(varying(label)) > 1 for label in marks.labels)
    if computed or (groups > 1 and transposed and not depthwise):
        kind = "quantised" if any(hasattr(module, "qconfig") for _, module in trace.stack) else "opaque"
        kind = kind if computed else "transposed"
        for tensor in (x, weight):
            trace.fix(tensor, kind)
        trace.opaque.setdefault(trace.stack[-1][0], (output.shape[1], trace.reason(kind)))
        return
    assert marks.source is not None
    layer = trace.layer(marks.source)
    rows, columns = (1, 0) if transposed and not depthwise else (0, 1)
    produced, inputs = ids_along(marks, rows), channel_ids(trace, x, axis=1)
    trace.uses[marks.source] += applied.shape[2:].numel() * len(x)
    if depthwise:  # its outputs are the same filters as its inputs
        if produced is not None:
            arriving = torch.zeros_like(produced) if inputs is None else inputs
            trace.elements.join(arriving, produced, reason=trace.reason("mixed"))
        is_layer = marks.source == f"{layer}.weight"  # else a fixed kernel, such as a blur
        result = Marks(ends=frozenset({layer}), feeds=frozenset({layer})) if is_layer else trace.marks(x)
    else:
        for ids in (produced, inputs) if groups > 1 else ():
            if ids is not None and len(ids) % groups == 0:
                tie(trace, ids.view(groups, -1), reason="grouped")
        own = {"axis": columns, "consumed": ids_along(marks, columns), "groups": groups}
        result = record_mixing(trace, layer, marks.source, kind="conv", x=x, inputs=inputs, **own)
    if produced is not None:
        if layer in result.ends:
            trace.producers.setdefault(layer, produced)
        join_vectors(trace, produced, vectors=[args["bias"]])
    trace.mark(output, replace(result, labels=as_labels(produced, axis=1, ndim=output.ndim)))


def record_mixing(
    trace: ChannelTrace,
    layer: str,
    weight: str,
    *,
    kind: str,
    x: Tensor,
    inputs: Tensor | None,
    axis: int,
    consumed: Tensor | None,
    groups: int = 1,
) -> Marks:
    """Record a layer whose outputs mix the channels of `x`, and return the marks of its output.

    The input axis of its weight carries the filters of `x`; inputs without an id are not cut.
    """
    trace.mixing.setdefault(layer, kind)
    trace.reads[layer].append(trace.marks(x))
    if consumed is not None:
        trace.elements.sides[weight, axis] = "in"
    if inputs is not None:
        trace.consumers.setdefault(layer, inputs)
        inputs = inputs[: len(inputs) // groups]
        if consumed is not None and len(inputs) == len(consumed):
            both = (inputs > 0) & (consumed > 0)
            trace.elements.join(inputs[both], consumed[both], reason="")
    return Marks(ends=frozenset({layer}), feeds=frozenset({layer}))


def tie(trace: ChannelTrace, parts: Tensor, *, reason: str = "mixed") -> None:
    """Tie the ids (K, C) at equal positions of K parts, which the current layer requires to be removed together."""
    trace.elements.join(parts[:1], parts, reason=trace.reason(reason), tie=trace.location())


def join_vectors(trace: ChannelTrace, ids: Tensor | None, *, vectors: list[Tensor | None]) -> None:
    """Tie the elements of biases and scales to the filters that they belong to; without ids they cannot be removed."""
    for vector in vectors:
        own = None if vector is None else next(iter(trace.marks(vector).labels), None)
        if own is not None:
            own = own.flatten()
            trace.elements.join(torch.zeros_like(own) if ids is None else ids, own, reason=trace.reason("mixed"))


def _batch_norm(trace: ChannelTrace, *, args: dict[str, Any], output: Any, name: str) -> None:
    """Tie the scale, shift and BatchNorm statistics of a channel to its input and output."""
    x = args["input"]
    vectors = [args.get(key) for key in ("weight", "bias", "running_mean", "running_var")]
    marks, inputs = trace.marks(x), channel_ids(trace, x, axis=1)
    if args.get("training", args.get("running_mean") is None):
        trace.fix(x, "statistics" if marks.source is None else "standardised", along=lambda axes: 1 not in axes)
    join_vectors(trace, inputs, vectors=vectors)
    ends = marks.ends
    source = next((source for vector in vectors if (source := trace.marks(vector).source)), None)
    if source is not None and inputs is not None:
        layer = trace.layer(source)
        trace.producers.setdefault(layer, inputs)
        ends = frozenset({layer})
    rest = tuple(label for label in marks.labels if 1 not in varying(label))
    result = output[0] if isinstance(output, (tuple, list)) else output
    trace.mark(result, replace(marks, ends=ends, labels=(*as_labels(inputs, axis=1, ndim=x.ndim), *rest)))


def _norm(trace: ChannelTrace, *, args: dict[str, Any], output: Any, name: str) -> None:
    """Refuse the channels over which LayerNorm or GroupNorm takes statistics."""
    x, marks = args["input"], trace.marks(args["input"])
    if args.get("group") == x.shape[1]:  # one channel in each group: an instance norm
        _batch_norm(trace, args={**args, "training": False}, output=output, name=name)
        return
    axes = range(1, x.ndim) if "group" in args else range(x.ndim - len(args["normalized_shape"]), x.ndim)
    trace.fix(x, "statistics", along=lambda own: not set(axes).isdisjoint(own))
    trace.mark(output[0] if isinstance(output, (tuple, list)) else output, marks)


def _rearrange(trace: ChannelTrace, *, args: dict[str, Any], output: Tensor, name: str) -> None:
    """Rearrange labels in channel shuffles, and in pixel shuffles and im2col (channels to positions or back).

    Channels that fill one block of positions are tied, as are those at the same place in the groups of a shuffle.
    """
    x = args["self"]
    axis = x.ndim - 3 if name.startswith("pixel") else 1
    ids = channel_ids(trace, x, axis=axis)
    if ids is None:
        return
    if name == "channel_shuffle":
        parts = ids.view(args["groups"], -1)
        tie(trace, parts)
        new = parts.t().flatten()
    elif name == "pixel_shuffle":
        parts = ids.view(output.shape[axis], -1).t()
        tie(trace, parts)
        new = parts[0]
    else:
        new = ids.repeat_interleave(output.shape[axis] // len(ids))
    trace.propagate(x, output, as_labels(new, axis=axis, ndim=output.ndim))


def _embedding(trace: ChannelTrace, *, args: dict[str, Any], output: Tensor, name: str) -> None:
    ids = ids_along(trace.marks(args["weight"]), 1)
    trace.mark(output, Marks(labels=as_labels(ids, axis=output.ndim - 1, ndim=output.ndim)))


def _glu(trace: ChannelTrace, *, args: dict[str, Any], output: Tensor, name: str) -> None:
    """Tie the halves of the channels of a gated linear unit, one of which gates the other."""
    x, axis = args["self"], args.get("dim", -1) % args["self"].ndim
    labels = []
    for label in trace.marks(x).labels:
        if label.shape[axis] > 1:
            first, second = label.chunk(2, axis)
            trace.elements.join(first, second, reason="", tie=trace.location())
            label = first
        labels.append(label)
    trace.propagate(x, output, labels)


LAYERS: dict[str, Callable[..., None]] = {
    "convolution": _convolution,
    **dict.fromkeys(
        ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit"), _batch_norm
    ),
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "_batch_norm_with_update", "batch_norm"), _batch_norm),
    **dict.fromkeys(("native_layer_norm", "native_group_norm", "_fused_rms_norm"), _norm),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "im2col", "channel_shuffle"), _rearrange),
    "embedding": _embedding,
    "glu": _glu,
}
