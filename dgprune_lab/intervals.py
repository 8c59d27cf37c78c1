"""Intervals over images: the bootstrap, paired across everything that was measured on the same images."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95
_BYTES = 64 * 2**20


def over_images(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % percentile bootstrap intervals of the mean over images, of many measurements at once.

    Every measurement on the same number of images uses the same 1,000 seeded resamples, so a difference of two columns
    has the interval of a paired bootstrap (Efron and Tibshirani 1993, chapters 8 and 13). Where all images agree, all
    resamples do too, and a zero width would be earned by nothing: a column that is all 0, all 1 (or a difference that
    is all 0 or all -1) gets the exact binomial bound instead, 1 - (.025)^(1/N) from there (Clopper and Pearson 1934).
    Other constant columns get no interval (NaN).

    Args:
        values: (N,) or (N, K), a row per image.

    Returns:
        low and high, (K,) each (or scalars' shape for one column).
    """
    flat = values.reshape(len(values), -1)
    low, high = np.empty(flat.shape[1]), np.empty(flat.shape[1])
    constant = (flat == flat[:1]).all(0)
    moving = ~constant
    if moving.any():
        means = _means(np.ascontiguousarray(flat[:, moving], dtype=np.float32))
        tail = (1 - LEVEL) / 2 * 100
        low[moving], high[moving] = np.percentile(means, [tail, 100 - tail], axis=0)
    bound = 1 - ((1 - LEVEL) / 2) ** (1 / len(flat))
    for k in np.flatnonzero(constant):
        low[k], high[k] = _constant(float(flat[0, k]), bound)
    shape = values.shape[1:]
    return low.reshape(shape), high.reshape(shape)


def difference(after: NDArray[np.float64], before: NDArray[np.float64]) -> tuple[float, float]:
    """The interval of mean(after - before) over the same images; symmetric about 0 where no image changed."""
    gap = after.astype(np.float64) - before.astype(np.float64)
    if (gap == 0).all():
        bound = 1 - ((1 - LEVEL) / 2) ** (1 / len(gap))
        return -bound, bound
    low, high = over_images(gap)
    return float(low), float(high)


def _constant(value: float, bound: float) -> tuple[float, float]:
    if value == 1:
        return 1 - bound, 1.0
    return (value, value + bound) if value in (0, -1) else (np.nan, np.nan)


def _means(values: NDArray[np.float32]) -> NDArray[np.float32]:
    count = len(values)
    if count * RESAMPLES * 4 <= _BYTES:
        return _resamples(count) @ values / np.float32(count)
    generator = np.random.default_rng(count)
    step = max(1, _BYTES // (count * 4))
    parts = []
    for start in range(0, RESAMPLES, step):
        parts.append(_draw(generator, min(step, RESAMPLES - start), count) @ values / np.float32(count))
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def _resamples(count: int) -> NDArray[np.float32]:
    return _draw(np.random.default_rng(count), RESAMPLES, count)


def _draw(generator: np.random.Generator, resamples: int, count: int) -> NDArray[np.float32]:
    """(resamples, count): how often each image is drawn."""
    drawn = generator.integers(0, count, size=(resamples, count), dtype=np.int32)
    drawn += np.arange(resamples, dtype=np.int32)[:, None] * count
    return np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count).astype(np.float32)
