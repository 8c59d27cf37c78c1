"""The README's code runs; every notebook runs, has the form of a lesson, and is stored with its present outputs."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from material import few
from nbclient import NotebookClient

from dgprune_lab.commands.run_notebooks import code_hash

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CASES = [
    pytest.param(path, id=path.stem, marks=[] if path.stem == "00_start" else pytest.mark.slow) for path in NOTEBOOKS
]
BADGE = "https://mybinder.org/badge_logo.svg"  # the one picture from outside, on the page of the repository
VIEW = "application/vnd.jupyter.widget-view+json"
STILL = {"text/html", "image/png"}
HEADINGS = ["## A guess", "## Look", "## Measure", "## What to take away", "## Exercises"]
HEADINGS += ["### 2 minutes", "### 10 minutes", "### Take home", "## What held, what did not"]
# Where a notebook trains many networks, or measures one many times, it does so here on 400 or 800 images of each split;
# the one that trains a network on its own images does so for one epoch.
SHORTER = {
    "02_instability": (
        "study.sources[0], study.targets[0]",
        "(part := few(study, images=400)).sources[0], part.targets[0]",
    ),
    "03_prunability": ('"sources": study.sources', '"sources": few(study, images=800).sources'),
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
        assert picture == BADGE or (ROOT / picture).is_file()


def follow_up(notebook: Any) -> list[Any]:
    """The cells that test a notebook after Run All: what its cells say must hold, and each solution must run."""
    added = [f"assert {rule}" for cell in notebook.cells if not solutions(cell) for rule in told(cell).get("check", ())]
    for cell in notebook.cells:
        added += [*(found := solutions(cell)), *(f"assert {rule}" for rule in told(cell).get("check", ()) if found)]
    return [nbformat.v4.new_code_cell(source) for source in added]


def told(cell: Any) -> dict[str, Any]:
    return cell.metadata.get("dgprune_lab", {})


def solutions(cell: Any) -> list[str]:
    """The code of the solutions in a cell of text."""
    folded = re.findall(r'<details class="solution">.*?</details>', cell.source, re.DOTALL)
    return [code for text in folded for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]


@pytest.mark.parametrize("path", CASES)
def test_a_notebook_runs_then_its_checks_hold_then_its_solutions_run(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    stored = [cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code"]
    added = follow_up(notebook)
    notebook = shortened(notebook, path.stem)
    own = len(notebook.cells)
    notebook.cells += added
    NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(tmp_path)}}).execute()
    ran = [cell for cell in notebook.cells[:own] if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in ran)
    assert not any(output.get("name") == "stderr" for cell in notebook.cells for output in cell.get("outputs", ()))
    shows = [any(VIEW in output.get("data", ()) for output in cell.outputs) for cell in ran[-len(stored) :]]
    assert any(shows)
    for is_widget, outputs in zip(shows, stored, strict=True):
        assert not is_widget or any(set(output.get("data", ())) & STILL for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_at_most_ten_code_cells_of_at_most_six_lines(path: Path) -> None:
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert len(cells) <= 10
    for cell in cells:
        assert len([line for line in cell.splitlines() if line.strip()]) <= 6, cell


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_the_form_of_a_lesson(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = [line for line in text.splitlines() if re.match(r"##? |### (2 min|10 min|Take)", line)]
    assert re.fullmatch(r"# .+\?", headings[0]) and headings[1:] == HEADINGS
    assert "\nYou need to know: " in text.split("## A guess")[0]
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    (guess,) = (k for k, source in enumerate(code) if "dg.predict(" in source)
    live = [
        cell for cell in notebook.cells if cell.cell_type == "code" and re.search(r"Explorer\(|widgets\.", cell.source)
    ]
    assert all(told(cell).get("check") for cell in live), "each says what its text describes"
    reveal = [source for source in code if ".reveal(" in source]
    assert reveal and all(
        "wait=True" in source and re.search(r"^guess$|display\(guess", source, re.MULTILINE) for source in reveal
    )
    assert max(len(line) for source in code for line in source.splitlines()) <= 100
    exercises = [cell for cell in notebook.cells if "exercise" in cell.metadata.get("tags", ())]
    assert [cell.source.splitlines()[0] for cell in exercises] == ["### 2 minutes", "### 10 minutes", "### Take home"]
    for cell in exercises:
        assert 1 <= len(solutions(cell)) <= 2 and cell.source.rstrip().endswith("</details>")
        assert all(len(code.splitlines()) <= 10 for code in solutions(cell)), cell.source
    (following,) = re.findall(r"^Next: `?(\d\d_\w+)", text, re.MULTILINE)
    assert (ROOT / "notebooks" / f"{following}.ipynb").is_file()
    before = [cell for cell in notebook.cells if cell.cell_type == "code"][:guess]
    assert not any(cell.get("outputs") for cell in before), "what stands above the guess must not answer it"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_outputs_of_a_notebook_are_of_its_present_code_and_need_no_kernel(path: Path) -> None:
    name, content = path.stem, path.read_text(encoding="utf-8")
    notebook = json.loads(content)
    again = f"dgprune-lab notebooks {name}"
    assert notebook["metadata"]["dgprune_lab"]["ran"] == code_hash(notebook), f"{name} was changed: {again}"
    assert VIEW not in content and "widgets" not in notebook["metadata"], again
    assert path.stat().st_size <= 600_000
    assert f"| {name} |" in (ROOT / "notebooks" / "results" / "notebooks.md").read_text(encoding="utf-8")


def test_the_notebooks_stay_small() -> None:
    assert sum(path.stat().st_size for path in NOTEBOOKS) <= 4_000_000


def test_the_readme_has_at_most_150_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
