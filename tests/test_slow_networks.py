"""Slow and large networks: batches within bounds, caches by memory, estimates first, work that a move ends at once."""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, cast

import pandas as pd
import pytest
import torch
from material import domain, norm_net, randomise
from test_statistics import Peak
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

import dgprune_lab as dg
from dgprune_lab.core import (
    Cancelled,
    FilterGroup,
    Observer,
    cache_room,
    cancelled_when,
    drain,
    interruptible,
    kept_images,
    pass_room,
)
from dgprune_lab.core.memory import Memory
from dgprune_lab.diagnostics import _workers
from dgprune_lab.measurement import Evaluator
from dgprune_lab.measurement.batch_size import batch_size, bytes_per_image
from dgprune_lab.measurement.recalibrate import calibration_rows
from dgprune_lab.pruning import copies, surgery, verify
from dgprune_lab.pruning.proof import prove_copies
from dgprune_lab.pruning.tracing import in_parts
from dgprune_lab.widgets.explorer import workload
from dgprune_lab.widgets.explorer.measurements import Measurements
from dgprune_lab.widgets.panels.agreement import AgreementPanel
from dgprune_lab.widgets.panels.feature_shift import FeatureShiftPanel
from dgprune_lab.widgets.panels.flips import FlipsPanel
from dgprune_lab.widgets.panels.layers import LayersPanel
from dgprune_lab.widgets.panels.protocol import Panel, View
from dgprune_lab.widgets.panels.prunability import PrunabilityPanel
from dgprune_lab.widgets.panels.sensitivity import SensitivityPanel
from dgprune_lab.widgets.worker import Worker

MB = 2**20
sizes = importlib.import_module("dgprune_lab.measurement.batch_size")  # a function of the package has this name, too
recalibration = importlib.import_module("dgprune_lab.measurement.recalibrate")


