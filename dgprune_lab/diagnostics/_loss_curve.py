"""The loss against the share of weights kept, and the smallest share whose loss is within a tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..core import DgpruneError, note
from ..stats import Floats, intervals

Measure = Callable[[float, float], Generator[object, None, Tensor]]
_HUGE, _LARGEST = 1e12, 1e30  # a sum of larger numbers could overflow float32
_MOST = 10_000
_TAIL = (1 - intervals.LEVEL) / 2


class ReadOff(NamedTuple):
    """The shares at which the loss is within a limit; NaN if there are none.

    Attributes:
        smallest: the smallest share whose loss is within the limit.
        contiguous_end: the lower end of the unbroken range of such shares that begins at the largest measured share.
        monotone: whether `smallest` and `contiguous_end` agree.
        isolated_feasible: (low, high) of every further range of such shares, below a share whose loss is too large.
    """

    smallest: float
    contiguous_end: float
    monotone: bool
    isolated_feasible: tuple[tuple[float, float], ...]


def read_off(fractions: Sequence[float], losses: Sequence[float], *, limit: float) -> ReadOff:
    """Find the shares of weights whose loss is at most `limit`; only measured points are used, none interpolated.

    A loss that is NaN or infinite counts as above the limit.

    Args:
        fractions: shares of the weights that are kept, in any order.
        losses: the loss at each share.
        limit: the largest loss that is allowed.

    >>> read_off([1.0, 0.75, 0.5, 0.25], [1.0, 1.0, 2.0, 1.0], limit=1.1)
    ReadOff(smallest=0.25, contiguous_end=0.75, monotone=False, isolated_feasible=((0.25, 0.25),))
    """
    points = sorted(zip(fractions, losses, strict=True), reverse=True)
    ranges: list[tuple[float, float]] = []
    for feasible, run in groupby(points, key=lambda point: math.isfinite(point[1]) and point[1] <= limit):
        shares = [share for share, _ in run]
        ranges += [(shares[-1], shares[0])] if feasible else []
    if not ranges:
        return ReadOff(smallest=math.nan, contiguous_end=math.nan, monotone=True, isolated_feasible=())
    smallest, from_full = ranges[-1][0], ranges[0][1] == points[0][0]
    end = ranges[0][0] if from_full else math.nan
    isolated = tuple(ranges[1:] if from_full else ranges)
    return ReadOff(smallest=smallest, contiguous_end=end, monotone=smallest == end, isolated_feasible=isolated)


def grid_of(step: float) -> tuple[float, ...]:
    """Return the shares 1, 1 - step, 1 - 2 step, ... down to the last one above 0.

    Raises:
        DgpruneError: a step outside (0, 0.5], or one that makes more than 10,000 shares.
    """
    if not (math.isfinite(step) and 0 < step <= 0.5):
        raise DgpruneError(f"step must lie in (0, 0.5], 0.01 is a hundred shares; got {step!r}.")
    count = math.floor(1 / step + 1e-9)
    if count > _MOST:
        raise DgpruneError(
            f"step={step:g} would make a grid of {count:,} shares, each measured on all images; at most {_MOST:,} are "
            "possible. A step of 0.01 makes a hundred."
        )
    shares = (round(1 - k * step, 10) for k in range(count + 1))
    return tuple(share for share in shares if share > 1e-9)


def tolerances_of(tolerance: float | Sequence[float]) -> list[float]:
    """Return one or several tolerances as a list without repetitions; a note warns if one is above 1.

    Raises:
        DgpruneError: no tolerance.
    """
    tolerances = list(dict.fromkeys([tolerance] if isinstance(tolerance, float | int) else tolerance))
    if not tolerances:
        raise DgpruneError("prunability needs at least one tolerance, above 0: 0.1 lets the loss grow by a tenth.")
    if (largest := max(tolerances)) > 1:
        note(f"tolerance={largest:g} lets the loss grow to {1 + largest:g} times; 0.1 lets it grow by a tenth.")
    return tolerances


def check_full_loss(loss: float, *, name: str) -> None:
    """Refuse a full network's loss that is 0 or not finite: no tolerance can be relative to it."""
    if loss == 0 or not math.isfinite(loss):
        raise DgpruneError(
            f"the training loss of {name!r} is {loss:g}, so a tolerance relative to it has no meaning. Use more "
            "images, or a network stopped at a loss above 0."
        )


