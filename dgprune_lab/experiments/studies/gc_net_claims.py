"""What the study of GC-Net says about the paper's claims."""

from __future__ import annotations

import pandas as pd

from ...stats import intervals
from ..claims import Claim, verdict

PAPER = "Wisell and Yasaei Sekeh 2024, arXiv:2411.09199"
_OUTCOMES = ("clean", "shifted", "worst")
DEPTH, MIDDLE = "hybrid by depth, mean over l0", "hybrid by depth, middle l0"


def gc_net_outcomes(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what each run says of each way to prune: accuracy on clean images, under shifts, under the worst shift.

    Args:
        frame: table of the study, with a row per domain.

    Returns:
        Columns training_seed, data_set, level, ratio_requested, finetuned, scorer; `clean`, `shifted` (mean over the
        shifts) and `worst`, as shares. `DEPTH` is the mean over all l0 of the hybrid by depth, `MIDDLE` its middle l0.
    """
    keys = ["training_seed", "data_set", "level", "ratio_requested", "finetuned", "scorer", "start"]
    accuracy = frame[frame["metric"] == "accuracy"]
    roles = [accuracy[accuracy["role"] == role].groupby(keys, dropna=False)["value"] for role in ("source", "target")]
    each = pd.DataFrame({"clean": roles[0].mean(), "shifted": roles[1].mean(), "worst": roles[1].min()}).reset_index()
    by_depth = each[each["start"].notna()]
    last = by_depth.groupby("level")["start"].transform("max")
    middle = by_depth[by_depth["start"] == (last + 1) // 2]
    parts = [each, by_depth.assign(scorer=DEPTH), middle.assign(scorer=MIDDLE)]
    return pd.concat(parts).groupby(keys[:-1])[list(_OUTCOMES)].mean().reset_index()


_CLAIMS = (
    ("more accuracy under shift is kept by GC-Net than by magnitude", "gc_net", "l1"),
    ("magnitude in early and GC-Net in late layers keep more than magnitude alone", DEPTH, "l1"),
    ("magnitude in early and GC-Net in late layers keep more than GC-Net alone", DEPTH, "gc_net"),
    ("more is kept by GC-Net than at random", "gc_net", "random"),
)


def gc_net_claims(frame: pd.DataFrame) -> list[Claim]:
    """Return the paper's claims, for connections without and with fine-tuning, and for filters with it.

    An estimate is the mean difference of the accuracy under shift, over data sets, shifts and ratios, paired by
    training seed; seeds that lack a run are left out, and claims with fewer than two seeds. The note holds the data
    sets one by one, the other outcomes, and the hybrid with the middle l0.
    """
    outcomes, claims = gc_net_outcomes(frame), []
    for level, finetuned in (("connection", False), ("connection", True), ("filter", True)):
        runs = outcomes[(outcomes["level"] == level) & (outcomes["finetuned"] == finetuned)]
        wide = runs.pivot(
            values=list(_OUTCOMES), index="training_seed", columns=["scorer", "data_set", "ratio_requested"]
        )
        what = f"{level}s, {'fine-tuned' if finetuned else 'not fine-tuned'}"
        for text, scorer, baseline in _CLAIMS:
            if {scorer, baseline} <= set(runs["scorer"]):
                claims += _claim(wide, scorer, baseline=baseline, text=f"{what}: {text}")
    return claims


def _claim(wide: pd.DataFrame, scorer: str, *, baseline: str, text: str) -> list[Claim]:
    """The claim that `scorer` keeps more than `baseline`; none without two seeds that have all runs."""
    gaps = _differences(wide["shifted"], scorer, baseline=baseline)
    if len(gaps) < 2:
        return []
    mean, low, high = intervals.over_seeds(gaps.mean(axis=1).to_list())
    notes = {str(name): rows.T for name, rows in gaps.T.groupby("data_set")}
    notes |= {
        f"{outcome} images": _differences(wide[outcome], scorer, baseline=baseline) for outcome in ("clean", "worst")
    }
    if scorer == DEPTH:
        notes["middle l0"] = _differences(wide["shifted"], MIDDLE, baseline=baseline)
    said = [(name, *intervals.over_seeds(values.mean(axis=1).to_list())) for name, values in notes.items()]
    return [
        Claim(
            claim=text,
            paper=PAPER,
            published="no number in the abstract",
            estimate=mean,
            low=low,
            high=high,
            minimum_detectable_effect=high - mean,
            unit="share",
            seeds=", ".join(f"{seed:g}" for seed in gaps.index),
            verdict=verdict(low, high),
            note="; ".join(f"{name} {value:+.3f} [{start:+.3f}, {end:+.3f}]" for name, value, start, end in said),
            target_aware=False,
        )
    ]


def _differences(wide: pd.DataFrame, scorer: str, *, baseline: str) -> pd.DataFrame:
    """Training seed x (data set, ratio): scorer - baseline; only seeds that have them all."""
    return (wide[scorer] - wide[baseline]).dropna()
