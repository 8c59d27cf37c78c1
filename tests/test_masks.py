"""Masks: a file and back, two rounds in one, by hand, single weights, and the wrong network."""

from __future__ import annotations

import itertools
import json
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from material import ResidualNet, domain, grouped_net, images, norm_net, plain_net, random_mask, randomise, zeroed
from torch import nn

import dgprune_lab as dg
from dgprune_lab.core.graph import FilterGraph
from dgprune_lab.core.masks import Mask
from dgprune_lab.core.scores import Scores
from dgprune_lab.core.steps import drain


def real(seed: int = 0) -> tuple[nn.Module, FilterGraph]:
    model = randomise(ResidualNet(), seed=seed)
    return model, dg.read_groups(model, images(2, 3, 12, 12, dtype=torch.float64))


def drawn(graph: FilterGraph, seed: int) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    return Scores(
        "drawn",
        {g.name: torch.rand(g.filters, generator=generator).double() for g in graph.groups},
        graph,
        options={"seed": seed},
    )


def test_a_mask_survives_a_file_with_original_indices() -> None:
    model, graph = real()
    mask = dg.allocate(drawn(graph, 1), ratio=0.4, scope="global", budget="macs")
    plain = json.loads(json.dumps(mask.to_json()))
    again = Mask.from_json(plain, graph=graph)
    assert again.key == mask.key and again.to_json() == mask.to_json()
    for name in ("ratio_requested", "ratio_achieved", "scope", "budget", "scorer", "options", "nested", "reads"):
        assert getattr(again, name) == getattr(mask, name)
    for group in graph.groups:
        kept = plain["keep"][group.name]
        assert kept == mask.kept(group.name)
        for member in group.members:
            if member.tensor == f"{group.name}.weight" and member.side == "out":
                small, full = dg.prune(model, mask).get_parameter(member.tensor), model.get_parameter(member.tensor)
                assert small.shape[0] == len(kept)
                assert torch.equal(small.flatten(1).norm(dim=1) > 0, full[kept].flatten(1).norm(dim=1) > 0)
    assert len(mask.kept("stem")) < graph["stem"].filters


def test_two_rounds_equal_their_composition() -> None:
    model, graph = real()
    x = images(4, 3, 12, 12, seed=9, dtype=torch.float64)
    first = dg.allocate(drawn(graph, 1), ratio=0.3)
    small = dg.prune(model, first)
    inner = dg.allocate(drawn(dg.read_groups(small, x), 2), ratio=0.4)
    both = first.then(inner)
    with torch.no_grad():
        assert torch.equal(dg.prune(small, inner)(x), dg.prune(model, both)(x))
    assert not both.nested and both.ratio_requested == pytest.approx(1 - 0.7 * 0.6)
    for name in graph.names:
        assert set(both.kept(name)) < set(first.kept(name))
    with pytest.raises(dg.DgpruneError, match=r"second mask does not fit layer .*filters remain in it"):
        first.then(first)


def test_a_layer_with_one_filter_left_stays_as_it_is_in_the_next_round() -> None:
    model, graph = real()
    x = images(4, 3, 12, 12, seed=9, dtype=torch.float64)
    first = Mask.by_hand(graph, removed={"inner": [0, 1, 3, 4], "stem": [2]})
    small = dg.prune(model, first)
    inner = Mask.by_hand(dg.read_groups(small, x), removed={"stem": [0]})
    both = first.then(inner)
    assert both.kept("inner") == [2] and both.kept("stem") == [1, 3, 4, 5]
    with torch.no_grad():
        assert torch.equal(dg.prune(small, inner)(x), dg.prune(model, both)(x))


