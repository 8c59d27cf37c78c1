"""Words of a ratio or a choice on screen."""

from __future__ import annotations

from dataclasses import replace

from ...core import Scores, exposure_label, roles_of, scorer_exposure
from ...scorers import Scorer
from ...study import Study


def label(study: Study, item: Scorer | Scores) -> str:
    """A scorer's plain words wherever it is named; one that looked at a target says so: "Alike ◇ target-aware"."""
    if isinstance(item, Scorer):
        return item.label + exposure_label("target-aware" if "target" in item.reads else "")
    alone = replace(study.record, scorer=item.reads, tuning={}, selection={})
    return item.scorer + exposure_label(
        scorer_exposure([{"target_aware": alone.target_aware(roles_of(study.domains))}])
    )
