"""Measures that prunability is compared with: closed forms, one table of all, notes and refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from material import domain, fingerprint, plain_net, randomise
from torch import nn

import dgprune_lab as dg
from dgprune_lab.core.steps import drain
from dgprune_lab.diagnostics._weight_noise import WeightNoise, largest_noise, margins
from dgprune_lab.measurement.weight_masking import prunable
from dgprune_lab.models.networks import build


def study_of(
    model: nn.Module | None = None, *, name: str = "net", shape: Any = (3, 12, 12), **options: Any
) -> dg.Study:
    net = randomise(plain_net(), dtype=torch.float32) if model is None else model
    return dg.Study(net, sources=[domain("a", shape=shape, **options), domain("b", seed=1, shape=shape)], name=name)


def only_row(frame: Any) -> Any:
    assert len(frame) == 1
    return frame.iloc[0]


def test_counts_and_norms_in_closed_form() -> None:
    study = study_of()
    flat = torch.cat([weight.detach().flatten() for weight in prunable(study.model).values()])
    assert only_row(dg.diagnostics.parameter_count(study)).value == sum(p.numel() for p in study.model.parameters())
    assert only_row(dg.diagnostics.l2_norm(study)).value == pytest.approx(float(flat.double().norm()))
    assert only_row(dg.diagnostics.l2_norm(study)).better_direction == "lower"


def test_the_distance_is_from_the_weights_of_builder_and_seed() -> None:
    model = build("lenet", widths=(4, 6), hidden=(8, 8), seed=3)
    small = (3, 28, 28)
    assert only_row(dg.diagnostics.distance_from_initialisation(study_of(model, shape=small))).value == 0
    with torch.no_grad():
        model.get_parameter("conv1.weight")[0, 0, 0, 0] += 3
        model.get_parameter("fc1.weight")[0, 0] -= 4
    frame = dg.diagnostics.distance_from_initialisation(study_of(model, shape=small))
    assert only_row(frame).value == pytest.approx(5)
    smaller = dg.prune(model, dg.allocate(study_of(model, shape=small).score("l1"), ratio=0.5))
    for study, why in (
        (study_of(), "net: .* is unknown, because the network does not record how it was built"),
        (study_of(smaller, shape=small), "its layers have other names or sizes than its builder gave it"),
    ):
        with pytest.warns(dg.DgpruneNote, match=why):
            assert math.isnan(only_row(dg.diagnostics.distance_from_initialisation(study)).value)


def test_the_margin_is_the_tenth_percentile_of_true_minus_best_other() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [1.0, 4.0, 0.0]])
    assert margins([(logits[:2], torch.tensor([0, 1])), (logits[2:], torch.tensor([0]))]).tolist() == [1.0, 4.0, -3.0]
    study = study_of()
    row = only_row(dg.diagnostics.margin(study))
    with torch.no_grad():
        logit_margins = []
        for source in study.sources:
            images, labels, _ = source.take(source.rows("train"))
            assert labels is not None
            for scores, label in zip(study.model(images), labels.tolist(), strict=True):
                others = [float(score) for k, score in enumerate(scores) if k != label]
                logit_margins.append(float(scores[label]) - max(others))
    assert row.value == pytest.approx(np.percentile(logit_margins, 10), abs=1e-5) and row.better_direction == "higher"
    assert row.low <= row.value <= row.high and row.images == 40
    draws = np.asarray(logit_margins)[np.random.default_rng(5).integers(0, 40, (4000, 40))]
    ends = np.percentile(np.percentile(draws, 10, axis=1), [2.5, 97.5])
    assert (row.low, row.high) == pytest.approx(ends, abs=0.1 * (ends[1] - ends[0]))


def test_sharpness_is_where_noise_reaches_the_limit() -> None:
    study = study_of()
    row = only_row(dg.diagnostics.sharpness(study, tolerance=0.05, draws=2))
    noise = WeightNoise(study, draws=2, seed=0, split="train", images=None)
    limit = 1.05 * row.training_loss
    assert noise.loss(0.0) == pytest.approx(row.training_loss)
    assert noise.loss(row.value) <= limit < noise.loss(1.01 * row.value)
    assert only_row(dg.diagnostics.sharpness(study, tolerance=0.05, draws=2)).value == row.value
    assert only_row(dg.diagnostics.sharpness(study, tolerance=0.05, draws=2, seed=7)).value != row.value


def test_the_noise_is_on_every_weight_and_independent() -> None:
    noise = WeightNoise(study_of(), draws=1, seed=5, split="train", images=None)
    draws = torch.cat([part.flatten() for part in noise.masking.direction(5).values()])
    assert float(draws.mean()) == pytest.approx(0, abs=0.1) and float(draws.std()) == pytest.approx(1, abs=0.1)
    unit = torch.cat([part.flatten() for part in noise.masking.direction(5, unit=True).values()])
    assert float(unit.double().norm()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(unit * draws.norm(), draws)


def test_noise_is_refused_by_a_part_of_the_images_as_it_would_be_by_all() -> None:
    noise = WeightNoise(study_of(), draws=2, seed=0, split="train", images=15)
    for size in (0.001, 0.02, 0.3):
        loss = noise.loss(size)
        assert noise.within(size, loss * (1 + 1e-9)) and not noise.within(size, loss * (1 - 1e-6))
        assert not noise.within(size, loss / 10)


class UpTo:
    """Noise that keeps the loss up to a size, as a multiple of the first one that the search tries."""

    def __init__(self, size: float) -> None:
        self.masking = WeightNoise(study_of(), draws=1, seed=0, split="train", images=None).masking
        every = torch.cat([weight.double().flatten() for weight in self.masking.full.values()])
        self.start = 0.01 * float(every.square().mean().sqrt())
        self.size = size * self.start

    def within(self, size: float, limit: float) -> bool:
        return size <= self.size


def test_the_search_has_no_value_where_no_size_is_the_limit() -> None:
    for size in (math.inf, 0.0):
        assert math.isnan(largest_noise(UpTo(size), limit=1.1))  # type: ignore[arg-type]


def test_the_search_reaches_far_and_ends_after_ten_halvings() -> None:
    noise = UpTo(2 ** (19 + 1023.5 / 1024))  # 19 doublings, below the largest of 1e6; then steps of 1/1024 in log2
    expected = noise.start * 2 ** (19 + 1023 / 1024)
    assert largest_noise(noise, limit=1.1) == pytest.approx(expected, rel=1e-9)  # type: ignore[arg-type]


def test_a_sharpness_beyond_the_search_is_empty_with_a_note() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
    with torch.no_grad():
        model.get_parameter("0.weight").zero_()[0, 0, 0, 0] = -1e-3
        model.get_parameter("0.bias").fill_(-1e9)  # the noise has to lift a filter above 0 to change anything
    with pytest.warns(dg.DgpruneNote, match="far: the sharpness is unknown, because the training loss does not pass"):
        row = only_row(dg.diagnostics.sharpness(study_of(model, name="far", shape=(3, 6, 6))))
    assert math.isnan(row.value) and row.training_loss > 0


def test_the_search_starts_from_a_fixed_size_where_all_weights_are_zero() -> None:
    model = plain_net().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    row = only_row(dg.diagnostics.sharpness(study_of(model)))
    noise = WeightNoise(study_of(model), draws=3, seed=0, split="train", images=None)
    assert row.value > 0.01 and noise.loss(row.value) <= 1.1 * row.training_loss < noise.loss(1.001 * row.value)


def test_random_perturbation_has_the_norm_of_pruning() -> None:
    study = study_of()
    row = only_row(dg.diagnostics.random_perturbation(study, tolerance=0.05, draws=2))
    noise = WeightNoise(study, draws=2, seed=0, split="train", images=None, unit=True)
    limit = 1.05 * row.training_loss
    reached = noise.loss(noise.masking.removed_norm(row.value))
    beyond = noise.loss(noise.masking.removed_norm(row.value - 0.01))
    assert reached <= limit and (beyond > limit or row.value == 0.01)
    assert row.low <= row.value <= row.high and row.better_direction == "lower" and row.seed == 0


def test_one_table_of_all() -> None:
    studies = [study_of(name="one"), study_of(name="two")]
    before = fingerprint(studies[0].model)
    with pytest.warns(dg.DgpruneNote, match="distance"):
        frame: Any = dg.diagnostics.generalization_measures(studies, draws=1, images=10)
    assert set(frame.metric) == {
        "prunability",
        "parameter_count",
        "l2_norm",
        "distance_from_initialisation",
        "margin",
        "sharpness",
        "random_perturbation",
        "sam_sharpness",
        "hessian_trace",
        "training_loss",
    }
    assert frame.network.value_counts().to_dict() == {"one": 10, "two": 10}
    better = frame.drop_duplicates("metric").set_index("metric").better_direction.to_dict()
    assert {name for name, direction in better.items() if direction == "higher"} == {"margin", "sharpness"}
    table = frame.pivot(index="metric", columns="network", values="value").dropna()
    assert (table.one == table.two).all(), "the same network has the same measures"
    alone: Any = dg.diagnostics.margin(studies[0], images=10)
    assert table.one["margin"] == only_row(alone).value
    assert fingerprint(studies[0].model) == before
    few: Any = dg.diagnostics.generalization_measures(studies, measures=["l2_norm", "margin"], images=10)
    metrics = ["prunability", "l2_norm", "margin", "training_loss"]
    assert list(few.metric) == [name for name in metrics for _ in studies]
    pd.testing.assert_frame_equal(few, frame[frame.metric.isin(metrics)].reset_index(drop=True))


def test_invalid_input_is_refused_with_a_message() -> None:
    study = study_of()
    measures = dg.diagnostics
    for ask, message in (
        (lambda: measures.sharpness(study, draws=0), "draws must lie in 1 to 1,000"),
        (lambda: measures.random_perturbation(study, draws=0), "draws must lie in 1 to 1,000"),
        (lambda: measures.sharpness(study, tolerance=0), "tolerance must be above 0"),
        (lambda: measures.random_perturbation(study, tolerance=-1), "tolerance must be above 0"),
        (lambda: measures.margin([]), "at least one study"),
        (lambda: measures.generalization_measures(study, measures=["margins"]), "unknown measure 'margins'.*'margin'"),
        (lambda: measures.margin(study_of(labelled=False)), "source 'a' has no labels"),
    ):
        with pytest.raises(dg.DgpruneError, match=message):
            ask()
    certain = nn.Sequential(nn.Conv2d(3, 2, 12), nn.Flatten(), nn.Linear(2, 1))
    source = dg.Domain.from_arrays(
        "a", images=torch.rand(60, 3, 12, 12), labels=[0] * 60, splits={"train": range(60)}, classes=1
    )
    with pytest.raises(dg.DgpruneError, match="the training loss of 'sure' is 0, so"):
        measures.sharpness(dg.Study(certain, sources=[source], name="sure"))
    with pytest.raises(dg.DgpruneError, match="the training loss of 'sure' is 0, so"):
        measures.prunability(dg.Study(certain, sources=[source], name="sure"))


def test_the_loss_under_noise_is_the_mean_over_draws_whose_seeds_count_up() -> None:
    study, kinds = study_of(), {"split": "train", "images": None}
    both, *each = (
        drain(WeightNoise(study, draws=draws, seed=seed, **kinds).losses(0.1))  # type: ignore[arg-type]
        for draws, seed in ((2, 3), (1, 3), (1, 4))
    )
    assert torch.allclose(both, (each[0] + each[1]) / 2) and not torch.allclose(each[0], each[1])


def test_a_row_about_all_sources_tells_what_was_seen_of_any() -> None:
    sources = [domain("a"), domain("b", seed=1)]
    study = dg.Study(randomise(plain_net(), dtype=torch.float32), sources=sources, trained_on=["b"])
    assert only_row(dg.diagnostics.margin(study)).seen_by_training == "labels"


def made_table(**changes: Any) -> Any:
    """Three measures of two networks: one with intervals apart, one with overlapping ones, one that is equal."""
    rows: list[dict[str, Any]] = []
    values = {"prunability": ((0.4, 0.3, 0.5), (0.8, 0.7, 1.0)), "margin": ((2.0, 1.0, 3.0), (4.0, 2.0, 5.0))}
    for metric, better in (("prunability", "lower"), ("margin", "higher"), ("parameter_count", "lower")):
        for k, name in enumerate("AB"):
            value, low, high = values.get(metric, ((9.0, None, None),) * 2)[k]
            about = {"metric": metric, "network": name, "better_direction": better, "unit": "share"}
            rows.append({**about, "value": value, "low": low, "high": high, **changes})
    return dg.tidy(rows, extra=("network", "better_direction", "tolerance", "training_loss"))


def test_the_chart_says_what_each_measure_predicts_and_whether_that_is_right() -> None:
    spec = dg.charts.generalization_measures(made_table(), measured="A").to_dict()
    data = {layer["data"]["name"]: layer["data"]["values"] for layer in spec["layer"] if "values" in layer["data"]}
    assert [(row["label"], row["verdict"]) for row in data["names"]] == [
        ("prunability, share kept (lower: better)", "predicts A: right"),
        ("margin (higher: better)", "predicts B: wrong, intervals overlap"),
        ("parameter count (lower: better)", "predicts neither"),
    ]
    points = [(row["share"], row["low"], row["high"]) for row in data["measures"] if row["measure"] == "prunability"]
    assert np.allclose(points, [(0.4, 0.3, 0.5), (0.8, 0.7, 1.0)]), "relative to the largest end"
    assert [row["number"] for row in data["measures"]][2:4] == [2.0, 4.0], "the tooltip has the value"
    assert data["measures"][0]["meaning"] == "smallest share of the weights that keeps the loss"
    low, high = spec["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert low < min(row["low"] for row in data["measures"]) and high > 1, "no bar ends with the axis"
    assert "NaN" not in dg.charts.svg(dg.charts.generalization_measures(made_table()))


def test_the_chart_of_measures_refuses_what_it_would_draw_wrongly() -> None:
    with pytest.raises(dg.DgpruneError, match="measured must be one of"):
        dg.charts.generalization_measures(made_table(), measured="C")
    with pytest.raises(dg.DgpruneError, match="several rows of one network"):
        dg.charts.generalization_measures(made_table(network="A"))
    with pytest.raises(dg.DgpruneError, match="no measures"):
        dg.charts.generalization_measures(made_table(value=None, low=None, high=None))