def test_masks_by_hand() -> None:
    _, graph = real()
    mask = Mask.by_hand(graph, removed={"inner": [0, 3]})
    assert (
        mask.kept("inner") == [1, 2, 4]
        and mask.ratio_requested == pytest.approx(mask.ratio_achieved)
        and mask.scorer == "by hand"
    )
    assert Mask.by_hand(graph).cost == graph.cost()
    for wrong, words in (
        ({"inner": [5]}, r"'inner' has filters 0 to 4; got \[5\]"),
        ({"inner": [-1]}, r"'inner' has filters 0 to 4"),
        ({"iner": [0]}, r"unknown layer 'iner'.*Did you mean 'inner'"),
        ({"inner": range(5)}, r"keep at least one filter of layer 'inner'"),
    ):
        with pytest.raises(dg.DgpruneError, match=words):
            Mask.by_hand(graph, removed=wrong)
    with pytest.raises(dg.DgpruneError, match=r"needs bool of shape \(6,\) for layer 'stem'; got nothing"):
        Mask({}, 0.0, graph)
    with pytest.raises(dg.DgpruneError, match=r"needs bool of shape \(6,\).*float32"):
        Mask({**mask.keep, "stem": torch.ones(6)}, 0.0, graph)


def test_a_mask_for_another_network_is_refused() -> None:
    _, graph = real()
    mask = dg.allocate(drawn(graph, 0), ratio=0.5)
    for other in (norm_net(), plain_net(), grouped_net()):
        for function in (dg.prune, dg.masked):
            with pytest.raises(dg.DgpruneError, match=r"made for another network"):
                function(other, mask)
    there = dg.read_groups(norm_net(), images(1, 3, 12, 12))
    with pytest.raises(dg.DgpruneError, match=r"mask is for another network"):
        Mask.from_json(mask.to_json(), graph=there)


def test_single_weights_are_masked_never_removed() -> None:
    model, _ = real()
    values = {name: model.get_parameter(name).detach().abs() for name in ("inner.weight", "head.weight")}
    scores = dg.WeightScores("l1", values)
    total = sum(v.numel() for v in values.values())
    mask = dg.allocate(scores, ratio=0.5, scope="global")
    assert sum(int((~k).sum()) for k in mask.keep.values()) == total // 2 and mask.ratio_achieved == pytest.approx(
        0.5, abs=1 / total
    )
    top = max(float(values[n][~mask.keep[n]].max()) for n in values)
    assert top <= min(float(values[n][mask.keep[n]].min()) for n in values)
    soft = dg.masked(model, mask)
    for name, keep in mask.keep.items():
        owner, _, leaf = name.rpartition(".")
        assert torch.equal(getattr(soft.get_submodule(owner), leaf), torch.where(keep, model.get_parameter(name), 0))
    with pytest.raises(dg.DgpruneError, match=r"single weights.*use masked"):
        dg.prune(model, mask)  # type: ignore[arg-type]
    with pytest.raises(dg.DgpruneError, match=r"counted as parameters"):
        dg.allocate(scores, ratio=0.5, budget="macs")


def test_a_mask_of_single_weights_for_another_network_is_refused() -> None:
    for keep in (
        {"nowhere.weight": torch.ones(3, 3, dtype=torch.bool)},
        {"inner.weight": torch.ones(3, 3, dtype=torch.bool)},
    ):
        with pytest.raises(dg.DgpruneError, match=r"made for another network"):
            dg.masked(ResidualNet(), dg.WeightMask(keep, 0.0))


def test_a_mask_of_single_weights_is_bool() -> None:
    with pytest.raises(dg.DgpruneError, match=r"needs bool, True = keep; inner\.weight has torch\.float32"):
        dg.WeightMask({"inner.weight": torch.ones(5, 6, 3, 3)}, 0.0)


def test_scores_from_a_table_and_back() -> None:
    _, graph = real()
    scores = drawn(graph, 3)
    again = Scores.from_frame(scores.to_frame().sample(frac=1, random_state=0), graph=graph)
    assert all(torch.equal(again.values[n], scores.values[n]) for n in graph.names) and again.reads is None
    with pytest.raises(dg.DgpruneError, match=r"no row for the filters \[0\] of layer 'stem', which has 6"):
        Scores.from_frame(scores.to_frame().iloc[1:], graph=graph)
    with pytest.raises(dg.DgpruneError, match=r"NaN or infinite scores in layer"):
        Scores.from_frame(scores.to_frame().assign(score=float("nan")), graph=graph)
    study = dg.Study(randomise(ResidualNet(), dtype=torch.float32), sources=[domain("a")])
    assert study.score(again) is again


