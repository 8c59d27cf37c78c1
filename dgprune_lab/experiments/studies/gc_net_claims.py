"""The paper's claims, judged by the study of GC-Net."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import pandas as pd

from ...core import is_missing
from ...stats import intervals
from ..claims import Claim, over_seeds

PAPER = "Wisell and Yasaei Sekeh 2024, arXiv:2411.09199"
PUBLISHED = "no number in the abstract"
DEPTH, MIDDLE = "hybrid by depth, mean over l0", "hybrid by depth, middle l0"
_OUTCOMES = ("clean", "shifted", "worst")
_SPREADS = ("rho_spread", "rho_null_spread")


class _Cell(NamedTuple):
    """The settings that two ways to prune must share to be compared."""

    training_seed: int
    data_set: str
    level: str
    ratio_requested: float
    finetuned: bool


Outcome = dict[str, float]
Outcomes = Mapping[_Cell, Mapping[str, Outcome]]


def gc_net_outcomes(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy of each way to prune in each run: on clean images, under shifts, under the worst shift.

    Args:
        frame: table of the study, with a row per domain.

    Returns:
        Columns training_seed, data_set, level, ratio_requested, finetuned, scorer; `clean`, `shifted` (mean over the
        shifts) and `worst`, as shares. `DEPTH` is the mean over all l0 of the hybrid by depth, `MIDDLE` its middle l0.
    """
    return pd.DataFrame(
        {**cell._asdict(), "scorer": scorer, **outcome}
        for cell, arms in _outcomes(frame).items()
        for scorer, outcome in arms.items()
    )


def _outcomes(frame: pd.DataFrame) -> Outcomes:
    values: dict[tuple[_Cell, str, int | None], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in cast("list[dict[str, Any]]", frame.to_dict("records")):
        if row["metric"] == "accuracy":
            start = None if is_missing(row["start"]) else int(row["start"])
            cell = _Cell(*(row[name] for name in _Cell._fields))
            values[cell, row["scorer"], start][row["role"]].append(float(row["value"]))
    last: dict[str, int] = defaultdict(int)
    for cell, _, start in values:
        last[cell.level] = max(last[cell.level], start or 0)
    arms: dict[_Cell, dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for (cell, scorer, start), roles in values.items():
        shifted = roles["target"]
        outcome = {"clean": _mean(roles["source"]), "shifted": _mean(shifted), "worst": min(shifted)}
        names = [scorer] if start is None else [scorer, DEPTH]
        for name in [*names, MIDDLE] if start == (last[cell.level] + 1) // 2 else names:
            arms[cell][name].append(outcome)
    return {
        cell: {name: {key: _mean(run[key] for run in each) for key in _OUTCOMES} for name, each in by_name.items()}
        for cell, by_name in arms.items()
    }


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


_CLAIMS = (
    ("Pruning {} by GC-Net keeps more accuracy under shift than by magnitude", "gc_net", "l1"),
    ("Pruning {} by magnitude in early and by GC-Net in late layers keeps more than by magnitude alone", DEPTH, "l1"),
    ("Pruning {} by magnitude in early and by GC-Net in late layers keeps more than by GC-Net alone", DEPTH, "gc_net"),
    ("Pruning {} by GC-Net keeps more than at random", "gc_net", "random"),
)


def gc_net_claims(frame: pd.DataFrame) -> list[Claim]:
    """Return the paper's claims, for connections without and with fine-tuning, and for filters with it.

    An estimate is the mean difference of the accuracy under shift, over data sets, shifts and ratios, paired by
    training seed; seeds that lack a run and claims with fewer than two seeds are left out. The note holds the data
    sets separately, the other outcomes, the hybrid with the middle l0, and how much more rho varies than by chance.
    """
    cells, claims, spread = _outcomes(frame), [], _describe_spread(frame)
    for level, finetuned in (("connection", False), ("connection", True), ("filter", True)):
        part = {cell: arms for cell, arms in cells.items() if (cell.level, bool(cell.finetuned)) == (level, finetuned)}
        when = "fine-tuned" if finetuned else "not fine-tuned"
        published = "on connections only; the filter score is ours" if level == "filter" else PUBLISHED
        for text, scorer, baseline in _CLAIMS:
            claim = f"{text.format(f'{level}s')} ({when})"
            claims += _claim(part, scorer, baseline=baseline, claim=claim, published=published, spread=spread)
    return claims


def _claim(part: Outcomes, scorer: str, *, baseline: str, claim: str, published: str, spread: str) -> list[Claim]:
    """Return the claim that `scorer` keeps more than `baseline`; no claim unless two seeds have all runs."""
    gaps = _differences(part, scorer, baseline=baseline)
    if len(gaps) < 2:
        return []
    notes = {}
    for data_set in sorted({cell.data_set for cell in part}):
        of_data_set = {cell: arms for cell, arms in part.items() if cell.data_set == data_set}
        notes[data_set] = _differences(of_data_set, scorer, baseline=baseline)
    for outcome, name in (("clean", "clean images"), ("worst", "worst shift")):
        notes[name] = _differences(part, scorer, baseline=baseline, outcome=outcome)
    if scorer == DEPTH:
        notes["middle l0"] = _differences(part, MIDDLE, baseline=baseline)
    each = [(name, *intervals.over_seeds(list(values.values()))) for name, values in notes.items()]
    details = "; ".join(f"{name} {value:+.3f} [{start:+.3f}, {end:+.3f}]" for name, value, start, end in each)
    return [
        Claim.from_row(
            over_seeds(gaps),
            claim=claim,
            paper=PAPER,
            published=published,
            note=details + spread,
            ours=published != PUBLISHED or baseline == "random",
        )
    ]


def _differences(part: Outcomes, scorer: str, *, baseline: str, outcome: str = "shifted") -> dict[int, float]:
    """Return training seed -> mean over data sets and ratios of scorer - baseline, for seeds that have all of them."""
    gaps: dict[int, list[float]] = defaultdict(list)
    for cell, arms in part.items():
        if scorer in arms and baseline in arms:
            gaps[cell.training_seed].append(arms[scorer][outcome] - arms[baseline][outcome])
    complete = len({(cell.data_set, cell.ratio_requested) for cell in part})
    return {seed: _mean(each) for seed, each in sorted(gaps.items()) if len(each) == complete}


def _describe_spread(frame: pd.DataFrame) -> str:
    """Return the end of a note: the spread of rho within a pair of layers, and with randomly paired images."""
    values = {name: frame.loc[frame["metric"] == name, "value"].to_numpy() for name in _SPREADS}
    if not all(len(each) for each in values.values()):
        return ""
    measured, chance = (float(each.mean()) for each in values.values())
    return f"; rho has a spread of {measured:.3f}, with randomly paired images {chance:.3f}"
