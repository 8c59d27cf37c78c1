"""Instability: mean stability against the result over runs; correlations, warning, chart, and the live run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pruning_runs import EVERY, QUICK, fresh, same_runs, shades, trained
from scipy.stats import kendalltau, pearsonr

import dgprune_lab as dg
from dgprune_lab import charts
from dgprune_lab.charts.instability import instability_rows
from dgprune_lab.charts.theme import DOTTED
from dgprune_lab.charts.training import training_data
from dgprune_lab.stats.correlation import pearson, tau_b
from dgprune_lab.widgets import Training

QUIET = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")
LONGER = dg.TrainingOptions(**{**QUICK.to_json(), "epochs": 7})
LATE = dg.PruneSchedule.everywhere(start=5, end=6, every=1, ratio=0.5)


@pytest.fixture(scope="module")
def run() -> dg.PruningRun:
    return trained(options=LONGER, schedule=LATE, remove="largest")


def planted(run: dg.PruningRun, *, stable: float, ends: float, removed: int = 4) -> dg.PruningRun:
    """The same run with other numbers in its tables."""
    end, events = run.end.copy(), run.events.copy()
    end.loc[end.metric == "mean_stability", "value"] = stable
    end.loc[(end.metric == "accuracy") & (end.stage == "last"), "value"] = ends
    events["filters"] = removed
    return replace(run, end=end, events=events)


def many(run: dg.PruningRun, count: int = 10) -> tuple[list[dg.PruningRun], np.ndarray, np.ndarray]:
    generator = np.random.default_rng(4)
    x = generator.uniform(60, 100, count)
    y = 0.99 - 0.002 * x + generator.normal(0, 0.01, count)
    y[1] = y[0]
    runs = [planted(run, stable=a, ends=b, removed=2 + 5 * (k % 2)) for k, (a, b) in enumerate(zip(x, y, strict=True))]
    return runs, x, y


def row(frame: Any, **wanted: Any) -> dict[str, Any]:
    for name, value in wanted.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return frame.iloc[0].to_dict()


@QUIET
@pytest.mark.parametrize(("scorer", "aware"), [("l2", False), ("dss", True)])
def test_mean_stability_and_its_correlations_say_who_looked_at_the_target(scorer: str, aware: bool) -> None:
    runs = [trained(scorer=scorer, options=replace(QUICK, seed=seed)) for seed in (0, 1, 2)]
    ends: Any = runs[0].end[runs[0].end.metric == "mean_stability"]
    of_target = ends[ends.domain == "t"].iloc[0]
    assert bool(of_target.target_aware) == aware
    assert of_target.seen_by_scorer == ("images" if aware else "none")
    assert bool(ends[ends.domain.isna()].iloc[0].target_aware) == aware
    frame: Any = dg.diagnostics.instability(runs)
    rows = frame[frame.metric.isin(["mean_stability", "pearson", "kendall"]) & (frame.domain != "a")]
    assert len(rows) >= 8 and rows.target_aware.notna().all() and set(map(bool, rows.target_aware)) == {aware}


def test_correlations_equal_scipy_and_their_interval_is_over_runs(run: dg.PruningRun) -> None:
    runs, x, y = many(run)
    frame = dg.diagnostics.instability(runs)
    for metric, wanted in (("pearson", pearsonr(x, y)[0]), ("kendall", kendalltau(x, y)[0])):
        cells = row(frame, metric=metric, domain="a", of_metric="accuracy", within="all rates")
        assert cells["value"] == pytest.approx(wanted) and cells["value"] < 0
        assert -1 <= cells["low"] < cells["value"] < cells["high"] <= 1 and cells["interval"] == "runs"
        assert cells["runs"] == 10 and pd.isna(cells["warning"])
    rates = sorted(set(frame.rate.dropna()))
    assert rates == [round(2 / 14, 4), 0.5] and len(set(frame.within.dropna())) == 3
    half = row(frame, metric="pearson", domain="a", of_metric="accuracy", within="50 % an event")
    assert half["value"] == pytest.approx(pearsonr(x[1::2], y[1::2])[0]) and half["runs"] == 5 and half["warning"]


def test_correlations_of_constants_are_empty() -> None:
    same, other = np.ones(4), np.arange(4.0)
    assert all(np.isnan(f(a, b)) for f in (pearson, tau_b) for a, b in ((same, other), (other, same)))


def test_below_eight_runs_the_table_warns(run: dg.PruningRun) -> None:
    frame = dg.diagnostics.instability(run)
    cells = row(frame, metric="kendall", domain="t", of_metric="accuracy")
    assert np.isnan(cells["value"]) and cells["runs"] == 1 and cells["warning"].startswith("only 1 run")
    stable = row(frame, metric="mean_stability", domain="a")
    assert stable["value"] == run.stability("a") and stable["run"] == 1 and stable["split"] == "score"
    kept = frame[(frame.metric == "accuracy") & (frame.stage == "last") & (frame.domain == "t")]
    assert kept.value.item() == dg.evaluate(run.network, shades("t", noise=0.4, seed=1), "report").accuracy
    assert stable["settings"].startswith("largest by l2, 2 events; 7 epochs, sgd 0.05 constant, weight decay 0.01")


@QUIET
def test_runs_that_cannot_be_compared_are_refused_and_unfinished_ones_left_out(run: dg.PruningRun) -> None:
    stopped = replace(run, finished=False)
    assert set(dg.diagnostics.instability([stopped, run]).run.dropna()) == {2}
    with pytest.warns(dg.DgpruneNote, match="left out, as they were stopped or diverged: run 1"):
        dg.diagnostics.instability([stopped, run])
    other = replace(run, settings={**run.settings, "report": "score"})
    with pytest.raises(dg.DgpruneError, match="the runs differ in their report"):
        dg.diagnostics.instability([run, other])
    with pytest.raises(dg.DgpruneError, match="needs a finished run"):
        dg.diagnostics.instability([])


@QUIET
def test_the_scatter_has_a_dot_per_run_and_domain_and_warns_below_eight_runs(run: dg.PruningRun) -> None:
    runs, x, y = many(run, 9)
    frame = dg.diagnostics.instability(runs)
    rows = instability_rows(frame)
    own = [r for r in rows if r["domain"] == "a"]
    assert {(r["treatment"], r["control"]) for r in rows} == {("largest removed", False)}
    assert len(rows) == 18 and [r["stable"] for r in own] == pytest.approx(x.tolist())
    assert [r["value"] for r in own] == pytest.approx((100 * y).tolist()) and own[0]["low"] < own[0]["high"]
    spec = charts.instability(frame).to_dict()
    assert (
        spec["title"]["subtitle"][0].startswith("a: rank correlation \N{MINUS SIGN}0.")
        and len(spec["title"]["subtitle"]) == 2
    )
    few = charts.instability(dg.diagnostics.instability(runs[:3]), metric="generalization_gap").to_dict()
    assert few["title"]["subtitle"] == ["Only 3 runs: a correlation over fewer than 8 says next to nothing."]
    assert charts.svg(charts.instability(frame)).startswith("<svg")


def test_treatments_differ_in_what_is_removed_alone_and_controls_do_not_count(run: dg.PruningRun) -> None:
    given = {"sources": [shades("a")], "targets": [shades("t", noise=0.4, seed=1)], "schedule": EVERY}
    three: Any = ["smallest", "nothing", "before"]
    made = dg.train_treatments(lambda seed: fresh(seed=seed), **given, options=QUICK, treatments=three, seeds=[1])
    assert list(made) == ["smallest, seed 1", "nothing, seed 1", "before, seed 1"]
    options = replace(QUICK, seed=1)
    assert same_runs(made["smallest, seed 1"], trained(fresh(seed=1), options=options, seed=1))
    assert made["nothing, seed 1"].events.empty and set(made["before, seed 1"].events.epoch) == {0}
    frame = dg.diagnostics.instability([*made.values(), run])
    kinds = {r["treatment"]: (r["control"], r["fill"]) for r in instability_rows(frame)}
    assert kinds["nothing removed"] == kinds["removed before training"] == (True, "transparent")
    assert kinds["largest removed"][0] is False and kinds["largest removed"][1] != "transparent"
    together = frame[(frame.metric == "kendall") & (frame.within == "all rates")]
    assert set(together.runs) == {1}, "controls are 100 % stable by definition"
    spec = charts.instability(frame).to_dict()
    assert spec["title"]["subtitle"][-1] == "Controls (hollow marks) are not counted."
    for k, panel in enumerate(spec["hconcat"]):
        data = [one.get("data", {}) for one in panel["layer"]]
        (rows,) = (named["values"] for named in data if named.get("name") == f"runs_{k}" and "values" in named)
        at = [r["at"] for r in rows if r["control"]]
        assert np.mean(at) == pytest.approx(100) and np.diff(sorted(at)) > 0.5, "side by side"
        assert all(r["at"] == r["stable"] for r in rows if not r["control"])
        axes = [one.get("encoding", {}).get("y", {}) for one in panel["layer"]]
        titles = {y["title"] for y in axes if "title" in y}
        assert titles == {"Accuracy at the end (%)"} and "title" not in panel
    assert set(frame.batchnorm) >= {"as_is"} and "BatchNorm as is" in str(charts.instability(frame).to_dict()["title"])
    for wrong in ({"treatments": ["smallest", "smallest"]}, {"seeds": []}, {"treatments": ["smallish"]}):
        with pytest.raises(dg.DgpruneError, match=next(iter(wrong))):
            dg.train_treatments(lambda seed: fresh(seed=seed), **{**given, **wrong})
    with pytest.raises(dg.DgpruneError, match="build must return a network"):
        dg.train_treatments(lambda seed: None, **given)  # type: ignore[arg-type, return-value]


def test_the_live_chart_has_training_held_out_and_shifted_images_and_every_drop(run: dg.PruningRun) -> None:
    data = training_data(run.table, epochs=7)
    assert {(r["curve"], tuple(r["dash"])) for r in data["curves"]} >= {("a, training images", DOTTED)}
    assert {r["curve"] for r in data["curves"]} == {"a", "a, training images", "t"}
    assert [cut["epoch"] for cut in data["cuts"]] == [5, 6] and data["unit"] == [{"text": "points, at once"}]
    change = run.events[(run.events.metric == "accuracy_change") & (run.events.event == 1)].set_index("domain").value
    texts = {name: f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}") for name, value in change.items()}
    assert data["cuts"][0]["label"] == texts["a"]
    assert data["cuts"][0]["tip"] == f"event 1: a {texts['a']} points, t {texts['t']} points"
    assert charts.svg(charts.training(run.table)).startswith("<svg")
    crowded = pd.concat([run.table.assign(epoch=run.table.epoch + 10 * k) for k in range(12)])
    assert {cut["label"] for cut in training_data(crowded)["cuts"]} == {""}, "more would stand on each other"


def test_a_live_training_is_the_same_run(run: dg.PruningRun) -> None:
    live = Training(
        fresh(),
        sources=[shades("a")],
        targets=[shades("t", noise=0.4, seed=1)],
        options=LONGER,
        schedule=LATE,
        remove="largest",
    )
    try:
        torch.rand(3)
        assert same_runs(live.result, run) and live.table.equals(run.table)
        assert live.static["title"] == "Training with pruning, l2: highest scores removed, 7 epochs, BatchNorm as is"
        assert live.data == training_data(run.table, epochs=7) and live.status["progress"] == "event 2 of 2 is finished"
    finally:
        live.close()
    with pytest.raises(dg.DgpruneError, match="unknown layer 'x'"):
        Training(fresh(), sources=[shades("a")], schedule=dg.PruneSchedule({"x": (1, 1, 1, 0.5)}))
