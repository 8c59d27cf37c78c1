"""How much accuracy does removal cost, before any fine-tuning?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from ..core import BatchNorm, Budget, Count, Outcomes, Ratio, Scope, Scores, Seed, tidy
from ..scorers import Scorer
from ..stats import Floats, intervals
from ..study import Study
from ._contract import Row, Rows, Steps, diagnostic
from ._removal import Case, Removal, removal_cases

By = Literal["domain", "class", "layer"]
EXTRA = ("network", "group", "class", "class_name")
MIN_CLASS_IMAGES = 5  # with fewer, the values of a class are empty


@diagnostic(
    "drop",
    extra=EXTRA,
    cite="Bartoldson et al. 2020, The Generalization-Stability Tradeoff, NeurIPS, section 3 (the drop at one event)",
)
def drop(
    study: Study | Sequence[Study],
    *,
    scorers: Sequence[str | Scorer | Scores] = ("l1",),
    ratios: Sequence[Ratio] = (0.5,),
    scope: Scope = "layer",
    budget: Budget = "filters",
    batchnorm: BatchNorm = "recalibrate",
    split: str = "report",
    images: Count | None = None,
    seed: Seed = 0,
    by: By = "domain",
    progress: bool = False,
) -> Steps:
    """Return the absolute and relative drop of accuracy per domain, right after removal.

    With a the accuracy before (the full network as given) and b after, on the same images:

    accuracy_change  b - a, in shares, in [-1, 1]: negative where removal hurts.
    relative_drop    (a - b) / a, at most 1: positive where removal hurts, negative where it helps. Empty where a is at
                     chance: where the lower end of the 95 % interval of a is not above 1 / (number of classes).

    Intervals (95 %, "images") are paired bootstraps over images: each resample gives both accuracies. The drop is not a
    measure of generalisation.

    Args:
        study: the network and its domains, or several studies with different names (column `network`).
        scorers: names, Scorers or Scores.
        ratios: shares to remove.
        scope, budget: see `allocate`.
        batchnorm: setting of the pruned network: "recalibrate" re-estimates BatchNorm statistics on source images after
            removal, see `dg.recalibrate`; "as_is" does not. The full network is never recalibrated, so the change at
            ratio 0 is the effect of recalibration.
        split: the split that is evaluated.
        images: evaluate only the first `images` images of each domain; the column `images` shows how many.
        seed: random seed of scorers that draw.
        by: "class" adds rows for each true class (columns `class` and `class_name`), whose values are empty for a class
            of fewer than 5 images. "layer" prunes one layer at a time: a row per layer (column `group`, in the order of
            execution), whose `ratio_achieved` is a share of that layer's filters.
        progress: whether to show a progress bar.

    Returns:
        A tidy table; domains without labels are left out.

    Raises:
        DgpruneError: no scorer or no ratio; two studies with one name; ready Scores for several networks; by="layer"
            with another scope or budget than "layer" and "filters".

    Source: Bartoldson et al. 2020, section 3, whose instability is `relative_drop`; intervals, classes and layers are
    ours. The paper measures on test images during training: a different quantity.
    """
    removal = Removal(
        scorers=scorers,
        ratios=ratios,
        scope=scope,
        budget=budget,
        batchnorm=batchnorm,
        split=split,
        images=images,
        seed=seed,
        one_layer=by == "layer",
    )
    cases = yield from removal_cases(study, removal, labelled=True)
    return tidy(drop_rows(cases, classes=by == "class"), extra=EXTRA).astype({"class": "Int64"})


def drop_rows(cases: Sequence[Case], *, classes: bool = False) -> Rows:
    """Return the rows of `drop`, in the order of the cases; all masks of a network and domain share one bootstrap."""
    case_indices: dict[tuple[str, str, int], list[int]] = {}
    for k, case in enumerate(cases):
        case_indices.setdefault((case.study.name, case.domain.name, len(case.before)), []).append(k)
    rows: list[Rows] = [[] for _ in cases]
    for indices in case_indices.values():
        for k, row in _domain_rows([cases[index] for index in indices], classes):
            rows[indices[k]].append(row)
    return [row for case_rows in rows for row in case_rows]


def _domain_rows(cases: Sequence[Case], classes: bool) -> Iterator[tuple[int, Row]]:
    """Yield (index of the case, row) for the cases of one network and domain."""
    full, domain = cases[0].before, cases[0].domain
    labels, right = full.labels, full.correct
    if labels is None or right is None:
        return
    before = right.double().cpu().numpy()
    after = np.stack([(case.predicted == labels).double().cpu().numpy() for case in cases], axis=1)
    columns, truth = [case.columns() for case in cases], labels.cpu().numpy()
    for label in (None, *(range(domain.classes) if classes else ())):
        rows = np.arange(len(truth)) if label is None else np.flatnonzero(truth == label)
        estimates = np.full((6, len(cases)), np.nan)
        if label is None or len(rows) >= MIN_CLASS_IMAGES:
            estimates = _estimate_changes(after[rows], before[rows], classes=domain.classes)
        name = None if label is None or not domain.class_names else domain.class_label(label)
        shared = {"class": label, "class_name": name, "images": len(rows), "interval": "images", "unit": "share"}
        for k, cells in enumerate(columns):
            for start, metric in ((0, "accuracy_change"), (3, "relative_drop")):
                value, low, high = estimates[start : start + 3, k]
                yield k, {**cells, **shared, "metric": metric, "value": value, "low": low, "high": high}


def accuracy_change(after: Outcomes, full: Outcomes) -> tuple[float, float, float] | None:
    """Return the accuracy after minus that before, low and high, paired by image; None without labels."""
    if after.correct is None or full.correct is None:
        return None
    values = after.correct.double().numpy(), full.correct.double().numpy()
    return after.accuracy - full.accuracy, *intervals.difference(*values)


def _estimate_changes(after: Floats, before: Floats, *, classes: int) -> Floats:
    """Return (6, K): accuracy change, its low and high, relative drop, its low and high, for K masks."""
    change = after.mean(0) - before.mean()
    absolute = np.stack([change, *intervals.differences(after, before)])
    if intervals.at_chance(before, classes=classes):
        return np.concatenate([absolute, np.full_like(absolute, np.nan)])
    return np.concatenate([absolute, np.stack([-change / before.mean(), *intervals.relative_drops(after, before)])])
