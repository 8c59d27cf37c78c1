"""Who looks at what? What each scorer of the menu reads of a study's domains, and which cannot run."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..core import Provenance, Seen, roles_of
from ..scorers import SCORERS, Scorer, resolve
from ..study import Study


def data_access(study: Study, scorers: Sequence[str | Scorer] | None = None) -> pd.DataFrame:
    """A row per scorer: what it reads of the domains trained on and of the new looks, and why it cannot run here.

    It lists what a scorer declares, which is the most that it can read: any other read raises. What a score has really
    read stands in `Scores.reads` and in the seen_by_scorer column of every table.

    Args:
        study: model and domains.
        scorers: names or Scorers; the whole menu where not given.

    Returns:
        Columns scorer, label, of_sources and of_targets ("none", "images" or "labels"), target_aware (names of targets,
        or "none"), unavailable (a sentence, or empty).
    """
    chosen = [resolve(item) for item in (SCORERS if scorers is None else scorers)]
    return pd.DataFrame(
        [
            {
                "scorer": item.name,
                "label": item.label,
                "of_sources": item.reads.get("source", "none"),
                "of_targets": item.reads.get("target", "none"),
                "target_aware": _aware(study, item),
                "unavailable": study.unavailable(item) or "",
            }
            for item in chosen
        ]
    )


def _aware(study: Study, scorer: Scorer) -> str:
    reads: dict[str, Seen] = {
        f"{domain.name}/score": scorer.reads[role]
        for domain in study.domains
        if (role := domain.role) is not None and role in scorer.reads
    }
    return Provenance(scorer=reads).target_aware(roles_of(study.domains))
