"""The notebooks' working folder: an edited notebook is never overwritten."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dgprune_lab.commands.notebook_versions import Version, as_version, check_unsolved, version_of
from dgprune_lab.commands.notebooks import RECORD, shipped, sources_hash, update_folder
from dgprune_lab.core.errors import DgpruneError


def written(*sources: str, outputs: bool = False, **more: Any) -> bytes:
    """A notebook of code cells."""
    cells = [
        {
            "cell_type": "code",
            "execution_count": 3 if outputs else None,
            "metadata": {},
            "outputs": [{"output_type": "stream", "name": "stdout", "text": ["97 %"]}] if outputs else [],
            "source": source,
        }
        for source in sources
    ]
    content = {"cells": cells, "metadata": {"kernelspec": {"name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content | more).encode()


class Package:
    """A package of notebooks that can publish newer ones, and the folder that they are copied to."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root / "package", root / "folder"
        self.root.mkdir()
        self.publish(**{"00_start": written("import dgprune_lab"), "01_next": written("1 + 1")})
        self.notebooks: dict[str, Path] = {path.name: path for path in sorted(self.root.glob("*.ipynb"))}

    def publish(self, **notebooks: bytes) -> None:
        for name, content in notebooks.items():
            (self.root / f"{name}.ipynb").write_bytes(content)

    def update(self, *, reset: str | None = None, version: Version | None = None) -> dict[str, str]:
        actions = update_folder(self.folder, reset=reset, version=version, notebooks=self.notebooks)
        return {action.notebook.removesuffix(".ipynb"): action.kind for action in actions}

    def sentences(self) -> str:
        return " | ".join(action.sentence for action in update_folder(self.folder, notebooks=self.notebooks))

    def read(self, name: str) -> bytes:
        return (self.folder / f"{name}.ipynb").read_bytes()

    def edit(self, name: str, content: bytes) -> None:
        (self.folder / f"{name}.ipynb").write_bytes(content)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


def test_the_first_run_adds_everything_and_the_second_nothing(package: Package) -> None:
    assert package.update() == {"00_start": "added", "01_next": "added"}
    assert package.read("00_start") == written("import dgprune_lab")
    assert package.update() == {"00_start": "unchanged", "01_next": "unchanged"}
    assert sorted(os.listdir(package.folder)) == [".dgprune_lab.json", "00_start.ipynb", "01_next.ipynb"]


def test_an_edited_notebook_is_kept_with_a_sentence(package: Package) -> None:
    package.update()
    mine = written("import dgprune_lab", "my_idea = 1")
    package.edit("00_start", mine)
    assert package.update() == {"00_start": "kept", "01_next": "unchanged"}
    assert package.read("00_start") == mine
    assert "kept as you edited it; --reset 00_start restores" in package.sentences()


def test_an_edited_notebook_is_kept_through_every_update(package: Package) -> None:
    package.update()
    mine = written("my_idea = 1")
    package.edit("00_start", mine)
    for round in range(3):
        package.publish(**{"00_start": written(f"version = {round}")})
        assert package.update()["00_start"] == "kept"
    assert package.read("00_start") == mine
    assert "there is a newer version; --reset 00_start" in package.sentences()


def test_an_unedited_notebook_follows_the_package(package: Package) -> None:
    package.update()
    package.publish(**{"00_start": written("import dgprune_lab as dg")})
    assert package.update() == {"00_start": "updated", "01_next": "unchanged"}
    assert package.read("00_start") == written("import dgprune_lab as dg")
    assert package.update()["00_start"] == "unchanged"


def test_running_and_saving_is_no_edit(package: Package) -> None:
    package.update()
    saved = written("import dgprune_lab\n", "", outputs=True)  # JupyterLab adds an empty cell after the last
    package.edit("00_start", saved)
    assert package.update()["00_start"] == "unchanged"
    assert package.read("00_start") == saved, "outputs must stay while the package has nothing newer"
    package.publish(**{"00_start": written("import dgprune_lab as dg")})
    assert package.update()["00_start"] == "updated"


def test_a_source_stored_as_lines_is_the_same_source() -> None:
    one = written("a = 1\nb = 2")
    lines = json.loads(one)
    lines["cells"][0]["source"] = ["a = 1\n", "b = 2"]
    lines["cells"][0]["id"] = "a1b2"
    assert sources_hash(json.dumps(lines, indent=1).encode()) == sources_hash(one)
    assert sources_hash(written("a = 1\n\nb = 2")) != sources_hash(one)


def test_a_deleted_notebook_comes_back(package: Package) -> None:
    package.update()
    (package.folder / "00_start.ipynb").unlink()
    assert package.update()["00_start"] == "added"


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'{"cells": 3}'])
def test_an_unreadable_notebook_counts_as_edited(package: Package, content: bytes) -> None:
    package.update()
    package.edit("00_start", content)
    package.publish(**{"00_start": written("new")})
    assert package.update()["00_start"] == "kept"
    assert package.read("00_start") == content


