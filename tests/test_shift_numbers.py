"""Every number of `feature_shift` recomputed from the features, with options other than the defaults."""

from __future__ import annotations

import importlib
from collections.abc import Generator, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from material import domain, images, norm_net, randomise, zeroed
from numpy.typing import NDArray
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab import stats
from dgprune_lab.core.masks import Mask
from dgprune_lab.core.steps import drain
from dgprune_lab.core.tables import BatchNorm
from dgprune_lab.stats.intervals import Estimate

MODULE = importlib.import_module("dgprune_lab.diagnostics.feature_shift")
IMAGES, LAYER, SEED, NEIGHBOURS = 50, "4", 7, 6
OPTIONS: dict[str, Any] = {
    "layer": LAYER,
    "scorer": "random",
    "ratios": [0.5],
    "scope": "global",
    "budget": "parameters",
    "split": "score",
    "batchnorm": "recalibrate",
    "images": IMAGES,
    "neighbours": NEIGHBOURS,
    "seed": SEED,
}
Values = Mapping[str, NDArray[np.float64]]


def study_of() -> dg.Study:
    """Sources of 60 and 40 scored images, the second without labels, and a dark target of 55."""
    made = []
    for k, (name, count, labelled) in enumerate((("a", 60, True), ("b", 40, False), ("t", 55, True))):
        parts = {"train": range(30), "score": range(30, 30 + count), "report": range(30 + count, 90 + count)}
        base = domain(name, count=90 + count, seed=k, labelled=labelled, splits=parts)
        pixels = base.images.clone()
        pixels[:, 0] *= 0.4 if name == "t" else 1
        classes = base.classes if labelled else None
        made.append(dg.Domain.from_arrays(name, images=pixels, labels=base.labels, splits=base.splits, classes=classes))
    return dg.Study(randomise(norm_net(), dtype=torch.float32), sources=made[:2], targets=made[2:])


def mask_of(study: dg.Study) -> Mask:
    return dg.allocate(study.score("random", seed=SEED), ratio=0.5, scope="global", budget="parameters")


@pytest.fixture(scope="module")
def made() -> tuple[dg.Study, pd.DataFrame, list[Values]]:
    """The table on the linear map; the standardised features of the full network as given and of the pruned one."""
    study = study_of()
    mask = mask_of(study)
    frame = dg.diagnostics.feature_shift(study, embedding="linear", **OPTIONS)
    raw: list[Values] = []
    settings: list[tuple[Mask | None, BatchNorm]] = [(None, "as_is"), (mask, "recalibrate")]
    for which, norm in settings:
        features = {
            name: drain(
                study.feature_steps(which, layer=LAYER, domain=name, split="score", batchnorm=norm, images=IMAGES)
            )
            for name in ("a", "b", "t")
        }
        raw.append({name: values.double().numpy() for name, values in features.items()})
    done = [stats.standardised(values, by=raw[0]["a"]) for values in raw]
    for values in done[1].values():
        values[:, ~mask.keep[LAYER].numpy()] = 0
    return study, frame, list(done)


def check(frame: pd.DataFrame, metric: str, expected: Estimate, **where: Any) -> None:
    """The one row of a metric at a place is this estimate, to the last digit."""
    rows = cast(pd.DataFrame, frame[frame.metric == metric])
    for key, value in where.items():
        rows = cast(pd.DataFrame, rows[rows[key].isna() if value is None else rows[key] == value])
    assert len(rows) == 1, (metric, where)
    row = cast(Any, rows.iloc[0])
    assert (row.value, row.low, row.high) == tuple(map(float, expected)), (metric, where)


def test_the_options_of_this_file_make_a_difference() -> None:
    study = study_of()
    mask = mask_of(study)
    scores = study.score("random", seed=SEED)
    others = [
        dg.allocate(scores, ratio=0.5),
        dg.allocate(scores, ratio=0.5, scope="global"),
        dg.allocate(scores, ratio=0.5, budget="parameters"),
        dg.allocate(study.score("random"), ratio=0.5, scope="global", budget="parameters"),
    ]
    for other in others:
        assert not torch.equal(mask.keep[LAYER], other.keep[LAYER])
    assert 0 < int(mask.keep[LAYER].sum()) < 8


