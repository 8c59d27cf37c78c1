"""Each option of `sensitivity`, of its scorers and of the attributions does what it says."""

from __future__ import annotations

import pydoc
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from captum import attr
from material import domain, fingerprint, images, norm_net, randomise
from numpy.typing import NDArray
from planted import flat, linear_net
from scipy.stats import spearmanr
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.measurement.attributions import STEPS, TOGETHER, Attributor, Method
from dgprune_lab.stats import intervals
from dgprune_lab.stats.effect_sizes import cohens_d, matched_d
from dgprune_lab.stats.rank_agreement import over_filters
from dgprune_lab.stats.rank_tests import auroc, p_values, q_values

SEED, IMAGES, LAYERS = 5, 40, ["4", "0"]


def with_dead_filters() -> dg.Study:
    """Three sources and a target; filter 1 of the first layer and 3 of the second never answer."""
    model = randomise(norm_net(), dtype=torch.float32)
    with torch.no_grad():
        for place, dead in ((1, 1), (5, 3)):
            for part in (cast(Any, model[place]).weight, cast(Any, model[place]).bias):
                part[dead] = 0
    domains = [domain(name, count=180, seed=k) for k, name in enumerate("abct")]
    return dg.Study(model, sources=domains[:3], targets=domains[3:])


def rows_of(frame: pd.DataFrame, metric: str, **where: Any) -> pd.DataFrame:
    result = frame[frame.metric == metric]
    for key, value in where.items():
        result = result[result[key] == value]
    return cast(pd.DataFrame, result)


def test_every_number_recomputed_with_unusual_options() -> None:
    study = with_dead_filters()
    frame = dg.diagnostics.sensitivity(
        study, between=("b", "t"), layers=LAYERS, scorers=["random", "l1"], images=IMAGES, split="report", seed=SEED
    )
    by = Attributor(study.model, study.graph, example=images(2, 3, 12, 12))
    values: list[NDArray[np.float64]] = []
    labels: list[NDArray[np.int64]] = []
    for name in ("b", "t"):
        batch = study.domain(name).take(study.domain(name).rows("report", IMAGES))
        result = by.values(batch, method="gradient_x_activation", layers=LAYERS)
        values.append(torch.cat([result[layer] for layer in LAYERS], 1).double().numpy())
        labels.append(cast(Tensor, batch.labels).numpy())
        rows = rows_of(frame, "attribution", domain=name)
        low, high = intervals.over_images(values[-1])
        for column, expected in (("value", values[-1].mean(0)), ("low", low), ("high", high)):
            assert np.allclose(rows[column], expected, atol=1e-5, equal_nan=True), (name, column)
        assert set(rows.split) == {"report"} and set(rows.images) == {IMAGES}
    pair = (labels[0], labels[1])
    d = cohens_d(values[0], values[1], labels=pair, seed=SEED)
    p = p_values(values[0], values[1], labels=pair)
    for metric, expected in (("cohens_d", d), ("auroc", auroc(values[0], values[1], labels=pair))):
        rows = rows_of(frame, metric)
        assert rows.group.tolist() == ["4"] * 8 + ["0"] * 6 and (rows.other == "b").all()
        for column in ("value", "low", "high"):
            assert np.allclose(rows[column], getattr(expected, column), atol=1e-5, equal_nan=True), (metric, column)
        assert np.allclose(rows.q_value, q_values(p), atol=1e-6) and not np.allclose(rows.q_value, p, atol=1e-2)
    other = cohens_d(values[0], values[1], labels=pair)
    assert np.nanmax(np.abs(other.low - d.low)) > 1e-3, "another seed, other resamples"
    _scorers_are_compared(study, frame, sizes=np.abs(d.value), answers=np.any(np.concatenate(values) != 0, axis=0))


