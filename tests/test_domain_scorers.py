"""The domain similarity score and its target-free form: closed forms, planted truth, slow twins, what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from material import ResidualNet, domain, images, norm_net, plain_net, randomise
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.domain import Domain
from dgprune_lab.scorers.domains import cosine


def study_of(model: nn.Module | None = None, **options: Any) -> dg.Study:
    defaults: dict[str, Any] = {
        "sources": [domain("a", count=120), domain("b", seed=1)],
        "targets": [domain("t", seed=2, labelled=False)],
    }
    net = randomise(plain_net(), seed=4, dtype=torch.float32) if model is None else model
    return dg.Study(net, **{**defaults, **options})


def outputs(study: dg.Study, name: str, *, site: str = "activation") -> dict[str, Tensor]:
    """The slow twin: every map of the first group on all images, (N, C, places), float64; plain_net only."""
    part = study.domain(name)
    x = part.take(part.rows("score")).images
    net: Any = study.model
    with torch.no_grad():
        first = net[0](x)
        second = net[3](net[2](net[1](first.clone())))
        active = {"0": torch.relu(first), "3": torch.relu(second)}
        read = {"0": net[2](active["0"]), "3": net[5](active["3"])}
        sites = {"conv_output": {"0": first, "3": second}, "activation": active, "consumer_input": read}
    return {key: t.flatten(2).double() for key, t in sites[site].items()}


def same(scores: dg.Scores, expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        assert torch.allclose(scores.values[name], value, atol=1e-5), name


def test_cosine() -> None:
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    b = torch.tensor([[4.0, 3.0], [0.0, 5.0], [1.0, 1.0], [-2.0, -4.0]], dtype=torch.float64)
    assert torch.allclose(cosine(a, b), torch.tensor([0.96, 0.0, 0.0, -1.0], dtype=torch.float64))


@cache
def shared_study() -> dg.Study:
    """One study for all forms: none is taken for another that is kept."""
    return study_of()


@pytest.mark.parametrize("site", ["activation", "consumer_input", "conv_output"])
@pytest.mark.parametrize("pairing", ["means", "all_pairs", "paired"])
def test_each_form_equals_its_slow_twin(site: Any, pairing: str) -> None:
    study = shared_study()
    expected: dict[str, list[Tensor]] = {"0": [], "3": []}
    for source in ("a", "b"):
        s, t = (outputs(study, name, site=site) for name in (source, "t"))
        for key in expected:
            if pairing == "means":
                value = cosine(s[key].mean(0), t[key].mean(0))
            else:
                unit = [m / m.norm(dim=2, keepdim=True).clamp_min(1e-30) for m in (s[key], t[key])]
                count = min(map(len, unit))
                paired = (unit[0][:count] * unit[1][:count]).sum(2).mean(0)
                every = torch.einsum("icp,jcp->ijc", *unit).mean((0, 1))
                value = paired if pairing == "paired" else every
            expected[key].append(value)
    scores = study.score("dss", options={"site": site, "pairing": pairing})
    same(scores, {key: torch.stack(parts).mean(0) for key, parts in expected.items()})
    assert scores.reads == {"a/score": "images", "b/score": "images", "t/score": "images"}


def test_conv_output_of_a_residual_stream_is_the_mean_over_its_producers() -> None:
    study = study_of(randomise(ResidualNet(), seed=3, dtype=torch.float32), sources=[domain("a")])
    outputs: dict[str, list[Tensor]] = {}
    for name in ("stem", "outer"):
        layer: Any = study.model.get_submodule(name)
        layer.register_forward_hook(lambda _m, _i, y, name=name: outputs.setdefault(name, []).append(y.double()))
    for name in ("a", "t"):
        part = study.domain(name)
        with torch.no_grad():
            study.model(part.take(part.rows("score")).images)
    for name in outputs:
        study.model.get_submodule(name)._forward_hooks.clear()
    parts = [cosine(s.mean(0), t.mean(0)) for s, t in outputs.values()]
    same(study.score("dss", options={"site": "conv_output", "flat": "refuse"}), {"stem": torch.stack(parts).mean(0)})


def test_identical_domains_score_one_and_a_filter_negated_on_the_target_ranks_last() -> None:
    """Inverted images negate the map of the one filter without a bias; the others' maps are nearly constant."""

    class Planted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.next, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Linear(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.next(self.conv(x - 0.5)).mean((2, 3)))

    bright, net = domain("a"), randomise(Planted(), dtype=torch.float32)
    with torch.no_grad():
        net.conv.bias.copy_(torch.tensor([1e4, 0, 1e4, 1e4]))  # type: ignore[union-attr]
    options = {"flat": "refuse", "site": "conv_output"}
    twins = dg.Study(net, sources=[bright], targets=[replace(bright, name="same")])
    same(twins.score("dss", options=options), {"conv": torch.ones(4, dtype=torch.float64)})
    dark = replace(bright, name="dark", images=1 - bright.images)
    scores = dg.Study(net, sources=[bright], targets=[dark]).score("dss", options=options).values["conv"]
    assert int(scores.argmin()) == 1
    assert torch.allclose(scores, torch.tensor([1, -1, 1, 1], dtype=torch.float64), atol=1e-5)


