"""How many networks of a table converged, by level of each hyperparameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..core import Tidy, network_table, public


@public
def convergence(frame: Tidy, *, hyperparameters: Sequence[str]) -> pd.DataFrame:
    """Return how many networks converged at each level of each hyperparameter.

    Leaving out those that did not converge is a selection: where the shares differ, the remaining grid is incomplete.

    Args:
        frame, hyperparameters: see `predictors`; the column `converged` is False where training did not converge.

    Returns:
        A row per hyperparameter and level, and one for all: networks, converged, dropped, share_converged.

    Raises:
        DgpruneError: an unknown column; a table without measures or outcomes.
    """
    settings = network_table(frame, hyperparameters=hyperparameters).settings
    rows = []
    for name in hyperparameters:
        for level, part in settings.groupby(name, dropna=False):
            rows.append({"hyperparameter": name, "level": level, **_counts(part)})
    rows.append({"hyperparameter": "all", "level": "", **_counts(settings)})
    return pd.DataFrame(rows).astype({"level": object})


def _counts(settings: Any) -> dict[str, Any]:
    converged = int(settings["converged"].sum())
    share = converged / len(settings)
    dropped = len(settings) - converged
    return {"networks": len(settings), "converged": converged, "dropped": dropped, "share_converged": share}