def _scorers_are_compared(
    study: dg.Study, frame: pd.DataFrame, *, sizes: NDArray[np.float64], answers: NDArray[np.bool_]
) -> None:
    """Scores, seeds and rank correlations, of all filters and of those that answer."""
    assert answers.sum() == 12
    edges = [8]
    for name, seed in (("random", SEED), ("l1", pd.NA)):
        scores = study.score(name, seed=SEED)
        expected = torch.cat([scores.values[layer] for layer in LAYERS]).numpy()
        rows = rows_of(frame, "score", scorer=name)
        assert np.array_equal(rows.value, expected) and rows.seed.isna().all() == (seed is pd.NA)
        correlated = []
        for metric, chosen in (("rank_correlation", answers | True), ("rank_correlation_active", answers)):
            (row,) = rows_of(frame, metric, scorer=name).to_dict("records")
            layers = [
                {
                    layer: torch.from_numpy(part[keep])
                    for layer, part, keep in zip(LAYERS, np.split(values, edges), np.split(chosen, edges), strict=True)
                }
                for values in (sizes, -expected)
            ]
            low, high = over_filters(layers, scope="global", seed=SEED)
            assert row["value"] == pytest.approx(spearmanr(sizes[chosen], -expected[chosen])[0], abs=1e-6), metric
            assert (row["low"], row["high"]) == pytest.approx((low[0, 1], high[0, 1]), abs=1e-6)
            correlated.append(row["value"])
        assert abs(correlated[0] - correlated[1]) > 0.01
        if seed is not pd.NA:
            assert (rows.seed == SEED).all()
            assert not np.array_equal(expected, torch.cat([study.score(name).values[k] for k in LAYERS]).numpy())


def without_spread(sources: int = 2) -> dg.Study:
    """Filter 0 is the first channel: constant in each domain, .25 in the first and .5 in all others."""
    domains = []
    for k in range(sources + 1):
        values = 0.5 + 0.05 * torch.randn(240, 3, generator=torch.Generator().manual_seed(k))
        values[:, 0], values[:, 1] = (0.25 if k == 0 else 0.5), values[:, 1] + 0.03 * k
        domains.append(flat("abct"[k] if k < sources else "t", values, labels=torch.arange(240) % 4, classes=4))
    return dg.Study(
        linear_net([[1.0, 1.0, 0.5], [1.0, -1.0, 0.5]]), sources=domains[:sources], targets=domains[sources:]
    )


def test_a_difference_without_any_spread_counts_as_the_largest() -> None:
    study = without_spread()
    first = dg.diagnostics.sensitivity(study, method="activation", layers=["0"], images=None)
    sizes = rows_of(first, "cohens_d").value.abs().to_numpy()
    assert np.isnan(sizes[0]) and sizes[1] > sizes[2] + 0.1
    like = {"0": torch.tensor([-2.0, -2.0, -1.0]), "1": torch.zeros(2)}
    scores = dg.Scores(
        "mine", {name: values.double() for name, values in like.items()}, study.graph, options={}, reads={}
    )
    frame = dg.diagnostics.sensitivity(study, method="activation", layers=["0"], scorers=[scores], images=None)
    assert rows_of(frame, "rank_correlation").value.iloc[0] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["sensitivity", "sensitivity_sources"])
def test_the_scorers_take_a_difference_without_any_spread_as_the_largest(name: str) -> None:
    study = without_spread()
    result = study.score(name).values
    gates = {key: study.statistics(key, needs=["class_gate"]).class_gate for key in "abt"}
    pairs = [("a", "b")] if name == "sensitivity_sources" else [("a", "t"), ("b", "t")]
    sizes = {
        layer: torch.stack([matched_d(gates[x][layer], gates[y][layer]).abs() for x, y in pairs]) for layer in result
    }
    most = max(float(values[values.isfinite()].max()) for values in sizes.values())
    assert sizes["0"][0, 0].isnan() and not sizes["1"].isnan().any() and most > 0.1
    for layer, values in sizes.items():
        assert torch.allclose(-result[layer], values.nan_to_num(nan=most).mean(0)), layer
    assert name == "sensitivity" or float(-result["0"][0]) == pytest.approx(most)


def test_over_pairs_of_sources_the_mean_or_the_largest() -> None:
    study = with_dead_filters()
    gates = [study.statistics(name, needs=["class_gate"]).class_gate for name in "abc"]
    result = {over: study.score("sensitivity_sources", options={"over": over}) for over in ("mean", "max")}
    for layer in study.graph.names:
        sizes = torch.stack([matched_d(gates[i][layer], gates[k][layer]).abs() for i, k in ((0, 1), (0, 2), (1, 2))])
        assert torch.allclose(-result["mean"].values[layer], sizes.mean(0))
        assert torch.allclose(-result["max"].values[layer], sizes.amax(0))
        assert float((sizes.amax(0) - sizes.mean(0)).max()) > 0.01
    with pytest.raises(DgpruneError, match="over must be one of 'mean', 'max'; got 'least'"):
        study.score("sensitivity_sources", options={"over": "least"})


