"""One forward pass that follows the channels of tensors through every operation."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from ..core import FilterGraph, MacCounter, Observer
from .elements import Elements, Marks, tensors_of, varying
from .operations import follow
from .refusals import layer_label, refusal

_MARKS = "_dgprune_marks"
_NO_MARKS = Marks()


class ChannelTrace(Observer):
    """Follows the channels through the operations of one pass.

    Attributes:
        elements: the ids of the network's elements, and which of them are tied.
        producers: convolution, linear or normalisation layer -> the ids on its output, in the order of execution.
        mixing: producer that is neither depthwise nor normalisation -> "conv" or "linear".
        opaque: convolution that computes its weights -> its number of filters, and why they cannot be cut.
        consumers: layer -> the ids on its input axis.
        reads: layer -> the marks of its inputs, which name the layers that produced them.
        uses: weight -> number of positions per image at which it is applied.
        used: names of all parameters and buffers that were used.
        outputs: the ids on the network's output.
        macs: multiply-accumulates per image, as `MacCounter` counts them.
        products: (multiply-accumulates, labels along which they run) for operations whose cost does not follow from
            the size of a weight.
        stack: (name, module) of the calls in progress, innermost last.
        pairs: layers, as `location` names them, whose reshapes split channels into groups of a size that is fixed in
            the code.
    """

    def __init__(self, model: nn.Module, *, pairs: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.pairs = pairs
        self.elements = Elements(model)
        self.model = model
        self.producers: dict[str, Tensor] = {}
        self.mixing: dict[str, str] = {}
        self.opaque: dict[str, tuple[int, str]] = {}
        self.consumers: dict[str, Tensor] = {}
        self.reads: dict[str, list[Marks]] = defaultdict(list)
        self.uses: dict[str, int] = defaultdict(int)
        self.used: set[str] = set()
        self.outputs = torch.zeros(0, dtype=torch.long)
        self.macs = 0
        self.products: list[tuple[int, tuple[Tensor, ...]]] = []
        self.stack: list[tuple[str, nn.Module]] = [("", model)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_inference_mode_enabled() and func is not torch.ops.prim.device.default:
            with self:  # in inference mode composite operations arrive undecomposed
                output = func.decompose(*args, **(kwargs or {}))
            if output is not NotImplemented:
                return output
        output = func(*args, **(kwargs or {}))
        named = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)} | (kwargs or {})
        tensors = [tensor for value in named.values() for tensor in tensors_of(value)]
        self.used.update(self.elements.names[id(t)] for t in tensors if id(t) in self.elements.names)
        if any(self.marks(tensor).labels for tensor in tensors):
            with _disable_current_modes():
                follow(self, func, args=named, output=output)
        return output

    def marks(self, tensor: Tensor | None) -> Marks:
        """Return the marks of a tensor: the ids on its axes, and where it comes from."""
        if tensor is None:
            return _NO_MARKS
        return getattr(tensor, _MARKS, None) or self.elements.marks_of(tensor) or _NO_MARKS

    def mark(self, tensor: Tensor, marks: Marks) -> None:
        """Set the marks of a tensor; those of parameters and buffers are fixed."""
        if id(tensor) not in self.elements.names:
            setattr(tensor, _MARKS, marks)

    def propagate(self, x: Tensor, output: Any, labels: Iterable[Tensor]) -> None:
        """Give the outputs of an operation the marks of `x`, with other labels."""
        marks = replace(self.marks(x), labels=tuple(labels))
        for result in tensors_of(output):
            self.mark(result, marks)

    def location(self) -> str:
        """Return the name and class of the current layer as text."""
        return layer_label(self.stack[-1][0], self.model)

    def reason(self, kind: str, *, detail: str = "") -> str:
        """Return as text why channels that reach the current layer cannot be removed."""
        return refusal(kind, where=self.location(), detail=detail)

    def layer(self, source: str) -> str:
        """Return the layer that uses a weight: the current layer if it owns the weight, otherwise the owner by name."""
        name, module = self.stack[-1]
        parameters = [self.elements.names.get(id(tensor)) for tensor in module.parameters(recurse=False)]
        return name if name and source in parameters else source.rpartition(".")[0]

    def fix(
        self,
        tensor: Tensor | None,
        kind: str,
        *,
        detail: str = "",
        along: Callable[[tuple[int, ...]], bool] | None = None,
    ) -> list[Tensor]:
        """Mark the channels of a tensor as not removable, and return its other labels.

        With `along`, mark only channels on axes for which it is true; see `refusals` for `kind` and `detail`.
        """
        rest = []
        for label in self.marks(tensor).labels:
            if along is None or along(varying(label)):
                self.elements.fix(label, self.reason(kind, detail=detail))
            else:
                rest.append(label)
        return rest

    def run(self, example: Tensor) -> ChannelTrace:
        """Run the network once, and return self."""

        def leave(*_: Any) -> None:
            self.stack.pop()

        with MacCounter() as counter, ExitStack() as hooks, torch.no_grad(), self:
            for name, module in self.model.named_modules():
                enter = partial(lambda entry, *_: self.stack.append(entry), (name, module))
                hooks.enter_context(module.register_forward_pre_hook(enter))
                hooks.enter_context(module.register_forward_hook(leave, always_call=True))
            output = self.model(example)
        self.macs = counter.total // max(1, len(example))
        labels = [label.flatten() for tensor in tensors_of(output) for label in self.marks(tensor).labels]
        self.outputs = torch.cat(labels) if labels else self.outputs
        return self

    def products_of(self, graph: FilterGraph) -> tuple[tuple[int, tuple[Tensor, ...]], ...]:
        """Return the multiply-accumulates that `graph.uses` does not cover, as in `FilterGraph.products`."""
        ids = torch.full((self.elements.count,), graph.free)
        for name, axes in graph.axes.items():
            for axis, axis_ids in axes.items():
                start, size = self.elements.starts[name, axis]
                ids[start : start + size] = axis_ids
        products: list[tuple[int, tuple[Tensor, ...]]] = []
        for macs, labels in self.products:
            mapped = (ids[label.flatten().clamp(min=0)] for label in labels)
            if prunable := tuple(label for label in mapped if bool((label < graph.free).any())):
                products.append((macs, prunable))
        rest = self.macs - sum(count * math.prod(graph.shapes[name][0]) for name, count in graph.uses.items())
        rest -= sum(macs for macs, _ in products)
        return (*([(rest, ())] if rest > 0 else []), *products)
