"""The mean over training seeds of what the runs of an experiment measured."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, cast

import pandas as pd

from ..core import COLUMNS, SEEN, Tidy, is_missing, most_seen, public, tidy, unknown
from ..stats import intervals

_MEASURED = {"metric", "value", "low", "high", "interval", "images", "ratio_achieved", "run", *SEEN, "target_aware"}


@public
def averages(
    frame: Tidy, *, of: str = "scorer", metric: str = "accuracy", over: str = "ratio_requested"
) -> pd.DataFrame:
    """Return the mean of a metric over training seeds with its 95 % t interval, which one seed alone does not have.

    Rows of one training seed that agree in all settings (several draws, say) count as one, their mean.

    Args:
        frame: table with a row per run and domain, such as `Results.table()`.
        of: column that holds the choices.
        metric: which numbers are averaged.
        over: a further column that the table must have, such as the ratio.

    Returns:
        A tidy table with a row per choice, domain and group of equal settings; `seeds` names the training seeds.
        `seen_by_*` and `target_aware` tell the most that any of them has seen.

    Raises:
        DgpruneError: an unknown column or metric.
    """
    for name in (of, over, "training_seed"):
        if name not in frame.columns:
            raise unknown("column", name, map(str, frame.columns))
    used = cast(pd.DataFrame, frame[frame["metric"] == metric])
    if used.empty and len(frame):
        raise unknown("metric", metric, map(str, frame["metric"].unique()))
    settings = [str(name) for name in used.columns if name not in _MEASURED and not str(name).endswith("seed")]
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in cast("list[dict[str, Any]]", used.to_dict("records")):
        groups[tuple("" if is_missing(row[name]) else str(row[name]) for name in settings)].append(row)
    extra = [name for name in settings if name not in COLUMNS]
    return tidy([_average(rows, settings) for rows in groups.values()], extra=[*extra, "seeds"])


def _average(rows: list[dict[str, Any]], settings: list[str]) -> dict[str, Any]:
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        values["" if is_missing(row["training_seed"]) else f"{row['training_seed']:g}"].append(float(row["value"]))
    mean, low, high = intervals.over_seeds([sum(each) / len(each) for each in values.values()])
    return {
        **{name: rows[0][name] for name in settings},
        "metric": rows[0]["metric"],
        "value": mean,
        "low": low,
        "high": high,
        "interval": "seeds",
        "seeds": ", ".join(values),
        **most_seen(rows),
    }
