"""Means of the results of an experiment's runs: over training seeds, and over target domains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, cast

import pandas as pd

from ..core import COLUMNS, DgpruneError, Tidy, is_missing, most_seen, public, tidy, unknown
from ..stats import intervals
from .compare import MEASURED, check_columns, settings_of

_ACROSS = ("domain", "target")


@public
def averages(
    frame: Tidy, *, of: str = "scorer", metric: str = "accuracy", over: str = "ratio_requested"
) -> pd.DataFrame:
    """Return the mean of a metric over training seeds with its 95 % t interval; a single seed has no interval.

    Rows of one training seed with equal settings (such as several draws) are averaged first.

    Args:
        frame: table with a row per run and domain, such as `Results.table()`.
        of: column that holds the choices.
        metric: the metric that is averaged.
        over: a further column that the table must have, such as the ratio.

    Returns:
        A tidy table with a row per choice, domain and group of equal settings; `seeds` names the training seeds.
        `seen_by_*` and `target_aware` hold the most that any of the averaged rows has seen.

    Raises:
        DgpruneError: an unknown column or metric.
    """
    check_columns(frame, (of, over, "training_seed"))
    used = cast(pd.DataFrame, frame[frame["metric"] == metric])
    if used.empty and len(frame):
        raise unknown("metric", metric, map(str, frame["metric"].unique()))
    settings = settings_of(used)
    extra = [name for name in settings if name not in COLUMNS]
    groups = _group_rows(used.to_dict("records"), settings)
    return tidy([_average(rows, settings) for rows in groups], extra=[*extra, "seeds"])


@public
def over_targets(frame: Tidy, *, metric: str = "accuracy", across: Sequence[str] = _ACROSS) -> pd.DataFrame:
    """Return the mean over target domains for each choice and training seed, as one domain "mean of N targets".

    A training seed that lacks one of a choice's targets is left out for that choice, because means over different
    targets are not comparable.

    Args:
        frame: table with a row per run and domain, such as `Results.table()`.
        metric: the metric that is averaged.
        across: columns over whose values the mean is taken; "target" is ignored where the table lacks it.

    Raises:
        DgpruneError: no row of a target with this metric; an unknown column.
    """
    used = cast(pd.DataFrame, frame[(frame["role"] == "target") & (frame["metric"] == metric)])
    if used.empty:
        raise DgpruneError(f"frame has no row with the metric {metric!r} and the role target, so there is no mean.")
    check_columns(used, (name for name in across if name not in _ACROSS))
    averaged = [name for name in across if name in used.columns]
    settings = [str(name) for name in used.columns if name not in (*MEASURED, *averaged)]
    choice = [name for name in settings if not name.endswith("seed")]
    rows: list[dict[str, Any]] = []
    for choice_rows in _group_rows(used.to_dict("records"), choice):
        targets = len(_group_rows(choice_rows, averaged))
        for group in _group_rows(choice_rows, settings):
            if len(_group_rows(group, averaged)) == targets:
                name = f"mean of {targets} targets" if targets > 1 else group[0]["domain"]
                cells = {setting: group[0][setting] for setting in settings} | {"domain": name}
                value = sum(float(row["value"]) for row in group) / len(group)
                rows.append({**cells, "role": "target", "metric": metric, "value": value, **most_seen(group)})
    return tidy(rows, extra=[name for name in settings if name not in COLUMNS])


def _group_rows(rows: Sequence[Any], names: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Group rows with equal values in these columns; empty cells count as equal."""
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[tuple("" if is_missing(row[name]) else str(row[name]) for name in names)].append(row)
    return list(groups.values())


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
