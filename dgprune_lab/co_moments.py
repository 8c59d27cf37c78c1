"""Co-moments of two layers as running sums, class by class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .types.statistics import CoMoments

_SHUFFLED = 64


class ByClass(NamedTuple):
    """The rows of a batch, class by class.

    Attributes:
        labels: (N,) the class of each row.
        counts: (K,) rows of each class.
        order: (N,) row numbers sorted by class, else in their order.
        present: (P,) classes that have a row.
        starts, ends: (P,) places in `order` of the first and the last row of these.
    """

    labels: Tensor
    counts: Tensor
    order: Tensor
    present: Tensor
    starts: Tensor
    ends: Tensor


def by_class(labels: Tensor, *, classes: int) -> ByClass:
    """The rows of a batch with these labels, (N,) below `classes`, class by class."""
    counts = torch.bincount(labels, minlength=classes)
    present = counts.nonzero().flatten()
    ends = counts.cumsum(0)[present] - 1
    return ByClass(labels, counts, labels.argsort(stable=True), present, ends + 1 - counts[present], ends)


class PairSums:
    """The running CoMoments of two layers.

    Images lie in a random order, so each with the one before it of its class, across batches too, is a random pairing.
    `_last` holds, per class, the first layer's response to the latest image and `_earliest` the second's to the
    earliest, which close the circle at the end.
    """

    def __init__(self, first: Tensor, second: Tensor, *, classes: int) -> None:
        wide = first.shape[1], second.shape[1]
        few = [min(width, _SHUFFLED) for width in wide]
        self._images = torch.zeros(classes, dtype=torch.int64, device=first.device)
        self._first, self._second = (first.new_zeros(classes, 2, width) for width in wide)
        self._cross, self._shuffled = first.new_zeros(classes, *wide), first.new_zeros(classes, *few)
        self._last, self._earliest = (first.new_zeros(classes, width) for width in few)

    def add(self, first: Tensor, second: Tensor, rows: ByClass) -> None:
        """The responses of one batch, (N, A) and (N, B)."""
        for table, y in ((self._first, first), (self._second, second)):
            table.index_add_(0, rows.labels, torch.stack([y, y.square()], 1))
        x, y = first[rows.order], second[rows.order]
        few, later = x[:, :_SHUFFLED], y[:, :_SHUFFLED]
        before = few.roll(1, 0)
        before[rows.starts] = self._last[rows.present]
        self._last[rows.present] = few[rows.ends]
        new = self._images[rows.present] == 0
        self._earliest[rows.present[new]] = later[rows.starts[new]]
        self._images += rows.counts
        for k, start, end in zip(rows.present.tolist(), rows.starts.tolist(), (rows.ends + 1).tolist(), strict=True):
            self._cross[k].addmm_(x[start:end].T, y[start:end])
            self._shuffled[k].addmm_(before[start:end].T, later[start:end])

    def result(self) -> CoMoments:
        """The sums, on the CPU."""
        shuffled = self._shuffled + self._last[:, :, None] * self._earliest[:, None]
        sums = self._images, self._first.movedim(1, 0), self._second.movedim(1, 0), self._cross, shuffled
        return CoMoments(*(part.cpu() for part in sums))
