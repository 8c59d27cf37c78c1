"""The search for the smallest network that keeps a share of the accuracy, or the largest one within a size."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
import torch
from material import domain, norm_net, randomise
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.charts.find import find_data
from dgprune_lab.core import DgpruneError

CLASSES = 12


def colours(name: str, classes: list[int], *, labelled: bool = True) -> dg.Domain:
    """Images of one colour each, which is their class: ten of each class in every split."""
    labels = torch.tensor(classes).repeat(30)
    images = torch.eye(CLASSES)[labels][:, :, None, None].expand(-1, -1, 4, 4).contiguous()
    third = len(labels) // 3
    splits = {part: range(k * third, (k + 1) * third) for k, part in enumerate(("train", "score", "report"))}
    given: Any = {"labels": labels, "classes": CLASSES} if labelled else {}
    return dg.Domain.from_arrays(name, images=images, splits=splits, **given)


def one_filter_a_class() -> nn.Sequential:
    """Filter k answers to colour k alone: without it the images of class k are taken for class 0."""
    net = nn.Sequential(
        nn.Conv2d(CLASSES, CLASSES, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CLASSES, CLASSES)
    )
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(CLASSES)[:, :, None, None])  # type: ignore[operator,union-attr]
        net[3].weight.copy_(torch.eye(CLASSES))  # type: ignore[operator,union-attr]
        net[3].bias.zero_()  # type: ignore[operator,union-attr]
    return net.eval()


@pytest.fixture(scope="module")
def study() -> dg.Study:
    """Its accuracy is the share of classes with a filter: it falls with every larger ratio."""
    sources = [colours("a", list(range(CLASSES))), colours("b", [0, 7, 8, 9, 10, 11])]
    return dg.Study(one_filter_a_class(), sources=sources, targets=[colours("t", list(range(CLASSES)))])


def by_number(study: dg.Study) -> dg.Scores:
    """Class 1 loses its filter first, class 0 last."""
    order = torch.arange(float(CLASSES))
    order[0] = CLASSES
    return dg.Scores("by number", {"0": order}, study.graph, reads={})


CASES = [
    ("worst_source", None),
    ("a", [0.5]),
    ("b", [k / 40 for k in range(40)]),
    ("worst_source", [0.9, 0.1, 0.35, 0.34]),
]


@pytest.mark.parametrize(("on", "ratios"), CASES, ids=["default", "one", "forty", "unsorted"])
def test_bisection_finds_what_trying_every_ratio_finds(study: dg.Study, on: str, ratios: Any) -> None:
    scores = by_number(study)
    tried = sorted({0.0, *(dg.grid(0.01, 0.99, 99) if ratios is None else ratios)})
    names = ["a", "b"] if on == "worst_source" else [on]
    worst = {}
    for ratio in tried:
        small = dg.prune(study.model, dg.allocate(scores, ratio=ratio))
        worst[ratio] = min(dg.evaluate(small, study.domain(name), "score").accuracy for name in names)
    assert all(worst[b] <= worst[a] for a, b in pairwise(tried)), "this study is monotone"
    for keep in (0.0, 0.3, 0.5, 0.9, 1.0):
        found = dg.find(study, keep=keep, on=on, scorer=scores, ratios=ratios)
        expected = max(ratio for ratio in tried if worst[ratio] >= keep * worst[0.0] - 1e-12)
        assert found.mask.key == dg.allocate(scores, ratio=expected).key
        assert found.mask.ratio_requested == expected and found.monotone
        assert found.table.evaluation.nunique() <= 12


BY_HAND: list[dict[str, Any]] = [
    {"max_layer_ratio": 0.4},
    {"max_layer_ratio": 0.4, "layers": {"0": 0.25}},
    {"layers": {"0": 0.5}},
    {"forced": {"remove": {"0": [11]}, "keep": {"0": [1, 2]}}, "reads": {}},
    {"forced": {"keep": {"0": [1]}}, "max_layer_ratio": 0.7, "reads": {"a/train": "images"}},
]


@pytest.mark.parametrize("given", BY_HAND, ids=str)
def test_layers_and_filters_by_hand_change_the_candidates_and_nothing_else(study: dg.Study, given: Any) -> None:
    """`find` returns what trying every ratio that `allocate` takes with these arguments returns."""
    scores, ratios, worst = by_number(study), [k / 24 for k in range(24)], {}
    masks: dict[float, dg.Mask] = {}
    for ratio in ratios:
        options = {**{k: v for k, v in given.items() if k != "forced"}, **given.get("forced", {})}
        try:
            masks[ratio] = dg.allocate(scores, ratio=ratio, **options)
        except DgpruneError:
            continue
        small = dg.prune(study.model, masks[ratio])
        worst[ratio] = min(dg.evaluate(small, study.domain(name), "score").accuracy for name in ("a", "b"))
    assert len(masks) > 0 and all(worst[b] <= worst[a] for a, b in pairwise(worst))
    for keep in (0.1, 0.5, 0.75, 0.9, 1.0):
        enough = [ratio for ratio, value in worst.items() if value >= keep - 1e-12]
        if not enough:
            with pytest.raises(DgpruneError, match=r"smallest possible ratio, \d.*change layers"):
                dg.find(study, keep=keep, scorer=scores, ratios=ratios, **given)
            continue
        found = dg.find(study, keep=keep, scorer=scores, ratios=ratios, **given)
        expected = masks[max(enough)]
        assert found.mask.key == expected.key and found.mask.ratio_requested == max(enough)
        assert found.mask.forced == expected.forced and found.mask.layer_ratios == expected.layer_ratios
        assert found.mask.reads == expected.reads and found.table.evaluation.nunique() <= 12
    for limit in (10**6, 200, 120):
        fits = [ratio for ratio, mask in masks.items() if parameters(dg.prune(study.model, mask)) <= limit]
        if fits:
            found = dg.find(study, within={"parameters": limit}, scorer=scores, ratios=ratios, **given)
            assert found.mask.key == masks[min(fits)].key and found.mask.ratio_requested == min(fits)
        else:
            with pytest.raises(DgpruneError, match="leaves"):
                dg.find(study, within={"parameters": limit}, scorer=scores, ratios=ratios, **given)


def test_layers_by_hand_that_rule_out_every_ratio_are_refused_in_the_words_of_allocate(study: dg.Study) -> None:
    refused: dict[str, Any] = {"cannot be reached": {"0": 0.5}, "unknown layer '1'": {"1": 0.5}}
    for words, layers in refused.items():
        with pytest.raises(DgpruneError, match=words):
            dg.find(study, keep=0.5, scorer=by_number(study), ratios=[0.1, 0.2], layers=layers)


def test_the_full_network_is_chosen_where_nothing_smaller_keeps_enough(study: dg.Study) -> None:
    both: list[dict[str, Any]] = [{}, {"max_layer_ratio": 0.9}]
    for given in both:
        found = dg.find(study, keep=1.0, scorer=by_number(study), ratios=[0.5], **given)
        assert found.mask.ratio_achieved == 0 and found.table.evaluation.nunique() == 2
        assert set(found.table[found.table.chosen].evaluation) == {0}


def test_the_goal_stands_in_the_table_as_a_number(study: dg.Study) -> None:
    scores = by_number(study)
    for on, domain_cell in (("worst_source", None), ("b", "b")):
        table = dg.find(study, keep=0.6, on=on, scorer=scores, ratios=[0.2, 0.5]).table
        row = table[table.metric == "accuracy_wanted"].iloc[0]
        assert row.value == pytest.approx(0.6) and row.evaluation == 0
        assert row.domain == domain_cell or (domain_cell is None and pd.isna(row.domain))
    table = dg.find(study, within={"kilobytes": 0.7, "macs": 10**9}, scorer=scores).table
    goals = table[table.metric.str.endswith("_limit")].set_index("metric").value.to_dict()
    assert goals == {"bytes_limit": 700.0, "macs_limit": 1e9}
    assert table[table.chosen & (table.metric == "bytes")].value.item() <= 700


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("limit", [10**6, 300, 200, 100, 50])
def test_the_largest_network_within_a_size(study: dg.Study, limit: int) -> None:
    scores = by_number(study)
    masks = [dg.allocate(scores, ratio=ratio) for ratio in (0.0, *dg.grid(0.01, 0.99, 99))]
    expected = next(mask for mask in masks if parameters(dg.prune(study.model, mask)) <= limit)
    found = dg.find(study, within={"parameters": limit}, scorer=scores)
    assert found.mask.key == expected.key and found.mask.ratio_requested == expected.ratio_requested
    assert found.table.evaluation.nunique() <= 2 and f"{limit:,} parameters" in str(found)
    both = dg.find(study, within={"parameters": limit, "kilobytes": 4 * limit / 1000, "macs": 10**9}, scorer=scores)
    assert both.mask.key == expected.key


def test_a_limit_on_latency_is_searched_by_measuring(study: dg.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is replaced by the number of parameters: 3 ms for each 100."""
    calls = []

    def timings(network: nn.Module, images: Tensor) -> Iterator[float]:
        calls.append(len(images))
        return iter([0.03 * parameters(network)] * 5)

    monkeypatch.setattr(sys.modules["dgprune_lab.diagnostics._search"], "timings", timings)
    scores = by_number(study)
    for limit, ratio in ((100.0, 0.0), (3.0, None)):
        calls.clear()
        found = dg.find(study, within={"milliseconds": limit}, scorer=scores)
        same = dg.find(study, within={"parameters": limit / 0.03}, scorer=scores)
        assert found.mask.key == same.mask.key and ratio in (None, found.mask.ratio_requested)
        assert 1 <= len(calls) <= 8 and found.table.evaluation.nunique() <= 12
        rows: Any = found.table[found.table.metric == "latency"]
        assert set(rows[rows.chosen].value <= limit) == {True} and (rows[~rows.meets].value > limit).all()
    with pytest.raises(DgpruneError, match="fast enough"):
        dg.find(study, within={"milliseconds": 0.001}, scorer=scores)


