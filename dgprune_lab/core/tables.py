"""Tidy tables: one number per row, with the columns every part of the toolkit shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import pandas as pd

from .errors import DgpruneError

BatchNorm = Literal["as_is", "recalibrate"]
Scope = Literal["layer", "global"]
Budget = Literal["filters", "parameters", "macs"]
Seen = Literal["none", "images", "labels", "unknown"]

COLUMNS = (
    "scorer",
    "ratio_requested",
    "ratio_achieved",
    "scope",
    "budget",
    "batchnorm",
    "seed",
    "training_seed",
    "domain",
    "role",
    "split",
    "images",
    "metric",
    "value",
    "low",
    "high",
    "interval",
    "unit",
    "seen_by_training",
    "seen_by_scorer",
    "seen_by_finetuning",
    "seen_by_selection",
    "target_aware",
)
SEEN = ("seen_by_training", "seen_by_scorer", "seen_by_finetuning", "seen_by_selection")
_NUMBERS = ("ratio_requested", "ratio_achieved", "value", "low", "high")
_COUNTS = ("seed", "training_seed", "images")


def tidy(rows: Iterable[Mapping[str, Any]], *, extra: Sequence[str] = ()) -> pd.DataFrame:
    """A table with every shared column (empty where a row says nothing) and the extra keys a diagnostic declares.

    Raises:
        DgpruneError: a row names a column that is neither shared nor declared.
    """
    listed = list(rows)
    allowed = (*COLUMNS, *extra)
    for row in listed:
        for name in row:
            if name not in allowed:
                raise DgpruneError(f"a table row names the column {name!r}; allowed: {', '.join(allowed)}.")
    frame = pd.DataFrame(listed, columns=list(allowed))
    for name in _NUMBERS:
        frame[name] = frame[name].astype("float64")
    for name in _COUNTS:
        frame[name] = frame[name].astype("Int64")
    frame["target_aware"] = frame["target_aware"].astype("boolean")
    return frame


def choice(kind: str, value: str, options: Any) -> str:
    """`value` if it is one of the Literal's options.

    Raises:
        DgpruneError: it is not; the sentence lists them.
    """
    known = get_args(options)
    if value not in known:
        raise DgpruneError(f"{kind} must be one of {', '.join(map(repr, known))}; got {value!r}.")
    return value
