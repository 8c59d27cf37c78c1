"""The effect on channels of sums over axes: means, softmax, and matrix products, as in linear layers and attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .elements import Marks, varying
from .layers import along, channels, join_vectors, mixed, placed

if TYPE_CHECKING:
    from .following import Followed

_ADD_UP = ("sum", "linalg_vector_norm", "any")  # zeros add nothing, so removed and masked channels are the same
_NAMES = {"amax": "maximum", "max": "maximum", "amin": "minimum", "min": "minimum", "prod": "product"}
_NAMES |= {"std": "standard deviation", "var": "variance", "var_mean": "variance", "logsumexp": "softmax"}


def _reduced(trace: Followed, *, given: dict[str, Any], output: Any, name: str) -> None:
    """A sum or norm over channels has no channels, and zeroed ones do not change it; others depend on their number."""
    x = given["self"]
    axes = given.get("dim", given.get("axis"))
    axes = list(range(x.ndim)) if axes is None or axes == [] else [axes] if isinstance(axes, int) else list(axes)
    reduced = {axis % x.ndim for axis in axes} if x.ndim else set()
    labels = []
    for label in trace.marks(x).labels:
        over = reduced & set(varying(label))
        if over and over == set(varying(label)):
            if name not in _ADD_UP:
                kind = "over" if trace.marks(x).source is None else "standardised"
                trace.elements.fix(label, trace.why(kind, detail=_NAMES.get(name, name)))
            continue
        kept = label
        for axis in over:
            kept = kept.narrow(axis, 0, 1)
        trace.elements.join(kept, label, reason="", tie="" if name in _ADD_UP else trace.where())
        left = kept.shape if given.get("keepdim") else [kept.shape[k] for k in range(x.ndim) if k not in reduced]
        labels.append(kept.reshape(left))
    trace.hand_on(x, output, labels)


def _softmax(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    x, axis = given["self"], given["dim"] % given["self"].ndim
    labels = trace.fix(x, "over", detail="softmax", along=lambda axes: axes == (axis,))
    for label in labels:
        trace.elements.join(label.narrow(axis, 0, 1), label, reason="", tie=trace.where())
    trace.hand_on(x, output, labels)


def _addmm(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    """A linear layer, whose weight comes transposed: (in, out)."""
    x, weight = given.get("mat1", given["self"]), given["mat2"]
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
    produced, inputs = along(marks, 1), channels(trace, x, axis=1)
    rows = tuple(label for label in trace.marks(x).labels if varying(label) == (0,))
    trace.uses[marks.source] += 0 if rows else len(x)
    if rows:  # it runs along positions, once for each channel
        trace.products.append((len(x) * weight.numel(), (*rows, *marks.labels)))
    starts = trace.elements.starts
    stored = next((axis for axis in (1, 0) if starts.get((marks.source, axis), (0, 0))[1] == len(weight)), 1)
    wrote = mixed(trace, layer, marks.source, kind="linear", x=x, inputs=inputs, axis=stored, consumed=along(marks, 0))
    if produced is not None:
        trace.producers.setdefault(layer, produced)
        join_vectors(trace, produced, vectors=[given["self"]] if name == "addmm" else [])
    trace.mark(output, replace(wrote, labels=(*rows, *placed(produced, axis=1, ndim=2))))


def _bmm(trace: Followed, *, given: dict[str, Any], output: Tensor, name: str) -> None:
    """A product of feature maps keeps the channels apart that it does not sum over."""
    kept = []
    for tensor, summed in ((given["self"], 2), (given["mat2"], 1)):
        for label in trace.marks(tensor).labels:
            if summed in varying(label):
                trace.elements.fix(label, trace.why("attention"))
            else:
                kept.append((label, trace.marks(tensor)))
    ends, feeds = (frozenset().union(*(getattr(marks, what) for _, marks in kept)) for what in ("ends", "feeds"))
    labels = {varying(label): label for label, _ in kept}
    trace.products.append((output.numel() * given["self"].shape[2], tuple(labels.values())))
    trace.mark(output, Marks(labels=tuple(labels.values()), ends=ends, feeds=feeds))


SUMS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "prod", "logsumexp"), _reduced),
    **dict.fromkeys(("std", "var", "var_mean", "linalg_vector_norm", "any", "all"), _reduced),
    **dict.fromkeys(("argmax", "argmin", "median", "mode", "kthvalue", "aminmax"), _reduced),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), _softmax),
    **dict.fromkeys(("addmm", "mm"), _addmm),
    "bmm": _bmm,
}
