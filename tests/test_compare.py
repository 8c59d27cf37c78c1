"""Paired comparisons of two networks of a study, of scorers and of trainings, with their intervals."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from material import domain, few, norm_net, plain_net, randomise
from read_study import read_study
from torch import nn

import dgprune_lab as dg
from dgprune_lab.charts.compare_rows import compare_data
from dgprune_lab.core import drain
from dgprune_lab.diagnostics.against_scorers import _best_mask
from dgprune_lab.diagnostics.compare_scorers import _draws
from dgprune_lab.stats import crossed_difference, intervals


def study_of(name: str = "net", *, seed: int = 0) -> dg.Study:
    network = randomise(norm_net(), seed=seed, dtype=torch.float32)
    return dg.Study(network, sources=[domain("a", count=90)], targets=[domain("t", count=90, seed=5)], name=name)


def rows_of(frame: Any, metric: str) -> dict[tuple[str, str], Any]:
    return {(row.scorer, row.domain): row for row in frame[frame.metric == metric].itertuples()}


def correct(study: dg.Study, scores: dg.Scores, name: str) -> np.ndarray:
    mask = dg.allocate(scores, ratio=0.5)
    small = dg.recalibrate(dg.prune(study.model, mask), study.sources)
    return dg.evaluate(small, study.domain(name)).correct.double().numpy()  # type: ignore[union-attr]


def test_differences_equal_those_of_networks_pruned_by_hand() -> None:
    study = study_of()
    frame = dg.diagnostics.compare_scorers(study, scorers=["l2"], against="random", draws=3, seed=7)
    for name in ("a", "t"):
        drawn = np.stack([correct(study, study.score("random", seed=7 + k), name) for k in range(3)])
        mine = correct(study, study.score("l2"), name)
        row = rows_of(frame, "difference")["l2", name]
        assert row.value == pytest.approx(mine.mean() - drawn.mean(), abs=1e-12)
        assert (row.low, row.high) == crossed_difference(mine[None], drawn, seed=7)[1:]
        assert row.against == "random" and rows_of(frame, "accuracy")["random", name].draws == 3
        assert rows_of(frame, "accuracy")["random", name].value == pytest.approx(drawn.mean(), abs=1e-12)


def test_a_scorer_against_itself_differs_by_nothing() -> None:
    row = rows_of(dg.diagnostics.compare_scorers(study_of(), scorers=["l1"], against="l1"), "difference")["l1", "a"]
    assert row.value == 0 and row.low < 0 < row.high


def test_silent_filters_are_kept_as_long_as_others_remain() -> None:
    study = study_of()
    norm = next(module for module in study.model.modules() if isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        norm.bias[:3] = -50.0  # behind the ReLU these three filters are silent
    silent = dg.Study(study.model, sources=study.sources, targets=study.targets)
    frame = dg.diagnostics.compare_scorers(silent, scorers=["l1"], draws=4, ratios=[0.5], keep_silent=True)
    assert set(frame[frame.metric == "difference"].against) == {"random, silent filters kept"}
    row = rows_of(frame, "accuracy")["random, silent filters kept", "a"]
    assert row.seen_by_scorer == "none" and row.split == "report", "activations were read on the score split"
    expected = []
    for k in range(4):
        scores = silent.score("random", seed=k)
        values = {name: value.clone() for name, value in scores.values.items()}
        values["0"][:3] += 1e6
        expected.append(correct(silent, dg.Scores("by hand", values, graph=silent.graph), "a").mean())
    assert row.value == pytest.approx(np.mean(expected), abs=1e-12)


def test_what_looked_at_the_target_is_marked() -> None:
    dss = study_of().score("dss", options={"site": "conv_output"})
    frame = dg.diagnostics.compare_scorers(study_of(), scorers=[dss, "l1"], against="l2")
    aware = {scorer: set(rows.target_aware) for scorer, rows in frame[frame.domain == "t"].groupby("scorer")}
    assert aware["dss"] == {True} and aware["l1"] == {False}


def test_a_draw_that_keeps_silent_filters_still_says_what_it_read() -> None:
    """Scores far below 0 that follow a look at the target: silent filters are kept, and the look is recorded."""

    @dg.scorer("peek", needs=("moments",), reads={"target": "images"}, label="Peek", draws=True)
    def peek(view: Any, *, seed: int = 0) -> torch.Tensor:
        """Negative draws."""
        mean = view.moments(view.targets[0]).mean
        return 0 * mean - 100 * torch.rand(len(mean), generator=torch.Generator().manual_seed(seed)).double()

    study = study_of()
    norm = next(module for module in study.model.modules() if isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        norm.bias[:3] = -50.0
    for scores in _draws(study, peek, draws=4, keep_silent=True, seed=0):
        assert set(scores.values["0"].argsort(descending=True)[:3].tolist()) == {0, 1, 2}
    frame = dg.diagnostics.compare_scorers(study, scorers=[peek], against="l1", draws=2, keep_silent=True)
    rows = frame[(frame.domain == "t") & (frame.scorer != "l1")]
    assert len(rows) == 2 and rows.target_aware.all()


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"scorers": []}, "at least one scorer"),
        ({"scorers": ["l1", "random"]}, "'random'.*against is 'random' too.*the same masks"),
        ({"scorers": ["l1"], "draws": 0}, "0"),
        ({"scorers": ["l1"], "ratios": []}, "one ratio"),
        ({"scorers": ["l"]}, "'l'"),
    ],
)
def test_what_cannot_be_compared_is_refused(options: dict[str, Any], fact: str) -> None:
    with pytest.raises(dg.DgpruneError, match=fact):
        dg.diagnostics.compare_scorers(study_of(), **options)


def test_networks_are_compared_on_the_same_images() -> None:
    first, second = study_of("one"), study_of("two", seed=3)
    frame = dg.diagnostics.compare_networks([first, second])
    values = [dg.evaluate(study.model, study.domain("t")).correct.double().numpy() for study in (first, second)]  # type: ignore[union-attr]
    row = frame[(frame.metric == "difference") & (frame.domain == "t")].iloc[0]
    assert (row.network, row.against) == ("two", "one")
    assert row.value == pytest.approx(values[1].mean() - values[0].mean(), abs=1e-12)
    assert (row.low, row.high) == pytest.approx(intervals.difference(values[1], values[0]), abs=1e-12)
    assert set(frame.network) == {"one", "two"} and set(frame.domain) == {"a", "t"}


def test_networks_that_share_no_images_or_a_name_are_refused() -> None:
    other = dg.Study(study_of().model, sources=[domain("a", count=90, seed=9)], name="two")
    with pytest.raises(dg.DgpruneError, match="different images as 'a'"):
        dg.diagnostics.compare_networks([study_of("one"), other])
    with pytest.raises(dg.DgpruneError, match="different names"):
        dg.diagnostics.compare_networks([study_of(), study_of()])
    with pytest.raises(dg.DgpruneError, match="in common 'z'; known: a, t"):
        dg.diagnostics.compare_networks([study_of("one"), study_of("two")], domains=["a", "z"])
    with pytest.raises(dg.DgpruneError, match="two or more"):
        dg.diagnostics.compare_networks(study_of())  # type: ignore[arg-type]


def test_other_images_under_the_same_labels_are_refused() -> None:
    same = domain("a", count=90)
    negative = dg.Domain.from_arrays("a", images=1 - same.images, labels=same.labels, splits=same.splits)
    other = dg.Study(study_of().model, sources=[negative], name="two")
    with pytest.raises(dg.DgpruneError, match="different images as 'a'"):
        dg.diagnostics.compare_networks([study_of("one"), other])


def test_other_splits_of_the_same_images_do_not_matter() -> None:
    same = domain("a", count=90)
    fewer = dg.Domain.from_arrays("a", images=same.images, labels=same.labels, splits={"report": same.splits["report"]})
    frame = dg.diagnostics.compare_networks([study_of("one"), dg.Study(study_of().model, sources=[fewer], name="two")])
    assert frame.value[frame.metric == "difference"].tolist() == [0.0]


def test_a_domain_is_chosen_by_its_whole_name() -> None:
    first, second = study_of("one"), study_of("two", seed=3)
    both = [
        dg.Study(study.model, sources=[domain("a", count=90), domain("ab", count=90, seed=7)], name=study.name)
        for study in (first, second)
    ]
    assert set(dg.diagnostics.compare_networks(both, domains="ab").domain) == {"ab"}


def test_the_interval_over_images_and_draws_holds_the_truth() -> None:
    """Draws of different accuracy, images of different difficulty: 95 % intervals hold the mean difference."""
    generator, hits, trials = np.random.default_rng(0), 0, 200
    for trial in range(trials):
        level, hard = 0.5 + 0.1 * generator.standard_normal((8, 1)), 0.2 * generator.standard_normal(150)
        drawn = (generator.random((8, 150)) < np.clip(level + hard, 0, 1)).astype(float)
        mine = (generator.random((1, 150)) < np.clip(0.5 + hard, 0, 1)).astype(float)
        _, low, high = crossed_difference(mine, drawn, seed=trial)
        hits += low <= 0 <= high
    assert 0.9 <= hits / trials <= 1.0


def test_more_draws_that_agree_make_no_interval_narrower_than_images_allow() -> None:
    generator = np.random.default_rng(1)
    mine, other = (generator.random((1, 200)) < 0.6).astype(float), (generator.random((1, 200)) < 0.5).astype(float)
    _, low, high = crossed_difference(mine, np.repeat(other, 5, axis=0))
    alone = crossed_difference(mine, other)
    assert (high - low) == pytest.approx(alone[2] - alone[1], rel=0.15)


@pytest.mark.parametrize(("mine", "drawn"), [(1.0, 1.0), (0.0, 0.0), (1.0, 0.0)])
def test_draws_that_agree_on_every_image_leave_an_interval(mine: float, drawn: float) -> None:
    first, second = np.full((1, 100), mine), np.full((5, 100), drawn)
    value, low, high = crossed_difference(first, second)
    assert (low, high) == intervals.difference(first[0], second[0]) and low <= value <= high and high - low > 0.03


def test_at_ratio_0_nothing_differs_significantly() -> None:
    frame = dg.diagnostics.compare_scorers(study_of(), scorers=["l1"], ratios=[0.0], draws=3)
    row = rows_of(frame, "difference")["l1", "a"]
    assert row.value == 0 and row.low < -0.01 and row.high > 0.01
    assert frame.seed.isna().all(), "three draws have no single seed"


def test_a_table_says_nothing_of_batchnorm_where_there_is_none() -> None:
    network = randomise(plain_net(), dtype=torch.float32)
    study = dg.Study(network, sources=[domain("a", count=90)])
    assert set(dg.diagnostics.compare_scorers(study, scorers=["l1"], against="l2").batchnorm) == {None}


def test_the_first_images_are_not_taken_for_all() -> None:
    study = study_of()
    sizes = [len(study.outcomes(None, domain="a", images=images)) for images in (5, None, 7)]
    assert sizes == [5, 30, 7]


def cells(frame: Any, choice: str, metric: str, **where: Any) -> Any:
    rows = frame[(frame.choice == choice) & (frame.metric == metric)]
    for name, value in where.items():
        rows = rows[rows[name].isna() if value is None else rows[name] == value]
    assert len(rows) == 1, rows
    return rows.iloc[0]


def pruned_twice(study: dg.Study) -> tuple[nn.Module, dg.Mask]:
    """A network pruned in two rounds, and its mask in original indices, put together by hand."""
    first = dg.allocate(study.score("l2"), ratio=0.4)
    once = study.network(first)
    again = dg.read_groups(once, study.sources[0].images[:1])
    second = dg.allocate(
        dg.Scores("s", {g.name: torch.arange(float(g.filters)) for g in again.groups}, again), ratio=0.3
    )
    return dg.prune(once, second), first.then(second)


@pytest.mark.parametrize("kind", ["masks", "mask and full", "networks"])
def test_two_networks_compared_by_loops(kind: str) -> None:
    study = read_study()
    mask, other = (dg.allocate(study.score(name), ratio=0.5) for name in ("l1", "random"))
    twice, composed = pruned_twice(study)
    pair: Any = {"masks": (mask, other), "mask and full": (mask, None), "networks": (twice, study.network(mask))}[kind]
    frame = dg.diagnostics.compare(study, *pair)
    networks = [
        one if isinstance(one, nn.Module) else study.network(one) if one is not None else study.model for one in pair
    ]
    lowest: dict[str, list[float]] = {"a": [], "b": []}
    compared = uneven = 0
    for name in ("a", "t"):
        both = [dg.evaluate(network, study.domain(name)) for network in networks]
        labels: Any = both[0].labels
        right = [(one.predicted == labels).double().numpy() for one in both]
        for choice, one, hits in zip("ab", both, right, strict=True):
            assert cells(frame, choice, "accuracy", domain=name).value == hits.mean()
            lowest[choice].append(hits.mean())
            assert one.confidence is not None
            sure, error = one.confidence.numpy(), 0.0
            for k in range(15):
                inside = (sure > k / 15) & (sure <= (k + 1) / 15)
                error += abs((hits - sure)[inside].sum()) / len(sure)
            assert cells(frame, choice, "calibration_error", domain=name).value == pytest.approx(error)
        errors = [cells(frame, choice, "calibration_error", domain=name).value for choice in "ab"]
        row = cells(frame, "a - b", "calibration_difference", domain=name)
        assert row.value == errors[0] - errors[1] and np.isnan(row.low) and row.unit == "share"
        row = cells(frame, "a - b", "difference", domain=name)
        assert row.value == right[0].mean() - right[1].mean()
        assert (row.low, row.high) == intervals.difference(*right) and row.images == len(labels)
        flips = {
            "changed": sum(int(a != b) for a, b in zip(both[0].predicted, both[1].predicted, strict=True)),
            "right_to_wrong": sum(int(b and not a) for a, b in zip(*right, strict=True)),
            "wrong_to_right": sum(int(a and not b) for a, b in zip(*right, strict=True)),
        }
        uneven += flips["right_to_wrong"] != flips["wrong_to_right"]
        for metric, count in flips.items():
            assert cells(frame, "a - b", f"{metric}_count", domain=name).value == count
            assert cells(frame, "a - b", metric, domain=name).value == pytest.approx(count / len(labels))
        for number in range(4):
            chosen = [hits[labels.numpy() == number] for hits in right]
            where = {"domain": name, "class": number}
            assert cells(frame, "a", "class_accuracy", **where).value == chosen[0].mean()
            row = cells(frame, "a - b", "class_difference", **where)
            assert row.images == len(chosen[0])
            if len(chosen[0]) < 5:
                assert np.isnan(row.value) and np.isnan(row.low)
                continue
            assert row.value == pytest.approx(chosen[0].mean() - chosen[1].mean())
            assert (row.low, row.high) == pytest.approx(intervals.difference(*chosen))
            compared += 1
    assert compared > 4 and uneven
    for choice in "ab":
        for role, value in zip(("source", "target"), lowest[choice], strict=True):
            assert cells(frame, choice, "worst_domain_accuracy", role=role).value == value
    masks = {
        "masks": (mask, other),
        "mask and full": (mask, dg.Mask.by_hand(study.graph)),
        "networks": (composed, mask),
    }
    differ = {n: int((masks[kind][0].keep[n] != masks[kind][1].keep[n]).sum()) for n in study.graph.names}
    assert cells(frame, "a - b", "filters_differ", group=None).value == sum(differ.values())
    for name, count in differ.items():
        assert cells(frame, "a - b", "filters_differ", group=name).value == count
    for choice, network in zip("ab", networks, strict=True):
        assert cells(frame, choice, "parameters").value == sum(p.numel() for p in network.parameters())


def test_a_network_compared_with_its_own_mask_differs_in_nothing() -> None:
    study = study_of()
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    frame = dg.diagnostics.compare(study, study.network(mask), mask)
    both = frame[frame.choice == "a - b"]
    assert (both.value.dropna() == 0).all() and set(frame[frame.choice == "a"].ratio_achieved) == {mask.ratio_achieved}
    row = cells(frame, "a - b", "difference", domain="t")
    assert row.low < 0 < row.high, "no flip among the images is no proof that there is none"
    assert set(frame[frame.choice == "a"].batchnorm) == {"as_is"} and both.ratio_achieved.isna().all()


def test_a_comparison_is_target_aware_if_either_network_is() -> None:
    study = study_of()
    aware = dg.allocate(study.score("dss", options={"site": "conv_output"}), ratio=0.5)
    plain = dg.allocate(study.score("l1"), ratio=0.5)
    frame = dg.diagnostics.compare(study, plain, aware)
    on_target = frame[frame.domain == "t"]
    aware_of = {choice: set(rows.target_aware) for choice, rows in on_target.groupby("choice")}
    assert aware_of == {"a": {False}, "b": {True}, "a - b": {True}}
    assert cells(frame, "a - b", "filters_differ", group=None).target_aware


def test_networks_of_unknown_origin_have_no_filters_to_compare() -> None:
    study = study_of()
    other = randomise(nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)))
    frame = dg.diagnostics.compare(study, other.float(), None)
    assert "filters_differ" not in set(frame.metric) and "filters" not in set(frame[frame.choice == "a"].metric)
    assert cells(frame, "a", "parameters").value == sum(p.numel() for p in other.parameters()), "counted"
    assert frame[frame.choice == "a"].ratio_achieved.isna().all()
    assert frame[frame.choice == "a"].seen_by_training.dropna().unique().tolist() == ["unknown"]
    tuned = randomise(norm_net(), seed=5, dtype=torch.float32)
    whole = dg.diagnostics.compare(study, tuned, None)
    assert cells(whole, "a - b", "filters_differ", group=None).value == 0, "the same layers, none of them cut"


def test_a_domain_without_labels_has_flips_alone() -> None:
    bare = dg.Study(study_of().model, sources=[domain("a")], targets=[domain("u", labelled=False, seed=3)])
    mask = dg.allocate(bare.score("l1"), ratio=0.5)
    frame = dg.diagnostics.compare(bare, mask, None)
    assert set(frame[frame.domain == "u"].metric) == {"changed", "changed_count"}
    steps = list(dg.diagnostics.compare.steps(bare, mask, None))
    assert steps and all(0 <= done <= total == 4 for done, total in steps)
    other = dg.Study(randomise(plain_net(), dtype=torch.float32), sources=[domain("a")])
    with pytest.raises(dg.DgpruneError, match="b is a mask of another network"):
        dg.diagnostics.compare(bare, mask, dg.allocate(other.score("l1"), ratio=0.5))


def test_the_chart_of_two_networks_draws_the_rows_of_their_table() -> None:
    study = read_study()
    aware = dg.allocate(study.score("dss", options={"site": "conv_output"}), ratio=0.5)
    frame = dg.diagnostics.compare(study, aware, dg.allocate(study.score("l1"), ratio=0.3))
    data = compare_data(frame)
    for name, metric in (("differences", "difference"), ("calibration", "calibration_difference")):
        for row in data[name]:
            cell = cells(frame, "a - b", metric, domain=row["domain"])
            assert row["change"] == pytest.approx(100 * cell.value)
            ends = [cell.value if np.isnan(end) else end for end in (cell.low, cell.high)]
            assert [row["low"], row["high"]] == pytest.approx([100 * end for end in ends])
        assert [row["label"] for row in data[name]] == ["a", "t ◇ target-aware"]
        assert data[f"{name}_span"][0]["change"] < 0 < data[f"{name}_span"][1]["change"]
    for name, metric in (("turned_wrong", "right_to_wrong"), ("turned_right", "wrong_to_right")):
        for row in data[name]:
            cell = cells(frame, "a - b", f"{metric}_count", domain=row["domain"])
            assert row["text"] == f"{cell.value:.0f} of {cell.images}" and row["value"] == pytest.approx(
                100 * cell.value / cell.images
            )
    for k, name in enumerate(("a", "t")):
        assert data[f"class_head_{k}"][0]["text"].startswith(name)
        for row in data[f"classes_{k}"]:
            cell = cells(frame, "a - b", "class_difference", domain=name, **{"class": row["class"]})
            assert row["change"] == pytest.approx(100 * cell.value) and row["images"] == cell.images >= 5
    layers = {row["label"]: row["value"] for row in data["layers"]}
    assert layers == {n: cells(frame, "a - b", "filters_differ", group=n).value for n in study.graph.names}
    words = [row["text"] for row in data["words"]]
    assert words[0].startswith("a: dss, ") and "◇ target-aware; " in words[0] and words[1].startswith("b: l1, ")
    worst = [f"{100 * cells(frame, c, 'worst_domain_accuracy', role='target').value:.1f} % (t)" for c in "ab"]
    assert words[3] == f"Lowest target accuracy: a {worst[0]}, b {worst[1]}"
    assert words[4] == f"Filters that only one of the two keeps: {sum(layers.values()):.0f}"
    named = compare_data(frame, names=("tuned", "before"))["words"]
    assert named[0]["text"].startswith("a: tuned ◇ target-aware") and named[1]["text"].startswith("b: before; ")
    spec: Any = dg.charts.compare(frame).to_dict()
    assert spec["title"]["text"] == "Network a minus network b, BatchNorm re-estimated"
    below = " ".join(spec["title"]["subtitle"])
    assert "20 classes" not in below and "Calibration error: how far confidence lies from accuracy" in below
    zeros = re.findall(r">([^<]*)</text>", dg.charts.svg(dg.charts.compare(frame, width=460)))
    assert zeros.count("0") >= 4, "both axes of differences and both of flips label 0"
    with pytest.raises(dg.DgpruneError, match="table of another kind"):
        dg.charts.compare(dg.sweep(study, scorers=["l1"], ratios=[0.5]))


def test_vega_draws_all_the_values_of_an_axis_of_differences() -> None:
    """Of more values than `tickCount`, which is a plot's width / 40 by default, Vega would drop some, the 0 too."""
    study = dg.demo()
    masks = [dg.allocate(study.score(name), ratio=0.5) for name in ("l1", "bn_scale")]
    spec = dg.charts.compare(dg.diagnostics.compare(study, *masks, images=60), width=460).to_dict()
    axes = [axis for axis in find(spec, "axis") if axis and "_span" in str(axis.get("values"))]
    assert axes and {axis["tickCount"] for axis in axes} == {3}, "the ends and 0"
    frame = dg.diagnostics.compare_scorers(study, scorers=["l1"], draws=2, images=60)
    axes = [
        axis for axis in find(dg.charts.differences(frame, width=125).to_dict(), "axis") if axis and "values" in axis
    ]
    assert axes and all(0 in axis["values"] and axis["tickCount"] == len(axis["values"]) for axis in axes)


