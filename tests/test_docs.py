"""The API reference: built without a warning, complete, searchable, and without any request to a network."""

from __future__ import annotations

import importlib.util
import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import dgprune_lab as dg
from dgprune_lab.commands import cli
from dgprune_lab.commands.docs import MODULES, write_docs

LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=\"(https?:)?//|@import|url\([\"']?(https?:)?//")


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert write_docs(folder) == folder / "dgprune_lab.html"
    return folder


def test_no_page_loads_anything_from_a_network(docs: Path) -> None:
    pages = sorted(docs.rglob("*.html"))
    assert len(pages) == 3 + len(MODULES)  # the index, the package, the zoo
    for page in pages:
        assert not LOADED.search(page.read_text(encoding="utf-8")), page
    assert LOADED.search('<script async src="https://cdn.example/mathjax.js">') and LOADED.search("url(//fonts)")


def test_the_table_of_architectures_is_a_page(docs: Path) -> None:
    page = (docs / "dgprune_lab" / "zoo.html").read_text(encoding="utf-8")
    assert page.count("<tr>") > 50 and "Torch-Pruning" in page
    assert 'href="dgprune_lab/zoo.html"' in (docs / "dgprune_lab.html").read_text(encoding="utf-8")


def test_every_public_name_is_found_by_the_search(docs: Path) -> None:
    index = (docs / "search.js").read_text(encoding="utf-8")
    for name in (
        "dgprune_lab.allocate",
        "dgprune_lab.Study",
        "dgprune_lab.Study.score",
        "dgprune_lab.diagnostics.drop",
    ):
        assert f'"{name}"' in index
    names = [name for name in dg.__all__ if not inspect.ismodule(getattr(dg, name))]
    names += [f"training.presets.{name}" for name in dg.presets.__all__]
    names += [f"diagnostics.{name}" for name in dg.diagnostics.__all__]
    names += [f"scorers.{name}" for name in dg.SCORERS]
    names += [f"experiments.{name}" for name in dg.experiments.__all__ if name != "executors"]
    names += [f"experiments.executors.{name}" for name in dg.experiments.executors.__all__]
    assert [name for name in names if f'"dgprune_lab.{name}"' not in index] == []


def test_operations_and_scorers_have_their_signature_and_docstring(docs: Path) -> None:
    def text(page: str) -> str:
        return re.sub(r"<[^>]+>|\s+", "", (docs / page).read_text(encoding="utf-8"))

    root, diagnostics, scorers = (text(f"dgprune_lab{name}.html") for name in ("", "/diagnostics", "/scorers"))
    assert "defprune_and_tune(study:" in root and ")->Tuned:" in root.replace("dgprune_lab.training.rounds.", "")
    assert "".join((dg.train_with_pruning.__doc__ or "").split("\n")[0].split()) in root
    assert (
        "defdrop(study:" in diagnostics
        and "".join((dg.diagnostics.drop.__doc__ or "").split("\n")[0].split()) in diagnostics
    )
    assert "defdss(" in scorers and "Sun2023" in scorers


def test_without_pdoc_the_command_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec

    def missing(name: str, *rest: Any) -> Any:
        return None if name == "pdoc" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    result = CliRunner().invoke(cli.app, ["docs", "--out", str(tmp_path / "docs"), "--no-browser"])
    assert result.exit_code == 2 and 'pip install "pdoc>=15"' in result.stderr and not list(tmp_path.iterdir())
