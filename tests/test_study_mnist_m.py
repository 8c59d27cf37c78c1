"""The study of DSS on MNIST-M: its grid, rounds and counts, what each arm reads, and what it says about the claims."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch

from dgprune_lab.core import Domain, generator
from dgprune_lab.experiments.scratch import Scratch
from dgprune_lab.experiments.studies.mnist_m import mnist_m, mnist_m_claims, run_mnist_m

module = importlib.import_module("dgprune_lab.experiments.studies.mnist_m")  # its folder's face has the function
TINY = {"train": 32, "score": 20, "report_source": 20, "report_target": 40, "epochs": 2}
ARMS = [
    ("dense", None),
    ("dense_tuned", None),
    ("dss", "report"),
    ("reverse(dss)", "report"),
    ("dss", "score"),
    ("dss_sources", "score"),
    ("taylor", "score"),
    ("l1", None),
    ("random", None),
]


def settings(scorer: str, split: str | None = None, ratio: float = 0.6, **more: Any) -> dict[str, Any]:
    """The settings of a tiny run of the quick protocol."""
    arm = {"training_seed": 0, "scorer": scorer, "score_split": split, "ratio_requested": ratio}
    return {**module.PROTOCOLS["quick"], **TINY, **arm, **more}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    return Scratch(tmp_path_factory.mktemp("mnist_m"), device=torch.device("cpu"))


@pytest.fixture(scope="module")
def found(scratch: Scratch) -> dict[Any, Any]:
    return {arm: run_mnist_m(settings(*arm), scratch) for arm in ARMS}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What every call of `prune_and_tune` returned, in order."""
    results: list[Any] = []

    def recorded(*args: Any, **options: Any) -> Any:
        results.append(original(*args, **options))
        return results[-1]

    original = module.prune_and_tune
    monkeypatch.setattr(module, "prune_and_tune", recorded)
    return results


def test_every_arm_runs_with_the_same_seeds_at_every_ratio_ten_at_four_and_five_at_the_others() -> None:
    study = mnist_m()
    runs: list[Any] = [study.settings(number) for number in range(len(study.grid))]
    assert len({study.key(number) for number in range(len(runs))}) == len(runs) == 9 * (5 * 9 + 5 * 4)
    seeds = Counter((run["scorer"], run["score_split"], run["ratio_requested"]) for run in runs)
    assert set(seeds) == {(*arm, percent / 100) for arm in ARMS for percent in range(10, 100, 10)}
    assert all(count == (10 if ratio in (0.2, 0.4, 0.6, 0.8) else 5) for (*_, ratio), count in seeds.items())
    assert [run["training_seed"] for run in runs] == sorted(run["training_seed"] for run in runs)
    assert {run["training_seed"] for run in mnist_m(seeds=3).grid if run["ratio_requested"] == 0.1} == {0, 1}
    quick = mnist_m(quick=True)
    assert quick.name == "mnist_m_quick" and len(quick.grid) == 2 * len(ARMS)


def test_the_paper_protocol_has_the_epochs_and_rates_of_the_paper() -> None:
    study = mnist_m(protocol="paper")
    kept = {name: study.protocol[name] for name in ("epochs", "epochs_per_round", "lr", "finetuning_lr")}
    assert kept == {"epochs": 100, "epochs_per_round": 20, "lr": 0.01, "finetuning_lr": 0.01}
    assert study.name == "mnist_m_paper" and study.key(0) != mnist_m().key(0)
    assert any("9,001 MNIST-M and 10,000 MNIST test images" in sentence for sentence in study.differences)


def test_filters_per_layer_and_extra_epochs_are_those_of_the_paper(scratch: Scratch, seen: list[Any]) -> None:
    """Counted by hand: each of three rounds removes the whole part of the share r of the filters that are left."""
    share, left = 1 - 0.3 ** (1 / 3), [32, 48]
    for _ in range(3):
        left = [count - int(count * share + 1e-9) for count in left]
    assert [32 - left[0], 48 - left[1]] == [21, 32]
    whole = {"widths": (32, 48), "epochs_per_round": 2, "train": 8, "ratio": 0.7}
    run_mnist_m(settings("l1", **whole), scratch)
    assert [int((~keep).sum()) for keep in seen[0].mask.keep.values()] == [21, 32]
    run_mnist_m(settings("dense_tuned", **whole), scratch)
    for result in seen[:2]:
        card, table = result.card, result.table
        assert table["epoch"].max() == 6 == card["rounds"] * card["epochs_per_round"]
        assert card["finetuning"]["double_softmax"] and card["finetuning"]["schedule_epochs"] == 2
        assert card["finetuning"]["schedule"] == "dss" and card["finetuning"]["lr"] == 0.05
    assert bool(seen[1].mask.keep["conv1"].all()), "nothing is removed"
    assert seen[2].card["epochs_per_round"] == 0, "measured as it stands, without further epochs"