def test_one_source_is_refused_before_any_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    study = without_spread(sources=1)
    monkeypatch.setattr("dgprune_lab.study.scorer_inputs.gathering", None)
    message = "it compares at least two sources, and there is one"
    with pytest.raises(DgpruneError, match=f"'sensitivity_sources' cannot run here: {message}"):
        study.score("sensitivity_sources")
    assert message in (study.unavailable(dg.SCORERS["sensitivity_sources"]) or "")
    assert study.unavailable(dg.SCORERS["sensitivity"]) is None


class Relative(nn.Sequential):
    """What it gives for a black image is 0 / 0."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input / input.mean((1, 2, 3), keepdim=True))


def test_the_domain_with_attributions_that_are_not_finite_is_named() -> None:
    net = Relative(*randomise(norm_net(), dtype=torch.float32))
    black = domain("t", seed=2)
    pixels = black.images * (torch.arange(60) != 25)[:, None, None, None]
    black = dg.Domain.from_arrays("t", images=pixels, labels=black.labels, splits=black.splits, classes=4)
    study = dg.Study(net, sources=[domain("a")], targets=[black])
    with pytest.raises(DgpruneError, match="NaN or infinite attributions on domain 't'"):
        dg.diagnostics.sensitivity(study)
    assert len(dg.diagnostics.sensitivity(study, split="report"))


@pytest.mark.parametrize("method", ["gradient_x_activation", "ablation", "conductance"])
def test_a_network_in_training_mode_gives_the_same_values(method: Method) -> None:
    """Attributions are those in eval mode, and it stays in training mode, with its statistics as they were."""
    layers = norm_net()
    model = randomise(nn.Sequential(*layers[:4], nn.Dropout(0.5), *layers[4:]), dtype=torch.float32)
    batch = domain("a", count=30).take(torch.arange(10))
    graph = dg.read_groups(model, batch.images[:2])

    def values() -> dict[str, Tensor]:
        by = Attributor(model, graph, example=batch.images[:2])
        return by.values(batch, method=method, layers=graph.names)

    expected = values()
    before = fingerprint(model.train())
    result = values()
    assert fingerprint(model) == before and all(module.training for module in model.modules())
    for layer in graph.names:
        assert torch.equal(result[layer], expected[layer]) and result[layer].abs().max() > 0.01


def test_help_says_that_paths_end_before_the_relu() -> None:
    """Integrated gradients and conductance are those of the BatchNorm's output; one gradient is the same behind it."""
    text = " ".join(pydoc.plain(pydoc.render_doc(dg.diagnostics.sensitivity)).split())
    assert '"integrated_gradients" and "conductance" attribute to a group\'s output before its ReLU' in text
    layers = [nn.ReLU() if isinstance(layer, nn.ReLU) else layer for layer in norm_net()]  # Captum needs one per call
    model = randomise(nn.Sequential(*layers), dtype=torch.float32).eval()
    batch = domain("a", count=30).take(torch.arange(10))
    by = Attributor(model, dg.read_groups(model, batch.images[:2]), example=batch.images[:2])
    kinds: dict[Method, Any] = {
        "gradient_x_activation": attr.LayerGradientXActivation,
        "integrated_gradients": attr.LayerIntegratedGradients,
        "conductance": attr.LayerConductance,
    }
    for method, kind in kinds.items():
        steps = {} if method == "gradient_x_activation" else {"n_steps": STEPS}
        found = by.values(batch, method=method, layers=["0"])["0"]
        before, behind = (
            kind(model, layer).attribute(batch.images, target=batch.labels, **steps).detach().flatten(2).sum(2)
            for layer in (model[1], model[2])
        )
        torch.testing.assert_close(found, before, rtol=1e-3, atol=1e-4)
        assert torch.allclose(found, behind, rtol=1e-3, atol=1e-3) == (method == "gradient_x_activation"), method


def test_paths_hold_all_their_steps_at_once() -> None:
    """192 MB at most of the widest layer, which is held for all steps of a path between black and an image."""
    model = randomise(norm_net(), dtype=torch.float32)
    example = images(2, 3, 96, 96)
    by = Attributor(model, dg.read_groups(model, example), example=example)
    for method in ("integrated_gradients", "conductance", "ablation", *TOGETHER):
        steps = STEPS if method in ("integrated_gradients", "conductance") else 1
        count = by.batch_size(cast(Method, method))
        assert count >= 1 and steps * count * 4 * 6 * 96 * 96 <= 192 * 2**20, method
    assert by.batch_size("conductance") < by.batch_size("ablation")
