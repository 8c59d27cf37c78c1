"""Published claims beside our estimates, judged by the interval of our estimate alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from ..core import DIAMOND, DgpruneError, NotNegative, Positive, is_missing, public
from ..stats import intervals

Verdict = Literal["yes", "less", "no", "cannot tell"]
WORDS: Mapping[Verdict, str] = {
    "yes": "yes",
    "less": "a gain, smaller than published",
    "no": "no",
    "cannot tell": "cannot tell",
}
_NO_WIDTH = 1e-9  # below this, the ends of an interval differ only by rounding


@public
@dataclass(frozen=True, kw_only=True)
class Claim:
    """One published claim, and what a study found about it.

    Attributes:
        claim: what is claimed, in one sentence.
        paper: the paper that claims it, such as "Sun 2023"; with `ours`, the paper that the comparison belongs to.
        published: the published number with its network, as text.
        estimate, low, high: our estimate with its 95 % interval, over training seeds unless `note` says otherwise.
        minimum_detectable_effect: half the width of the interval: an estimate closer to 0 is not significant. A true
            effect of this size is found in about half of all repetitions.
        unit: unit of the numbers; "share" for a difference of accuracies (0.05: five percentage points).
        seeds: the training seeds, as text.
        verdict: see `verdict`; also "cannot tell" if there are only two training seeds and they agree exactly, as the
            interval of two equal numbers has no width.
        claimed: the published gain, in the unit of the estimate.
        margin: for a claim that something is kept: the largest loss that counts as kept.
        note: what a reader must know to judge the claim.
        target_aware: whether either of the networks compared was scored, fine-tuned or chosen by looking at the target.
        ours: True if the paper does not claim it: a control, or a question of our own.
    """

    claim: str
    paper: str
    published: str
    estimate: float
    low: float
    high: float
    minimum_detectable_effect: float
    unit: str
    seeds: str
    verdict: Verdict
    claimed: Positive | None = None
    margin: NotNegative = 0.0
    note: str = ""
    target_aware: bool | None = None
    ours: bool = False

    @classmethod
    def from_row(
        cls,
        row: Mapping[str, Any] | pd.Series,
        *,
        claim: str,
        paper: str,
        published: str,
        claimed: Positive | None = None,
        margin: NotNegative = 0.0,
        note: str = "",
        ours: bool = False,
    ) -> Claim:
        """Return the claim whose numbers are those of one row of `compare`.

        Args:
            row: a row of differences.
            claim, paper, published, note, ours: see `Claim`.
            claimed, margin: see `verdict`.
        """
        cells = dict(row)
        aware = cells.get("target_aware")
        low, high, seeds = float(cells["low"]), float(cells["high"]), str(cells["seeds"])
        undecided = high - low < _NO_WIDTH and seeds.count(",") < 2
        return cls(
            claim=claim,
            paper=paper,
            published=published,
            estimate=float(cells["value"]),
            low=low,
            high=high,
            minimum_detectable_effect=float(cells["minimum_detectable_effect"]),
            unit=str(cells["unit"]),
            seeds=seeds,
            verdict="cannot tell" if undecided else verdict(low, high, claimed=claimed, margin=margin),
            claimed=claimed,
            margin=margin,
            note=note,
            target_aware=None if is_missing(aware) else bool(aware),
            ours=ours,
        )


@public
def verdict(
    low: float | None, high: float | None, *, claimed: Positive | None = None, margin: NotNegative = 0.0
) -> Verdict:
    """Return whether an interval agrees with a claim.

    Without a claimed size: "yes" if the whole interval lies above -margin, "no" if it lies below, else "cannot tell".
    With a claimed gain: "yes" if the interval lies above 0 and reaches the claimed gain; "less" if it lies above 0 and
    below the claimed gain; "no" if it reaches 0 and stays below the claimed gain; else "cannot tell".

    Args:
        low, high: 95 % interval of the difference; None where there is none.
        claimed: the published gain.
        margin: for a claim that something is kept: the largest loss that counts as kept, stated before the runs.

    Raises:
        DgpruneError: low above high; both a claimed gain and a margin.

    >>> verdict(0.01, 0.03), verdict(0.01, 0.03, claimed=0.05), verdict(-0.01, 0.03), verdict(-0.01, 0.03, margin=0.02)
    ('yes', 'less', 'cannot tell', 'yes')
    """
    if claimed is not None and margin:
        raise DgpruneError(
            "a claim is either of a gain (claimed) or that something is kept (margin); pass one of them."
        )
    if low is None or high is None:
        return "cannot tell"
    if low > high:
        raise DgpruneError(f"low must not be above high; got {low:g} and {high:g}. Swap them.")
    if claimed is None:
        return "yes" if low > -margin else "no" if high < -margin else "cannot tell"
    if low > 0:
        return "yes" if high >= claimed else "less"
    return "no" if high < claimed else "cannot tell"


def over_seeds(values: Mapping[Any, float], *, unit: str = "share") -> dict[str, Any]:
    """Return the mean over training seeds, none of which looked at the target, as a row for a `Claim`."""
    numbers = list(values.values())
    mean, low, high = intervals.over_seeds(numbers)
    return {
        "value": mean,
        "low": low,
        "high": high,
        "minimum_detectable_effect": intervals.minimum_detectable_effect(numbers),
        "unit": unit,
        "seeds": ", ".join(f"{seed:g}" for seed in values),
        "target_aware": False,
    }


@public
def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """Return a table with a row per claim and verdicts as text; a target-aware comparison's claim begins with ◇."""
    rows = []
    for claim in claims:
        mark = f"{DIAMOND} " if claim.target_aware else ""
        rows.append({**asdict(claim), "claim": mark + claim.claim, "verdict": WORDS[claim.verdict]})
    return pd.DataFrame(rows, columns=list(Claim.__dataclass_fields__)).astype({"target_aware": "boolean"})
