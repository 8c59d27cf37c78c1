"""Scorers: the contract over the whole menu, closed forms, gradients by finite differences, and what is refused."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from material import ResidualNet, domain, fingerprint, images, norm_net, plain_net, randomise
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.graph import FilterGraph
from dgprune_lab.scorers import GroupView
from dgprune_lab.scorers.contract import Scorer

MENU = list(dg.SCORERS)
READING = [name for name in MENU if dg.SCORERS[name].reads]


def study_of(model: nn.Module, scorer: str = "", **kinds: Any) -> dg.Study:
    """Two sources of unequal size (40 and 20 to score on) and a target, labelled if the scorer declares its labels."""
    labelled = scorer in MENU and dg.SCORERS[scorer].reads.get("target") == "labels"
    return dg.Study(
        model,
        sources=[domain("a", count=120), domain("b", seed=1)],
        targets=[domain("t", seed=2, labelled=labelled)],
        **kinds,
    )


def norm(seed: int = 0) -> nn.Sequential:
    """Random weights, and a last bias that makes it predict every class of random images."""
    net: Any = randomise(norm_net(), seed=seed, dtype=torch.float32)
    with torch.no_grad():
        net[9].bias.sub_(net(images(200, 3, 12, 12)).mean(0))
    return net


def permuted(model: nn.Module, graph: FilterGraph, order: dict[str, Tensor]) -> nn.Module:
    """The same function with the filters of each group in another order: new filter f is old filter order[f]."""
    twin = norm()
    twin.load_state_dict(model.state_dict())
    tensors = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    with torch.no_grad():
        for group in graph.groups:
            for member in group.members:
                index = torch.arange(tensors[member.tensor].shape[member.axis])
                for new, old in enumerate(order[group.name].tolist()):
                    index[member.positions[member.filters == new]] = member.positions[member.filters == old]
                tensor = tensors[member.tensor]
                tensor.copy_(tensor.index_select(member.axis, index))
    return twin


NOTES = [
    pytest.mark.filterwarnings("ignore:layer '4'. its maps are 1 x 1"),
    pytest.mark.filterwarnings("ignore:connections are correlations over"),
]


def with_notes(test: Any) -> Any:
    """Ignore the notes that these few random images cause."""
    for mark in NOTES:
        test = mark(test)
    return test


@with_notes
@pytest.mark.parametrize("name", MENU)
def test_contract(name: str) -> None:
    scorer, model = dg.SCORERS[name], norm()
    study = study_of(model, name)
    before = fingerprint(model)
    scores, again = study.score(name), study_of(norm(), name).score(name)
    assert fingerprint(model) == before
    for group in study.graph.groups:
        value = scores.values[group.name]
        assert value.shape == (group.filters,) and value.dtype == torch.float64 and torch.isfinite(value).all()
        assert torch.equal(value, again.values[group.name]), "not deterministic"
    assert any(len(value.unique()) > 1 for value in scores.values.values()), "every filter has the same score"
    assert (
        scorer.name == name
        and scorer.cite
        and scorer.label
        and scorer.summary.endswith(".")
        and "removed" in scorer.summary
    )
    assert "Source:" in (scorer.function.__doc__ or "")
    roles = {"source": ("a", "b"), "target": ("t",)}
    assert scores.reads == {f"{key}/score": what for role, what in scorer.reads.items() for key in roles[role]}


def test_each_scorer_is_in_its_menu_group() -> None:
    kinds: dict[str, list[str]] = {}
    for name, scorer in dg.SCORERS.items():
        kinds.setdefault(scorer.kind, []).append(name)
        assert ("target" in scorer.reads) == (scorer.kind == "target")
    assert kinds["control"] == ["random", "reverse(l1)"] and kinds["target"] == ["dss", "sensitivity"]
    assert {"l1", "expected_activation"} <= set(kinds["weights"]) and {"taylor", "dss_sources"} <= set(kinds["source"])


@with_notes
@pytest.mark.parametrize("name", [name for name in MENU if not dg.SCORERS[name].draws])
def test_permuting_the_filters_permutes_the_scores(name: str) -> None:
    model = norm()
    study = study_of(model, name)
    order = {
        g.name: torch.randperm(g.filters, generator=torch.Generator().manual_seed(g.depth)) for g in study.graph.groups
    }
    other = permuted(model, study.graph, order)
    x = images(2, 3, 12, 12)
    assert torch.allclose(model(x), other(x), atol=1e-4), "the permutation is not one of the function"
    mine, theirs = study.score(name), study_of(other, name).score(name)
    for key, perm in order.items():
        scale = float(mine.values[key].abs().max())
        assert torch.allclose(mine.values[key][perm], theirs.values[key], atol=1e-4 * scale, rtol=1e-4)


def test_random_depends_only_on_seed_and_layer() -> None:
    study, state = study_of(norm()), torch.get_rng_state()
    first, second = study.score("random"), study.score("random", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.options == {"seed": 0} and second.options == {"seed": 1}
    assert all(not torch.equal(first.values[n], second.values[n]) for n in first.values)
    assert not torch.equal(first.values["0"][:6], first.values["4"][:6])
    other = study_of(norm(seed=5)).score("random")
    assert all(torch.equal(first.values[n], other.values[n]) for n in first.values)


class Tripwire(nn.Module):
    """Passes its input, and raises on a chosen call once armed."""

    def forward(self, x: Tensor) -> Tensor:
        if CALLS_LEFT:
            CALLS_LEFT[0] -= 1
            if CALLS_LEFT[0] < 0:
                raise RuntimeError("tripped")
        return x


CALLS_LEFT: list[int] = []
"""How many more calls pass, if armed; no attribute of the layer, whose change a study would notice."""


@with_notes
@pytest.mark.parametrize("name", READING)
def test_no_hook_is_left_when_the_model_raises(name: str) -> None:
    model = nn.Sequential(*list(norm())[:7], Tripwire(), *list(norm())[7:])
    study = study_of(model, name)
    before = fingerprint(model)
    CALLS_LEFT.append(1)
    try:
        with pytest.raises(RuntimeError, match="tripped"):
            study.score(name)
    finally:
        CALLS_LEFT.clear()
    assert fingerprint(model) == before
    expected = study_of(nn.Sequential(*list(norm())[:7], nn.Identity(), *list(norm())[7:]), name).score(name)
    got = study.score(name)
    assert all(torch.equal(got.values[key], expected.values[key]) for key in got.values)


def test_closed_forms_of_weights() -> None:
    net: Any = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1)).eval()
    with torch.no_grad():
        net.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
        net[0].weight.copy_(torch.tensor([3.0, -4.0, 0.0]).view(3, 1, 1, 1))
        net[1].weight.copy_(torch.tensor([0.5, -2.0, 1.0]))
    study = dg.Study(net, sources=[domain("a", shape=(1, 4, 4), classes=2)])
    values = {name: study.score(name).values["0"].tolist() for name in ("l1", "l2", "bn_scale", "fpgm", "lamp")}
    assert values["l1"] == [3, 4, 0] and values["l2"] == [3, 4, 0] and values["bn_scale"] == [0.5, 2, 1]
    assert values["fpgm"] == pytest.approx([10, 11, 7])
    assert values["lamp"] == pytest.approx([9 / 25, 1, 0])
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([3.0, -4.0, -3.0]).view(3, 1, 1, 1))
    assert study.score("lamp").values["0"].tolist() == pytest.approx([9 / 34, 1, 9 / 34]), "equal filters get one score"


def test_a_coupled_group_sums_over_its_producers_before_the_root() -> None:
    model = randomise(ResidualNet(), dtype=torch.float32)
    study = study_of(model)
    rows = torch.cat([model.stem.weight.flatten(1), model.outer.weight.flatten(1)], 1).double()  # type: ignore[union-attr, operator]
    assert torch.allclose(study.score("l1").values["stem"], rows.abs().sum(1))
    assert torch.allclose(study.score("l2").values["stem"], rows.square().sum(1).sqrt())
    gammas = model.stem_norm.weight.abs() + model.outer_norm.weight.abs()  # type: ignore[union-attr, operator]
    assert torch.allclose(study.score("bn_scale").values["stem"], gammas.double())


class Scale(nn.Module):
    """A factor per channel with a name and axes like those of a convolution's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Halves(nn.Module):
    """The sum of the first and the second half of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return sum(x.chunk(2, 1))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "behind",
    [
        nn.Sequential(nn.PReLU(8), nn.Conv2d(8, 4, 1)),
        nn.Sequential(nn.GroupNorm(8, 8), nn.Conv2d(8, 4, 1)),
        nn.Sequential(nn.InstanceNorm2d(8, affine=True), nn.Conv2d(8, 4, 1)),
        nn.Sequential(Scale(), nn.Conv2d(8, 4, 1)),
        nn.Sequential(nn.BatchNorm2d(8), Halves(), nn.Conv2d(4, 4, 1)),
    ],
    ids=lambda net: type(net[-2]).__name__,
)
def test_weights_of_a_filter_are_those_of_its_convolution(behind: nn.Sequential) -> None:
    """Neither scales of normalisation nor slopes count, and each of two channels that are added has its own."""
    first = nn.Conv2d(3, 8, 3)
    net = nn.Sequential(first, *behind, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    study = study_of(randomise(net, dtype=torch.float32))
    rows = first.weight.detach().double().flatten(1)
    assert torch.allclose(study.score("l1").values["0"], rows.abs().sum(1))
    both = [study.statistics(name, needs=["weight_gradient"]).weight_gradient["0.weight"] for name in "ab"]
    products = (rows * (both[0] + both[1]).flatten(1) / 2).abs().sum(1)
    assert torch.allclose(study.score("taylor_weight").values["0"], products)


def test_closed_forms_of_activations() -> None:
    """One 1 x 1 filter after ReLU: y = max(0, w x + b) by hand; two sources count the same whatever their size."""
    net: Any = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
        net[0].bias.copy_(torch.tensor([-0.5, 1.0]))
    few, many = domain("few", shape=(1, 4, 4), classes=2), domain("many", count=600, shape=(1, 4, 4), classes=2, seed=4)
    study = dg.Study(net, sources=[few, many])
    expected_mean, expected_alive = torch.zeros(2).double(), torch.zeros(2).double()
    for source in (few, many):
        x = source.images[source.rows("score")].double()
        y = torch.cat([(x - 0.5).clamp_min(0), (1 - 2 * x).clamp_min(0)], 1)
        expected_mean += y.mean((0, 2, 3)) / 2
        expected_alive += (y > 0).double().mean((0, 2, 3)) / 2
    assert torch.allclose(study.score("activation_l1").values["0"], expected_mean, atol=1e-6)
    assert torch.allclose(study.score("apoz").values["0"], expected_alive, atol=1e-6)


def test_taylor_is_the_mean_over_sources_before_the_absolute_value() -> None:
    study = study_of(norm())
    gates = [study.statistics(name, needs=["gate"]).gate for name in ("a", "b")]
    got = study.score("taylor").values
    assert all(torch.allclose(got[key], ((gates[0][key] + gates[1][key]) / 2).abs()) for key in got)


def made(function: Callable[..., Any], **declared: Any) -> Scorer:
    function.__doc__ = "A scorer of a test. Source: none."
    return dg.scorer("mine", **declared)(function)


@pytest.mark.parametrize(
    ("function", "declared", "words"),
    [
        (
            lambda view: view.weight.sum(1),
            {"needs": ()},
            r"'mine' reads 'weights' but declares nothing; add it to needs",
        ),
        (
            lambda view: view.scale.sum(1),
            {"needs": ("moments",), "reads": {"source": "images"}},
            r"reads 'weights' but",
        ),
        (lambda view: view.model, {}, r"reads 'model' but declares 'weights'"),
        (lambda view: view.moments("a").mean, {}, r"reads 'moments' but declares 'weights'"),
        (
            lambda view: view.moments("t").mean,
            {"needs": ("moments",), "reads": {"source": "images"}},
            r"images of the target 't'",
        ),
        (lambda view: view.gate("a"), {"needs": ("gate",), "reads": {"source": "images"}}, r"labels of the source 'a'"),
        (
            lambda view: view.mean_map("x"),
            {"needs": ("mean_map",), "reads": {"source": "images"}},
            r"unknown domain 'x'",
        ),
        (lambda view: view.weight, {}, r"one number per filter: layer '0' has 6 filters, it gave shape \(6, 27\)"),
        (lambda view: view.weight.sum(1) / 0 * 0, {}, r"NaN or infinite scores in layer '0', filters \[0, 1, 2"),
        (lambda view: ["a"] * view.filters, {}, r"must return a tensor.*'0' it gave list"),
        (
            lambda views: {"0": torch.zeros(6)},
            {"level": "network"},
            r"must return a dict with one entry per layer: 0, 4",
        ),
        (lambda views: torch.zeros(6), {"level": "network"}, r"must return a dict with one entry per layer: 0, 4"),
    ],
)
def test_a_breach_of_the_contract_is_refused(
    function: Callable[..., Any], declared: dict[str, Any], words: str
) -> None:
    with pytest.raises(dg.DgpruneError, match=words):
        study_of(norm()).score(made(function, **declared))


def test_a_scorer_cannot_change_what_others_read() -> None:
    def vandal(view: GroupView) -> Tensor:
        for tensor in (view.mean_map("a"), view.moments("a").mean_abs, view.weight):
            tensor.zero_()
        return view.gate("a").zero_() + torch.rand(view.filters)

    study, fresh = study_of(norm()), study_of(norm())
    study.score(made(vandal, needs=("weights", "mean_map", "moments", "gate"), reads={"source": "labels"}))
    for name in ("l1", "activation_l1", "taylor"):
        mine, theirs = study.score(name).values, fresh.score(name).values
        assert all(torch.equal(mine[key], theirs[key]) for key in mine), name


@dg.scorer("at_top")
def at_top(view: GroupView, *, seed: int = 0) -> Tensor:
    """Mean weight."""
    return view.weight.mean(1)


def test_scorers_are_pickled_and_hashed() -> None:
    for scorer in (*dg.SCORERS.values(), at_top):
        if not scorer.name.startswith("reverse"):  # holds a function within a function
            assert pickle.loads(pickle.dumps(scorer)) is scorer
    used = dg.SCORERS["dss"].using(site="conv_output")
    again = pickle.loads(pickle.dumps(used))
    assert (again.name, again.preset, again.code, again.base) == (used.name, used.preset, used.code, used.base)
    assert hash(again) == hash(used) != hash(dg.SCORERS["dss"])
    assert len(set(dg.SCORERS.values())) == len(dg.SCORERS)
    bare = dg.scorer("bare")(_bare)
    assert pickle.loads(pickle.dumps(bare)) == bare


def _bare(view: GroupView) -> Tensor:
    """Mean weight."""
    return view.weight.mean(1)


def test_scorers_are_taken_by_name_or_as_objects() -> None:
    study = study_of(norm())
    mine = made(lambda view, *, power=1.0: view.weight.abs().pow(power).sum(1))
    assert torch.allclose(study.score(mine).values["0"], study.score("l1").values["0"])
    squared = study.score(mine, options={"power": 2.0})
    assert squared.options == {"power": 2.0} and torch.allclose(squared.values["0"], study.score("l2").values["0"] ** 2)
    with pytest.raises(dg.DgpruneError, match=r"unknown scorer 'tailor'; known: l1, .*Did you mean 'taylor'\?"):
        study.score("tailor")
    with pytest.raises(dg.DgpruneError, match=r"'mine' has no option 'p'; it takes: power"):
        study.score(mine, options={"p": 2})
    with pytest.raises(dg.DgpruneError, match=r"a scorer \(a name, a Scorer or Scores\).*Decorate the function"):
        study.score(lambda view: view.weight.sum(1))  # type: ignore[arg-type]
    with pytest.raises(dg.DgpruneError, match=r"needs a docstring"):
        dg.scorer("bare")(lambda view: view.weight.sum(1))
    with pytest.raises(dg.DgpruneError, match=r"needs must be .*got 'weight'.*Did you mean 'weights'"):
        dg.scorer("bad", needs=("weight",))(made(lambda view: view).function)  # type: ignore[arg-type]
    with pytest.raises(dg.DgpruneError, match=r"not followed by a BatchNorm"):
        study_of(randomise(plain_net(), dtype=torch.float32)).score("bn_scale")
    redefined = made(lambda view, *, power=1.0: -view.weight.abs().pow(power).sum(1))
    assert torch.allclose(study.score(redefined).values["0"], -study.score(mine).values["0"]), (
        "a scorer that is defined again replaces the old one"
    )


@pytest.mark.parametrize("draws", [True, False])
def test_a_scorer_that_draws_from_the_global_generators_is_repeatable_and_leaves_them(draws: bool) -> None:
    def drawn(view: Any, *, seed: int = 0) -> torch.Tensor:
        """Random numbers of the global generators."""
        return torch.rand(view.filters) + torch.from_numpy(np.random.rand(view.filters)) + random.random()

    scorer = dg.scorer("drawn", draws=draws)(drawn)
    values: list[Any] = []
    seeds: tuple[dict[str, Any], ...] = ({"seed": 0}, {"seed": 1}) if draws else ({},)
    net = randomise(norm_net(), dtype=torch.float32)
    for state in (1, 2):
        torch.manual_seed(state)
        np.random.seed(state)
        random.seed(state)
        study = dg.Study(net, sources=[domain("a")])
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
        values.append([study.score(scorer, **options).values for options in seeds])
        after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
        assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    for first, second in zip(*values, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)
    if draws:
        assert not torch.equal(values[0][0]["0"], values[0][1]["0"])
