"""Two scores of the same filters: do they put them in the same order, and would they keep the same ones?

What `agreement` (two scorers) and `stability` (one scorer twice) have in common. Groups are keyed by the layer's name;
`ALL` stands for the whole network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..core import Scope
from ..core import seed as seeded

ALL = "all"
LEAST = 3  # a layer of fewer filters has no order worth correlating
RESAMPLES = 1000
_BYTES = 32 * 2**20

Floats = NDArray[np.float64]
Values = Mapping[str, Tensor]


class Overlap(NamedTuple):
    """Share of the kept filters that two masks share; what chance gives, and half the width of its 95 % range."""

    value: float
    chance: float
    spread: float


def correlations(first: Values, second: Values, *, scope: Scope) -> dict[str, float]:
    """Spearman's rank correlation of two scores, per layer and for the whole network.

    Pearson's correlation of the ranks, ties sharing their mean rank. `ALL` is, for scope "layer", the mean of the
    layers weighted by their filters (only the order within a layer counts there), for "global" the correlation over
    all filters of the network.

    Returns:
        group -> a number in [-1, 1]; NaN where a layer has fewer than 3 filters or one of the two scores is constant.
    """
    layers = {name: _correlation(first, second, [name]) for name in first}
    if scope == "global":
        return {**layers, ALL: _correlation(first, second, list(first))}
    return {**layers, ALL: weighted(layers, {name: len(held) for name, held in first.items()})}


def chance_spread(found: Mapping[str, float], sizes: Mapping[str, int], *, scope: Scope) -> dict[str, float]:
    """Half the width of the 95 % range of a rank correlation when filters are paired at random, around 0.

    1.96 / sqrt(n - 1), as its variance over all pairings is 1 / (n - 1), with ties too (Hotelling and Pabst 1936, Rank
    Correlation and Tests of Significance Involving No Assumption of Normality); normal approximation. `ALL` for scope
    "layer": of the weighted mean.

    Args:
        found: what `correlations` gave: layers without a number have none here, and do not count in `ALL`.
        sizes: layer -> filters.
        scope: as there.
    """
    spread = {name: 1.96 / (sizes[name] - 1) ** 0.5 if np.isfinite(found[name]) else np.nan for name in sizes}
    known = [name for name in sizes if np.isfinite(found[name])]
    total = sum(sizes.values()) if scope == "global" else sum(sizes[name] for name in known)
    if not np.isfinite(found[ALL]):
        return {**spread, ALL: np.nan}
    if scope == "global":
        return {**spread, ALL: 1.96 / (total - 1) ** 0.5}
    return {**spread, ALL: sum((sizes[name] / total * spread[name]) ** 2 for name in known) ** 0.5}


def over_filters(scores: Sequence[Values], *, scope: Scope, seed: int) -> tuple[Floats, Floats]:
    """The 95 % percentile bootstrap interval over filters of every correlation at network level.

    Filters are drawn anew with replacement, within each layer for scope "layer" and from the whole network for
    "global", the same ones for all scores; their ranks are taken anew in each of 1,000 resamples.

    Returns:
        low and high, (S, S) each; NaN where every resample says the same, which earns no interval of zero width.
    """
    generator = np.random.default_rng(seeded("bootstrap over filters", seed))
    parts = [[name] for name in scores[0]] if scope == "layer" else [list(scores[0])]
    stacked = [_stacked(scores, names) for names in parts]
    drawn = _mean([_resampled(values, generator) for values in stacked], [values.shape[1] for values in stacked])
    low, high = np.full((2, len(scores), len(scores)), np.nan)
    for a, b in combinations(range(len(scores)), 2):
        known = drawn[:, a, b][np.isfinite(drawn[:, a, b])]
        if len(known) and np.ptp(known) > 1e-9:
            low[a, b], high[a, b] = low[b, a], high[b, a] = np.percentile(known, [2.5, 97.5])
    return low, high


def random_matchings(first: Values, second: Values, *, scope: Scope, seed: int, draws: int = 200) -> dict[str, Floats]:
    """Rank correlations of two scores when the filters of each layer are paired by chance: group -> (draws,)."""
    generator = np.random.default_rng(seeded("random matchings", seed))
    layers = list(first)
    sizes = [len(first[name]) for name in layers]
    places = [generator.permuted(np.tile(np.arange(size), (draws, 1)), axis=1) for size in sizes]
    found = {}
    for name, place in zip(layers, places, strict=True):
        one, other = _standard(_stacked([first, second], [name]))
        found[name] = other[place] @ one
    if scope == "layer":
        return {**found, ALL: _mean(list(found.values()), sizes)}
    one, other = _standard(_stacked([first, second], layers))
    starts = np.cumsum([0, *sizes[:-1]])
    anywhere = np.concatenate([place + start for place, start in zip(places, starts, strict=True)], axis=1)
    return {**found, ALL: other[anywhere] @ one}


def overlaps(first: Values, second: Values, *, scope: Scope) -> dict[str, Overlap]:
    """Share of the kept filters that both masks keep, per layer and in all, and what chance gives.

    value = |A and B| / ((|A| + |B|) / 2): 1 where they keep the same filters, 0 where none is shared (Dice's
    coefficient; where both keep equally many, simply the share of one's filters that the other keeps too).
    By chance, two choices of a and b of n filters made independently share a b / n, with the variance
    a b (n - a) (n - b) / (n^2 (n - 1)) of the hypergeometric distribution; the range is 1.96 standard deviations.
    `ALL` sums over the layers, for scope "global" it takes the network as one layer.

    Args:
        first, second: layer -> (C,) bool, True = keep; at least one in each layer.
        scope: how the masks were allocated.

    Returns:
        group -> Overlap; value and chance in [0, 1].
    """
    found, sums = {}, np.zeros(6)
    for name, mine in first.items():
        a, b, n = int(mine.sum()), int(second[name].sum()), len(mine)
        here = (int((mine & second[name]).sum()), *_by_chance(a, b, n), a, b, n)
        found[name] = _overlap(*here[:5])
        sums += here
    shared, chance, variance, a, b, n = sums.tolist()
    chance, variance = _by_chance(a, b, n) if scope == "global" else (chance, variance)
    return {**found, ALL: _overlap(shared, chance, variance, a, b)}


def weighted(values: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    """Mean of one number per layer, weighted by the layers' filters; NaN ones do not count."""
    return float(_mean([np.array(value) for value in values.values()], [sizes[name] for name in values]))


def _stacked(scores: Sequence[Values], layers: Sequence[str]) -> Floats:
    """(S, n): the scores of the filters of these layers, one after the other."""
    return np.stack([np.concatenate([held[name].double().numpy() for name in layers]) for held in scores])


def _correlation(first: Values, second: Values, layers: Sequence[str]) -> float:
    """Over the filters of these layers; rounded, so that the same order is exactly 1."""
    one, other = _standard(_stacked([first, second], layers))
    return float((one @ other).round(12))


def _by_chance(a: float, b: float, n: float) -> tuple[float, float]:
    """Mean and variance of how many of n filters are in both of two independent choices of a and b."""
    return a * b / n, a * b * (n - a) * (n - b) / (n * n * max(n - 1, 1))


def _overlap(shared: float, chance: float, variance: float, a: float, b: float) -> Overlap:
    """Counts as shares of the mean number kept."""
    kept = (a + b) / 2
    return Overlap(shared / kept, chance / kept, 1.96 * variance**0.5 / kept)


def _standard(values: Floats) -> Floats:
    """(S, n) ranks of S scores, centred and of length one: a dot product is a rank correlation."""
    return np.concatenate([_weighed_ranks(row, np.ones((1, len(row)))) for row in values])


def _weighed_ranks(values: Floats, counts: Floats) -> Floats:
    """(R, n) standardised ranks of one score where filter i is there counts[r, i] times.

    The values are sorted once: the rank of a value is how many are before it and half of those that equal it.
    NaN where too few filters or only equal ones are there.
    """
    ordered = np.sort(values)
    seen = np.concatenate([np.zeros((len(counts), 1)), counts[:, np.argsort(values)].cumsum(1)], axis=1)
    below, upto = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    centred = (seen[:, below] + seen[:, upto] - len(values)) / 2
    weighed = np.sqrt(counts) * centred
    length = np.sqrt(np.square(weighed).sum(1, keepdims=True))
    return weighed / np.where((length > 0) & (len(values) >= LEAST), length, np.nan)


def _resampled(values: Floats, generator: np.random.Generator) -> Floats:
    """(RESAMPLES, S, S) correlations of S scores of n filters that are drawn anew."""
    count, filters = values.shape
    step = max(1, _BYTES // (8 * count * filters))
    parts = []
    for start in range(0, RESAMPLES, step):
        draws = min(step, RESAMPLES - start)
        counts = generator.multinomial(filters, np.full(filters, 1 / filters), size=draws).astype(np.float64)
        ranks = np.stack([_weighed_ranks(row, counts) for row in values], axis=1)
        parts.append(ranks @ ranks.swapaxes(1, 2))
    return np.concatenate(parts)


def _mean(parts: Sequence[Floats], weights: Sequence[int]) -> Floats:
    """Weighted mean of arrays, place by place, over the parts that have a number there."""
    total, weight = np.zeros_like(parts[0]), np.zeros_like(parts[0])
    for part, share in zip(parts, weights, strict=True):
        known = np.isfinite(part)
        total += np.where(known, share * part, 0.0)
        weight += share * known
    return total / np.where(weight > 0, weight, np.nan)