def test_a_pruned_network_shares_no_memory_with_its_parent() -> None:
    model = randomise(ResidualNet())
    mask = random_mask(dg.read_groups(model, images(1, 3, 12, 12, dtype=torch.float64)), seed=1)
    mine = {t.data_ptr() for t in itertools.chain(model.parameters(), model.buffers())}
    for other in (dg.prune(model, mask), dg.masked(model, mask), zeroed(model, mask)):
        assert not mine & {t.data_ptr() for t in itertools.chain(other.parameters(), other.buffers())}


def test_a_network_pruned_in_inference_mode_leaves_nothing_behind_for_the_next() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 2, 3))
    graph = dg.read_groups(model, torch.rand(1, 3, 9, 9))
    mask = dg.Mask.by_hand(graph, removed={"0": [1, 2], "1": [0, 7]})
    pruned: list[torch.nn.Module] = []

    def both() -> None:
        with torch.inference_mode():
            dg.prune(model, mask)
        pruned.append(dg.prune(model, mask))

    thread = threading.Thread(target=both)  # a thread of its own has no memory kept from earlier tests
    thread.start()
    thread.join()
    kept = [mask.kept(name) for name in graph.names]
    assert torch.equal(pruned[0].get_parameter("1.weight"), model.get_parameter("1.weight")[kept[1]][:, kept[0]])


BOOLS = [True, False, False, True, False]
SAME = {
    "list of bools": BOOLS,
    "bool tensor": torch.tensor(BOOLS),
    "bool array": np.array(BOOLS),
    "numbers": [3, 0],
    "tensor": torch.tensor([0, 3]),
    "array": np.array([0, 3], dtype=np.uint8),
    "series": pd.Series([0, 3]),
    "set": {0, 3},
    "generator": (k for k in (0, 3)),
}


@pytest.mark.parametrize("case", SAME)
def test_filters_are_named_by_their_numbers_or_by_a_bool_vector(case: str) -> None:
    _, graph = real()
    assert Mask.by_hand(graph, removed={"inner": SAME[case]}).kept("inner") == [1, 2, 4]


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ([0.0, 3.0], r"'inner' must be numbers from 0 to 4, or True or False.*got \[0\.0, 3\.0\]"),
        (torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0]), r"numbers from 0 to 4.*got \[0\.0, 1\.0"),
        (np.array([1.5]), r"numbers from 0 to 4"),
        ([float("nan")], r"numbers from 0 to 4"),
        ([True, False], r"'inner' has 5 filters; got 2 values of True and False"),
        ([True, 3], r"numbers from 0 to 4.*got \[True, 3\]"),
        ([0, 0, 3], r"'inner': filters \[0\] are named more than once"),
        ([0, -1], r"'inner' has filters 0 to 4; got \[0, -1\]"),
        ([2**70], r"'inner' has filters 0 to 4"),
        ([[0, 3]], r"numbers from 0 to 4.*got \[\[0, 3\]\]"),
        ("03", r"numbers from 0 to 4.*got '03'"),
        ({0: True}, r"numbers from 0 to 4"),
        (["0"], r"numbers from 0 to 4"),
        ([None], r"numbers from 0 to 4"),
        (None, r"numbers from 0 to 4"),
        ([True] * 5, r"must keep at least one filter of layer 'inner'"),
    ],
)
def test_what_names_no_filters_is_refused(filters: object, words: str) -> None:
    _, graph = real()
    with pytest.raises(dg.DgpruneError, match=words):
        Mask.by_hand(graph, removed={"inner": filters})


def test_one_filter_alone_is_a_number() -> None:
    _, graph = real()
    assert Mask.by_hand(graph, removed={"inner": 2}).kept("inner") == [0, 1, 3, 4]
    assert Mask.by_hand(graph, removed={"inner": []}).kept("inner") == [0, 1, 2, 3, 4]


