"""How much does removal hurt at once?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core import BatchNorm, Budget, Outcomes, Scope, Scores, choice, progress_bar, tidy
from ..scorers import Scorer
from ..stats import intervals
from ..study import Study
from ._contract import diagnostic
from ._removal import Case, Removal, Steps, cases

By = Literal["domain", "class", "layer"]
EXTRA = ("network", "group", "class")
LEAST = 5  # a class of fewer images has no share worth telling

Floats = NDArray[np.float64]


@diagnostic(
    "drop",
    extra=EXTRA,
    cite="Bartoldson et al. 2020, The Generalization-Stability Tradeoff, NeurIPS, section 3 (the drop at one event)",
)
def drop(
    study: Study | Sequence[Study],
    *,
    scorers: Sequence[str | Scorer | Scores] = ("l1",),
    ratios: Sequence[float] = (0.5,),
    scope: Scope = "layer",
    budget: Budget = "filters",
    batchnorm: BatchNorm = "as_is",
    split: str = "report",
    images: int | None = None,
    seed: int = 0,
    by: By = "domain",
    progress: bool = False,
) -> pd.DataFrame:
    """What removal costs at once, per domain, with no training in between: absolute and relative.

    With a the accuracy before (the full network as given) and b after, on the same images:

    change         b - a, in shares, in [-1, 1]: negative where removal hurts.
    relative_drop  (a - b) / a, at most 1: positive where removal hurts; negative where it helps. It is empty where a is
                   at chance: where the lower end of the 95 % interval of a is not above 1 / (number of classes).

    Intervals (95 %, "images") are bootstraps over the images, paired: each resample has both accuracies. It says how
    much removal hurts at once, and nothing yet about generalisation.

    Args:
        study: model and domains, or several of them, each under a name of its own (column `network`).
        scorers: names, Scorers or Scores.
        ratios: shares removed.
        scope: same share in every layer, or the lowest scores anywhere.
        of: what the ratio counts.
        batchnorm: of the pruned network; the full network is never recalibrated.
        split: part that is reported.
        images: only the first so many of each domain: an estimate, as column `images` shows.
        seed: for a scorer that draws.
        by: "class" adds rows for each true class (column `class`), empty below 5 images. "layer" removes from one
            layer alone at a time, the others stay whole: one row per layer (column `group`, in the order of
            execution), whose `ratio_achieved` is the share of that layer's filters.
        progress: draw a tqdm bar.

    Returns:
        A tidy table; domains without labels are left out.

    Raises:
        DgpruneError: no scorer or no ratio; two studies of one name; ready Scores for several networks; by="layer" with
            another scope or count than "layer" and "filters".

    Source: Bartoldson et al. 2020, section 3, whose instability is `relative_drop`; intervals, classes and layers are
    ours. The paper measures on test images during training: that is another number.
    """
    steps = drop_steps(
        study,
        scorers=scorers,
        ratios=ratios,
        scope=scope,
        budget=budget,
        batchnorm=batchnorm,
        split=split,
        images=images,
        seed=seed,
        by=by,
    )
    return progress_bar(steps, progress=progress)


def drop_steps(
    study: Study | Sequence[Study],
    *,
    scorers: Sequence[str | Scorer | Scores] = ("l1",),
    ratios: Sequence[float] = (0.5,),
    scope: Scope = "layer",
    budget: Budget = "filters",
    batchnorm: BatchNorm = "as_is",
    split: str = "report",
    images: int | None = None,
    seed: int = 0,
    by: By = "domain",
) -> Steps:
    """`drop` as a generator: yields (done, total) after every batch, for whoever must be able to stop."""
    choice("by", by, By)
    asked = Removal(scorers, ratios, scope, budget, batchnorm, split, images, seed, one_layer=by == "layer")
    found = yield from cases(study, asked, labelled=True)
    return tidy(drop_rows(found, classes=by == "class"), extra=EXTRA).astype({"class": "Int64"})


def drop_rows(found: Sequence[Case], *, classes: bool = False) -> list[dict[str, Any]]:
    """The rows of these cases, in their order; all masks of one network and domain share one bootstrap."""
    together: dict[tuple[str, str, int], list[int]] = {}
    for place, case in enumerate(found):
        together.setdefault((case.study.name, case.domain.name, len(case.before)), []).append(place)
    rows: dict[int, list[dict[str, Any]]] = {place: [] for place in range(len(found))}
    for places in together.values():
        for place, made in _together([found[place] for place in places], classes):
            rows[places[place]].append(made)
    return [row for made in rows.values() for row in made]


def _together(mine: Sequence[Case], classes: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of one network and domain, each with the number of its case."""
    pairs = [pair for case in mine if (pair := case.right) is not None]
    labels, domain = mine[0].before.labels, mine[0].domain
    if labels is None:
        return
    before, after = pairs[0][0], np.stack([right for _, right in pairs], axis=1)
    shared, truth = [case.columns() for case in mine], labels.cpu().numpy()
    for label in (None, *(range(domain.classes) if classes else ())):
        rows = np.arange(len(truth)) if label is None else np.flatnonzero(truth == label)
        numbers = np.full((6, len(mine)), np.nan)
        if label is None or len(rows) >= LEAST:
            numbers = _numbers(after[rows], before[rows], classes=domain.classes)
        about = {"class": label, "images": len(rows), "interval": "images", "unit": "share"}
        for k, columns in enumerate(shared):
            for place, metric in ((0, "change"), (3, "relative_drop")):
                value, low, high = numbers[place : place + 3, k]
                yield k, {**columns, **about, "metric": metric, "value": value, "low": low, "high": high}


def change(after: Outcomes, full: Outcomes) -> tuple[float, float, float] | None:
    """Accuracy after minus before on the same images, with its paired interval; None without labels."""
    if after.correct is None or full.correct is None:
        return None
    values = after.correct.double().numpy(), full.correct.double().numpy()
    return after.accuracy - full.accuracy, *intervals.difference(*values)


def _numbers(after: Floats, before: Floats, *, classes: int) -> Floats:
    """(6, K): change and relative drop, each with low and high, of K masks."""
    lost = before.mean() - after.mean(0)
    change = np.stack([after.mean(0) - before.mean(), *intervals.differences(after, before)])
    if intervals.at_chance(before, classes=classes):
        return np.concatenate([change, np.full_like(change, np.nan)])
    return np.concatenate([change, np.stack([lost / before.mean(), *intervals.relative_drops(after, before)])])
