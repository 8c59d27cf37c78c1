"""Agreement of two scores of the same filters: rank correlation, and overlap of the kept filters.

Shared by `agreement` (two scorers) and `stability` (one scorer twice). Groups are keyed by the layer's name; `ALL` is
the whole network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..core import Count, Scope, Seed, public
from ..core import seed as seeded
from .intervals import RESAMPLES, Floats

ALL = "all"
LEAST = 3  # a layer of fewer filters has no order to correlate
_BYTES = 32 * 2**20

Values = Mapping[str, Tensor]


class Overlap(NamedTuple):
    """Share of the kept filters that two masks have in common; by chance, its mean and half its 95 % range's width."""

    value: float
    chance: float
    spread: float


@public
def correlations(first: Values, second: Values, *, scope: Scope) -> dict[str, float]:
    """Return Spearman's rank correlation of two scores, per layer and for the whole network.

    Pearson's correlation of the ranks; ties share their mean rank. For scope "layer", `ALL` is the mean over layers,
    weighted by their numbers of filters (only the order within a layer counts); for "global" it is the correlation over
    all filters of the network.

    Returns:
        group -> a number in [-1, 1]; NaN where a layer has fewer than 3 filters or one of the two scores is constant.
    """
    layers = {name: _correlation(first, second, [name]) for name in first}
    if scope == "global":
        return {**layers, ALL: _correlation(first, second, list(first))}
    return {**layers, ALL: weighted(layers, {name: len(scores) for name, scores in first.items()})}


def chance_spread(observed: Mapping[str, float], sizes: Mapping[str, int], *, scope: Scope) -> dict[str, float]:
    """Return half the width of the 95 % range of a rank correlation when filters are paired at random; its mean is 0.

    1.96 / sqrt(n - 1), as the variance over all pairings is 1 / (n - 1), even with ties (Hotelling and Pabst 1936, Rank
    Correlation and Tests of Significance Involving No Assumption of Normality); normal approximation. For scope
    "layer", `ALL` is the half-width for the weighted mean over layers.

    Args:
        observed: result of `correlations`; layers that are NaN there are NaN here, and do not count in `ALL`.
        sizes: layer -> number of filters.
        scope: as for `correlations`.
    """
    spread = {name: 1.96 / (sizes[name] - 1) ** 0.5 if np.isfinite(observed[name]) else np.nan for name in sizes}
    if not np.isfinite(observed[ALL]):
        return {**spread, ALL: np.nan}
    if scope == "global":
        return {**spread, ALL: 1.96 / (sum(sizes.values()) - 1) ** 0.5}
    known = [name for name in sizes if np.isfinite(observed[name])]
    total = sum(sizes[name] for name in known)
    return {**spread, ALL: sum((sizes[name] / total * spread[name]) ** 2 for name in known) ** 0.5}


@public
def over_filters(scores: Sequence[Values], *, scope: Scope, seed: Seed) -> tuple[Floats, Floats]:
    """Return 95 % percentile bootstrap intervals, over filters, of the network's rank correlation of every two scores.

    Filters are resampled with replacement, within each layer for scope "layer" and over the whole network for "global",
    the same filters for all S scores; they are ranked again in each of 1,000 resamples.

    Returns:
        low and high, (S, S) each; NaN where all resamples agree: a zero width would overstate certainty.
    """
    generator = np.random.default_rng(seeded("bootstrap over filters", seed))
    strata = [[name] for name in scores[0]] if scope == "layer" else [list(scores[0])]
    stacked = [_stacked(scores, names) for names in strata]
    resampled = _mean([_resampled(values, generator) for values in stacked], [values.shape[1] for values in stacked])
    low, high = np.full((2, len(scores), len(scores)), np.nan)
    for a, b in combinations(range(len(scores)), 2):
        known = resampled[:, a, b][np.isfinite(resampled[:, a, b])]
        if len(known) and np.ptp(known) > 1e-9:
            low[a, b], high[a, b] = low[b, a], high[b, a] = np.percentile(known, [2.5, 97.5])
    return low, high


@public
def random_matchings(
    first: Values, second: Values, *, scope: Scope, seed: Seed, draws: Count = 200
) -> dict[str, Floats]:
    """Return rank correlations of two scores with the filters of each layer paired at random: group -> (draws,)."""
    generator = np.random.default_rng(seeded("random matchings", seed))
    layers = list(first)
    sizes = [len(first[name]) for name in layers]
    orders = [generator.permuted(np.tile(np.arange(size), (draws, 1)), axis=1) for size in sizes]
    correlated = {}
    for name, order in zip(layers, orders, strict=True):
        ranks, others = _standard_ranks(_stacked([first, second], [name]))
        correlated[name] = others[order] @ ranks
    if scope == "layer":
        return {**correlated, ALL: _mean(list(correlated.values()), sizes)}
    ranks, others = _standard_ranks(_stacked([first, second], layers))
    starts = np.cumsum([0, *sizes[:-1]])
    order = np.concatenate([order + start for order, start in zip(orders, starts, strict=True)], axis=1)
    return {**correlated, ALL: others[order] @ ranks}