def test_a_mask_is_read_from_its_text() -> None:
    _, graph = real()
    mask = Mask.by_hand(graph, removed={"inner": [0]}, reads={"a/score": "labels"})
    assert Mask.from_json(json.dumps(mask.to_json()), graph=graph).to_json() == mask.to_json()


def hostile(graph: FilterGraph) -> dict[str, tuple[Any, str]]:
    whole = Mask.by_hand(graph, removed={"inner": [0]}).to_json()
    kept = whole["keep"]

    def inner(filters: Any) -> dict[str, Any]:
        return {**whole, "keep": {**kept, "inner": filters}}

    return {
        "text": ("{", r"the mask is not JSON"),
        "list": ("[1]", r"not a mask that to_json wrote"),
        "deep": ("[" * 100_000, r"not JSON \(nested too deeply\)"),
        "float": (inner([0.0]), r"the mask: filters of layer 'inner' must be numbers"),
        "bool": (inner([True, 1]), r"the mask: filters of layer 'inner' must be numbers"),
        "repeated": (inner([1, 1]), r"the mask: layer 'inner': filters \[1\] are named more than once"),
        "none": (inner(None), r"the mask: filters of layer 'inner' must be numbers"),
        "nothing kept": (inner([]), r"keep at least one filter of layer 'inner'"),
        "a layer missing": ({**whole, "keep": {"stem": [0]}}, r"keep and filters of the mask differ in layers: inner"),
        "a layer more": ({**whole, "keep": {**kept, "x": [0]}}, r"keep and filters of the mask differ in layers: x"),
        "keep": ({**whole, "keep": [1]}, r"an invalid keep, \[1\]; save it again"),
        "filters": ({**whole, "filters": 3}, r"an invalid filters, "),
        "filters of another network": ({**whole, "filters": {"x": 1}}, r"for another network; .*x \(1, here none\)"),
        "ratio": ({**whole, "ratio_requested": "0.5"}, r"an invalid ratio_requested, "),
        "ratio of 1": ({**whole, "ratio_requested": 1}, r"an invalid ratio_requested, "),
        "ratio that is nan": ({**whole, "ratio_requested": float("nan")}, r"an invalid ratio_requested, "),
        "scope": ({**whole, "scope": "all"}, r"an invalid scope, 'all'; save it again"),
        "budget": ({**whole, "budget": ["filters"]}, r"an invalid budget, "),
        "scorer": ({**whole, "scorer": None}, r"an invalid scorer, "),
        "options": ({**whole, "options": 3}, r"an invalid options, "),
        "nested": ({**whole, "nested": 1}, r"an invalid nested, "),
        "reads": ({**whole, "reads": {"a/score": "all"}}, r"an invalid reads, "),
    }


@pytest.mark.parametrize("case", hostile(real()[1]))
def test_a_file_that_holds_no_mask_is_answered_in_words(case: str) -> None:
    _, graph = real()
    value, words = hostile(graph)[case]
    with pytest.raises(dg.DgpruneError, match=words):
        Mask.from_json(value, graph=graph)


def test_values_that_were_handed_out_change_nothing() -> None:
    study = dg.Study(randomise(ResidualNet(), dtype=torch.float32), sources=[domain("a")])
    mask = dg.allocate(study.score("l1"), ratio=0.4)
    taylor, outcomes = study.score("taylor"), study.outcomes(mask, domain="a", batchnorm="as_is")
    statistics = study.statistics("a", needs=["mean_map", "moments"])
    features = drain(study.feature_steps(mask, layer="inner", domain="a"))

    def everything() -> tuple[list[torch.Tensor], Any]:
        scores, read = study.score("taylor"), study.statistics("a", needs=["mean_map", "moments"])
        again = study.outcomes(mask, domain="a", batchnorm="as_is")
        return [
            *scores.values.values(),
            *mask.keep.values(),
            *read.mean_map.values(),
            read.moments["inner"].mean,
            again.predicted,
            again.loss,
            drain(study.feature_steps(mask, layer="inner", domain="a")),
            dg.allocate(scores, ratio=0.4).keep["inner"],
        ], (dict(scores.reads or {}), dict(mask.options), mask.key)

    tensors, plain = everything()
    for value in [*taylor.values.values(), *statistics.mean_map.values(), *statistics.moments["inner"], features]:
        value.neg_().sub_(1)
    for flags in mask.keep.values():
        flags.logical_not_()
    outcomes.predicted.fill_(0)
    outcomes.loss.fill_(0)
    for mapping in (taylor.values, taylor.reads, mask.keep, mask.options):
        with pytest.raises(TypeError):
            mapping["inner"] = 1  # type: ignore[index]
    now, plain_now = everything()
    assert all(torch.equal(a, b) for a, b in zip(tensors, now, strict=True)) and plain == plain_now