def find(spec: Any, name: str) -> list[Any]:
    """Every value of this name in a specification."""
    if isinstance(spec, list):
        return [found for part in spec for found in find(part, name)]
    if not isinstance(spec, dict):
        return []
    return [*([spec[name]] if name in spec else []), *(found for part in spec.values() for found in find(part, name))]


def test_of_many_classes_and_layers_those_that_differ_most_are_drawn() -> None:
    both = {"choice": "a - b", "unit": "share", "role": "source", "domain": "a"}
    rows = [
        {**both, "metric": "class_difference", "class": k, "value": k / 100, "low": 0.0, "high": 0.5, "images": 9}
        for k in range(40)
    ]
    layers = [{"choice": "a - b", "metric": "filters_differ", "group": f"l{k}", "value": k} for k in range(30)]
    data = compare_data(dg.tidy([*rows, *layers], extra=("choice", "group", "class", "class_name")))
    assert [row["class"] for row in data["classes_0"]] == list(range(10, 40))
    assert "Classes: the 30 of 40 that differ most on any domain" in [row["text"] for row in data["words"]]
    assert [row["label"] for row in data["layers"]] == [*(f"l{k}" for k in range(14, 30)), "14 further layers"]
    assert data["layers"][-1]["text"] == str(sum(range(14))) and data["layers"][-1]["value"] == 0
    names = [{**row, "class_name": "a long name of a class"} for row in rows]
    places = compare_data(dg.tidy(names, extra=("choice", "group", "class", "class_name")))["classes_0"]
    assert len({row["class"] for row in places}) == 30 and {row["name"] for row in places} == {"a long name…"}
    spec: Any = dg.charts.compare(
        dg.tidy([*names, *layers], extra=("choice", "group", "class", "class_name"))
    ).to_dict()
    assert '"class", "type": "ordinal"' in json.dumps(spec), "classes are placed by number, not by a name cut off"


