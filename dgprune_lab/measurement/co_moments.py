"""Co-moments between consecutive layers, class by class, as running sums of one pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..core import CONV, Batch, CoMoments, DgpruneError, FilterGraph, FilterGroup, Need
from .collectors import Collector
from .hooks import in_order, on_output, output_count, produced, select
from .taps import Taps

PAIRS: frozenset[Need] = frozenset({"co_moments", "class_co_moments"})
CO_MOMENT_BYTES = 256 * 2**20
_SHUFFLED = 64
_ROWS = 500


class CoMomentSums(Collector):
    """Co-moments of every pair of consecutive layers: "co_moments" over all images, "class_co_moments" per true class.

    Raises:
        DgpruneError: on `attach`, if the sums would take more than 256 MB; then nothing is allocated.
    """

    def __init__(self, needs: Collection[Need], *, classes: int) -> None:
        self._classes: dict[Need, int] = {kind: max(classes, 1) if kind == "class_co_moments" else 1 for kind in needs}
        self._means: dict[str, Tensor] = {}
        self._sums: dict[Need, dict[tuple[str, str], PairSums]] = {kind: {} for kind in sorted(needs)}

    def attach(self, taps: Taps) -> None:
        model, listed = taps.model, pairs(taps.model, taps.graph)
        if reason := too_large(model, listed, tables=sum(self._classes.values())):
            raise DgpruneError(reason)
        used = {layer for group, consumer in listed for layer in (consumer, *group.feeds[consumer])}
        for name, module in model.named_modules():
            if name not in used:
                continue
            groups = [group for group, consumer in listed if consumer == name]
            on_output(model, name, partial(self._add, layer=name, groups=groups, is_conv=isinstance(module, CONV)))

    def begin(self, batch: Batch) -> None:
        super().begin(batch)
        self._means.clear()

    def _add(self, y: Tensor, *, layer: str, groups: list[FilterGroup], is_conv: bool) -> None:
        """Store a layer's spatial means, and add their products with the responses of each group it consumes."""
        mean = y.flatten(2).mean(2) if is_conv else y if y.ndim == 2 else y.flatten(1, -2).mean(1)
        self._means[layer] = second = mean.to(torch.float64, copy=True)
        for group in groups:
            if (first := self._response(group, layer)) is None:
                continue
            for kind, sums in self._sums.items():
                labels = first.new_zeros(len(first), dtype=torch.int64) if kind == "co_moments" else self.labels
                assert labels is not None
                key = group.name, layer
                if key not in sums:
                    sums[key] = PairSums(first, second, classes=self._classes[kind])
                sums[key].add(first, second, labels)

    def _response(self, group: FilterGroup, consumer: str) -> Tensor | None:
        """(N, C) response of each filter at a consumer: the sum over the layers that feed the consumer."""
        total = None
        for layer in group.feeds.get(consumer, ()):
            for positions, filters in produced(group, layer) if layer in self._means else ():
                response = select(self._means[layer], positions)
                if not in_order(filters, group.filters):
                    empty = response.new_zeros(len(response), group.filters)
                    response = empty.index_add_(1, filters.to(response.device), response)
                total = response if total is None else total + response
        return total

    def result(self) -> dict[str, Any]:
        return {kind: {key: pair.result() for key, pair in sums.items()} for kind, sums in self._sums.items()}


