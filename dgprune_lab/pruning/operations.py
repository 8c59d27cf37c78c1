"""The effect of each operation on the channels of its tensors.

Most operations act on each element (then the operands' channels are the same filters) or move elements (then the labels
move too). Convolutions and normalisations begin or end filters (`layers`); means and matrix products sum over axes
(`sums`). Channels that enter an unknown operation cannot be removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .elements import PADDING, Marks, tensors_of, varying
from .layers import LAYERS
from .moves import MOVES, move_labels, pick_labels, reshape_labels
from .sums import SUMS

if TYPE_CHECKING:
    from .channel_trace import ChannelTrace

_POINTWISE = frozenset(
    {"hardswish", "_prelu_kernel", "clone", "_to", "contiguous", "detach", "alias", "lift_fresh", "copy"}
    | {"native_dropout", "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "softplus"}
)
_MOVES = frozenset(
    ("permute", "transpose", "t", "unsqueeze", "squeeze", "select", "slice", "flip", "roll", "diagonal", "repeat")
)
_PICKS = frozenset({"index", "index_select", "gather"})
_SPATIAL = re.compile(
    r"(?:_?adaptive_)?(?:avg|max)_pool(\d)d|_?upsample_[a-z_]+(\d)d|(?:reflection|replication)_pad(\d)d"
    r"|grid_sampler_(\d)d|max_unpool(\d)d"
)


def follow(trace: ChannelTrace, func: Any, *, args: dict[str, Any], output: Any) -> None:
    """Mark the outputs of one operation, and record which channels it ties or makes impossible to remove."""
    name = func._schema.name.partition("::")[2]
    rule = _find_rule(name, func)
    # An in-place operation that changes the shape has lost the original shape.
    if rule is None or (name.endswith("_") and (rule is reshape_labels or name.removesuffix("_") in _MOVES)):
        _fix_unknown(trace, name, args=args)
        return
    try:
        rule(trace, args=args, output=output, name=name)
    except Exception:  # a case that the rule does not cover: refuse all channels that enter
        _fix_unknown(trace, name, args=args)


def _find_rule(name: str, func: Any) -> Callable[..., None] | None:
    base = name.removesuffix("_").removesuffix("_copy") if name != "copy_" else "copy"
    for rules in (LAYERS, MOVES, SUMS, _RULES):
        if base in rules:
            return rules[base]
    if base in (*_MOVES, *_PICKS):
        move = move_labels if base in _MOVES else pick_labels
        return lambda trace, *, args, output, name: move(trace, func, args=args, output=output)
    if torch.Tag.pointwise in func.tags or base in _POINTWISE:
        return _pointwise
    return _spatial if _SPATIAL.match(base) else None


def _fix_unknown(trace: ChannelTrace, name: str, *, args: dict[str, Any]) -> None:
    """Mark all channels that enter an unknown operation as not removable."""
    kinds = (
        ("attention", r"attention|baddbmm"),
        ("recurrent", r"rnn|lstm|gru"),
        ("picked", r"index(_select)?$|gather$|take"),
        ("written", r"scatter|index_\w+|masked_scatter"),
    )
    kind = next((kind for kind, names in kinds if re.search(names, name)), "unknown")
    for value in args.values():
        for tensor in tensors_of(value):
            trace.fix(tensor, kind, detail=name)


def _create(trace: ChannelTrace, *, args: dict[str, Any], output: Any, name: str) -> None:
    """Do nothing where values do not depend on the input: a new tensor has no marks, a filled one keeps its own."""


def _pointwise(trace: ChannelTrace, *, args: dict[str, Any], output: Any, name: str) -> None:
    """Tie the operands of an elementwise operation: their channels are the same filters, except on axes of size 1."""
    tensors = [tensor for value in args.values() for tensor in tensors_of(value)]
    results = list(tensors_of(output))
    if not results:
        return
    if name == "copy_" and args["self"]._is_view():
        trace.fix(args["src"], "part")
    marks = _combine_operands(trace, tensors, product=name.rstrip("_") == "mul")
    for result in results:
        if result.ndim == max(tensor.ndim for tensor in tensors):
            trace.mark(result, marks)


def _combine_operands(trace: ChannelTrace, tensors: list[Tensor], *, product: bool = False) -> Marks:
    """Tie tensors that are added or multiplied, and return the marks of the result."""
    ndim = max(tensor.ndim for tensor in tensors)
    sizes = [(1,) * (ndim - tensor.ndim) + _own_sizes(tensor) for tensor in tensors]
    marks = [trace.marks(tensor) for tensor in tensors]
    labels = [[label.view((1,) * (ndim - label.ndim) + label.shape) for label in mark.labels] for mark in marks]
    result: dict[tuple[int, ...], Tensor] = {}
    for k, own in enumerate(labels):
        for label in own:
            result.setdefault(varying(label), label)
            for other in range(len(tensors)):
                if other == k or any(sizes[other][axis] == 1 for axis in varying(label)):
                    continue
                match = _find_match(label, labels[other], size=sizes[k])
                if match is None:
                    trace.elements.fix(label, trace.reason("constant"))
                elif other > k or match.shape != label.shape:
                    is_padded = bool((label == PADDING).any() | (match == PADDING).any())
                    trace.elements.join(label, match, reason=trace.reason("padded" if is_padded else "constant"))
    for axes in [axes for axes in result if any(set(fewer) < set(axes) for fewer in result)]:
        del result[axes]
    if not all(mark.source for mark in marks):  # drop axes of parameters that are not channels
        kept = {axes for mark, own in zip(marks, labels, strict=True) if not mark.source for axes in map(varying, own)}
        result = {axes: label for axes, label in result.items() if axes in kept or not kept}
    producers = [mark for mark in marks if mark.labels and mark.source is None]
    if product and len(producers) > 1:  # a product is gated once, on its earliest map, from which the gate is computed
        order = {name: k for k, name in enumerate(trace.producers)}
        producers = [min(producers, key=lambda mark: min((order[name] for name in mark.ends), default=len(order)))]
    large = [mark for mark, tensor in zip(marks, tensors, strict=True) if tensor.numel() > 1]
    is_weight = all(mark.source for mark in large)
    return Marks(
        labels=tuple(result.values()),
        source=next((mark.source for mark in large), None) if is_weight else None,
        ends=frozenset().union(*(mark.ends for mark in producers)),
        feeds=frozenset().union(*(mark.feeds for mark in producers)),
    )


def _own_sizes(tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of a tensor, with 1 where it was expanded."""
    return tuple(1 if stride == 0 else size for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _find_match(label: Tensor, others: list[Tensor], *, size: tuple[int, ...]) -> Tensor | None:
    """Return another operand's label for the same channels: equal in shape, or varying along more or fewer axes."""
    equal = [each for each in others if each.shape == label.shape]
    crossing = [
        each
        for each in others
        if set(varying(each)) & set(varying(label)) and all(size[axis] > 1 for axis in varying(each))
    ]
    return next(iter((*equal, *crossing)), None)


def _ordered(trace: ChannelTrace, *, args: dict[str, Any], output: Any, name: str) -> None:
    """Refuse channels on the axis of a cumulative sum or sort; other axes stay unchanged."""
    x = args["self"]
    axis = args.get("dim", -1) % x.ndim
    trace.propagate(x, output, trace.fix(x, "order", detail=name, along=lambda axes: axis in axes))


def _strided(trace: ChannelTrace, *, args: dict[str, Any], output: Any, name: str) -> None:
    """Accept only strides that give the memory format of a pooled 1 x 1 map, since these move no value."""
    x = args["self"]
    first = tuple(args["stride"][:2])
    if tuple(args["size"]) != tuple(x.shape) or x.shape[2:].numel() != 1 or first != (x.shape[1], 1):
        _fix_unknown(trace, name, args=args)
    else:
        _pointwise(trace, args={"self": x}, output=output, name=name)


def _spatial(trace: ChannelTrace, *, args: dict[str, Any], output: Any, name: str) -> None:
    """Refuse channels on the last axes, over which pooling, resizing or padding runs."""
    x = args.get("self", args.get("input"))
    match = _SPATIAL.match(name)
    assert isinstance(x, Tensor) and match is not None
    first = x.ndim - int(next(group for group in match.groups() if group))
    trace.propagate(x, output, trace.fix(x, "window", detail=name, along=lambda axes: max(axes) >= first))


_RULES: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "zero", "fill"), _create),
    "as_strided": _strided,
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "sort", "topk"), _ordered),
}
