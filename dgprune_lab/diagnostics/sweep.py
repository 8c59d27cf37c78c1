"""Recipes over a study: the demos, and a sweep over ratios and scorers."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..core import (
    BatchNorm,
    Budget,
    DgpruneError,
    Mask,
    Outcomes,
    Scope,
    Scores,
    progress_bar,
    roles_of,
    tidy,
    yielding,
)
from ..pruning import allocate
from ..scorers import Scorer, resolve
from ..stats import intervals
from ..study import Study, left, mask_columns, mask_provenance


def grid(start: float, stop: float, count: int) -> list[float]:
    """`count` ratios from start to stop, evenly spaced, rounded so that 0.15 is 0.15.

    >>> grid(0, 0.95, 20)[:4]
    [0.0, 0.05, 0.1, 0.15]
    """
    return [round(float(value), 6) for value in np.linspace(start, stop, count)]


def sweep(
    study: Study,
    *,
    scorers: Sequence[str | Scorer | Scores] = ("random", "l1", "taylor"),
    ratios: Sequence[float] | None = None,
    seeds: int | Sequence[int] = 1,
    scope: Scope = "layer",
    budget: Budget = "filters",
    batchnorm: BatchNorm = "as_is",
    split: str = "report",
    images: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Accuracy and loss per domain, and what is left, at every ratio by every scorer; no fine-tuning.

    Args:
        study: model and domains.
        scorers: names, Scorers or Scores.
        ratios: shares removed; 0, .05, ..., .95 where not given.
        seeds: how many draws (or which) of a scorer that draws; others run once and their column `seed` is empty.
        scope: same share in every layer, or the lowest scores anywhere.
        of: what the ratio counts.
        batchnorm: "as_is", or statistics re-estimated on source images after each removal.
        split: part that is reported.
        images: only the first so many of each domain.
        progress: draw a tqdm bar.

    Returns:
        A tidy table: metrics accuracy and loss (with paired bootstrap intervals over images) per domain; filters,
        parameters, macs and bytes left.
    """
    steps = sweep_steps(
        study,
        scorers=scorers,
        ratios=ratios,
        seeds=seeds,
        scope=scope,
        budget=budget,
        batchnorm=batchnorm,
        split=split,
        images=images,
    )
    return progress_bar(steps, progress=progress)


def sweep_steps(
    study: Study,
    *,
    scorers: Sequence[str | Scorer | Scores],
    ratios: Sequence[float] | None = None,
    seeds: int | Sequence[int] = 1,
    scope: Scope = "layer",
    budget: Budget = "filters",
    batchnorm: BatchNorm = "as_is",
    split: str = "report",
    images: int | None = None,
) -> Generator[tuple[int, int], None, pd.DataFrame]:
    """`sweep` as a generator: yields (done, total) after every network that was evaluated on a domain."""
    asked = grid(0, 0.95, 20) if ratios is None else [float(ratio) for ratio in ratios]
    drawn = range(seeds) if isinstance(seeds, int) else seeds
    if not asked or not scorers or not drawn:
        raise DgpruneError("a sweep needs at least one ratio, one scorer and one seed.")
    with study.held():
        masks = list(_masks(study, scorers, asked, drawn, scope, budget))
        total, done, found = len(masks) * len(study.domains), 0, []
        for seed, mask in masks:
            shared = _shared(study, mask, seed, batchnorm)
            for domain in study.domains:
                steps = study.steps(mask, domain=domain.name, split=split, batchnorm=batchnorm, images=images)
                outcomes = yield from yielding(steps, (done, total))
                found.append((shared, mask, domain, outcomes))
                done += 1
                yield done, total
    rows = _rows(study, found, split)
    for seed, mask in masks:
        shared = _shared(study, mask, seed, batchnorm)
        rows += [{**shared, "metric": metric, "value": value, "unit": unit} for metric, value, unit in left(mask)]
    return tidy(rows)


def _shared(study: Study, mask: Mask, seed: int | None, batchnorm: BatchNorm) -> dict[str, Any]:
    """The cells that all rows about one network share."""
    record = mask_provenance(study.record, mask, batchnorm=batchnorm, study=study)
    return {
        **mask_columns(mask),
        "seed": seed,
        "training_seed": study.training_seed,
        "batchnorm": batchnorm,
        "target_aware": record.target_aware(roles_of(study.domains)),
    }


def _masks(
    study: Study,
    scorers: Sequence[str | Scorer | Scores],
    ratios: Sequence[float],
    seeds: Sequence[int],
    scope: Scope,
    budget: Budget,
) -> Generator[tuple[int | None, Mask], None, None]:
    named = [s if isinstance(s, Scores) else resolve(s) for s in scorers]
    steady = [s for s in named if isinstance(s, Scores) or not s.draws]
    ready = dict(zip(map(id, steady), study.score_all(steady), strict=True)) if steady else {}
    for item in named:
        drawn = (
            [(None, ready[id(item)])] if id(item) in ready else [(seed, study.score(item, seed=seed)) for seed in seeds]
        )
        for seed, scores in drawn:
            for ratio in ratios:
                yield seed, allocate(scores, ratio=ratio, scope=scope, budget=budget)


def _rows(study: Study, found: list[tuple[dict[str, Any], Mask, Any, Outcomes]], split: str) -> list[dict[str, Any]]:
    """A row per metric and measurement; all measurements of a domain share one bootstrap."""
    rows = []
    for domain in dict.fromkeys(entry[2] for entry in found):
        mine = [entry for entry in found if entry[2] is domain]
        correct = [o.correct.double().numpy() for *_, o in mine if o.correct is not None]
        if not correct:
            continue
        stacked = np.concatenate([np.stack(correct, 1), np.stack([o.loss.numpy() for *_, o in mine], 1)], axis=1)
        low, high = intervals.over_images(stacked)
        mean = stacked.mean(0)
        for k, (shared, mask, _, outcomes) in enumerate(mine):
            record = mask_provenance(study.record, mask, batchnorm=shared["batchnorm"], study=study)
            seen = record.columns(domain.name, split, roles=roles_of(study.domains))
            for offset, metric, unit in ((0, "accuracy", "share"), (len(mine), "loss", "nats")):
                rows.append(
                    {
                        **shared,
                        "domain": domain.name,
                        "role": domain.role,
                        "split": split,
                        "images": len(outcomes),
                        "metric": metric,
                        "value": mean[k + offset],
                        "low": low[k + offset],
                        "high": high[k + offset],
                        "interval": "images",
                        "unit": unit,
                        **seen,
                    }
                )
    return rows
