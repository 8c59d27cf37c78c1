"""The study of pruning while training: arms, schedules, rows; correlations within a rate and pooled; claims."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import stdtrit
from scipy.stats import kendalltau, pearsonr

import dgprune_lab as dg
from dgprune_lab import charts
from dgprune_lab.charts.treatments import correlated_rows, treated_rows
from dgprune_lab.core import DgpruneError, Domain
from dgprune_lab.experiments import instability_correlations
from dgprune_lab.experiments.instability_correlations import FLATNESS
from dgprune_lab.experiments.scratch import Scratch
from dgprune_lab.experiments.studies._training_rows import counted_drops, follow_run
from dgprune_lab.experiments.studies.instability import (
    ARMS,
    KNOB_ARMS,
    KNOBS,
    PROTOCOLS,
    instability,
    options_of,
    run_instability,
    schedule_of,
)
from dgprune_lab.experiments.studies.instability_claims import instability_claims
from dgprune_lab.stats import correlation_over_seeds
from dgprune_lab.training import StageEvent

module: Any = importlib.import_module("dgprune_lab.experiments.studies.instability")  # its folder holds a function
pytestmark = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")
SMALL: Any = PROTOCOLS["small"]


def settings(arm: str, **more: Any) -> dict[str, Any]:
    return {**PROTOCOLS["quick"], "training_seed": 0, "data_set": "digits", "knob": "none", "arm": arm, **more}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    return Scratch(tmp_path_factory.mktemp("instability"), device=torch.device("cpu"))


@pytest.fixture(scope="module")
def found(scratch: Scratch) -> dict[str, Any]:
    before = torch.get_rng_state()
    runs = {"unpruned": run_instability(settings("unpruned"), scratch)}
    runs["largest_high"] = run_instability(settings("largest_high", flatness_images=4), scratch)
    assert torch.equal(torch.get_rng_state(), before)
    return runs


def value(finding: Any, **wanted: Any) -> dict[str, Any]:
    rows = [row for row in finding.rows if all(row.get(name) == cell for name, cell in wanted.items())]
    assert len(rows) == 1, rows
    return rows[0]


def test_every_arm_runs_seed_by_seed_and_each_setting_of_the_reviewers_once() -> None:
    study = instability()
    runs: list[Any] = [study.settings(number) for number in range(len(study.grid))]
    assert [run["training_seed"] for run in runs] == sorted(run["training_seed"] for run in runs)
    cells = {(run["data_set"], run["knob"], run["arm"]) for run in runs if run["training_seed"] == 3}
    knobs = set(product(["cifar10"], tuple(KNOBS)[1:], KNOB_ARMS))
    assert cells == set(product(["cifar10", "digits"], ["none"], ARMS)) | knobs and len(cells) == 33
    assert len({study.key(number) for number in range(len(runs))}) == 5 * 33 == len(runs)
    assert {"weight_decay", "augmentation", "dropout"} == set(KNOBS) - {"none"}
    paper = instability(protocol="paper")
    assert paper.name == "instability_paper" and {run["knob"] for run in paper.grid} == set(KNOBS) - {"dropout"}
    assert [place[2] for place in instability(quick=True).protocol["data_sets"]] == ["mnist_m"]


def test_the_rate_of_the_paper_protocol_is_told_as_that_of_all_scheduled_layers() -> None:
    plan = PROTOCOLS["paper"]
    filters = dict(zip((f"conv{k}" for k in range(1, 9)), plan["widths"], strict=True))  # type: ignore[arg-type]
    rates = []
    for arm in ("largest_low", "largest_high"):
        schedule = schedule_of(plan, ARMS[arm])
        assert schedule is not None
        table = schedule.timetable(filters, epochs=325)
        assert all(len(due) == 1 for due in table.values()), "an event holds one layer"
        removed = sum(512 - min(row.get(layer, 512) for row in table.values()) for layer in filters)
        last = [row for row in table.values() if "conv8" in row]
        rates += [removed / len(table) / (4 * 512), (512 - last[-1]["conv8"]) / len(last) / 512]
    assert [f"{100 * rate:.2g}" for rate in rates] == ["0.25", "1.3", "2.4", "13"]
    text = ".25 % and 2.4 %, where the paper counts those of conv8 alone: 1.3 % and 13 %."
    assert instability(protocol="paper").differences[-1].endswith(text)
    assert not any("conv8" in line and "rate" in line for line in instability().differences)


def test_settings_do_not_fill_columns_of_results(tmp_path: Path) -> None:
    study = instability(quick=True)
    named = replace(study, protocol={**study.protocol, "low": 1}, grid=[{**study.grid[0], "value": 2}])
    with pytest.raises(DgpruneError, match=r"'low' and 'value' cannot name settings.*rename them"):
        dg.experiments.run(named, folder=tmp_path)


def test_arms_share_epochs_and_filters_and_differ_in_what_they_say() -> None:
    plan = {**SMALL, "training_seed": 4, "knob": "none"}
    filters: dict[str, Any] = dict(zip(("conv1", "conv2", "conv3", "conv4"), SMALL["widths"], strict=True))

    def removed(arm: str) -> dict[str, int]:
        schedule = schedule_of(plan, ARMS[arm])
        assert schedule is not None
        table = schedule.timetable(filters, epochs=options_of(plan, ARMS[arm]).epochs)
        rows: Any = table.values()
        least: Any = {layer: min(row.get(layer, count) for row in rows) for layer, count in filters.items()}
        return {layer: count - least[layer] for layer, count in filters.items()}

    assert {name for name in ARMS if schedule_of(plan, ARMS[name]) is None} == {"unpruned", "unpruned_longer"}
    pruned = [name for name in ARMS if ARMS[name].events]
    assert all(removed(name) == {"conv1": 0, "conv2": 9, "conv3": 19, "conv4": 48} for name in pruned)
    low, high, before = (schedule_of(plan, ARMS[name]) for name in ("largest_low", "largest_high", "before"))
    assert low is not None and high is not None and before is not None
    assert (len(low.epochs), high.epochs, before.epochs) == (17, (2, 6, 10, 14, 18), (0,))
    assert {options_of(plan, ARMS[name]).epochs for name in ARMS if name != "unpruned_longer"} == {30}
    longer = options_of(plan, ARMS["unpruned_longer"])
    assert longer.epochs == 30 + 18 - 2 and longer.milestones == (21, 43) and longer.seed == 4
    assert [(ARMS[name].how, ARMS[name].batches) for name in ("zero_short", "zero_middle", "zero_long", "noise")] == [
        *(("zero", batches) for batches in (1, 50, 1105)),
        ("noise", 1105),
    ]
    paper = options_of({**plan, **PROTOCOLS["paper"]}, ARMS["unpruned_longer"])
    assert (paper.epochs, paper.milestones) == (568, (262, 524)), "epochs 3 to 246 of the high rate"
    sgd = options_of({**plan, "knob": "weight_decay"}, ARMS["unpruned"])
    assert (sgd.optimiser, sgd.lr, sgd.momentum, sgd.weight_decay) == ("sgd", 0.1, 0.9, 1e-4)
    assert options_of({**plan, "knob": "augmentation"}, ARMS["unpruned"]).augmentation == "crop_flip"


def test_rows_tell_the_cost_of_the_events_and_the_end_on_both_domains(found: dict[str, Any]) -> None:
    pruned, control = found["largest_high"], found["unpruned"]
    assert all(row["events"] == 0 and row["rate"] == 0 for row in control.rows)
    assert value(control, metric="mean_stability", domain="mnist_m")["value"] == 100
    assert not [row for row in control.rows if "drop" in row["metric"]]
    stable = value(pruned, metric="mean_stability", domain="digits")
    relative, absolute = (
        value(pruned, metric=f"mean_{kind}_drop", domain="digits")["value"] for kind in ("relative", "absolute")
    )
    assert stable["events"] == 2 and stable["value"] == pytest.approx(100 * (1 - relative)) and 0 < absolute < relative
    assert value(pruned, metric="mean_stability", unit="%", role="source") == stable
    other = value(pruned, metric="mean_stability", domain="mnist_m")
    found_drop = [row for row in pruned.rows if row["metric"] == "mean_relative_drop" and row["domain"] == "mnist_m"]
    assert [row["events"] for row in found_drop] == [other["events"]] and 0 < other["events"] <= 2
    assert all("low" not in row or row["interval"] for row in pruned.rows)
    for finding in found.values():
        for domain, stage in product(("digits", "mnist_m"), ("last", "selected on score", "selected on test")):
            cells = value(finding, metric="accuracy", domain=domain, stage=stage)
            assert (cells["split"], cells["images"], cells["training_seed"]) == ("report", 80, 0)
            assert cells["target_aware"] is False and cells["epochs_trained"] == 6
            looked = domain == "digits" and stage == "selected on test"
            assert cells["seen_by_selection"] == ("labels" if looked else "none")
            assert (
                stage != "selected on test"
                or domain != "digits"
                or cells["value"]
                >= max(
                    value(finding, metric="accuracy", domain=domain, stage=other)["value"]
                    for other in ("last", "selected on score")
                )
            ), "the best of all epochs on these images"
        measured = {row["metric"] for row in finding.rows}
        assert measured & set(FLATNESS) == (set(FLATNESS) if finding is pruned else set())
        gaps = [row for row in finding.rows if row["metric"] == "generalization_gap"]
        assert len(gaps) == 3 and all(row["domain"] == "digits" for row in gaps)


def test_an_event_before_training_or_from_chance_does_not_count() -> None:
    cells = [(1, 0, "d", 0.5, -0.4), (2, 3, "d", None, -0.1), (3, 5, "d", 0.2, -0.1), (3, 5, "s", 0.9, -0.6)]
    rows = [
        {"event": event, "epoch": epoch, "domain": domain, "metric": metric, "value": number}
        for event, epoch, domain, relative, change in cells
        for metric, number in (("relative_drop", relative), ("accuracy_change", change))
    ]
    run: Any = SimpleNamespace(events=pd.DataFrame(rows))
    assert (counted_drops(run, "d"), counted_drops(run, "s"), counted_drops(run, "t")) == (
        [(0.2, 0.1)],
        [(0.9, 0.6)],
        [],
    )


def test_the_epoch_selected_on_test_is_the_best_one_on_the_reported_images(monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = {"start": (0.9, 0.9), "first": (0.4, 0.8), "second": (0.7, 0.2), "third": (0.6, 0.5)}

    def steps() -> Any:
        for epoch, network in enumerate(accuracies):
            stage: Any = "full" if network == "start" else "trained"
            more: Any = {"so_far": SimpleNamespace(network=network), "rows": (), "round": 0, "rounds": 0}
            yield StageEvent(stage=stage, epoch=epoch, epochs=3, **more)
            yield None
        return "the run"

    def evaluate(network: str, domain: str, split: str) -> Any:
        return SimpleNamespace(accuracy=accuracies[network][["report", "score"].index(split)])

    monkeypatch.setattr("dgprune_lab.experiments.studies._training_rows.evaluate", evaluate)
    source: Any = "the source"
    assert follow_run(steps(), source) == ("the run", "second")


def test_nothing_of_the_shifted_images_changes_a_network(
    scratch: Scratch, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.domains

    def domains(plan: Any) -> tuple[Domain, Domain]:
        source, target = original(plan)
        assert set(target.splits) == {"score", "report"}
        assert set(source.splits) == {"train", "score", "report"}
        return source, replace(target, images=255 - target.images, labels=(target.labels + 1) % 10)

    monkeypatch.setattr(module, "domains", domains)
    again, old = run_instability(settings("largest_high"), scratch), found["largest_high"]
    assert again.weights == old.weights and again.data["mnist_m"] != old.data["mnist_m"]
    mine, theirs = (
        [row for row in one.rows if row.get("domain") == "digits" and row["metric"] not in FLATNESS]
        for one in (again, old)
    )
    assert mine == theirs


def test_training_that_diverges_says_which_run_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DgpruneError, match=r"arm 'unpruned' of training seed 0 has no result.*diverged.*lower the"):
        run_instability(settings("unpruned", lr=1e30), Scratch(tmp_path, device=torch.device("cpu")))


Outcome = Callable[[str, int], tuple[float, float]]
RATES = {"smallest_low": 0.02, "largest_low": 0.02, "smallest_high": 0.1, "random_high": 0.1, "largest_high": 0.1}
OTHERS = {"unpruned": 0.0, "unpruned_longer": 0.0, "before": 0.5}
PLACE = {name: place for place, name in enumerate((*RATES, *OTHERS))}


def planted(outcome: Outcome, *, seeds: int = 5, gap: float = 1.0) -> Any:
    """A table of the study in which mean stability and accuracy of each arm and seed are `outcome`."""
    rows: list[dict[str, Any]] = []
    for arm, seed in product((*RATES, *OTHERS), range(seeds)):
        stable, accuracy = outcome(arm, seed)
        shared = {"data_set": "d", "knob": "none", "arm": arm, "training_seed": seed, "stage": "last"}
        shared |= {"rate": (RATES | OTHERS)[arm], "events": 3 if arm in RATES else 0}
        rows.append({**shared, "metric": "mean_stability", "value": stable, "split": "score", "unit": "%"})
        seen = dict.fromkeys(("seen_by_training", "seen_by_scorer", "seen_by_finetuning", "seen_by_selection"), "none")
        seen |= {"split": "report", "images": 100, "unit": "share", "target_aware": False}
        for domain, role in (("d", "source"), ("s", "target")):
            about = {**shared, **seen, "domain": domain, "role": role}
            rows.append({**about, "metric": "accuracy", "value": accuracy if role == "source" else 1 - accuracy})
            if role == "source":
                rows.append({**about, "metric": "generalization_gap", "value": gap * (1 - accuracy)})
    return dg.tidy(rows, extra=("data_set", "knob", "arm", "stage", "rate", "events"))


def noisy(slope: float, between: float) -> Outcome:
    """Within a rate the accuracy changes by `slope` per percent of stability; from low to high by `between`."""

    def outcome(arm: str, seed: int) -> tuple[float, float]:
        if arm in OTHERS:
            return 100.0, 0.6 - 0.05 * PLACE[arm] + 0.001 * seed  # a control whose numbers would change any correlation
        high = arm.endswith("high")
        step = 5.0 * PLACE[arm] % 15 + np.sin(7 * seed + 3 * PLACE[arm])
        accuracy = 0.5 + slope * step + between * high + 0.003 * np.cos(5 * seed + PLACE[arm])
        return 95 - 20 * high + step, float(accuracy)

    return outcome


def only(frame: Any, **wanted: Any) -> dict[str, Any]:
    for name, cell in wanted.items():
        frame = frame[frame[name] == cell]
    assert len(frame) == 1, frame
    return frame.iloc[0].to_dict()


def test_pooling_rates_can_turn_the_sign_within_a_rate() -> None:
    frame = planted(noisy(slope=0.004, between=0.15))
    table = instability_correlations(frame)
    about = {"metric": "pearson", "of_metric": "accuracy", "domain": "d"}
    pooled, *within = (only(table, within=name, **about) for name in ("all rates", "2 % an event", "10 % an event"))
    assert pooled["high"] < 0 and "mixes two effects" in pooled["note"]
    assert all(row["low"] > 0 and pd.isna(row["note"]) for row in within)
    assert (pooled["runs"], within[0]["runs"], within[1]["runs"]) == (25, 10, 15), "without the controls"
    verdicts = {claim.claim: claim.verdict for claim in instability_claims(frame)}
    words = "Less stable runs end more accurate (correlation below 0), d, {}"
    assert verdicts[words.format("pooled over rates")] == "yes"
    assert verdicts[words.format("within 10 % an event")] == "no"


def test_planted_correlations_are_those_of_scipy_with_the_jackknife_over_seeds() -> None:
    outcome = noisy(slope=-0.002, between=0.01)
    table = instability_correlations(planted(outcome))
    runs = list(product([arm for arm in RATES if RATES[arm] == 0.1], range(5)))
    x, y = np.array([outcome(*run) for run in runs]).T
    seeds = np.array([seed for _, seed in runs])
    oracles: dict[str, Any] = {"pearson": pearsonr, "kendall": kendalltau}
    for name, oracle in oracles.items():
        row = only(table, metric=name, of_metric="accuracy", domain="d", within="10 % an event")
        z = np.arctanh(np.array([oracle(x[seeds != seed], y[seeds != seed])[0] for seed in range(5)]))
        half = stdtrit(4, 0.975) * np.sqrt(4 / 5 * ((z - z.mean()) ** 2).sum())
        middle = np.arctanh(row["value"])
        assert (
            row["value"] == pytest.approx(oracle(x, y)[0])
            and row["interval"] == "seeds"
            and row["seeds"] == "0, 1, 2, 3, 4"
        )
        assert (row["low"], row["high"]) == pytest.approx(np.tanh([middle - half, middle + half]))
        assert row["minimum_detectable_effect"] == pytest.approx(np.tanh(half)) and row["high"] < 0
        shifted = only(table, metric=name, of_metric="accuracy", domain="s", within="10 % an event")
        assert shifted["value"] == pytest.approx(-row["value"]) and shifted["role"] == "target"


def test_an_interval_needs_seeds_that_differ() -> None:
    x = np.arange(6.0)
    assert np.isnan(correlation_over_seeds("pearson", x, x**2, seeds=[0] * 6)[1:]).all()
    assert np.isnan(correlation_over_seeds("pearson", x, x, seeds=[0, 0, 0, 1, 1, 1])[1:]).all(), "no zero width"
    assert np.isnan(correlation_over_seeds("kendall", x, np.ones(6), seeds=[0, 0, 0, 1, 1, 1])).all()
    alone: Any = instability_correlations(planted(noisy(slope=0.01, between=0), seeds=1))
    assert alone["low"].isna().all() and alone["value"].notna().all()
    assert not instability_claims(planted(noisy(slope=0.01, between=0), seeds=1)), "no claim without an interval"


def test_claims_have_the_direction_of_the_paper() -> None:
    frame = planted(noisy(slope=-0.004, between=0.02))
    claims = {claim.claim: claim for claim in instability_claims(frame)}
    within = ", d, within 10 % an event"
    less, gap, shifted = (
        claims[f"Less stable runs end {words}{within}"]
        for words in (
            "more accurate (correlation below 0)",
            "with a smaller gap (correlation above 0)",
            "more accurate on shifted images (correlation below 0)",
        )
    )
    assert (less.verdict, gap.verdict, shifted.verdict) == ("yes", "yes", "no")
    assert less.estimate < 0 < gap.estimate and less.unit == "correlation" and less.minimum_detectable_effect > 0
    best = claims["Removing the largest filters ends more accurate than no removal, d"]
    means = frame[(frame["metric"] == "accuracy") & (frame["domain"] == "d")].groupby("arm")["value"].mean()
    assert best.estimate == pytest.approx(means["largest_high"] - means["unpruned"]) and best.unit == "share"
    smaller = claims["Removing the largest filters ends with a smaller gap than no removal, d"]
    assert smaller.estimate == pytest.approx(best.estimate), "the gap is planted as 1 - accuracy"
    assert smaller.low < smaller.estimate < smaller.high
    other = claims["Removing the largest filters ends more accurate on shifted images than no removal, d"]
    assert other.estimate == pytest.approx(-best.estimate) and other.published == "not in the paper"
    assert not any("Noise" in words or "Zeroing" in words for words in claims), "arms that are not in the table"
    stable = frame[(frame["metric"] == "mean_stability") & frame["events"].gt(0)]
    flat = stable.assign(metric="hessian_trace", unit=None, value=np.log(stable["value"]))
    words = "Less stable runs end flatter (Hessian trace, correlation above 0)"
    curved = {claim.claim: claim for claim in instability_claims(pd.concat([frame, flat]))}
    assert curved[f"{words}{within}"].verdict == "yes" and f"{words}, d, pooled over rates" not in curved
    flatter = curved[f"Flatter runs end more accurate (Hessian trace, correlation below 0){within}"]
    assert flatter.verdict == "yes" and flatter.estimate < 0 and len(curved) == len(claims) + 2
    later = frame.assign(stage="selected on test")
    mixed = pd.concat([frame, later.assign(value=later["value"] + 1)])
    assert [c.estimate for c in instability_claims(mixed)] == [c.estimate for c in claims.values()], (
        "the last epoch only"
    )


def test_other_tables_and_settings_are_refused() -> None:
    frame = planted(noisy(slope=0.01, between=0), seeds=2)
    other = planted(noisy(slope=-0.01, between=0), seeds=2).assign(knob="dropout")
    both = pd.concat([frame, other])
    assert instability_correlations(both)["value"].tolist() == instability_correlations(frame)["value"].tolist()
    assert (
        instability_correlations(both, knob="dropout")["value"].iloc[0] < 0 < instability_correlations(both)["value"][0]
    )
    with pytest.raises(DgpruneError, match="unknown column 'data_set'"):
        instability_correlations(frame.drop(columns="data_set"))
    with pytest.raises(DgpruneError, match="unknown knob 'momentum'"):
        instability_correlations(frame, knob="momentum")
    with pytest.raises(DgpruneError, match="no run of knob 'none' with an event"):
        instability_correlations(frame[frame["events"] == 0])


def test_the_chart_has_a_dot_per_run_and_tells_what_pooling_mixes() -> None:
    frame = planted(noisy(slope=0.004, between=0.15), seeds=3)
    table = instability_correlations(frame)
    rows = treated_rows(frame)
    own = [row for row in rows if row["images"] == "d" and row["outcome"] == "accuracy, last epoch (%)"]
    assert len(own) == 8 * 3 and len(rows) == 3 * len(own), "two domains, and the gap of the source"
    assert {row["arm"] for row in own if row["control"]} == set(OTHERS)
    assert all((row["fill"] == "transparent") == row["control"] for row in own)
    assert len({(row["colour"], row["shape"]) for row in own}) == 8, "no two treatments look alike"
    stable, ends = noisy(slope=0.004, between=0.15)("random_high", 2)
    row = only(pd.DataFrame(own), arm="random_high", seed=2)
    assert (row["stable"], row["value"], row["within"]) == (
        pytest.approx(stable),
        pytest.approx(100 * ends),
        "10 % an event",
    )
    words = [row for row in correlated_rows(table) if row["images"] == "d" and row["within"] == "all rates"]
    assert sum("mixes two effects" in row["text"] for row in words) == 2 and words[0]["text"].startswith(
        "Pearson \N{MINUS SIGN}"
    )
    spec = charts.treatments(frame, table).to_dict()
    assert {param["name"]: param["value"] for param in spec["params"]} == {
        "images": "d",
        "outcome": "accuracy, last epoch (%)",
        "rate": "all rates",
    }
    assert charts.svg(charts.treatments(frame, table)).count(">accuracy, last epoch (%)<") == 1, "the vertical axis"
    assert charts.svg(charts.treatments(frame, table, rate="2 % an event")).count(">Kendall") == 1
    with pytest.raises(DgpruneError, match="rate must be one of all rates, 2 % an event, 10 % an event; got 'high'"):
        charts.treatments(frame, table, rate="high")
    with pytest.raises(DgpruneError, match="frame must hold one knob; it holds none, dropout"):
        charts.treatments(pd.concat([frame, frame.assign(knob="dropout")]), table)