class Watched(nn.Module):
    """A network that notes how many images it gets, and takes a while for each."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds, self.inner = seconds, randomise(norm_net(), dtype=torch.float32)
        self.batches: tuple[deque[int]] = (deque(),)  # copies share a tuple, hashes ignore a deque

    def forward(self, images: Tensor) -> Tensor:
        self.batches[0].append(len(images))
        for layer in self.inner:
            images = layer(images)
            time.sleep(self.seconds * len(images) / len(self.inner))
        return images


# ---- batches


def test_the_bytes_of_an_image_are_those_of_the_maps_that_are_alive_at_once() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1), nn.Flatten(), nn.Linear(128, 10)
    )
    first, largest = 4 * 64 * 4, 4 * 64 * 4
    assert bytes_per_image(net, torch.zeros(5, 3, 8, 8), gradients=False)[0] == 2 * first, "convolution and ReLU"
    assert bytes_per_image(net, torch.zeros(5, 3, 8, 8), gradients=True) == (2 * first + 2 * largest, largest)
    assert (
        batch_size(net, torch.zeros(1, 3, 8, 8)) == 250
        and batch_size(net, torch.zeros(1, 3, 8, 8), gradients=True) == 125
    )
    wide = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    assert batch_size(wide, torch.zeros(1, 3, 64, 64)) == 16, "one map of a batch takes at most 16 MB"


def test_no_pass_takes_more_images_than_fit_and_numbers_stay_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    data = [domain("a", count=90), domain("b", count=90, seed=1)]

    def numbers() -> tuple[list[Any], int, int]:
        net = Watched()
        study = dg.Study(net, sources=data)
        net.batches[0].clear()
        mask = dg.allocate(study.score("l1"), ratio=0.5)
        found = [
            dg.evaluate(net, data[0]).loss,
            *(study.outcomes(mask, domain=n, batchnorm="as_is").loss for n in "ab"),
        ]
        forward = max(net.batches[0])
        net.batches[0].clear()
        return [*found, *study.score("taylor").values.values()], forward, max(net.batches[0])

    want, _, _ = numbers()
    image, _ = bytes_per_image(Watched(), torch.zeros(1, 3, 12, 12), gradients=False)
    monkeypatch.setattr(sizes, "BYTES", 7 * image)
    monkeypatch.setattr(sizes, "GRADIENT_BYTES", 4 * image)
    got, forward, gradients = numbers()
    assert forward == 7 and 1 <= gradients < 4, "a pass with gradients keeps more of each image"
    monkeypatch.setattr(sizes, "BYTES", 1)
    assert batch_size(Watched(), torch.zeros(1, 3, 12, 12), gradients=True) == gradients, "it has a bound of its own"
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize(
    ("images", "pixels", "wanted"),
    [(500, 64, [[251, True], [249, True]]), (500, 224, None), (6, 900, [[3, False], [3, True]]), (5, 2000, None)],
)
def test_large_images_are_calibrated_in_chunks_that_depend_on_their_size_alone(
    images: int, pixels: int, wanted: list[list[Any]] | None
) -> None:
    blank = torch.zeros(1, 3, 1, 1, dtype=torch.uint8).expand(300, 3, pixels, pixels)
    parts = {"train": torch.arange(300)}
    options: dict[str, Any] = {"images": blank, "labels": None, "splits": parts, "classes": 0, "role": "source"}
    chunks = calibration_rows([dg.Domain(name=name, **options) for name in "abc"], images)
    found = [[sum(len(rows) for _, rows in chunk), last] for chunk, last in chunks]
    assert wanted is None or found == wanted
    assert sum(count for count, _ in found) == images and min(count for count, _ in found) >= 2
    most = max(2**20 // pixels**2, 2)
    assert max(count for count, _ in found) <= most + 3 or images < 10, "each of three sources may add one"
    assert sum(last for _, last in found) == max(1, round(images / 250))


def test_a_batch_in_chunks_has_the_statistics_of_all_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk is normalised by itself; mean and variance are those of all values of the batch."""
    monkeypatch.setattr(recalibration, "_PIXELS", 40 * 144)
    model, data = (
        randomise(norm_net(), dtype=torch.float32),
        [domain(name, count=900, seed=k) for k, name in enumerate("ab")],
    )
    fresh = dg.recalibrate(model, data)
    norms = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    twin = dg.recalibrate(model, data)
    batches: list[dict[str, list[Tensor]]] = []
    inputs: dict[str, list[Tensor]] = {}
    for name, _ in norms:
        layer: Any = twin.get_submodule(name)
        layer.train().momentum = 0.0
        layer.register_forward_pre_hook(lambda _, x, name=name: inputs.setdefault(name, []).append(x[0].clone()))
    for start in (0, 125):
        inputs.clear()
        with torch.no_grad():
            for rows in torch.arange(start, start + 125).tensor_split(7):
                twin(torch.cat([d.take(d.rows("train")[rows]).images for d in data]))
        batches.append(dict(inputs))
    for name, _ in norms:
        values = [torch.cat(batch[name]).double().transpose(0, 1).flatten(1) for batch in batches]
        layer = fresh.get_submodule(name)
        mean, variance = (torch.stack([of(v) for v in values]).mean(0).float() for of in (_mean, _variance))
        torch.testing.assert_close(layer.running_mean, mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(layer.running_var, variance, atol=1e-5, rtol=1e-4)
        assert int(layer.num_batches_tracked) == 2
    assert not any(m._forward_pre_hooks for m in fresh.modules())


def _mean(values: Tensor) -> Tensor:
    return values.mean(1)


def _variance(values: Tensor) -> Tensor:
    return values.var(1)


def test_numbers_of_chunks_are_the_same_in_a_study_and_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalibration, "_PIXELS", 20 * 144)
    study = dg.Study(
        randomise(norm_net(), dtype=torch.float32), sources=[domain("a", count=300)], targets=[domain("t")]
    )
    mask = dg.allocate(study.score("l1"), ratio=0.4)
    assert study._current().evaluator.shared_prefix is not None
    small = dg.recalibrate(dg.prune(study.model, mask), study.domains)
    for name in ("a", "t"):
        assert torch.equal(study.outcomes(mask, domain=name).loss, dg.evaluate(small, study.domain(name)).loss)
    full = study.outcomes(None, domain="t", batchnorm="recalibrate").loss
    assert torch.equal(full, dg.evaluate(dg.recalibrate(study.model, study.domains), study.domain("t")).loss)


