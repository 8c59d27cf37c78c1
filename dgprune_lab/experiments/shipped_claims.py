"""Results of the shipped tables for the published claims: as one table, and in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from ..core import Claims, DgpruneError, claim_texts, note, public, unknown
from .averages import over_targets
from .claims import WORDS, Verdict, claims_table
from .compare import check_columns, compare
from .tables import QUICK, shipped, shipped_card, shipped_names, study_named

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

SMALL = "quick form: proves nothing"
"""Text of the column `protocol` for a quick form."""
NOTHING = "proves nothing"
"""The verdict of a quick form, whatever its numbers."""
_MOST_NAMED = 3  # more claims of one verdict are only counted
_OPENING: Mapping[Verdict, str] = {
    "yes": "Holds here",
    "less": "A gain, but smaller than published",
    "no": "Does not hold here",
    "cannot tell": "Not decided by these runs",
}


@public
def shipped_claims(*, studies: Sequence[str] | None = None, quick: bool = True) -> pd.DataFrame:
    """Return the claims of every study whose table ships, then of studies of which only a quick form ships.

    Args:
        studies: names of studies; None for all with a shipped table.
        quick: whether to list the claims of quick forms, which prove nothing.

    Raises:
        DgpruneError: a study without a shipped table.

    Returns:
        `experiments.claims_table` with three columns before it: `study`, `table` (its name, for `experiments.shipped`)
        and `protocol` (seeds and date; for a quick form, that it proves nothing, as its verdict says too).
    """
    names, parts = sorted(shipped_names(), key=lambda name: name.endswith(QUICK)), []
    known = sorted({name.removesuffix(QUICK) for name in names})
    for study in studies or ():
        if study not in known:
            raise unknown("study", study, known)
    for name in names:
        study, small = name.removesuffix(QUICK), name.endswith(QUICK)
        if (studies is not None and study not in studies) or (small and (study in names or not quick)):
            continue
        try:
            claims: Any = study_named(study).claims
            table = claims_table([] if claims is None else claims(shipped(name)))
        except DgpruneError as error:
            note(f"the table {name} says nothing about the claims: {error}")
            continue
        card = shipped_card(name)
        protocol = SMALL if small else f"{len(card['seeds'])} training seeds, {card['date']}"
        if small:
            table = table.assign(verdict=NOTHING)
        parts.append(table.assign(study=study, table=name, protocol=protocol))
    columns = ["study", "table", "protocol", *claims_table([]).columns]
    return cast(pd.DataFrame, pd.concat(parts, ignore_index=True)[columns]) if parts else pd.DataFrame(columns=columns)


@public
def claims_in_words(claims: Claims) -> pd.DataFrame:
    """Return a short table for reading: each estimate with its interval as text, shares in percentage points.

    `seeds` is the number of training seeds; `paper` is "ours" for a claim that the paper does not make.

    Args:
        claims: rows of `experiments.claims_table`, with or without further columns.

    >>> claims_in_words(claims_table([])).columns[-3:].to_list()
    ['estimate', 'detectable', 'verdict']
    """
    rows: list[dict[str, Any]] = []
    for row in claims.to_dict("records"):
        cells = {name: row[name] for name in ("table", "claim", "published", "verdict") if name in row}
        rows.append({**cells, **claim_texts(row)})
    first = ["table"] if "table" in claims.columns else []
    columns = [*first, "claim", "paper", "published", "seeds", "estimate", "detectable", "verdict"]
    return pd.DataFrame(rows, columns=columns)


_COMPARED: Mapping[str, tuple[str, str, bool]] = {
    "gc_net": ("l1", "level == 'filter' and finetuned == True", True),
    "mnist_m": ("dense_tuned", "", False),
    "pacs": ("dense_tuned", "objective == 'miro' and finetuned == True", True),
    "several_sources": ("l1", "finetuned == True", True),
}
"""Study -> baseline, query that selects the rows of its table, whether its targets are averaged."""


@public
def shipped_comparison(study: str) -> pd.DataFrame:
    """Return the accuracy of each choice in a study minus its baseline's, over training seeds, for `charts.experiment`.

    Args:
        study: a study whose own table ships: "mnist_m", "pacs" with MIRO (baseline: the dense network with the same
            extra epochs), "several_sources" or "gc_net" (baseline: l1, after fine-tuning). All but the first are
            averaged over their targets.

    Raises:
        DgpruneError: another study, or one with only a quick form shipped, which proves nothing.
    """
    if study not in _COMPARED and study in shipped_names():
        raise DgpruneError(
            f"the study {study!r} compares no choices with a baseline; shipped({study!r}) is its table, and those that "
            f"do are {', '.join(_COMPARED)}."
        )
    if study not in _COMPARED:
        raise unknown("study", study, _COMPARED)
    if study not in shipped_names():
        raise DgpruneError(f"no table of the study {study!r} ships; make one: dgprune-lab experiment {study}.")
    baseline, rows, averaged = _COMPARED[study]
    frame = shipped(study)
    frame = cast(pd.DataFrame, frame.query(rows)) if rows else frame
    return compare(over_targets(frame) if averaged else frame, baseline=baseline)


_VIEW = ("claim", "paper", "published", "estimate", "detectable", "verdict")


@public
def claims_view(claims: Claims, *, columns: Sequence[str] = _VIEW) -> Styler:
    """Return `claims_in_words` as a formatted table for a notebook.

    Args:
        claims: rows of `experiments.claims_table`, with or without further columns.
        columns: the columns to show, in this order.

    Raises:
        DgpruneError: an unknown column.
    """
    texts = claims_in_words(claims)
    check_columns(texts, columns)
    left = [{"selector": "th, td", "props": "text-align: left !important; vertical-align: top"}]
    view = texts[list(columns)].style.hide().format(escape="html").set_table_styles(left)  # type: ignore[arg-type]
    for name, style in {"claim": {"min-width": "180px"}, "estimate": {"min-width": "110px"}}.items():
        view = view.set_properties(subset=[name], **style) if name in columns else view
    return view


@public
def verdict_sentences(claims: Claims) -> str:
    """Return sentences that count the claims that hold here and those that do not, and name a few of them.

    The papers' claims come first; our own controls and questions follow, counted separately.

    Args:
        claims: rows of `experiments.claims_table`. Those of a quick form (see `shipped_claims`) are not judged.

    >>> verdict_sentences(claims_table([]))
    'No claim was tested.'
    """
    if claims.empty:
        return "No claim was tested."
    sentences = []
    small: Any = claims["verdict"] == NOTHING
    if count := int(small.sum()):
        names = ", ".join(dict.fromkeys(claims.loc[small, "table" if "table" in claims else "claim"]))
        sentences.append(f"Not judged, as a quick form proves nothing ({count} of {len(claims)}): {names}.")
        claims = cast(pd.DataFrame, claims[~small])
    rows = claims.to_dict("records")
    own = [row for row in rows if row.get("ours") is True]
    published = [row for row in rows if row.get("ours") is not True]
    for heading, part in (("Claimed by the papers.", published), ("Controls and questions of ours.", own)):
        sentences += [heading] if own and part else []
        sentences += _count_verdicts(part)
    return " ".join(sentences)


def _count_verdicts(rows: list[Any]) -> list[str]:
    """Return a sentence for each verdict that any of these claims has."""
    sentences = []
    for verdict, opening in _OPENING.items():
        matching = [str(row["claim"]) for row in rows if row["verdict"] == WORDS[verdict]]
        names = f": {'; '.join(matching)}" if len(matching) <= _MOST_NAMED else ""
        sentences += [f"{opening} ({len(matching)} of {len(rows)}){names}."] if matching else []
    return sentences
