"""Masks: a file and back, two rounds in one, by hand, single weights, and the wrong network."""

from __future__ import annotations

import itertools
import json
import threading

import pytest
import torch
from material import ResidualNet, domain, grouped_net, images, norm_net, plain_net, random_mask, randomise
from torch import nn

import dgprune_lab as dg
from dgprune_lab.core.graph import FilterGraph
from dgprune_lab.core.masks import Mask
from dgprune_lab.core.scores import Scores
from dgprune_lab.pruning.surgery import zeroed


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
    with pytest.raises(dg.DgpruneError, match=r"second mask does not fit layer"):
        first.then(first)


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


def test_scores_from_a_table_and_back() -> None:
    _, graph = real()
    scores = drawn(graph, 3)
    again = Scores.from_frame(scores.to_frame().sample(frac=1, random_state=0), graph=graph)
    assert all(torch.equal(again.values[n], scores.values[n]) for n in graph.names) and again.reads is None
    with pytest.raises(dg.DgpruneError, match=r"NaN or infinite scores in layer"):
        Scores.from_frame(scores.to_frame().iloc[1:], graph=graph)
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