def test_a_dead_filter_scores_zero() -> None:
    net: Any = randomise(plain_net(), seed=4, dtype=torch.float32)
    with torch.no_grad():
        net[0].weight[2], net[0].bias[2] = 0, -1
    for options in ({}, {"pairing": "all_pairs"}, {"pairing": "paired"}):
        assert study_of(net).score("dss", options=options).values["0"][2] == 0


def test_a_shifted_copy_of_another_split_is_another_copy() -> None:
    study, shift = study_of(), {"shift": "noise"}
    scores = [study.score("dss_sources", split=split, options=shift).values["3"] for split in ("score", "report")]
    assert torch.equal(scores[1], study_of().score("dss_sources", split="report", options=shift).values["3"])
    assert not torch.equal(*scores)


def test_only_the_named_domains_are_read() -> None:
    study = study_of(targets=[domain("t", seed=2), domain("u", seed=3)])
    scores = study.score("dss", options={"source": "b", "target": "u"})
    assert scores.reads == {"b/score": "images", "u/score": "images"}
    s, t = outputs(study, "b"), outputs(study, "u")
    same(scores, {key: cosine(s[key].mean(0), t[key].mean(0)) for key in s})
    with pytest.raises(dg.DgpruneError, match="unknown domain 'a'; known: t, u"):
        study.score("dss", options={"target": "a"})


def test_scoring_on_the_reported_split_is_in_the_provenance() -> None:
    study = study_of()
    scores = study.score("dss", split="report")
    assert scores.reads == {"a/report": "images", "b/report": "images", "t/report": "images"}
    provenance = dg.provenance_of(dg.prune(study.model, dg.allocate(scores, ratio=0.5)))
    assert provenance.seen("scorer", "t", "report") == "images" and provenance.seen("scorer", "t", "score") == "none"
    assert not torch.equal(scores.values["0"], study.score("dss").values["0"])


