"""The study of prunability as a predictor: its runs, its claims, and the networks that ship beside its table."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import dgprune_lab as dg
from dgprune_lab import experiments
from dgprune_lab.core import DgpruneError, Domain
from dgprune_lab.experiments.scratch import Scratch
from dgprune_lab.experiments.studies.prunability import (
    HYPERPARAMETERS,
    RIVALS,
    prunability,
    prunability_claims,
    run_prunability,
    zoo_domains,
)
from dgprune_lab.measurement import evaluate
from dgprune_lab.models import network_key

module: Any = importlib.import_module("dgprune_lab.experiments.studies.prunability")  # its folder holds a function
NETWORKS = Path(__file__).parents[1] / "notebooks" / "results" / "networks"
TINY = {"train": 60, "report": 50, "few": 20, "step": 0.1, "until": 2.15}
OUTCOMES = ("accuracy", "error", "generalization_gap", "loss")
pytestmark = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")


def settings(place: int = 0, **more: Any) -> dict[str, Any]:
    """The settings of a tiny run of the quick protocol."""
    return {**prunability(quick=True).settings(place), **TINY, **more}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    return Scratch(tmp_path_factory.mktemp("zoo"), device=torch.device("cpu"))


@pytest.fixture(scope="module")
def found(scratch: Scratch) -> Any:
    before = torch.get_rng_state()
    finding = run_prunability(settings(), scratch)
    assert torch.equal(torch.get_rng_state(), before)
    return finding


def of_metric(finding: Any, metric: str, *, role: str = "source") -> Any:
    (row,) = (row for row in finding.rows if row["metric"] == metric and row["role"] == role)
    return row


def test_the_grid_has_two_levels_of_each_hyperparameter_and_whole_seeds() -> None:
    study = prunability()
    runs: list[Any] = [study.settings(number) for number in range(len(study.grid))]
    assert len(runs) == 128 and [run["training_seed"] for run in runs] == [0] * 64 + [1] * 64
    assert all(len({run[name] for run in runs}) == 2 for name in HYPERPARAMETERS)
    assert len({tuple(run[name] for name in HYPERPARAMETERS) for run in runs}) == 64
    assert {run["width"] for run in runs} <= set(range(8, 33)), "the base width"
    assert len(prunability(seeds=3).grid) == 192 and len(prunability(quick=True).grid) == 8


def test_rows_hold_outcomes_and_measures_with_their_direction(found: Any) -> None:
    target = {(row["metric"], row["split"]) for row in found.rows if row["role"] == "target"}
    assert target == {(name, "report") for name in OUTCOMES}, "nothing but outcomes reads the shifted images"
    source = {row["metric"]: row for row in found.rows if row["role"] == "source"}
    assert set(source) == {*OUTCOMES, "prunability", *RIVALS}
    for name, row in source.items():
        assert (row["split"], row.get("better_direction") is None) == (
            ("report", True) if name in OUTCOMES else ("train", False)
        )
        assert row["converged"] is True and row["weights"] == found.weights and row["training_loss"] <= 2.15
    assert {name for name, row in source.items() if row.get("better_direction") == "higher"} == {"margin", "sharpness"}
    assert all(row["target_aware"] is False for row in found.rows if row["role"] == "target")


def test_derived_numbers_follow_from_the_network(found: Any, scratch: Scratch) -> None:
    source, shifted = zoo_domains(settings())
    (path,) = scratch.folder.glob("networks/*.safetensors")
    network = dg.load(path)
    assert network_key(network) == found.weights
    train = evaluate(network, source, "train")
    assert of_metric(found, "training_loss")["value"] == pytest.approx(float(train.loss.mean()))
    for domain, role in ((source, "source"), (shifted, "target")):
        outcomes = evaluate(network, domain, "report")
        values = {name: of_metric(found, name, role=role)["value"] for name in OUTCOMES}
        right = outcomes.accuracy
        wanted = {"accuracy": right, "error": 1 - right, "loss": float(outcomes.loss.mean())}
        assert values == pytest.approx({**wanted, "generalization_gap": train.accuracy - right})
    log = of_metric(found, "sum_of_training_losses")
    epochs = [float(loss) for loss in log["training_log"].split()]
    assert len(epochs) == log["epochs_trained"] and sum(epochs) == pytest.approx(log["value"], rel=1e-3)
    weights = sum(m.weight.numel() for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear))
    assert weights == 180 and of_metric(found, "weights_kept")["value"] == math.ceil(
        of_metric(found, "prunability")["value"] * weights - 1e-6
    )
    study = dg.Study(network, sources=[source])
    table = dg.diagnostics.prunability(study, search="fast", step=0.1)
    assert table[table.metric == "prunability"].value.tolist() == [of_metric(found, "prunability")["value"]]
    trace: Any = dg.diagnostics.hessian_trace(study, images=TINY["few"])
    assert of_metric(found, "hessian_trace")["value"] == pytest.approx(trace["value"].item(), rel=1e-5)


def test_the_drop_at_once_is_what_half_of_the_filters_cost() -> None:
    plan = prunability(quick=True).settings(2)
    source, _ = zoo_domains(plan)
    study = dg.Study(dg.load(NETWORKS / "prunability_quick" / "002.safetensors"), sources=[source])
    rows = module._measure_rows(study, plan, [1.0], 0.0)
    drop = next(row["value"] for row in rows if row["metric"] == "drop_at_once")
    smaller = dg.masked(study.model, dg.allocate(study.score("l1", split="train"), ratio=0.5))
    full, left = (evaluate(network, source, "train").accuracy for network in (study.model, smaller))
    assert drop == pytest.approx(full - left) and drop > 0.1


def test_training_ends_with_the_epoch_that_reaches_the_loss(scratch: Scratch, found: Any) -> None:
    (epochs,) = {row["epochs_trained"] for row in found.rows}
    assert 1 < epochs < 40
    short = run_prunability(settings(epochs=epochs - 1), scratch)
    assert {row["converged"] for row in short.rows} == {False} and {row["epochs_trained"] for row in short.rows} == {
        epochs - 1
    }
    assert {row["metric"] for row in short.rows} == {*OUTCOMES, "sum_of_training_losses", "training_loss"}
    assert short.weights != found.weights


def test_nothing_of_the_shifted_images_changes_a_network(
    tmp_path: Path, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module._domains

    def domains(*options: Any) -> tuple[Domain, Domain]:
        source, target = original(*options)
        assert set(target.splits) == {"report"}
        return source, replace(target, images=255 - target.images)

    monkeypatch.setattr(module, "_domains", domains)
    again = run_prunability(settings(), Scratch(tmp_path, device=torch.device("cpu")))
    assert again.weights == found.weights and again.data != found.data
    values = [[row["value"] for row in finding.rows if row["role"] == "source"] for finding in (again, found)]
    assert values[0] == values[1]


def test_a_training_that_diverges_or_reaches_a_loss_of_zero_fails_in_words(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DgpruneError):
        run_prunability(settings(lr=1e30), scratch)
    trained = module._trained

    def certain(*arguments: Any, **options: Any) -> Any:
        network, losses = trained(*arguments, **options)
        with torch.no_grad():
            network.head.weight.zero_()
            network.head.bias.zero_()
            network.head.bias[0] = 1e4
        return network, losses

    source, target = zoo_domains(settings())
    assert source.labels is not None
    alike = replace(source, labels=torch.zeros_like(source.labels))
    monkeypatch.setattr(module, "_trained", certain)
    monkeypatch.setattr(module, "_domains", lambda *_: (alike, target))
    with pytest.raises(DgpruneError, match="training loss of 'prunability' is 0"):
        run_prunability(settings(), scratch)


def planted(
    *, slope: float, rival: float = 0.0, shifted: float = 0.0, noise: float = 0.3, draw: int = 3
) -> pd.DataFrame:
    """Networks whose loss rises with prunability, with sharpness (where flat is good), and on shifted images."""
    random, rows = np.random.default_rng(draw), []
    for seed, cell in product(range(2), product(range(2), repeat=5)):
        about = {**dict(zip(HYPERPARAMETERS, (*cell, 0), strict=True)), "training_seed": seed, "converged": True}
        share, sharp = random.normal(size=2)
        loss = slope * share - rival * sharp + noise * random.normal()
        far = shifted * share + noise * random.normal()
        for name, value, role, better in (
            ("prunability", share, "source", "lower"),
            ("sharpness", sharp, "source", "higher"),
            ("loss", loss, "source", None),
            ("loss", far, "target", None),
        ):
            where = {"domain": role, "role": role, "split": "train" if better else "report", "unit": "nats"}
            rows.append({**about, **where, "metric": name, "value": value, "better_direction": better})
    return dg.tidy(rows, extra=[*HYPERPARAMETERS, "better_direction", "converged"])


def verdicts(frame: pd.DataFrame) -> dict[str, str]:
    """Predicts, better than the rival, beyond the rival, under shift."""
    names = ("predicts", "better", "beyond", "shift")
    return dict(zip(names, (claim.verdict for claim in prunability_claims(frame)), strict=True))


def test_claims_follow_from_planted_effects() -> None:
    assert set(verdicts(planted(slope=1.0, shifted=1.0)).values()) == {"yes"}
    assert set(verdicts(planted(slope=-1.0, shifted=-1.0)).values()) == {"no"}
    assert verdicts(planted(slope=0.4, rival=1.0)) == {
        "predicts": "yes",
        "better": "no",
        "beyond": "yes",
        "shift": "cannot tell",
    }
    assert set(verdicts(planted(slope=0.0, draw=0)).values()) == {"cannot tell"}
    claim = prunability_claims(planted(slope=1.0))[0]
    assert 0.7 < claim.low < claim.estimate < claim.high < 1 and claim.unit == "correlation" and claim.seeds == "0, 1"
    assert "64 networks; interval over 32 cells" in claim.note


def test_networks_are_exported_evenly_and_without_those_that_did_not_converge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_measure_rows", lambda *_, **__: [])
    study = replace(prunability(quick=True), name="prunability_quick")
    study = replace(
        study,
        protocol={**study.protocol, **TINY},
        grid=[{**study.grid[k], "epochs": e} for k, e in enumerate((40, 1, 40, 40))],
    )
    with pytest.raises(DgpruneError):
        experiments.export_networks(tmp_path / "nothing", tmp_path / "out")
    results = experiments.run(study, folder=tmp_path / "ran", device="cpu")
    table = results.table()
    assert table.groupby("run", sort=False)["converged"].all().tolist() == [True, False, True, True]
    assert [path.name for path in experiments.export_networks(results, tmp_path / "all")] == [
        f"00{k}.safetensors" for k in (0, 2, 3)
    ]
    (path,) = experiments.export_networks(results, tmp_path / "one", count=1)
    assert path.name == "002.safetensors" and network_key(dg.load(path)) == results.runs()["weights"][2]
    next((tmp_path / "ran" / "networks").glob("*.safetensors")).unlink()
    with pytest.raises(DgpruneError, match="lacks the network of run"):
        for _ in range(2):
            for file in list((tmp_path / "ran" / "networks").glob("*.safetensors")):
                file.unlink()
            experiments.export_networks(results, tmp_path / "all")


@pytest.mark.parametrize("name", sorted(folder.name for folder in NETWORKS.glob("*")))
def test_the_numbers_of_a_shipped_network_follow_from_its_weights(name: str) -> None:
    table: Any = experiments.shipped(name)
    card = experiments.shipped_card(name)
    paths = sorted((NETWORKS / name).glob("*.safetensors"))
    assert paths and len(paths) <= 12 and sum(path.stat().st_size for path in paths) < 6_000_000
    try:
        zoo_domains(card["protocol"])
    except DgpruneError as error:
        pytest.skip(str(error))
    for path in paths[:: 1 if name.endswith("_quick") else 6]:
        rows = table[(table["run"] == int(path.stem)) & (table["role"] == "source")].set_index("metric")
        source, _ = zoo_domains({**card["protocol"], **card["runs"][int(path.stem)]["settings"]})
        network = dg.load(path)
        assert network_key(network) == rows["weights"].iloc[0]
        loss = float(evaluate(network, source, "report").loss.mean())
        assert math.isclose(loss, rows["value"]["loss"], abs_tol=1e-6)
        study = dg.Study(network, sources=[source])
        options: Any = {"search": "fast", "tolerance": card["protocol"]["tolerance"], "step": card["protocol"]["step"]}
        again = dg.diagnostics.prunability(study, intervals=False, **options)
        value = again.loc[again["metric"] == "prunability", "value"].item()
        assert math.isclose(value, rows["value"]["prunability"], abs_tol=1e-6)
