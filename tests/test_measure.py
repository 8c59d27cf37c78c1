"""Outcomes, intervals over images, and the rows of `measure`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from material import ResidualNet, domain, norm_net, plain_net, randomise
from scipy.stats import binomtest
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.tables import COLUMNS, SEEN
from dgprune_lab.measurement.cost import LATENCY_REPEATS, timings
from dgprune_lab.stats import intervals


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