class TestSources:
    def test_pairs_of_sources(self) -> None:
        sources = [domain("a"), domain("b", seed=1), domain("c", seed=5)]
        study = study_of(sources=sources)
        maps = {name: outputs(study, name)["0"].mean(0) for name in "abc"}
        pairs = torch.stack([cosine(maps[i], maps[j]) for i, j in ("ab", "ac", "bc")])
        same(study.score("dss_sources"), {"0": pairs.mean(0)})
        same(study.score("dss_sources", options={"over": "min"}), {"0": pairs.amin(0)})

    @pytest.mark.parametrize("site", ["activation", "consumer_input", "conv_output"])
    def test_at_every_site(self, site: Any) -> None:
        study = study_of()
        a, b = (outputs(study, name, site=site) for name in "ab")
        scores = study.score("dss_sources", options={"site": site})
        same(scores, {key: cosine(a[key].mean(0), b[key].mean(0)) for key in a})
        shifted = study_of(sources=[replace(dg.data.SHIFTS["invert"](domain("a", count=120)), name="a")])
        copied = study.score("dss_sources", options={"site": site, "shift": "invert", "over": "min"}).values["3"]
        one = study_of(sources=[domain("a", count=120)])
        alone = one.score("dss_sources", options={"site": site, "shift": "invert"}).values["3"]
        expected = cosine(outputs(one, "a", site=site)["3"].mean(0), outputs(shifted, "a", site=site)["3"].mean(0))
        assert torch.allclose(alone, expected, atol=1e-5) and bool((copied <= alone + 1e-12).all())

    def test_a_source_and_its_shifted_copy(self) -> None:
        study = study_of(sources=[domain("a")])
        shifted = dg.data.SHIFTS["invert"](domain("a"))
        twin = study_of(sources=[replace(shifted, name="a")])
        expected = cosine(outputs(study, "a")["0"].mean(0), outputs(twin, "a")["0"].mean(0))
        same(study.score("dss_sources", options={"shift": "invert"}), {"0": expected})
        assert study.score("dss_sources").options["shift"] is None, "one source: a noisy copy stands in"
        with pytest.raises(dg.DgpruneError, match=r"unknown shift 'inverted'.*Did you mean 'invert'"):
            study.score("dss_sources", options={"shift": "inverted"})

    def test_the_target_is_never_read(self) -> None:
        for sources in ([domain("a")], [domain("a"), domain("b", seed=1)]):
            study = study_of(sources=sources)
            other = study_of(sources=sources, targets=[domain("t", seed=77)])
            mine, theirs = study.score("dss_sources"), other.score("dss_sources")
            assert all(torch.equal(mine.values[key], theirs.values[key]) for key in mine.values)
            assert mine.reads == {f"{s.name}/score": "images" for s in sources}


