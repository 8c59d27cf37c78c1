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
            trace.elements.join(flat[:1], flat, reason=f"{trace.where()} reads it", tie=trace.where())
            return flat[0]
    return None


def placed(ids: Tensor | None, *, axis: int, ndim: int) -> tuple[Tensor, ...]:
    """A vector of ids as labels of a map with `ndim` axes; no label for None."""
    return () if ids is None else (ids.view([-1 if k == axis else 1 for k in range(ndim)]),)


def _convolution(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    x, weight, groups = given["input"], given["weight"], given["groups"]
    marks = trace.marks(weight)
    _fix_neighbours(trace, x)
    depthwise = groups > 1 and groups == x.shape[1] == weight.shape[0]
    if depthwise and not marks.labels:  # one kernel for all channels, as many as there are
        labels = placed(channels(trace, x, axis=1), axis=1, ndim=output.ndim)
        trace.mark(output, replace(trace.marks(x), labels=labels))
        return
    if marks.source is None or any(len(varying(label)) > 1 for label in marks.labels):
        what = (
            "computes its weights in each pass from other tensors (as dynamic convolutions do, and layers prepared for "
            "quantisation, which are to be prepared after pruning), so its filters cannot be cut"
        )
        for tensor in (x, weight):
            trace.fix(tensor, what)
        trace.opaque.setdefault(trace.name, (output.shape[1], f"{trace.where()} {what}"))
        return
    layer = trace.layer(marks.source)
    axis = 1 if given["transposed"] else 0
    produced, inputs = along(marks, axis), channels(trace, x, axis=1)
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
        join_vectors(trace, produced, vectors=[given["bias"]], reason=f"{layer} adds it")
    trace.mark(output, replace(wrote, labels=placed(produced, axis=1, ndim=output.ndim)))


def _fix_neighbours(trace: Followed, x: Tensor) -> None:
    for label in trace.marks(x).labels:
        if varying(label) and 1 not in varying(label) and max(varying(label)) > 1:
            what = "is a convolution that runs over neighbouring channels, so none of them can be removed; leave it out"
            trace.elements.fix(label, f"{trace.where()} {what} of the network to prune these layers")


def _join_input(trace: Followed, *, inputs: Tensor | None, produced: Tensor | None) -> None:
    """A depthwise convolution: its outputs are the same filters as its inputs."""
    reason = f"{trace.where()} has one filter per channel of the network's input"
    if produced is not None:
        trace.elements.join(torch.zeros_like(produced) if inputs is None else inputs, produced, reason=reason)


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
        where = trace.where()
        if transposed:
            for ids in (produced, inputs):
                if ids is not None:
                    trace.elements.fix(ids, f"{where} is a grouped transposed convolution, which cannot be pruned")
        reason = f"{where} is a grouped convolution that gets only part of its channels from this layer"
        for ids in (produced, inputs):
            if ids is not None and len(ids) % groups == 0:
                parts = ids.view(groups, -1)
                trace.elements.join(parts[:1], parts, reason=reason, tie=where)
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


def join_vectors(trace: Followed, ids: Tensor, *, vectors: list[Tensor | None], reason: str) -> None:
    for vector in vectors:
        own = None if vector is None else next(iter(trace.marks(vector).labels), None)
        if own is not None:
            trace.elements.join(ids, own.flatten(), reason=reason)


def _batch_norm(trace: Followed, *, given: dict[str, Any], output: Any, name: str) -> None:
    """BatchNorm: scale, shift and statistics of a channel are the same filter as its input and output."""
    x = given["input"]
    vectors = [given.get(key) for key in ("weight", "bias", "running_mean", "running_var")]
    marks, inputs = trace.marks(x), channels(trace, x, axis=1)
    if given.get("training", given.get("running_mean") is None):
        for label in marks.labels:
            if 1 not in varying(label):
                trace.elements.fix(label, f"{trace.where()} takes statistics across channels")
    reason = f"{trace.where()} normalises the network's input"
    sources = [trace.marks(vector).source for vector in vectors if vector is not None]
    for vector in vectors:
        own = None if vector is None else next(iter(trace.marks(vector).labels), None)
        if own is not None:
            ids = torch.zeros_like(own.flatten()) if inputs is None else inputs
            trace.elements.join(ids, own.flatten(), reason=reason)
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
    what = "takes statistics across channels, so a removed filter would still change the others"
    x, result = given.get("input", given.get("self")), output[0] if isinstance(output, (tuple, list)) else output
    trace.fix(x, what)
    trace.mark(result, trace.marks(x))


def _interleaved(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    """Pixel shuffle and its inverses: blocks of channels become positions, or positions become channels."""
    x = given["self"]
    ids, axis = channels(trace, x, axis=x.ndim - 3), x.ndim - 3
    if ids is None:
        return
    block = max(len(ids), output.shape[axis]) // min(len(ids), output.shape[axis])
    if name == "pixel_shuffle":
        parts = ids.view(-1, block)
        trace.elements.join(parts[:, :1], parts, reason=f"{trace.where()} shuffles it", tie=trace.where())
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
        trace.elements.join(parts[:1], parts, reason=f"{trace.where()} shuffles it", tie=trace.where())
        labels = placed(parts.t().flatten(), axis=1, ndim=output.ndim)
        trace.mark(output, replace(trace.marks(given["self"]), labels=labels))


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
    "channel_shuffle": _channel_shuffle,
    "glu": _glu,
}
