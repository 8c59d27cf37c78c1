"""Running sums of co-moments between consecutive layers, per class, in one pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core import CONV, Batch, CoMoments, DgpruneError, Domain, FilterGraph, FilterGroup, Need
from .collectors import Collector
from .hooks import Selection, in_order, on_output, output_count, produced
from .taps import Taps

PAIRS: frozenset[Need] = frozenset({"co_moments", "class_co_moments"})
CO_MOMENT_BYTES = 256 * 2**20
_SHUFFLED = 64
_ROWS = 500


class CoMomentSums(Collector):
    """Co-moments of all pairs of consecutive layers: "co_moments" over all images, "class_co_moments" per true class.

    Raises:
        DgpruneError: on `attach`, before anything is allocated, if the sums would take more than 256 MB.
    """

    def __init__(self, needs: Collection[Need], *, domain: Domain) -> None:
        labels = None if domain.labels is None else domain.labels.cpu()
        count = max(domain.classes, 1)
        self._classes: dict[Need, Classes] = {
            kind: Classes(labels, count) if kind == "class_co_moments" else Classes(None, 1) for kind in sorted(needs)
        }
        self._means: dict[str, Tensor] = {}
        self._pairs: dict[Need, dict[tuple[str, str], PairSums]] = {kind: {} for kind in self._classes}
        self._selections: dict[tuple[str, str, int], tuple[Selection, Tensor | None]] = {}

    def attach(self, taps: Taps) -> None:
        model, layer_pairs = taps.model, pairs(taps.model, taps.graph)
        if reason := too_large(model, layer_pairs, tables=sum(classes.count for classes in self._classes.values())):
            raise DgpruneError(reason)
        layers = {layer for group, consumer in layer_pairs for layer in (consumer, *group.feeds[consumer])}
        for name, module in model.named_modules():
            if name not in layers:
                continue
            groups = [group for group, consumer in layer_pairs if consumer == name]
            on_output(model, name, partial(self._add, layer=name, groups=groups, is_conv=isinstance(module, CONV)))

    def begin(self, batch: Batch) -> None:
        super().begin(batch)
        self._means.clear()
        for classes in self._classes.values():
            classes.begin(batch.index)

    def _add(self, y: Tensor, *, layer: str, groups: list[FilterGroup], is_conv: bool) -> None:
        """Store a layer's spatial means, and add their products with the responses of each group it consumes."""
        mean = y.flatten(2).mean(2) if is_conv else y if y.ndim == 2 else y.flatten(1, -2).mean(1)
        self._means[layer] = second = mean.to(torch.float64, copy=True)
        for group in groups:
            if (first := self._response(group, layer)) is None:
                continue
            for kind, classes in self._classes.items():
                sums, key = self._pairs[kind], (group.name, layer)
                if key not in sums:
                    sums[key] = PairSums(first, second, classes=classes)
                sums[key].add(first, second)

    def _response(self, group: FilterGroup, consumer: str) -> Tensor | None:
        """Return the (N, C) response of each filter at a consumer: the sum over the layers that feed the consumer."""
        total = None
        for layer in group.feeds.get(consumer, ()):
            for k, (positions, filters) in enumerate(produced(group, layer) if layer in self._means else ()):
                key, mean = (group.name, layer, k), self._means[layer]
                if key not in self._selections:
                    index = None if in_order(filters, group.filters) else filters.to(mean.device, non_blocking=True)
                    self._selections[key] = Selection(positions), index
                selection, index = self._selections[key]
                response = selection.select(mean)
                if index is not None:
                    response = response.new_zeros(len(response), group.filters).index_add_(1, index, response)
                total = response if total is None else total + response
        return total

    def sums(self) -> Any:
        return {kind: {key: pair.result() for key, pair in pairs.items()} for kind, pairs in self._pairs.items()}

    def result(self, sums: Any) -> dict[str, Any]:
        return sums


class Sorted(NamedTuple):
    """Rows sorted by class: the `order` of the rows, and where each of the `present` classes starts and ends.

    The tensors are on the device of the pass; `spans` holds (class, start, end) as numbers.
    """

    labels: Tensor
    order: Tensor
    counts: Tensor
    present: Tensor
    starts: Tensor
    ends: Tensor
    spans: list[list[int]]


class Classes:
    """The classes of the images, sorted on the CPU once for all pairs of layers.

    Args:
        labels: the class of each image of the domain, on the CPU; None puts all images into one class.
        count: number of classes.
    """

    def __init__(self, labels: Tensor | None, count: int) -> None:
        self.count, self.batch = count, -1
        self._labels, self._batches, self._sorted = labels, list[Tensor](), dict[tuple[int, ...], Sorted]()

    def begin(self, rows: Tensor) -> None:
        """Begin a batch with these images."""
        self.batch += 1
        self._batches.append(torch.zeros_like(rows) if self._labels is None else self._labels[rows])
        self._sorted.clear()

    def sorted(self, batches: Sequence[int], device: torch.device) -> Sorted:
        """Return the images of several batches, concatenated and sorted by class."""
        key = tuple(batches)
        if key not in self._sorted:
            labels = torch.cat([self._batches[number] for number in batches])
            order, counts = labels.argsort(stable=True), torch.bincount(labels, minlength=self.count)
            present = counts.nonzero().flatten()
            ends = counts.cumsum(0)[present]
            starts = ends - counts[present]
            parts = labels, order, counts, present, starts, ends
            packed = torch.cat(parts).to(device, non_blocking=True)
            tensors = zip(Sorted._fields, packed.split([len(part) for part in parts]), strict=False)
            self._sorted[key] = Sorted(**dict(tensors), spans=torch.stack([present, starts, ends], 1).tolist())
        return self._sorted[key]


