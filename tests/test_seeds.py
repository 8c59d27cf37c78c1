"""Over training seeds: the interval, the smallest effect, Holm's adjustment, and scorers compared after fine-tuning."""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from material import domain, plain_net, randomise
from scipy import stats
from torch import Tensor, nn
from tuned_study import QUICK

import dgprune_lab as dg
from dgprune_lab import charts, diagnostics
from dgprune_lab.core.provenance import Provenance, set_provenance
from dgprune_lab.diagnostics.after_finetuning import EXTRA
from dgprune_lab.stats import intervals
from dgprune_lab.training import rounds
from dgprune_lab.training.rounds import Run


def spread_of_one(count: int) -> list[float]:
    """So many numbers with mean 3 and standard deviation 1."""
    values = np.random.default_rng(count).normal(size=count)
    return list(3 + (values - values.mean()) / values.std(ddof=1))


@pytest.mark.parametrize(("count", "half"), [(5, 1.24), (10, 0.72)])
def test_the_interval_over_seeds(count: int, half: float) -> None:
    values = spread_of_one(count)
    mean, low, high = intervals.over_seeds(values)
    assert (mean, high - mean) == pytest.approx((3, half), abs=0.005) and mean - low == pytest.approx(high - mean)
    assert intervals.minimum_detectable_effect(values) == pytest.approx(half, abs=0.005)
    wanted = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (low, high) == pytest.approx(wanted)


def test_one_value_has_no_interval() -> None:
    mean, low, high = intervals.over_seeds([0.5])
    assert mean == 0.5 and all(
        map(math.isnan, (low, high, intervals.minimum_detectable_effect([0.5]), intervals.paired_p([1])))
    )
    assert math.isnan(intervals.over_seeds([])[0])


def test_p_values_are_those_of_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    for count in (2, 3, 10):
        one, other = generator.normal(size=(2, count))
        wanted: Any = stats.ttest_rel(one, other)
        assert intervals.paired_p(one - other) == pytest.approx(wanted.pvalue)
    assert intervals.paired_p([0.0, 0.0]) == 1 and intervals.paired_p([0.1, 0.1]) == 0


def test_holm_by_the_long_way() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    for order in itertools.permutations(p):
        found = dict(zip(order, intervals.holm(order), strict=True))
        for level in np.linspace(0.001, 0.2, 200):
            rejected = set()
            for rank, value in enumerate(sorted(p)):  # the step-down test itself
                if value > level / (len(p) - rank):
                    break
                rejected.add(value)
            assert {value for value in p if found[value] <= level} == rejected
    assert intervals.holm([0.9, 0.8]) == [1, 1] and intervals.holm([]) == []
    assert intervals.holm([math.nan, 0.02])[1] == 0.02 and math.isnan(intervals.holm([math.nan, 0.02])[0])


def test_the_three_trainings() -> None:
    found = dg.training_seeds()
    assert [study.training_seed for study in found] == [0, 1, 2] and len({study.content for study in found}) == 3
    assert {tuple((d.name, d.role) for d in study.domains) for study in found} == {
        (("mnist", "source"), ("uci_digits", "source"), ("mnist_m", "target"))
    }
    assert [study.origin for study in found] == [f"dg.training_seeds()[{k}]" for k in range(3)]


@dg.scorer("peeks", needs=("moments",), reads={"source": "images", "target": "images"})
def peeks(view: Any) -> Tensor:
    """Mean response on the target."""
    return view.moments(view.targets[0]).mean


def trainings(count: int = 3, **changed: Any) -> list[dg.Study]:
    domains = [domain("a", count=90), domain("t", count=90, seed=2)]
    nets = [trained(seed) for seed in range(count)]
    return [dg.Study(net, **{"sources": domains[:1], "targets": domains[1:], **changed}) for net in nets]


def trained(seed: int) -> nn.Module:
    net: Any = randomise(plain_net(), seed=seed, dtype=torch.float32)
    net.dgprune_builder = ("plain", {"seed": seed})
    set_provenance(net, Provenance(training={"a/train": "labels"}))
    return net


