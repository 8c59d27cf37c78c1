"""Which images turn from right to wrong, and which from wrong to right?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from ..core import BatchNorm, Budget, Scope, Scores, progress_bar, tidy
from ..scorers import Scorer
from ..stats import intervals
from ..study import Study
from ._contract import diagnostic
from ._removal import Case, Removal, Steps, cases

EXTRA = ("network", "group")


@diagnostic("flips", extra=EXTRA, cite="ours; the counts behind McNemar 1947, Psychometrika 12")
def flips(
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
    progress: bool = False,
) -> pd.DataFrame:
    """How many images the full network read and the pruned one does not, and the reverse, per domain.

    Metrics, each as a share of all N images in [0, 1] and, with `_count` behind its name, as a number of images:

    right_to_wrong   right before, wrong after.
    wrong_to_right   wrong before, right after; right_to_wrong - wrong_to_right is the accuracy lost (`drop`).
    changed          another class is predicted than before; of a domain without labels all that can be told.

    Intervals (95 %, "images") are bootstraps over the images; where none (or all) turned, the exact binomial bound.

    Args:
        study: model and domains, or several of them, each under a name of its own (column `network`).
        scorers, ratios, scope, of, batchnorm, split, images, seed, progress: as of `diagnostics.drop`.

    Returns:
        A tidy table.

    Raises:
        DgpruneError: no scorer or no ratio; two studies of one name; ready Scores for several networks.
    """
    steps = flips_steps(
        study,
        scorers=scorers,
        ratios=ratios,
        scope=scope,
        budget=budget,
        batchnorm=batchnorm,
        split=split,
        images=images,
        seed=seed,
    )
    return progress_bar(steps, progress=progress)


def flips_steps(
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
) -> Steps:
    """`flips` as a generator: yields (done, total) after every batch."""
    asked = Removal(scorers, ratios, scope, budget, batchnorm, split, images, seed)
    found = yield from cases(study, asked, labelled=False)
    return tidy((row for case in found for row in flip_rows(case)), extra=EXTRA)


def flipped(case: Case) -> dict[str, Tensor]:
    """(N,) bool per metric, of the images in the order of the part; only "changed" without labels."""
    before, labels = case.before.predicted, case.before.labels
    changed = {"changed": before != case.predicted}
    if labels is None:
        return changed
    right, still = before == labels, case.predicted == labels
    return {"right_to_wrong": right & ~still, "wrong_to_right": ~right & still, **changed}


def flip_rows(case: Case) -> list[dict[str, Any]]:
    """The rows of one case: shares, then counts."""
    found, shared = flipped(case), {**case.columns(), "interval": "images"}
    turned = np.stack([part.double().cpu().numpy() for part in found.values()], axis=1)
    ends = np.stack([turned.mean(0), *intervals.over_images(turned)])
    rows = []
    for suffix, unit, scale in (("", "share", 1), ("_count", "count", len(turned))):
        for k, name in enumerate(found):
            value, low, high = scale * ends[:, k]
            value = round(value) if unit == "count" else value
            rows.append({**shared, "metric": f"{name}{suffix}", "value": value, "low": low, "high": high, "unit": unit})
    return rows
