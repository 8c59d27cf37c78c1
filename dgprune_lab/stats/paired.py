"""Differences between two networks of each training seed, as rows of a tidy table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core import is_missing, most_seen
from . import intervals

PAIRED = ("seeds", "minimum_detectable_effect", "p_value", "p_holm")
"""The columns of a row of differences that are not shared by all tables."""

Row = Mapping[str, Any]


def difference_row(pairs: Sequence[tuple[str, Row, Row]]) -> dict[str, Any]:
    """Return the row of the mean of value - baseline's value over training seeds, with its 95 % t interval.

    Args:
        pairs: (name, row, the baseline's row) of each training seed.

    Returns:
        The first row with the metric "difference", `PAIRED` without `p_holm`, the mean `ratio_achieved`, and the most
        that either side has seen.
    """
    rows: list[Any] = [row for _, row, _ in pairs]
    gaps = [row["value"] - other["value"] for _, row, other in pairs]
    mean, low, high = intervals.over_seeds(gaps)
    achieved = [row.get("ratio_achieved") for row in rows]
    return {
        **rows[0],
        "ratio_achieved": None if any(map(is_missing, achieved)) else sum(achieved) / len(achieved),
        "training_seed": None,
        "metric": "difference",
        "value": mean,
        "low": low,
        "high": high,
        "interval": "seeds",
        "seeds": ", ".join(name for name, _, _ in pairs),
        "minimum_detectable_effect": intervals.minimum_detectable_effect(gaps),
        "p_value": intervals.paired_p(gaps),
        **most_seen([side for _, *both in pairs for side in both]),
    }


def with_holm(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows of `difference_row` with `p_holm`, adjusted for testing all of them."""
    adjusted = intervals.holm([row["p_value"] for row in rows])
    return [{**row, "p_holm": p} for row, p in zip(rows, adjusted, strict=True)]