class PairSums:
    """The running CoMoments of two layers.

    Images come in random order, so pairing each image with the previous one of its class, even of an earlier batch, is
    random pairing. For each class, `_last` holds the first layer's response to the latest image and `_earliest` the
    second layer's response to the earliest image; these two are paired at the end.
    """

    def __init__(self, first: Tensor, second: Tensor, *, classes: Classes) -> None:
        widths, count = (first.shape[1], second.shape[1]), classes.count
        shuffled = [min(width, _SHUFFLED) for width in widths]
        self._classes = classes
        self._images = torch.zeros(count, dtype=torch.int64, device=first.device)
        self._first, self._second = (first.new_zeros(count, 2, width) for width in widths)
        self._cross, self._shuffled = first.new_zeros(count, *widths), first.new_zeros(count, *shuffled)
        self._last, self._earliest = (first.new_zeros(count, width) for width in shuffled)
        self._waiting: list[tuple[Tensor, Tensor, int]] = []

    def add(self, first: Tensor, second: Tensor) -> None:
        """Add the responses of one batch, (N, A) and (N, B)."""
        self._waiting.append((first, second, self._classes.batch))
        # Few rows cost as much as many, since the whole table is read and written.
        if sum(len(first) for first, *_ in self._waiting) >= _ROWS:
            self._flush()

    def result(self) -> CoMoments:
        """Return the sums."""
        self._flush()
        shuffled = self._shuffled + self._last[:, :, None] * self._earliest[:, None]
        return CoMoments(self._images, self._first.movedim(1, 0), self._second.movedim(1, 0), self._cross, shuffled)

    def _flush(self) -> None:
        if not self._waiting:
            return
        firsts, seconds, batches = zip(*self._waiting, strict=True)
        first, second = torch.cat(firsts), torch.cat(seconds)
        self._waiting.clear()
        rows = self._classes.sorted(batches, first.device)
        for table, values in ((self._first, first), (self._second, second)):
            table.index_add_(0, rows.labels, torch.stack([values, values.square()], 1))
        self._add_sorted(first[rows.order], second[rows.order], rows)

    def _add_sorted(self, x: Tensor, y: Tensor, rows: Sorted) -> None:
        """Add the products of responses that are sorted by class."""
        present, starts = rows.present, rows.starts
        narrow_x, narrow_y = x[:, :_SHUFFLED], y[:, :_SHUFFLED]
        previous = narrow_x.roll(1, 0)
        previous[starts] = self._last[present]
        self._last[present] = narrow_x[rows.ends - 1]
        is_new = (self._images[present] == 0)[:, None]
        self._earliest[present] = torch.where(is_new, narrow_y[starts], self._earliest[present])
        self._images += rows.counts
        for k, start, end in rows.spans:
            self._cross[k].addmm_(x[start:end].T, y[start:end])
            self._shuffled[k].addmm_(previous[start:end].T, narrow_y[start:end])


def too_large(model: nn.Module, pairs: Sequence[tuple[FilterGroup, str]], *, tables: int) -> str | None:
    """Return why co-moments of these pairs, with this many tables per pair, are refused; None within the size limit."""
    size = sum(8 * tables * group.filters * output_count(model.get_submodule(layer)) for group, layer in pairs)
    if size <= CO_MOMENT_BYTES:
        return None
    scope = f"over {tables} classes" if tables > 1 else "over all classes together"
    advice = "take them over all classes together (by_class=False), or a smaller" if tables > 1 else "take a smaller"
    return (
        f"the co-moments of {len(pairs)} pairs of layers {scope} would take {size / 2**20:,.0f} MB, more than "
        f"{CO_MOMENT_BYTES // 2**20} MB; {advice} network."
    )


def pairs(model: nn.Module, graph: FilterGraph) -> list[tuple[FilterGroup, str]]:
    """Return (group, consumer) for each layer that consumes a group and mixes its filters, in the order of execution.

    `FilterGroup.feeds` lists the layers that feed a consumer; a filter's response there is the sum of their raw
    outputs. After a residual addition these are all summands; after a depthwise convolution, only that convolution.
    A concatenation feeds several groups to one consumer, which makes a pair with each of them. Grouped convolutions,
    which mix each filter into only some of their outputs, make no pair.
    """
    order = {weight.rpartition(".")[0]: k for k, weight in enumerate(graph.uses)}
    unsorted = [
        (group, layer)
        for group in graph.groups
        for layer in group.consumers
        if group.feeds.get(layer) and getattr(model.get_submodule(layer), "groups", 1) == 1 and layer in order
    ]
    return sorted(unsorted, key=lambda pair: (order[pair[1]], pair[0].depth))
