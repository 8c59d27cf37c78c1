"""On a GPU: few transfers, numbers as on the CPU. What can be is tested without one, on a pretended GPU."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from material import ResidualNet, domain, norm_net, randomise
from pretend_gpu import DEVICE, PretendGpu
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core import collect_notes, drain
from dgprune_lab.measurement import gather
from dgprune_lab.measurement.collectors import on_cpu
from dgprune_lab.pruning import copies
from dgprune_lab.scorers import SCORERS

NEEDS: Any = (
    *("activation_map", "activation_unit_map", "mean_map", "unit_map", "conv_map", "conv_unit_map", "class_map"),
    *("moments", "gate", "class_gate", "risk", "weight_gradient", "co_moments", "class_co_moments"),
)


def shallow() -> nn.Module:
    return randomise(norm_net(), dtype=torch.float32)


def deep() -> nn.Module:
    return randomise(ResidualNet(), dtype=torch.float32)


def assert_same(first: Any, second: Any, *, tolerance: float = 1e-4) -> None:
    """Two values of nested containers agree, numbers to `tolerance` times the largest of their tensor."""
    if isinstance(first, Tensor):
        assert type(second) is type(first) and first.shape == second.shape and first.dtype == second.dtype
        a, b = first.double(), second.double()
        assert float((a - b).abs().max()) <= tolerance * float(a.abs().max().clamp_min(1e-6))
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key], tolerance=tolerance)
    elif isinstance(first, tuple):
        for a, b in zip(first, second, strict=True):
            assert_same(a, b, tolerance=tolerance)
    elif isinstance(first, float):
        assert first == pytest.approx(second, rel=tolerance)
    else:
        assert first == second


@pytest.mark.parametrize("build", [shallow, deep])
def test_a_pass_reads_from_a_gpu_once_for_all_layers_and_batches(build: Any) -> None:
    model, data = build(), domain("a")
    graph = dg.read_groups(model, data.images[:2])
    expected = gather(model, graph, domain=data, needs=NEEDS, size=7)
    transfers = []
    for size in (7, 20):
        with PretendGpu() as gpu:
            there, images = copy.deepcopy(model).to(DEVICE), data.to(DEVICE)
            gpu.reads.clear()
            found = gather(there, graph, domain=images, needs=NEEDS, size=size)
        transfers.append(gpu.reads.total())
        if size == 7:
            assert_same(vars(expected), vars(found), tolerance=1e-5)
    # The results, joined by type (float64, float32, int64, bool), and once the labels, to sort them by class.
    assert transfers == [5, 5]


@pytest.mark.parametrize("build", [shallow, deep])
@pytest.mark.parametrize("batchnorm", ["as_is", "recalibrate"])
def test_a_tick_waits_for_a_gpu_twice_per_domain(build: Any, batchnorm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if build is deep:  # whether large weights are cut only at their ends is known on the CPU
        monkeypatch.setattr(copies, "_LARGE_BYTES", 100)
    model, domains = build(), [domain("a"), domain("b", seed=1)]
    here = dg.Study(model, sources=domains[:1], targets=domains[1:])
    scores = here.score("l1")
    with PretendGpu() as gpu:
        images = [data.to(DEVICE) for data in domains]
        study = dg.Study(copy.deepcopy(model).to(DEVICE), sources=images[:1], targets=images[1:])
        for ratio in (0.2, 0.5):
            mask = dg.allocate(scores, ratio=ratio)
            gpu.reads.clear()
            gpu.writes.clear()
            found = [study.outcomes(mask, domain=data.name, batchnorm=batchnorm) for data in domains]
    assert gpu.reads.total() == 2 * len(domains)  # whether the network has changed, and all outcomes
    assert gpu.writes.total() <= 1 + 2 * len(domains)  # which filters stay, which images
    for outcomes, data in zip(found, domains, strict=True):
        expected = here.outcomes(mask, domain=data.name, batchnorm=batchnorm)
        assert torch.equal(outcomes.predicted, expected.predicted)
        assert torch.allclose(outcomes.loss, expected.loss, atol=1e-5)


def test_features_wait_for_a_gpu_once_and_divided_batches_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("dgprune_lab.measurement.recalibrate"), "_PIXELS", 8 * 12 * 12)
    model, data = deep(), domain("a")
    here = dg.Study(model, sources=[data])
    mask = dg.allocate(here.score("l1"), ratio=0.5)
    layer = here.graph.groups[-1].name
    expected = drain(here.feature_steps(mask, layer=layer, domain="a"))
    with PretendGpu() as gpu:
        study = dg.Study(copy.deepcopy(model).to(DEVICE), sources=[data.to(DEVICE)])
        drain(study.feature_steps(None, layer=layer, domain="a"))  # the first reads the images, to name them by content
        gpu.reads.clear()
        found = drain(study.feature_steps(mask, layer=layer, domain="a"))
    assert gpu.reads.total() == 2  # whether the network has changed, and the features
    assert torch.allclose(found, expected, atol=1e-5)


def test_what_is_read_together_is_separate_memory() -> None:
    with PretendGpu() as gpu:
        value = {"a": (torch.ones(2, 3, device=DEVICE), 5), "b": [torch.zeros(4, device=DEVICE), torch.ones(())]}
        found: Any = on_cpu(value)
    assert gpu.reads.total() == 1 and found["a"][1] == 5 and found["a"][0].shape == (2, 3)
    assert torch.equal(found["a"][0], torch.ones(2, 3)) and torch.equal(found["b"][0], torch.zeros(4))
    assert found["a"][0].untyped_storage().nbytes() == 24  # not a view of all that was read


@contextmanager
def synchronising() -> Iterator[list[str]]:
    """Within the block, note each operation that waits for the GPU."""
    seen: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield seen
        finally:
            torch.cuda.set_sync_debug_mode("default")
            seen += [f"{w.filename}:{w.lineno}" for w in caught if "called a synchronizing" in str(w.message)]


@pytest.mark.gpu
def test_a_real_gpu_is_not_waited_for_within_a_pass() -> None:
    counts = []
    for build, size in ((shallow, 20), (deep, 5)):
        model, data = build().cuda(), domain("a").to("cuda")
        graph = dg.read_groups(model, data.images[:2])
        gather(model, graph, domain=data, needs=NEEDS, size=size)  # the first pass initialises libraries
        with synchronising() as seen:
            gather(model, graph, domain=data, needs=NEEDS, size=size)
        counts.append(seen)
    assert len(counts[0]) == len(counts[1]) <= 10, counts


@pytest.mark.gpu
def test_a_real_gpu_is_waited_for_a_few_times_per_tick() -> None:
    for build in (shallow, deep):
        domains = [domain("a"), domain("b", seed=1)]
        study = dg.Study(build().cuda(), sources=domains[:1], targets=domains[1:])
        scores = study.score("l1")
        for ratio in (0.2, 0.5):
            mask = dg.allocate(scores, ratio=ratio)
            with synchronising() as seen:
                for data in domains:
                    study.outcomes(mask, domain=data.name)
        assert len(seen) <= 6 * len(domains), seen


@pytest.fixture(scope="module")
def demos() -> tuple[dg.Study, dg.Study]:
    return dg.demo(device="cpu"), dg.demo()


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # of the older way to read the setting
def test_the_demo_runs_on_the_gpu_and_all_numbers_are_those_of_the_cpu(demos: Any) -> None:
    here, there = demos
    assert there.device.type == "cuda" and there.place == torch.cuda.get_device_name()
    assert here.place.startswith("CPU")
    setting = torch.backends.cudnn.allow_tf32
    options: Any = {"scorers": ["l1", "random"], "ratios": [0, 0.3, 0.6], "seeds": 2}
    first, second = dg.sweep(here, **options), dg.sweep(there, **options)
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(first[column], second[column], rtol=1e-4, atol=1e-4, err_msg=column)
    mask = dg.allocate(here.score("l1"), ratio=0.5)
    small = here.network(mask)
    tables = [
        dg.measure(network, study.domains, batchnorm="as_is", latency=False)
        for network, study in ((small, here), (copy.deepcopy(small).cuda(), there))
    ]
    np.testing.assert_allclose(tables[0]["value"], tables[1]["value"], rtol=1e-4, atol=1e-4)
    assert torch.backends.cudnn.allow_tf32 == setting


@pytest.mark.gpu
@pytest.mark.parametrize("batchnorm", ["recalibrate", "as_is"])
def test_outcomes_and_features_on_the_gpu_are_those_of_the_cpu(demos: Any, batchnorm: Any) -> None:
    here = demos[0]
    mask = dg.allocate(here.score("l1"), ratio=0.5)
    for data in here.domains:
        one, other = (study.outcomes(mask, domain=data.name, batchnorm=batchnorm) for study in demos)
        assert torch.allclose(one.loss, other.loss, atol=1e-3) and abs(float((one.loss - other.loss).mean())) < 1e-4
        assert torch.equal(one.index, other.index) and torch.equal(one.labels, other.labels)
        assert (one.predicted != other.predicted).sum() <= 1  # a tie
    options: Any = {"layer": here.graph.names[-1], "domain": "mnist_m", "batchnorm": batchnorm}
    assert_same(*(drain(study.feature_steps(mask, **options)) for study in demos))


@pytest.mark.gpu
def test_the_statistics_of_a_pass_on_the_gpu_are_those_of_the_cpu(demos: Any) -> None:
    here, there = (study.statistics("mnist", needs=NEEDS) for study in demos)
    assert_same(vars(here), vars(there))


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(SCORERS))
def test_scores_on_the_gpu_are_those_of_the_cpu(demos: Any, name: str) -> None:
    here, there = demos
    if here.unavailable(SCORERS[name]) is not None:
        pytest.skip(here.unavailable(SCORERS[name]))
    with collect_notes(lambda _: None):
        first, second = here.score(name).values, there.score(name).values
    for layer in first:
        close = (first[layer] - second[layer]).abs() <= 1e-4 * first[layer].abs().max().clamp_min(1e-12)
        if name.startswith("sensitivity"):  # standardised, so that of nearly silent filters it is rounding alone
            spread = here.statistics("mnist", needs=("class_gate",)).class_gate[layer].variance.sqrt().amax(0)
            close = close[spread > 1e-5 * spread.max()]
        assert close.double().mean() >= 0.95, layer


@pytest.mark.gpu
def test_an_explorer_on_the_gpu_shows_where_it_computes_and_the_numbers_of_the_cpu(demos: Any) -> None:
    pytest.importorskip("vl_convert")
    here, there = demos
    explorer = dg.Explorer(there)
    try:
        explorer.ratio = 0.4
        explorer.wait()
        assert explorer.static["device"] == torch.cuda.get_device_name()
        table = explorer.table
    finally:
        explorer.close()
    for data in here.domains:
        rows = table[(table.metric == "accuracy") & (table.domain == data.name)]
        mask = dg.allocate(here.score(explorer.scorer), ratio=0.4)
        assert here.outcomes(mask, domain=data.name).accuracy == pytest.approx(list(rows["value"])[-1], abs=1e-4)
