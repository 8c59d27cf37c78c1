"""Means over pairs and quadruples of different images: the value from all images, its interval from halves of them.

A bootstrap draws some images twice, and a pair of equal images has a distance of 0 (or a product that is a square),
which no new sample would contain; a half contains each of its images once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core import seed as seeded
from .features import Ids, estimate
from .intervals import LEVEL, Estimate, Floats

HALVES = 200


class Draws(NamedTuple):
    """The images of each draw (all in the first draw, halves in the others), and the pairs that are left out.

    first is (1 + HALVES, N) and second (1 + HALVES, M): 1 where the draw holds the image, else 0. Row shared[0][k]
    and column shared[1][k] of an (N, M) table show the same image; such a pair is left out.
    """

    first: Floats
    second: Floats
    shared: tuple[NDArray[np.intp], NDArray[np.intp]]


def draws(ids: tuple[Ids, Ids], *, seed: int) -> Draws:
    """Return draws from two domains: first all images, then random halves of each, without replacement.

    A half consists of the images whose ids have the smallest random numbers, so that domains with the same images are
    divided in the same way, and domains that share none are divided independently.

    Args:
        ids: (N,) and (M,), the image that each row shows; none twice in one domain.
        seed: random seed of the halves.
    """
    images, image = np.unique(np.concatenate(ids), return_inverse=True)
    order = np.random.default_rng(seeded("halves", seed)).random((HALVES, len(images)))
    first, second = (_halves(order[:, columns]) for columns in np.split(image, [len(ids[0])]))
    _, rows, columns = np.intersect1d(*ids, assume_unique=True, return_indices=True)
    return Draws(first, second, (rows, columns))


def within(weights: Floats) -> Draws:
    """Return the draws for comparing one domain with itself, without the pairs of an image with itself."""
    images = np.arange(weights.shape[1])
    return Draws(weights, weights, (images, images))


def mean_of_pairs(table: Floats, draw: Draws) -> Floats:
    """Return the mean of an (N, M) table over pairs of different images, (1 + HALVES,); zeroes the other entries."""
    w, v, (p, q) = draw
    table[p, q] = 0
    return ((w @ table) * v).sum(1) / (w.sum(1) * v.sum(1) - (w[:, p] * v[:, q]).sum(1))


def co_moment(a: Floats, b: Floats, draw: Draws) -> Floats:
    """Return the mean of (a_ij - a_il - a_kj + a_kl) (b_ij - b_il - b_kj + b_kl) / 4 of each draw, (1 + HALVES,).

    i and k are rows, j and l columns, and all four are different images. For a = b = X Y' this is an unbiased estimate
    of tr(C_x C_y) (Li and Chen 2012), for a = X X' and b = Y Y' it is HSIC_1 (Song et al. 2012), both at the cost of a
    few matrix products: expanded, it is a sum of four means, over pairs, over triples that share a row or a column, and
    over quadruples. If only some images are shared, each mean is over the tuples of different images. Entries of an
    image with itself are set to 0; other terms that contain an image twice are subtracted.

    Args:
        a, b: (N, M), or the same array twice; from centred features, so that no large numbers cancel.
        draw: which rows and columns each draw holds.
    """
    w, v, (p, q) = draw
    a[p, q] = b[p, q] = 0
    rows_a, columns_a = w * (v @ a.T), v * (w @ a)
    rows_b, columns_b = (rows_a, columns_a) if b is a else (w * (v @ b.T), v * (w @ b))
    both = w[:, p] * v[:, q]
    pairs = ((w @ (a * b)) * v).sum(1)
    by_row, by_column = (rows_a * rows_b).sum(1), (columns_a * columns_b).sum(1)
    twice = (rows_a[:, p] * columns_b[:, q] + rows_b[:, p] * columns_a[:, q]).sum(1)
    swapped = ((both @ (a[np.ix_(p, q)] * b[np.ix_(p, q)].T)) * both).sum(1)
    fours = rows_a.sum(1) * rows_b.sum(1) - by_row - by_column + pairs - twice + swapped

    n, m, s = w.sum(1), v.sum(1), both.sum(1)  # the same sums of a table of ones count the terms
    n_pairs, n_row, n_column = n * m - s, n * m**2 - 2 * m * s + s, m * n**2 - 2 * n * s + s
    n_fours = n_pairs**2 - n_row - n_column + n_pairs - 2 * s * (n - 1) * (m - 1) + s * (s - 1)
    threes = (by_row - pairs) / (n_row - n_pairs) + (by_column - pairs) / (n_column - n_pairs)
    return pairs / n_pairs - threes + fours / n_fours


def by_halves(values: Floats) -> Estimate:
    """Return the value of the first draw with the interval that contains the values of all but 5 % of the halves.

    A delete-half jackknife (McCarthy 1969, Shao and Wu 1989): where a statistic is nearly a mean, its values on halves
    scatter about the value on all images as that value does about the truth. The values on halves are used as they are;
    mirrored about the value on all images, they covered the truth less often. Halves without a value are left out; the
    ends are NaN where the first draw or every half has no value.
    """
    halves = values[1:][np.isfinite(values[1:])]
    tail = (1 - LEVEL) / 2
    known = len(halves) and np.isfinite(values[0])
    ends = np.quantile(halves, [tail, 1 - tail]) if known else np.full(2, np.nan)
    return estimate(values[0], *ends)


def _halves(order: Floats) -> Floats:
    """Return (1 + HALVES, N): a row of ones, then for each row of `order` (HALVES, N) ones at its smallest half."""
    weights = np.zeros((1 + HALVES, order.shape[1]))
    weights[0] = 1
    np.put_along_axis(weights[1:], order.argsort(1)[:, : order.shape[1] // 2], 1, 1)
    return weights
