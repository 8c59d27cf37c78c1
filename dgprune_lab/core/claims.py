"""A table of claims (`experiments.claims_table`): its type hint, and its cells as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pandas as pd

from .exposure import is_missing
from .kinds import Columns

_NUMBERS = ("estimate", "low", "high", "minimum_detectable_effect")
Claims = Annotated[pd.DataFrame, Columns(("claim", "paper", "published", *_NUMBERS, "unit", "verdict"))]


def claimed_by(row: Mapping[Any, Any]) -> str:
    """Return a text that says who makes a claim; `row` is a row of `experiments.claims_table`.

    >>> claimed_by({"paper": "Sun 2023, arXiv:2306.13237", "ours": True})
    'ours, after Sun 2023'
    """
    paper = str(row["paper"]).split(", arXiv")[0]
    return f"ours, after {paper}" if row.get("ours") is True else paper


def claim_texts(row: Mapping[Any, Any]) -> dict[str, str]:
    """Return texts about a claim: who makes it, number of seeds, estimate with interval, smallest detectable effect.

    Shares are in percentage points.
    """
    scale, suffix, digits = (100.0, " points", 1) if row["unit"] == "share" else (1.0, f" {row['unit']}", 2)
    value, low, high = (f"{scale * row[name]:+.{digits}f}" for name in ("estimate", "low", "high"))
    return {
        "paper": claimed_by(row),
        "seeds": "" if is_missing(row.get("seeds")) else str(len(str(row["seeds"]).split(","))),
        "estimate": f"{value}{suffix} ({low} to {high})",
        "detectable": f"{scale * row['minimum_detectable_effect']:.{digits}f}{suffix}",
    }
