"""Names of scorers on screen, and whether they look at a target."""

from __future__ import annotations

from dataclasses import replace

from ...core import Scores, exposure_label, roles_of, scorer_exposure
from ...scorers import Scorer
from ...study import Study


def name_of(item: Scorer | Scores) -> str:
    """Return a scorer's name on the menu."""
    return item.name if isinstance(item, Scorer) else item.scorer


def plain_label(item: Scorer | Scores) -> str:
    """Return a scorer's label without the mark of its exposure."""
    return item.label if isinstance(item, Scorer) else item.scorer


def reads_target(item: Scorer | Scores, study: Study) -> bool:
    """Return whether a scorer will look at a target, before its scores are there."""
    return isinstance(item, Scorer) and "target" in item.reads and bool(study.targets)


def label(study: Study, item: Scorer | Scores) -> str:
    """Return a scorer's label wherever it is named; a target-aware one says so: "DSS ◇ target-aware"."""
    if isinstance(item, Scorer):
        return item.label + exposure_label("target-aware" if "target" in item.reads else "")
    alone = replace(study.provenance, scorer=item.reads, finetuning={}, selection={})
    aware = alone.target_aware(roles_of(study.domains))
    return item.scorer + exposure_label(scorer_exposure([{"target_aware": aware}]))
