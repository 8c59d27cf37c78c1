"""A loss along the share kept: points measured one by one, searched, and read off with intervals over images."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..core import DgpruneError
from ..stats import intervals

Floats = NDArray[np.float64]
Measure = Callable[[float], Generator[None, None, Tensor]]
_HUGE, _LARGEST = 1e12, 1e30  # a sum of larger numbers could leave float32
_TAIL = (1 - intervals.LEVEL) / 2


class ReadOff(NamedTuple):
    """What a curve says at one limit; NaN where nothing is feasible.

    Attributes:
        smallest: the smallest share whose loss is within the limit.
        contiguous: the lower end of the stretch of shares within the limit that begins at the largest share.
        monotone: whether the two agree.
        islands: (low, high) of every stretch within the limit below the first one.
    """

    smallest: float
    contiguous: float
    monotone: bool
    islands: tuple[tuple[float, float], ...]


def read_off(fractions: Sequence[float], losses: Sequence[float], limit: float) -> ReadOff:
    """Where a curve is within a limit, from its points alone: nothing is taken for granted between two of them.

    A loss that is not finite is not within any limit.

    Args:
        fractions: shares kept, in any order.
        losses: a loss for each.
        limit: the largest loss that is allowed.

    >>> read_off([1.0, 0.75, 0.5, 0.25], [1.0, 1.0, 2.0, 1.0], limit=1.1)
    ReadOff(smallest=0.25, contiguous=0.75, monotone=False, islands=((0.25, 0.25),))
    """
    stretches: list[tuple[float, float]] = []
    open_before = False
    points = sorted(zip(fractions, losses, strict=True), reverse=True)
    for k, (fraction, loss) in enumerate(points):
        inside = math.isfinite(loss) and loss <= limit
        if inside and open_before:
            stretches[-1] = (fraction, stretches[-1][1])
        elif inside:
            stretches.append((fraction, fraction))
        elif not k:
            stretches.append((math.nan, math.nan))  # the first stretch is empty; what follows are islands
        open_before = inside
    found = [low for low, _ in stretches if not math.isnan(low)]
    if not found:
        return ReadOff(math.nan, math.nan, True, ())
    smallest, contiguous = min(found), stretches[0][0]
    return ReadOff(smallest, contiguous, smallest == contiguous, tuple(stretches[1:]))


def grid_of(step: float) -> tuple[float, ...]:
    """The shares 1, 1 - step, ... above 0.

    Raises:
        DgpruneError: a step outside (0, 0.5].
    """
    if not (math.isfinite(step) and 0 < step <= 0.5):
        raise DgpruneError(f"step must lie in (0, 0.5], 0.01 is a hundred shares; got {step!r}.")
    count = math.floor(1 / step + 1e-9)
    shares = (round(1 - k * step, 10) for k in range(count + 1))
    return tuple(share for share in shares if share > 1e-9)


class LossCurve:
    """Losses per image at shares of a grid; a share is measured once, when somebody asks for it.

    Args:
        measure: share kept -> (N,) losses, by steps that yield.
        step: of the grid.
        name: of the network, for errors.
        removed: share kept -> the share that really is removed, where that is known.

    Attributes:
        grid: the shares, from 1 down.
        losses: share -> (N,) float64, in the order in which they were measured.
    """

    def __init__(
        self, measure: Measure, *, step: float, name: str, removed: Callable[[float], float] | None = None
    ) -> None:
        self.grid, self.name, self.removed = grid_of(step), name, removed
        self.losses: dict[float, Floats] = {}
        self._measure = measure

    @property
    def full(self) -> float:
        """The mean loss of the whole network, once it is measured."""
        return self.mean(1.0)

    @property
    def broken(self) -> list[float]:
        """Shares at which the loss is not finite."""
        return [share for share in self.losses if not math.isfinite(self.mean(share))]

    @property
    def points(self) -> tuple[list[float], list[float]]:
        """Measured shares from 1 down, and their mean losses."""
        shares = sorted(self.losses, reverse=True)
        return shares, [self.mean(share) for share in shares]

    def mean(self, share: float) -> float:
        """Mean loss at a measured share."""
        return float(self.losses[share].mean())

    def at(self, share: float) -> Generator[None, None, float]:
        """The mean loss at a share, measured now if it is not known.

        Raises:
            DgpruneError: the loss of the whole network is 0 or not finite.
        """
        if share not in self.losses:
            found = yield from self._measure(share)
            self.losses[share] = found.double().numpy()
            yield
            if share == 1.0:
                self._check_full()
        return self.mean(share)

    def bracket(self, tolerance: float) -> Generator[None, None, None]:
        """Find the end of the contiguous stretch: down from 1 by steps that double, then halving the last one.

        On a curve that only rises towards small shares this is the end that the whole grid has. What was stepped over
        is not looked at: neither a hump within the stretch nor an island below it.
        """
        limit = (1 + tolerance) * (yield from self.at(1.0))
        inside, outside, step = 0, None, 1
        while outside is None and inside < len(self.grid) - 1:
            place = min(step, len(self.grid) - 1)
            inside, outside = (place, None) if (yield from self.at(self.grid[place])) <= limit else (inside, place)
            step *= 2
        while outside is not None and outside - inside > 1:
            place = (inside + outside) // 2
            if (yield from self.at(self.grid[place])) <= limit:
                inside = place
            else:
                outside = place

    def fill(self) -> Generator[None, None, None]:
        """Measure every share of the grid."""
        for share in self.grid:
            yield from self.at(share)

    def read(self, tolerance: float) -> ReadOff:
        """The read-off at (1 + tolerance) times the loss of the whole network, from what is measured."""
        return read_off(*self.points, limit=(1 + tolerance) * self.full)

    def intervals(self) -> dict[float, tuple[float, float]]:
        """Measured share -> the 95 % bootstrap interval of its mean loss over images, where the loss is finite."""
        known = [share for share in self.losses if share not in self.broken]
        values = np.stack([self.losses[share] for share in known], axis=1)
        low, high = intervals.over_images(np.minimum(values, _LARGEST))
        return {share: (float(low[k]), float(high[k])) for k, share in enumerate(known)}

    def resampled(self, tolerances: Sequence[float], *, whole: bool) -> list[tuple[float, float]]:
        """Per tolerance, the 95 % bootstrap interval of the read-off over images.

        Images are drawn again 1,000 times; each time the loss of the whole network, the limit and the read-off (the
        smallest share if `whole`, else the contiguous one) are found anew among the shares that were measured.
        """
        shares, _ = self.points
        known = [share for share in shares if share not in self.broken]
        relative = np.stack([self.losses[share] for share in known], axis=1) / self.full
        means = intervals.resampled_means(np.minimum(relative, _HUGE))
        places = np.full(len(shares), -1)
        places[[shares.index(share) for share in known]] = np.arange(len(known))
        found = []
        for tolerance in tolerances:
            inside = np.zeros((len(means), len(shares)), dtype=bool)
            inside[:, places >= 0] = means <= (1 + tolerance) * means[:, :1]
            if not whole:
                inside = np.logical_and.accumulate(inside, axis=1)
            last = len(shares) - 1 - inside[:, ::-1].argmax(axis=1)
            low, high = np.quantile(np.asarray(shares)[last], [_TAIL, 1 - _TAIL], method="inverted_cdf")
            found.append((float(low), float(high)))
        return found

    def _check_full(self) -> None:
        if self.full == 0:
            raise DgpruneError(
                f"the training loss of {self.name!r} is 0 to the last digit, so a tolerance relative to it allows "
                "nothing. Use more images, or a network stopped at a loss above 0."
            )
        if not math.isfinite(self.full):
            raise DgpruneError(f"the training loss of {self.name!r} is {self.full}; check the network's weights.")
