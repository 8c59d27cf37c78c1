"""Domain-sensitive filters: planted truth, the scorer of the same quantity, and refusals."""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from material import domain, fingerprint, norm_net, randomise
from planted import flat, linear_net
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.measurement.attributions import Method

CLASSES = 4


def shifted(
    name: str, *, count: int = 900, seed: int = 0, shift: Tensor | None = None, labelled: bool = True
) -> dg.Domain:
    """Flat images of three independent channels; `shift`, in standard deviations, is added to each."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    values = 0.5 + 0.05 * torch.randn(count, 3, generator=generator)
    values += 0.02 * labels[:, None] + (0 if shift is None else 0.05 * shift)
    return flat(name, values, labels=labels if labelled else None, classes=CLASSES if labelled else None)


def study_of(shift: Tensor | None = None, **kinds: Any) -> dg.Study:
    """Filter i of the first layer is channel i; the target's channel 1 is moved by `shift`."""
    net = linear_net([[1.0, 1.0, 1.0], [1.0, -1.0, 0.5]], outputs=CLASSES)
    sources = [shifted("a"), shifted("b", seed=1)]
    return dg.Study(net, sources=sources, targets=[shifted("t", seed=2, shift=shift, **kinds)])


def effects(frame: pd.DataFrame, layer: str = "0", metric: str = "cohens_d") -> pd.DataFrame:
    return cast(pd.DataFrame, frame[(frame.metric == metric) & (frame.group == layer)]).set_index("filter")


def test_the_shifted_filter_is_found_with_its_effect_size() -> None:
    frame = dg.diagnostics.sensitivity(
        study_of(torch.tensor([0.0, 0.8, 0.0])), method="activation", layers=["0"], images=None
    )
    d, area = effects(frame), effects(frame, metric="auroc")
    assert d.low[1] < 0.8 < d.high[1] and area.low[1] < 0.714 < area.high[1], "Phi(.8 / sqrt 2)"
    assert d.q_value[1] < 1e-6 and d.low[1] > 0
    for k in (0, 2):
        assert d.low[k] < 0 < d.high[k] and area.low[k] < 0.5 < area.high[k] and d.q_value[k] > 0.01
    assert set(frame.method) == {"activation"} and set(d.domain) == {"t"} and set(d.other) == {"a"}
    assert (d.images == 300).all() and (d.interval == "images").all() and (d.seed == 0).all()


@pytest.mark.parametrize("method", ["gradient_x_activation", "integrated_gradients", "conductance", "ablation"])
def test_within_a_class_the_shift_is_weighted_by_the_logit(method: Method) -> None:
    """y dl/dy = w y with the class's weight w: each class's effect is the planted one with the sign of w."""
    study = study_of(torch.tensor([0.0, 0.8, 0.0]))
    net: Any = study.model
    with torch.no_grad():
        weights = net[4].weight @ net[1].weight[:, :, 0, 0]
    expected = 0.8 * float(weights[:, 1].sign().mean())
    result = effects(dg.diagnostics.sensitivity(study, method=method, layers=["0"], images=None))
    assert abs(expected) > 0.3 and result.low[1] < expected < result.high[1]
    assert result.low[0] < 0 < result.high[0] and result.low[2] < 0 < result.high[2]


@pytest.mark.slow
def test_intervals_cover_zero_for_halves_of_one_domain() -> None:
    model = randomise(norm_net(), dtype=torch.float32)
    covered = []
    for seed in range(6):
        pair = [domain(name, count=240, seed=10 * seed + k) for k, name in enumerate(("a", "t"))]
        frame = dg.diagnostics.sensitivity(dg.Study(model, sources=pair[:1], targets=pair[1:]), images=None)
        d = frame[frame.metric == "cohens_d"]
        covered += ((d.low <= 0) & (d.high >= 0)).tolist()
    assert len(covered) == 84 and 0.85 < np.mean(covered) < 1.0


