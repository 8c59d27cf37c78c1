"""Correlations of mean stability, and of flatness, with the result of training with pruning, from a study's table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..core import DgpruneError, Tidy, is_missing, most_seen, public, tidy, unknown
from ..stats import CORRELATIONS, POOLED, correlation_over_seeds, rate_words
from .compare import check_columns

_KEYS = ("data_set", "knob", "arm", "training_seed", "stage", "rate", "events")
EXTRA = ("data_set", "measure", "of_metric", "stage", "within", "runs", "seeds", "minimum_detectable_effect", "note")
STABILITY = "mean_stability"
FLATNESS = ("hessian_top_sum", "hessian_trace", "gradient_covariance_trace")
OUTCOMES = ("accuracy", "generalization_gap", STABILITY)
MIXED = "mixes two effects: how much an event removes, and what it removes"

Row = Mapping[str, Any]
Run = tuple[str, int]
"""Arm and training seed."""
Place = tuple[str, str | None, str]
"""Metric, domain and stage of a number; the domain is None for the mean over sources."""


@public
def instability_correlations(frame: Tidy, *, knob: str = "none") -> pd.DataFrame:
    """Correlate mean stability, and flatness where it was measured, with the result of each run.

    Only runs with an event during training count; the controls have none, so their mean stability is 100 % by
    definition. `pearson` and `kendall` (tau-b), in [-1, 1], correlate `measure` with `of_metric`: a domain's accuracy,
    its generalization gap, and for flatness also mean stability. If mean stability and accuracy correlate negatively,
    runs that pruning hurts more end more accurate. Runs are `within` a pruning rate (share of filters that an event
    removes) or of all rates; the latter mixes two effects and may have the opposite sign. A correlation is not a cause.

    Args:
        frame: table of the study `instability`.
        knob: training settings of the runs that are correlated; "none" for those of the protocol.

    Returns:
        A tidy table with `runs`, `seeds`, `minimum_detectable_effect` and the interval "seeds", the jackknife over
        training seeds of `stats.correlation`: all runs of a seed share initial weights and the order of the images.
        The last two are empty for a single training seed.

    Raises:
        DgpruneError: a table of something else; an unknown knob; no run with an event.
    """
    check_columns(frame, _KEYS)
    if knob not in set(frame["knob"]):
        raise unknown("knob", knob, map(str, dict.fromkeys(frame["knob"])))
    pruned: Any = frame[(frame["knob"] == knob) & (frame["events"] > 0)]
    stable = pruned[(pruned["metric"] == STABILITY) & pruned["domain"].isna()]
    if stable.empty:
        raise DgpruneError(
            f"frame holds no run of knob {knob!r} with an event while training, so there is no mean stability; wait "
            "until the study has more runs."
        )
    correlations: list[dict[str, Any]] = []
    for data_set, rows in pruned.groupby("data_set", sort=False):
        correlations += [{**row, "data_set": data_set} for row in _correlate_data_set(rows.to_dict("records"))]
    return tidy(correlations, extra=EXTRA)


def _correlate_data_set(rows: list[Row]) -> Iterator[dict[str, Any]]:
    """Yield the correlations over the runs of one data set."""
    cells: dict[Place, dict[Run, Row]] = defaultdict(dict)
    for row in rows:
        domain = None if is_missing(row["domain"]) else row["domain"]
        cells[row["metric"], domain, row["stage"]][row["arm"], int(row["training_seed"])] = row
    for (measure, on_domain, when), first in cells.items():
        if when != "last" or measure not in (STABILITY, *FLATNESS) or (measure == STABILITY and on_domain is not None):
            continue
        for (metric, domain, stage), second in cells.items():
            is_outcome = metric in OUTCOMES and metric != measure and (metric != STABILITY or domain is None)
            both = {run: (first[run], second[run]) for run in first if run in second} if is_outcome else {}
            columns = {"measure": measure, "of_metric": metric, "stage": stage, "domain": domain}
            yield from ({**columns, **row} for row in _correlate_runs(both))


def _correlate_runs(both: Mapping[Run, tuple[Row, Row]]) -> Iterator[dict[str, Any]]:
    """Yield Pearson's and Kendall's correlation over all runs, then over those of each pruning rate."""
    rates = sorted({row["rate"] for row, _ in both.values()})
    for rate in (None, *(rates if len(rates) > 1 else ())):
        runs = {run: pair for run, pair in both.items() if rate is None or pair[0]["rate"] == rate}
        if len(runs) < 3:
            continue
        x, y = (np.array([pair[k]["value"] for pair in runs.values()], dtype=np.float64) for k in (0, 1))
        seeds = [seed for _, seed in runs]
        last = next(iter(runs.values()))[1]
        shared = {name: last[name] for name in ("role", "split", "images")}
        shared |= most_seen([row for pair in runs.values() for row in pair if not is_missing(row["target_aware"])])
        shared |= {"within": POOLED if rate is None else rate_words(rate), "runs": len(runs), "unit": "correlation"}
        shared |= {
            "seeds": ", ".join(map(str, sorted(set(seeds)))),
            "note": MIXED if rate is None and rates[1:] else None,
        }
        for name in CORRELATIONS:
            value, low, high, smallest = correlation_over_seeds(name, x, y, seeds=seeds)
            if not np.isnan(value):
                numbers = {"value": value, "low": low, "high": high, "minimum_detectable_effect": smallest}
                yield {**shared, "metric": name, **numbers, "interval": "seeds"}
