"""Measures to hold prunability against: closed forms, one table of all, what is unknown is said."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from material import domain, fingerprint, plain_net, randomise
from torch import nn

import dgprune_lab as dg
from dgprune_lab.diagnostics._weight_noise import Shaken, largest_noise, margins
from dgprune_lab.measurement.weight_masking import prunable
from dgprune_lab.models.networks import build


def study_of(
    model: nn.Module | None = None, *, name: str = "net", shape: Any = (3, 12, 12), **options: Any
) -> dg.Study:
    net = randomise(plain_net(), dtype=torch.float32) if model is None else model
    return dg.Study(net, sources=[domain("a", shape=shape, **options), domain("b", seed=1, shape=shape)], name=name)


def one(frame: Any) -> Any:
    assert len(frame) == 1
    return frame.iloc[0]


def test_counts_and_norms_in_closed_form() -> None:
    study = study_of()
    flat = torch.cat([weight.detach().flatten() for weight in prunable(study.model).values()])
    assert one(dg.diagnostics.parameter_count(study)).value == sum(p.numel() for p in study.model.parameters())
    assert one(dg.diagnostics.l2_norm(study)).value == pytest.approx(float(flat.double().norm()))
    assert one(dg.diagnostics.l2_norm(study)).better == "lower"


def test_the_distance_is_from_the_weights_that_builder_and_seed_give() -> None:
    model = build("lenet", widths=(4, 6), hidden=(8, 8), seed=3)
    small = (3, 28, 28)
    assert one(dg.diagnostics.distance_from_initialisation(study_of(model, shape=small))).value == 0
    with torch.no_grad():
        model.get_parameter("conv1.weight")[0, 0, 0, 0] += 3
        model.get_parameter("fc1.weight")[0, 0] -= 4
    frame = dg.diagnostics.distance_from_initialisation(study_of(model, shape=small))
    assert one(frame).value == pytest.approx(5)
    with pytest.warns(dg.DgpruneNote, match="net: the distance from its initial weights is unknown"):
        assert math.isnan(one(dg.diagnostics.distance_from_initialisation(study_of())).value)


def test_the_margin_is_the_tenth_percentile_of_true_minus_best_other() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [1.0, 4.0, 0.0]])
    assert margins([(logits[:2], torch.tensor([0, 1])), (logits[2:], torch.tensor([0]))]).tolist() == [1.0, 4.0, -3.0]
    study = study_of()
    row = one(dg.diagnostics.margin(study))
    with torch.no_grad():
        found = []
        for source in study.sources:
            images, labels, _ = source.take(source.rows("train"))
            assert labels is not None
            for scores, label in zip(study.model(images), labels.tolist(), strict=True):
                others = [float(score) for k, score in enumerate(scores) if k != label]
                found.append(float(scores[label]) - max(others))
    assert row.value == pytest.approx(np.percentile(found, 10), abs=1e-5) and row.better == "higher"
    assert row.low <= row.value <= row.high and row.images == 40


def test_sharpness_is_where_noise_reaches_the_limit() -> None:
    study = study_of()
    row = one(dg.diagnostics.sharpness(study, tolerance=0.05, draws=2))
    shaken = Shaken(study, draws=2, seed=0, split="train", images=None)
    limit = 1.05 * row.training_loss
    assert shaken.loss(0.0) == pytest.approx(row.training_loss)
    assert shaken.loss(row.value) <= limit < shaken.loss(1.01 * row.value)
    assert one(dg.diagnostics.sharpness(study, tolerance=0.05, draws=2)).value == row.value
    assert one(dg.diagnostics.sharpness(study, tolerance=0.05, draws=2, seed=7)).value != row.value


def test_the_noise_is_on_every_weight_and_independent() -> None:
    shaken = Shaken(study_of(), draws=1, seed=5, split="train", images=None)
    drawn = torch.cat([part.flatten() for part in shaken.twin.direction(5).values()])
    assert float(drawn.mean()) == pytest.approx(0, abs=0.1) and float(drawn.std()) == pytest.approx(1, abs=0.1)
    unit = torch.cat([part.flatten() for part in shaken.twin.direction(5, unit=True).values()])
    assert float(unit.double().norm()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(unit * drawn.norm(), drawn)


def test_a_loss_that_noise_never_raises_ends_somewhere() -> None:
    class Flat:
        twin = Shaken(study_of(), draws=1, seed=0, split="train", images=None).twin

        def loss(self, size: float) -> float:
            return 1.0

    assert 0 < largest_noise(Flat(), limit=1.1) < math.inf  # type: ignore[arg-type]


def test_random_perturbation_goes_as_far_as_pruning() -> None:
    study = study_of()
    row = one(dg.diagnostics.random_perturbation(study, tolerance=0.05, draws=2))
    shaken = Shaken(study, draws=2, seed=0, split="train", images=None, unit=True)
    limit = 1.05 * row.training_loss
    reached = shaken.loss(shaken.twin.removed_norm(row.value))
    beyond = shaken.loss(shaken.twin.removed_norm(row.value - 0.01))
    assert reached <= limit and (beyond > limit or row.value == 0.01)
    assert row.low <= row.value <= row.high and row.better == "lower" and row.seed == 0


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
        "training_loss",
    }
    assert frame.network.value_counts().to_dict() == {"one": 8, "two": 8}
    better = frame.drop_duplicates("metric").set_index("metric").better.to_dict()
    assert {name for name, way in better.items() if way == "higher"} == {"margin", "sharpness"}
    table = frame.pivot(index="metric", columns="network", values="value").dropna()
    assert (table.one == table.two).all(), "the same network has the same measures"
    alone: Any = dg.diagnostics.margin(studies[0], images=10)
    assert table.one["margin"] == one(alone).value
    assert fingerprint(studies[0].model) == before


def test_bad_input_is_a_sentence() -> None:
    study = study_of()
    ways = dg.diagnostics
    for ask, said in (
        (lambda: ways.sharpness(study, draws=0), "draws must be at least 1"),
        (lambda: ways.random_perturbation(study, draws=0), "draws must be at least 1"),
        (lambda: ways.sharpness(study, tolerance=0), "tolerance must be above 0"),
        (lambda: ways.random_perturbation(study, tolerance=-1), "tolerance must be above 0"),
        (lambda: ways.margin([]), "at least one study"),
        (lambda: ways.margin(study_of(labelled=False)), "source 'a' has no labels"),
    ):
        with pytest.raises(dg.DgpruneError, match=said):
            ask()
    certain = nn.Sequential(nn.Conv2d(3, 2, 12), nn.Flatten(), nn.Linear(2, 1))
    source = dg.Domain.from_arrays(
        "a", images=torch.rand(60, 3, 12, 12), labels=[0] * 60, splits={"train": range(60)}, classes=1
    )
    with pytest.raises(dg.DgpruneError, match="the training loss of 'sure' is 0, so"):
        ways.sharpness(dg.Study(certain, sources=[source], name="sure"))
    with pytest.raises(dg.DgpruneError, match="the training loss of 'sure' is 0 to the last digit"):
        ways.prunability(dg.Study(certain, sources=[source], name="sure"))
