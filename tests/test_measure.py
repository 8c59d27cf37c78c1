"""Outcomes, intervals over images, and the rows of `measure`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from material import ResidualNet, domain, norm_net, plain_net, randomise
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.kinds import COLUMNS, SEEN
from dgprune_lab.measurement.metrics import LATENCY_REPEATS, timings, worst_rows
from dgprune_lab.stats import calibration_error, intervals


def net(seed: int = 0) -> nn.Module:
    return randomise(norm_net(), seed=seed, dtype=torch.float32)


@pytest.mark.slow
def test_intervals_have_about_their_nominal_coverage() -> None:
    generator = np.random.default_rng(0)
    for truth, count in ((0.8, 300), (0.5, 100)):
        low, high = intervals.over_images((generator.random((count, 600)) < truth).astype(float))
        covered = float(((low <= truth) & (high >= truth)).mean())
        assert 0.91 < covered < 0.98
    skewed = generator.exponential(size=(400, 400))
    low, high = intervals.over_images(skewed)
    assert 0.90 < float(((low <= 1) & (high >= 1)).mean()) < 0.98


def test_a_difference_is_a_paired_bootstrap() -> None:
    generator = np.random.default_rng(1)
    before = (generator.random(400) < 0.8).astype(float)
    after = np.where(generator.random(400) < 0.05, 1 - before, before)
    low, high = intervals.difference(after, before)
    draws = generator.integers(0, 400, (4000, 400))
    slow = np.percentile((after - before)[draws].mean(1), [2.5, 97.5])
    assert [low, high] == pytest.approx(slow.tolist(), abs=0.004)
    unpaired = np.percentile(
        after[generator.integers(0, 400, (4000, 400))].mean(1)
        - before[generator.integers(0, 400, (4000, 400))].mean(1),
        [2.5, 97.5],
    )
    assert high - low < 0.6 * float(unpaired[1] - unpaired[0])
    assert low < (after - before).mean() < high


def test_measurements_on_the_same_images_share_their_resamples() -> None:
    """The bounds of one column do not depend on its neighbours, and an equal column has equal bounds."""
    generator = np.random.default_rng(2)
    values = generator.random((150, 3))
    values[:, 2] = values[:, 0]
    low, high = intervals.over_images(values)
    alone = intervals.over_images(values[:, 0])
    assert low[0] == low[2] and high[0] == high[2]
    assert (float(alone[0]), float(alone[1])) == pytest.approx((low[0], high[0]), abs=1e-6)
    again = intervals.over_images(values)
    assert (again[0] == low).all() and (again[1] == high).all()


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_constant_columns_get_the_exact_binomial_bound(count: int) -> None:
    exact = binomtest(0, count).proportion_ci(0.95, method="exact").high
    ones, zeros = np.ones(count), np.zeros(count)
    assert [float(v) for v in intervals.over_images(zeros)] == pytest.approx([0, exact])
    assert [float(v) for v in intervals.over_images(ones)] == pytest.approx([1 - exact, 1])
    assert intervals.difference(ones, ones) == pytest.approx((-exact, exact))
    assert intervals.difference(ones, zeros) == pytest.approx((1 - exact, 1))
    assert intervals.difference(zeros, ones) == pytest.approx((-1, -1 + exact))
    low, high = intervals.over_images(np.full(count, 0.7))
    assert np.isnan(low) and np.isnan(high)


def test_large_splits_are_resampled_in_blocks() -> None:
    """Past a size the resamples are drawn in pieces: the bounds must still be those of a bootstrap."""
    values = (np.random.default_rng(3).random(40_000) < 0.9).astype(float)
    low, high = (float(v) for v in intervals.over_images(values))
    deviation = 1.96 * values.std() / len(values) ** 0.5
    assert (low, high) == pytest.approx((values.mean() - deviation, values.mean() + deviation), abs=0.0006)


@pytest.mark.parametrize("builder", [plain_net, norm_net, ResidualNet])
def test_outcomes_equal_those_of_torch(builder: type[nn.Module]) -> None:
    model = randomise(builder(), dtype=torch.float32)
    data = domain("a", count=90)
    result = dg.evaluate(model, data, size=7)
    batch = data.take(data.rows("report"))
    with torch.no_grad():
        logits = model(batch.images)
    assert batch.labels is not None and torch.equal(result.index, data.rows("report"))
    assert torch.equal(result.predicted, logits.argmax(1)) and torch.equal(result.labels, batch.labels)  # type: ignore[arg-type]
    assert torch.allclose(result.loss, F.cross_entropy(logits, batch.labels, reduction="none").double(), atol=1e-5)
    assert result.accuracy == pytest.approx(float((logits.argmax(1) == batch.labels).double().mean()))
    assert len(dg.evaluate(model, data, "score", images=11)) == 11


def test_rows_of_measure() -> None:
    model, data = (
        net(),
        [domain("a", count=90).as_role("source"), domain("t", seed=3, labelled=False).as_role("target")],
    )
    table = dg.measure(model, data)
    assert tuple(table.columns) == COLUMNS
    assert sorted(table.metric) == ["accuracy", "bytes", "latency", "loss", "macs", "parameters"]
    rows = table.set_index("metric")
    assert rows.unit.to_dict() == {
        "accuracy": "share",
        "loss": "nats",
        "parameters": "count",
        "macs": "per image",
        "bytes": "bytes",
        "latency": "ms per 30 images",
    }
    outcomes = dg.evaluate(model, data[0])
    assert rows.value["accuracy"] == outcomes.accuracy and rows.value["loss"] == pytest.approx(
        float(outcomes.loss.mean())
    )
    assert (
        rows.images["accuracy"] == 30
        and rows.domain["loss"] == "a"
        and rows.role["loss"] == "source"
        and rows.split["loss"] == "report"
    )
    for metric in ("accuracy", "loss"):
        assert rows.low[metric] < rows.value[metric] < rows.high[metric] and rows.interval[metric] == "images"
    graph = dg.read_groups(model, torch.zeros(1, 3, 12, 12))
    assert [rows.value[m] for m in ("parameters", "macs", "bytes")] == [
        getattr(graph.cost(), m) for m in ("parameters", "macs", "bytes")
    ]
    assert rows.loc[["parameters", "macs", "bytes"], ["low", "high", "interval"]].isna().all(axis=None)
    assert (
        rows.interval["latency"] == "range" and 0 < rows.low["latency"] <= rows.value["latency"] <= rows.high["latency"]
    )
    assert len(list(timings(model, torch.zeros(2, 3, 12, 12)))) == LATENCY_REPEATS
    assert list(rows.loc["accuracy", list(SEEN)]) == ["unknown", "none", "none", "none"]


def test_an_unlabelled_target_has_no_accuracy_but_a_cost() -> None:
    table = dg.measure(net(), domain("t", labelled=False), latency=False)
    assert sorted(table.metric) == ["bytes", "macs", "parameters"]
    result = dg.evaluate(net(), domain("t", labelled=False))
    assert (
        result.labels is None
        and result.correct is None
        and np.isnan(result.accuracy)
        and bool(result.loss.isnan().all())
    )


def test_measure_recalibrates_on_request() -> None:
    model, data = net(), [domain("a", count=90).as_role("source"), domain("t", count=90, seed=3).as_role("target")]
    recalibrated = dg.measure(model, data, batchnorm="recalibrate", latency=False)
    by_hand = dg.measure(dg.recalibrate(model, data), data, latency=False)
    as_is = dg.measure(model, data, latency=False)
    assert set(recalibrated.batchnorm) == {"recalibrate"} and set(as_is.batchnorm) == {"as_is"}
    losses = [list(t[t.metric == "loss"].value) for t in (recalibrated, by_hand, as_is)]
    assert losses[0] == losses[1] and losses[0] != losses[2]
    train = dg.measure(model, data[0], split="train", batchnorm="recalibrate", latency=False)
    assert set(train[train.metric == "loss"].seen_by_finetuning) == {"images"}
    with pytest.raises(dg.DgpruneError, match=r"batchnorm must be one of 'as_is', 'recalibrate'; got 'refresh'"):
        dg.measure(model, data, batchnorm="refresh")  # type: ignore[arg-type]
    with pytest.raises(dg.DgpruneError, match=r"at least one domain"):
        dg.measure(model, [])


class Small(nn.Module):
    """A device with room for five images at a time."""

    def __init__(self, room: int = 5) -> None:
        super().__init__()
        self.room, self.inner = room, net()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(x)


def test_out_of_memory_falls_back_to_smaller_batches_with_a_note() -> None:
    data, expected = domain("a", count=90), dg.evaluate(net(), domain("a", count=90))
    with pytest.warns(dg.DgpruneNote, match=r"memory ran out at \d+ images a batch; going on with \d"):
        result = dg.evaluate(Small(), data)
    assert torch.equal(result.predicted, expected.predicted) and torch.equal(result.index, expected.index)
    assert torch.allclose(result.loss, expected.loss, atol=1e-5)
    with pytest.warns(dg.DgpruneNote, match=r"memory ran out"):
        study = dg.Study(Small(), sources=[data])
        scores = study.score("taylor").values
    plain = dg.Study(net(), sources=[data]).score("taylor").values
    assert all(torch.allclose(scores[f"inner.{key}"], plain[key], atol=1e-5) for key in plain)
    with pytest.raises(dg.DgpruneError, match=r"too little memory for two images"):
        dg.evaluate(Small(room=0), data)


def test_rows_of_a_pruned_network_hold_requested_and_achieved_ratio() -> None:
    study = dg.demo()
    mask = dg.allocate(study.score("random", seed=3), ratio=0.33)
    rows = dg.measure(dg.prune(study.model, mask), study.sources, images=20, latency=False, batchnorm="recalibrate")
    assert set(rows.scorer) == {"random"} and set(rows.seed) == {3} and set(rows.ratio_requested) == {0.33}
    assert (
        set(rows.ratio_achieved) == {mask.ratio_achieved}
        and set(rows["scope"]) == {"layer"}
        and set(rows["budget"]) == {"filters"}
    )
    assert dg.measure(study.model, study.sources, images=20, latency=False).scorer.isna().all()


def logits_of(model: nn.Module, data: dg.Domain) -> tuple[np.ndarray, np.ndarray]:
    """Softmax probabilities (N, classes) and labels of the report split, by hand."""
    batch = data.take(data.rows("report"))
    assert batch.labels is not None
    with torch.no_grad():
        return model(batch.images).double().softmax(1).numpy(), batch.labels.numpy()


def test_the_loss_is_the_negative_log_likelihood() -> None:
    model, data = net(), domain("a", count=150)
    probabilities, labels = logits_of(model, data)
    rows = dg.measure(model, data, latency=False).set_index("metric")
    assert rows.value["loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(4)), abs=1e-6)


@pytest.mark.parametrize(
    ("correct", "confidence", "error"),
    [
        ([1, 1, 0, 0], [0.5] * 4, 0.0),  # half are right, and half is claimed
        ([1, 1, 1, 1], [1.0] * 4, 0.0),
        ([0, 0, 0, 0], [1.0] * 4, 1.0),
        ([1, 0], [0.9, 0.7], (0.1 + 0.7) / 2),  # two bins
        ([1, 0], [0.91, 0.92], abs(1 - 0.91 - 0.92) / 2),  # one bin: the errors cancel
        ([1, 0], [8 / 15, 7 / 15], (7 / 15 + 7 / 15) / 2),  # an edge belongs to the bin below
        ([1, 0], [8 / 15, 8 / 15 - 0.01], abs(1 - 16 / 15 + 0.01) / 2),
    ],
)
def test_calibration_errors_in_closed_form(correct: list[int], confidence: list[float], error: float) -> None:
    value, low, high = calibration_error(np.array(correct, float), np.array(confidence))
    assert value == pytest.approx(error, abs=1e-12) and 0 <= low <= value <= high <= 1


def test_the_calibration_error_of_a_network_is_that_of_scikit_learn() -> None:
    model, data = net(), domain("a", count=1500)
    probabilities, labels = logits_of(model, data)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    true, claimed = calibration_curve(right, confidence, n_bins=15)
    counts, _ = np.histogram(confidence, bins=15, range=(0, 1))
    rows = dg.measure(model, data, latency=False, metrics=["calibration_error"]).set_index("metric")
    expected = float((np.abs(true - claimed) * counts[counts > 0]).sum() / counts.sum())
    assert rows.value["calibration_error"] == pytest.approx(expected, abs=1e-6)
    assert expected > 0.1 and rows.low["calibration_error"] < expected < rows.high["calibration_error"]


def test_the_interval_of_the_calibration_error_covers_the_true_one() -> None:
    """Without the correction for its bias the interval of a calibrated network never holds 0."""
    generator = np.random.default_rng(0)
    for shift, truth in ((0.0, 0.0), (0.2, 0.2)):
        confidence = 0.25 + 0.75 * generator.random((100, 300))
        right = generator.random((100, 300)) < confidence - shift
        ends = [calibration_error(r.astype(float), c) for r, c in zip(right, confidence, strict=True)]
        assert np.mean([low <= truth <= high for _, low, high in ends]) > 0.88
        if not shift:
            assert min(value for value, _, _ in ends) > 0.02, "the error itself is too high"


def test_further_metrics_are_rows_only_where_they_are_asked_for() -> None:
    model = net()
    sources = [domain(name, count=150, seed=k).as_role("source") for k, name in enumerate("ab")]
    targets = [domain("t", count=150, seed=3).as_role("target"), domain("u", seed=4, labelled=False).as_role("target")]
    short = dg.measure(model, [*sources, *targets], latency=False)
    table = dg.measure(
        model, [*sources, *targets], latency=False, metrics=["worst_domain", "per_class", "calibration_error"]
    )
    assert tuple(short.columns) == COLUMNS and list(table.columns) == [*COLUMNS, "class", "class_name"]
    plain: Any = table[table.metric.isin(short.metric)].reset_index(drop=True)
    pd.testing.assert_frame_equal(plain[list(COLUMNS)], short)
    accuracy = table[table.metric == "accuracy"].set_index("domain")
    worst = table[table.metric == "worst_domain_accuracy"].set_index("role")
    assert worst.domain.to_dict() == {"source": accuracy.value[["a", "b"]].idxmin(), "target": "t"}
    assert worst.value["source"] == accuracy.value[["a", "b"]].min()
    assert (worst.low["source"], worst.high["source"]) == tuple(accuracy.loc[["a", "b"], ["low", "high"]].min())
    assert worst.loc["target", ["value", "low", "high"]].equals(accuracy.loc["t", ["value", "low", "high"]])
    classes = table[(table.metric == "class_accuracy") & (table.domain == "t")].set_index("class")
    outcomes = dg.evaluate(model, targets[0])
    assert outcomes.correct is not None and outcomes.labels is not None
    for number in range(4):
        right = outcomes.correct[outcomes.labels == number]
        assert classes.value[number] == float(right.double().mean()) and classes.images[number] == len(right)
        assert classes.low[number] <= classes.value[number] <= classes.high[number]
    assert (classes.value * classes.images).sum() / 50 == pytest.approx(outcomes.accuracy)
    assert set(table[table.domain == "u"].metric) == set()
    with pytest.raises(dg.DgpruneError, match=r"metrics: per_class need labels"):
        dg.measure(model, targets[1], latency=False, metrics=["per_class"])
    with pytest.raises(dg.DgpruneError, match=r"'worst'.*Did you mean 'worst_domain'"):
        dg.measure(model, sources, latency=False, metrics=["worst"])  # type: ignore[list-item]


def test_the_worst_domain_is_target_aware_where_any_domain_of_its_role_is() -> None:
    ends = {"metric": "accuracy", "low": 0.1, "high": 0.9}
    rows = [
        {**ends, "domain": name, "role": role, "value": value, "target_aware": aware}
        for name, role, value, aware in (
            ("s", "source", 0.9, False),
            ("t", "target", 0.2, False),
            ("u", "target", 0.5, True),
            ("v", None, 0.4, None),
            ("w", None, 0.3, False),
        )
    ]
    worst = {row["role"]: (row["domain"], row["target_aware"]) for row in worst_rows(rows)}
    assert worst == {"source": ("s", False), "target": ("t", True), None: ("w", None)}


def test_the_worst_of_equal_domains_is_covered_as_stated() -> None:
    right = np.random.default_rng(5).random((200, 3 * 400)) < 0.7
    low, high = (ends.reshape(400, 3).min(1) for ends in intervals.over_images(right.astype(float)))
    assert 0.89 < np.mean((low <= 0.7) & (high >= 0.7)) < 0.97


def test_a_class_without_an_image_has_no_accuracy_and_names_stand_beside_numbers() -> None:
    plain = domain("a", count=90)
    assert plain.labels is not None
    named = dg.Domain.from_arrays(
        "a",
        images=plain.images,
        labels=plain.labels.clamp(max=2),
        splits=plain.splits,
        classes=["cat", "dog", "owl", "yak"],
    )
    table = dg.measure(net(), named, latency=False, metrics="per_class")  # type: ignore[arg-type]
    rows = table[table.metric == "class_accuracy"].set_index("class_name")
    assert list(rows.index) == ["cat", "dog", "owl", "yak"]
    assert rows.images["yak"] == 0 and rows.loc["yak", ["value", "low", "high"]].isna().all()