class Reused(nn.Module):
    """One ReLU serves both convolutions; with the statistics as given, the logits hardly depend on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.act, self.pool, self.fc = nn.ReLU(), nn.MaxPool2d(2), nn.Linear(6, 4)
        cast("Tensor", self.bn2.running_var).fill_(1e30)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.pool(self.act(self.bn1(self.conv1(images))))
        return self.fc(self.act(self.bn2(self.conv2(maps))).mean((2, 3)))


def test_a_layer_that_runs_again_is_not_left_out_of_the_second_run() -> None:
    torch.manual_seed(0)
    study = dg.Study(Reused(), sources=[domain("a")])
    prefix = study._current().evaluator.shared_prefix
    assert prefix is not None and prefix.last == "pool" and prefix.skipped[:2] == ("conv1", "bn1")
    mask = dg.allocate(study.score("l1"), ratio=0.4)
    small = dg.recalibrate(dg.prune(study.model, mask), study.domains)
    assert torch.equal(study.outcomes(mask, domain="a").loss, dg.evaluate(small, study.domain("a")).loss)


# ---- caches


def test_a_cache_takes_a_share_of_the_memory_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def room(available: int, held: int) -> int:
        memory = Memory(used=0, available=available, total=4 * available)
        monkeypatch.setattr("dgprune_lab.core.memory.memory", lambda: memory)
        return cache_room(0.1, held)

    assert room(1400 * MB, 100 * MB) == 150 * MB, "what the cache holds would be available without it"
    assert room(0, 65 * MB) == 64 * MB and room(10**12, 65 * MB) == 1024 * MB
    monkeypatch.setattr("dgprune_lab.core.memory.memory", None)
    assert cache_room(0.1, 64 * MB) == 64 * MB, "not looked up"


def test_what_is_kept_and_a_pass_together_fit_into_what_a_container_of_2_gb_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for left in (900 * MB, 600 * MB):  # an explorer's process itself takes 1 to 1.2 GB
        monkeypatch.setattr(
            "dgprune_lab.core.memory.memory", lambda left=left: Memory(used=0, available=left, total=2048 * MB)
        )
        results, prefix = (cache_room(share, 65 * MB) for share in (0.05, 0.1))
        assert results + prefix + kept_images.SHARE * left + pass_room(sizes.GRADIENT_BYTES) <= left * 1.02
        model, x = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU()), torch.rand(1, 3, 130, 130)
        for gradients in (False, True):
            each, _ = bytes_per_image(model, x, gradients=gradients)
            assert batch_size(model, x, gradients=gradients) * each <= left // 2


# ---- the explorer


def slow_study(*, seconds: float = 0.004, report: int = 80) -> dg.Study:
    parts = {"train": range(40), "score": range(40, 60), "report": range(60, 60 + report)}
    data = [domain(name, count=60 + report, seed=k, splits=parts) for k, name in enumerate("at")]
    return dg.Study(Watched(seconds=seconds), sources=data[:1], targets=data[1:])


def shown(explorer: dg.Explorer, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first frame of the present ratio for which `ready`."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for row in explorer.frames.get("rows", []):
            if row["ratio"] == explorer.ratio and ready(row):
                return row
        time.sleep(0.01)
    raise AssertionError(f"{explorer.status}")


@pytest.mark.filterwarnings("ignore:source 'a' is classified at chance")
def test_a_slow_network_is_estimated_first_and_a_move_ends_what_runs() -> None:
    study = slow_study()
    explorer = dg.Explorer(study, images=70, calibration=30)
    said: list[str] = []
    explorer.observe(lambda event: said.append(event["new"]["work"]), "status")
    try:
        frame = shown(explorer, lambda row: True)
        assert frame["estimate"] and not frame["all"] and 8 <= frame["images"] < 70
        count = frame["images"]
        assert frame["sentence"].startswith(
            f"Estimate from {count} images of each domain. 50 % of the filters removed: a"
        )
        assert all(dot["fill"] == "transparent" for dot in frame["dots"]), "hollow"
        begun = [text for text in said if text.startswith("estimate")][-1]
        assert begun.startswith(f"estimate from {count} images a domain in about ")
        assert ", 70 images a domain in about " in begun
        assert not explorer.wait(timeout=0.0) and explorer._session.measurements.exact(explorer.view) is None
        explorer.choose(ratio=0.3)
        assert shown(explorer, lambda row: True)["estimate"]
        table = explorer.table
        frame = shown(explorer, lambda row: not row["estimate"])
        assert not frame["all"] and frame["images"] == 70 and "stimate" not in frame["sentence"]
        assert 0.5 not in [row["ratio"] for row in explorer.frames["rows"] if not row["estimate"]], "ended by the move"
        _check_table(study, explorer, table)
    finally:
        explorer.close()
        cast("Watched", study.model).seconds = 0.0


def _check_table(study: dg.Study, explorer: dg.Explorer, table: pd.DataFrame) -> None:
    """The table has the numbers of the code that is copied, without any estimate."""
    assert set(table.images.dropna()) == {70} and set(table.calibration.dropna()) == {30}
    scope: dict[str, Any] = {"study": study}
    code = explorer.code()
    exec(code.replace("dg.measure(", "found = dg.measure("), scope)
    assert "images=30)" in code and "images=70" in code
    for name in ("a", "t"):
        mine, theirs = (t[(t.domain == name) & (t.metric == "accuracy")].iloc[0] for t in (table, scope["found"]))
        assert mine[["value", "low", "high", "images"]].tolist() == theirs[["value", "low", "high", "images"]].tolist()


PANELS = (FlipsPanel, LayersPanel, SensitivityPanel, FeatureShiftPanel, AgreementPanel, PrunabilityPanel)


@pytest.mark.parametrize("kind", PANELS, ids=lambda kind: kind.__name__)
def test_a_panel_measures_on_the_images_of_the_explorer_and_says_so(
    kind: type[Panel], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(labelled=True)
    asked: list[tuple[Any, Any]] = []

    def noted(steps: Any) -> Any:
        def run(study: dg.Study, mask: Any, **options: Any) -> Any:
            asked.append((options["images"], options.get("calibration", 10)))
            return steps(study, mask, **options)

        return run

    for name in ("steps", "feature_steps"):
        monkeypatch.setattr(dg.Study, name, noted(getattr(dg.Study, name)))
    scorer, panel = dg.SCORERS["l1"], kind()
    mask = dg.allocate(study.score(scorer), ratio=0.5)
    view = View(study=study, mask=mask, scorer=scorer, batchnorm="recalibrate", images=15, calibration=10)
    ticked: Any = panel.tick(view)
    frames: list[Any] = [ticked] if isinstance(ticked, dict) else list(ticked)
    if kind is not FeatureShiftPanel:  # whose map of all ratios takes a process of its own
        for frame in panel.background(replace(view, scorers=(scorer,))):
            frames.append(frame)
            if len(asked) > 12:
                break
    panel.close()
    words = [frame["text"] for frame in frames if "text" in frame][-1]
    assert set(asked) <= {(15, 10)} and (asked or kind in (AgreementPanel, PrunabilityPanel))
    told = {AgreementPanel: "Scores are from all images of their split", PrunabilityPanel: "first 15 training images"}
    told |= {FeatureShiftPanel: "30 images (15 of a, 15 of t)"}
    assert told.get(kind, "he first 15 images of each domain") in words


def test_a_pass_of_a_scorer_goes_on_after_a_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "GRADIENT_IMAGES", 5)
    study = slow_study(seconds=0.0)
    measurements, net = Measurements(study, scorers=[]), cast("Watched", study.model)
    view: Any = {"ratio": 0.5, "scope": "layer", "budget": "filters", "batchnorm": "as_is", "by": "page"}
    view = measurements.checked({**view, "id": 1, "scorer": "taylor"})
    net.batches[0].clear()
    steps = measurements.scoring(view)
    assert next(steps) == "scoring: 5 of 20 images"
    steps.close()
    assert [text.split(" images")[0] for text in measurements.scoring(cast("Any", {**view, "ratio": 0.1}))] == [
        f"scoring: {count} of 20" for count in (10, 15, 20)
    ]
    assert net.batches[0].count(5) == 4, "no batch twice"
    assert measurements.mask(view).scorer == "taylor" and net.batches[0].count(5) == 4


@pytest.mark.parametrize(
    ("seconds", "exact", "wanted"),
    [
        ([0.08, 0.16, 0.32, 0.64, 1.28], 9.0, 64),
        ([0.7, 1.4, 2.8, 5.6, 11], 90.0, 16),
        ([5, 10, 20, 40, 80], 500.0, 8),
        ([0.25, 0.5, 1.0], 1.5, 16),  # EfficientNet-Lite0 on 4 x 60 images: an estimate within a second
        ([0.2, 0.4, 0.8], 0.7, 8),
    ],
)
def test_an_estimate_takes_what_is_soon_there(seconds: list[float], exact: float, wanted: int) -> None:
    assert workload.affordable([8, 16, 32, 64, 125][: len(seconds)], seconds, exact=exact) == wanted


def test_one_slow_batch_changes_little_of_what_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    pace, now = workload.Pace(), [0.0]
    monkeypatch.setattr(workload.time, "perf_counter", lambda: now[0])

    def steps(*parts: tuple[float, int]) -> Any:
        for seconds, images in parts:
            now[0] += seconds
            yield images

    assert list(pace.timed(steps((2.0, 20), (7.0, 0), (1.2, 12)))) == [20, 20, 32]
    assert pace.seconds(10) == pytest.approx(1.0), "the seven seconds were no work on images"
    next(pace.timed(steps((4.0, 8))))
    assert pace.seconds(40) == pytest.approx(3.2 + 4.0), "five times as slow: less than twice as long"


def test_re_estimating_batchnorm_costs_an_estimate_no_more_than_measuring() -> None:
    study = slow_study(seconds=0.0)
    load = workload.Workload(study, images=None, calibration=500)
    load.pace._seconds = 0.05
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    estimate, exact = load.estimate(mask, "recalibrate"), load.exact(mask, "recalibrate")
    assert estimate is not None and estimate.calibration == 2 * (estimate.images or 0) == 16
    assert exact.images is None and exact.calibration == 40, "the sources have no more"
    assert load.exact(mask, "as_is").calibration == 0


def test_a_dropped_job_ends_inside_a_step_that_is_interruptible() -> None:
    steps: list[int] = []

    def job() -> Any:
        with interruptible():
            for k in range(10_000):
                torch.zeros(1).add_(k)
                steps.append(k)
                time.sleep(0.001)
        yield

    worker = Worker(lambda name, error: pytest.fail(f"{name}: {error}"))
    worker.put("long", job, priority=0)
    while not steps:
        time.sleep(0.001)
    worker.drop("long")
    worker.close(timeout=2.0)
    assert not any(thread.name == "dgprune-explorer" for thread in threading.enumerate())
    assert len(steps) < 5_000


# ---- cancelled at any torch function


class Caller:
    """Says that the work is unwanted where a torch function is called from this place for the first time.

    A place is a line of this package that calls torch, with the line that called it.

    Attributes:
        places: all places so far.
    """

    def __init__(self, place: Any = None) -> None:
        self.place, self.places = place, dict[Any, None]()

    def __call__(self) -> bool:
        frames = (frame for frame, _ in traceback.walk_stack(None) if "dgprune_lab" in frame.f_code.co_filename)
        ours = ((f.f_code, f.f_lineno) for f in frames if f.f_globals["__name__"] != cancelled_when.__module__)
        place = tuple(itertools.islice(ours, 2))
        self.places[place] = None
        return place == self.place


def run_until(steps: Any, caller: Caller) -> Any:
    """The result, or None if it was cancelled."""
    with cancelled_when(caller):
        try:
            return drain(steps)
        except Cancelled:
            return None


class Drawn:
    """A data set of drawn images, which are decoded one by one."""

    targets: ClassVar = [k % 4 for k in range(30)]

    def __len__(self) -> int:
        return 30

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        return torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(k)), k % 4


def test_a_measurement_cancelled_at_any_torch_function_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same evaluator goes on with what a cancelled run has left, until it has everything; then comes a new one."""
    monkeypatch.setattr(sizes, "IMAGES", 8)
    model = randomise(norm_net(), dtype=torch.float32).eval()
    source = domain("a", count=30).as_role("source")
    graph = dg.Study(model, sources=[source]).graph
    state = [tensor.clone() for tensor in model.state_dict().values()]
    options: dict[str, Any] = {"split": "report", "images": None, "calibration": 10}

    def fresh() -> Callable[[bool], Any]:
        target = dg.Domain.from_dataset("t", Drawn(), splits={"report": range(20)}).as_role("target")
        mask = dg.Mask.by_hand(graph, removed={name: [0] for name in graph.names})
        made[:] = [Evaluator(model, graph, domains=(source, target))]
        steps, features = made[0].steps, partial(made[0].feature_steps, layer=graph.names[-1])
        return lambda outcomes: (steps if outcomes else features)(mask, domain=target, **options)

    made: list[Evaluator] = []
    for outcomes in (True, False):
        everywhere = Caller()
        want = run_until(fresh()(outcomes), everywhere)
        run = fresh()
        for place in everywhere.places:
            got = run_until(run(outcomes), Caller(place))
            if got is not None:  # what calls this place is done
                assert _is_same(got, want)
                run = fresh()
                assert run_until(run(outcomes), Caller(place)) is None
            assert not _get_current_function_mode_stack() and not torch.is_inference_mode_enabled()
            assert not made[0]._lock._is_owned() and not made[0].abandoned
            for network in (model, made[0]._dense, *(base.model for base in made[0]._bases.values())):
                assert not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in network.modules())
        assert len(everywhere.places) > 80 and _is_same(drain(run(outcomes)), want)
    assert all(map(torch.equal, model.state_dict().values(), state))


