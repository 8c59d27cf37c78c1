"""Which images turn from right to wrong, and which from wrong to right?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..core import BatchNorm, Budget, Count, Outcomes, Ratio, Scope, Scores, Seed, tidy
from ..scorers import Scorer
from ..stats import intervals
from ..study import Study
from ._contract import Rows, Steps, diagnostic
from ._removal import Removal, removal_cases

EXTRA = ("network", "group")


@diagnostic("flips", extra=EXTRA, cite="ours; the counts behind McNemar 1947, Psychometrika 12")
def flips(
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
    progress: bool = False,
) -> Steps:
    """Count, per domain, the images whose prediction changes when filters are removed.

    Metrics, each as a share of all N images in [0, 1] and, with the suffix `_count`, as a number of images:

    right_to_wrong   classified correctly before removal, incorrectly after.
    wrong_to_right   incorrectly before, correctly after; right_to_wrong - wrong_to_right is the accuracy lost (`drop`).
    changed          another class is predicted than before; the only metric of a domain without labels.

    Intervals (95 %, "images") are bootstraps over images; if no image flips, or every image does, they end at the
    exact binomial bound.

    Args:
        study: the network and its domains, or several studies with different names (column `network`).
        scorers, ratios, scope, budget, batchnorm, split, images, seed, progress: see `diagnostics.drop`.

    Raises:
        DgpruneError: no scorer or no ratio; two studies with one name; ready Scores for several networks.
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
    )
    cases = yield from removal_cases(study, removal, labelled=False)
    kinds = [flipped(case.before, case.predicted) for case in cases]
    rows = (row for case, flags in zip(cases, kinds, strict=True) for row in flip_rows(flags, case.columns()))
    return tidy(rows, extra=EXTRA)


def flipped(before: Outcomes, predicted: Tensor) -> dict[str, Tensor]:
    """Return metric -> (N,) bool, True for the images that flip, in the order of the split."""
    changed = {"changed": before.predicted != predicted}
    if before.labels is None or before.correct is None:
        return changed
    right_before, right_after = before.correct, predicted == before.labels
    return {"right_to_wrong": right_before & ~right_after, "wrong_to_right": ~right_before & right_after, **changed}


def flip_rows(kinds: Mapping[str, Tensor], shared: Mapping[str, Any]) -> Rows:
    """Return the rows of `flips` from the result of `flipped`: shares, then counts."""
    shared = {**shared, "interval": "images"}
    flags = np.stack([flag.double().cpu().numpy() for flag in kinds.values()], axis=1)
    ends = np.stack([flags.mean(0), *intervals.over_images(flags)])
    rows = []
    for suffix, unit, scale in (("", "share", 1), ("_count", "count", len(flags))):
        for k, name in enumerate(kinds):
            value, low, high = scale * ends[:, k]
            value = round(value) if unit == "count" else value
            rows.append({**shared, "metric": f"{name}{suffix}", "value": value, "low": low, "high": high, "unit": unit})
    return rows
