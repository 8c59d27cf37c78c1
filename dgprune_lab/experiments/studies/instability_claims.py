"""The claims of Bartoldson et al. 2020, judged by the study of pruning while training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import pandas as pd

from ...core import DgpruneError, is_missing
from ...stats import POOLED
from ..claims import Claim, verdict
from ..compare import compare
from ..instability_correlations import STABILITY, instability_correlations

PAPER = "Bartoldson et al. 2020, arXiv:1906.03728"
PUBLISHED = "shown in figures of VGG-11 and ResNet-18 on CIFAR-10"
OURS = "not in the paper"


class _Gain(NamedTuple):
    """A claim that one arm ends better than another: better accuracy, or a smaller gap."""

    sentence: str
    arm: str
    baseline: str
    metric: Literal["accuracy", "generalization_gap"] = "accuracy"
    role: Literal["source", "target"] = "source"


class _Link(NamedTuple):
    """A claim that two numbers of a run correlate: negatively, or positively if `positive`."""

    sentence: str
    metric: str
    role: Literal["source", "target"] | None = "source"
    measure: str = STABILITY
    positive: bool = False
    pooled: bool = True


_LINKS = (
    _Link("Less stable runs end more accurate (correlation below 0)", "accuracy"),
    _Link("Less stable runs end with a smaller gap (correlation above 0)", "generalization_gap", positive=True),
    _Link("Less stable runs end more accurate on shifted images (correlation below 0)", "accuracy", "target"),
    _Link(
        "Less stable runs end flatter (Hessian trace, correlation above 0)",
        STABILITY,
        role=None,
        measure="hessian_trace",
        positive=True,
        pooled=False,
    ),
    _Link(
        "Flatter runs end more accurate (Hessian trace, correlation below 0)",
        "accuracy",
        measure="hessian_trace",
        pooled=False,
    ),
)
_GAINS = (
    _Gain("Removing the largest filters ends more accurate than no removal", "largest_high", "unpruned"),
    _Gain("Removing the smallest filters ends more accurate than no removal", "smallest_high", "unpruned"),
    _Gain("Removing the largest filters ends more accurate than longer training", "largest_high", "unpruned_longer"),
    _Gain("Removal while training ends more accurate than removal before it", "largest_high", "before"),
    _Gain("Zeroing filters for a while ends more accurate than no removal", "zero_long", "unpruned"),
    _Gain("Removing filters for good ends more accurate than zeroing them for a while", "largest_high", "zero_long"),
    _Gain("Noise on filters for a while ends more accurate than no removal", "noise", "unpruned"),
    _Gain(
        "Removing the largest filters ends with a smaller gap than no removal",
        "largest_high",
        "unpruned",
        "generalization_gap",
    ),
    _Gain(
        "Zeroing filters for a while ends with a smaller gap than no removal",
        "zero_long",
        "unpruned",
        "generalization_gap",
    ),
    _Gain(
        "Removing the largest filters ends more accurate on shifted images than no removal",
        "largest_high",
        "unpruned",
        role="target",
    ),
)


def instability_claims(frame: pd.DataFrame) -> list[Claim]:
    """Return the claims: correlations within the highest rate and pooled over rates, and gains over controls.

    All are about the last epoch. A claim whose arms are not in the table, or that has no interval, is left out.

    Raises:
        DgpruneError: no run with an event while training.
    """
    claims = [*_correlations(instability_correlations(frame))]
    last = frame[(frame["stage"] == "last") & (frame["split"] == "report")]
    for knob in dict.fromkeys(last["knob"]):
        ending = "" if knob == "none" else f", with {str(knob).replace('_', ' ')}"
        for gain in _GAINS if knob == "none" else _GAINS[:1]:
            claims += _gains(last[last["knob"] == knob], gain, ending=ending)
    return claims


def _correlations(table: Any) -> Iterator[Claim]:
    """Yield the claims about Pearson's correlations; Kendall's is in the note."""
    for link in _LINKS:
        role = table["role"].isna() if link.role is None else table["role"] == link.role
        selected = (table["measure"] == link.measure) & (table["of_metric"] == link.metric) & (table["stage"] == "last")
        rows = table[selected & role]
        highest = rows.groupby("data_set")["within"].last()  # rates stand in ascending order behind the pooled runs
        for (data_set, within), pair in rows.groupby(["data_set", "within"], sort=False):
            by_metric = pair.set_index("metric").to_dict("index")
            if "pearson" in by_metric and (within == highest[data_set] or (within == POOLED and link.pooled)):
                where = f"{data_set}, {'pooled over rates' if within == POOLED else f'within {within}'}"
                yield from _link_claims(link, by_metric["pearson"], kendall=by_metric.get("kendall"), where=where)


def _link_claims(link: _Link, row: dict[str, Any], *, kendall: dict[str, Any] | None, where: str) -> Iterator[Claim]:
    """Yield the claim about one correlation, if it has an interval."""
    if is_missing(row["low"]):
        return
    tau = "Kendall's tau-b is undefined" if kendall is None else f"Kendall's tau-b {_format_value(kendall)}"
    mixed = "" if is_missing(row["note"]) else f" It {row['note']}."
    claim = Claim.from_row(
        row,
        claim=f"{link.sentence}, {where}",
        paper=PAPER,
        published=OURS if link.role == "target" else PUBLISHED,
        ours=link.role == "target",
        note=f"Pearson's, over {row['runs']:.0f} runs; {tau}.{mixed}",
    )
    yield claim if link.positive else replace(claim, verdict=verdict(-claim.high, -claim.low))


def _format_value(row: dict[str, Any]) -> str:
    interval = "" if is_missing(row["low"]) else f" ({row['low']:+.2f} to {row['high']:+.2f})"
    return f"{row['value']:+.2f}{interval}"


def _gains(rows: Any, gain: _Gain, *, ending: str) -> Iterator[Claim]:
    """Yield, for each data set, the claim that one arm ends better than another."""
    both = rows[rows["arm"].isin([gain.arm, gain.baseline]) & (rows["role"] == gain.role)]
    if set(both["arm"]) != {gain.arm, gain.baseline}:
        return
    try:
        table: Any = compare(both, baseline=gain.baseline, of="arm", metric=gain.metric, over="data_set", by=[])
    except DgpruneError:  # fewer than two training seeds with both arms
        return
    for row in table.to_dict("records"):
        smaller = gain.metric == "generalization_gap"
        minus = " minus ".join((gain.baseline, gain.arm) if smaller else (gain.arm, gain.baseline))
        flipped = {"value": -row["value"], "low": -row["high"], "high": -row["low"]} if smaller else {}
        yield Claim.from_row(
            {**row, **flipped},
            claim=f"{gain.sentence}, {row['data_set']}{ending}",
            paper=PAPER,
            published=OURS if gain.role == "target" else PUBLISHED,
            ours=gain.role == "target",
            note=f"{minus}, paired by training seed; p = {row['p_holm']:.2g}, adjusted for the data sets (Holm)",
        )
