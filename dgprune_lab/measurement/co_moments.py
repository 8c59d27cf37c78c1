"""Co-moments of two layers as running sums, class by class."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core import CoMoments

_SHUFFLED = 64
_ROWS = 500


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
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, first: Tensor, second: Tensor, labels: Tensor) -> None:
        """The responses of one batch, (N, A) and (N, B), and the class of each image."""
        self._waiting.append((first, second, labels))
        # A few rows of a class cost as much as many: the whole table is read and written.
        if sum(len(held) for *_, held in self._waiting) >= _ROWS:
            self._flush()

    def result(self) -> CoMoments:
        """The sums, on the CPU."""
        self._flush()
        shuffled = self._shuffled + self._last[:, :, None] * self._earliest[:, None]
        sums = self._images, self._first.movedim(1, 0), self._second.movedim(1, 0), self._cross, shuffled
        return CoMoments(*(part.cpu() for part in sums))

    def _flush(self) -> None:
        if not self._waiting:
            return
        first, second, labels = (torch.cat(held) for held in zip(*self._waiting, strict=True))
        self._waiting.clear()
        for table, rows in ((self._first, first), (self._second, second)):
            table.index_add_(0, labels, torch.stack([rows, rows.square()], 1))
        order, counts = labels.argsort(stable=True), torch.bincount(labels, minlength=len(self._images))
        self._by_class(first[order], second[order], counts)

    def _by_class(self, x: Tensor, y: Tensor, counts: Tensor) -> None:
        """Add the products of rows that lie class by class, `counts` of each."""
        present = counts.nonzero().flatten()
        ends = counts.cumsum(0)[present]
        starts = ends - counts[present]
        few, later = x[:, :_SHUFFLED], y[:, :_SHUFFLED]
        before = few.roll(1, 0)
        before[starts] = self._last[present]
        self._last[present] = few[ends - 1]
        new = self._images[present] == 0
        self._earliest[present[new]] = later[starts[new]]
        self._images += counts
        for k, start, end in torch.stack([present, starts, ends], 1).tolist():
            self._cross[k].addmm_(x[start:end].T, y[start:end])
            self._shuffled[k].addmm_(before[start:end].T, later[start:end])