@pytest.mark.parametrize("which", [0, 1])
def test_the_distances_of_the_domains(made: tuple[dg.Study, pd.DataFrame, list[Values]], which: int) -> None:
    _, frame, features = made
    values, ratio = features[which], (0.0, 0.5)[which]
    bandwidth = stats.median_distance(np.concatenate([features[0][name] for name in ("a", "b", "t")]))
    for one, other in (("a", "b"), ("a", "t"), ("b", "t")):
        x, y = values[one], values[other]
        ids = np.arange(len(x)), np.arange(len(y))
        at = {"domain": other, "other": one, "ratio_requested": ratio}
        check(frame, "mmd", stats.mmd(x, y, bandwidth=bandwidth, ids=ids, seed=SEED), **at)
        check(frame, "coral", stats.coral(x, y, ids=ids, seed=SEED), **at)
        check(frame, "proxy_a_distance", stats.proxy_a_distance(x, y, ids=ids, seed=SEED), **at)
    at = {"ratio_requested": ratio, "domain": None}
    whole, known = np.concatenate(list(values.values())), np.concatenate([values["a"], values["t"]])
    domains = np.repeat(["a", "b", "t"], [50, 40, 50])
    check(frame, "silhouette_domains", stats.silhouette(whole, domains), **at)
    classes = [made[0].domain(name).take(made[0].domain(name).rows("score", IMAGES)).labels for name in ("a", "t")]
    labels = torch.cat(cast(list[Tensor], classes)).numpy()
    check(frame, "silhouette_classes", stats.silhouette(known, labels), **at)
    rows = frame[(frame.ratio_requested == ratio) & (frame.metric == "mmd")]
    assert set(rows.batchnorm) == {("as_is", "recalibrate")[which]} and set(rows.split) == {"score"}


def test_alignment_is_of_the_full_and_the_pruned_features(made: tuple[dg.Study, pd.DataFrame, list[Values]]) -> None:
    _, frame, features = made
    for name in ("a", "b", "t"):
        expected = stats.cka(features[0][name], features[1][name], seed=SEED)
        assert expected.value < 0.95
        check(frame, "cka", expected, domain=name, ratio_requested=0.5)
    assert len(frame[frame.metric == "cka"]) == 3


def test_the_map_and_its_trustworthiness(made: tuple[dg.Study, pd.DataFrame, list[Values]]) -> None:
    _, frame, features = made
    stacked = np.concatenate([part for values in features for part in values.values()])
    places = np.stack([frame[frame.metric == f"map_{axis}"].value for axis in (1, 2)], axis=1)
    row = frame[frame.metric == "trustworthiness"].iloc[0]
    expected = stats.trustworthiness(stacked, places, neighbours=NEIGHBOURS)
    usual = stats.trustworthiness(stacked, places)
    assert row.value == pytest.approx(float(expected.value), abs=1e-12) and row.low < row.value < row.high
    assert abs(float(expected.value - usual.value)) > 1e-4 and row.images == len(stacked) == 280
    full = np.concatenate(list(features[0].values()))
    axes = np.linalg.svd(full - full.mean(0), full_matrices=False)[2][:2]
    assert np.allclose(np.abs(places), np.abs((stacked - full.mean(0)) @ axes.T), atol=1e-9)


