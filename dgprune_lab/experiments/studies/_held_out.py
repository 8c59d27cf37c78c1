"""Averages over held-out targets, a row per training seed, for studies that leave each domain out in turn."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...core import Tidy, tidy

_SETTINGS = ["finetuned", "ratio_requested", "training_seed", "scorer"]


def held_out_measures(frame: Tidy, *, dense: tuple[str, str]) -> pd.DataFrame:
    """Return, for each training seed, averages over its targets, for `compare` and `averages`.

    Args:
        frame: rows of accuracy per domain, with the columns `target` (the domain that was held out) and `finetuned`.
        dense: names of the two networks without removal: as trained, and with the same extra epochs; the latter is the
            reference of the rows with fine-tuning.

    Returns:
        A tidy table with the column `finetuned` and a row per scorer, ratio and training seed. Role "target" is the
        held-out domain of each network, role "source" the mean over the domains that it was trained on, and both are
        averaged over the targets: `accuracy`; `accuracy_kept`, divided by the reference's; `accuracy_lost`, subtracted
        from the reference's. For the targets also `worst_domain_accuracy`, their lowest, and `mean_rank` among
        the scorers without the dense networks, 1 for the most accurate. A mean that lacks a run is left out.
    """
    rows: Any = frame[frame["metric"] == "accuracy"]
    aware = rows.groupby("scorer")["target_aware"].any()
    parts: list[Any] = []
    for role, of_role in rows.groupby("role"):
        each = of_role.groupby([*_SETTINGS, "target"])["value"].mean().unstack("target")
        reference = each[each.index.isin(dense, level="scorer")].droplevel("scorer")
        reference = reference.reindex(each.index.droplevel("scorer")).set_axis(each.index)
        tables = {"accuracy": each, "accuracy_kept": each / reference, "accuracy_lost": reference - each}
        means = {metric: values.mean(axis=1, skipna=False) for metric, values in tables.items()}
        if role == "target":
            means["worst_domain_accuracy"] = each.min(axis=1, skipna=False)
            means["mean_rank"] = _rank_scorers(each[~each.index.isin(dense, level="scorer")]).mean(axis=1, skipna=False)
        for metric, mean in means.items():
            unit = "rank" if metric == "mean_rank" else "share"
            parts.append(mean.dropna().rename("value").reset_index().assign(metric=metric, role=role, unit=unit))
    table: Any = pd.concat(parts)
    table["target_aware"] = table["scorer"].map(aware)
    return tidy(table.to_dict("records"), extra=["finetuned"])


def _rank_scorers(each: Any) -> Any:
    """Return the rank of each scorer on every target, 1 for the highest value; NaN where a scorer is missing."""
    groups = each.groupby(level=_SETTINGS[:-1])
    complete = groups.transform("count") == each.index.get_level_values("scorer").nunique()
    return groups.rank(ascending=False).where(complete)
