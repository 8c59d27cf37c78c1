"""The README's code runs, every notebook runs from top to bottom, the report is one whole page."""

from __future__ import annotations

import inspect
import json
import re
import stat
from pathlib import Path
from typing import Any

import nbformat
import pytest
from material import few
from nbclient import NotebookClient

import dgprune_lab as dg
from dgprune_lab.commands.report import write_report

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CASES = [
    pytest.param(path, id=path.stem, marks=[] if path.stem == "00_start" else pytest.mark.slow) for path in NOTEBOOKS
]
# Where a notebook trains many networks, or measures one a hundred times, it does so here on 400 images of each split;
# the one that trains a network on its own images does so for one epoch.
SHORTER = {
    "01_scorers": (
        "dg.training_seeds(study.name)",
        "[few(each, images=400) for each in dg.training_seeds(study.name)]",
    ),
    "02_instability": (
        "study.sources[0], study.targets[0]",
        "(part := few(study, images=400)).sources[0], part.targets[0]",
    ),
    "03_prunability": ("sources=study.sources", "sources=few(study, images=400).sources"),
    "08_your_own": ("in range(4)", "in range(1)"),
}


def shortened(notebook: Any, name: str) -> Any:
    """The notebook with the setting that makes it long changed, behind a cell that defines `few`."""
    if name in SHORTER:
        before, after = SHORTER[name]
        (cell,) = (cell for cell in notebook.cells if before in cell.source)
        cell.source = cell.source.replace(before, after)
        define = f"from dataclasses import replace\n\nimport dgprune_lab as dg\n\n\n{inspect.getsource(few)}"
        notebook.cells.insert(0, nbformat.v4.new_code_cell(define))
    return notebook


def test_the_blocks_of_the_readme_and_of_contributing_run_in_order() -> None:
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", ".github/CONTRIBUTING.md"))
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "block", "exec"), names)
    assert names["chart"].to_dict()["layer" if "layer" in names["chart"].to_dict() else "hconcat"]
    assert names["own"].targets[0].labels is None
    lost = names["lost"](names["study"])
    assert lost.value.min() >= 0 and len(lost) == 3


def test_the_readme_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install -e . && dgprune-lab lab" in text
    assert 'pip install -e ".[test]" && pytest' in text
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (ROOT / picture).is_file()


@pytest.mark.parametrize("path", CASES)
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert not any(cell.get("outputs") for cell in notebook.cells)
    notebook = shortened(notebook, path.stem)
    NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(tmp_path)}}).execute()
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in ran)
    shown = [output for cell in ran for output in cell.outputs if "data" in output]
    assert any("application/vnd.jupyter.widget-view+json" in output["data"] for output in shown)
    assert not any(output.get("name") == "stderr" for cell in ran for output in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_at_most_ten_code_cells_of_at_most_six_lines(path: Path) -> None:
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert len(cells) <= 10
    for cell in cells:
        assert len([line for line in cell.splitlines() if line.strip()]) <= 6, cell


def test_the_readme_has_at_most_150_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_report_is_one_self_contained_page(tmp_path: Path) -> None:
    study = dg.demo()
    path = write_report(tmp_path / "report.html", study=study, scorers=["l1", "random"], progress=False)
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 5_000_000
    assert "default-src &#x27;none&#x27;" in text, "the page itself forbids every request"
    assert re.search(rf"Study {study.name}, 20\d\d-\d\d-\d\d: .* 95 % intervals over images", text)
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    accuracy = study.outcomes(mask, domain="mnist_m", batchnorm="recalibrate").accuracy
    (state,) = json.loads(
        re.findall(r'<script type="application/json" class="state">(.*?)</script>', text, re.DOTALL)[0]
    )
    (frame,) = (row for row in state["curves"][0]["rows"] if row["ratio"] == 0.5)
    assert {dot["domain"]: dot["value"] for dot in frame["dots"]}["mnist_m"] == pytest.approx(100 * accuracy)
    (tmp_path / "plain.txt").write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain.txt").stat().st_mode)
