"""Leave one domain out: what each run is given, what is selected, and the numbers of the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from material import domain, norm_net, randomise
from scipy.stats import t as student
from torch import nn

import dgprune_lab as dg
from dgprune_lab.charts.leave_one_out import held_out_rows
from dgprune_lab.core.tables import COLUMNS
from dgprune_lab.stats import intervals
from dgprune_lab.training import finish, train

DOMAINS = [domain(name, count=60 + 30 * k, seed=k) for k, name in enumerate("abc")]
OPTIONS = dg.TrainingOptions(epochs=2, lr=0.05)


def net(seed: int) -> nn.Module:
    return randomise(norm_net(), seed=seed, dtype=torch.float32)


def by_hand(model: nn.Module, data: dg.Domain) -> float:
    """Accuracy over all images of a domain."""
    assert data.labels is not None
    with torch.no_grad():
        return float((model.eval()(data.take(torch.arange(len(data))).images).argmax(1) == data.labels).double().mean())


def test_a_run_is_given_the_others_and_the_table_is_that_of_loops() -> None:
    given: list[tuple[list[str], int]] = []

    def trained(sources: list[dg.Domain], seed: int) -> nn.Module:
        for source in sources:
            assert set(source.splits) == {"train", "score"} and source.role == "source"
        given.append(([source.name for source in sources], seed))
        sources.clear()  # the list is the function's own
        return net(10 * seed + len(given))

    state = torch.get_rng_state()
    table = dg.leave_one_out(DOMAINS, train=trained, seeds=[3, 5])
    assert torch.equal(torch.get_rng_state(), state) and list(table.columns) == list(COLUMNS)
    assert given == [(others, seed) for others in (["b", "c"], ["a", "c"], ["a", "b"]) for seed in (3, 5)]
    models = [net(10 * seed + k + 1) for k, (_, seed) in enumerate(given)]
    runs = np.array([by_hand(model, DOMAINS[k // 2]) for k, model in enumerate(models)]).reshape(3, 2)
    rows = table[table.metric == "accuracy"].set_index("domain")
    assert rows.value.to_numpy() == pytest.approx(runs.mean(1)) and list(rows.images) == [60, 90, 120]
    half = student.ppf(0.975, 1) * runs.std(1, ddof=1) / 2**0.5
    assert rows.low.to_numpy() == pytest.approx(np.clip(runs.mean(1) - half, 0, 1))
    assert rows.high.to_numpy() == pytest.approx(np.clip(runs.mean(1) + half, 0, 1))
    by_metric: Any = table.set_index("metric")
    mean, worst = by_metric.loc["mean_accuracy"], by_metric.loc["worst_domain_accuracy"]
    per_seed = runs.mean(0)
    assert mean["value"] == pytest.approx(per_seed.mean()) and pd.isna(mean["domain"]) and mean["images"] == 270
    assert mean["high"] == pytest.approx(
        min(1, per_seed.mean() + student.ppf(0.975, 1) * per_seed.std(ddof=1) / 2**0.5)
    )
    assert worst["domain"] == "abc"[runs.mean(1).argmin()] and worst["value"] == rows.value.min()
    assert (worst["low"], worst["high"]) == (rows.low.min(), rows.high.min())
    assert set(table.interval) == {"seeds"} and table.training_seed.isna().all() and set(table.role) == {"target"}
    assert set(rows.seen_by_training) == set(rows.seen_by_selection) == {"none"}
    assert not table.target_aware.any() and not table.target_aware.isna().any()


def test_with_one_seed_intervals_are_over_images() -> None:
    table = dg.leave_one_out(DOMAINS, train=lambda _, seed: net(seed))
    rows = table[table.metric == "accuracy"].set_index("domain")
    for data in DOMAINS:
        right = dg.evaluate(net(0), replace(data, splits={"all": torch.arange(len(data))}), "all").correct
        assert right is not None
        order = torch.cat(list(data.splits.values()))
        low, high = intervals.over_images(right.double().numpy()[order])
        assert (rows.low[data.name], rows.high[data.name]) == pytest.approx((float(low), float(high)))
    mean: Any = table.set_index("metric").loc["mean_accuracy"]
    assert mean["value"] == pytest.approx(rows.value.mean()) and mean["low"] < mean["value"] < mean["high"]
    assert mean["high"] - mean["low"] < (rows.high - rows.low).max() and set(table.interval) == {"images"}
    spread = sum(v * (1 - v) / len(data) for v, data in zip(rows.value, DOMAINS, strict=True)) ** 0.5 / 3
    assert mean["high"] - mean["low"] == pytest.approx(2 * 1.96 * spread, rel=0.08), "of independent domains"
    assert set(table.training_seed) == {0}


def test_a_function_that_sets_no_seed_gives_the_same_table_again() -> None:
    first = dg.leave_one_out(DOMAINS, train=lambda *_: norm_net(), seeds=[4, 5])
    torch.rand(1)
    pd.testing.assert_frame_equal(dg.leave_one_out(DOMAINS, train=lambda *_: norm_net(), seeds=[4, 5]), first)


def test_the_networks_are_selected_on_the_sources_alone() -> None:
    """Of three candidates each run reports the one that is best on the sources' score splits, whatever it does else."""
    candidates = [net(seed) for seed in range(6)]
    table = dg.leave_one_out(DOMAINS, train=lambda *_: candidates)
    rows = table[table.metric == "accuracy"].set_index("domain")
    for held in DOMAINS:
        sources = [data for data in DOMAINS if data is not held]
        scores = [np.mean([dg.evaluate(c, data, "score").accuracy for data in sources]) for c in candidates]
        assert rows.value[held.name] == pytest.approx(by_hand(candidates[int(np.argmax(scores))], held))
    runs = [dg.provenance_of(c) for c in candidates]
    assert runs == [dg.Provenance()] * 6, "the networks given are as they were"


