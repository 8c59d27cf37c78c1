"""Layers and filters that are set by hand: their own ratio, a cap, filters forced out or in, and what the mask says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from material import ResidualNet, domain, grouped_net, images, norm_net, randomise
from test_allocation import plain_scores, removed, tied_scores
from torch import Tensor

import dgprune_lab as dg
from dgprune_lab.core.graph import FilterGraph
from dgprune_lab.core.tables import Budget, Scope

FEW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
SHARES = st.integers(0, 99).map(lambda k: k / 100)
COST = {"filters": lambda k: 1, "parameters": lambda k: k + 1, "macs": lambda k: (k + 1) * (2 * k + 1)}


@st.composite
def by_hand(draw: st.DrawFn, graph: FilterGraph) -> dict[str, Any]:
    """Arguments of `allocate` that may contradict each other."""
    names = graph.names
    some = st.lists(st.sampled_from(names), unique=True, max_size=len(names))
    given: dict[str, Any] = {"layers": {name: draw(SHARES) for name in draw(some)}}
    given["max_layer_ratio"] = draw(st.none() | st.integers(40, 100).map(lambda k: k / 100))
    for which in ("remove", "keep"):
        chosen = {name: draw(st.sets(st.integers(0, graph[name].filters - 1), max_size=3)) for name in draw(some)}
        taken = {name: set(given.get("remove", {}).get(name, ())) for name in chosen}
        given[which] = {name: sorted(filters - taken[name]) for name, filters in chosen.items()}
    return given


def lowest(scores: dg.Scores, name: str, given: Mapping[str, Any]) -> list[int]:
    """The filters of a layer in the order of removal: by hand, by score; those that are kept are not listed."""
    values, out = scores.values[name].tolist(), given["remove"].get(name, [])
    order = sorted(range(len(values)), key=lambda i: (i not in out, values[i], i))
    kept = given["keep"].get(name, [])
    return [i for i in order if i not in kept][: len(values) - 1]


def twin(scores: dg.Scores, given: Mapping[str, Any], *, ratio: float, scope: str, budget: str) -> Any:
    """Layer -> removed filters, one at a time from a plain list; the reason as text where that is refused."""
    graph, most = scores.graph, 1.0 if given["max_layer_ratio"] is None else given["max_layer_ratio"]
    cost = {name: COST[budget](k) for k, name in enumerate(graph.names)}
    asked = ratio * sum(cost[group.name] * group.filters for group in graph.groups)
    gone: dict[str, list[int]] = {}
    waiting: list[tuple[float, int, int, str]] = []
    barred = []
    own_cost = 0
    for depth, group in enumerate(graph.groups):
        name, count, own = group.name, group.filters, given["layers"].get(group.name)
        out, order = given["remove"].get(name, []), lowest(scores, name, given)
        if set(out) & set(given["keep"].get(name, [])) or len(out) == count:
            return "conflict"
        share = most if own is None else own
        if (own is not None and own > most) or len(out) > share * count + 1e-9:
            return "conflict"
        number = math.floor(share * count + 1e-9)
        if own is not None and number > len(order):
            return "conflict"
        if len(order) > number:
            barred.append((name, (number + 1) / count))
        gone[name] = order[:number] if own is not None else list(out)
        own_cost += cost[name] * len(gone[name]) if own is not None else 0
        if own is None:
            places = {i: k for k, i in enumerate(order, start=1)}
            key = (
                (lambda i, p=places, c=count: p[i] / c)
                if scope == "layer"
                else scores.values[name].tolist().__getitem__
            )
            waiting += [(key(i), depth, i, name) for i in order[len(out) : number]]
    if given["layers"] and own_cost > asked + 1e-6:
        return "layers"
    total = sum(cost[name] * len(filters) for name, filters in gone.items())
    plain = scope == "layer" and budget == "filters" and not given["layers"]
    plain = plain and not any(map(len, (*given["remove"].values(), *given["keep"].values())))
    rest = sorted(waiting)
    while rest and (rest[0][0] <= ratio + 1e-9 if plain else total + cost[rest[0][3]] <= asked + 1e-6):
        _, _, i, name = rest.pop(0)
        gone[name].append(i)
        total += cost[name]
    if plain:
        return "barred" if any(share <= ratio + 1e-9 for _, share in barred) else gone
    return "barred" if not rest and any(total + cost[name] <= asked + 1e-6 for name, _ in barred) else gone


@FEW
@given(data=st.data(), scores=plain_scores(), ratio=SHARES)
@pytest.mark.parametrize("scope", get_args(Scope))
def test_any_limits_give_what_a_plain_list_gives(data: Any, scores: dg.Scores, ratio: float, scope: Any) -> None:
    given, budget = data.draw(by_hand(scores.graph)), data.draw(st.sampled_from(get_args(Budget)))
    expected = twin(scores, given, ratio=ratio, scope=scope, budget=budget)
    if isinstance(expected, str):
        with pytest.raises(dg.DgpruneError, match=r"layers|max_layer_ratio|remove|keep"):
            dg.allocate(scores, ratio=ratio, scope=scope, budget=budget, **given)
        return
    mask = dg.allocate(scores, ratio=ratio, scope=scope, budget=budget, **given)
    assert {name: removed(mask, name) for name in scores.graph.names} == {n: set(f) for n, f in expected.items()}
    table = mask.layers.set_index("layer")
    for group in scores.graph.groups:
        row = table.loc[group.name]
        assert row.ratio_achieved == pytest.approx(len(expected[group.name]) / group.filters)
        if group.name in given["layers"]:
            assert row.ratio_requested == given["layers"][group.name]


@FEW
@given(data=st.data(), scores=st.one_of(plain_scores(), tied_scores()), low=SHARES, high=SHARES)
def test_limits_hold_and_a_larger_ratio_keeps_a_subset(data: Any, scores: dg.Scores, low: float, high: float) -> None:
    graph, scope = scores.graph, data.draw(st.sampled_from(get_args(Scope)))
    given, budget = data.draw(by_hand(graph)), data.draw(st.sampled_from(get_args(Budget)))
    masks = []
    for ratio in sorted((low, high)):
        try:
            masks.append(dg.allocate(scores, ratio=ratio, scope=scope, budget=budget, **given))
        except dg.DgpruneError:
            continue
    for mask in masks:
        for group in graph.groups:
            gone = removed(mask, group.name)
            assert set(given["remove"].get(group.name, ())) <= gone and len(gone) < group.filters
            assert not gone & set(given["keep"].get(group.name, ()))
            share = given["layers"].get(group.name, given["max_layer_ratio"])
            assert share is None or len(gone) <= share * group.filters + 1e-6
    if len(masks) == 2:
        assert all(removed(masks[0], name) <= removed(masks[1], name) for name in graph.names)


def lenet_scores() -> dg.Scores:
    graph = dg.read_groups(dg.models.networks.lenet(), torch.zeros(1, 3, 28, 28))
    return dg.Scores("s", {"conv1": torch.arange(32.0), "conv2": torch.arange(48.0)}, graph)


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        ({"layers": {"cnv2": 0.2}}, ["unknown layer 'cnv2'", "Did you mean 'conv2'"]),
        ({"layers": {"layer9.*": 0.2}}, ["unknown layer 'layer9.*'", "conv1, conv2"]),
        ({"layers": {"conv2": 1.2}}, ["layers", r"[0, 1)", "1.2", "'conv2'"]),
        ({"max_layer_ratio": 1.5}, ["max_layer_ratio", "1.5"]),
        ({"layers": {"conv2": 0.2}, "max_layer_ratio": 0.9}, ["layers= and max_layer_ratio=0.9", "0.1125 to 0.4625"]),
        ({"layers": {"conv2": 0.9}}, ["layers= alone", "0.5375 to 0.925"]),
        ({"max_layer_ratio": 0.4}, ["max_layer_ratio=0.4 protects", "0 to 0.3875"]),
        ({"layers": {"conv*": 0.2}}, ["layers= protects", "ratio=0.1875"]),
        ({"layers": {"conv2": 0.95}, "max_layer_ratio": 0.9}, ["0.95", "'conv2'", "max_layer_ratio=0.9"]),
        ({"remove": {"conv1": [1, 2]}, "keep": {"conv1": [2]}}, ["[2]", "'conv1'", "remove=", "keep="]),
        ({"remove": {"conv1": [32]}}, ["remove", "0 to 31", "[32]"]),
        ({"keep": {"conv": [0]}}, ["unknown layer 'conv'", "known: conv1, conv2"]),
        ({"keep": {"conv1": [0.5]}}, ["keep", "0.5"]),
        ({"remove": {"conv1": range(32)}}, ["every filter", "'conv1'"]),
        ({"remove": {"conv1": range(20)}, "layers": {"conv1": 0.1}}, ["0.1", "'conv1'", "62.5%"]),
        ({"remove": {"conv1": range(20)}, "max_layer_ratio": 0.6}, ["62.5%", "'conv1'", "max_layer_ratio=0.6"]),
        ({"keep": {"conv1": range(20)}, "layers": {"conv1": 0.9}}, ["0.9", "'conv1'", "keep"]),
        ({"remove": {"conv1": [1]}, "reads": {"mnist": "images"}}, ["reads", "'mnist': 'images'"]),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(given: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(dg.DgpruneError) as raised:
        dg.allocate(lenet_scores(), ratio=0.5, **given)
    assert all(fact in str(raised.value) for fact in facts), str(raised.value)


def test_the_ratios_that_a_refusal_names_are_possible() -> None:
    for ratio, layers in ((0.1125, {"conv2": 0.2}), (0.4625, {"conv2": 0.2}), (0.1875, {"conv*": 0.2})):
        mask = dg.allocate(lenet_scores(), ratio=ratio, layers=layers, max_layer_ratio=0.9)
        assert mask.ratio_achieved == pytest.approx(ratio)


def test_the_same_scores_obey_one_limit_after_another() -> None:
    scores = lenet_scores()
    for most in (0.9, 0.5, 0.7, 1.0):
        fresh = dg.Scores(scores.scorer, scores.values, scores.graph)
        own, alone = (dg.allocate(s, ratio=0.45, max_layer_ratio=most, scope="global") for s in (scores, fresh))
        assert own.key == alone.key and own.layers.ratio_achieved.max() <= most


def test_a_limit_that_does_not_bind_changes_nothing() -> None:
    scores = lenet_scores()
    plain = dg.allocate(scores, ratio=0.33)
    assert dg.allocate(scores, ratio=0.33, max_layer_ratio=0.9).key == plain.key
    assert dg.allocate(scores, ratio=0.33, layers={}, remove={}, keep={}).key == plain.key
    assert dg.allocate(scores, ratio=0.33, layers={}, remove={}, keep={}).to_json() == plain.to_json()


@pytest.mark.parametrize("budget", get_args(Budget))
@pytest.mark.parametrize("scope", get_args(Scope))
def test_forced_filters_hold_where_the_ratio_is_too_small_or_too_large_for_them(scope: Any, budget: Any) -> None:
    scores = lenet_scores()
    forced: Any = {"remove": {"conv1": [5, 31]}, "keep": {"conv2": range(40)}}
    mask = dg.allocate(scores, ratio=0.0, scope=scope, budget=budget, **forced)
    assert removed(mask, "conv1") == {5, 31} and removed(mask, "conv2") == set()
    assert mask.ratio_requested == 0 and mask.ratio_achieved > 0
    most = dg.allocate(scores, ratio=0.99, scope=scope, budget=budget, **forced)
    assert removed(most, "conv2") == set(range(40, 48)) and len(most.kept("conv1")) == 1
    assert most.ratio_achieved < 0.99, "the filters that are kept by hand are too many"


def residual() -> tuple[dg.FilterGraph, dg.Scores]:
    graph = dg.read_groups(randomise(ResidualNet()), images(2, 3, 12, 12, dtype=torch.float64))
    return graph, dg.Scores("s", {g.name: torch.arange(float(g.filters)) for g in graph.groups}, graph)


def test_coupled_layers_have_one_ratio_and_any_of_their_names() -> None:
    graph, scores = residual()
    assert {"stem", "outer"} <= set(graph["stem"].producers), "the block's branch is added to the stem"
    mask = dg.allocate(scores, ratio=0.4, layers={"outer": 0.0})
    assert mask.layer_ratios == {"stem": 0.0} and len(mask.kept("stem")) == graph["stem"].filters
    with pytest.raises(dg.DgpruneError, match=r"'outer' and 'stem'|'stem' and 'outer'") as raised:
        dg.allocate(scores, ratio=0.4, layers={"stem": 0.2, "outer": 0.0})
    assert "together" in str(raised.value)
    both = dg.allocate(scores, ratio=0.3, layers={"stem": 0.2, "outer": 0.2, "s*": 0.4})
    assert both.layer_ratios["stem"] == 0.2, "a full name goes before a pattern"
    with pytest.raises(dg.DgpruneError, match="removed together"):
        dg.allocate(scores, ratio=0.4, layers={"st*": 0.2, "out*": 0.0})


def test_a_layer_that_cannot_be_pruned_is_named_with_the_reason() -> None:
    _, scores = residual()
    graph = scores.graph
    object.__setattr__(graph, "refused", {"head": "it makes the logits"})
    with pytest.raises(dg.DgpruneError, match="'head' cannot be pruned: it makes the logits"):
        dg.allocate(scores, ratio=0.4, layers={"head": 0.2})


def test_the_mask_says_what_was_set_by_hand_and_survives_a_file() -> None:
    scores = lenet_scores()
    given: dict[str, Any] = {"layers": {"conv2": 0.25}, "remove": {"conv1": [31]}, "keep": {"conv1": [0]}}
    mask = dg.allocate(scores, ratio=0.4, max_layer_ratio=0.8, **given)
    assert mask.scorer == "s, at most 0.8 of a layer, by hand"
    assert mask.forced == {"remove": {"conv1": [31]}, "keep": {"conv1": [0]}}
    table = mask.layers.set_index("layer")
    assert table.removed_by_hand.to_dict() == {"conv1": 1, "conv2": 0}
    assert table.kept_by_hand.to_dict() == {"conv1": 1, "conv2": 0}
    assert table.ratio_requested["conv2"] == 0.25 and math.isnan(table.ratio_requested["conv1"])
    again = dg.Mask.from_json(json.dumps(mask.to_json()), graph=scores.graph)
    assert again.to_json() == mask.to_json() and again.layers.equals(mask.layers)
    older = {k: v for k, v in mask.to_json().items() if k not in ("layer_ratios", "max_layer_ratio", "forced")}
    assert dg.Mask.from_json(older, graph=scores.graph).key == mask.key
    for name, wrong in (
        ("forced", [1]),
        ("layer_ratios", {"conv1": "x"}),
        ("max_layer_ratio", 2),
        ("selection", {"a": 1}),
    ):
        with pytest.raises(dg.DgpruneError, match=f"an invalid {name}"):
            dg.Mask.from_json({**mask.to_json(), name: wrong}, graph=scores.graph)
    plain = dg.allocate(scores, ratio=0.4).layers
    assert plain.ratio_requested.tolist() == [0.4, 0.4] and plain.kept.tolist() == [20, 29]
    assert dg.allocate(scores, ratio=0.4, scope="global").layers.ratio_requested.isna().all()


def test_filters_by_hand_change_the_mask_and_the_ratio_that_it_reports() -> None:
    scores = lenet_scores()
    mask = dg.allocate(scores, ratio=0.5)
    flags = torch.zeros(32, dtype=torch.bool)
    flags[[30, 31]] = True
    edited = mask.with_filters(remove={"conv1": flags}, keep={"conv1": [0], "conv2": np.array([1])}, reads={})
    assert set(edited.kept("conv1")) == (set(mask.kept("conv1")) | {0}) - {30, 31}
    assert set(edited.kept("conv2")) == set(mask.kept("conv2")) | {1}
    assert edited.ratio_requested == 0.5 and edited.ratio_achieved == pytest.approx(40 / 80)
    assert edited.scorer == "s, by hand" and not edited.nested and mask.forced == {}
    back = edited.with_filters(keep={"conv1": [30]})
    assert back.forced == {"remove": {"conv1": [31]}, "keep": {"conv1": [0, 30], "conv2": [1]}}
    assert back.scorer == "s, by hand" and 30 in back.kept("conv1")
    assert mask.with_filters().key == mask.key and mask.with_filters().scorer == "s"
    left = mask.kept("conv1")
    for options, words in (
        ({"remove": {"conv1": left}}, "no filter of layer 'conv1'"),
        ({"remove": {"conv1": [3]}, "keep": {"conv1": [3]}}, "both remove= and keep="),
        ({"remove": {"conv3": [3]}}, "unknown layer 'conv3'"),
        ({"keep": {"conv1": [True]}}, "32 filters; got 1"),
    ):
        with pytest.raises(dg.DgpruneError, match=words):
            mask.with_filters(**options)


@FEW
@given(data=st.data(), scores=plain_scores(), ratio=SHARES)
def test_forced_filters_hold_in_any_mask(data: Any, scores: dg.Scores, ratio: float) -> None:
    given = data.draw(by_hand(scores.graph))
    mask = dg.allocate(scores, ratio=ratio, scope=data.draw(st.sampled_from(get_args(Scope))))
    before = {name: removed(mask, name) for name in scores.graph.names}
    after: dict[str, set[int]] = {}
    for name, gone in before.items():
        out, stay = (set(given[which].get(name, ())) for which in ("remove", "keep"))
        after[name] = (gone | out) - stay
        if out & stay or len(after[name]) == scores.graph[name].filters or len(out) == scores.graph[name].filters:
            with pytest.raises(dg.DgpruneError):
                mask.with_filters(remove=given["remove"], keep=given["keep"])
            return
    edited = mask.with_filters(remove=given["remove"], keep=given["keep"])
    assert {name: removed(edited, name) for name in before} == after


def test_one_of_several_tied_filters_is_not_forced_alone() -> None:
    graph = dg.read_groups(randomise(grouped_net()), images(1, 3, 12, 12, dtype=torch.float64))
    group = next(group for group in graph.groups if group.step > 1)
    tied: Tensor = (group.units == group.units[0]).nonzero().flatten()
    scores = dg.Scores("s", {g.name: torch.arange(float(g.filters)) for g in graph.groups}, graph)
    with pytest.raises(dg.DgpruneError, match=rf"tie the filters of layer '{group.name}'.*\b{tied[1]}\b"):
        dg.allocate(scores, ratio=0.3, remove={group.name: [0]})
    mask = dg.allocate(scores, ratio=0.3, keep={group.name: tied})
    assert set(tied.tolist()) <= set(mask.kept(group.name))


def test_filters_by_hand_are_of_unknown_origin_unless_declared() -> None:
    study = dg.Study(randomise(norm_net(), dtype=torch.float32), sources=[domain("a")], targets=[domain("t", seed=1)])
    scores = study.score("taylor")
    assert dg.allocate(scores, ratio=0.3, layers={"0": 0.1}).reads == scores.reads
    for mask in (
        dg.allocate(scores, ratio=0.3, remove={"0": [0]}),
        dg.allocate(scores, ratio=0.3).with_filters(remove={"0": [0]}),
    ):
        assert mask.reads == {**(scores.reads or {}), "*": "unknown"}
    seen: Any = {"t/report": "labels"}
    for mask in (
        dg.allocate(scores, ratio=0.3, keep={"0": [0]}, reads=seen),
        dg.allocate(scores, ratio=0.3).with_filters(keep={"0": [0]}, reads=seen),
        dg.allocate(scores, ratio=0.3, layers={"0": 0.1}, reads=seen),
    ):
        assert mask.reads == {**(scores.reads or {}), **seen}
        network = dg.prune(study.model, mask)
        assert dg.provenance_of(network).target_aware({"a": "source", "t": "target"}) is True


def test_single_weights_have_no_layers_or_filters_by_hand() -> None:
    scores: Any = dg.WeightScores("w", {"a": torch.rand(3, 4)})
    refused: dict[str, Any] = {
        "layers": {"a": 0.1},
        "max_layer_ratio": 0.9,
        "remove": {"a": [0]},
        "keep": {},
        "reads": {},
    }
    for name, value in refused.items():
        with pytest.raises(dg.DgpruneError, match=name):
            dg.allocate(scores, ratio=0.5, **{name: value})


def test_limits_that_change_at_every_move_do_not_fill_the_memory() -> None:
    scores = lenet_scores()
    for k in range(40):
        dg.allocate(scores, ratio=0.3, layers={"conv2": k / 100})
    assert len(scores.__dict__["_orders"]) <= 8
