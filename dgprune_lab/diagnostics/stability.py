"""Does a scorer agree with itself on other images, and on the same network trained with another seed?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from typing import Literal

import numpy as np
import pandas as pd

from ..core import Budget, Count, DgpruneError, Domain, Ratio, Repeats, Scope, Scores, Seed, cut_counts, note_once, tidy
from ..core import seed as seeded
from ..pruning import allocate
from ..scorers import Scorer, resolve
from ..stats import ALL, Floats, Values, correlations, overlaps, random_matchings, weighted
from ..study import Study, network_names
from ._contract import Row, diagnostic
from ._filter_matching import Match, matched, pooled_outputs
from ._removal import Removal, check_names
from .agreement import target_aware

Over = Literal["halves", "training_seeds"]
EXTRA = ("over", "pair", "group", "draw_seed")


@dataclass(frozen=True, eq=False, kw_only=True)
class _Pair:
    """The comparison of two runs of one scorer, with corresponding filters aligned."""

    scorer: str
    name: str
    images: int
    ratio_achieved: float
    target_aware: bool | None
    numbers: Mapping[tuple[str, str], float]
    by_chance: Mapping[str, Floats]


@diagnostic(
    "stability",
    extra=EXTRA,
    cite="Li et al. 2016, Convergent Learning, ICLR, arXiv:1511.07543, section 3, for the matching of trainings",
)
def stability(
    study: Study | Sequence[Study],
    *,
    scorers: Sequence[str | Scorer],
    ratio: Ratio = 0.5,
    over: Over = "halves",
    draws: Repeats = 5,
    scope: Scope = "layer",
    budget: Budget = "filters",
    seed: Seed = 0,
    images: Count = 1000,
) -> pd.DataFrame:
    """Compare which filters a scorer keeps in two runs that differ in their images or in the network's training seed.

    "halves": the `score` split of every domain is divided into two halves, stratified by label, `draws` times; the
    scorer runs on each half. A scorer that reads no images agrees with itself by construction: its value is 1 and its
    column `images` 0. A scorer that draws uses another seed for each half (interval "seeds").

    "training_seeds": the scorer runs on one network trained with several seeds, and every two of them are compared. The
    networks' filters do not correspond by index, so within each layer they are matched one to one by the correlation of
    their outputs (spatial means) on the same source images, and the scores of matched filters are compared. With a poor
    match the comparison means little.

    Metrics, for each `group` (a layer, or "all") and `pair`; where `pair` is empty, the mean over the pairs:

    rank_correlation            Spearman's correlation of the two scores, as in `agreement`, in [-1, 1].
    rank_correlation_by_chance  the same with the filters of each layer paired at random, 200 times: mean and 95 % range
                                (interval "random matchings"); the range of single pairs even where `pair` is empty.
    overlap, overlap_by_chance  overlap of the filters kept at this ratio, as in `agreement`, in [0, 1].
    match_correlation           only "training_seeds": mean correlation of the matched filters' outputs, in [-1, 1].

    The interval of a mean is the range over the pairs, named "halves", "seeds" or "training_seeds". Halves of the same
    images are not independent, nor are pairs that share a network: no t interval is given.

    Args:
        study: one study for "halves"; two or more of the same domains and layers for "training_seeds".
        scorers: names or Scorers; ready Scores cannot be recomputed.
        ratio, scope, budget: allocation of the masks whose overlap is compared, see `allocate`; the rank correlation
            uses the scope too.
        over: what differs between the two runs: "halves" or "training_seeds".
        draws: number of times the images are halved.
        seed: random seed of the halves, the random matchings and, counted up, of scorers that draw (column
            `draw_seed`).
        images: number of source images on which filters are matched, shared equally by the sources.

    Returns:
        A tidy table. `images` is, for "halves", the number of images that the scorer read in the smaller half, over all
        domains; for "training_seeds", the number on which filters were matched. `target_aware` says whether the scorer
        read a target.

    Raises:
        DgpruneError: ready Scores; no draw; a split too small to be halved; one study where several are needed, or the
            reverse; networks with different layers or domains.

    Source: ours; the matching is Li et al. 2016, on spatial means.
    """
    if not scorers:
        raise DgpruneError("stability needs at least one scorer in scorers; got none.")
    items = [resolve(item) for item in scorers]
    check_names(items)
    removal = Removal(ratios=[ratio], scope=scope, budget=budget, seed=seed)
    with note_once():
        if over == "halves":
            pairs = list(_compare_halves(study, items, draws=draws, removal=removal))
        else:
            pairs = list(_compare_trainings(study, items, images=images, removal=removal))
    shared, of_masks = {"over": over, "scope": scope, "draw_seed": seed}, {"ratio_requested": ratio, "budget": budget}
    rows = []
    for item in items:
        runs = [pair for pair in pairs if pair.scorer == item.name]
        interval = "seeds" if item.draws and over == "halves" else over
        for row in chain(*(_rows([pair], name=pair.name) for pair in runs), _rows(runs, interval=interval)):
            rows.append({**shared, **row, **(of_masks if row["unit"] == "share" else {})})
    return tidy(rows, extra=EXTRA)


def halves(study: Study, *, seed: int) -> tuple[Study, Study]:
    """Return two studies of the same network, each with one half of every domain's `score` split, stratified by label.

    Raises:
        DgpruneError: a split of a single image.
    """
    domains, sources = [_halve_domain(domain, seed) for domain in study.domains], len(study.sources)
    first, second = (
        Study(
            study.model,
            sources=[pair[k] for pair in domains[:sources]],
            targets=[pair[k] for pair in domains[sources:]],
            name=study.name,
            layers=study.layers,
            device=study.device,
        )
        for k in (0, 1)
    )
    return first, second


def _halve_domain(domain: Domain, seed: int) -> tuple[Domain, Domain]:
    """Return two copies of a domain, each with one half of its `score` split; both unchanged if it has none."""
    rows = domain.splits.get("score")
    if rows is None:
        return domain, domain
    if len(rows) < 2:
        raise DgpruneError(f"domain {domain.name!r} has {len(rows)} image in its split 'score'; two halves need two.")
    labels = None if domain.labels is None else domain.labels.cpu()[rows]
    sizes = {"first": len(rows) // 2, "second": len(rows) - len(rows) // 2}
    cuts = cut_counts(len(rows), labels, sizes, seed=seeded("halves", domain.name, seed))
    first, second = (replace(domain, splits={**domain.splits, "score": rows[cut]}) for cut in cuts.values())
    return first, second


def _compare_halves(
    study: Study | Sequence[Study], scorers: Sequence[Scorer], *, draws: int, removal: Removal
) -> Iterator[_Pair]:
    """Yield the comparison of every scorer on both halves, for each draw."""
    if not isinstance(study, Study):
        raise DgpruneError("over='halves' cuts the images of one study; pass a single one.")
    for draw in range(draws):
        parts = halves(study, seed=seeded("draw", removal.seed, draw))
        # A scorer that draws never gets the same seed twice; other scorers ignore the seed.
        scores = [half.score_all(scorers, seed=removal.seed + 2 * draw + k) for k, half in enumerate(parts)]
        for pair in zip(*scores, strict=True):
            images = min(_count_images(half, item) for half, item in zip(parts, pair, strict=True))
            yield _compare_pair(study, pair, name=f"draw {draw}", images=images, removal=removal)


def _compare_trainings(
    studies: Study | Sequence[Study], scorers: Sequence[Scorer], *, images: int, removal: Removal
) -> Iterator[_Pair]:
    """Yield the comparison of every scorer on each pair of networks, with matched filters."""
    trainings = [studies] if isinstance(studies, Study) else list(studies)
    _check_trainings(trainings)
    names = network_names(trainings)
    outputs = [pooled_outputs(study, trainings[0].sources, images=images) for study in trainings]
    count = len(next(iter(outputs[0].values())))
    scores = [study.score_all(scorers, seed=removal.seed + k) for k, study in enumerate(trainings)]
    for a, b in combinations(range(len(trainings)), 2):
        matches, name = matched(outputs[a], outputs[b]), f"{names[a]} | {names[b]}"
        for pair in zip(scores[a], scores[b], strict=True):
            yield _compare_pair(trainings[0], pair, matches=matches, name=name, images=count, removal=removal)


def _compare_pair(
    study: Study,
    scores: tuple[Scores, Scores],
    *,
    name: str,
    images: int,
    removal: Removal,
    matches: Mapping[str, Match] | None = None,
) -> _Pair:
    first, second = scores
    scope = removal.scope
    masks = [allocate(item, ratio=removal.ratios[0], scope=scope, budget=removal.budget) for item in scores]
    aligned, kept = _align_filters(second.values, matches), _align_filters(masks[1].keep, matches)
    ranks = correlations(first.values, aligned, scope=scope)
    numbers = {("rank_correlation", group): value for group, value in ranks.items()}
    for group, overlap in overlaps(masks[0].keep, kept, scope=scope).items():
        numbers |= {("overlap", group): overlap.value, ("overlap_by_chance", group): overlap.chance}
    if matches is not None:
        means = {layer: float(match.correlation.mean()) for layer, match in matches.items()}
        means[ALL] = weighted(means, {group.name: group.filters for group in first.graph.groups})
        numbers |= {("match_correlation", group): value for group, value in means.items()}
    seeds = [item.options["seed"] for item in scores if "seed" in item.options]
    return _Pair(
        scorer=first.scorer,
        name=name + (f", seeds {seeds[0]} and {seeds[1]}" if seeds else ""),
        images=images,
        ratio_achieved=(masks[0].ratio_achieved + masks[1].ratio_achieved) / 2,
        target_aware=target_aware(study, first),
        numbers=numbers,
        by_chance=random_matchings(first.values, aligned, scope=scope, seed=seeded(name, removal.seed)),
    )


def _align_filters(values: Values, matches: Mapping[str, Match] | None) -> Values:
    """Return the second network's values (one per filter), in the order of the matching filters of the first."""
    return values if matches is None else {name: numbers[matches[name].other] for name, numbers in values.items()}