def _is_same(got: Any, want: Any) -> bool:
    pairs = [(got, want)] if isinstance(want, Tensor) else [(got.loss, want.loss), (got.predicted, want.predicted)]
    return all(torch.equal(a, b) for a, b in pairs)


# ---- memory of large weights


def test_signals_that_vanish_are_no_reason_for_a_copy_in_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify._Trial, "_exact_difference", None)  # takes three times the network's memory
    torch.manual_seed(0)
    pairs = [(nn.Conv2d(16 if k else 3, 16, 3, padding=1), nn.ReLU()) for k in range(20)]
    model = nn.Sequential(*(layer for pair in pairs for layer in pair), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    graph = dg.read_groups(model.append(nn.Linear(64, 5)), torch.rand(2, 3, 8, 8))
    assert len(graph.groups) == 20 and not graph.refused


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> nn.Sequential:
    """A network for images of 4 x 4 pixels, most of whose weights count as large."""
    monkeypatch.setattr(copies, "_LARGE_BYTES", 4000)
    monkeypatch.setattr(copies, "_CHUNK_NUMBERS", 500)
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 96, 4), nn.ReLU(), nn.Conv2d(96, 96, 1), nn.ReLU())
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 5)).eval()


class PeakOfWeights(Peak, Observer):
    """Notes as well the size of the largest weight of a convolution, of which its kernel may make a copy."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "convolution" in func.__name__:
            self.largest = max(self.largest, args[1].nbytes)
        return super().__torch_dispatch__(func, types, args, kwargs)


def test_reading_groups_makes_no_third_copy_of_a_large_weight(
    large: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, failure = [p.clone() for p in large.parameters()], verify._Trial.failure
    largest: list[int] = []

    def spied(trial: verify._Trial, groups: tuple[FilterGroup, ...]) -> str | None:
        with PeakOfWeights([]) as watch:
            why = failure(trial, groups)
        largest.append(watch.largest)
        return why

    monkeypatch.setattr(verify._Trial, "failure", spied)
    with PeakOfWeights(large.parameters()) as watch:
        graph = dg.read_groups(large, torch.rand(2, 3, 4, 4), layers="all")
    with PeakOfWeights([]) as proof:
        prove_copies(large, torch.rand(1, 3, 4, 4))
    weights = sum(p.nbytes for p in before)
    assert graph.names == ["0", "2", "4", "7"] and not graph.refused and len(largest) == 4
    assert 1 < watch.top / weights < 1.6, "one copy for the trial, and a half of it"
    assert 0 < max(*largest, proof.largest) < 0.1 * weights
    assert all(map(torch.equal, large.parameters(), before))


class DividedByChannels(nn.Module):
    """Divides by the number of channels, which a pruned network has fewer of."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.shape[1]


