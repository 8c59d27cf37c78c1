"""Tidy tables: one number per row, with the columns every part of the toolkit shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import pandas as pd

from .border import public
from .errors import DgpruneError
from .kinds import COLUMNS, NUMBERS

BatchNorm = Literal["as_is", "recalibrate"]
Scope = Literal["layer", "global"]
Budget = Literal["filters", "parameters", "macs"]
Seen = Literal["none", "images", "labels", "unknown"]

_BATCHNORM = {"as_is": "as is", "recalibrate": "re-estimated", "fold": "folded"}
_TYPES = dict.fromkeys(NUMBERS, "float64")
_TYPES |= {**dict.fromkeys(("seed", "training_seed", "images"), "Int64"), "target_aware": "boolean"}


@public
def tidy(rows: Iterable[Mapping[str, Any]], *, extra: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table with all shared columns (empty where a row has no value) and a diagnostic's `extra` columns.

    Raises:
        DgpruneError: a row names a column that is neither shared nor declared.
    """
    rows = list(rows)
    allowed = (*COLUMNS, *extra)
    for row in rows:
        for name in row:
            if name not in allowed:
                raise DgpruneError(f"a table row names the column {name!r}; allowed: {', '.join(allowed)}.")
    return pd.DataFrame(rows, columns=list(allowed)).astype(_TYPES)


def batchnorm_words(settings: Iterable[object]) -> str:
    """Return the values of the column `batchnorm` as text; "" for a network without BatchNorm.

    >>> batchnorm_words(["recalibrate", None]), batchnorm_words([None])
    ('BatchNorm re-estimated', '')
    """
    known = set(settings)
    text = " or ".join(text for name, text in _BATCHNORM.items() if name in known)
    return f"BatchNorm {text}" if text else ""


def choice(kind: str, value: str, options: Any) -> str:
    """Return `value` if it is one of the options of a Literal type.

    Raises:
        DgpruneError: it is none of them; the message lists them.
    """
    known = get_args(options)
    if value not in known:
        raise DgpruneError(f"{kind} must be one of {', '.join(map(repr, known))}; got {value!r}.")
    return value