def compared(studies: Any, scorers: Any = ("l1", "random", peeks, None), **changed: Any) -> pd.DataFrame:
    return diagnostics.after_finetuning(studies, scorers=scorers, **{"epochs": 2, "options": QUICK, **changed})


@pytest.mark.slow
def test_differences_are_paired_by_training_seed() -> None:
    studies = trainings()
    table: Any = compared(studies, ratios=(0.3, 0.5))
    ends = {}
    for (number, study), (name, scorer), ratio in itertools.product(
        enumerate(studies), {"l1": "l1", "random": "random", "peeks": peeks, "dense": None}.items(), (0.3, 0.5)
    ):
        end: Any = dg.prune_and_tune(study, scorer, ratio=ratio, epochs=2, options=QUICK, measure="end").table
        for row in end[end.metric == "accuracy"].to_dict("records"):
            ends[number, name, ratio, row["domain"]] = row["value"]
    single = table[table.metric == "accuracy"]
    assert len(single) == len(ends) == 3 * 4 * 2 * 2 and set(single.interval) == {"images"}
    for row in single.to_dict("records"):
        assert row["value"] == ends[row["training_seed"], row["scorer"], row["ratio_requested"], row["domain"]]
    differences = table[table.metric == "difference"]
    assert len(differences) == 3 * 2 * 2 and "l1" not in set(differences.scorer)
    for row in differences.to_dict("records"):
        place = row["ratio_requested"], row["domain"]
        gaps = [ends[k, row["scorer"], *place] - ends[k, "l1", *place] for k in range(3)]
        said = [row[key] for key in ("value", "low", "high", "minimum_detectable_effect", "p_value")]
        assert said == pytest.approx(
            [*intervals.over_seeds(gaps), intervals.minimum_detectable_effect(gaps), intervals.paired_p(gaps)],
            nan_ok=True,
        )
        assert (row["interval"], row["seeds"], row["unit"]) == ("seeds", "0, 1, 2", "share")
    for (_, _), rows in differences.groupby(["scorer", "domain"]):
        assert rows.p_holm.tolist() == intervals.holm(rows.p_value.tolist()), "over the ratios"
    assert set(table.rounds) == {2} and set(table.epochs) == {2} and list(table.columns)[-len(EXTRA) :] == list(EXTRA)


def test_networks_without_a_training_seed_are_told_apart_by_their_names() -> None:
    own = []
    for k, study in enumerate(trainings(2)):
        net: Any = trained(k)
        del net.dgprune_builder
        own.append(dg.Study(net, sources=study.sources, targets=study.targets, name=f"mine {k}"))
    table: Any = compared(own, scorers=["l1", "random"])
    rows = table[table.metric == "accuracy"]
    assert rows.training_seed.isna().all() and set(rows.network) == {"mine 0", "mine 1"}
    assert not rows.duplicated(["scorer", "domain", "network"]).any()
    assert set(table[table.metric == "difference"].seeds) == {"mine 0, mine 1"}
    known: Any = compared(trainings(2), scorers=["l1", "random"])
    assert known.network.isna().all() and known.training_seed.notna().any()


def test_a_difference_tells_what_either_has_seen() -> None:
    table: Any = compared(trainings(2), baseline=peeks, scorers=["l1", peeks])
    row = table[(table.metric == "difference") & (table.domain == "t")].iloc[0]
    assert (row.scorer, row.target_aware) == ("l1", True)
    alone = table[(table.metric == "accuracy") & (table.scorer == "l1")]
    assert not alone.target_aware.any() and set(alone.seen_by_finetuning) == {"none"}
    assert set(alone.seen_by_training) == {"none"}, "its report part"


