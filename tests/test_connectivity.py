"""Correlations between layers and the GC-Net scorer: planted truths, slow twins, refusals."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from material import ResidualNet, domain, fingerprint, grouped_net, randomise
from planted import flat, linear_net, values
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.statistics import CoMoments
from dgprune_lab.scorers.gc_net import correlation, expected_null, gc_net

COPY, NEGATED, OTHER, NOTHING = [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]


def classes(count: int, *, budget: int = 4) -> Tensor:
    return torch.arange(count) % budget


def planted(count: int = 2400, **kinds: Any) -> dg.Study:
    """800 images to score on, 200 of each class, so no note is due."""
    net = linear_net([COPY, NEGATED, OTHER, NOTHING])
    return dg.Study(net, sources=[flat("a", values(count), labels=classes(count))], **kinds)


def sums(study: dg.Study, *, by_class: bool = True, domain: str = "a", split: str = "score") -> CoMoments:
    need = "class_co_moments" if by_class else "co_moments"
    return getattr(study.statistics(domain, needs=[need], split=split), need)["0", "1"]


def test_a_copied_filter_has_correlation_one_and_a_constant_one_zero() -> None:
    co_moments = sums(planted())
    rho, signed = correlation(co_moments), correlation(co_moments, signed=True)
    assert rho.shape == (3, 4) and rho.dtype == torch.float64
    assert rho[0, :2].tolist() == pytest.approx([1, 1], abs=1e-6)
    assert signed[0, :2].tolist() == pytest.approx([1, -1], abs=1e-6)
    assert rho[1, 2] == pytest.approx(1, abs=1e-6) and rho[:, 3].tolist() == [0, 0, 0]
    null = 0.8 / 200**0.5
    unconnected = torch.stack([rho[0, 2], rho[1, 0], rho[2, 0], rho[2, 1], rho[2, 2]])
    assert 0.2 * null < float(unconnected.mean()) < 2 * null


def test_shuffled_pairs_have_the_expected_null_level() -> None:
    """60 filters and 60 outputs that are independent, 50 images in each of 4 classes."""
    draw = torch.randn(200, 120, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x, y = draw[:, :60], draw[:, 60:]

    def table(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([a[k::4].T @ b[k::4] for k in range(4)])

    def both(t: Tensor) -> Tensor:
        return torch.stack([torch.stack([t[k::4].sum(0), t[k::4].square().sum(0)]) for k in range(4)], 1)

    images = torch.tensor([50, 50, 50, 50])
    co_moments = CoMoments(images, both(x), both(y), table(x, y), table(x.roll(4, 0), y))
    for signed in (False, True):
        chance = correlation(co_moments, signed=signed, shuffled=True).abs().mean()
        assert float(chance) == pytest.approx(expected_null(images, signed=signed), rel=0.05)
    assert expected_null(images) == pytest.approx(0.8 / 50**0.5, rel=0.01)
    assert expected_null(images, signed=True) == pytest.approx(0.8 / 200**0.5, rel=0.01)
    connected = correlation(co_moments._replace(cross=table(x, x), second=both(x)))
    assert torch.allclose(connected.diagonal(), torch.ones(60, dtype=torch.float64))
    assert float(connected.max()) <= 1


def test_class_means_correlate_filters_only_where_classes_are_pooled() -> None:
    labels = classes(2400)
    source = flat("a", values(2400, shift=(labels - 1.5) * 0.1), labels=labels)
    study = dg.Study(linear_net([OTHER, [0.0, 0.0, 1.0]]), sources=[source])
    apart, pooled = (correlation(sums(study, by_class=by_class)) for by_class in (True, False))
    for i, j in ((0, 0), (0, 1), (1, 1), (2, 0)):
        assert float(apart[i, j]) < 0.12 and float(pooled[i, j]) > 0.4
    assert apart[1, 0] == pytest.approx(1, abs=1e-6)


def test_the_score_is_the_mean_over_consumers_or_over_inputs() -> None:
    model = randomise(ResidualNet(), dtype=torch.float32)
    study = dg.Study(model, sources=[domain("a", count=2700), domain("b", count=2700, seed=1)])
    before = fingerprint(model)
    co_moments = [study.statistics(name, needs=["class_co_moments"]).class_co_moments for name in ("a", "b")]
    rho = {key: (correlation(co_moments[0][key]) + correlation(co_moments[1][key])) / 2 for key in co_moments[0]}
    out = {
        "stem": torch.cat([rho["stem", "inner"], rho["stem", "last"], rho["stem", "shortcut"]], 1).mean(1),
        "inner": rho["inner", "outer"].mean(1),
        "last": rho["last", "head"].mean(1),
    }
    into = {
        "stem": rho["inner", "outer"].mean(0),
        "inner": rho["stem", "inner"].mean(0),
        "last": torch.cat([rho["stem", "last"], rho["stem", "shortcut"]]).mean(0),
    }
    both = {name: (out[name] + into[name]) / 2 for name in out}
    for direction, wanted in (("out", out), ("in", into), ("both", both)):
        got = study.score(gc_net, options={"direction": direction})
        assert all(torch.allclose(got.values[name], wanted[name]) for name in wanted), direction
        assert got.reads == {"a/score": "labels", "b/score": "labels"}
    assert fingerprint(model) == before


def test_the_first_layer_is_scored_by_its_consumers_in_every_direction() -> None:
    study = planted()
    rho = correlation(sums(study))
    for direction in ("out", "in", "both"):
        assert torch.allclose(study.score(gc_net, options={"direction": direction}).values["0"], rho.mean(1))
    assert torch.allclose(study.score(gc_net, options={"direction": "in"}).values["1"], rho.mean(0))
    signed = study.score(gc_net, options={"signed": True}).values["0"]
    assert torch.allclose(signed, correlation(sums(study), signed=True).mean(1)) and float(signed.min()) < rho.min()
    assert dg.allocate(study.score(gc_net), ratio=0.5).kept("1") != []


def test_sources_have_equal_weight_whatever_their_size() -> None:
    few, many = (flat(name, values(n, seed=n), labels=classes(n)) for name, n in (("few", 2400), ("many", 6000)))
    net = linear_net([COPY, [0.5, 0.5, 0.0], OTHER])
    alone = [dg.Study(net, sources=[source]).score(gc_net).values["0"] for source in (few, many)]
    both = dg.Study(net, sources=[few, many]).score(gc_net).values["0"]
    assert torch.allclose(both, (alone[0] + alone[1]) / 2)


def test_without_classes_no_label_is_read() -> None:
    for options, split, what in (({}, "train", "labels"), ({"by_class": False}, "score", "images")):
        study = planted()
        got = study.score(gc_net, options=options, split=split)
        assert got.reads == {f"a/{split}": what}
    pooled = correlation(sums(study, by_class=False))
    assert torch.allclose(got.values["0"], pooled.mean(1))
    statistics = study.statistics("a", needs=["co_moments"])
    assert not statistics.labels_read and not statistics.class_co_moments


def test_few_images_are_noted_once_with_the_null_level() -> None:
    study = planted(count=360)
    with pytest.warns(
        dg.DgpruneNote, match=r"correlations over 30 images of 'a' in its smallest class.*about 0\.15"
    ) as notes:
        study.score(gc_net)
    assert len(notes) == 1
    with pytest.warns(dg.DgpruneNote, match=r"over 120 images of 'a' in all"):
        study.score(gc_net, options={"by_class": False})


def test_ten_images_are_refused_within_classes_and_accepted_pooled() -> None:
    def study_of(classes_in_all: int) -> dg.Study:
        labels = classes(30, budget=classes_in_all)
        return dg.Study(linear_net([COPY, OTHER], outputs=10), sources=[flat("ten", values(30), labels=labels)])

    with pytest.warns(dg.DgpruneNote, match=r"over 3 images of 'ten' in its smallest class"):
        study_of(3).score(gc_net)
    lone = study_of(10)
    words = r"no class of 'ten' has 3 images that scorers may read \(the largest has 1\).*\(by_class=False\)"
    with pytest.raises(dg.DgpruneError, match=f"'gc_net' cannot run here: {words}"):
        lone.score(gc_net)
    assert "no class of 'ten'" in (lone.unavailable(gc_net) or "")
    with pytest.warns(dg.DgpruneNote, match=r"over 10 images of 'ten' in all"):
        got = lone.score(gc_net, options={"by_class": False})
    assert torch.isfinite(got.values["0"]).all()
    with pytest.raises(dg.DgpruneError, match=r"no class has 3 images here"):
        correlation(sums(lone, domain="ten"))


def test_an_absent_class_is_left_out() -> None:
    labels = classes(2400, budget=3)
    with_gap = flat("a", values(2400), labels=labels, classes=4)
    study = dg.Study(linear_net([COPY, NEGATED, OTHER]), sources=[with_gap])
    co_moments = sums(study)
    assert co_moments.images.tolist()[3] == 0
    compact = dg.Study(linear_net([COPY, NEGATED, OTHER]), sources=[flat("a", values(2400), labels=labels)])
    assert torch.equal(correlation(co_moments), correlation(sums(compact)))
    assert torch.equal(study.score(gc_net).values["0"], compact.score(gc_net).values["0"])


def test_layers_without_connections_are_refused() -> None:
    bare = dg.Study(linear_net([COPY, OTHER]), sources=[flat("a", values(60), labels=None)])
    assert "needs labels" in (bare.unavailable(gc_net) or "")
    tied = dg.Study(randomise(grouped_net(), dtype=torch.float32), sources=[domain("a")])
    words = r"only grouped convolutions read or produce the filters of '0'"
    with pytest.raises(dg.DgpruneError, match=words):
        tied.score(gc_net)
    with pytest.raises(dg.DgpruneError, match=r"direction must be one of 'out', 'in', 'both'; got 'up'"):
        planted().score(gc_net, options={"direction": "up"})


def test_a_group_read_only_by_a_grouped_convolution_is_scored_by_its_inputs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), *randomise(grouped_net(), dtype=torch.float32))
    net[2] = nn.Conv2d(6, 8, 3, padding=1)
    study = dg.Study(randomise(net, dtype=torch.float32), sources=[domain("a", count=2700)])
    rho = correlation(study.statistics("a", needs=["class_co_moments"]).class_co_moments["0", "2"])
    for direction in ("out", "in", "both"):
        assert torch.allclose(study.score(gc_net, options={"direction": direction}).values["2"], rho.mean(0))


def test_a_scorer_cannot_change_the_co_moments_that_others_read() -> None:
    @dg.scorer("vandal", needs=("class_co_moments",), reads={"source": "labels"})
    def vandal(view: Any) -> Tensor:
        """Zeroes what it reads. Source: none."""
        for layer in view.pairs:
            for part in view.co_moments("a", layer=layer, by_class=True):
                part.zero_()
        return torch.zeros(view.filters)

    study = planted()
    study.score(vandal)
    assert torch.equal(study.score(gc_net).values["0"], planted().score(gc_net).values["0"])


def test_too_large_co_moments_are_refused_before_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    study, asked = planted(), dg.SCORERS["gc_net"]
    assert study.unavailable(asked) is None
    outputs = len(study.model.get_parameter(f"{study.graph.groups[1].consumers[0]}.weight"))
    monkeypatch.setattr("dgprune_lab.measurement.co_moments.CO_MOMENT_BYTES", 8 * (3 * 4 + 4 * outputs))
    monkeypatch.setattr("dgprune_lab.study.scorer_inputs.gathering", None)
    words = "over 4 classes would take .* MB, more than .* take them over all classes together"
    assert re.search(words, study.unavailable(asked) or "")
    with pytest.raises(dg.DgpruneError, match=f"'gc_net' cannot run here: .*{words}"):
        study.score(asked)
    assert study.unavailable(asked.using(by_class=False)) is None
    monkeypatch.setattr("dgprune_lab.measurement.co_moments.CO_MOMENT_BYTES", 1)
    assert "together would take" in (study.unavailable(asked.using(by_class=False)) or "")


def test_without_classes_no_label_is_needed() -> None:
    net = linear_net([COPY, NEGATED, OTHER, NOTHING])
    study, asked = dg.Study(net, sources=[flat("a", values(2400), labels=None)]), dg.SCORERS["gc_net"]
    assert study.unavailable(asked) == "it needs labels, and 'a' has none."
    for without in (asked.using(by_class=False), dg.hybrid("l1", asked.using(by_class=False), by="rank")):
        assert study.unavailable(without) is None
        assert study.score(without).reads == {"a/score": "images"}
    assert study.unavailable(dg.SCORERS["taylor"]) == "it needs labels, and 'a' has none."
