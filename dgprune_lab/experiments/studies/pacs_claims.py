"""The published gain, judged by the table of the study `pacs`, beside every control."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from ...training import DENSE
from ..claims import Claim
from ..compare import compare
from ._held_out import held_out_measures

PAPER = "Sun 2023, arXiv:2306.13237"
MIRO = "Cha et al. 2022, arXiv:2203.10789"
PUBLISHED = "ResNet-50 at 224 px: MIRO 85.4 +- 0.4, DSS at 10 % 86.45"
GAIN = 0.0105
"""86.45 - 85.4 percentage points, at 10 %; no gain on PACS is published for 5 %."""

TUNED = "dense_tuned"
CONTROLS = (DENSE, TUNED)
BASELINES = {
    DENSE: "the network as trained",
    TUNED: "equal extra epochs without removal",
    "random": "random removal with equal extra epochs",
    "l1": "removal by L1 with equal extra epochs",
    "taylor": "removal by Taylor with equal extra epochs",
    "dss_sources": "removal by DSS between the sources",
    "reverse(dss)": "removal in the reversed order",
}
"""Arm -> its name in a claim."""


def pacs_claims(frame: pd.DataFrame) -> list[Claim]:
    """Return the claims: DSS on top of MIRO against each baseline, at each ratio; and MIRO against ERM."""
    accuracy: Any = pd.concat(_measures(frame))
    accuracy = accuracy[(accuracy["metric"] == "accuracy") & (accuracy["role"] == "target")]
    return [*_gains(accuracy[accuracy["objective"] == "miro"]), *_miro(accuracy[accuracy["scorer"] == DENSE])]


def _gains(miro: Any) -> Iterator[Claim]:
    """Yield the claims about DSS with MIRO."""
    for baseline, against in BASELINES.items():
        rows = compare(miro[miro["scorer"].isin(["dss", baseline])], baseline=baseline, by=())
        weak = _below_random(miro, baseline)
        for row in rows.sort_values("ratio_requested", ascending=False).to_dict("records"):
            ratio = float(row["ratio_requested"])
            is_published = baseline == DENSE and ratio == 0.1
            removed = f"removing {100 * ratio:g} % by DSS"
            yield Claim.from_row(
                row,
                claim=f"After MIRO, {removed} ends more accurate on the unseen domain than {against}",
                paper=PAPER,
                published=PUBLISHED if is_published else "",
                claimed=GAIN if is_published else None,
                ours=not is_published,
                note="EfficientNet-Lite0 at 112 px, mean over the held-out targets; DSS reads the reported images."
                + weak.get(ratio, ""),
            )


def _below_random(miro: Any, baseline: str) -> dict[float, str]:
    """Return ratio -> caveat, for ratios where a baseline is worse than random removal and beating it means little."""
    if baseline not in ("l1", "taylor", "dss_sources"):
        return {}
    rows = compare(miro[miro["scorer"].isin([baseline, "random"])], baseline="random", by=())
    return {
        float(row["ratio_requested"]): (
            f" This baseline is itself worse than random removal, {_points(row['value'])} points "
            f"[{_points(row['low'])}, {_points(row['high'])}], so that to beat it says little."
        )
        for row in rows.query("low < high < 0").to_dict("records")  # two equal seeds have no interval
    }


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _miro(dense: Any) -> Iterator[Claim]:
    """Yield the claim about MIRO itself, on the networks as trained, which are the same at every ratio."""
    rows = dense[dense["ratio_requested"] == dense["ratio_requested"].max()]
    for row in compare(rows, baseline="erm", of="objective", by=()).to_dict("records"):
        yield Claim.from_row(
            row,
            claim="MIRO ends more accurate on the unseen domain than ERM, nothing removed",
            paper=MIRO,
            published="ResNet-50 at 224 px: MIRO 85.4 +- 0.4",
            note="EfficientNet-Lite0 at 112 px, mean over the held-out targets.",
        )


def _measures(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the averages over targets of each objective."""
    for objective, rows in frame.groupby("objective"):
        yield held_out_measures(rows, dense=CONTROLS).assign(objective=objective)
