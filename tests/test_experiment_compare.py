"""Comparisons over training seeds: paired as they should be, right on average, and silent about nothing."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import dgprune_lab as dg
from dgprune_lab.core import COLUMNS
from dgprune_lab.experiments import Claim, claims_table, compare, verdict
from dgprune_lab.stats import intervals

NOTHING_SEEN = dict.fromkeys(("seen_by_training", "seen_by_scorer", "seen_by_finetuning", "seen_by_selection"), "none")


def table(
    *, scorers: tuple[str, ...] = ("l1", "random", "dss"), ratios: Any = (0.3, 0.5), seeds: int = 4, **columns: Any
) -> Any:
    """A made-up table of an experiment: a row per scorer, ratio, training seed and domain."""
    generator = np.random.default_rng(7)
    rows: list[dict[str, Any]] = []
    places: Any = itertools.product(range(seeds), scorers, ratios, "at")
    for seed, scorer, ratio, domain in places:
        made: dict[str, Any] = {
            "scorer": scorer,
            "ratio_requested": ratio,
            "training_seed": seed,
            "domain": domain,
            "run": "x",
        }
        made |= {"seed": 100 + seed if scorer == "random" else 0, "role": "target" if domain == "t" else "source"}
        made |= {"split": "report", "images": 90, "metric": "accuracy", "value": generator.uniform(), "unit": "share"}
        made |= {"ratio_achieved": ratio + 0.01 * seed, **NOTHING_SEEN, "target_aware": scorer == "dss"}
        made |= {"seen_by_scorer": "images" if (scorer, domain) == ("dss", "t") else "none"}
        rows.append({**made, **columns})
    return dg.tidy(rows, extra=["run", *(set(columns) - set(COLUMNS))])


def changed(frame: Any, where: Any, **cells: Any) -> Any:
    """A copy in which some rows have other cells."""
    frame = frame.copy()
    for name, cell in cells.items():
        column: Any = frame[name].astype(object) if name in frame else pd.Series(None, index=frame.index, dtype=object)
        column[where(frame)] = cell
        frame[name] = column
    return frame


def test_differences_are_those_of_the_paired_t_test() -> None:
    frame = table()
    found: Any = compare(frame.sample(frac=1, random_state=0), baseline="l1")
    assert len(found) == 2 * 2 * 2 and set(found.metric) == {"difference"} and set(found.unit) == {"share"}
    for row in found.to_dict("records"):
        at: Any = frame[(frame.ratio_requested == row["ratio_requested"]) & (frame.domain == row["domain"])]
        mine, theirs = (at[at.scorer == name].sort_values("training_seed") for name in (row["scorer"], "l1"))
        wanted: Any = stats.ttest_rel(mine.value, theirs.value)
        low, high = wanted.confidence_interval()
        said = [row[name] for name in ("value", "low", "high", "minimum_detectable_effect", "p_value")]
        mean = (mine.value.to_numpy() - theirs.value.to_numpy()).mean()
        assert said == pytest.approx([mean, low, high, (high - low) / 2, wanted.pvalue])
        assert (row["pairs"], row["seeds"], row["missing"], row["baseline"]) == (4, "0, 1, 2, 3", "", "l1")
        assert (row["interval"], row["images"], row["ratio_achieved"]) == ("seeds", 90, mine.ratio_achieved.mean())
        assert row["role"] == ("target" if row["domain"] == "t" else "source")
    for _, rows in found.groupby(["scorer", "domain"]):
        assert rows.p_holm.tolist() == intervals.holm(rows.p_value.tolist()), "over the ratios"


def test_a_difference_tells_what_either_side_has_seen() -> None:
    for baseline, other in (("l1", "dss"), ("dss", "l1")):
        found: Any = compare(table(), baseline=baseline).set_index(["scorer", "domain", "ratio_requested"])
        assert found.target_aware[other, "t", 0.5] and found.seen_by_scorer[other, "t", 0.5] == "images"
    assert not compare(table(scorers=("l1", "random")), baseline="l1").target_aware.any()
    with pytest.raises(dg.DgpruneError, match="unknown word in the column seen_by_scorer: 'nothing'"):
        compare(changed(table(), lambda f: f.scorer == "random", seen_by_scorer="nothing"), baseline="l1")
    unsaid = changed(table(), lambda f: f.scorer == "random", target_aware=None, seen_by_scorer=None)
    row: Any = compare(unsaid, baseline="l1").query("scorer == 'random'").iloc[0]
    assert row.target_aware is pd.NA and row.seen_by_scorer == "unknown"


def test_settings_that_vary_are_never_mixed() -> None:
    both: Any = pd.concat([table(), table(seeds=3).assign(value=0.5)], keys=["none", "three"], names=["extra_epochs"])
    found: Any = compare(both.reset_index(level=0), baseline="l1")
    assert set(found[found.extra_epochs == "three"].value) == {0.0} and len(found) == 2 * 8
    assert set(found[found.extra_epochs == "three"].pairs) == {3} and 0.0 not in set(found[found.pairs == 4].value)
    with pytest.raises(dg.DgpruneError, match=r"training seed 0 has several rows at domain a, ratio_requested 0.3"):
        compare(both.reset_index(drop=True), baseline="l1")
    with pytest.raises(dg.DgpruneError, match="has several rows"):
        compare(both.reset_index(level=0), baseline="l1", by=["split"])


def test_a_setting_that_is_empty_on_one_side_need_not_agree() -> None:
    frame = changed(table(scope="layer"), lambda f: f.scorer == "l1", scope=None)
    once = changed(frame, lambda f: (f.scorer == "l1") & (f.ratio_requested == 0.3), ratio_requested=None)
    plain = once[~((once.scorer == "l1") & (once.ratio_requested == 0.5))].astype({"ratio_requested": float})
    for baseline, other in (("l1", "random"), ("random", "l1")):
        found: Any = compare(plain, baseline=baseline).set_index(["scorer", "domain", "ratio_requested"]).loc[other]
        assert sorted(found.index) == [("a", 0.3), ("a", 0.5), ("t", 0.3), ("t", 0.5)] and set(found.pairs) == {4}
    variants = changed(table(), lambda f: f.scorer == "dss", variant="published")
    assert len(compare(variants, baseline="l1")) == 8


def test_pairs_that_are_missing_are_said() -> None:
    frame = table()
    gone = (frame.scorer == "dss") & (frame.training_seed == 3) & (frame.ratio_requested == 0.5) & (frame.domain == "t")
    with pytest.warns(
        dg.DgpruneNote, match=r"dss at domain t, ratio_requested 0.5, role target: training seed 3 is on one side"
    ):
        found: Any = compare(frame[~gone], baseline="l1")
    row = found[(found.scorer == "dss") & (found.domain == "t") & (found.ratio_requested == 0.5)].iloc[0]
    assert (row.seeds, row.pairs, row.missing) == ("0, 1, 2", 3, "3") and set(found.pairs) == {3, 4}
    one = frame[(frame.scorer != "dss") | (frame.ratio_requested == 0.3) | (frame.training_seed == 0)]
    with pytest.warns(dg.DgpruneNote, match="one pair gives no interval"):
        assert len(compare(one, baseline="l1")) == 6
    whole = frame[(frame.scorer != "dss") | (frame.ratio_requested == 0.3)]
    with pytest.warns(dg.DgpruneNote, match=r"dss: l1 has no partner at domain a, ratio_requested 0.5"):
        assert len(compare(whole, baseline="l1")) == 6


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "baseline": (table(), {"baseline": "l11"}, r"unknown scorer 'l11'; known: l1, random, dss. Did you mean 'l1'\?"),
    "column": (table(), {"of": "scorers"}, r"unknown column 'scorers'.*Did you mean 'scorer'\?"),
    "over": (table(), {"over": "ratio"}, "unknown column 'ratio'"),
    "by": (table(), {"by": ["variant"]}, "unknown column 'variant'"),
    "metric": (table(), {"metric": "loss"}, "unknown metric 'loss'; known: accuracy"),
    "one seed": (table(seeds=1), {}, "holds one training seed, 0, and an interval over training seeds needs two"),
    "no seed": (table(training_seed=None), {}, "48 of 48 rows of accuracy have no training_seed"),
    "nan": (changed(table(), lambda f: f.index == 5, value=np.nan), {}, "1 of 48 rows of accuracy hold no finite"),
    "no other": (table(scorers=("l1",)), {}, "no scorer can be compared with 'l1': there is no other scorer"),
    "apart": (
        changed(table(scorers=("l1", "dss")), lambda f: f.scorer == "l1", batchnorm="as_is").fillna({"batchnorm": "x"}),
        {},
        r"dss has no partner: they differ in batchnorm \(x against as_is\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused_in_words(case: str) -> None:
    frame, options, words = REFUSED[case]
    with pytest.raises(dg.DgpruneError, match=words):
        compare(frame, **{"baseline": "l1", **options})


def simulated(*, effect: float, studies: int = 200, seeds: int = 5) -> Any:
    """Accuracies on 500 images of 200 studies of 8 comparisons: the seed matters to both scorers, and differently."""
    generator = np.random.default_rng(2026)
    names = ("training_seed", "study", "domain", "ratio_requested")
    places = list(itertools.product(range(seeds), range(studies), "ab", (0.2, 0.4, 0.6, 0.8)))
    base = generator.normal(0.7, 0.05, size=(seeds, studies, 8))  # what both scorers share of a training
    own = generator.normal(0, 0.02, size=(2, seeds, studies, 8))
    frames = []
    for scorer, gain, noise in (("l1", 0.0, own[0]), ("planted", effect, own[1])):
        right = generator.binomial(500, np.clip(base + gain + noise, 0, 1)).ravel() / 500
        frames.append(pd.DataFrame(places, columns=list(names)).assign(scorer=scorer, value=right))
    return pd.concat(frames).assign(metric="accuracy", unit="share", target_aware=False)


@pytest.mark.parametrize("effect", [0.0, 0.1])
def test_intervals_of_simulated_studies_cover_the_truth(effect: float) -> None:
    found: Any = compare(simulated(effect=effect), baseline="l1")
    assert len(found) == 200 * 8  # standard deviation of the share: sqrt(.95 .05 / 1600) = .0054
    covered = (found.low <= effect) & (effect <= found.high)
    assert 0.93 <= covered.mean() <= 0.97
    verdicts = [verdict(low, high) for low, high in zip(found.low, found.high, strict=True)]
    if effect:
        assert verdicts.count("yes") > 0.9 * len(verdicts) and verdicts.count("no") == 0
    else:
        assert 0.03 <= 1 - verdicts.count("cannot tell") / len(verdicts) <= 0.07
        families = found.groupby(["study", "domain"]).p_holm.min()
        assert (families < 0.05).mean() <= 0.07, "Holm: at most 5 % of the families of four ratios have a false gain"


def test_verdicts() -> None:
    cases = {
        (0.01, 0.03): ("yes", "less"),
        (0.01, 0.06): ("yes", "yes"),
        (-0.01, 0.03): ("cannot tell", "no"),
        (-0.01, 0.06): ("cannot tell", "cannot tell"),
        (-0.03, -0.01): ("no", "no"),
        (0.0, 0.0): ("cannot tell", "no"),
    }
    for (low, high), (alone, of_five) in cases.items():
        assert (verdict(low, high), verdict(low, high, claimed=0.05)) == (alone, of_five), (low, high)
    kept = [verdict(low, high, margin=0.02) for low, high in ((-0.01, 0.0), (-0.03, -0.01), (-0.05, -0.03))]
    assert kept == ["yes", "cannot tell", "no"] and verdict(None, None) == "cannot tell"
    with pytest.raises(dg.DgpruneError, match="low must not be above high"):
        verdict(0.2, 0.1)
    with pytest.raises(dg.DgpruneError, match="pass one of them"):
        verdict(0.1, 0.2, claimed=0.1, margin=0.1)


@pytest.mark.parametrize("value", [0.05, -0.05, 0.0])
def test_two_seeds_that_agree_exactly_decide_no_claim(value: float) -> None:
    rows = [
        {"domain": "t", "scorer": scorer, "ratio_requested": 0.5, "training_seed": seed, "metric": "accuracy"}
        | {"value": 0.1 + 0.1 * seed + (value if scorer == "dss" else 0.0), "unit": "share"}
        for seed in range(2)
        for scorer in ("dss", "l1")
    ]
    (row,) = compare(dg.tidy(rows), baseline="l1").to_dict("records")
    assert row["high"] - row["low"] == pytest.approx(0, abs=1e-12), "no width, but for rounding"
    cases: list[dict[str, Any]] = [{}, {"claimed": 0.02}, {"margin": 0.01}]
    for judged in cases:
        found = Claim.from_row(row, claim="Gains", paper="Sun 2023", published="", **judged)
        assert found.verdict == "cannot tell" and found.estimate == pytest.approx(value), judged


def test_a_claim_takes_its_numbers_from_a_row() -> None:
    found: Any = compare(table(), baseline="l1").query("domain == 't'")
    named = {"claim": "Gains", "paper": "Sun 2023", "published": "+5 points", "claimed": 0.05}
    claims = [Claim.from_row(row, **named) for _, row in found.iterrows()]
    assert claims[0].estimate == found.value.iloc[0] and claims[0].seeds == "0, 1, 2, 3" and claims[0].unit == "share"
    shown = claims_table(claims)
    assert [text.startswith("◇ ") for text in shown.claim] == (found.scorer == "dss").tolist()
    assert shown.verdict.tolist() == [verdict(c.low, c.high, claimed=0.05) for c in claims]
    assert claims_table([]).empty and list(claims_table([]).columns) == list(shown.columns)