@pytest.mark.parametrize("record", ["", "[]", '{"laid_out": 1}', '{"laid_out": {"00_start.ipynb": 1}}'])
def test_without_a_readable_record_nothing_is_overwritten(package: Package, record: str) -> None:
    package.update()
    (package.folder / RECORD).write_text(record)
    package.publish(**{"00_start": written("new")})
    assert package.update() == {"00_start": "kept", "01_next": "unchanged"}
    assert package.read("00_start") == written("import dgprune_lab")


def test_reset_keeps_every_edited_one_beside_it(package: Package) -> None:
    package.update()
    for number in ("one", "two", "three"):
        package.edit("00_start", written(number))
        assert package.update(reset="00_start")["00_start"] == "reset"
        assert package.read("00_start") == written("import dgprune_lab")
    assert [package.read(f"00_start.mine{end}") for end in ("", "2", "3")] == [
        written("one"),
        written("two"),
        written("three"),
    ]
    assert package.update()["00_start"] == "unchanged"


def test_reset_of_an_unedited_notebook_makes_no_copy_and_takes_the_newer(package: Package) -> None:
    package.update()
    package.publish(**{"00_start": written("newer")})
    assert package.update(reset="00_start.ipynb")["00_start"] == "reset"
    assert package.read("00_start") == written("newer")
    assert not (package.folder / "00_start.mine.ipynb").exists()


def test_reset_of_an_unknown_notebook_names_the_nearest_and_changes_nothing(package: Package) -> None:
    with pytest.raises(DgpruneError, match=r"unknown notebook '00_strat'; known: 00_start, 01_next\. Did you mean"):
        package.update(reset="00_strat")
    assert not package.folder.exists()


def test_a_folder_that_cannot_be_made_is_refused(package: Package) -> None:
    package.folder.write_text("a file is in the way")
    with pytest.raises(DgpruneError, match=r"cannot be written to .*folder: .*Choose another folder with --workdir"):
        package.update()


def test_the_package_s_own_folder_is_opened_in_place(package: Package) -> None:
    before = package.notebooks["00_start.ipynb"].read_bytes()
    actions = update_folder(package.root, reset="00_start", notebooks=package.notebooks)
    assert {action.kind for action in actions} == {"unchanged"}
    assert package.notebooks["00_start.ipynb"].read_bytes() == before
    assert not (package.root / RECORD).exists()


def test_the_installation_has_the_first_notebook() -> None:
    assert next(iter(shipped())) == "00_start.ipynb"


# --- a version for students, one for teachers ---------------------------------------------------------------------


SOLUTION = (
    '\n\n<details class="solution"><summary>Solution</summary>\n\n```python\nsecret()\n```\n\nWhy.\n\n</details>\n'
)


def lesson() -> bytes:
    """A notebook with an exercise, its solution, notes for the speaker and outputs."""
    notebook = json.loads(written("1 + 1", outputs=True))
    asked: dict[str, Any] = {
        "cell_type": "markdown",
        "id": "ask",
        "source": f"### 2 minutes\n\nTry it.{SOLUTION}\nMore.",
    }
    asked["metadata"] = {
        "tags": ["exercise"],
        "dgprune_lab": {"speaker_notes": "Wait.\n\nThen ask.", "check": ["True"]},
    }
    notebook["cells"].append(asked)
    return json.dumps(notebook).encode()


def cells(content: bytes) -> list[dict[str, Any]]:
    return json.loads(content)["cells"]


def test_students_get_neither_solutions_nor_outputs_nor_notes(package: Package) -> None:
    package.publish(**{"00_start": lesson()})
    package.update(version="student")
    text = package.read("00_start").decode()
    for hidden in ("secret", "Why.", "solution", "Wait.", "97 %", "check"):
        assert hidden not in text
    code, asked = cells(package.read("00_start"))
    assert asked["source"] == "### 2 minutes\n\nTry it.\n\nMore." and asked["metadata"] == {"tags": ["exercise"]}
    assert code["outputs"] == [] and code["execution_count"] is None


def test_teachers_get_the_notes_behind_their_cells(package: Package) -> None:
    package.publish(**{"00_start": lesson()})
    package.update(version="teacher")
    code, asked, note = cells(package.read("00_start"))
    assert note["source"] == "> **For the speaker:** Wait.\n>\n> Then ask." and note["cell_type"] == "markdown"
    assert "secret()" in asked["source"] and code["outputs"]


def test_another_version_replaces_what_was_not_edited_and_keeps_what_was(package: Package) -> None:
    package.publish(**{"00_start": lesson(), "01_next": lesson()})
    package.update(version="student")
    mine = package.read("00_start").replace(b"1 + 1", b"1 + 2")
    package.edit("00_start", mine)
    for version in ("teacher", None, "student"):
        assert package.update(version=version) == {"00_start": "kept", "01_next": "updated"}
        assert package.read("00_start") == mine
        assert package.update(version=version)["01_next"] == "unchanged"
        assert (b"secret" in package.read("01_next")) == (version != "student")
    assert package.update(version="student", reset="00_start")["00_start"] == "reset"
    assert b"secret" not in package.read("00_start") and package.read("00_start.mine") == mine