def test_a_domain_without_labels_is_named_above_the_plots() -> None:
    bare = dg.Study(study_of().model, sources=[domain("a")], targets=[domain("u", labelled=False, seed=3)])
    frame = dg.diagnostics.compare(bare, dg.allocate(bare.score("l1"), ratio=0.5), None)
    words = [row["text"] for row in compare_data(frame)["words"]]
    changed = 100 * cells(frame, "a - b", "changed", domain="u").value
    assert f"u, without labels: {changed:.1f} % of the predictions differ" in words


def test_a_choice_against_scorers_equals_each_step_by_hand() -> None:
    study = few(dg.demo(), images=48)
    (target,), names = study.targets, study.graph.names
    mask = dg.Mask.by_hand(study.graph, removed=dict.fromkeys(names, range(12)), reads={"mnist_m/report": "labels"})
    before = {name: value.clone() for name, value in study.model.state_dict().items()}
    frame = dg.diagnostics.against_scorers(study, mask, scorers=["reverse(l1)", "bn_scale"], seed=3)
    assert all(torch.equal(value, before[name]) for name, value in study.model.state_dict().items())
    score, small = {}, {}
    for name in ("reverse(l1)", "bn_scale"):
        small[name] = dg.prune(study.model, dg.allocate(study.score(name), ratio=mask.ratio_achieved))
        calibrated = dg.recalibrate(small[name], study.sources)
        score[name] = sum(dg.evaluate(calibrated, source, split="score").accuracy for source in study.sources)
    best = max(score, key=lambda name: score[name])
    assert len(set(score.values())) == 2, "a tie would decide nothing"
    mine, other = (
        frame.query(f"choice == '{choice}' and metric == 'accuracy' and domain == '{target.name}'").iloc[0]
        for choice in "ab"
    )
    assert mine.target_aware and not other.target_aware
    assert other.scorer == best and frame.query("choice == 'b'").scorer.nunique() == 1
    tuning = {"batchnorm": "recalibrate", "seed": 3}
    chosen = drain(_best_mask(study, mask, items=[dg.SCORERS["bn_scale"]], finetuning=tuning))
    assert chosen.selection == {f"{source.name}/score": "labels" for source in study.sources}
    alone = dg.Study(small[best], sources=study.sources, targets=study.targets)
    tuned = dg.prune_and_tune(alone, None, ratio=0.0, rounds=1, epochs=1, batchnorm="recalibrate", seed=3)
    assert other.value == pytest.approx(dg.evaluate(tuned.network, target).accuracy, abs=1e-12)


@pytest.mark.parametrize(("scorers", "removed", "word"), [([], [0], "scorers="), (["l1"], [], "removes no filter")])
def test_a_choice_against_no_scorer_or_without_removal_is_refused(
    scorers: list[str], removed: list[int], word: str
) -> None:
    study = study_of()
    mask = dg.Mask.by_hand(study.graph, removed={study.graph.names[0]: removed})
    with pytest.raises(dg.DgpruneError, match=word):
        dg.diagnostics.against_scorers(study, mask, scorers=scorers)
