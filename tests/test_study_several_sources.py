"""The study of risk variance: who is left out, what each arm reads, averages over targets, verdicts on the claims."""

from __future__ import annotations

import importlib
from collections import defaultdict
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from dgprune_lab.core import DgpruneError, Domain
from dgprune_lab.experiments import compare
from dgprune_lab.experiments.scratch import Scratch
from dgprune_lab.experiments.studies._held_out import held_out_measures
from dgprune_lab.experiments.studies.several_sources import (
    ARMS,
    VARIANCE,
    run_several_sources,
    several_sources,
    several_sources_claims,
)

module: Any = importlib.import_module("dgprune_lab.experiments.studies.several_sources")  # its folder holds a function
TINY = {"train": 40, "score": 30, "epochs": 3, "widths": (6, 8)}
MAIN = "risk_variance"
pytestmark = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")


def settings(scorer: str, **more: Any) -> dict[str, Any]:
    """The settings of a tiny run of the quick protocol."""
    quick = several_sources(quick=True)
    return {**quick.protocol, **quick.grid[0], **TINY, "scorer": scorer, **more}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    return Scratch(tmp_path_factory.mktemp("several_sources"), device=torch.device("cpu"))


@pytest.fixture(scope="module")
def found(scratch: Scratch) -> dict[str, Any]:
    before = torch.get_rng_state()
    runs = {name: run_several_sources(settings(name), scratch) for name in ARMS}
    assert torch.equal(torch.get_rng_state(), before)
    return runs


def test_every_arm_runs_on_every_target_with_the_same_seeds() -> None:
    study = several_sources()
    runs: list[Any] = [study.settings(number) for number in range(len(study.grid))]
    targets = ("mnist_m", "mnist", "coloured", "usps", "uci_digits")
    cells = [(run["training_seed"], run["target"], run["scorer"]) for run in runs]
    assert cells == list(product(range(5), targets, ARMS)), "seed by seed, so that a stopped study has whole pairs"
    assert list(ARMS)[:2] == ["dense", "dense_tuned"] and {"l1", "taylor", "random", f"reverse({MAIN})"} <= set(ARMS)
    assert {f"{MAIN}[mode={mode}]" for mode in ("joint", "signed", "oracle")} | {MAIN} <= set(ARMS)
    assert len({study.key(number) for number in range(len(runs))}) == 5 * 5 * 13 == len(runs)
    assert len(several_sources(quick=True, seeds=3).grid) == 3 * 13