def test_the_training_of_this_package_is_selected_by_epoch_and_recorded(tmp_path: Path) -> None:
    table = dg.leave_one_out(DOMAINS[:2], train=OPTIONS, network=net, seeds=1)
    again = dg.leave_one_out(
        DOMAINS[:2], train=lambda sources, seed: train(net(seed), sources=sources, options=OPTIONS), seeds=[0]
    )
    pd.testing.assert_frame_equal(table, again)
    rows = table[table.metric == "accuracy"].set_index("domain")
    for held, source in ((DOMAINS[0], DOMAINS[1]), (DOMAINS[1], DOMAINS[0])):
        best: tuple[float, float] = (-1.0, 0.0)
        for event in train(net(0), sources=[source], options=OPTIONS):
            if hasattr(event, "seconds"):
                best = max(best, (dg.evaluate(event.model, source, "score").accuracy, by_hand(event.model, held)))  # type: ignore[union-attr]
        assert rows.value[held.name] == pytest.approx(best[1])
    options: Any = {"network": lambda _: net(0), "seeds": [4], "select": None, "folder": tmp_path}
    last = dg.leave_one_out(DOMAINS[:2], train=OPTIONS, **options).set_index("domain")
    trained = finish(train(net(0), sources=DOMAINS[1:2], options=replace(OPTIONS, seed=4)))
    assert last.value["a"].max() == pytest.approx(by_hand(trained, DOMAINS[0]))
    x, saved = DOMAINS[0].take(torch.arange(9)).images, dg.load(tmp_path / "without_a_seed_4", model=norm_net())
    assert torch.equal(saved(x), trained.eval()(x)), "the order of the images is that of the run's seed"


def test_one_network_for_all_runs_is_refused() -> None:
    one = net(0)
    with pytest.raises(dg.DgpruneError, match=r"the network of an earlier run, which has read the held-out domain"):
        dg.leave_one_out(DOMAINS, train=lambda _, seed: one)
    for wrong in (one, type(one)):
        with pytest.raises(dg.DgpruneError, match=r"network must be a function from the seed to a new network"):
            dg.leave_one_out(DOMAINS, train=OPTIONS, network=wrong)


