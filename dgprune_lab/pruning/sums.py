"""Rules for sums over axes: means, softmax, and matrix products, as in linear layers and attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .elements import Marks, varying
from .layers import as_labels, channel_ids, ids_along, join_vectors, record_mixing

if TYPE_CHECKING:
    from .channel_trace import ChannelTrace

_ADDITIVE = ("sum", "linalg_vector_norm", "any")  # zeros add nothing, so removing and masking give the same
_NAMES = {"amax": "maximum", "max": "maximum", "amin": "minimum", "min": "minimum", "prod": "product"}
_NAMES |= {"std": "standard deviation", "var": "variance", "var_mean": "variance", "logsumexp": "softmax"}


def _reduce(trace: ChannelTrace, *, args: dict[str, Any], output: Any, name: str) -> None:
    """Reduce labels: sums and norms over channels ignore zeroed ones; other reductions depend on the channel count."""
    x = args["self"]
    axes = args.get("dim", args.get("axis"))
    axes = list(range(x.ndim)) if axes is None or axes == [] else [axes] if isinstance(axes, int) else list(axes)
    reduced = {axis % x.ndim for axis in axes} if x.ndim else set()
    labels = []
    for label in trace.marks(x).labels:
        over = reduced & set(varying(label))
        if over and over == set(varying(label)):
            if name not in _ADDITIVE:
                kind = "over" if trace.marks(x).source is None else "standardised"
                trace.elements.fix(label, trace.reason(kind, detail=_NAMES.get(name, name)))
            continue
        first = label
        for axis in over:
            first = first.narrow(axis, 0, 1)
        trace.elements.join(first, label, reason="", tie="" if name in _ADDITIVE else trace.location())
        shape = first.shape if args.get("keepdim") else [first.shape[k] for k in range(x.ndim) if k not in reduced]
        labels.append(first.reshape(shape))
    trace.propagate(x, output, labels)


def _softmax(trace: ChannelTrace, *, args: dict[str, Any], output: Tensor, name: str) -> None:
    x, axis = args["self"], args["dim"] % args["self"].ndim
    labels = trace.fix(x, "over", detail="softmax", along=lambda axes: axes == (axis,))
    for label in labels:
        trace.elements.join(label.narrow(axis, 0, 1), label, reason="", tie=trace.location())
    trace.propagate(x, output, labels)


def _addmm(trace: ChannelTrace, *, args: dict[str, Any], output: Tensor, name: str) -> None:
    """Record a linear layer, whose weight is passed transposed: (in, out)."""
    x, weight = args.get("mat1", args["self"]), args["mat2"]
    marks = trace.marks(weight)
    plain = marks.source is not None and trace.marks(x).source is None
    if not plain or any(len(varying(label)) > 1 for label in marks.labels):
        for tensor in (x, weight):
            trace.fix(tensor, "attention")
        return
    if isinstance(trace.stack[-1][1], nn.RNNBase):
        trace.fix(x, "recurrent")
        return
    assert marks.source is not None
    layer = trace.layer(marks.source)
    consumed, produced, inputs = ids_along(marks, 0), ids_along(marks, 1), channel_ids(trace, x, axis=1)
    rows = tuple(label for label in trace.marks(x).labels if varying(label) == (0,))
    trace.uses[marks.source] += 0 if rows else len(x)
    if rows:  # it runs along positions, once for each channel
        trace.products.append((len(x) * weight.numel(), (*rows, *marks.labels)))
    starts = trace.elements.starts
    axis = next((k for k in (1, 0) if starts.get((marks.source, k), (0, 0))[1] == len(weight)), 1)
    result = record_mixing(trace, layer, marks.source, kind="linear", x=x, inputs=inputs, axis=axis, consumed=consumed)
    if produced is not None:
        trace.producers.setdefault(layer, produced)
        join_vectors(trace, produced, vectors=[args["self"]] if name == "addmm" else [])
    trace.mark(output, replace(result, labels=(*rows, *as_labels(produced, axis=1, ndim=2))))


def _bmm(trace: ChannelTrace, *, args: dict[str, Any], output: Tensor, name: str) -> None:
    """Refuse the channels that a product of feature maps sums over; the other channels stay separate."""
    remaining = []
    for tensor, summed in ((args["self"], 2), (args["mat2"], 1)):
        for label in trace.marks(tensor).labels:
            if summed in varying(label):
                trace.elements.fix(label, trace.reason("attention"))
            else:
                remaining.append((label, trace.marks(tensor)))
    ends, feeds = (frozenset().union(*(getattr(marks, field) for _, marks in remaining)) for field in ("ends", "feeds"))
    labels = {varying(label): label for label, _ in remaining}
    trace.products.append((output.numel() * args["self"].shape[2], tuple(labels.values())))
    trace.mark(output, Marks(labels=tuple(labels.values()), ends=ends, feeds=feeds))


SUMS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "prod", "logsumexp"), _reduce),
    **dict.fromkeys(("std", "var", "var_mean", "linalg_vector_norm", "any", "all"), _reduce),
    **dict.fromkeys(("argmax", "argmin", "median", "mode", "kthvalue", "aminmax"), _reduce),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), _softmax),
    **dict.fromkeys(("addmm", "mm"), _addmm),
    "bmm": _bmm,
}
