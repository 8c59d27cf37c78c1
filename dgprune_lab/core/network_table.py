"""The networks of a tidy table, a line each: hyperparameters, measures, and how each network generalises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .errors import DgpruneError, unknown
from .tables import COLUMNS

OUTCOMES: Mapping[str, str] = {"loss": "lower", "error": "lower", "accuracy": "higher", "generalization_gap": "lower"}
"""Metric of a network on images that it was not trained on -> the better direction."""
_SEED, _REPORTED = "training_seed", "report"


@dataclass(frozen=True, kw_only=True)
class NetworkTable:
    """Trained networks, a line each, in the order of the table.

    Attributes:
        settings: DataFrame of the hyperparameters, training_seed and converged (bool).
        measures: DataFrame with a column per measure, as it is in the table.
        outcomes: (outcome, domain) -> Series of its values, as they are in the table.
        better: measure or outcome -> "lower" or "higher".
        rows: measure or (outcome, domain) -> one of its rows, for the cells that all its rows share.
    """

    settings: Any
    measures: Any
    outcomes: Mapping[tuple[str, str], Any]
    better: Mapping[str, str]
    rows: Mapping[Any, dict[str, Any]]


def network_table(frame: pd.DataFrame, *, hyperparameters: Sequence[str]) -> NetworkTable:
    """Return the networks of a tidy table, identified by their hyperparameters and training seed.

    A measure is a metric whose rows state in `better_direction` which direction should generalise better; an
    outcome is a metric of `OUTCOMES` on the reported split of a domain.

    Raises:
        DgpruneError: a column that is missing; a `better_direction` that is neither "lower" nor "higher", or differs
            within a measure; a `converged` that is neither True nor False; no measure or no outcome; two values of one
            measure or outcome for one network.
    """
    for name in (*hyperparameters, _SEED, "better_direction"):
        if name not in frame.columns:
            raise unknown("column", name, [str(column) for column in frame.columns if column not in COLUMNS])
    keys = [*dict.fromkeys([*hyperparameters, _SEED])]
    for direction in frame["better_direction"].dropna().unique():
        if direction not in ("lower", "higher"):
            raise unknown("better_direction", direction, ("lower", "higher"))
    groups: Any = frame.groupby(keys, sort=False, dropna=False)
    rows: Any = frame.assign(network=groups.ngroup())
    settings = rows.drop_duplicates("network").set_index("network")[keys]
    failed = rows["network"][_failed(rows["converged"])].unique() if "converged" in rows.columns else []
    settings["converged"] = ~settings.index.isin(failed)
    measured = rows[rows["better_direction"].notna() & ~rows["metric"].isin(list(OUTCOMES))]
    reported = rows[rows["metric"].isin(list(OUTCOMES)) & rows["domain"].notna() & rows["split"].eq(_REPORTED)]
    if measured.empty or reported.empty:
        lacks = "measure (a row with better_direction)" if measured.empty else f"outcome (split {_REPORTED!r})"
        raise DgpruneError(f"frame holds no {lacks}; pass the table of a study of many networks.")
    first, better = {}, dict(OUTCOMES)
    measures, outcomes = pd.DataFrame(index=settings.index), {}
    for name, part in measured.groupby("metric", sort=False):
        if part["better_direction"].nunique() > 1:
            raise DgpruneError(f"better_direction must be one word for all rows of {name!r}; frame has both.")
        first[name], better[name] = part.iloc[0].to_dict(), part["better_direction"].iloc[0]
        measures[name] = _column(part, settings.index, keys, what=name)
    for (name, domain), part in reported.groupby(["metric", "domain"], sort=False):
        first[name, domain] = part.iloc[0].to_dict()
        outcomes[name, domain] = _column(part, settings.index, keys, what=f"{name} on {domain}")
    return NetworkTable(settings=settings, measures=measures, outcomes=outcomes, better=better, rows=first)


def larger_is_better(values: pd.Series, better: str) -> Any:
    """Return values as an array, signed so that larger is better; NaN where they are not finite."""
    numbers = values.to_numpy(dtype=np.float64)
    return np.where(np.isfinite(numbers), -numbers if better == "lower" else numbers, np.nan)


def _failed(converged: Any) -> Any:
    """Return for each row whether its network did not converge; an empty cell counts as converged."""
    for value in converged.dropna().unique():
        if value not in (True, False):
            raise DgpruneError(f"converged must hold True or False; got {value!r}. Convert the column first.")
    return converged.eq(False).fillna(False).astype(bool)


def _column(part: Any, index: Any, keys: Sequence[str], *, what: str) -> pd.Series:
    repeated = part["network"].duplicated()
    if repeated.any():
        row = part[repeated].iloc[0]
        network = ", ".join(f"{key} {row[key]}" for key in keys)
        raise DgpruneError(
            f"frame holds several values of {what} for the network with {network}; name in hyperparameters every "
            "setting in which the networks differ, or pass a part of the table."
        )
    return part.set_index("network")["value"].reindex(index)
