"""How much does removal hurt at once?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from .. import intervals
from ..allocate import allocate
from ..contract import Scorer, diagnostic
from ..recipes import mask_columns, mask_record
from ..study import Study
from ..types.filters import Scores
from ..types.outcomes import Outcomes
from ..types.record import roles_of
from ..types.tables import BatchNorm, Of, Scope, tidy


@diagnostic(
    "drop",
    cite="Bartoldson et al. 2020, The Generalization-Stability Tradeoff, NeurIPS, section 3 (the drop at one event)",
)
def drop(
    study: Study,
    *,
    scorers: Sequence[str | Scorer | Scores] = ("l1",),
    ratios: Sequence[float] = (0.5,),
    scope: Scope = "layer",
    of: Of = "filters",
    batchnorm: BatchNorm = "as_is",
    split: str = "report",
    images: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Change of accuracy against the full network as given, per domain, with no training in between.

    value = accuracy(pruned) - accuracy(full), in shares: negative where removal hurts. The interval is a paired
    bootstrap over the same images. It says how much removal hurts at once, and nothing yet about generalisation.

    Args:
        study: model and domains.
        scorers: names, Scorers or Scores.
        ratios: shares removed.
        scope: same share in every layer, or the lowest scores anywhere.
        of: what the ratio counts.
        batchnorm: of the pruned network; the full network is never recalibrated.
        split: part that is reported.
        images: only the first so many.
        seed: for a scorer that draws.
    """
    rows = []
    for scores in study.score_all(scorers, seed=seed):
        for ratio in ratios:
            mask = allocate(scores, ratio=ratio, scope=scope, of=of)
            record = mask_record(study.record, mask, batchnorm=batchnorm, study=study)
            for domain in study.domains:
                full = study.outcomes(None, domain=domain.name, split=split, images=images)
                after = study.outcomes(mask, domain=domain.name, split=split, batchnorm=batchnorm, images=images)
                found = change(after, full)
                if found is None:
                    continue
                value, low, high = found
                rows.append({
                    **mask_columns(mask), "batchnorm": batchnorm, "seed": scores.options.get("seed"),
                    "training_seed": study.training_seed,
                    "domain": domain.name,
                    "role": domain.role, "split": split, "images": len(after), "metric": "change", "value": value,
                    "low": low, "high": high, "interval": "images", "unit": "share",
                    **record.columns(domain.name, split, roles=roles_of(study.domains)),
                })  # fmt: skip
    return tidy(rows)


def change(after: Outcomes, full: Outcomes) -> tuple[float, float, float] | None:
    """Accuracy after minus before on the same images, with its paired interval; None without labels."""
    if after.correct is None or full.correct is None:
        return None
    values = after.correct.double().numpy(), full.correct.double().numpy()
    return after.accuracy - full.accuracy, *intervals.difference(*values)