def test_the_fit_gets_all_rows_the_seed_and_the_neighbours(
    made: tuple[dg.Study, pd.DataFrame, list[Values]], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _, features = made
    stacked = np.concatenate([part for values in features for part in values.values()])
    calls: list[tuple[NDArray[np.float64], dict[str, Any]]] = []

    def fit(rows: NDArray[np.float64], **options: Any) -> Generator[tuple[str, float], None, NDArray[np.float32]]:
        calls.append((rows, options))
        yield "drawing", 0.5
        return rows[:, [2, 1]].astype(np.float32)

    monkeypatch.setattr(MODULE, "fit_steps", fit)
    frame = dg.diagnostics.feature_shift(study, embedding="umap", **OPTIONS)
    ((rows, options),) = calls
    assert np.array_equal(rows, stacked) and (options["seed"], options["neighbours"]) == (SEED, NEIGHBOURS)
    places = np.stack([frame[frame.metric == f"map_{axis}"].value for axis in (1, 2)], axis=1)
    assert np.array_equal(places, stacked[:, [2, 1]].astype(np.float32).astype(np.float64))


def test_the_rows_of_the_trustworthiness_are_drawn_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_TRUSTED", 60)
    study, results = study_of(), []
    for seed in (0, SEED, SEED):
        options = {**OPTIONS, "scorer": "l1", "ratios": [], "seed": seed}
        frame = dg.diagnostics.feature_shift(study, embedding="linear", **options)
        results.append(frame[frame.metric == "trustworthiness"].iloc[0])
    assert [row.images for row in results] == [60] * 3
    assert results[1].value == results[2].value and results[0].value != results[1].value


def test_features_are_cached_per_split_and_number_of_calibration_images() -> None:
    kept = study_of()
    mask = mask_of(kept)
    calls: list[dict[str, Any]] = [
        {"split": "score", "images": 40},
        {"split": "report", "images": 40},
        {"split": "report", "images": 39},
        *({"batchnorm": "recalibrate", "calibration": count} for count in (8, 20)),
    ]
    results = [drain(kept.feature_steps(mask, layer=LAYER, domain="t", **options)) for options in calls]
    for features, options in zip(results, calls, strict=True):
        fresh = drain(study_of().feature_steps(mask, layer=LAYER, domain="t", **options))
        assert torch.equal(features, fresh), options
    assert not torch.allclose(results[0], results[1]) and not torch.allclose(results[3], results[4], atol=1e-3)


class Joined(nn.Module):
    """Two branches side by side, read by one convolution."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
        self.join, self.head = nn.Conv2d(9, 6, 1), nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(torch.cat([self.left(x).relu(), self.right(x).relu()], 1)).relu().mean((2, 3)))


def read_by(net: nn.Module, pixels: Tensor) -> Tensor:
    """What the layer `join` of a network gets."""
    seen: list[Tensor] = []
    handle = net.get_submodule("join").register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.no_grad():
        net(pixels)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize(
    "removed", [{"left": [0, 2], "right": [1, 3]}, {"left": [1]}, {"right": [0, 4], "join": [2]}], ids=str
)
def test_two_branches_with_one_consumer(removed: dict[str, list[int]]) -> None:
    model = randomise(Joined(), dtype=torch.float32)
    with torch.no_grad():
        for branch in (model.left, model.right):
            cast(Tensor, branch.bias).fill_(0.5)  # every filter answers
    study = dg.Study(model, sources=[domain("a")], targets=[domain("t", seed=2)])
    mask = dg.Mask.by_hand(study.graph, removed=removed)
    batch = study.domain("t").take(study.domain("t").rows("report"))
    for which, net in ((None, model), (mask, zeroed(model, mask))):
        means = read_by(net, batch.images).mean((2, 3))
        for layer, expected in (("left", means[:, :4]), ("right", means[:, 4:])):
            results = drain(study.feature_steps(which, layer=layer, domain="t"))
            assert torch.allclose(results, expected, atol=1e-5) and expected.std() > 0.01, layer
            assert (results == 0).all(0).nonzero().flatten().tolist() == (removed.get(layer, []) if which else [])


def test_the_example_has_the_positions_that_the_test_assumes() -> None:
    graph = dg.read_groups(randomise(Joined(), dtype=torch.float32), images(2, 3, 12, 12))
    assert [graph[name].consumers for name in ("left", "right")] == [("join",), ("join",)]
    assert graph["right"].consumer_inputs["join"][0].tolist() == [4, 5, 6, 7, 8]
