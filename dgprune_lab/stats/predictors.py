"""Does a measure order networks as an outcome does? Rank agreements over a grid of hyperparameters.

Here `measure` and `outcome` are (N,), one number per network, signed so that larger is better: predicted to generalise
better, and generalising better. A number that is not finite is missing, and its network is in no pair. `draws` is
(R, C), how often each resample draws each cell of the grid; a row of ones gives the statistic itself, so one call
returns estimate and resamples. A network is never paired with its own copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from ..core import DgpruneError
from .intervals import Floats, drawn_counts
from .rank_agreement import LEAST, weighted_ranks

Singles = NDArray[np.float32]
Whole = NDArray[np.intp]
_ZERO = 1e-9


class Grid:
    """The cells of a grid of hyperparameters: networks that agree in all of them (training seeds) share a cell.

    Attributes:
        levels: (C, H), the number of each cell's level in each hyperparameter.
        cells: (N,), the cell of each network.
        unit: (1, C), one draw of every cell.
    """

    def __init__(self, levels: Whole) -> None:
        self.levels, cells = np.unique(levels, axis=0, return_inverse=True)
        self.cells = cells.reshape(-1)
        self.unit = np.ones((1, len(self.levels)))
        self._members = (self.cells == np.arange(len(self.levels))[:, None]).astype(np.float64)

    def draws(self, resamples: int) -> Floats:
        """Return `unit`, and below it how often each of the resamples draws each cell: (1 + resamples, C)."""
        cells = len(self.levels)
        counts = drawn_counts(np.random.default_rng(cells), resamples, cells)
        return np.concatenate([self.unit, counts.astype(np.float64)])

    def between(self, pairs: Floats) -> Floats:
        """Return the sums over the networks of every two cells, (..., C, C), from a number per pair, (..., N, N)."""
        return self._members @ pairs @ self._members.T

    def codes(self, hyperparameters: Sequence[int]) -> Whole:
        """Return (C,), equal for the cells that agree in these hyperparameters."""
        if not hyperparameters:
            return np.zeros(len(self.levels), dtype=np.intp)
        return np.unique(self.levels[:, list(hyperparameters)], axis=0, return_inverse=True)[1].reshape(-1)


def kendall(measure: Floats, outcome: Floats, *, grid: Grid, draws: Floats) -> tuple[Floats, Floats]:
    """Return Kendall's tau-a and tau-b over all pairs of networks, (R,) each.

    tau-a = mean over pairs of sign(difference in measure) sign(difference in outcome), a tie counts as 0; tau-b divides
    by the root of the shares of pairs that are not tied in the measure and in the outcome (Kendall 1945), NaN where one
    of them is 0. For one draw of every cell tau-b is that of `scipy.stats.kendalltau`.
    """
    a, b, known = _pair_signs(measure, outcome)
    sums = (grid.between(part) for part in (a * b, np.abs(a) * known, np.abs(b) * known, known))
    both, first, second, count = (((draws @ between) * draws).sum(1) for between in sums)
    return _ratio(both, count), _ratio(both, np.sqrt(first * second))


def granulated(measure: Floats, outcome: Floats, *, grid: Grid, draws: Floats) -> Floats:
    """Return tau-a over the pairs that differ in one hyperparameter alone, (R, H); their mean is granulated tau.

    For each hyperparameter: tau-a (ties count as 0) over the networks that agree in all others, averaged over the
    values of the others (Jiang et al. 2020, arXiv:1912.02178, section 4); a resample weights them by how often it draws
    their pairs. Two networks of one cell, which differ in the training seed only, are no pair. NaN for a hyperparameter
    without a pair.
    """
    a, b, known = _pair_signs(measure, outcome)
    agree, count = grid.between(a * b), grid.between(known)
    hyperparameters, taus = range(grid.levels.shape[1]), []
    for h in hyperparameters:
        codes = grid.codes([other for other in hyperparameters if other != h])
        alone = (codes[:, None] == codes) & (grid.levels[:, h, None] != grid.levels[:, h])
        group = (codes[:, None] == np.arange(codes.max() + 1)).astype(np.float64)
        agreeing, counted, pairs = (
            ((counts @ (part * alone)) * counts) @ group
            for part, counts in ((agree, draws), (count, draws), (count, grid.unit))
        )
        taus.append(_ratio(_ratio(agreeing, pairs, otherwise=0.0).sum(1), _ratio(counted, pairs, otherwise=0.0).sum(1)))
    return np.stack(taus, axis=1)


def conditional_mutual_information(
    measure: Floats, outcome: Floats, *, grid: Grid, draws: Floats, most: int = 2
) -> Floats:
    """Return the information in the measure's order about the outcome's, given hyperparameters: (R,) in [0, 1].

    min over sets S of at most `most` hyperparameters of I(V_m; V_o | U_S) / H(V_o | U_S), over ordered pairs of
    networks: V the sign of the difference in measure and in outcome, U_S the values that both networks have in S (Jiang
    et al. 2020, arXiv:1912.02178, section 4, who leave open what happens to ties). Here a pair that is tied in one of
    the two is dropped, and each cell of U_S is weighted by its number of pairs. A set S that determines the outcome's
    order is left out; NaN if none remains.
    """
    a, b, _ = _pair_signs(measure, outcome)
    untied = np.abs(a * b)
    # Per pair: 1, V_m, V_o and V_m V_o; their sums give the counts of (+, +), (+, -), (-, +) and (-, -).
    sums = grid.between(np.stack([untied, a * untied, b * untied, a * b])).astype(np.float32)
    singles = draws.astype(np.float32)  # exact: all sums are whole numbers far below 2^24
    lowest = np.full(len(draws), np.inf)
    hyperparameters = range(grid.levels.shape[1])
    for chosen in chain.from_iterable(combinations(hyperparameters, size) for size in range(most + 1)):
        blocks, weights = _sum_blocks(sums, grid.codes(chosen), singles)
        n, m, o, both = blocks
        joint = sum(
            _n_log_n(part / 4, weights)
            for part in (n + m + o + both, n + m - o - both, n - m + o - both, n - m - o + both)
        )
        of_outcome, of_measure = (_n_log_n((n + v) / 2, weights) + _n_log_n((n - v) / 2, weights) for v in (o, m))
        total = _n_log_n(n, weights)
        shared, entropy = joint + total - of_measure - of_outcome, total - of_outcome
        known = entropy > _ZERO * np.maximum(n.sum(1), 1)
        ratio = np.divide(shared, entropy, out=np.full(len(draws), np.inf), where=known)
        lowest = np.minimum(lowest, ratio)
    return np.where(np.isfinite(lowest), np.clip(lowest, 0, 1), np.nan)


def conditional_mutual_information_pgdl(measure: Floats, gap: Floats, *, levels: Whole) -> float:
    """Return conditional mutual information as the scoring program of the PGDL competition computes it.

    Differences from `conditional_mutual_information`: sets of exactly two hyperparameters; V is "+" where the first
    network is strictly worse and else "-", so ties and the pair of a network with itself are "-"; every cell of U_S has
    the same weight; every cell of the grid must hold one network (Jiang et al. 2020, arXiv:2012.07976).

    Args:
        measure: (N,), larger is predicted to generalise better.
        gap: (N,), minus (accuracy on training images - accuracy on test images), larger is better.
        levels: (N, H), the number of each network's level in each hyperparameter.

    Raises:
        DgpruneError: a grid with an empty cell, or with two networks in a cell; fewer than two hyperparameters; a value
            that is not finite.
    """
    counts = levels.max(0) + 1
    filled = len(np.unique(levels, axis=0))
    if len(counts) < 2:
        raise DgpruneError("conditional mutual information needs two hyperparameters that vary; got one. Vary another.")
    if not (np.isfinite(measure).all() and np.isfinite(gap).all()):
        raise DgpruneError("conditional mutual information needs a value for every network; leave out those without.")
    if filled < counts.prod() or filled < len(levels):
        raise DgpruneError(
            "conditional mutual information needs a complete grid with one network per cell; "
            f"{filled} of {counts.prod()} cells are filled, by {len(levels)} networks."
        )
    worse, gaps = measure[:, None] < measure, gap[:, None] < gap
    lowest = np.inf
    for pair in combinations(range(len(counts)), 2):
        group = np.ravel_multi_index(tuple(levels[:, h] for h in pair), tuple(counts[h] for h in pair))
        cell, cells = group[:, None] * (group.max() + 1) + group, (group.max() + 1) ** 2
        flat = (cell * 4 + worse * 2 + gaps).ravel()
        joint = np.bincount(flat, minlength=4 * cells).reshape(cells, 2, 2)
        shares = joint / joint.sum((1, 2), keepdims=True)
        of_measure, of_gap = (_entropies(shares.sum(axis)) for axis in (2, 1))
        shared = of_measure + of_gap - _entropies(shares.reshape(cells, 4))
        lowest = min(lowest, shared.mean() / of_gap.mean()) if of_gap.mean() > _ZERO else lowest
    return float(lowest) if np.isfinite(lowest) else float("nan")


def partial_correlations(measures: Floats, outcome: Floats, *, grid: Grid, draws: Floats) -> Floats:
    """Return the rank correlation of each measure and the outcome given each other measure, (M, M, R).

    (r_mo - r_mg r_og) / sqrt((1 - r_mg^2) (1 - r_og^2)) of Spearman's correlations (Pearson's of ranks, so the scale of
    a measure does not matter), over the networks of which all three are known. [k, j] is that of measure k given
    measure j; NaN for k = j, for fewer than four networks, where ranks are constant, and where the given measure has
    the order of one of the two.

    Args:
        measures: (M, N).
    """
    values = np.concatenate([measures, outcome[None]])
    weights, finite = draws[:, grid.cells], np.isfinite(values)
    ranks: dict[tuple[int, bytes], Floats] = {}

    def correlation(k: int, j: int, *, known: NDArray[np.bool_]) -> Floats:
        for index in (k, j):
            if (index, known.tobytes()) not in ranks:
                ranks[index, known.tobytes()] = weighted_ranks(values[index, known], weights[:, known])
        return np.einsum("rn,rn->r", ranks[k, known.tobytes()], ranks[j, known.tobytes()])

    last = len(measures)
    partial = np.full((last, last, len(draws)), np.nan)
    for k in range(last):
        for condition in range(last):
            known = finite[k] & finite[condition] & finite[last]
            if k != condition and known.sum() > LEAST:
                direct, first, second = (
                    correlation(*pair, known=known) for pair in ((k, last), (k, condition), (last, condition))
                )
                rest = (1 - first**2) * (1 - second**2)
                partial[k, condition] = _ratio(direct - first * second, np.sqrt(np.where(rest > _ZERO, rest, 0.0)))
    return partial


def ties(measure: Floats, outcome: Floats) -> int:
    """Return the number of pairs of networks that are tied in the measure or in the outcome."""
    a, b, known = _pair_signs(measure, outcome)
    return int((known * (a * b == 0)).sum()) // 2


def _pair_signs(measure: Floats, outcome: Floats) -> tuple[Floats, Floats, Floats]:
    """Return (N, N) signs of the differences in measure and outcome, and 1 for pairs with both known, else 0."""
    known = np.isfinite(measure) & np.isfinite(outcome)
    pairs = np.outer(known, known).astype(np.float64)
    np.fill_diagonal(pairs, 0.0)
    first, second = (np.where(known, values, 0.0) for values in (measure, outcome))
    return np.sign(first[:, None] - first) * pairs, np.sign(second[:, None] - second) * pairs, pairs


def _sum_blocks(sums: Singles, codes: Whole, draws: Singles) -> tuple[Floats, Floats]:
    """Return (F, R, U) sums of F forms over the pairs of drawn networks between groups of cells, and their weights.

    The pairs (i, j) and (j, i) hold opposite signs, so the block of two groups counts twice and is computed once.
    """
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 1))
    counts, forms = draws[:, order], sums[:, order[:, None], order]
    blocks, weights = [], []
    for start, end in zip(starts, [*starts[1:], len(codes)], strict=True):
        inner = counts[:, start:end] @ forms[:, start:end, start:]  # (F, R, cells from `start` on)
        inner *= counts[:, start:]
        later = starts[starts >= start] - start
        blocks.append(np.add.reduceat(inner, later, axis=2))
        weights += [1.0, *[2.0] * (len(later) - 1)]
    return np.concatenate(blocks, axis=2).astype(np.float64), np.array(weights)


def _n_log_n(counts: Floats, weights: Floats) -> Floats:
    """Return (R,) sums of n log n over (R, U) counts, weighted by `weights`."""
    return (counts * np.log(np.maximum(counts, 1.0))) @ weights


def _entropies(shares: Floats) -> Floats:
    return -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(-1)


def _ratio(top: Floats, bottom: Floats, *, otherwise: float = np.nan) -> Floats:
    """Return top / bottom where bottom is above 0."""
    bottom = np.broadcast_to(bottom, np.shape(top))
    return np.divide(top, bottom, out=np.full(np.shape(top), otherwise), where=bottom > 0)


def mean_of_known(values: Floats) -> Floats:
    """Return (R,) means over the columns that are not NaN."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(1), known.sum(1).astype(np.float64))
