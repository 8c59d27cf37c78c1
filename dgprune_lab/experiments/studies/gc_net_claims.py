"""What the study of GC-Net says about the paper's claims."""

from __future__ import annotations

import pandas as pd

from ...stats import intervals
from ..claims import Claim, verdict

PAPER = "Wisell and Yasaei Sekeh 2024, arXiv:2411.09199"
_SPREADS = ("rho_spread", "rho_null_spread")
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
    ("Pruning {} by GC-Net keeps more accuracy under shift than by magnitude", "gc_net", "l1"),
    ("Pruning {} by magnitude in early and by GC-Net in late layers keeps more than by magnitude alone", DEPTH, "l1"),
    ("Pruning {} by magnitude in early and by GC-Net in late layers keeps more than by GC-Net alone", DEPTH, "gc_net"),
    ("Pruning {} by GC-Net keeps more than at random", "gc_net", "random"),
)


def gc_net_claims(frame: pd.DataFrame) -> list[Claim]:
    """Return the paper's claims, for connections without and with fine-tuning, and for filters with it.

    An estimate is the mean difference of the accuracy under shift, over data sets, shifts and ratios, paired by
    training seed; seeds that lack a run are left out, and claims with fewer than two seeds. The note holds the data
    sets one by one, the other outcomes, the hybrid with the middle l0, and how much more rho differs than by chance.
    """
    outcomes, claims, spread = gc_net_outcomes(frame), [], _spread_words(frame)
    for level, finetuned in (("connection", False), ("connection", True), ("filter", True)):
        runs = outcomes[(outcomes["level"] == level) & (outcomes["finetuned"] == finetuned)]
        wide = runs.pivot(
            values=list(_OUTCOMES), index="training_seed", columns=["scorer", "data_set", "ratio_requested"]
        )
        when = "fine-tuned" if finetuned else "not fine-tuned"
        published = "not in the paper: the filter score is ours" if level == "filter" else "no number in the abstract"
        for text, scorer, baseline in _CLAIMS:
            if {scorer, baseline} <= set(runs["scorer"]):
                claims += _claim(
                    wide,
                    scorer,
                    baseline=baseline,
                    text=f"{text.format(f'{level}s')} ({when})",
                    published=published,
                    spread=spread,
                )
    return claims


def _claim(wide: pd.DataFrame, scorer: str, *, baseline: str, text: str, published: str, spread: str) -> list[Claim]:
    """The claim that `scorer` keeps more than `baseline`; none without two seeds that have all runs."""
    gaps = _differences(wide["shifted"], scorer, baseline=baseline)
    if len(gaps) < 2:
        return []
    mean, low, high = intervals.over_seeds(gaps.mean(axis=1).to_list())
    notes = {str(name): rows.T for name, rows in gaps.T.groupby("data_set")}
    for outcome, name in (("clean", "clean images"), ("worst", "worst shift")):
        notes[name] = _differences(wide[outcome], scorer, baseline=baseline)
    if scorer == DEPTH:
        notes["middle l0"] = _differences(wide["shifted"], MIDDLE, baseline=baseline)
    each = [(name, *intervals.over_seeds(values.mean(axis=1).to_list())) for name, values in notes.items()]
    return [
        Claim(
            claim=text,
            paper=PAPER,
            published=published,
            estimate=mean,
            low=low,
            high=high,
            minimum_detectable_effect=high - mean,
            unit="share",
            seeds=", ".join(f"{seed:g}" for seed in gaps.index),
            verdict=verdict(low, high),
            note="; ".join(f"{name} {value:+.3f} [{start:+.3f}, {end:+.3f}]" for name, value, start, end in each)
            + spread,
            target_aware=False,
        )
    ]


def _differences(wide: pd.DataFrame, scorer: str, *, baseline: str) -> pd.DataFrame:
    """Training seed x (data set, ratio): scorer - baseline; only seeds that have them all."""
    return (wide[scorer] - wide[baseline]).dropna()


def _spread_words(frame: pd.DataFrame) -> str:
    """The standard deviation of rho within a pair of layers and that of randomly paired images, to end a note."""
    spreads = frame[frame["metric"].isin(_SPREADS)].groupby("metric")["value"].mean()
    if len(spreads) < 2:
        return ""
    measured, chance = (spreads[name] for name in _SPREADS)
    return f"; rho has a spread of {measured:.3f}, with randomly paired images {chance:.3f}"
