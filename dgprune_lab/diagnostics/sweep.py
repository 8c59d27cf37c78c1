"""Accuracy, loss and size of the pruned network over a range of ratios, for several scorers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from ..core import (
    BatchNorm,
    Budget,
    Count,
    DgpruneError,
    Mask,
    Outcomes,
    Ratio,
    Repeats,
    Scope,
    Scores,
    Seed,
    Share,
    Whole,
    public,
    tidy,
    yielding,
)
from ..pruning import allocate
from ..scorers import Scorer, resolve
from ..stats import intervals
from ..study import Study, remaining_cost
from ._contract import Row, Rows, Steps, diagnostic
from ._removal import check_names, check_network_count, mask_cells
from ._workers import evaluate_in_workers


@public
def grid(start: Share, stop: Share, count: Repeats) -> list[float]:
    """Return `count` ratios from start to stop, evenly spaced, rounded so that 0.15 is 0.15.

    >>> grid(0, 0.95, 20)[:4]
    [0.0, 0.05, 0.1, 0.15]
    """
    return [round(float(value), 6) for value in np.linspace(start, stop, count)]


EXTRA = ("prunable", "of_all")


@diagnostic("sweep", extra=EXTRA)
def sweep(
    study: Study,
    *,
    scorers: Sequence[str | Scorer | Scores] = ("random", "l1", "taylor"),
    ratios: Sequence[Ratio] | None = None,
    seeds: Whole | Sequence[Seed] = 1,
    scope: Scope = "layer",
    budget: Budget = "filters",
    batchnorm: BatchNorm = "recalibrate",
    split: str = "report",
    images: Count | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Steps:
    """Return accuracy and loss per domain and the remaining size, for every scorer at every ratio; no fine-tuning.

    Args:
        ratios: shares to remove; 0, .05, ..., .95 by default.
        seeds: number of draws of a scorer that draws, or their seeds; others run once and their column `seed` is empty.
        executor: evaluates the networks in its workers, one thread each, such as `ProcessPoolExecutor(2)`; the rows are
            the same. The scores are computed in this process, so scorers need not be picklable; the study
            must be, except where workers are forked, as on Linux before Python 3.14.
        study, scorers, scope, budget, batchnorm, split, images, progress: see `diagnostics.drop`.

    Returns:
        A tidy table: metrics accuracy and loss per domain (with paired bootstrap intervals over images); remaining
        filters, parameters, macs and bytes. Columns `prunable` and `of_all`: the number of filters that can be pruned,
        and of all filters (`study.graph.refused` says why some cannot); a ratio is a share of those that can be pruned.

    Raises:
        DgpruneError: no ratio, no scorer or no seed; two scorers with one name; more than 10,000 networks.
    """
    all_ratios = grid(0, 0.95, 20) if ratios is None else [float(ratio) for ratio in ratios]
    numbers = range(seeds) if isinstance(seeds, int) else seeds
    if not all_ratios or not scorers or not numbers:
        raise DgpruneError("a sweep needs at least one ratio, one scorer and one seed.")
    items = [item if isinstance(item, Scores) else resolve(item) for item in scorers]
    check_names(items)
    check_network_count(len(all_ratios) * sum(len(numbers) if isinstance(i, Scorer) and i.draws else 1 for i in items))
    with study.assume_unchanged():
        masks = [
            (seed, allocate(scores, ratio=ratio, scope=scope, budget=budget))
            for seed, scores in _scores(study, items, seeds=numbers)
            for ratio in all_ratios
        ]
        options = {"split": split, "batchnorm": batchnorm, "images": images}
        outcomes = yield from _outcomes(study, [mask for _, mask in masks], options=options, executor=executor)
    rows: Rows = []
    for domain in study.domains:
        cells = [
            {**mask_cells(study, mask, batchnorm=batchnorm, domain=domain, split=split), "seed": s} for s, mask in masks
        ]
        rows += _rows(cells, outcomes[domain.name])
    for seed, mask in masks:
        shared = {**mask_cells(study, mask, batchnorm=batchnorm), "seed": seed}
        rows += [{**shared, "metric": name, "value": value, "unit": unit} for name, value, unit in remaining_cost(mask)]
    prunable_of_all = {"prunable": study.graph.free, "of_all": study.graph.total}
    return tidy(({**row, **prunable_of_all} for row in rows), extra=EXTRA)


def _outcomes(
    study: Study, masks: Sequence[Mask], *, options: dict[str, Any], executor: Executor | None
) -> Generator[tuple[int, int], None, dict[str, list[Outcomes]]]:
    """Return domain -> the outcomes of each mask; yields (done, total)."""
    if executor is not None:
        return (yield from evaluate_in_workers(executor, study, masks, options=options))
    outcomes: dict[str, list[Outcomes]] = {domain.name: [] for domain in study.domains}
    total = len(masks) * len(outcomes)
    for mask in masks:
        for name, results in outcomes.items():
            done = sum(map(len, outcomes.values()))
            results.append((yield from yielding(study.steps(mask, domain=name, **options), (done, total))))
            yield done + 1, total
    return outcomes


def _scores(
    study: Study, items: Sequence[Scorer | Scores], *, seeds: Sequence[int]
) -> Iterator[tuple[int | None, Scores]]:
    """Yield (seed, Scores): for a scorer that draws one per seed, for any other scorer a single one with seed None."""
    deterministic = [item for item in items if isinstance(item, Scores) or not item.draws]
    ready = dict(zip(map(id, deterministic), study.score_all(deterministic), strict=True)) if deterministic else {}
    for item in items:
        if id(item) in ready:
            yield None, ready[id(item)]
        else:
            yield from ((seed, study.score(item, seed=seed)) for seed in seeds)


def _rows(cells: Sequence[Row], outcomes: Sequence[Outcomes]) -> Iterator[Row]:
    """Yield the rows of accuracy and loss of each mask on one domain (none without labels), with one bootstrap."""
    correct = [outcome.correct.double().numpy() for outcome in outcomes if outcome.correct is not None]
    if not correct:
        return
    values = np.stack([*correct, *(outcome.loss.numpy() for outcome in outcomes)], axis=1)
    numbers = np.stack([values.mean(0), *intervals.over_images(values)])
    for k, (shared, outcome) in enumerate(zip(cells, outcomes, strict=True)):
        for column, metric, unit in ((k, "accuracy", "share"), (k + len(outcomes), "loss", "nats")):
            value, low, high = numbers[:, column]
            shared = {**shared, "images": len(outcome), "interval": "images", "unit": unit}
            yield {**shared, "metric": metric, "value": value, "low": low, "high": high}
