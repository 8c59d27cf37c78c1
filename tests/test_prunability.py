"""Prunability: the read-off in closed form, two searches, intervals, the table, and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from material import domain, fingerprint, norm_net, plain_net, randomise
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.steps import drain
from dgprune_lab.diagnostics._loss_curve import LossCurve, grid_of, read_off
from dgprune_lab.diagnostics.prunability import Setting
from dgprune_lab.measurement.weight_masking import WeightMasking, prunable, weight_scores
from dgprune_lab.stats.comparability import unlike

NAN = math.nan


def study_of(model: nn.Module | None = None, *, seed: int = 0, name: str = "net", labelled: bool = True) -> dg.Study:
    net = randomise(plain_net(), seed=seed, dtype=torch.float32) if model is None else model
    return dg.Study(
        net, sources=[domain("a", labelled=labelled), domain("b", seed=1)], targets=[domain("t", seed=2)], name=name
    )


def fitted_study(seed: int) -> dg.Study:
    """A study of a network whose own answers are the labels, so that its loss is low, as after training."""
    net = randomise(plain_net(), seed=seed, dtype=torch.float32)
    with torch.inference_mode():
        sources = [replace(each, labels=net(each.images.float()).argmax(1)) for each in (domain("a"), domain("b"))]
    return dg.Study(net, sources=sources)


def curve_of(loss: Callable[[float], float], *, step: float = 0.01, images: int = 40) -> LossCurve:
    """A curve whose images scatter around a given mean, the same way at every share."""
    scatter = torch.linspace(0.5, 1.5, images, dtype=torch.float64)

    def measure(share: float, most: float) -> Generator[None, None, Tensor]:
        yield
        return loss(share) * scatter

    return LossCurve(measure, step=step, name="made up")


def read(frame: Any) -> Any:
    """The one row of prunability."""
    return frame[frame.metric == "prunability"].iloc[0]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [  # shares 1, .75, .5, .25
        ([1, 1, 1, 2], (0.5, 0.5, True, ())),
        ([1, 2, 1, 2], (0.5, 1.0, False, ((0.5, 0.5),))),
        ([1, 2, 1, 1], (0.25, 1.0, False, ((0.25, 0.5),))),
        ([1, 1, 1, 1], (0.25, 0.25, True, ())),
        ([2, 1, 1, 2], (0.5, NAN, False, ((0.5, 0.75),))),
        ([2, 2, 2, 2], (NAN, NAN, True, ())),
        ([1, 1, NAN, math.inf], (0.75, 0.75, True, ())),
        ([1, 1.1, 2, 2], (0.75, 0.75, True, ())),
    ],
)
def test_the_read_off_in_closed_form(losses: list[float], expected: Any) -> None:
    order = [2, 0, 3, 1]  # the order of the points does not matter
    shares = [1.0, 0.75, 0.5, 0.25]
    result = read_off([shares[k] for k in order], [losses[k] for k in order], limit=1.1)
    assert result[:2] == pytest.approx(expected[:2], nan_ok=True) and result[2:] == expected[2:]


def test_the_grid() -> None:
    assert len(grid_of(0.01)) == 100 and grid_of(0.01)[:2] == (1.0, 0.99) and grid_of(0.01)[-1] == 0.01
    assert grid_of(0.25) == (1.0, 0.75, 0.5, 0.25) and grid_of(0.3) == (1.0, 0.7, 0.4, 0.1)
    for step in (0, -0.1, 0.6, NAN):
        with pytest.raises(dg.DgpruneError, match=r"step must lie in \(0, 0\.5\]"):
            grid_of(step)


@pytest.mark.parametrize("end", [1.0, 0.99, 0.98, 0.5, 0.37, 0.36, 0.02, 0.01])
def test_on_a_monotone_curve_the_fast_search_equals_the_grid(end: float) -> None:
    def loss(share: float) -> float:
        return 1.0 if share >= end else 3 - share

    quick, full = curve_of(loss), curve_of(loss)
    drain(quick.bracket(0.001))
    drain(full.fill())
    assert quick.read(0.001).contiguous_end == full.read(0.001).contiguous_end == full.read(0.001).smallest == end
    assert len(full.losses) == 100 and len(quick.losses) * 5 <= 100
    fine = curve_of(loss, step=0.001)
    drain(fine.bracket(0.001))
    assert fine.read(0.001).contiguous_end == end and len(fine.losses) <= 21


def test_the_fast_search_does_not_look_for_isolated_shares() -> None:
    curve = curve_of(lambda share: 1.0 if share > 0.795 or 0.1 < share < 0.15 else 2.0)
    drain(curve.bracket(0.1))
    assert curve.read(0.1).contiguous_end == 0.8
    drain(curve.fill())
    assert curve.read(0.1) == (0.11, 0.8, False, ((0.11, 0.14),))


def test_a_share_is_measured_once() -> None:
    measured: list[float] = []

    def loss(share: float) -> float:
        measured.append(share)
        return 1 / share

    curve = curve_of(loss)
    for tolerance in (0.1, 0.5, 0.1):
        drain(curve.bracket(tolerance))
    drain(curve.fill())
    assert len(measured) == len(set(measured)) == 100
    for tolerance in (0.1, 0.5):
        assert curve.read(tolerance).smallest == pytest.approx(math.ceil(100 / (1 + tolerance) - 1e-9) / 100)


def test_the_interval_follows_the_images() -> None:
    same = curve_of(lambda share: 1 / share)
    drain(same.fill())
    assert same.resampled([0.26], smallest=True) == [(0.8, 0.8)], "every resample scales all losses alike"

    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(400, generator=generator, dtype=torch.float64)

    def measure(share: float, most: float) -> Generator[None, None, Tensor]:
        yield
        return torch.ones(400, dtype=torch.float64) + 2 * (1 - share) * noise

    curve = LossCurve(measure, step=0.01, name="noisy")
    drain(curve.fill())
    ((low, high),) = curve.resampled([0.5], smallest=True)
    value = curve.read(0.5).smallest
    assert low <= value <= high and 0.01 <= high - low <= 0.1
    draw = np.random.default_rng(1)
    ends = [math.ceil(100 * (1 - 0.25 / noise.numpy()[draw.integers(0, 400, 400)].mean())) / 100 for _ in range(500)]
    assert (low, high) == pytest.approx(np.percentile(ends, [2.5, 97.5]), abs=0.011)


def overflowing() -> nn.Module:
    """Two large terms that cancel in part; without the second, which goes first, the answer is infinite."""
    conv, head = nn.Conv2d(3, 2, 12), nn.Linear(2, 4)
    with torch.no_grad():
        for channel, value in enumerate((1.0, -0.9, 0.001)):
            conv.weight[:, channel] = value
        head.weight.copy_(torch.tensor([1.0, -1.0, 0.5, -0.5])[:, None].expand(4, 2) * 4e36)
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), head).eval()


@pytest.mark.parametrize("search", ["grid", "fast"])
def test_a_loss_that_is_not_finite_is_above_the_limit_and_gives_a_note(search: Any) -> None:
    with pytest.warns(dg.DgpruneNote, match="net: the loss is not finite with .* they count as above the limit"):
        frame: Any = dg.diagnostics.prunability(study_of(overflowing()), search=search, step=0.05, tolerance=1)
    points = frame[frame.metric == "loss"]
    broken = points[~np.isfinite(points.value)]
    assert len(broken) and broken.low.isna().all() and np.isfinite(read(frame).value)
    assert read(frame).contiguous_end > broken.fraction_kept.max()
    chart = dg.charts.prunability(frame).to_dict()
    assert "NaN" not in str(chart) and dg.charts.svg(dg.charts.prunability(frame)).count("<path") > 2


def test_the_losses_equal_those_of_the_masked_networks() -> None:
    study = study_of()
    frame = dg.diagnostics.prunability(study, step=0.1, tolerance=[0.1, 0.01])
    points = frame[frame.metric == "loss"]
    assert points.fraction_kept.tolist() == list(grid_of(0.1))
    scores, means = weight_scores(study.model), []
    for share in grid_of(0.1):
        network = dg.masked(study.model, dg.allocate(scores, ratio=1 - share, scope="global"))
        means.append(float(torch.cat([dg.evaluate(network, d, "train").loss for d in study.sources]).mean()))
    assert points.value.tolist() == means
    count = sum(weight.numel() for weight in prunable(study.model).values())
    removed = [math.floor((1 - share) * count + 1e-9) / count for share in grid_of(0.1)]
    assert points.ratio_achieved.tolist() == removed and points.ratio_requested.tolist() == [
        1 - s for s in grid_of(0.1)
    ]
    assert (points.low <= points.value).all() and (points.value <= points.high).all()
    for tolerance in (0.1, 0.01):
        row = frame[frame.tolerance == tolerance].iloc[0]
        expected = read_off(grid_of(0.1), means, limit=(1 + tolerance) * means[0])
        assert (row.value, row.smallest, row.contiguous_end) == (
            expected.smallest,
            expected.smallest,
            expected.contiguous_end,
        )
        assert row.monotone == expected.monotone and row.training_loss == means[0] and row.evaluations == 10
        assert row.bracket_low == pytest.approx(row.value - 0.1) and row.low <= row.value <= row.high
        assert (row.domain, row.split, row.images, row.interval) == ("a, b", "train", 40, "images")
        assert (row.scorer, row.scope, row.budget, row.batchnorm) == ("l1", "global", "parameters", None)
    again = dg.diagnostics.prunability(study, step=0.1, tolerance=[0.1, 0.01])
    assert again.equals(frame)


def test_fast_reports_that_isolated_shares_were_not_searched_and_agrees_with_the_grid() -> None:
    study = study_of()
    grid = read(dg.diagnostics.prunability(study, tolerance=0.05))
    fast = read(dg.diagnostics.prunability(study, tolerance=0.05, search="fast"))
    assert fast.value == fast.contiguous_end and fast.isolated_feasible == "not searched" and np.isnan(fast.smallest)
    assert fast.evaluations * 5 <= grid.evaluations == 100
    assert fast.training_loss == grid.training_loss
    if grid.monotone:
        assert fast.value == grid.value


@pytest.mark.parametrize("grows", [True, False])
def test_a_curve_that_refuses_shares_finds_an_end_of_the_range_that_is_enough(grows: bool) -> None:
    random, ends, differ = np.random.default_rng(0), set[float](), 0
    for _ in range(80):
        base, noise = random.exponential(size=30), 0.0 if grows else 0.1
        means = [1 + random.uniform(0, 0.06) * k + random.uniform(0, noise) * (k > 0) for k in range(20)]
        means = np.maximum.accumulate(means).tolist() if grows else means
        table = {share: base * mean for share, mean in zip(grid_of(0.05), means, strict=True)}

        def measure(share: float, most: float, table: Any = table) -> Generator[None, None, Tensor]:
            yield
            over = table[share].cumsum() > most
            return torch.from_numpy(table[share][: over.argmax() + 1] if over.any() else table[share])

        tolerances = random.uniform(0.01, 0.6, 2).tolist()
        all_, fewer = (LossCurve(measure, step=0.05, name="made up", refuse=r) for r in (None, max(tolerances)))
        for tolerance in tolerances:
            drain(all_.bracket(tolerance))
            drain(fewer.bracket(tolerance))
            alone = LossCurve(measure, step=0.05, name="made up", refuse=tolerance)
            drain(alone.bracket(tolerance))
            end, limit = fewer.read(tolerance).contiguous_end, (1 + tolerance) * fewer.full
            below = max((share for share in alone.losses if share < end), default=None)
            assert end == alone.read(tolerance).contiguous_end and fewer.shares_of(tolerance) == alone.points[0]
            assert all(share == 1.0 or table[share].mean() <= limit for share in alone.losses if share >= end)
            assert end == 0.05 if below is None else table[below].mean() > limit
            assert not grows or (end == all_.read(tolerance).contiguous_end and end - (below or 0) < 0.051)
            differ += end != all_.read(tolerance).contiguous_end
            ends.add(end)
        assert all(table[share].mean() > (1 + max(tolerances)) * fewer.full for share in fewer.refused)
    assert len(ends) > 10 and (differ > 0) != grows


def test_where_the_smallest_share_is_enough_the_range_from_1_is_followed_down() -> None:
    def measure(share: float, most: float) -> Generator[None, None, Tensor]:
        yield
        return torch.full((40,), 1.0 if share > 0.795 or share < 0.05 else 2.0, dtype=torch.float64)

    curve = LossCurve(measure, step=0.01, name="made up", refuse=0.1)
    drain(curve.bracket(0.1))
    assert curve.read(0.1).contiguous_end == 0.8


def test_small_shares_are_tried_first_where_they_are_refused_early() -> None:
    full, asked = torch.linspace(0.5, 1.5, 40, dtype=torch.float64), list[float]()

    def measure(share: float, most: float) -> Generator[None, None, Tensor]:
        asked.append(share)
        yield
        losses = full if share > 0.695 else 9 * full
        over = losses.cumsum(0) > most
        return losses[: int(over.double().argmax()) + 1] if over.any() else losses

    curve = LossCurve(measure, step=0.01, name="made up", refuse=0.1)
    drain(curve.bracket(0.1))
    assert asked == [1.0, 0.01, 0.36, 0.68, 0.84, 0.76, 0.72, 0.7, 0.69] and curve.refused == {0.01, 0.36, 0.68, 0.69}
    assert curve.read(0.1).contiguous_end == 0.7


def test_without_intervals_the_value_is_the_same_and_fewer_images_are_read() -> None:
    passes, seen = WeightMasking._forward, [0]

    def counted(masking: WeightMasking, *where: Any) -> Any:
        for logits, labels in passes(masking, *where):
            seen[-1] += len(labels)
            yield logits, labels

    values, told, ended, drawn = set[float](), 0, 0, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dgprune_lab.measurement.weight_masking.batch_size", lambda *_: 4)
        patch.setattr(WeightMasking, "_forward", counted)
        for seed, tolerance in product(range(4), (0.05, [0.05, 0.3])):
            study, tables = fitted_study(seed), []
            for intervals in (True, False):
                seen.append(0)
                options: Any = {"search": "fast", "tolerance": tolerance, "intervals": intervals, "step": 0.02}
                tables.append(dg.diagnostics.prunability(study, **options))
            drawn += seen[-2] - seen[-1]
            with_, without = ([row for row in t.to_dict("records") if row["metric"] == "prunability"] for t in tables)
            names = ("value", "contiguous_end", "bracket_low", "training_loss", "tolerance")
            assert [[row[name] for name in names] for row in without] == [
                [row[name] for name in names] for row in with_
            ]
            assert all(row["interval"] is None and math.isnan(row["low"]) for row in without)
            whole = dg.diagnostics.prunability(study, tolerance=tolerance, step=0.02)
            losses, partly = (
                t[t.metric == "loss"].set_index("fraction_kept").value.to_dict() for t in (whole, tables[1])
            )
            assert partly == pytest.approx({share: losses[share] for share in partly}), (
                "what is told is the loss over all images"
            )
            refused = without[0]["evaluations"] - len(partly)
            values |= {row["value"] for row in without}
            told, ended = told + len(partly), ended + refused
    assert len(values) > 3 and told > 20 and ended > 1, "the curves differ, and shares were accepted and refused"
    assert drawn > 0


def test_filter_losses_equal_those_of_the_study() -> None:
    model = nn.Sequential(*norm_net()[:7], nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))
    study = study_of(randomise(model, dtype=torch.float32))
    for norm in ("as_is", "recalibrate"):
        frame = dg.diagnostics.prunability(
            study, scorer="taylor", granularity="filter", scope="layer", step=0.25, batchnorm=norm
        )
        masks = [None, *(dg.allocate(study.score("taylor"), ratio=ratio) for ratio in (0.25, 0.5, 0.75))]
        means = [
            float(torch.cat([study.outcomes(m, domain=d, split="train", batchnorm=norm).loss for d in "ab"]).mean())
            for m in masks
        ]
        assert frame[frame.metric == "loss"].value.tolist() == means
        row = read(frame)
        assert (row.scorer, row.budget, row.granularity) == ("taylor", "filters", "filter")
        assert row.seen_by_scorer == "none" and not row.target_aware
    aware = read(dg.diagnostics.prunability(study, scorer="dss", granularity="filter", step=0.5))
    assert aware.target_aware


def test_several_networks_on_one_table_and_a_note_where_their_losses_differ() -> None:
    studies = [study_of(seed=seed) for seed in (0, 1)]
    with pytest.warns(dg.DgpruneNote, match=r"the training losses differ: .* \(net.*\) to .* \(net"):
        frame = dg.diagnostics.prunability(studies, step=0.25)
    assert frame.network.unique().tolist() == ["net", "net (2)"]
    assert unlike({"a": 1.0, "b": 1.029}) is None and "0.5 (b) to 1 (a)" in (unlike({"a": 1.0, "b": 0.5}) or "")


def test_a_tolerance_that_may_be_a_percentage_is_said_in_words() -> None:
    with pytest.warns(
        dg.DgpruneNote, match=r"tolerance=10 lets the loss grow to 11 times; 0\.1 lets it grow by a tenth"
    ):
        dg.diagnostics.prunability(study_of(), step=0.25, tolerance=[0.1, 10])
    dg.diagnostics.prunability(study_of(), step=0.25, tolerance=1)  # no note


def test_the_study_is_untouched_and_steps_yield_within_an_evaluation() -> None:
    study = study_of()
    before, state = fingerprint(study.model), torch.get_rng_state()
    steps = dg.diagnostics.prunability.steps(study, step=0.25)
    seen = list(steps)
    assert seen[-1] == (4, 4) and len(seen) > 8, "it yields within an evaluation too"
    assert fingerprint(study.model) == before and torch.equal(torch.get_rng_state(), state)
    fast = list(dg.diagnostics.prunability.steps(study, search="fast"))
    assert all(done <= most for done, most in fast)


def test_invalid_input_is_refused_with_a_message() -> None:
    study = study_of()

    def ask(**options: Any) -> None:
        dg.diagnostics.prunability(options.pop("studies", study), **options)

    for options, message in (
        ({"tolerance": 0}, "tolerance must be above 0.*got 0"),
        ({"tolerance": -0.1}, "tolerance must be above 0"),
        ({"tolerance": math.inf}, "tolerance must be a finite number; got inf"),
        ({"tolerance": []}, "at least one tolerance, above 0"),
        ({"studies": []}, "at least one study"),
        ({"search": "quick"}, "search must be one of 'grid', 'fast'"),
        ({"scope": "all"}, "scope must be one of"),
        ({"granularity": "layer"}, "granularity must be one of 'weight', 'filter'"),
        ({"batchnorm": "none"}, "batchnorm must be one of 'as_is', 'fold', 'recalibrate'"),
        ({"scorer": "l2"}, "single weights are scored by .*got 'l2'.*granularity='filter'"),
        ({"scorer": "l3", "granularity": "filter"}, "unknown scorer 'l3'"),
        ({"granularity": "filter", "batchnorm": "fold"}, "nothing to fold"),
        ({"granularity": "filter", "scorer": weight_scores(study.model)}, "WeightScores rank single weights"),
        ({"split": "test"}, "domain 'a' has no split 'test'"),
        ({"studies": study_of(labelled=False)}, "source 'a' has no labels"),
        ({"step": 2}, "step must lie"),
        ({"intervals": False}, "intervals=False .*needs search='fast'.*got search='grid'"),
        ({"intervals": False, "search": "fast", "granularity": "filter"}, "got .*granularity='filter'"),
    ):
        with pytest.raises(dg.DgpruneError, match=message):
            ask(**options)


def test_a_training_loss_of_zero_or_nan_is_refused() -> None:
    for loss, message in ((0.0, "'made up' is 0"), (math.nan, "'made up' is nan")):
        with pytest.raises(dg.DgpruneError, match=message):
            drain(curve_of(lambda share, loss=loss: loss).bracket(0.1))


def test_a_grid_without_end_is_refused_with_its_number_before_any_work() -> None:
    with pytest.raises(dg.DgpruneError, match=r"step=1e-06 would make a grid of 1,000,000 shares.*at most 10,000"):
        Setting(step=1e-6)
    assert len(grid_of(1e-4)) == 10_000