@pytest.mark.parametrize(("seeds", "words"), [(1, "one training each"), (2, "over training seeds")])
def test_the_chart_draws_each_held_out_domain_their_mean_and_the_worst(seeds: int, words: str) -> None:
    table = dg.leave_one_out(DOMAINS, train=lambda _, seed: net(seed), seeds=seeds)
    chart = dg.charts.leave_one_out(table)
    rows = held_out_rows(table)
    worst = table[table.metric == "worst_domain_accuracy"].domain.item()
    assert [row["label"] for row in rows] == ["a", "b", "c", "Mean", f"Worst: {worst}"]
    for row, (_, cells) in zip(rows, table.iterrows(), strict=True):
        assert [row[name] for name in ("value", "low", "high")] == pytest.approx(
            list(100 * cells[["value", "low", "high"]])
        )
    assert rows[-1]["colour"] == rows["abc".index(worst)]["colour"] != rows[3]["colour"]
    spec = chart.to_dict()
    assert words in spec["title"]["subtitle"][0] and dg.charts.svg(chart).startswith("<svg")


def test_the_networks_are_saved_with_what_they_have_read(tmp_path: Path) -> None:
    slash = replace(DOMAINS[1], name="b/1")
    table = dg.leave_one_out([DOMAINS[0], slash], train=OPTIONS, network=net, folder=tmp_path / "runs")
    rows = table[table.metric == "accuracy"].set_index("domain")
    assert sorted(p.name for p in (tmp_path / "runs").glob("*.safetensors")) == [
        "without_a_seed_0.safetensors",
        "without_b%2F1_seed_0.safetensors",
    ]
    back = dg.load(tmp_path / "runs" / "without_a_seed_0", model=norm_net())
    assert by_hand(back, DOMAINS[0]) == pytest.approx(rows.value["a"])
    recorded = dg.provenance_of(back)
    assert recorded.training == {"b/1/train": "labels", "b/1/score": "labels"}
    assert recorded.selection == {"b/1/score": "labels"}
    study = dg.Study(back, sources=[slash], targets=[DOMAINS[0]])
    measured = dg.measure(study.model, study.domains, split="score", latency=False)
    assert measured.set_index(["domain", "metric"]).seen_by_selection.dropna().to_dict() == {
        ("b/1", "accuracy"): "labels",
        ("b/1", "loss"): "labels",
        ("a", "accuracy"): "none",
        ("a", "loss"): "none",
    }


def test_a_step_lies_between_batches_and_the_work_can_be_cancelled() -> None:
    steps = dg.leave_one_out.steps(DOMAINS, train=OPTIONS, network=net, seeds=2)
    seen = [next(steps) for _ in range(8)]
    assert seen[0] == (0, 6, "without a, seed 0") and {total for _, total, _ in seen} == {6}
    steps.close()


def test_a_network_that_has_read_the_held_out_domain_is_refused() -> None:
    def leaky(sources: list[dg.Domain], seed: int) -> nn.Module:
        model = net(seed)
        dg.core.set_provenance(model, dg.Provenance(training={"a/train": "labels", "b/train": "labels"}))
        return model

    with pytest.raises(dg.DgpruneError, match=r"trained without 'a' has read it \(training\)"):
        dg.leave_one_out(DOMAINS, train=leaky)


UNLABELLED = domain("u", labelled=False)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "one domain": ({"domains": DOMAINS[:1]}, r"domains must be two or more, with different names; got a"),
    "one name twice": ({"domains": [DOMAINS[0], DOMAINS[0]]}, r"different names; got a, a"),
    "no labels": ({"domains": [DOMAINS[0], UNLABELLED]}, r"'u' has no labels"),
    "another size": ({"domains": [DOMAINS[0], domain("w", shape=(3, 8, 8))]}, r"'w' has images of \(3, 8, 8\)"),
    "no such split": ({"select": "validation"}, r"has no split 'validation'"),
    "a network": ({"train": net(0)}, r"train must be a function from \(sources, seed\)"),
    "options alone": ({"train": OPTIONS}, r"network=, a function from the seed"),
    "one argument": ({"train": lambda sources: net(0)}, r"train must be a function called as train\(sources, seed\)"),
    "nothing returned": ({"train": lambda *_: None}, r"train must return a network.*got NoneType"),
    "an empty list": ({"train": lambda *_: []}, r"train must return a network.*got list without networks"),
    "no network in the list": ({"train": lambda *_: [net(0), 3]}, r"train must return a network.*got int"),
    "no seed": ({"seeds": []}, r"at least one seed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_answered_in_words(case: str) -> None:
    given, words = WRONG[case]
    with pytest.raises(dg.DgpruneError, match=words):
        dg.leave_one_out(**{"domains": DOMAINS, "train": lambda _, seed: net(seed), **given})