def test_scores_are_copied_from_what_they_are_made_of() -> None:
    _, graph = real()
    values = {g.name: torch.rand(g.filters).double() for g in graph.groups}
    scores = Scores("mine", values, graph)
    order = dg.allocate(scores, ratio=0.4).keep["inner"]
    values["inner"].neg_()
    assert torch.equal(scores.values["inner"], -values["inner"])
    assert torch.equal(dg.allocate(scores, ratio=0.4).keep["inner"], order)


def test_masks_and_scores_are_shown_in_a_line() -> None:
    model = dg.models.networks.resnet18_32(widths=(8, 8, 8, 8))
    graph = dg.read_groups(model, torch.rand(1, 3, 32, 32))
    scores = drawn(graph, 0)
    mask = dg.allocate(scores, ratio=0.31, budget="macs", scope="global")
    text = repr(mask)
    assert len(text) < 250 and "31.0% of macs requested" in text and f"{mask.ratio_achieved:.1%} removed" in text
    assert f"{mask.cost.filters} of {graph.free} filters stay" in text and "can be pruned" not in text
    assert repr(scores) == f"Scores(drawn, seed=0: {graph.free} filters in {len(graph.groups)} layers)"

    class Part(nn.Module):
        """Its second convolution feeds a normalisation across channels, so only the first can be pruned."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)
            self.norm, self.head = nn.GroupNorm(2, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.b(self.a(x).relu())).mean((2, 3)))

    part = dg.read_groups(Part(), torch.rand(1, 3, 12, 12))
    assert "3 of 6 filters stay in 1 layers; 6 of 14 filters can be pruned" in repr(
        dg.allocate(drawn(part, 0), ratio=0.5)
    )
    weights = dg.WeightScores("l1", {"conv1.weight": torch.rand(8, 3, 3, 3)})
    assert repr(weights) == "WeightScores(l1: 216 weights in 1 tensors)"
    assert "50.0% zeroed; 108 of 216 stay" in repr(dg.allocate(weights, ratio=0.5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: pd.concat([t, t.assign(scorer="other")]), r"several scorers \(drawn, other\); choose one"),
        (lambda t: pd.concat([t, t]), r"several rows for one filter"),
        (lambda t: t.assign(layer=t.layer.replace("inner", "iner")), r"unknown layer 'iner'.*Did you mean 'inner'"),
        (lambda t: t.drop(columns="score"), r"columns layer, filter, score; it lacks score"),
        (lambda t: t.assign(filter=t["filter"] + 0.5), r"has filters 0 to \d; the table names others"),
        (lambda t: t.assign(filter=-t["filter"]), r"has filters 0 to \d; the table names others"),
        (lambda t: t.assign(score="high"), r"column 'score' of the table must hold numbers"),
        (lambda t: t.assign(filter=t["filter"].astype(str)), r"column 'filter' of the table must hold numbers"),
        (lambda t: t.assign(score=float("inf")), r"NaN or infinite"),
    ],
)
def test_a_table_that_holds_no_scores_of_one_scorer_is_refused(change: Any, words: str) -> None:
    _, graph = real()
    with pytest.raises(dg.DgpruneError, match=words):
        Scores.from_frame(change(drawn(graph, 3).to_frame()), graph=graph)
