"""What scorer, fine-tuning and selection looked at of the domain that a table's row reports, as one mark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import pandas as pd

DIAMOND = "◇"

Exposure = Literal["", "?", "seen", "target-aware", "target-aware, seen"]
"""The mark of a row's domain, the weakest first; see `exposure_of`."""

EXPOSURE_WORDS: Mapping[str, str] = {
    "": "no",
    "?": "unknown: not recorded",
    "seen": "yes, the reported images",
    "target-aware": "yes, other images of this domain",
    "target-aware, seen": "yes, the reported images",
}
"""The tooltip "Looked at before" for each mark."""


def exposure_of(row: Mapping[str, Any]) -> Exposure:
    """Return the mark of the domain that a table's row reports, the same in every table, chart and page.

    Returns:
        "target-aware": scorer, fine-tuning or selection looked at another split of a target;
        "target-aware, seen": at the reported split itself; "seen": at the reported split of a source; "?": not
        recorded; "": at none of these, or the row is about no domain.
    """
    if is_missing(row.get("domain")):
        return ""
    used = [row.get(name) for name in ("seen_by_scorer", "seen_by_finetuning", "seen_by_selection")]
    seen = any(use in ("images", "labels") for use in used)
    role, aware = row.get("role"), row.get("target_aware", False)
    if (role == "target" and seen) or (role != "source" and not is_missing(aware) and aware):
        return "target-aware, seen" if seen else "target-aware"
    if seen:
        return "seen"
    undeclared = is_missing(role) or all(map(is_missing, used))
    return "?" if "unknown" in used or (undeclared and is_missing(aware)) else ""


def is_target_aware(row: Mapping[str, Any]) -> bool:
    """Return whether a row reports a target of which any split was looked at; see `exposure_of`."""
    return exposure_of(row).startswith("target-aware")


def strongest_exposure(exposures: Iterable[Exposure]) -> Exposure:
    """Return the strongest mark of several rows that are drawn as one."""
    order: tuple[Exposure, ...] = get_args(Exposure)
    return order[max(map(order.index, exposures), default=0)]


def exposure_label(exposure: Exposure) -> str:
    """Return a mark as the suffix of a name: " ◇ target-aware", " ?" or nothing."""
    return f" {exposure}" if exposure == "?" else f" {DIAMOND} {exposure}" if exposure else ""


def scorer_exposure(rows: Iterable[Mapping[str, Any]]) -> Exposure:
    """Return the mark of a scorer's own name, from all its rows: whether any target was looked at."""
    cells = [row["target_aware"] for row in rows if "target_aware" in row]
    known = [cell for cell in cells if not is_missing(cell)]
    return "target-aware" if any(known) else "?" if len(known) < len(cells) else ""


def with_scorer_exposure(exposure: Exposure, scorer: Exposure) -> Exposure:
    """Return the mark of a scorer's name beside the domain it is shown on: what was seen there, or of any target."""
    both: tuple[Exposure, Exposure] = (exposure, scorer)
    return "target-aware, seen" if both == ("seen", "target-aware") else strongest_exposure(both)


def is_missing(value: object) -> bool:
    """Return whether a cell of a table is empty."""
    return value is None or value is pd.NA or value != value
