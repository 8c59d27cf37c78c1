"""What has seen the images that a row reports, as one mark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import pandas as pd

DIAMOND = "◇"


Exposure = Literal["", "?", "seen", "target-aware", "target-aware, seen"]
"""What a row's domain is marked with, the weakest first; see `sight_of`."""


EXPOSURE_WORDS: Mapping[str, str] = {
    "": "no",
    "?": "unknown: nobody said what was looked at",
    "seen": "yes, the very images tested",
    "target-aware": "yes, other images of this domain",
    "target-aware, seen": "yes, the very images tested",
}
"""The words of a tooltip "Looked at before" for each mark."""


def exposure_of(row: Mapping[str, Any]) -> Exposure:
    """What scorer, tuning or selection have seen of the domain that a table's row is about, as the word that marks it.

    "target-aware": of a target, images or labels, though not those reported; "target-aware, seen": the very part that
    is reported, which is worse; "seen": the very part, of a source, which is meant to be looked at, but not there;
    "?": nobody knows; "": nothing of this kind. Everything that marks a domain follows this one function.
    """
    used = [row.get(name) for name in ("seen_by_scorer", "seen_by_finetuning", "seen_by_selection")]
    very = any(use in ("images", "labels") for use in used)
    role = row.get("role")
    if (role == "target" and very) or (role != "source" and _is_named(row)):
        return "target-aware, seen" if very else "target-aware"
    if very:
        return "seen"
    unsaid = is_missing(role) or all(is_missing(use) for use in used)
    return "?" if "unknown" in used or (unsaid and row.get("target_aware") == "unknown") else ""


def is_target_aware(row: Mapping[str, Any]) -> bool:
    """Whether a row reports a target of which scorer, tuning or selection looked at any part; see `sight_of`."""
    return exposure_of(row).startswith("target-aware")


def strongest_exposure(exposures: Iterable[Exposure]) -> Exposure:
    """The mark of several rows that are drawn as one."""
    order: tuple[Exposure, ...] = get_args(Exposure)
    return order[max(map(order.index, exposures), default=0)]


def exposure_label(exposure: Exposure) -> str:
    """A mark as it stands behind a name: " ◇ target-aware", " ?" or nothing."""
    return f" {exposure}" if exposure == "?" else f" {DIAMOND} {exposure}" if exposure else ""


def scorer_exposure(rows: Iterable[Mapping[str, Any]]) -> Exposure:
    """The mark of a scorer's own name: whether what is behind its rows looked at any target, whatever they report."""
    cells = {row.get("target_aware") for row in rows if not is_missing(row.get("target_aware"))}
    return "target-aware" if cells - {"none", "unknown"} else "?" if "unknown" in cells else ""


def with_scorer_exposure(exposure: Exposure, choice: Exposure) -> Exposure:
    """The mark of a scorer's name beside the domain it is shown on: what it saw there, and whether of any target."""
    return (
        "target-aware, seen"
        if (exposure, choice) == ("seen", "target-aware")
        else strongest_exposure([exposure, choice])
    )


def _is_named(row: Mapping[str, Any]) -> bool:
    named = row.get("target_aware")
    return isinstance(named, str) and not is_missing(row.get("domain")) and f", {row['domain']}, " in f", {named}, "


def is_missing(value: object) -> bool:
    """Whether a cell of a table is empty."""
    return value is None or value is pd.NA or value != value