def test_a_group_that_differs_is_found_among_large_weights(large: nn.Sequential) -> None:
    large[3] = DividedByChannels()
    graph = dg.read_groups(large, torch.rand(2, 3, 4, 4), layers="all")
    assert graph.names == ["0", "4", "7"] and "masked" in graph.refused["2"]


def test_weights_masked_for_a_moment_are_saved_or_drawn_anew(large: nn.Sequential) -> None:
    mask = dg.Mask.by_hand(dg.read_groups(large, torch.rand(2, 3, 4, 4)), removed={"0": [1, 5], "2": [0]})
    before, drawn, zeroed = [p.clone() for p in large.parameters()], [], cast(torch.Tensor, large[2].weight)
    with surgery.zeroing(large, mask, renew=lambda weight: drawn.append(weight.fill_(7))):
        assert not zeroed[:, [1, 5]].any() and not zeroed[0].any() and not drawn
    assert [id(weight) for weight in drawn] == [id(zeroed)], "only a small part of another is zero"
    assert all(bool((p == old).all() or (p == 7).all()) for p, old in zip(large.parameters(), before, strict=True))


@pytest.mark.parametrize("removed", [[0], [15], [0, 1, 15], [7], [3, 15]])
def test_a_large_weight_cut_only_at_its_ends_is_not_copied(removed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_LARGE_BYTES", 1000)
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    model, images = nn.Sequential(*body, nn.Linear(256, 20), nn.ReLU(), nn.Linear(20, 9)), torch.rand(2, 3, 8, 8)
    graph = dg.read_groups(model, images, layers="all")
    for hidden in ([], removed):
        mask = dg.Mask.by_hand(graph, removed={"0": removed, "4": hidden})
        view, small = surgery.pruned_view(model, mask), dg.prune(model, mask)
        weights: list[Tensor] = [network[4].weight for network in (model, view, small)]  # type: ignore[index]
        kept = weights[0].unflatten(1, (16, 16))[mask.kept("4")][:, mask.kept("0")].flatten(1)
        assert torch.equal(weights[1], kept) and torch.equal(weights[2], kept)
        shares = [weights[0].untyped_storage().data_ptr() == w.untyped_storage().data_ptr() for w in weights[1:]]
        ends = not set(removed) & {3, 7} and (not hidden or 15 not in hidden)
        assert shares == [ends, False]
        torch.testing.assert_close(view(images), small(images))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 70, 3, stride=2, padding=1),
        nn.Conv1d(4, 9, 3, bias=False),
        nn.Conv3d(4, 33, 1),
        nn.Conv2d(4, 8, 3, groups=2),
    ],
)
def test_a_convolution_in_parts_is_the_same(layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(2, 4, *[5] * (layer.weight.ndim - 2))
    whole, alone = layer(x), layer(x[0])
    monkeypatch.setattr(copies, "_LARGE_BYTES", 0)
    with in_parts(layer):
        torch.testing.assert_close((layer(x), layer(x[0])), (whole, alone))


# ---- executors


class Fatal(nn.Sequential):
    """A network that ends a worker process."""

    def forward(self, images: Tensor) -> Tensor:
        if multiprocessing.parent_process() is not None:
            os._exit(3)
        return super().forward(images)


class Cancelling(Executor):
    """An executor that cancels everything."""

    def submit(self, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future


class Elsewhere(Executor):
    """Workers that were not forked, run one after the other: they have only what is sent to them."""

    _max_workers = 2

    def __init__(self) -> None:
        self.sent, self.studies = list[Any](), [dict[str, dg.Study](), dict[str, dg.Study]()]

    def submit(self, work: Any, /, token: str, sent: Any, *arguments: Any) -> Future[Any]:  # type: ignore[override]
        future: Future[Any] = Future()
        self.sent.append(sent)
        self.studies.reverse()  # the workers take turns
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_workers, "_running", {})
            patch.setattr(_workers, "_received", self.studies[0])
            try:
                future.set_result(work(token, sent, *arguments))
            except Exception as error:
                future.set_exception(error)
        return future


def test_workers_that_were_not_forked_get_the_study_once() -> None:
    options: Any = {"scorers": ["l1"], "ratios": dg.grid(0, 0.9, 10)}
    study, workers = small_study(), Elsewhere()
    pd.testing.assert_frame_equal(
        dg.sweep(study, executor=workers, **options), dg.sweep(small_study(), **options), check_exact=True
    )
    kinds = [type(sent).__name__ for sent in workers.sent]
    assert kinds == ["NoneType"] * 10 + ["bytes"] * 2
    made = [study for held in workers.studies for study in held.values()]
    assert len(made) == 2 and study not in made
    assert not _workers._running, "nothing is kept after the sweep"


def small_study(model: nn.Module | None = None, *, labelled: bool = False) -> dg.Study:
    model = randomise(norm_net(), dtype=torch.float32) if model is None else model
    return dg.Study(model, sources=[domain("a")], targets=[domain("t", seed=1, labelled=labelled)])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_give_the_same_rows_and_need_no_scorer() -> None:
    offset = 3.0

    @dg.scorer("local")
    def local(view: Any) -> Tensor:
        """A function that cannot be pickled."""
        return view.weight.flatten(1).sum(1) + offset

    options: Any = {"scorers": [local, "random", "taylor"], "ratios": [0.0, 0.3, 0.7], "seeds": 2}
    want = dg.sweep(small_study(), **options)
    with ProcessPoolExecutor(2) as processes, ThreadPoolExecutor(2) as threads:
        for executor in (processes, threads):
            steps = dg.sweep.steps(small_study(), executor=executor, **options)
            counts = []
            try:
                while True:
                    counts.append(next(steps))
            except StopIteration as end:
                pd.testing.assert_frame_equal(end.value, want, check_exact=True)
            assert counts[-1] == (24, 24) and counts == sorted(counts)


def test_a_worker_tells_studies_apart_whose_domains_differ_only_in_role() -> None:
    model, first, second = randomise(norm_net(), dtype=torch.float32), domain("a"), domain("b", seed=1)
    workers, options = Elsewhere(), {"scorers": ["l1"], "ratios": [0.5, 0.6]}
    tables = []
    for sources, targets in (([first], [second]), ([first, second], [])):
        study = dg.Study(model, sources=sources, targets=targets)
        tables.append(dg.sweep(study, **options))
        pd.testing.assert_frame_equal(dg.sweep(study, executor=workers, **options), tables[-1], check_exact=True)
    assert not tables[0]["value"].equals(tables[1]["value"]), "BatchNorm is re-estimated on the sources"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_an_executor_that_fails_is_said_in_a_sentence() -> None:
    options: Any = {"scorers": ["l1"], "ratios": [0.5]}
    with pytest.raises(dg.DgpruneError, match=r"executor: a part of the sweep was cancelled"):
        dg.sweep(small_study(), executor=Cancelling(), **options)
    ended = ThreadPoolExecutor(1)
    ended.shutdown()
    with pytest.raises(dg.DgpruneError, match=r"executor: ThreadPoolExecutor cannot finish .*after shutdown"):
        dg.sweep(small_study(), executor=ended, **options)
    with ProcessPoolExecutor(1) as pool, pytest.raises(dg.DgpruneError, match=r"cannot finish the sweep .*memory"):
        dg.sweep(small_study(Fatal(*randomise(norm_net(), dtype=torch.float32))), executor=pool, **options)

    class Local(nn.Sequential):
        """A class that no other process can import."""

    local = small_study(Local(*randomise(norm_net(), dtype=torch.float32)))
    with pytest.raises(dg.DgpruneError, match=r"can be neither pickled nor copied: its network"):
        dg.sweep(local, executor=Elsewhere(), **options)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:  # a forked worker has the study
        assert len(dg.sweep(local, executor=pool, **options))
    with pytest.raises(dg.DgpruneError, match=r"executor must be"):
        dg.sweep(small_study(), executor=2, **options)  # type: ignore[arg-type]
