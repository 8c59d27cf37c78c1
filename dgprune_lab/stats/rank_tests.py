"""How well a filter's number per image separates two domains, class by class: AUROC, p and q values."""

from __future__ import annotations

import numpy as np

from ..core import public
from .effect_sizes import BYTES, Labels, encode_labels
from .intervals import LEVEL, Estimate, Floats


@public
def auroc(first: Floats, second: Floats, *, labels: Labels) -> Estimate:
    """Estimate how often, among pairs of one class, the second domain's image has the larger number: .5 is chance.

    A = mean over classes k of P(second > first) + P(second = first) / 2 within the class, over the classes that
    `matched_d` uses, each with the same weight. The 95 % interval holds every theta with |A - theta| <= z
    sqrt(V(theta)); V = sum_k V_k / K^2 is the variance of a mean over classes, with Hanley and McNeil's (1982,
    Radiology 143) variance
    V_k(theta) = c_k theta (1 - theta) (1 + h (1 - theta) / (2 - theta) + h theta / (1 + theta)) / (n_1 n_2) and
    h = (n_1 + n_2) / 2 - 1: method 5 of Newcombe 2006 (Stat. Med. 25:559), which is for one class. So fully separated
    domains have an interval, too. The factor c_k is ours: the variance of the ranks divided by that of ranks without
    ties. Without it, the intervals of numbers that are mostly 0 are twice too wide; with it, the interval covers .5
    exactly where `p_values` is above .05.

    Measured with and without a difference, for 1 and 10 classes of 3 to 50 images in each domain: 93.6 to 97.5 % of the
    intervals cover the true value, 99.8 % where one domain has 8 images of a class, the other 40, and most numbers are
    0.

    Args:
        first: (N, C), a row per image of the first domain, a column per filter.
        second: (M, C), a row per image of the second domain; no image may be in both domains.
        labels: (N,) and (M,) class of each image.

    Returns:
        A and the two ends of its interval, (C,) each, 0 to 1; the ends are NaN where all images of each class have the
        same number (value .5).

    Raises:
        DgpruneError: as in `cohens_d`.
    """
    from scipy.special import ndtri

    area, plain, extra = _areas(first, second, labels)
    z = ndtri((1 + LEVEL) / 2)

    ends = []
    for outer in (np.zeros_like(area), np.ones_like(area)):
        inner = area.copy()
        for _ in range(60):
            middle = (inner + outer) / 2
            outside = np.abs(area - middle) > z * np.sqrt(_variance(middle, plain, extra))
            inner, outer = np.where(outside, inner, middle), np.where(outside, middle, outer)
        ends.append(np.where(plain > 0, outer, np.nan))
    return Estimate(area, *ends)


@public
def p_values(first: Floats, second: Floats, *, labels: Labels) -> Floats:
    """Return for each filter the two-sided p-value of `auroc` = .5: (C,); 1 where all images of each class are equal.

    z = (A - .5) / sqrt(sum_k V_k / K^2), V_k = (n + 1) / (12 n_1 n_2) corrected for ties, by the normal approximation:
    the stratified rank test of van Elteren 1960, but with equal weights for the classes, as in `auroc`. One class of a
    few images is too small for the approximation.

    Args and errors: those of `auroc`.
    """
    from scipy.special import ndtr

    area, plain, extra = _areas(first, second, labels)
    variance = _variance(np.full_like(area, 0.5), plain, extra)
    return 2 * ndtr(-np.abs(area - 0.5) / np.sqrt(np.where(variance > 0, variance, 1)))


@public
def q_values(p: Floats) -> Floats:
    """Return p-values adjusted so that, of the filters with q <= .05, at most 5 % are expected to be false discoveries.

    With the m p-values sorted ascending, q_(i) is the least of p_(j) m / j over j >= i (Benjamini and Hochberg 1995,
    J. R. Stat. Soc. B 57; it holds under the positive dependence that filters of one layer may have). NaN stays and is
    not counted.

    Args:
        p: (C,) p-values.

    >>> q_values(np.array([0.01, np.nan, 0.04, 0.03])).round(6).tolist()
    [0.03, nan, 0.04, 0.04]
    """
    from scipy.stats import false_discovery_control

    adjusted, known = np.full(p.shape, np.nan), ~np.isnan(p)
    if known.any():
        adjusted[known] = false_discovery_control(p[known], method="bh")
    return adjusted


def _areas(first: Floats, second: Floats, labels: Labels) -> tuple[Floats, Floats, Floats]:
    """Return the mean AUROC, and the two weights of `_variance`, (C,) each."""
    from scipy.stats import rankdata

    codes, _, shared = encode_labels(first, second, labels)
    area, plain, extra = np.zeros((3, first.shape[1]))
    for k in shared.tolist():
        rows, others = (np.flatnonzero(code == k) for code in codes)
        n, m = len(rows), len(others)
        width, total = max(1, BYTES // (10 * 8 * (n + m))), n + m
        for start in range(0, len(area), width):
            block = slice(start, start + width)
            ranks = rankdata(np.concatenate([first[rows, block], second[others, block]]), axis=0)
            area[block] += (ranks[n:].sum(0) / m - (m + 1) / 2) / n
            ties = ((ranks - (total + 1) / 2) ** 2).sum(0) * 12 / (total**3 - total)
            plain[block] += ties / (n * m)
            extra[block] += ties / (n * m) * (total / 2 - 1)
    return area / len(shared), plain / len(shared) ** 2, extra / len(shared) ** 2


def _variance(theta: Floats, plain: Floats, extra: Floats) -> Floats:
    """Return Hanley and McNeil's variance of the mean AUROC over classes; at .5, that of the rank test with ties."""
    inner = (1 - theta) / (2 - theta) + theta / (1 + theta)
    return theta * (1 - theta) * (plain + extra * inner)