def test_every_evaluation_is_in_the_table_and_says_what_it_read(study: dg.Study) -> None:
    found = dg.find(study, keep=0.6, scorer=by_number(study))
    table = found.table
    assert set(table.split.dropna()) == {"score"} and set(table.domain.dropna()) == {"a", "b"}
    assert set(table[table.domain.notna()].seen_by_selection) == {"labels"}
    for number, rows in table.groupby("evaluation"):
        ratio = rows.ratio_requested.iloc[0]
        mask = None if number == 0 else dg.allocate(by_number(study), ratio=ratio)
        for name in ("a", "b"):
            value = rows[(rows.metric == "accuracy") & (rows.domain == name)].value.item()
            assert value == study.outcomes(mask, domain=name, split="score").accuracy
        worst = rows[rows.metric == "worst_domain_accuracy"].value.item()
        assert worst == rows[rows.metric == "accuracy"].value.min()
        assert rows.meets.unique().tolist() == [worst >= 0.6]
        assert {"filters", "parameters", "macs", "bytes"} <= set(rows.metric)
    chosen = table[table.chosen & (table.metric == "parameters")]
    assert chosen.value.item() == parameters(dg.prune(study.model, found.mask))


def test_the_search_stays_in_the_provenance(study: dg.Study) -> None:
    found = dg.find(study, keep=0.6, on="b", scorer=by_number(study))
    assert found.mask.selection == {"b/score": "labels"}
    small = study.network(found.mask)
    assert dg.provenance_of(small).selection == {"b/score": "labels"}
    assert dg.provenance_of(dg.masked(study.model, found.mask)).selection == {"b/score": "labels"}
    for split, seen in (("score", "labels"), ("report", "none")):
        table = dg.measure(small, study.domains, split=split, latency=False)
        assert table[table.domain == "b"].seen_by_selection.unique().tolist() == [seen]
        table = dg.diagnostics.compare(study, found.mask, None, split=split)
        assert table[(table.choice == "a") & (table.domain == "b")].seen_by_selection.unique().tolist() == [seen]
        assert not table.target_aware.any(), "a source's labels make nothing target-aware"
    again = dg.Mask.from_json(json.dumps(found.mask.to_json()), graph=study.graph)
    assert again.selection == found.mask.selection
    later = dg.Mask.by_hand(dg.read_groups(small, study.sources[0].images[:1]), reads={})
    assert found.mask.then(later).selection == {"b/score": "labels"}


