"""Which data does each scorer of the menu read, and which scorers cannot run on a study?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..core import Provenance, Seen, public, roles_of
from ..scorers import SCORERS, Scorer, resolve
from ..study import Study


@public
def data_access(study: Study, scorers: Sequence[str | Scorer] | None = None) -> pd.DataFrame:
    """Return a row per scorer: its reads of source and target domains, and why it cannot run on the study, if so.

    These are the declared reads, the most that a scorer can read: any other read raises. What was actually
    read is in `Scores.reads` and in the column seen_by_scorer of every table.

    Args:
        study: the network and its domains.
        scorers: names or Scorers; the whole menu by default.

    Returns:
        A table with the columns scorer, label, source_access and target_access ("none", "images" or "labels"),
        target_aware (whether the scorer reads a target), unavailable (why it cannot run, or empty).
    """
    rows = []
    for item in map(resolve, SCORERS if scorers is None else scorers):
        reads: dict[str, Seen] = {
            f"{domain.name}/score": item.reads[role]
            for domain in study.domains
            if (role := domain.role) is not None and role in item.reads
        }
        rows.append(
            {
                "scorer": item.name,
                "label": item.label,
                "source_access": item.reads.get("source", "none"),
                "target_access": item.reads.get("target", "none"),
                "target_aware": Provenance(scorer=reads).target_aware(roles_of(study.domains)),
                "unavailable": study.unavailable(item) or "",
            }
        )
    return pd.DataFrame(rows)
