"""Marks of data that were seen: whether scorer, fine-tuning or selection looked at the domain that a row reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import pandas as pd

from .errors import unknown
from .kinds import SEEN
from .provenance import LEAST_FIRST

DIAMOND = "◇"

Exposure = Literal["", "?", "seen", "target-aware", "target-aware, seen"]
"""The possible marks of a row's domain, weakest first; see `exposure_of`."""

EXPOSURE_WORDS: Mapping[str, str] = {
    "": "no",
    "?": "unknown: not recorded",
    "seen": "yes, the reported images",
    "target-aware": "yes, other images of this domain",
    "target-aware, seen": "yes, the reported images",
}
"""Text of the tooltip "Looked at before" for each mark."""


def exposure_of(row: Mapping[str, Any]) -> Exposure:
    """Return the mark of a row: what scorer, fine-tuning or selection looked at in the domain that it reports.

    Returns:
        "target-aware": they looked at a split of this target that is not the reported one;
        "target-aware, seen": they looked at the reported split of this target;
        "seen": they looked at the reported split of this source; "?": not recorded;
        "": they looked at none of these, or the row reports no domain.
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
    """Return whether any split of the target that a row reports was looked at; see `exposure_of`."""
    return exposure_of(row).startswith("target-aware")


def strongest_exposure(exposures: Iterable[Exposure]) -> Exposure:
    """Return the strongest mark of several rows that are drawn as one."""
    order: tuple[Exposure, ...] = get_args(Exposure)
    return order[max(map(order.index, exposures), default=0)]


def exposure_label(exposure: Exposure) -> str:
    """Return a mark as a suffix: " ◇ target-aware", " ◇ target-aware, seen", " (seen)" (a source), " ?" or ""."""
    return {"": "", "?": " ?", "seen": " (seen)"}.get(exposure, f" {DIAMOND} {exposure}")


def scorer_exposure(rows: Iterable[Mapping[str, Any]]) -> Exposure:
    """Return the mark to show at a scorer's name, from all rows of that scorer: whether any target was looked at."""
    cells = [row["target_aware"] for row in rows if "target_aware" in row]
    known = [cell for cell in cells if not is_missing(cell)]
    return "target-aware" if any(known) else "?" if len(known) < len(cells) else ""


def with_scorer_exposure(exposure: Exposure, scorer: Exposure) -> Exposure:
    """Combine the mark of a row about a domain and its scorer's own mark into the mark of the scorer's name there."""
    both: tuple[Exposure, Exposure] = (exposure, scorer)
    return "target-aware, seen" if both == ("seen", "target-aware") else strongest_exposure(both)


def most_seen(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the columns seen_by_* and target_aware for a row that combines several: the most that any of those saw.

    A value that only some rows lack counts as unknown; a column that all of them lack stays empty.

    Raises:
        DgpruneError: a value that is not in `LEAST_FIRST`.
    """
    columns: dict[str, Any] = {}
    for name in SEEN:
        uses = [row.get(name) for row in rows]
        if not all(map(is_missing, uses)):
            levels = ["unknown" if is_missing(use) else use for use in uses]
            for use in levels:
                if use not in LEAST_FIRST:
                    raise unknown(f"word in the column {name}:", use, LEAST_FIRST)
            columns[name] = max(levels, key=LEAST_FIRST.index)
    aware = [row.get("target_aware") for row in rows]
    known = [bool(cell) for cell in aware if not is_missing(cell)]
    return {**columns, "target_aware": True if any(known) else False if len(known) == len(aware) else None}


def is_missing(value: object) -> bool:
    """Return whether a cell of a table is empty."""
    return value is None or value is pd.NA or value != value