def _rows(pairs: Sequence[_Pair], *, name: str | None = None, interval: str | None = None) -> Iterator[Row]:
    """Yield the rows of one pair, or of the mean over several pairs with their range as the named interval."""
    first = pairs[0]
    shared = {"scorer": first.scorer, "pair": name, "images": first.images, "target_aware": first.target_aware}
    for metric, group in first.numbers:
        values = np.array([pair.numbers[metric, group] for pair in pairs])
        row = {**shared, "group": group, "metric": metric, "value": values.mean(), "unit": "correlation"}
        if interval is not None:
            row |= {"low": values.min(), "high": values.max(), "interval": interval}
        if metric.startswith("overlap"):
            row |= {"unit": "share", "ratio_achieved": np.mean([pair.ratio_achieved for pair in pairs])}
        yield row
    for group in first.by_chance:
        values = np.concatenate([pair.by_chance[group] for pair in pairs])
        low, high = np.percentile(values, [2.5, 97.5])
        cells = {"group": group, "metric": "rank_correlation_by_chance", "unit": "correlation"}
        cells |= {"value": values.mean(), "low": low, "high": high, "interval": "random matchings"}
        yield {**shared, **cells}


def _count_images(study: Study, scores: Scores) -> int:
    """Return the number of images that were read for these scores."""
    keys = [key.rpartition("/") for key in scores.reads or {}]
    return sum(len(study.domain(domain).rows(split)) for domain, _, split in keys)


def _check_trainings(studies: Sequence[Study]) -> None:
    if len(studies) < 2:
        raise DgpruneError(
            "over='training_seeds' compares networks of several trainings; pass a list of two or more studies, for "
            "example dg.training_seeds()."
        )
    layers = [[(group.name, group.filters) for group in study.graph.groups] for study in studies]
    for study, own in zip(studies, layers, strict=True):
        if own != layers[0]:
            raise DgpruneError(
                f"{study.name!r} and {studies[0].name!r} have different layers; pass networks of one architecture."
            )
        if study.key != studies[0].key:
            raise DgpruneError(
                f"{study.name!r} and {studies[0].name!r} have different domains; only the training may differ."
            )