def test_the_control_with_extra_epochs_is_trained_once_for_all_ratios_of_as_many_rounds(
    scratch: Scratch, found: Any, seen: list[Any]
) -> None:
    again = run_mnist_m(settings("dense_tuned", ratio=0.2), scratch)
    assert len(seen) == 1 and again.weights == found["dense_tuned", None].weights != found["dense", None].weights
    assert {row["ratio_requested"] for row in again.rows} == {0.2}


def test_rows_tell_the_arm_the_reported_images_and_what_was_seen(found: Any) -> None:
    for (scorer, split), finding in found.items():
        rows = {row["domain"]: row for row in finding.rows}
        assert set(rows) == {"mnist", "mnist_m"} == set(finding.data) and len(finding.rows) == 2
        target = rows["mnist_m"]
        assert (target["metric"], target["scorer"], target["split"]) == ("accuracy", scorer, "report")
        assert (target["images"], rows["mnist"]["images"]) == (40, 20) and target["training_seed"] == 0
        assert target["seen_by_training"] == target["seen_by_finetuning"] == target["seen_by_selection"] == "none"
        assert target["seen_by_scorer"] == ("images" if split == "report" else "none")
        assert target["target_aware"] is (scorer in ("dss", "reverse(dss)")), scorer
        assert rows["mnist"]["seen_by_training"] == "none", "the train split, not the reported one"
    assert found["dss", "report"].weights != found["reverse(dss)", "report"].weights


def changed(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let the study read a changed MNIST-M."""
    original = module.part

    def part(data_set: str, **options: Any) -> Domain:
        domain = original(data_set, **options)
        return change(domain) if domain.name == "mnist_m" else domain

    monkeypatch.setattr(module, "part", part)


def test_no_label_of_the_target_changes_a_network(
    scratch: Scratch, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(monkeypatch, lambda domain: replace(domain, labels=(domain.labels + 1) % 10))
    again, before = run_mnist_m(settings("dss", "report"), scratch), found["dss", "report"]
    assert again.weights == before.weights and again.data["mnist_m"] != before.data["mnist_m"]
    assert again.rows != before.rows, "the accuracy is that on the other labels"


def test_the_published_score_reads_the_reported_images_and_the_other_one_does_not(
    scratch: Scratch, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reported images of MNIST-M are exchanged for noise: only the published variant may notice."""

    def noisy(domain: Domain) -> Domain:
        images, rows = domain.images.clone(), domain.rows("report")
        images[rows] = torch.randint(0, 256, images[rows].shape, generator=generator("noise")).to(images.dtype)
        return replace(domain, images=images)

    changed(monkeypatch, noisy)
    for split, same in (("report", False), ("score", True)):
        assert (run_mnist_m(settings("dss", split), scratch).weights == found["dss", split].weights) is same


def planted(**gains: float) -> pd.DataFrame:
    """A table of ten seeds at two ratios: accuracy on MNIST-M, by arm, over the network as trained."""
    rows = []
    for (scorer, split), ratio, seed in ((a, r, s) for a in ARMS for r in (0.4, 0.6) for s in range(10)):
        name = f"{scorer}_{split}" if scorer == "dss" else scorer
        noise = 0.004 * float(torch.rand(1, generator=generator(name, f"{ratio}", seed))) - 0.002
        where = {"domain": "mnist_m", "role": "target", "split": "report", "unit": "share", "metric": "accuracy"}
        arm = {"scorer": scorer, "score_split": split, "ratio_requested": ratio, "training_seed": seed}
        rows.append({**where, **arm, "value": 0.5 + gains.get(name, 0.0) + noise, "target_aware": "dss" in scorer})
    return pd.DataFrame(rows)


def test_claims_follow_from_the_planted_gains() -> None:
    frame = planted(dss_report=0.06, dss_score=0.06, dense_tuned=0.04, l1=0.06, dss_sources=0.01)
    listed = mnist_m_claims(frame)
    claims = {claim.claim: claim for claim in listed}
    assert len(claims) == len(listed), "one row per claim: the published variant alone"
    verdicts = [claim.verdict for claim in claims.values()]
    assert verdicts == ["yes", "yes", "yes", "cannot tell", "yes", "yes", "cannot tell", "no"], verdicts
    first = claims["DSS gains 5 points over the network as trained, at 60 %"]
    assert first.estimate == pytest.approx(0.06, abs=1e-3) and first.low < first.estimate < first.high
    assert first.published.startswith("+5.15 points") and first.target_aware and first.seeds.count(",") == 9
    theirs = [name for name, claim in claims.items() if not claim.ours]
    assert theirs == [first.claim, "DSS ends higher than L1, at 60 %"], "the others are controls"
    assert first.minimum_detectable_effect == pytest.approx((first.high - first.low) / 2)
    nothing = mnist_m_claims(planted())
    assert {claim.verdict for claim in nothing} == {"no", "cannot tell"}