def test_teachers_get_the_guide_which_follows_the_package_until_it_is_edited(package: Package) -> None:
    guide, laid = package.root / "TEACHING.md", package.folder / "TEACHING.md"
    package.notebooks = {**package.notebooks, guide.name: guide}
    guide.write_text("one")
    for version in ("student", None):
        assert "TEACHING.md" not in package.update(version=version)
    assert package.update(version="teacher")["TEACHING.md"] == "added" and laid.read_text() == "one"
    guide.write_text("two")
    assert package.update(version="teacher")["TEACHING.md"] == "updated" and laid.read_text() == "two"
    laid.write_text("mine")
    guide.write_text("three")
    assert package.update(version="teacher")["TEACHING.md"] == "kept" and laid.read_text() == "mine"
    assert package.update(version="teacher", reset="TEACHING.md")["TEACHING.md"] == "reset"
    assert laid.read_text() == "three" and (package.folder / "TEACHING.mine.md").read_text() == "mine"


def test_what_students_must_not_read_is_taken_away_or_named(package: Package) -> None:
    (package.root / "TEACHING.md").write_text("guide")
    package.notebooks["TEACHING.md"] = package.root / "TEACHING.md"
    package.publish(**{"00_start": lesson(), "01_next": lesson()})
    package.update(version="teacher")
    package.edit("01_next", package.read("01_next").replace(b"1 + 1", b"1 + 2"))
    copied = package.folder / ".ipynb_checkpoints" / "00_start-checkpoint.ipynb"
    copied.parent.mkdir()
    copied.write_bytes(package.read("00_start"))
    done = update_folder(package.folder, version="student", notebooks=package.notebooks)
    said = " ".join(action.sentence for action in done)
    assert "TEACHING.md: removed" in said and not (package.folder / "TEACHING.md").exists()
    assert "01_next.ipynb: holds solutions or notes" in said and "00_start-checkpoint.ipynb: holds solutions" in said
    assert "00_start.ipynb: holds" not in said and b"secret" not in package.read("00_start")


def test_without_a_record_a_version_of_the_package_is_no_edit(package: Package) -> None:
    package.publish(**{"00_start": lesson()})
    for version in ("teacher", None):
        package.update(version=version)
        (package.folder / RECORD).unlink()
        assert package.update(version="student")["00_start"] == "updated"


def test_outputs_are_hidden_from_students_even_without_a_solution(package: Package) -> None:
    package.publish(**{"00_start": written("1 + 1", outputs=True)})
    package.update()
    assert package.update(version="student")["00_start"] == "updated" and b"97 %" not in package.read("00_start")
    saved = package.read("00_start").replace(
        b'"outputs": []', b'"outputs": [{"output_type": "stream", "text": "mine"}]'
    )
    package.edit("00_start", saved)
    assert package.update(version="student")["00_start"] == "unchanged" and package.read("00_start") == saved


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "<details class='solution'>secret</details>"},
        {"source": 'Try it.\n<details class="exercise solution">secret</details>'},
        {"metadata": {"speaker_notes": "secret"}},
        {"metadata": {"mine": {"check": ["secret"]}}},
        {"outputs": [{"output_type": "stream", "text": "the solution is"}]},
    ],
)
def test_an_answer_that_would_reach_students_is_refused(changes: dict[str, Any], package: Package) -> None:
    notebook = json.loads(lesson())
    notebook["cells"][1] |= changes
    package.publish(**{"01_next": json.dumps(notebook).encode()})
    with pytest.raises(DgpruneError, match=r"01_next.ipynb: the version for students would hold .* in cell 2"):
        package.update(version="student")
    assert not list(package.folder.glob("*.ipynb")), "it is found before anything is laid out"
    package.update(version="teacher")


def test_the_resolution_of_images_is_no_solution(package: Package) -> None:
    package.publish(**{"00_start": written('resolution = {"check": 1}')})
    assert package.update(version="student")["00_start"] == "added"


def test_a_folder_or_a_notebook_that_cannot_be_read_is_no_traceback() -> None:
    with pytest.raises(DgpruneError, match="folder must be a path without null characters"):
        update_folder("\0")
    assert sources_hash(b"[" * 200_000) is None


def test_versions_that_make_no_sense_are_refused(package: Package) -> None:
    with pytest.raises(DgpruneError, match="--student and --teacher exclude each other"):
        version_of(student=True, teacher=True)
    before = package.notebooks["00_start.ipynb"].read_bytes()
    with pytest.raises(DgpruneError, match=r"--student cannot be used in .*package.*--workdir"):
        update_folder(package.root, version="student", notebooks=package.notebooks)
    assert package.notebooks["00_start.ipynb"].read_bytes() == before


@pytest.mark.parametrize("name", shipped())
def test_no_shipped_notebook_shows_a_student_a_solution(name: str) -> None:
    text = as_version(shipped()[name].read_bytes(), "student")
    check_unsolved(text, name=name)
