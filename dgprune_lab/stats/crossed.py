"""The difference of two repeated measurements on the same images, with an interval over images and repeats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import intervals


def crossed_difference(
    first: NDArray[np.float64], second: NDArray[np.float64], *, seed: int = 0
) -> tuple[float, float, float]:
    """Estimate mean(first) - mean(second) with a 95 % interval over images and repeats.

    Rows are repeats (draws of a random scorer; one row where nothing is random), columns are images, the same in
    both. A resample draws images once for both, and the repeats of each independently, with replacement (the pigeonhole
    bootstrap of Owen 2007, Annals of Applied Statistics 1, section 4). With one row in each it is the paired bootstrap
    of `intervals.difference`. Repeats in one row only add no variance of their own.

    Args:
        first, second: (D, N) and (E, N) of 0 and 1.
        seed: of the resamples.

    Returns:
        difference, low, high.
    """
    value = float(first.mean() - second.mean())
    if len(first) == len(second) == 1:
        return value, *intervals.difference(first[0], second[0])
    generator, count = np.random.default_rng(seed), first.shape[1]
    weights = generator.multinomial(count, np.full(count, 1 / count), size=intervals.RESAMPLES) / count  # (R, N)
    means = [_resampled(rows, weights, generator) for rows in (first, second)]
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    return value, float(low), float(high)


def _resampled(
    rows: NDArray[np.float64], weights: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """(R,) means over resampled images (`weights`) and resampled rows."""
    by_row = weights @ rows.T  # (R, D)
    draws = generator.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=len(weights)) / len(rows)
    return (by_row * draws).sum(1)