class TestFlatMaps:
    """The second layer's maps are 6 x 6 after the activation, and 1 x 1 where its consumer reads them, pooled."""

    def flat(self) -> dg.Study:
        net: Any = randomise(norm_net(), seed=1, dtype=torch.float32)
        with torch.no_grad():
            net[9].bias.sub_(net(images(200, 3, 12, 12)).mean(0))
        return study_of(net)

    def test_they_are_refused_before_any_pass(self, monkeypatch: pytest.MonkeyPatch) -> None:
        study = self.flat()
        monkeypatch.setattr("dgprune_lab.study.scorer_inputs.gathering", None)
        with pytest.raises(dg.DgpruneError, match="'dss' cannot run here: the maps of 4 are 1 x 1"):
            study.score("dss", options={"flat": "refuse", "site": "consumer_input"})
        refusal = study.unavailable(dg.SCORERS["dss"].using(flat="refuse", site="consumer_input")) or ""
        assert "1 x 1" in refusal and "take site='activation', or flat='predicted_class'" in refusal
        assert study.unavailable(dg.SCORERS["dss"].using(flat="refuse")) is None, "by default the maps are 6 x 6"
        assert study.unavailable(dg.SCORERS["dss"].using(site="consumer_input")) is None

    def test_predicted_classes_replace_them_with_a_note(self) -> None:
        study = self.flat()
        with pytest.warns(dg.DgpruneNote, match="layer '4': its maps are 1 x 1"):
            scores = study.score("dss", options={"source": "a", "site": "consumer_input"}).values["4"]
        vectors = []
        for name in ("a", "t"):
            part: Domain = study.domain(name)
            x = part.take(part.rows("score")).images
            with torch.no_grad():
                y = study.model[:8](x).flatten(1).double()  # type: ignore[index]
                predicted = study.model(x).argmax(1)
            vectors.append({int(k): y[predicted == k].mean(0) for k in predicted.unique()})
        both = sorted(vectors[0].keys() & vectors[1].keys())
        a, b = (torch.stack([v[k] for k in both], 1) for v in vectors)
        assert torch.allclose(scores, cosine(a, b), atol=1e-5)

    def test_a_class_that_is_predicted_on_one_domain_only_is_left_out(self) -> None:
        """The class is the brightest channel, and on the target the third channel never is."""
        net: Any = nn.Sequential(nn.Conv2d(3, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3, 3))
        with torch.no_grad():
            net[0].weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 2, 2))
            net[0].bias.zero_()
            net[3].weight.copy_(torch.eye(3))
            net[3].bias.zero_()
        x = images(60, 3, 2, 2, seed=5)
        dark = x * torch.tensor([1.0, 0.8, 0.05])[:, None, None]
        rows = {"score": range(60)}
        source, target = (dg.Domain.from_arrays(name, images=y, splits=rows) for name, y in (("a", x), ("t", dark)))
        study, means = study_of(net, sources=[source], targets=[target]), []
        for y in (x, dark):
            sums, predicted = y.sum((2, 3)).double(), y.sum((2, 3)).argmax(1)
            means.append(torch.stack([sums[predicted == k].mean(0) for k in (0, 1)], 1))
            assert sorted(predicted.unique().tolist()) == ([0, 1, 2] if y is x else [0, 1])
        with pytest.warns(dg.DgpruneNote, match="maps are 1 x 1"):
            assert torch.allclose(study.score("dss").values["0"], cosine(*means), atol=1e-6)

    def test_one_predicted_class_is_too_few(self) -> None:
        net: Any = randomise(norm_net(), seed=1, dtype=torch.float32)
        with torch.no_grad():
            net[9].weight.zero_()
        words = "layer '4' are 1 x 1.* 1 class in both 'a' and 't', fewer than two; take site='activation', a scorer"
        with pytest.raises(dg.DgpruneError, match=words), pytest.warns(dg.DgpruneNote):
            study_of(net).score("dss", options={"site": "consumer_input"})

    def test_a_map_of_one_position_behind_the_activation_is_flat_at_every_site(self) -> None:
        net = randomise(nn.Sequential(nn.Conv2d(3, 4, 12), nn.Tanh(), nn.Flatten(), nn.Linear(4, 4)), seed=2)
        study = study_of(net.float())
        for site in ("activation", "consumer_input"):
            with pytest.warns(dg.DgpruneNote, match="layer '0': its maps are 1 x 1"):
                scores = study.score("dss", options={"site": site}).values["0"]
            assert bool((scores.abs() < 0.999).any()), "a cosine of two numbers would be 1 or -1"
        why = study.unavailable(dg.SCORERS["dss"].using(flat="refuse")) or ""
        assert why.endswith("the cosine of two numbers is 1 or -1; take flat='predicted_class'.")

    def test_advice_that_would_not_help_is_left_out(self) -> None:
        net = randomise(
            nn.Sequential(nn.Conv2d(3, 4, 12), nn.ReLU(), nn.Flatten(), nn.Linear(4, 4)), dtype=torch.float32
        )
        with torch.no_grad():
            net[3].weight.zero_()  # type: ignore[operator,union-attr]
        words = r"in both 'a' and its copy with noise, .*; take a scorer that compares no maps"
        with pytest.raises(dg.DgpruneError, match=words), pytest.warns(dg.DgpruneNote):
            study_of(net, sources=[domain("a")]).score("dss_sources")


@pytest.mark.parametrize(("option", "value"), [("pairing", "mean"), ("site", "input"), ("flat", "skip")])
def test_an_unknown_choice_is_named(option: str, value: str) -> None:
    with pytest.raises(dg.DgpruneError, match=f"{option} must be one of .*got '{value}'"):
        study_of(randomise(norm_net(), dtype=torch.float32)).score("dss", options={option: value})


def test_without_a_target_it_is_unavailable() -> None:
    assert study_of(targets=[]).unavailable(dg.SCORERS["dss"]) == "the study has no target."


def test_a_filter_with_tiny_outputs_has_unit_maps_too() -> None:
    """The squares of 1e-25 are zero in float32, and a map divided by that is no unit map."""
    net: Any = randomise(plain_net(), seed=4, dtype=torch.float32)
    study = study_of(net)
    before = study.score("dss", options={"pairing": "all_pairs"}).values["0"]
    with torch.no_grad():
        net[0].weight[2] *= 1e-25
        net[0].bias[2] *= 1e-25
    assert torch.allclose(study.score("dss", options={"pairing": "all_pairs"}).values["0"], before, atol=1e-5)
