"""Reversed and hybrid scorers, other defaults, the expected activation after BatchNorm, and what scorers read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from material import DepthwiseNet, ResidualNet, domain, norm_net, plain_net, randomise
from scipy import integrate, stats
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.measurement.statistics import gathering
from dgprune_lab.models.networks import build
from dgprune_lab.scorers import GroupView


def study_of(model: nn.Module | None = None, **given: Any) -> dg.Study:
    kinds: dict[str, Any] = {"sources": [domain("a"), domain("b", seed=1)], "targets": [domain("t", seed=2)]}
    net = randomise(plain_net(), seed=4, dtype=torch.float32) if model is None else model
    return dg.Study(net, **{**kinds, **given})


def equal(first: dg.Scores, second: dict[str, Tensor]) -> bool:
    return all(torch.allclose(first.values[key], second[key]) for key in second)


class TestReverse:
    @pytest.mark.parametrize("name", ["l1", "taylor", "gradient_agreement", "dss", "random"])
    def test_it_changes_the_sign_and_keeps_the_rest(self, name: str) -> None:
        study, turned = study_of(), dg.reverse(name)
        straight, back = study.score(name), study.score(turned)
        assert equal(back, {key: -value for key, value in straight.values.items()})
        assert back.reads == straight.reads and back.scorer == f"reverse({name})" and back.options == straight.options
        assert equal(study.score(dg.reverse(turned)), dict(straight.values))

    def test_its_kind_and_its_target_free_form(self) -> None:
        assert dg.reverse("l1").kind == "control" and dg.reverse("taylor").kind == "control"
        aware = dg.reverse("dss")
        assert aware.kind == "target" and isinstance(aware.instead, dg.Scorer)
        assert aware.instead.name == "reverse(dss_sources)"

    def test_options_are_passed_on_and_unknown_ones_are_named(self) -> None:
        study = study_of()
        given = study.score(dg.reverse("dss"), options={"site": "conv_output"})
        assert equal(given, {k: -v for k, v in study.score("dss", options={"site": "conv_output"}).values.items()})
        with pytest.raises(dg.DgpruneError, match=r"scorer 'reverse\(dss\)' has no option 'place'"):
            study.score(dg.reverse("dss"), options={"place": "conv"})


class TestHybrid:
    def test_by_depth_each_layer_is_ordered_by_its_scorer(self) -> None:
        study = study_of()
        l1, taylor = study.score("l1").values, study.score("taylor").values
        scores = study.score(dg.hybrid("l1", "taylor", by="depth")).values
        assert torch.equal(scores["0"].argsort(), l1["0"].argsort())
        assert torch.equal(scores["3"].argsort(), taylor["3"].argsort())
        for start, layers in ((0, ("taylor", "taylor")), (2, ("l1", "l1"))):
            scores = study.score(dg.hybrid("l1", "taylor", by="depth", start=start)).values
            for key, one in zip(("0", "3"), layers, strict=True):
                assert torch.equal(scores[key].argsort(), study.score(one).values[key].argsort())

    def test_by_depth_the_middle_one_of_three_layers_is_a_later_one(self) -> None:
        layers = [layer for width in (3, 4, 4) for layer in (nn.Conv2d(width, 4, 3), nn.ReLU())]
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
        study = study_of(randomise(net, dtype=torch.float32))
        scores = study.score(dg.hybrid("l1", dg.reverse("l1"), by="depth")).values
        assert torch.equal(scores["2"].argsort(), (-study.score("l1").values["2"]).argsort())

    def test_by_rank_it_is_the_mean_rank_over_the_network(self) -> None:
        study = study_of()
        parts = [torch.cat(list(study.score(name).values.values())) for name in ("l1", "taylor")]
        ranks = [torch.from_numpy(stats.rankdata(part.numpy()) - 1) / (len(part) - 1) for part in parts]
        scores = torch.cat(list(study.score(dg.hybrid("l1", "taylor", by="rank")).values.values()))
        assert torch.allclose(scores, (ranks[0] + ranks[1]) / 2) and scores.min() >= 0 and scores.max() <= 1

    def test_it_reads_what_either_scorer_reads(self) -> None:
        mixed = dg.hybrid("dss", "taylor", by="rank")
        assert mixed.reads == {"source": "labels", "target": "images"} and mixed.kind == "target"
        assert isinstance(mixed.instead, dg.Scorer) and mixed.instead.name == "hybrid(dss_sources, taylor, by rank)"
        scores = study_of().score(mixed)
        assert scores.reads == {"a/score": "labels", "b/score": "labels", "t/score": "images"}
        assert dg.hybrid("l1", "l2", by="rank").kind == "weights"

    def test_a_draw_takes_the_seed(self) -> None:
        study, random = study_of(), dg.hybrid("l1", "random", by="rank")
        assert random.draws and not torch.equal(
            study.score(random, seed=1).values["0"], study.score(random, seed=2).values["0"]
        )

    def test_the_part_that_cannot_run_is_named(self) -> None:
        study = study_of(sources=[domain("a")])
        why = study.unavailable(dg.hybrid("l1", "risk_variance", by="rank"))
        assert why == "risk_variance: it compares at least two sources, and there is one."

    @pytest.mark.parametrize("given", [{"by": "layer"}, {"by": "depth", "start": -1}, {"by": "rank", "start": 1}])
    def test_invalid_options_are_refused(self, given: Any) -> None:
        with pytest.raises(dg.DgpruneError, match=r"by must be one of|start is the number of a layer"):
            dg.hybrid("l1", "l2", **given)

    def test_nested_and_reversed(self) -> None:
        study = study_of()
        inner = dg.hybrid(dg.reverse("l1"), dg.SCORERS["dss"].using(site="conv_output"), by="depth")
        scores = study.score(dg.hybrid(inner, "taylor", by="rank"))
        assert "reverse(l1)" in scores.scorer and "dss[site=conv_output]" in scores.scorer


def test_using_changes_defaults_and_the_name() -> None:
    study, joint = study_of(), dg.SCORERS["risk_variance"].using(mode="joint", beta=3.0)
    assert joint.name == "risk_variance[mode=joint, beta=3.0]" and joint.summary == dg.SCORERS["risk_variance"].summary
    options = {"mode": "joint", "beta": 3.0}
    scores = study.score(joint)
    assert equal(scores, dict(study.score("risk_variance", options=options).values)) and scores.options == options
    assert study.score(joint, options={"beta": 1.0}).options == {"mode": "joint", "beta": 1.0}
    with pytest.raises(dg.DgpruneError, match="scorer 'l1' has no option 'mode'; it takes: none"):
        dg.SCORERS["l1"].using(mode="joint")


class TestExpectedActivation:
    def net(self) -> Any:
        return randomise(norm_net(), dtype=torch.float32)

    @pytest.mark.parametrize(
        ("gamma", "beta", "value"), [(1, 0, 0.3989), (0.5, -0.7, 0.0183), (-0.8, 0.3, 0.4913), (2, 1.5, 1.7623)]
    )
    def test_check_values(self, gamma: float, beta: float, value: float) -> None:
        net = self.net()
        with torch.no_grad():
            net[1].weight[0], net[1].bias[0] = gamma, beta
        scores = float(study_of(net).score("expected_activation").values["0"][0])
        assert scores == pytest.approx(value, abs=5e-5)
        integral, _ = integrate.quad(lambda z: max(0.0, gamma * z + beta) * stats.norm.pdf(z), -12, 12, limit=200)
        assert scores == pytest.approx(integral, abs=1e-6)

    def test_with_zero_scale_it_is_the_positive_part_of_the_shift(self) -> None:
        net = self.net()
        with torch.no_grad():
            net[1].weight[:2], net[1].bias[0], net[1].bias[1] = 0, 0.25, -0.25
        assert study_of(net).score("expected_activation").values["0"][:2].tolist() == [0.25, 0.0]

    def test_a_depthwise_convolution_uses_its_own_batchnorm(self) -> None:
        net: Any = randomise(DepthwiseNet(), dtype=torch.float32)
        study = study_of(net)
        before = study.score("expected_activation").values["expand"]
        with torch.no_grad():
            net.expand_norm.weight.mul_(3)
        assert torch.equal(study.score("expected_activation").values["expand"], before)

    def test_two_branches_that_are_added_behind_their_relu_add_up(self) -> None:
        class Branches(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = (nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU()) for _ in range(2))
                self.head = nn.Linear(5, 4)

            def forward(self, x: Tensor) -> Tensor:
                return self.head((self.a(x) + self.b(x)).mean((2, 3)))

        net = randomise(Branches(), dtype=torch.float32)
        with torch.no_grad():
            for branch, gamma, beta in ((net.a, 1.0, 0.0), (net.b, -0.8, 0.3)):
                branch.get_parameter("1.weight")[2], branch.get_parameter("1.bias")[2] = gamma, beta
        score = study_of(net).score("expected_activation").values["a.0"][2]
        assert float(score) == pytest.approx(0.3989 + 0.4913, abs=1e-4)

    def test_activations_other_than_relu_are_refused(self) -> None:
        class Functional(nn.Module):
            """ReLU as a function behind the first norm, something else behind the second."""

            def __init__(self, second: Any) -> None:
                super().__init__()
                self.body, self.second = norm_net(), second

            def forward(self, x: Tensor) -> Tensor:
                b = self.body
                x = b[3](torch.relu_(b[1](b[0](x))))
                return b[9](b[8](b[7](self.second(b[5](b[4](x))))))

        good = study_of(randomise(Functional(torch.relu), dtype=torch.float32))
        assert good.unavailable(dg.SCORERS["expected_activation"]) is None
        for follower in (nn.functional.relu6, nn.functional.silu, torch.sigmoid, lambda y: torch.relu(y) + y):
            study = study_of(randomise(Functional(follower), dtype=torch.float32))
            with pytest.raises(dg.DgpruneError, match=r"no ReLU directly follows the BatchNorm of layer 'body\.4'"):
                study.score("expected_activation")
        residual = study_of(randomise(ResidualNet(), dtype=torch.float32))
        assert "no ReLU directly follows" in (residual.unavailable(dg.SCORERS["expected_activation"]) or "")
        assert "not followed by a BatchNorm" in (study_of().unavailable(dg.SCORERS["expected_activation"]) or "")


READS: dict[str, Any] = {
    "maps": lambda v: v.maps("t"),
    "conv maps": lambda v: v.maps("t", site="conv_output"),
    "activation maps": lambda v: v.maps("t", site="activation"),
    "unit maps": lambda v: v.maps("t", unit=True),
    "classes": lambda v: v.class_map("t"),
    "moments": lambda v: v.moments("t"),
    "paired": lambda v: v.paired_cosine("a", "t"),
    "gate": lambda v: v.gate("t"),
    "risk": lambda v: v.risk("t"),
    "removal": lambda v: v.removal("t"),
    "counts": lambda v: v.class_counts("t"),
    "co": lambda v: v.co_moments("t", layer=v.consumers[-1], by_class=False),
}
NEEDS: Any = (
    "activation_map",
    "activation_unit_map",
    "mean_map",
    "conv_map",
    "unit_map",
    "class_map",
    "moments",
    "paired",
    "gate",
    "risk",
    "removal",
    "co_moments",
)


def test_a_part_of_a_hybrid_sees_only_what_it_declares_itself() -> None:
    @dg.scorer("sly", needs=("mean_map",), reads={"source": "images"})
    def sly(view: GroupView) -> Tensor:
        """Reads the target that the other part of the hybrid has declared."""
        assert view.targets == () and view.sources == ("a", "b")
        return view.mean_map("t").flatten(1).sum(1)

    for by in ("depth", "rank"):
        with pytest.raises(dg.DgpruneError, match="'sly' reads images of the target 't' but does not declare it"):
            study_of().score(dg.hybrid(sly, "dss", by=by))


@pytest.mark.parametrize("other", ["taylor", "gc_net"])
@pytest.mark.filterwarnings("ignore:connections are correlations over")
def test_a_hybrid_reads_no_target_label_if_only_target_images_are_declared(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def watched(*given: Any, **kinds: Any) -> Any:
        scores = yield from gathering(*given, **kinds)
        seen[scores.domain] = scores.labels_read
        return scores

    monkeypatch.setattr("dgprune_lab.study.scorer_inputs.gathering", watched)
    made = dg.hybrid("dss", other, by="rank")
    sources = [domain("a", count=120), domain("b", count=120, seed=1)]
    bare = study_of(sources=sources, targets=[domain("t", seed=2, labelled=False)])
    labelled = study_of(sources=sources)
    assert bare.unavailable(made) is None
    assert equal(bare.score(made), dict(labelled.score(made).values))
    assert bare.score(made).reads == {"a/score": "labels", "b/score": "labels", "t/score": "images"}
    assert seen == {"a": True, "b": True, "t": False}


class TestDeclaredReads:
    """Every read of the view is declared, or raises."""

    @pytest.mark.parametrize("name", READS)
    def test_a_target_that_was_not_declared(self, name: str) -> None:
        @dg.scorer("sly", needs=NEEDS, reads={"source": "labels"}, gathers=lambda: ())
        def sly(view: GroupView) -> Tensor:
            """Reads more than it says."""
            READS[name](view)
            return torch.zeros(view.filters)

        with pytest.raises(dg.DgpruneError, match=r"reads (images|labels) of the target 't' but does not declare it"):
            study_of().score(sly)

    @pytest.mark.parametrize("name", ["gate", "risk", "removal", "counts"])
    def test_labels_where_images_were_declared(self, name: str) -> None:
        @dg.scorer("sly", needs=NEEDS, reads={"source": "images", "target": "images"}, gathers=lambda: ())
        def sly(view: GroupView) -> Tensor:
            """Reads labels."""
            READS[name](view)
            return torch.zeros(view.filters)

        with pytest.raises(dg.DgpruneError, match="reads labels of the target 't' but does not declare it"):
            study_of().score(sly)

    def test_a_need_that_was_not_declared(self) -> None:
        @dg.scorer("sly", needs=("moments",), reads={"source": "images"})
        def sly(view: GroupView) -> Tensor:
            """Reads a shifted copy."""
            return view.maps("a", shift="noise")[0].flatten(1).sum(1)

        with pytest.raises(dg.DgpruneError, match="reads 'mean_map' but declares 'moments'"):
            study_of().score(sly)

    def test_reads_list_what_was_read_not_what_was_declared(self) -> None:
        @dg.scorer("modest", needs=("moments",), reads={"source": "labels", "target": "labels"})
        def modest(view: GroupView) -> Tensor:
            """Reads images of one source."""
            return view.moments("b").mean_abs

        assert study_of().score(modest).reads == {"b/score": "images"}


def test_a_pruned_shipped_network_is_saved_and_loaded_by_its_builder(tmp_path: Any) -> None:
    study = dg.demo()
    small = study.network(dg.allocate(study.score("l1"), ratio=0.5))
    again = dg.load(dg.save(small, tmp_path / "small"))
    x = study.sources[0].take(torch.arange(4)).images
    assert torch.equal(again(x), small.eval()(x)) and dg.provenance_of(again) == dg.provenance_of(small)


def test_the_training_seed_is_known_only_for_shipped_networks() -> None:
    from dgprune_lab.models.checkpoints import shipped

    net = shipped("lenet_two_sources_2")
    sources = [dg.data.load("mnist"), dg.data.load("uci_digits")]
    study = dg.Study(net, sources=sources)
    assert study.training_seed == 2
    assert dg.Study(study.network(dg.allocate(study.score("l1"), ratio=0.5)), sources=sources).training_seed == 2
    for untrained in (dg.models.networks.lenet(), build("lenet", seed=3)):
        assert dg.Study(untrained, sources=sources).training_seed is None
    assert study_of().training_seed is None


def test_what_a_scorer_declares_to_read_cannot_be_changed() -> None:
    for scorer in (dg.SCORERS["dss"], dg.SCORERS["dss"].using(site="conv_output"), dg.reverse("dss")):
        for mapping in (scorer.reads, scorer.preset):
            with pytest.raises(TypeError):
                mapping["target"] = "images"  # type: ignore[index]
        assert scorer.kind == "target" and scorer.reads == {"source": "images", "target": "images"}


def test_using_twice_starts_from_the_original_scorer() -> None:
    plain = dg.SCORERS["risk_variance"]
    twice = plain.using(mode="joint").using(beta=3.0)
    assert twice.name == "risk_variance[mode=joint, beta=3.0]" and twice.preset == {"mode": "joint", "beta": 3.0}
    assert twice.using(mode="additive").name == "risk_variance[beta=3.0]"
    assert twice.using(mode="additive", beta=1.0) is plain


def test_a_scorer_alongside_that_lacks_labels_is_left_out() -> None:
    sources = [domain("a"), domain("b", seed=1)]
    study = study_of(sources=sources, targets=[domain("t", seed=2, labelled=False)])

    @dg.scorer("worst", needs=("gate",), reads={"source": "labels", "target": "labels"})
    def worst(view: GroupView) -> Tensor:
        """The largest gate gradient of any domain. Source: ours."""
        return torch.stack([view.gate(name).abs() for name in (*view.sources, *view.targets)]).amax(0)

    together = study.score_all(["dss"], alongside=[worst])[0]
    alone = study_of(sources=sources, targets=study.targets).score("dss")
    assert all(torch.equal(together.values[name], alone.values[name]) for name in alone.values)
    assert together.reads == {"a/score": "images", "b/score": "images", "t/score": "images"}


def test_statistics_gathered_alongside_serve_the_next_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of()
    study.score_all(["activation_l1"], alongside=list(dg.SCORERS.values()))
    monkeypatch.setattr("dgprune_lab.study.scorer_inputs.gathering", None)
    study.score_all(["taylor", "risk_variance", "dss_sources"])
    with pytest.raises(TypeError):
        study.score("dss")  # no target was read before it was asked for