def test_the_baseline_is_run_too_and_nothing_is_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, float]] = []
    steps = Run.steps

    def counted(run: Run) -> Any:
        ran.append((run.plan.name, run.plan.ratio))
        return (yield from steps(run))

    monkeypatch.setattr(Run, "steps", counted)
    with pytest.warns(dg.DgpruneNote, match="with one study"):
        table = compared(trainings(1), scorers=["l2", None, "l2"], ratios=[0.3, 0.5, 0.7], epochs=0)
    assert sorted(ran) == sorted(
        [*(("l1", r) for r in (0.3, 0.5, 0.7)), *(("l2", r) for r in (0.3, 0.5, 0.7)), ("dense", 0.3), ("dense", 0.7)]
    )
    dense = table[(table.scorer == "dense") & (table.domain == "a")]
    assert dense.ratio_requested.tolist() == [0.3, 0.5, 0.7] and set(dense.ratio_achieved) == {0.0}
    assert dense.rounds.tolist() == [2, 2, 3]


def test_one_study_has_accuracies_and_a_note() -> None:
    (study,) = trainings(1)
    with pytest.warns(dg.DgpruneNote, match="with one study there are no differences over training seeds"):
        table = compared(study, scorers=["l2"], ratios=0.5)
    assert set(table.metric) == {"accuracy"} and set(table.scorer) == {"l1", "l2"}
    with pytest.raises(dg.DgpruneError, match=r"no differences between scorers to draw.*training_seeds"):
        charts.after_finetuning(table)


def test_scorers_can_read_the_images_that_are_reported() -> None:
    (study,) = trainings(1)
    for split, seen in (("score", "none"), ("report", "images")):
        with pytest.warns(dg.DgpruneNote, match="with one study"):
            table: Any = compared(study, scorers=[peeks], baseline=peeks, epochs=0, score_split=split)
        on_target = table[table.role == "target"]
        assert set(on_target.seen_by_scorer) == {seen} and on_target.target_aware.all()


def test_ctrl_c_leaves_the_complete_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def train(*given: Any, **options: Any) -> Any:
        passes.append(1)
        if len(passes) == 10:
            raise KeyboardInterrupt
        return trained_by(*given, **options)

    trained_by = rounds.train
    monkeypatch.setattr(rounds, "train", train)
    with pytest.warns(dg.DgpruneNote, match="stopped: 4 of 6 runs are complete"):
        table: Any = compared(trainings(3), scorers=["l1", "l2"])
    assert len(table[table.metric == "accuracy"]) == 8
    assert set(table[table.metric == "difference"].seeds) == {"0, 1"}


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no study": ({"studies": []}, "at least one study in studies"),
    "no scorer": ({"scorers": []}, "at least one scorer in scorers and one ratio in ratios"),
    "no ratio": ({"ratios": ()}, "at least one scorer in scorers and one ratio in ratios"),
    "ratio": ({"ratios": [0.5, 1.0]}, r"ratios must lie in \[0, 1\)"),
    "scorer": ({"scorers": ["l1", "l22"]}, "unknown scorer 'l22'"),
    "epochs": ({"epochs": -1}, "epochs must be at least 0"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_sentence_before_any_work(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed, words = CASES[case]
    worked: list[int] = []
    monkeypatch.setattr(sys.modules["dgprune_lab.diagnostics.after_finetuning"], "finish", lambda _: worked.append(1))
    given = {"studies": trainings(1), "scorers": ["l1"], **changed}
    with pytest.raises(dg.DgpruneError, match=words):
        compared(given.pop("studies"), **given)
    assert not worked


def test_studies_that_do_not_belong_together() -> None:
    (first,) = trainings(1)
    with pytest.raises(dg.DgpruneError, match="two of the studies hold the same network"):
        compared([first, dg.Study(first.model, sources=first.sources, targets=first.targets)])
    with pytest.raises(dg.DgpruneError, match=r"must have the same domains, image for image.*got a, t; a"):
        compared([first, *trainings(1, targets=[])])
    other = replace(peeks, function=lambda view: view.weight)
    with pytest.raises(dg.DgpruneError, match="two scorers are called 'peeks'"):
        compared(first, scorers=[peeks, other])


def test_tables_name_the_training_seed() -> None:
    study = dg.training_seeds()[1]
    for frame in (
        dg.sweep(study, scorers=["l1"], ratios=[0.5], images=50),
        dg.diagnostics.drop(study, scorers=["l1"], ratios=[0.5], images=50),
    ):
        assert frame["training_seed"].tolist() == [1] * len(frame)