def test_where_accuracy_rises_again_the_result_says_so() -> None:
    """Filter 1 takes all images of class 2 away; once it is removed they are right again."""
    net = one_filter_a_class()
    with torch.no_grad():
        net[0].weight[1, 2] = 5.0  # type: ignore[index,operator,union-attr]
    study = dg.Study(net, sources=[colours("a", [0, 2, 3, 4, 5, 6])])
    scores = by_number(study)
    found = dg.find(study, keep=0.99, scorer=scores, ratios=[0.05, 0.1, 0.3])
    rows = found.table[found.table.metric == "accuracy"]
    assert rows.value.max() > rows.value.iloc[0] and not found.monotone
    assert "it rose" in str(found) and "need not fall" in str(found)
    whole = dg.find(dg.Study(one_filter_a_class(), sources=study.sources), keep=0.99, scorer=scores)
    assert whole.monotone and "it rose" not in str(whole) and "need not fall" in str(whole)


def test_it_runs_step_by_step_and_can_be_cancelled(study: dg.Study) -> None:
    steps = dg.find.steps(study, keep=0.6, scorer=by_number(study), ratios=dg.grid(0.001, 0.99, 990))
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            found = end.value
            break
    assert all(0 <= done <= total <= 12 for done, total, _ in seen) and [s[0] for s in seen] == sorted(
        s[0] for s in seen
    )
    assert found.table.evaluation.nunique() <= 12
    again = dg.find.steps(study, keep=0.6, scorer="l1")
    next(again)
    again.close()
    assert dg.find(study, keep=0.6, scorer=by_number(study)).mask.scorer == "by number"