def test_the_scorer_equals_the_diagnostic_from_one_pass() -> None:
    """Captum is its oracle, over all images and every pair of a source and a target."""
    study = dg.Study(
        randomise(norm_net(), dtype=torch.float32),
        sources=[domain("a", count=120), domain("b", seed=1)],
        targets=[domain("t", seed=2)],
    )
    before = fingerprint(study.model)
    scores = study.score("sensitivity")
    pairs = [dg.diagnostics.sensitivity(study, between=(name, "t"), images=None) for name in ("a", "b")]
    for layer in study.graph.names:
        sizes = np.mean([effects(frame, layer).value.abs().to_numpy() for frame in pairs], axis=0)
        assert sizes.max() > 0.1 and np.allclose(-scores.values[layer].numpy(), sizes, atol=1e-4)
    assert scores.reads == {"a/score": "labels", "b/score": "labels", "t/score": "labels"}
    between = study.score("sensitivity_sources")
    assert between.reads == {"a/score": "labels", "b/score": "labels"}
    frame = dg.diagnostics.sensitivity(study, between=("a", "b"), images=None)
    assert np.allclose(-between.values["0"].numpy(), effects(frame).value.abs(), atol=1e-4)
    assert fingerprint(study.model) == before


def test_the_values_come_from_captum(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Captum was asked")

    monkeypatch.setattr("captum.attr.LayerGradientXActivation.attribute", refuse)
    with pytest.raises(RuntimeError, match="Captum was asked"):
        dg.diagnostics.sensitivity(study_of())


def test_rows_that_read_a_target_are_target_aware() -> None:
    study = study_of()
    frame = dg.diagnostics.sensitivity(study, scorers=["l1", "sensitivity", "sensitivity_sources"])
    assert frame[frame.metric == "cohens_d"].target_aware.all()
    assert (frame[frame.domain == "t"].seen_by_scorer == "labels").all()
    scores = frame[frame.metric == "score"].groupby("scorer").target_aware.first()
    assert dict(scores) == {"l1": False, "sensitivity": True, "sensitivity_sources": False}
    assert frame[frame.metric == "rank_correlation"].target_aware.all()
    between = dg.diagnostics.sensitivity(study, between=("a", "b"))
    assert not between.target_aware.any() and (between[between.domain == "b"].seen_by_scorer == "labels").all()
    assert dg.SCORERS["sensitivity"].kind == "target" and dg.SCORERS["sensitivity"].instead == "sensitivity_sources"


def test_the_scorer_removes_sensitive_filters_first_and_its_reverse_last() -> None:
    pair = domain("a", count=240), domain("t", count=240, seed=2)
    study = dg.Study(randomise(norm_net(), dtype=torch.float32), sources=pair[:1], targets=pair[1:])
    frame = dg.diagnostics.sensitivity(study, scorers=["sensitivity", dg.reverse("sensitivity")], images=None)
    result = frame[frame.metric == "rank_correlation"].set_index("scorer")
    assert result.value["sensitivity"] > 0.999 and result.value["reverse(sensitivity)"] < -0.999
    assert result.interval["sensitivity"] == "filters"


def test_inactive_filters_have_a_separate_correlation() -> None:
    study = study_of(torch.tensor([0.0, 0.8, 0.0]))
    with torch.no_grad():
        cast(Any, study.model)[0].weight[2] = 0
    frame = dg.diagnostics.sensitivity(study, layers=["0"], scorers=["l1"])
    d = effects(frame)
    assert d.value[2] == 0 and np.isnan(d.low[2]) and d.q_value[2] == 1
    assert set(frame.metric) >= {"rank_correlation", "rank_correlation_active"}


def test_a_filter_with_a_constant_output_is_not_active() -> None:
    """Its d of 0 is no measurement, and its place in the order must not make the correlation."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 20, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, CLASSES))
    with torch.no_grad():
        first = cast(Any, net)[0]
        first.weight[10:] = 0
        first.bias[10:] = 9.0
    shift = torch.tensor([0.0, 0.8, 0.0])
    study = dg.Study(net, sources=[shifted("a")], targets=[shifted("t", seed=2, shift=shift)])
    values = torch.cat([effect_order(study)[:10], torch.full((10,), 99.0)])
    scores = dg.Scores("mine", {"0": values}, study.graph)
    frame = dg.diagnostics.sensitivity(study, layers=["0"], scorers=[scores])
    assert (effects(frame).value[10:] == 0).all() and (effects(frame, metric="attribution").value[10:] != 0).any()
    value = frame.set_index("metric").value
    assert value["rank_correlation_active"] == pytest.approx(-1), "the most sensitive have the highest scores"
    assert value["rank_correlation"] > 0, "20 filters, of which the 10 constant ones are removed last"


def effect_order(study: dg.Study) -> Tensor:
    """|d| as a score, by which the most sensitive filters are removed last."""
    sizes = effects(dg.diagnostics.sensitivity(study, layers=["0"])).value.abs()
    return torch.tensor(sizes.tolist())


def test_without_active_filters_there_is_no_correlation() -> None:
    study = study_of()
    with torch.no_grad():
        cast(Any, study.model)[1].weight.zero_()
        cast(Any, study.model)[1].bias.zero_()
    frame = dg.diagnostics.sensitivity(study, layers="0", scorers=["l1"])
    assert set(frame.group.dropna()) == {"0", "all"}
    assert frame[frame.metric == "rank_correlation_active"].value.isna().all()


def test_attributions_per_domain_are_means_with_intervals() -> None:
    study = study_of(torch.tensor([0.0, 0.8, 0.0]))
    frame = dg.diagnostics.sensitivity(study, method="activation", layers=["0"])
    rows = frame[frame.metric == "attribution"].set_index(["domain", "filter"])
    mean = study.statistics("t", needs=["mean_map"]).mean_map["0"].sum((1, 2))
    for k in range(3):
        row = rows.loc["t", k]
        assert abs(row.value - float(mean[k])) < 1e-3 and row.low < row.value < row.high


@pytest.mark.parametrize(
    ("kinds", "options", "message"),
    [
        ({}, {"method": "gradient"}, "method must be one of"),
        ({}, {"layers": ["9"]}, "unknown layer '9'; known: 0, 1"),
        ({}, {"layers": []}, "at least one layer"),
        ({}, {"between": ("a", "a")}, "two different domains"),
        ({}, {"between": ("a", "z")}, "unknown domain 'z'; known: a, b, t"),
        ({"labelled": False}, {}, "'t' has no labels"),
    ],
)
def test_invalid_options_are_refused(kinds: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(DgpruneError, match=message):
        dg.diagnostics.sensitivity(study_of(**kinds), **options)


def test_one_domain_or_no_class_in_common_is_refused() -> None:
    net = linear_net([[1.0, 1.0, 1.0], [1.0, -1.0, 0.5]], outputs=CLASSES)
    with pytest.raises(DgpruneError, match="the study has one"):
        dg.diagnostics.sensitivity(dg.Study(net, sources=[shifted("a")]))
    apart = [
        dg.Domain.from_arrays(
            name,
            images=torch.rand(30, 3, 4, 4),
            labels=torch.arange(30) % 2 + start,
            classes=CLASSES,
            splits={"score": range(15), "report": range(15, 30)},
        )
        for name, start in (("a", 0), ("t", 2))
    ]
    study = dg.Study(net, sources=apart[:1], targets=apart[1:])
    with pytest.raises(DgpruneError, match="class"):
        dg.diagnostics.sensitivity(study)
    with pytest.raises(DgpruneError, match="class"):
        study.score("sensitivity")


@pytest.mark.parametrize("few", ["source", "target"])
def test_domains_that_number_their_classes_up_to_another_one_are_compared_where_both_have_images(few: str) -> None:
    generator = torch.Generator().manual_seed(4)
    parts = {
        role: dg.Domain.from_arrays(
            role,
            images=torch.rand(60, 3, 4, 4, generator=generator),
            labels=torch.arange(60) % (2 if role == few else CLASSES),
            splits={"score": range(60)},
        )
        for role in ("source", "target")
    }
    net = linear_net([[1.0, 1.0, 1.0], [1.0, -1.0, 0.5]], outputs=CLASSES)
    study = dg.Study(net, sources=[parts["source"]], targets=[parts["target"]])
    expected = effects(dg.diagnostics.sensitivity(study, images=None)).value.abs()
    assert np.allclose(-study.score("sensitivity").values["0"].numpy(), expected, atol=1e-4) and expected.max() > 0.1


def test_a_split_without_images_is_named_with_those_that_have_some() -> None:
    splits = {"train": range(20), "score": [], "report": range(20, 30)}
    parts = [
        dg.Domain.from_arrays(n, images=torch.rand(30, 3, 4, 4), labels=torch.arange(30) % CLASSES, splits=splits)
        for n in ("a", "t")
    ]
    net = linear_net([[1.0, 1.0, 1.0], [1.0, -1.0, 0.5]], outputs=CLASSES)
    study = dg.Study(net, sources=parts[:1], targets=parts[1:])
    with pytest.raises(DgpruneError, match="'a' has no image in its split 'score'; splits with images: train, report"):
        dg.diagnostics.sensitivity(study)
    with pytest.raises(DgpruneError, match="'t' has no image in its split 'score'"):
        dg.diagnostics.attribution_maps(study, domain="t", layer="0")


def test_a_network_with_nan_logits_is_refused() -> None:
    study = study_of()
    with torch.no_grad():
        cast(Any, study.model)[4].weight.fill_(float("nan"))
    with pytest.raises(DgpruneError, match="NaN or infinite"):
        dg.diagnostics.sensitivity(study)


def in_double(model: Any, batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) sum over positions of y dl/dy of the BatchNorm's output y, all of it in float64; the classes."""
    twin = copy.deepcopy(model).double()
    y = twin[:2](batch.images.double()).detach().requires_grad_()
    twin[2:](y).gather(1, batch.labels[:, None]).sum().backward()
    return (y.detach() * y.grad).sum((2, 3)).numpy(), batch.labels.numpy()


def d_in_double(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Cohen's d by class, straight from its definition; 0 / 0 is 0."""
    each = []
    for k in range(CLASSES):
        a, b = (values[labels == k] for values, labels in (first, second))
        squares = (len(a) - 1) * a.var(0, ddof=1) + (len(b) - 1) * b.var(0, ddof=1)
        spread = np.sqrt(squares / (len(a) + len(b) - 2))
        each.append((b.mean(0) - a.mean(0)) / np.where(spread > 0, spread, 1))
    return np.mean(each, axis=0)


@pytest.mark.parametrize("activation", [torch.nn.ReLU(), torch.nn.SiLU(), torch.nn.GELU()], ids=str)
def test_filters_that_hardly_answer_are_not_compared_by_their_rounding(activation: torch.nn.Module) -> None:
    """Against float64: what float32 resolves is right, what it does not resolve is no difference."""
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), activation, torch.nn.Conv2d(8, 6, 3), torch.nn.ReLU()]
    net: Any = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 4))
    randomise(net, seed=1, dtype=torch.float32)
    with torch.no_grad():
        net[1].bias[:4], net[1].weight[:4] = torch.tensor([-3.0, -5.5, -9.0, -20.0]), 0.5
        net[3].weight[:, 4] *= 1e-8  # hardly read
        net[1].weight[5], net[1].bias[5] = 1e-7, 1.0  # answers, always alike
    study = dg.Study(net, sources=[domain("a", count=180)], targets=[domain("t", count=180, seed=3)])
    pair = [in_double(net, part.take(part.rows("score"))) for part in study.domains]
    scale = max(np.sqrt((values**2).mean(0)).max() for values, _ in pair)
    spread = np.sqrt(np.mean([values.var(0) for values, _ in pair], axis=0)) / scale
    expected = np.where(spread > 1e-5, d_in_double(*pair), 0)
    assert (spread > 1e-4).sum() >= 3 and ((spread > 0) & (spread < 1e-6)).any()
    frame = dg.diagnostics.sensitivity(study, layers=["0"], scorers=["l1"], images=None)
    d, area = effects(frame), effects(frame, metric="auroc")
    clear = (spread > 1e-4) | (spread < 1e-6)
    for found in (d.value.to_numpy(float), np.abs(study.score("sensitivity").values["0"].numpy())):
        assert np.allclose(np.abs(found)[clear], np.abs(expected)[clear], atol=0.02), (found, expected, spread)
    silent = spread < 1e-6
    assert np.isnan(d.low[silent].astype(float)).all()
    assert (area.value[silent] == 0.5).all()
    for method, filters in (("ablation", [3, 4]), ("activation", [5])):
        d = effects(dg.diagnostics.sensitivity(study, method=cast(Method, method), layers=["0"], images=None))
        assert (d.value[filters] == 0).all()
    with torch.no_grad():
        net[3].weight *= 1e-7  # no filter is worth more than the rounding of a logit
    d = effects(dg.diagnostics.sensitivity(study, method="ablation", layers=["0"], images=None))
    assert (d.value == 0).all()
