"""The demo that is not digits: its images, its network, and every notebook on it."""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from material import few

import dgprune_lab as dg
from dgprune_lab.data import BUILTIN, formats, garments
from dgprune_lab.models import shipped_card

FOLDER = Path(formats.__file__).with_name("fashion_mnist")
OFFICIAL = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("fashion", "fashion_colour", "fashion_photo")
# 07 is about studies, 08 about one's own data.
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("0[0-6]*.ipynb"))


def raw(name: str, split: str) -> list[bytes]:
    """The bytes of the images of a split."""
    domain = BUILTIN[name]()
    return [image.numpy().tobytes() for image in domain.images[domain.rows(split)]]


def test_the_images_are_small_and_credited_beside_the_data() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_500_000
    licence = (FOLDER / "LICENSE").read_text(encoding="utf-8")
    assert "MIT License" in licence and "Copyright (c) 2017 Zalando SE" in licence and "arXiv:1708.07747" in licence
    content = [hashlib.sha256(part.tobytes()).hexdigest()[:16] for part in formats.read_idx(FOLDER)]
    assert content == ["cb9cae81b823b19b", "d1fd34a908523e18", "d90847fca6ee19b8", "bb5b973de3aae955"]


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official files (Debian's dataset-fashion-mnist) are not here")
def test_the_images_are_the_first_ones_of_each_class_of_the_official_files() -> None:
    official, ours = formats.read_idx(OFFICIAL), formats.read_idx(FOLDER)
    for images, labels, mine, mine_labels, count in ((*official[:2], *ours[:2], 380), (*official[2:], *ours[2:], 120)):
        rows = np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in range(10)]))
        assert np.array_equal(images[rows], mine) and np.array_equal(labels[rows], mine_labels)


@pytest.mark.parametrize("name", NAMES)
def test_a_domain_is_the_same_each_time_and_its_splits_are_balanced_and_apart(name: str) -> None:
    domain = BUILTIN[name]()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert BUILTIN[name].__wrapped__().key == domain.key == shipped_card("fashion")["domains"][name]["key"]  # type: ignore[attr-defined]
    assert torch.equal(torch.get_rng_state(), state)
    assert domain.class_names[0] == "T-shirt/top" and domain.class_names[9] == "Ankle boot" and domain.classes == 10
    assert domain.images.dtype == torch.uint8 and domain.shape == (3, 28, 28) and domain.labels is not None
    for rows in domain.splits.values():
        assert domain.labels[rows].bincount().unique().tolist() == [len(rows) // 10]
        assert domain.labels[rows[:100]].bincount(minlength=10).min() > 0, "the first rows are a fair sample"
    splits = [set(raw(name, split)) for split in domain.splits]
    assert len(set.union(*splits)) == sum(map(len, splits)) == len(domain)


def test_no_garment_is_in_two_sources_and_the_report_splits_are_of_the_test_file() -> None:
    x_train, _, x_test, _ = formats.read_idx(FOLDER)
    known, unseen = ({image.tobytes() for image in part} for part in (x_train, x_test))
    grey = {name: garments._garments(name, origin="") for name in ("fashion", "fashion_colour")}
    found: list[set[bytes]] = []
    for domain in grey.values():
        for split, rows in domain.splits.items():
            found.append({image.numpy().tobytes() for image in domain.images[rows, 0]})
            assert found[-1] <= (unseen if split == "report" else known)
    assert len(set.union(*found)) == sum(map(len, found)) == 5000
    tinted = dg.data.colour(grey["fashion_colour"], strength=0.5, seed=2017)
    assert torch.equal(tinted.images, BUILTIN["fashion_colour"]().images)


def test_the_target_shows_the_garments_of_the_first_source_in_front_of_photographs() -> None:
    source, target = BUILTIN["fashion"](), BUILTIN["fashion_photo"]()
    assert source.labels is not None and target.labels is not None and set(target.splits) == {"score", "report"}
    for split, rows in target.splits.items():
        worn = source.images[source.splits[split]]
        assert torch.equal(source.labels[source.splits[split]], target.labels[rows])
        inside, images = worn > 16, target.images[rows]
        assert torch.equal(images[inside], worn[inside])
        behind = images.float().masked_fill(inside, torch.nan).flatten(2)
        assert torch.nanmean(behind, 2).std() > 40, "photographs, not one colour"
        assert (behind[:, 0] - behind[:, 2]).nan_to_num().abs().mean() > 10, "in colour"


def accuracies(study: dg.Study, mask: dg.Mask | None) -> dict[str, float]:
    return {d.name: float(study.outcomes(mask, domain=d.name, batchnorm="recalibrate").accuracy) for d in study.domains}


def test_the_demo_is_worth_a_slider() -> None:
    study = dg.demo("fashion")
    assert study.origin == "dg.demo('fashion')" and tuple(domain.name for domain in study.domains) == NAMES
    full, kept, drawn = (
        accuracies(study, None if scorer is None else dg.allocate(study.score(scorer), ratio=0.5))
        for scorer in (None, "bn_scale", "random")
    )
    assert min(full[name] for name in NAMES[:2]) > 0.8
    assert 0.3 < full["fashion_photo"] < min(full[name] for name in NAMES[:2]) - 0.15
    for name in NAMES[:2]:
        assert full[name] - kept[name] < 0.1 and kept[name] - drawn[name] > 0.2, "the scorer matters"


def on_fashion(path: Path) -> Any:
    """The notebook with its one line that names the demo changed."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(cell.source.count("dg.demo(") for cell in code) == 1, "one line names the demo"
    for cell in code:
        assert not (found := digits_in(cell.source)), f"{found} in {cell.source!r}"
        cell.source = cell.source.replace("dg.demo()", 'dg.demo("fashion")')
    assert any('dg.demo("fashion")' in cell.source for cell in code)
    return notebook


def digits_in(source: str) -> list[str]:
    """The strings and names in code that only fit the digits; the study of a paper's claim keeps its name."""
    nodes = list(ast.walk(ast.parse(source)))
    named = {
        leaf for node in nodes if isinstance(node, ast.keyword) and node.arg == "studies" for leaf in ast.walk(node)
    }
    nodes = [node for node in nodes if node not in named]
    words = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    words += [node.id for node in nodes if isinstance(node, ast.Name)]
    return [word for word in words if re.search(r"mnist|uci|digit", word)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_code_of_a_notebook_takes_its_domains_from_the_study(path: Path) -> None:
    on_fashion(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dgprune_lab.core.DgpruneNote")  # so few images leave doubts
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_on_the_other_demo(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo, seeds, names = dg.demo, dg.training_seeds, {"display": lambda *shown: texts.extend(map(str, shown))}
    monkeypatch.setattr(dg, "demo", lambda name: few(demo(name), images=100))
    monkeypatch.setattr(dg, "training_seeds", lambda name: [few(study, images=100) for study in seeds(name)])
    texts: list[str] = []
    for cell in on_fashion(path).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, path.name, "exec"), names)
    assert names["study"].name == "fashion"
