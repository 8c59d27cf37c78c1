"""What the tables that ship say about the published claims: as one table, and in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pandas as pd

from ..core import DgpruneError, note, public
from .claims import WORDS, Verdict, claims_table
from .tables import QUICK, shipped, shipped_card, shipped_names, study_named

SMALL = "quick form: proves nothing"
"""What the column `protocol` says of a quick form."""
_TOLD: Mapping[Verdict, str] = {
    "yes": "Holds here",
    "less": "A gain, but smaller than published",
    "no": "Does not hold here",
    "cannot tell": "Cannot be told from these runs",
}


@public
def shipped_claims() -> pd.DataFrame:
    """Return the claims of every study whose table ships, and of a quick form where the study's own table does not.

    Returns:
        `experiments.claims_table` with three columns before it: `study`, `table` (its name, for `experiments.shipped`)
        and `protocol` (its seeds and its date; of a quick form, that it proves nothing).
    """
    names, parts = shipped_names(), []
    for name in names:
        study, small = name.removesuffix(QUICK), name.endswith(QUICK)
        if small and study in names:
            continue
        try:
            claims: Any = study_named(study).claims
            found = claims_table([] if claims is None else claims(shipped(name)))
        except DgpruneError as error:
            note(f"the table {name} says nothing about the claims: {error}")
            continue
        card = shipped_card(name)
        protocol = SMALL if small else f"{len(card['seeds'])} training seeds, {card['date']}"
        parts.append(found.assign(study=study, table=name, protocol=protocol))
    columns = ["study", "table", "protocol", *claims_table([]).columns]
    return cast(pd.DataFrame, pd.concat(parts, ignore_index=True)[columns]) if parts else pd.DataFrame(columns=columns)


@public
def verdict_sentences(claims: pd.DataFrame) -> str:
    """Return in sentences which of these claims hold here, and which do not.

    Args:
        claims: rows of `experiments.claims_table`.

    >>> verdict_sentences(claims_table([]))
    'No claim was tested.'
    """
    if claims.empty:
        return "No claim was tested."
    told = []
    for verdict, words in _TOLD.items():
        some = [str(row["claim"]) for row in claims.to_dict("records") if row["verdict"] == WORDS[verdict]]
        told += [f"{words} ({len(some)} of {len(claims)}): {'; '.join(some)}."] if some else []
    return " ".join(told)