def test_the_target_is_left_out_of_the_sources_and_holds_reported_images_only(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(
        module, "part", lambda data_set, **cells: made.append(cells | {"of": data_set}) or cells["name"]
    )
    study = several_sources()
    for target in ("mnist_m", "mnist", "coloured", "usps", "uci_digits"):
        made.clear()
        sources, held = module._domains({**study.protocol, "target": target})
        assert held == target and set(sources) == {"mnist", "coloured", "usps", "uci_digits"} - {target}
        assert all(
            (cells["train"], cells["score"]) == ((0, 0) if cells["name"] == target else (1000, 300)) for cells in made
        )
    digits = [cells for cells in made if cells["of"] == "mnist_full"]
    (first, second) = sorted(digits, key=lambda cells: cells["skip"])
    assert first["skip"] == 0 and second["skip"] >= max(first["train"], first["score"], first["report"]), "other digits"


def test_rows_tell_arm_ratio_and_what_was_seen(found: dict[str, Any]) -> None:
    for name, finding in found.items():
        accuracy = [row for row in finding.rows if row["metric"] == "accuracy"]
        tuned = {"dense": [False], "dense_tuned": [True]}.get(name, [False, True])
        assert [(row["domain"], row["finetuned"]) for row in accuracy] == [
            (domain, flag) for flag in tuned for domain in ("mnist", "coloured", "uci_digits", "mnist_m")
        ]
        assert set(finding.data) == {"mnist", "coloured", "uci_digits", "mnist_m"}
        for row in accuracy:
            assert (row["scorer"], row["ratio_requested"], row["split"], row["images"]) == (name, 0.5, "report", 100)
            assert row["role"] == ("target" if row["domain"] == "mnist_m" else "source") and row["training_seed"] == 0
            assert row["target_aware"] is False and row["seen_by_scorer"] == row["seen_by_training"] == "none"
    assert len({finding.weights for finding in found.values()}) > len(ARMS) / 2
    assert found["dense"].weights != found["dense_tuned"].weights


def test_a_control_without_removal_stands_at_every_ratio(scratch: Scratch, found: dict[str, Any]) -> None:
    for name in ("dense", "dense_tuned"):
        rows = run_several_sources(settings(name, ratios=(0.3, 0.5)), scratch).rows
        by_ratio = [[row["value"] for row in rows if row["ratio_requested"] == ratio] for ratio in (0.3, 0.5)]
        assert by_ratio[0] == by_ratio[1] == [row["value"] for row in found[name].rows]


def test_nothing_of_the_target_changes_a_network(
    scratch: Scratch, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.part

    def part(data_set: str, **options: Any) -> Domain:
        domain = original(data_set, **options)
        if domain.name != "mnist_m":
            return domain
        assert set(domain.splits) == {"report"}
        return replace(domain, images=255 - domain.images, labels=(domain.labels + 1) % 10)

    monkeypatch.setattr(module, "part", part)
    again = run_several_sources(settings(MAIN), scratch)
    assert again.weights == found[MAIN].weights and again.data["mnist_m"] != found[MAIN].data["mnist_m"]
    same = [row["value"] for row in again.rows if row["role"] == "source"]
    assert same == [row["value"] for row in found[MAIN].rows if row["role"] == "source"]


def test_a_run_is_the_same_again_and_diverged_training_fails(tmp_path: Path, found: dict[str, Any]) -> None:
    fresh = Scratch(tmp_path, device=torch.device("cpu"))
    assert run_several_sources(settings("random"), fresh) == found["random"]
    rows = run_several_sources(settings("random", training_seed=1), fresh).rows
    assert all((row["seed"], row["training_seed"]) == (1, 1) for row in rows), "another draw for another training"
    with pytest.raises(DgpruneError):
        run_several_sources(settings("random", lr=1e30), fresh)


def gated(network: Any, images: torch.Tensor, gates: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits with the output of each convolution, behind its ReLU, times a gate per filter."""
    for name, layer in network.named_children():
        images = layer(images)
        if name.startswith("relu") and f"conv{name[4:]}" in gates:
            images = images * gates[f"conv{name[4:]}"][:, None, None]
    return images


def test_rows_of_risk_variance_equal_a_slow_reference(scratch: Scratch, found: dict[str, Any]) -> None:
    """Gates differentiated one source at a time, the formula written out, filters switched off by hand."""
    plan = settings(MAIN)
    sources, target = module._domains(plan)
    options = module.TrainingOptions(epochs=plan["epochs"], batch_size=64, lr=plan["lr"], seed=0)
    network = module.dense_network(scratch, sources, builder="lenet", widths=(6, 8), options=options).double()
    risks, slopes = [], defaultdict(list)
    for source in sources:
        gates = {
            name: torch.ones(width, dtype=torch.float64, requires_grad=True)
            for name, width in (("conv1", 6), ("conv2", 8))
        }
        batch = source.take(source.rows("score"))
        risk = functional.cross_entropy(gated(network, batch.images.double(), gates), batch.labels)
        for name, slope in zip(gates, torch.autograd.grad(risk, list(gates.values())), strict=True):
            slopes[name].append(slope)
        risks.append(risk.detach())
    risk = torch.stack(risks)
    mean = {name: torch.stack(each).mean(0) for name, each in slopes.items()}
    spread = {name: 2 / 3 * ((risk - risk.mean())[:, None] * torch.stack(each)).sum(0) for name, each in slopes.items()}
    scale = [torch.cat(list(part.values())).square().mean() for part in (mean, spread)]
    first, second = (
        {name: part[name].square() / unit for name in part} for part, unit in zip((mean, spread), scale, strict=True)
    )
    gates = {name: torch.ones(len(first[name]), dtype=torch.float64) for name in first}
    for name, gate in gates.items():
        gate[(first[name] + second[name]).argsort()[: len(gate) // 2]] = 0
    rows = {row["domain"]: row["value"] for row in found[MAIN].rows if not row["finetuned"]}
    for domain in (*sources, target):
        batch = domain.take(domain.rows("report"))
        right = gated(network, batch.images.double(), gates).argmax(1) == batch.labels
        assert rows[domain.name] == pytest.approx(float(right.double().mean()), abs=1e-9), domain.name
    parts = [torch.cat(list(part.values())) for part in (first, second)]
    weight = float((parts[1] / (parts[0] + parts[1])).median())
    assert rows["mnist, coloured, uci_digits"] == pytest.approx(weight, rel=1e-4)
    (row,) = (row for row in found[MAIN].rows if row["metric"] == VARIANCE)
    assert (row["split"], row["seen_by_scorer"], row["images"]) == ("score", "labels", 90)


def planted(
    *, gain: float = 0.0, inside: float = 0.0, outside: float = 0.0, seeds: int = 6, noise: float = 0.004
) -> pd.DataFrame:
    """A table in which pruning costs `inside` on the sources, `outside` on the target, and one scorer has a `gain`."""
    random, rows = np.random.default_rng(7), []
    arms = ("dense", "dense_tuned", MAIN, "l1", "taylor", "random")
    hard = {"mnist_m": 0.5, "usps": 0.8, "mnist": 0.9}
    for seed, (target, level) in product(range(seeds), hard.items()):
        luck = random.normal(0, 0.03)  # of this training, on this target: cancels within a pair
        for name, ratio, flag in product(arms, (0.3, 0.5), (False, True)):
            if {"dense": True, "dense_tuned": False}.get(name) is flag:
                continue
            cost = 0.0 if name.startswith("dense") else 1.0
            for role, fall, base in (("source", inside, 0.9), ("target", outside, level + luck)):
                value = base + 0.03 * flag - cost * fall + random.normal(0, noise)
                value += gain * level * (name == MAIN) * (role == "target")
                row = {"scorer": name, "ratio_requested": ratio, "finetuned": flag, "role": role, "value": value}
                where = {"target": target, "training_seed": seed, "metric": "accuracy", "unit": "share"}
                rows.append(
                    {**row, **where, "domain": target if role == "target" else "a source", "target_aware": False}
                )
    return pd.DataFrame(rows)


def verdicts(frame: pd.DataFrame) -> list[str]:
    """The verdicts on "kept in-domain" and "more lost elsewhere" (4 each, in turn), then on "keeps more than" (6)."""
    return [claim.verdict for claim in several_sources_claims(frame)]


def test_claims_follow_from_planted_effects() -> None:
    assert verdicts(planted(gain=0.03, inside=0.002, outside=0.05)) == ["yes"] * 14
    assert verdicts(planted(gain=-0.03, inside=0.03, outside=0.05)) == ["no", "yes"] * 4 + ["no"] * 6
    assert verdicts(planted(inside=0.002, outside=0.0, noise=0.0005))[:8] == ["yes", "no"] * 4
    claims = several_sources_claims(planted(gain=0.03, inside=0.005, outside=0.05, noise=0.0005))
    for kept, more in zip(claims[:8:2], claims[1:8:2], strict=True):
        assert kept.estimate == pytest.approx(-0.005, abs=0.001) and kept.margin == 0.01, "also beside extra epochs"
        assert more.estimate == pytest.approx(0.045, abs=0.001) and more.low < more.estimate < more.high
        assert more.seeds == "0, 1, 2, 3, 4, 5" and more.margin == 0
    assert claims[8].estimate == pytest.approx(0.03, abs=0.002), (
        "a share of the dense network's accuracy on each target"
    )


def test_claims_find_nothing_where_nothing_is_planted() -> None:
    nothing = verdicts(planted(noise=0.02))
    assert nothing[1:8:2] + nothing[8:] == ["cannot tell"] * 10, nothing
    assert "no" not in nothing[:8:2], "accuracy in-domain is kept"


def test_fewer_than_two_whole_seeds_are_refused_in_words() -> None:
    frame = planted(seeds=2)
    parts: Any = ((1, frame[frame["training_seed"] == 0]), (0, frame[frame["scorer"] != "l1"]))
    for count, part in parts:
        with pytest.raises(DgpruneError, match=rf"too few training seeds .* \({count}\)"):
            several_sources_claims(part)


def test_averages_are_taken_over_targets_within_a_seed() -> None:
    cells = [  # seed, target, scorer, in-domain, on the target
        *((0, "a", "dense", 0.9, 0.8), (0, "a", "l1", 0.8, 0.6), (0, "a", "taylor", 0.9, 0.5)),
        *((0, "b", "dense", 0.7, 0.5), (0, "b", "l1", 0.7, 0.5), (0, "b", "taylor", 0.6, 0.2)),
        *((1, "a", "dense", 0.9, 0.8), (1, "a", "l1", 0.8, 0.6), (1, "a", "taylor", 0.9, 0.6)),
        *((1, "b", "dense", 0.7, 0.5), (1, "b", "taylor", 0.6, 0.2)),
    ]
    shared = {"metric": "accuracy", "ratio_requested": 0.5, "finetuned": False, "target_aware": False}
    frame = pd.DataFrame(
        {
            **shared,
            "training_seed": seed,
            "target": target,
            "scorer": scorer,
            "role": role,
            "domain": domain,
            "value": value,
        }
        for seed, target, scorer, source, held in cells
        for role, domain, value in (
            ("source", "x", source - 0.1),
            ("source", "y", source + 0.1),
            ("target", target, held),
        )
    )
    table: Any = held_out_measures(frame, dense=("dense", "dense_tuned"))
    found: Any = table.set_index(["metric", "role", "scorer", "training_seed"])["value"]
    assert found["accuracy", "source", "l1", 0] == pytest.approx(0.75)
    assert found["accuracy_kept", "target", "l1", 0] == pytest.approx((0.6 / 0.8 + 1) / 2)
    assert found["accuracy_lost", "target", "taylor", 0] == pytest.approx(0.3)
    assert found["worst_domain_accuracy", "target", "taylor", 0] == pytest.approx(0.2)
    assert (found["mean_rank", "target", "l1", 0], found["mean_rank", "target", "taylor", 0]) == (1, 2)
    assert ("accuracy", "target", "taylor", 1) in found.index
    assert ("mean_rank", "target", "taylor", 1) not in found.index
    assert not ((table["scorer"] == "l1") & (table["training_seed"] == 1)).any(), "one of its targets is missing"
    assert not (table["metric"].eq("mean_rank") & table["scorer"].eq("dense")).any()


def test_measures_can_be_compared(found: dict[str, Any]) -> None:
    measures = held_out_measures(planted(), dense=("dense", "dense_tuned"))
    table: Any = compare(measures, baseline="l1", metric="accuracy_kept")
    assert set(table["pairs"]) == {6} and not table["missing"].any()
