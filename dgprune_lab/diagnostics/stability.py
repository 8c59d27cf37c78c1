"""Does a scorer agree with itself: on other images, and on another training of the same network?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..core import Budget, DgpruneError, Domain, Scope, Scores, choice, cut_counts, said_once, tidy
from ..core import seed as seeded
from ..pruning import allocate, checked_ratio
from ..scorers import Scorer, resolve
from ..stats import ALL, Floats, Values, correlations, overlaps, random_matchings, weighted
from ..study import Study
from ._contract import diagnostic
from ._filter_matching import Match, matched, pooled_outputs
from .agreement import check_names, target_aware

Over = Literal["halves", "training_seeds"]
EXTRA = ("over", "pair", "group", "draw_seed")


@dataclass(frozen=True)
class _Asked:
    """What masks are compared, and the seed behind halves and random matchings."""

    ratio: float
    scope: Scope
    budget: Budget
    seed: int


@dataclass(frozen=True, eq=False)
class _Pair:
    """One scorer's numbers twice, filters put beside each other: what its rows are made of."""

    scorer: str
    words: str
    images: int
    ratio_achieved: float
    looked: str
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
    ratio: float = 0.5,
    over: Over = "halves",
    draws: int = 5,
    scope: Scope = "layer",
    budget: Budget = "filters",
    seed: int = 0,
    images: int = 1000,
) -> pd.DataFrame:
    """How alike a scorer's choices are when it is run twice.

    "halves": the `score` part of every domain is cut into two halves, stratified by label, `draws` times; the scorer
    runs on each half. A scorer that reads no images agrees with itself by construction: its value is 1 and its column
    `images` 0. A scorer that draws gets another seed for each half (interval "seeds").

    "training_seeds": every two of several trainings of one network. Filters of different trainings do not correspond by
    number, so within each layer they are matched one to one by the correlation of their outputs (spatial means) on the
    same source images, and the scores of matched filters are compared. A poor match says that the comparison means
    little.

    Metrics, per `group` (a layer, or "all") and `pair`; where `pair` is empty, the mean over the pairs:

    rank_correlation            Spearman's correlation, as in `agreement`, in [-1, 1].
    rank_correlation_by_chance  the same with the filters of each layer paired at random, 200 times: mean and 95 % range
                                (interval "random matchings"), of single pairs also where `pair` is empty.
    overlap, overlap_by_chance  of the filters that stay at this ratio, as in `agreement`, in [0, 1].
    match_correlation           of "training_seeds": mean correlation of the matched filters' outputs, in [-1, 1].

    The interval of a mean is the range over the pairs, named "halves", "seeds" or "training_seeds". Halves of the same
    images are not independent, nor are pairs that share a network: no t interval is given.

    Args:
        study: one study for "halves"; two or more of the same domains and layers for "training_seeds".
        scorers: names or Scorers; ready Scores cannot be made again.
        ratio, scope, of: of the masks whose overlap is told; scope also of the rank correlation.
        over: what differs between the two runs.
        draws: how often the images are halved.
        seed: of the halves, the random matchings and, counted on, of scorers that draw (column `draw_seed`).
        images: source images that filters are matched on, shared equally by the sources.

    Returns:
        A tidy table. `images` is, for "halves", what the scorer read in one half, over all domains (the smaller one's);
        for "training_seeds" what the filters were matched on. `target_aware` names the targets that the
        scorer looked at.

    Raises:
        DgpruneError: ready Scores; no draw; a part too small to be halved; one study where several are needed, or the
            reverse; trainings with other layers or domains.

    Source: ours; the matching is Li et al. 2016, on spatial means.
    """
    choice("over", over, Over)
    chosen, asked = [_runnable(item) for item in scorers], _Asked(checked_ratio(ratio), scope, budget, seed)
    check_names([item.name for item in chosen])
    with said_once():
        if over == "halves":
            pairs = list(_halved(study, chosen, draws=draws, asked=asked))
        else:
            pairs = list(_trained(study, chosen, images=images, asked=asked))
    shared = {"over": over, "scope": scope, "draw_seed": seed}
    rows = []
    for item in chosen:
        mine = [pair for pair in pairs if pair.scorer == item.name]
        interval = "seeds" if item.draws and over == "halves" else over
        parts = [*(_rows([pair], words=pair.words) for pair in mine), _rows(mine, interval=interval)]
        rows += [{**shared, **row} for part in parts for row in part]
    of_masks = {"ratio_requested": ratio, "budget": budget}
    return tidy(({**row, **(of_masks if row["unit"] == "share" else {})} for row in rows), extra=EXTRA)


