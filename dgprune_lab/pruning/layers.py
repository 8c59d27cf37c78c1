"""The effect of convolutions, normalisations and shuffles on channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .elements import Marks, positions, varying

if TYPE_CHECKING:
    from .following import Followed


def along(marks: Marks, axis: int) -> Tensor | None:
    """The label that varies only along this axis, as a vector of ids; None if there is none."""
    return next((label.flatten() for label in marks.labels if varying(label) == (axis,)), None)


def channels(trace: Followed, x: Tensor, *, axis: int) -> Tensor | None:
    """(C,) ids on an axis of a map; ids that occur at one position of this axis are tied. None if there are none."""
    for label in trace.marks(x).labels:
        if axis in varying(label):
            flat = label.movedim(axis, -1).reshape(-1, label.shape[axis])
            trace.elements.join(flat[:1], flat, reason=trace.why("mixed"), tie=trace.where())
            return flat[0]
    return None


def placed(ids: Tensor | None, *, axis: int, ndim: int) -> tuple[Tensor, ...]:
    """A vector of ids as labels of a map with `ndim` axes; no label for None."""
    return () if ids is None else (ids.view([-1 if k == axis else 1 for k in range(ndim)]),)


def _convolution(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    x, weight, groups = given["input"], given["weight"], given["groups"]
    marks = trace.marks(weight)
    _fix_neighbours(trace, x)
    depthwise = groups > 1 and groups == x.shape[1] == weight.shape[0] == output.shape[1]
    if depthwise and along(marks, 0) is None:  # one kernel for all channels, as many as there are
        ids = channels(trace, x, axis=1)
        labels = placed(ids, axis=1, ndim=output.ndim)
        join_vectors(trace, ids, vectors=[given["bias"]])
        trace.products.append(((x if given["transposed"] else output).numel() * weight[0].numel(), labels))
        trace.mark(output, replace(trace.marks(x), labels=labels))
        return
    computed = marks.source is None or any(len(varying(label)) > 1 for label in marks.labels)
    if computed or (groups > 1 and given["transposed"] and not depthwise):
        kind = "quantised" if any(hasattr(module, "qconfig") for _, module in trace.stack) else "opaque"
        kind = kind if computed else "transposed"
        for tensor in (x, weight):
            trace.fix(tensor, kind)
        trace.opaque.setdefault(trace.name, (output.shape[1], trace.why(kind)))
        return
    assert marks.source is not None
    layer = trace.layer(marks.source)
    produced = along(marks, 1 if given["transposed"] and not depthwise else 0)
    inputs = channels(trace, x, axis=1)
    trace.uses[marks.source] += positions(x if given["transposed"] else output, spatial=x.ndim - 2) * len(x)
    if depthwise:
        _join_input(trace, inputs=inputs, produced=produced)
        is_layer = marks.source == f"{layer}.weight"  # else a fixed kernel, as those that blur
        wrote = Marks(ends=frozenset({layer}), feeds=frozenset({layer})) if is_layer else trace.marks(x)
    else:
        trace.reads[layer].append(trace.marks(x))
        wrote = _mixed(trace, layer, kind="conv", inputs=inputs, given=given)
    if produced is not None:
        if layer in wrote.ends:
            trace.producers.setdefault(layer, produced)
        join_vectors(trace, produced, vectors=[given["bias"]])
    trace.mark(output, replace(wrote, labels=placed(produced, axis=1, ndim=output.ndim)))


def _fix_neighbours(trace: Followed, x: Tensor) -> None:
    for label in trace.marks(x).labels:
        if 1 not in varying(label):
            trace.elements.fix(label, trace.why("neighbours" if max(varying(label)) > 1 else "batch"))


def _join_input(trace: Followed, *, inputs: Tensor | None, produced: Tensor | None) -> None:
    """A depthwise convolution: its outputs are the same filters as its inputs."""
    if produced is not None:
        inputs = torch.zeros_like(produced) if inputs is None else inputs
        trace.elements.join(inputs, produced, reason=trace.why("mixed"))


def _mixed(trace: Followed, layer: str, *, kind: str, inputs: Tensor | None, given: dict[str, Any]) -> Marks:
    """A convolution that is not depthwise: record its input and output axes, and return the marks of its output."""
    weight, groups, transposed = given["weight"], given["groups"], given["transposed"]
    marks = trace.marks(weight)
    rows, columns = (1, 0) if transposed else (0, 1)
    produced, consumed = along(marks, rows), along(marks, columns)
    trace.mixing.setdefault(layer, kind)
    if inputs is not None:
        trace.consumers.setdefault(layer, inputs)
    if groups > 1:
        for ids in (produced, inputs):
            if ids is not None and len(ids) % groups == 0:
                parts = ids.view(groups, -1)
                trace.elements.join(parts[:1], parts, reason=trace.why("grouped"), tie=trace.where())
        inputs = None if inputs is None else inputs[: len(inputs) // groups]
    consume(trace, marks.source, axis=columns, inputs=inputs, consumed=consumed)
    return Marks(ends=frozenset({layer}), feeds=frozenset({layer}))


def consume(trace: Followed, source: str | None, *, axis: int, inputs: Tensor | None, consumed: Tensor | None) -> None:
    """Record that the input axis of a weight holds the filters that arrive there; inputs without an id are not cut."""
    if source is not None and consumed is not None:
        trace.elements.sides[source, axis] = "in"
    if inputs is not None and consumed is not None and len(inputs) == len(consumed):
        both = (inputs > 0) & (consumed > 0)
        trace.elements.join(inputs[both], consumed[both], reason="")


def join_vectors(trace: Followed, ids: Tensor | None, *, vectors: list[Tensor | None]) -> None:
    """Tie the elements of biases and scales to the filters that they belong to; without ids they cannot be removed."""
    for vector in vectors:
        own = None if vector is None else next(iter(trace.marks(vector).labels), None)
        if own is not None:
            own = own.flatten()
            trace.elements.join(torch.zeros_like(own) if ids is None else ids, own, reason=trace.why("mixed"))


def _batch_norm(trace: Followed, *, given: dict[str, Any], output: Any, name: str) -> None:
    """BatchNorm: scale, shift and statistics of a channel are the same filter as its input and output."""
    x = given["input"]
    vectors = [given.get(key) for key in ("weight", "bias", "running_mean", "running_var")]
    marks, inputs = trace.marks(x), channels(trace, x, axis=1)
    if given.get("training", given.get("running_mean") is None):
        for label in marks.labels:
            if 1 not in varying(label):
                trace.elements.fix(label, trace.why("statistics" if marks.source is None else "standardised"))
    sources = [trace.marks(vector).source for vector in vectors if vector is not None]
    join_vectors(trace, inputs, vectors=vectors)
    ends = marks.ends
    source = next((source for source in sources if source), None)
    if source is not None and inputs is not None:
        layer = trace.layer(source)
        trace.producers.setdefault(layer, inputs)
        ends = frozenset({layer})
    rest = tuple(label for label in marks.labels if 1 not in varying(label))
    result = output[0] if isinstance(output, (tuple, list)) else output
    trace.mark(result, replace(marks, ends=ends, labels=(*placed(inputs, axis=1, ndim=x.ndim), *rest)))


def _norm(trace: Followed, *, given: dict[str, Any], output: Any, name: str) -> None:
    """LayerNorm and GroupNorm: the channels over which statistics are taken cannot be removed."""
    x, marks = given["input"], trace.marks(given["input"])
    if given.get("group") == x.shape[1]:  # one channel in each group: an instance norm
        _batch_norm(trace, given={**given, "training": False}, output=output, name=name)
        return
    axes = range(1, x.ndim) if "group" in given else range(x.ndim - len(given["normalized_shape"]), x.ndim)
    for label in marks.labels:
        if set(axes) & set(varying(label)):
            trace.elements.fix(label, trace.why("statistics"))
    trace.mark(output[0] if isinstance(output, (tuple, list)) else output, marks)


def _interleaved(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    """Pixel shuffle and its inverses: blocks of channels become positions, or positions become channels."""
    x = given["self"]
    ids, axis = channels(trace, x, axis=x.ndim - 3), x.ndim - 3
    if ids is None:
        return
    block = max(len(ids), output.shape[axis]) // min(len(ids), output.shape[axis])
    if name == "pixel_shuffle":
        parts = ids.view(-1, block)
        trace.elements.join(parts[:, :1], parts, reason=trace.why("mixed"), tie=trace.where())
        new = parts[:, 0]
    else:
        new = ids.repeat_interleave(block)
    trace.mark(output, replace(trace.marks(x), labels=placed(new, axis=axis, ndim=output.ndim)))


def _unfold(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    ids = channels(trace, given["self"], axis=1)
    if ids is not None:
        new = ids.repeat_interleave(output.shape[1] // len(ids))
        trace.mark(output, replace(trace.marks(given["self"]), labels=placed(new, axis=1, ndim=3)))


def _channel_shuffle(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    ids = channels(trace, given["self"], axis=1)
    if ids is not None:
        parts = ids.view(given["groups"], -1)
        trace.elements.join(parts[:1], parts, reason=trace.why("mixed"), tie=trace.where())
        labels = placed(parts.t().flatten(), axis=1, ndim=output.ndim)
        trace.mark(output, replace(trace.marks(given["self"]), labels=labels))


def _embedding(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    ids = along(trace.marks(given["weight"]), 1)
    trace.mark(output, Marks(labels=placed(ids, axis=output.ndim - 1, ndim=output.ndim)))


def _glu(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    """Gated linear units: one half of the channels gates the other half, so the halves are tied."""
    x, axis = given["self"], given.get("dim", -1) % given["self"].ndim
    labels = []
    for label in trace.marks(x).labels:
        if label.shape[axis] > 1:
            first, second = label.chunk(2, axis)
            trace.elements.join(first, second, reason="", tie=trace.where())
            label = first
        labels.append(label)
    trace.mark(output, replace(trace.marks(x), labels=tuple(labels)))


LAYERS: dict[str, Callable[..., None]] = {
    "convolution": _convolution,
    **dict.fromkeys(
        ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit"), _batch_norm
    ),
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "_batch_norm_with_update", "batch_norm"), _batch_norm),
    **dict.fromkeys(("native_layer_norm", "native_group_norm", "_fused_rms_norm"), _norm),
    "pixel_shuffle": _interleaved,
    "pixel_unshuffle": _interleaved,
    "im2col": _unfold,
    "embedding": _embedding,
    "channel_shuffle": _channel_shuffle,
    "glu": _glu,
}