class PairSums:
    """The running CoMoments of two layers.

    Images come in random order, so pairing each image with the previous image of its class, even of an earlier batch,
    is random pairing. For each class, `_last` holds the first layer's response to the latest image and `_earliest` the
    second layer's response to the earliest image; these two make the last pair.
    """

    def __init__(self, first: Tensor, second: Tensor, *, classes: int) -> None:
        widths = first.shape[1], second.shape[1]
        shuffled = [min(width, _SHUFFLED) for width in widths]
        self._images = torch.zeros(classes, dtype=torch.int64, device=first.device)
        self._first, self._second = (first.new_zeros(classes, 2, width) for width in widths)
        self._cross, self._shuffled = first.new_zeros(classes, *widths), first.new_zeros(classes, *shuffled)
        self._last, self._earliest = (first.new_zeros(classes, width) for width in shuffled)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, first: Tensor, second: Tensor, labels: Tensor) -> None:
        """Add the responses of one batch, (N, A) and (N, B), with the class of each image."""
        self._waiting.append((first, second, labels))
        # A few rows of a class cost as much as many: the whole table is read and written.
        if sum(len(labels) for *_, labels in self._waiting) >= _ROWS:
            self._flush()

    def result(self) -> CoMoments:
        """Return the sums, on the CPU."""
        self._flush()
        shuffled = self._shuffled + self._last[:, :, None] * self._earliest[:, None]
        sums = self._images, self._first.movedim(1, 0), self._second.movedim(1, 0), self._cross, shuffled
        return CoMoments(*(table.cpu() for table in sums))

    def _flush(self) -> None:
        if not self._waiting:
            return
        first, second, labels = (torch.cat(tensors) for tensors in zip(*self._waiting, strict=True))
        self._waiting.clear()
        for table, rows in ((self._first, first), (self._second, second)):
            table.index_add_(0, labels, torch.stack([rows, rows.square()], 1))
        order, counts = labels.argsort(stable=True), torch.bincount(labels, minlength=len(self._images))
        self._add_sorted(first[order], second[order], counts)

    def _add_sorted(self, x: Tensor, y: Tensor, counts: Tensor) -> None:
        """Add the products of rows that are sorted by class; `counts` holds the number of rows of each class."""
        present = counts.nonzero().flatten()
        ends = counts.cumsum(0)[present]
        starts = ends - counts[present]
        narrow_x, narrow_y = x[:, :_SHUFFLED], y[:, :_SHUFFLED]
        before = narrow_x.roll(1, 0)
        before[starts] = self._last[present]
        self._last[present] = narrow_x[ends - 1]
        new = self._images[present] == 0
        self._earliest[present[new]] = narrow_y[starts[new]]
        self._images += counts
        for k, start, end in torch.stack([present, starts, ends], 1).tolist():
            self._cross[k].addmm_(x[start:end].T, y[start:end])
            self._shuffled[k].addmm_(before[start:end].T, narrow_y[start:end])


def too_large(model: nn.Module, listed: Sequence[tuple[FilterGroup, str]], *, tables: int) -> str | None:
    """Return why co-moments of these pairs, with this many tables per pair, are refused; None below the size limit."""
    size = sum(8 * tables * group.filters * output_count(model.get_submodule(layer)) for group, layer in listed)
    if size <= CO_MOMENT_BYTES:
        return None
    scope = f"over {tables} classes" if tables > 1 else "over all classes together"
    advice = "take them over all classes together (by_class=False), or a smaller" if tables > 1 else "take a smaller"
    return (
        f"the co-moments of {len(listed)} pairs of layers {scope} would take {size / 2**20:,.0f} MB, more than "
        f"{CO_MOMENT_BYTES // 2**20} MB; {advice} network."
    )


def pairs(model: nn.Module, graph: FilterGraph) -> list[tuple[FilterGroup, str]]:
    """Return each group with each layer that consumes it and mixes its filters, in the order of execution.

    The dependency graph says which layers feed a consumer (`FilterGroup.feeds`); a filter's response there is the sum
    of their raw outputs. After a residual addition these are all its summands, after a depthwise convolution that
    convolution alone. A concatenation feeds several groups to one consumer, each a pair. Grouped convolutions, which
    mix each filter into some of their outputs only, make no pair.
    """
    order = {weight.rpartition(".")[0]: k for k, weight in enumerate(graph.uses)}
    listed = [
        (group, layer)
        for group in graph.groups
        for layer in group.consumers
        if group.feeds.get(layer) and getattr(model.get_submodule(layer), "groups", 1) == 1 and layer in order
    ]
    return sorted(listed, key=lambda pair: (order[pair[1]], pair[0].depth))