def halves(study: Study, *, seed: int) -> tuple[Study, Study]:
    """Two studies of the same network, each with one half of every domain's `score` part, stratified by label.

    Raises:
        DgpruneError: a part of a single image.
    """
    parts = [_cut(domain, seed) for domain in study.domains]
    sources = len(study.sources)
    first, second = (
        Study(
            study.model,
            sources=[part[k] for part in parts[:sources]],
            targets=[part[k] for part in parts[sources:]],
            name=study.name,
            layers=study.layers,
            device=study.device,
        )
        for k in (0, 1)
    )
    return first, second


def _cut(domain: Domain, seed: int) -> tuple[Domain, Domain]:
    """A domain with either half of its `score` part; as it is, twice, where it has none."""
    rows = domain.splits.get("score")
    if rows is None:
        return domain, domain
    if len(rows) < 2:
        raise DgpruneError(f"domain {domain.name!r} has {len(rows)} image in its part 'score'; two halves need two.")
    labels = None if domain.labels is None else domain.labels.cpu()[rows]
    sizes = {"first": len(rows) // 2, "second": len(rows) - len(rows) // 2}
    parts = cut_counts(len(rows), labels, sizes, seed=seeded("halves", domain.name, seed))
    first, second = (replace(domain, splits={**domain.splits, "score": rows[part]}) for part in parts.values())
    return first, second


def _halved(study: Study | Sequence[Study], scorers: Sequence[Scorer], *, draws: int, asked: _Asked) -> Iterator[_Pair]:
    """Every scorer on both halves, draw by draw."""
    if not isinstance(study, Study):
        raise DgpruneError("over='halves' cuts the images of one study; pass a single one.")
    if draws < 1:
        raise DgpruneError(f"draws must be at least 1, the number of times the images are halved; got {draws}.")
    for draw in range(draws):
        parts = halves(study, seed=seeded("draw", asked.seed, draw))
        # A scorer that draws is never given the same seed twice; one that does not ignores it.
        found = [half.score_all(scorers, seed=asked.seed + 2 * draw + k) for k, half in enumerate(parts)]
        for two in zip(*found, strict=True):
            images = min(_images_read(half, scores) for half, scores in zip(parts, two, strict=True))
            yield _compared(*two, words=f"draw {draw}", images=images, study=study, asked=asked)


def _trained(
    studies: Study | Sequence[Study], scorers: Sequence[Scorer], *, images: int, asked: _Asked
) -> Iterator[_Pair]:
    """Every scorer on every two trainings, filters matched."""
    listed = [studies] if isinstance(studies, Study) else list(studies)
    _check_trainings(listed)
    names = [study.name for study in listed]
    if len(set(names)) < len(names):
        names = [f"{name} {k}" for k, name in enumerate(names)]
    outputs = [pooled_outputs(study, listed[0].sources, images=images) for study in listed]
    count = len(next(iter(outputs[0].values())))
    scores = [study.score_all(scorers, seed=asked.seed + k) for k, study in enumerate(listed)]
    for a, b in combinations(range(len(listed)), 2):
        matches, words = matched(outputs[a], outputs[b]), f"{names[a]} | {names[b]}"
        for two in zip(scores[a], scores[b], strict=True):
            yield _compared(*two, matches=matches, words=words, images=count, study=listed[0], asked=asked)


def _compared(
    first: Scores,
    second: Scores,
    *,
    words: str,
    images: int,
    study: Study,
    asked: _Asked,
    matches: Mapping[str, Match] | None = None,
) -> _Pair:
    """Everything that is told about one scorer's two runs."""
    masks = [allocate(scores, ratio=asked.ratio, scope=asked.scope, budget=asked.budget) for scores in (first, second)]
    other, kept = _in_order(second.values, matches), _in_order(masks[1].keep, matches)
    ranks = correlations(first.values, other, scope=asked.scope)
    numbers = {("rank_correlation", group): value for group, value in ranks.items()}
    for group, found in overlaps(masks[0].keep, kept, scope=asked.scope).items():
        numbers |= {("overlap", group): found.value, ("overlap_by_chance", group): found.chance}
    if matches is not None:
        alike = {name: float(match.correlation.mean()) for name, match in matches.items()}
        alike[ALL] = weighted(alike, {group.name: group.filters for group in first.graph.groups})
        numbers |= {("match_correlation", group): value for group, value in alike.items()}
    by_chance = random_matchings(first.values, other, scope=asked.scope, seed=seeded(words, asked.seed))
    seeds = [scores.options["seed"] for scores in (first, second) if "seed" in scores.options]
    words += f", seeds {seeds[0]} and {seeds[1]}" if seeds else ""
    got = (masks[0].ratio_achieved + masks[1].ratio_achieved) / 2
    return _Pair(first.scorer, words, images, got, target_aware(study, first), numbers, by_chance)


def _in_order(values: Values, matches: Mapping[str, Match] | None) -> Values:
    """One number per filter of the second network, put where its match of the first stands."""
    return values if matches is None else {name: held[matches[name].other] for name, held in values.items()}


def _rows(pairs: Sequence[_Pair], *, words: str | None = None, interval: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of one pair, or the mean over several with their range under the name of the interval."""
    one = pairs[0]
    shared = {"scorer": one.scorer, "pair": words, "images": one.images, "target_aware": one.looked}
    for metric, group in one.numbers:
        values = np.array([pair.numbers[metric, group] for pair in pairs])
        unit = "share" if metric.startswith("overlap") else "correlation"
        ends = {} if interval is None else {"low": values.min(), "high": values.max(), "interval": interval}
        got = {"ratio_achieved": np.mean([pair.ratio_achieved for pair in pairs])} if unit == "share" else {}
        yield {**shared, "group": group, "metric": metric, "value": values.mean(), "unit": unit, **ends, **got}
    for group in one.by_chance:
        drawn = np.concatenate([pair.by_chance[group] for pair in pairs])
        low, high = np.percentile(drawn, [2.5, 97.5])
        yield {
            **shared,
            "group": group,
            "metric": "rank_correlation_by_chance",
            "value": drawn.mean(),
            "low": low,
            "high": high,
            "interval": "random matchings",
            "unit": "correlation",
        }


def _images_read(study: Study, scores: Scores) -> int:
    """How many images these scores were made from."""
    parts = [key.rpartition("/") for key in scores.reads or {}]
    return sum(len(study.domain(domain).rows(split)) for domain, _, split in parts)


def _runnable(scorer: str | Scorer) -> Scorer:
    if isinstance(scorer, Scores):
        raise DgpruneError(
            f"the scores of {scorer.scorer!r} were passed in ready; stability must run the scorer twice."
        )
    return resolve(scorer)


def _check_trainings(studies: Sequence[Study]) -> None:
    if len(studies) < 2:
        raise DgpruneError(
            "over='training_seeds' compares networks of several trainings; pass a list of two or more studies, for "
            "example dg.training_seeds()."
        )
    layers = [[(group.name, group.filters) for group in study.graph.groups] for study in studies]
    for study, mine in zip(studies, layers, strict=True):
        if mine != layers[0]:
            raise DgpruneError(
                f"{study.name!r} and {studies[0].name!r} have other layers; trainings of one network do not."
            )
        if study.key != studies[0].key:
            raise DgpruneError(
                f"{study.name!r} and {studies[0].name!r} have other domains; only the training may differ."
            )