@public
def overlaps(first: Values, second: Values, *, scope: Scope) -> dict[str, Overlap]:
    """Return the share of the kept filters that both masks keep, per layer and in all, and the share by chance.

    value = |A and B| / ((|A| + |B|) / 2): 1 where the masks keep the same filters, 0 where they share none (Dice's
    coefficient; where both keep equally many, the share of one mask's filters that the other keeps too).
    By chance, two independent choices of a and b out of n filters share a b / n of them, with the variance
    a b (n - a) (n - b) / (n^2 (n - 1)) of the hypergeometric distribution; `spread` is 1.96 standard deviations.
    For scope "layer", `ALL` sums over the layers; for "global" it treats the network as one layer.

    Args:
        first, second: layer -> (C,) bool, True = keep; at least one True in each layer.
        scope: how the masks were allocated.

    Returns:
        group -> Overlap; value and chance in [0, 1].
    """
    layers, sums = {}, np.zeros(6)
    for name, mask in first.items():
        a, b, n = int(mask.sum()), int(second[name].sum()), len(mask)
        counts = np.array([int((mask & second[name]).sum()), *_by_chance(a, b, n), a, b, n])
        layers[name] = _overlap(counts)
        sums += counts
    if scope == "global":
        sums[1:3] = _by_chance(*sums[3:])
    return {**layers, ALL: _overlap(sums)}


def weighted(values: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    """Return the mean over layers of a value, weighted by their numbers of filters; layers with NaN do not count."""
    return float(_mean([np.array(value) for value in values.values()], [sizes[name] for name in values]))


def _stacked(scores: Sequence[Values], layers: Sequence[str]) -> Floats:
    """Return (S, n): the scores of the filters of these layers, concatenated."""
    return np.stack([np.concatenate([values[name].double().numpy() for name in layers]) for values in scores])


def _correlation(first: Values, second: Values, layers: Sequence[str]) -> float:
    """Return the rank correlation over the filters of these layers, rounded to be exactly 1 for the same order."""
    ranks, others = _standard_ranks(_stacked([first, second], layers))
    return float((ranks @ others).round(12))


def _by_chance(a: float, b: float, n: float) -> tuple[float, float]:
    """Return mean and variance of the number of filters that independent choices of a and b out of n share."""
    return a * b / n, a * b * (n - a) * (n - b) / (n * n * max(n - 1, 1))


def _overlap(counts: Floats) -> Overlap:
    """Return the Overlap from counts, each divided by the mean number of kept filters."""
    shared, chance, variance, a, b, _ = counts.tolist()
    mean_kept = (a + b) / 2
    return Overlap(shared / mean_kept, chance / mean_kept, 1.96 * variance**0.5 / mean_kept)


def _standard_ranks(values: Floats) -> Floats:
    """Return (S, n) ranks of S scores, centred and of length one: their dot products are rank correlations."""
    return np.concatenate([weighted_ranks(row, np.ones((1, len(row)))) for row in values])


def weighted_ranks(values: Floats, counts: Floats) -> Floats:
    """Return (R, n) standardised ranks of one score in which filter i occurs counts[r, i] times.

    The values are sorted once: the rank of a value is the count before it plus half the count of the values equal to
    it. NaN for too few filters, or where all values are equal.
    """
    ordered = np.sort(values)
    total = np.concatenate([np.zeros((len(counts), 1)), counts[:, np.argsort(values)].cumsum(1)], axis=1)
    below, upto = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    centred = (total[:, below] + total[:, upto] - len(values)) / 2
    weighed = np.sqrt(counts) * centred
    length = np.sqrt(np.square(weighed).sum(1, keepdims=True))
    return weighed / np.where((length > 0) & (len(values) >= LEAST), length, np.nan)


def _resampled(values: Floats, generator: np.random.Generator) -> Floats:
    """Return (RESAMPLES, S, S) rank correlations of every two of S scores, over n resampled filters."""
    count, filters = values.shape
    step = max(1, _BYTES // (8 * count * filters))
    blocks = []
    for start in range(0, RESAMPLES, step):
        draws = min(step, RESAMPLES - start)
        counts = generator.multinomial(filters, np.full(filters, 1 / filters), size=draws).astype(np.float64)
        ranks = np.stack([weighted_ranks(row, counts) for row in values], axis=1)
        blocks.append(ranks @ ranks.swapaxes(1, 2))
    return np.concatenate(blocks)


def _mean(parts: Sequence[Floats], weights: Sequence[int]) -> Floats:
    """Return the weighted mean of arrays, entry by entry, over the arrays that are not NaN at that entry."""
    total, weight = np.zeros_like(parts[0]), np.zeros_like(parts[0])
    for part, share in zip(parts, weights, strict=True):
        known = np.isfinite(part)
        total += np.where(known, share * part, 0.0)
        weight += share * known
    return total / np.where(weight > 0, weight, np.nan)
