"""Do two scorers choose the same filters?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pandas as pd

from ..core import Budget, DgpruneError, Mask, Provenance, Ratio, Scope, Scores, Seed, roles_of, tidy
from ..pruning import allocate
from ..scorers import Scorer
from ..stats import ALL, chance_spread, correlations, over_filters, overlaps
from ..study import Study
from ._contract import Row, Rows, diagnostic
from ._removal import check_names

EXTRA = ("other", "group", "scorer_target_aware", "other_target_aware")


@diagnostic(
    "agreement",
    extra=EXTRA,
    cite="Spearman 1904, The proof and measurement of association between two things; Dice 1945 for the overlap",
)
def agreement(
    study: Study,
    *,
    scorers: Sequence[str | Scorer | Scores],
    ratio: Ratio = 0.5,
    scope: Scope = "layer",
    budget: Budget = "filters",
    seed: Seed = 0,
) -> pd.DataFrame:
    """Compare which filters the scorers keep, pair by pair, per layer and for the whole network.

    Metrics, for every pair (columns `scorer` and `other`) and every `group` (a layer, or "all"):

    rank_correlation            Spearman's correlation of the two scores, in [-1, 1]. "all": for scope "layer" the mean
                                over layers, weighted by their numbers of filters; for "global" over all filters of the
                                network. Empty where a layer has fewer than 3 filters or a score is constant there.
    rank_correlation_by_chance  0, the expectation for unrelated scores.
    overlap                     |A and B| / ((|A| + |B|) / 2) of the filters A and B kept at this ratio, in [0, 1].
    overlap_by_chance           the expected overlap if both scorers chose as many filters at random: |A and B| becomes
                                a b / n for a and b kept filters out of n. "all": for scope "layer" summed over layers
                                before the division, for "global" computed for the whole network.

    The rank correlation of "all" has the interval "filters": a 95 % bootstrap over the filters of this network, with
    the same resamples for all pairs. It shows how much the value depends on single filters; it is not an interval over
    images, random draws or training seeds. The interval "chance" is the 95 % range under chance, by a normal
    approximation with the variance of the hypergeometric distribution or of Spearman's correlation, 1 / (n - 1).

    Args:
        study: the network and its domains.
        scorers: two or more names, Scorers or Scores, with different names.
        ratio: the share of filters removed, for the overlaps.
        scope, budget: see `allocate`.
        seed: random seed of scorers that draw, and of the bootstrap.

    Returns:
        A tidy table. `ratio_achieved` is the mean over both masks; `target_aware` says whether either score read a
        target, `scorer_target_aware` and `other_target_aware` whether each of them did.

    Raises:
        DgpruneError: fewer than two scorers, or two with one name.
    """
    scores = study.score_all(scorers, seed=seed)
    if len(scores) < 2:
        raise DgpruneError(f"agreement compares scorers with each other and needs two or more; got {len(scores)}.")
    check_names(scores)
    masks = [allocate(item, ratio=ratio, scope=scope, budget=budget) for item in scores]
    low, high = over_filters([item.values for item in scores], scope=scope, seed=seed)
    rows = []
    for a, b in combinations(range(len(scores)), 2):
        for row in pair_rows(study, (scores[a], scores[b]), masks=(masks[a], masks[b])):
            if row["group"] == ALL and row["metric"] == "rank_correlation":
                row |= {"low": low[a, b], "high": high[a, b], "interval": "filters"}
            rows.append(row)
    return tidy(rows, extra=EXTRA)


def pair_rows(study: Study, scores: tuple[Scores, Scores], *, masks: tuple[Mask, Mask]) -> Rows:
    """Return the rows of `agreement` for one pair of scores and their masks, without the bootstrap."""
    first, second = scores
    scope, sizes = masks[0].scope, {group.name: group.filters for group in study.graph.groups}
    shared = {
        "scorer": first.scorer,
        "other": second.scorer,
        "scope": scope,
        "seed": first.options.get("seed", second.options.get("seed")),
        "target_aware": target_aware(study, *scores, provenance=study.provenance),
        "scorer_target_aware": target_aware(study, first),
        "other_target_aware": target_aware(study, second),
    }
    of_masks = {
        "ratio_requested": masks[0].ratio_requested,
        "ratio_achieved": (masks[0].ratio_achieved + masks[1].ratio_achieved) / 2,
        "budget": masks[0].budget,
    }
    ranks = correlations(first.values, second.values, scope=scope)
    spread = chance_spread(ranks, sizes, scope=scope)
    overlap_of = overlaps(masks[0].keep, masks[1].keep, scope=scope)
    rows = []
    for group, rank in ranks.items():
        overlap, zero = overlap_of[group], 0.0 * spread[group]
        metrics = {
            "rank_correlation": (rank, {}),
            "rank_correlation_by_chance": (zero, _chance_range(zero, spread[group], lowest=-1.0)),
            "overlap": (overlap.value, of_masks),
            "overlap_by_chance": (overlap.chance, of_masks | _chance_range(overlap.chance, overlap.spread, lowest=0.0)),
        }
        for metric, (value, extra) in metrics.items():
            unit = "correlation" if metric.startswith("rank") else "share"
            rows.append({**shared, "group": group, "metric": metric, "value": value, "unit": unit, **extra})
    return rows


def _chance_range(value: float, spread: float, *, lowest: float) -> Row:
    """Return the columns of the 95 % range under chance: value +- spread, within `lowest` and 1."""
    return {"low": max(value - spread, lowest), "high": min(value + spread, 1.0), "interval": "chance"}


def target_aware(study: Study, *scores: Scores, provenance: Provenance | None = None) -> bool | None:
    """Return the value of the column `target_aware` from all reads of these scores and `provenance`."""
    provenance = Provenance(training={}) if provenance is None else provenance
    for item in scores:
        provenance = provenance.adding("scorer", item.reads)
    return provenance.target_aware(roles_of(study.domains))