def test_scorers_of_the_menu_and_batchnorm() -> None:
    net = randomise(norm_net(), dtype=torch.float32)
    held = dg.Study(net, sources=[domain("a", count=90)], targets=[domain("t", count=90, seed=5)])
    first, second = (dg.find(held, keep=0.7, scorer="random", ratios=dg.grid(0.1, 0.9, 9), seed=4) for _ in range(2))
    assert first.mask.key == second.mask.key and first.mask.options["seed"] == 4
    assert first.mask.key == dg.allocate(held.score("random", seed=4), ratio=first.mask.ratio_requested).key
    table = dg.find(held, keep=0.7, scorer="taylor", scope="global", budget="macs", ratios=[0.2, 0.4]).table
    settings = table[table.evaluation > 0]
    assert set(settings.scope) == {"global"} and set(settings.budget) == {"macs"}
    assert set(settings.batchnorm) == {"recalibrate"} and set(table[table.evaluation == 0].batchnorm) == {"as_is"}
    few = dg.find(held, keep=0.7, scorer="l1", ratios=[0.4], calibration=9).table
    measured = dg.measure(
        dg.recalibrate(dg.prune(held.model, dg.allocate(held.score("l1"), ratio=0.4)), held.sources, images=9),
        held.sources,
        split="score",
    )
    losses = [rows[(rows.metric == "loss") & (rows.domain == "a")].value for rows in (few, measured)]
    assert losses[0].iloc[-1] == pytest.approx(losses[1].iloc[0], abs=1e-6)
    aware = dg.find(held, keep=0.7, scorer=held.score("dss", options={"site": "conv_output"}), ratios=[0.2, 0.4])
    assert aware.table[aware.table.evaluation > 0].target_aware.all(), "the scorer looked at the target"


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({}, ["keep=0.95", "within="]),
        ({"keep": 0.9, "within": {"macs": 10}}, ["either keep", "within="]),
        ({"within": {}}, ["within="]),
        ({"keep": 0.9, "on": "t"}, ["'t' is a target", "target-aware", "'worst_source'"]),
        ({"keep": 0.9, "on": "worst"}, ["unknown source 'worst'", "Did you mean 'worst_source'"]),
        ({"within": {"parameters": 3}}, ["within 3 parameters", "leaves 36 parameters"]),
        ({"within": {"parameters": 1, "macs": 2}}, ["within 1 parameter and 2 MACs per image:"]),
        ({"within": {"kilobytes": 0.01}}, ["within 0.01 kB"]),
        ({"keep": 0.9, "ratios": []}, ["ratios", "got 0"]),
        ({"keep": 0.9, "ratios": [k / 2000 for k in range(2000)]}, ["1,023", "1,999"]),
    ],
)
def test_what_cannot_be_searched_is_refused(study: dg.Study, options: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(DgpruneError) as raised:
        dg.find(study, scorer=by_number(study), **options)
    assert all(fact in str(raised.value) for fact in facts), str(raised.value)


def test_a_source_without_labels_is_not_searched_on() -> None:
    sources = [colours("a", [0, 1, 2]), colours("u", [0, 1, 2], labelled=False)]
    mixed = dg.Study(one_filter_a_class(), sources=sources)
    assert dg.find(mixed, keep=0.5, ratios=[0.2]).mask.selection == {"a/score": "labels"}
    with pytest.raises(DgpruneError, match=r"on='u'.*labels"):
        dg.find(mixed, keep=0.5, on="u")
    assert isinstance(dg.find(mixed, keep=0.5, ratios=[0.2]).table, pd.DataFrame)


def test_the_chart_of_a_search_draws_what_was_tried_with_the_goal(study: dg.Study) -> None:
    found = dg.find(study, keep=0.6, scorer=by_number(study))
    data, accuracy = find_data(found.table), found.table[found.table.metric == "accuracy"]
    assert len(data["tried_0"]) == len(accuracy)
    for row, (_, cell) in zip(data["tried_0"], accuracy.iterrows(), strict=True):
        assert (row["evaluation"], row["domain"], row["removed"]) == (
            cell.evaluation,
            cell.domain,
            100 * cell.ratio_requested,
        )
        assert row["value"] == pytest.approx(100 * cell.value) and row["looked"] == "yes, the reported images"
        assert (row["fill"] != "transparent", row["verdict"] == "meets the goal") == (cell.meets, cell.meets)
    assert data["goal_0"] == [{"value": pytest.approx(60.0), "label": "Goal: at least 60.0 % on the worst source"}]
    assert data["chosen"][0]["removed"] == 100 * found.mask.ratio_requested
    title: Any = dg.charts.find(found.table).to_dict()["title"]
    assert "split score of a, b" in title["subtitle"][0] and "seen_by_selection" in title["subtitle"][0]
    limited = dg.find(study, within={"parameters": 200}, scorer=by_number(study)).table
    data = find_data(limited)
    assert data["goal_0"] == [] and data["goal_1"] == [{"value": 200.0, "label": "Limit: 200"}]
    assert [row["value"] for row in data["tried_1"]] == limited[limited.metric == "parameters"].value.tolist()
    with pytest.raises(DgpruneError, match=r"found\.table"):
        dg.charts.find(dg.sweep(study, scorers=["l1"], ratios=[0.5]))