class LossCurve:
    """Losses per image at the shares of a grid; each share is measured once, when it is first needed.

    Args:
        measure: generator function of the share kept and of a limit on the sum of the losses; yields between batches
            and returns the losses (N,). It may stop as soon as their sum exceeds the limit.
        step: distance between neighbouring shares of the grid.
        name: name of the network, for error messages.
        removed: function of the share kept that returns the share actually removed, if known.
        refuse: the largest tolerance of interest; a share whose loss is above it is refused as soon as that is known.
            None: the loss of every image is measured at every share, which intervals need.

    Attributes:
        grid: the shares, from 1 down.
        losses: share -> (N,) float64, in the order of measurement; infinite for a refused share.
        refused: the shares known only to have a loss above the limit.
    """

    def __init__(
        self,
        measure: Measure,
        *,
        step: float,
        name: str,
        removed: Callable[[float], float] | None = None,
        refuse: float | None = None,
    ) -> None:
        self.grid, self.name, self.removed = grid_of(step), name, removed
        self.losses: dict[float, Floats] = {}
        self.refused: set[float] = set()
        self._measure, self.refuse = measure, refuse
        self._searched: dict[float, set[float]] = {}

    @property
    def full(self) -> float:
        """The mean loss of the full network; it must have been measured."""
        return self.mean(1.0)

    @property
    def broken(self) -> list[float]:
        """Shares at which the loss is known to be not finite."""
        return [share for share in self.losses if share not in self.refused and not math.isfinite(self.mean(share))]

    @property
    def points(self) -> tuple[list[float], list[float]]:
        """The measured shares from 1 down, and the mean loss at each."""
        shares = sorted(self.losses, reverse=True)
        return shares, [self.mean(share) for share in shares]

    def mean(self, share: float) -> float:
        """Return the mean loss at a measured share."""
        return float(self.losses[share].mean())

    def at(self, share: float) -> Generator[object, None, float]:
        """Return the mean loss at a share, measured first if necessary; infinite if the share is refused.

        Raises:
            DgpruneError: the loss of the full network is 0 or not finite.
        """
        if share not in self.losses:
            losses = (yield from self._measure(share, self._largest_sum(share))).double().numpy()
            count = len(self.losses.get(1.0, losses))
            if len(losses) < count:
                self.refused.add(share)
                losses = np.full(count, np.inf)
            self.losses[share] = losses
            yield
            if share == 1.0:
                check_full_loss(self.full, name=self.name)
        return self.mean(share)

    def _largest_sum(self, share: float) -> float:
        """Return the largest sum of losses at which a share is not refused, with a margin for rounding."""
        if self.refuse is None or share == 1.0:
            return math.inf
        return (1 + self.refuse) * self.full * len(self.losses[1.0]) * (1 + 1e-9)

    def bracket(self, tolerance: float) -> Generator[object, None, None]:
        """Measure the shares that locate the lower end of the unbroken range of feasible shares that begins at 1.

        A share is feasible if its loss is within the tolerance. The shares 1, 2, 4, ... steps below 1 are tried from
        the largest down, and the range between the last feasible and the first infeasible one is bisected. Where shares
        are refused early, small ones cost few images: there, unless the smallest is feasible, the shares are tried from
        the smallest up. If the loss only grows towards small shares, either order ends where the full grid does.
        Skipped shares are not measured: infeasible ones within the range and feasible ones below it go unnoticed.
        """
        self._searched[tolerance] = {1.0}
        yield from self.at(1.0)
        last = len(self.grid) - 1
        indices = [*(1 << k for k in range(last.bit_length()) if 1 << k < last), last]
        upwards = self.refuse is not None and not (yield from self._is_feasible(last, tolerance))
        inside, outside = 0, None
        for index in reversed(indices) if upwards else indices:
            feasible = yield from self._is_feasible(index, tolerance)
            inside, outside = (index, outside) if feasible else (inside, index)
            if feasible == upwards:
                break
        while outside is not None and outside - inside > 1:
            index = (inside + outside) // 2
            feasible = yield from self._is_feasible(index, tolerance)
            inside, outside = (index, outside) if feasible else (inside, index)

    def _is_feasible(self, index: int, tolerance: float) -> Generator[object, None, bool]:
        share = self.grid[index]
        self._searched[tolerance].add(share)
        return (yield from self.at(share)) <= (1 + tolerance) * self.full

    def fill(self) -> Generator[object, None, None]:
        """Measure every share of the grid."""
        for share in self.grid:
            yield from self.at(share)

    def shares_of(self, tolerance: float) -> list[float]:
        """Return the measured shares, from 1 down, that decide the result for a tolerance: those of its own search, so
        that other tolerances do not affect it; all if there was no such search or the grid is complete.
        """
        shares, _ = self.points
        searched = self._searched.get(tolerance)
        return shares if searched is None or len(shares) == len(self.grid) else sorted(searched, reverse=True)

    def read(self, tolerance: float) -> ReadOff:
        """Return which of `shares_of(tolerance)` have a loss of at most (1 + tolerance) times the full network's."""
        shares = self.shares_of(tolerance)
        return read_off(shares, list(map(self.mean, shares)), limit=(1 + tolerance) * self.full)

    def intervals(self) -> dict[float, tuple[float, float]]:
        """Return share -> 95 % bootstrap interval, over images, of its mean loss; none for losses of 1e30 or more."""
        known = [share for share, losses in self.losses.items() if losses.max() < _LARGEST]
        if not known:
            return {}
        low, high = intervals.over_images(np.stack([self.losses[share] for share in known], axis=1))
        return {share: (float(low[k]), float(high[k])) for k, share in enumerate(known)}

    def resampled(self, tolerances: Sequence[float], *, smallest: bool) -> list[tuple[float, float]]:
        """Return for each tolerance the 95 % bootstrap interval, over images, of the share read off the curve.

        Images are resampled 1,000 times; each time the loss of the full network, the limit and the share (`smallest`,
        or else `contiguous_end`) are computed again from `shares_of` the tolerance.
        """
        measured, _ = self.points
        finite = [share for share in measured if share not in self.broken]
        relative = np.stack([self.losses[share] for share in finite], axis=1) / self.full
        means = intervals.resampled_means(np.minimum(relative, _HUGE))
        ends = []
        for tolerance in tolerances:
            shares = self.shares_of(tolerance)
            feasible = np.zeros((len(means), len(shares)), dtype=bool)
            usable = [share for share in finite if share in shares]
            columns = means[:, [finite.index(share) for share in usable]]
            feasible[:, [shares.index(share) for share in usable]] = columns <= (1 + tolerance) * means[:, :1]
            if not smallest:
                feasible = np.logical_and.accumulate(feasible, axis=1)
            last = len(shares) - 1 - feasible[:, ::-1].argmax(axis=1)
            low, high = np.quantile(np.asarray(shares)[last], [_TAIL, 1 - _TAIL], method="inverted_cdf")
            ends.append((float(low), float(high)))
        return ends
