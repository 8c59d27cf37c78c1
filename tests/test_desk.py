"""The working folder: what a person edited is never overwritten."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dgprune_lab.commands import notebooks as desk
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
    """A package of notebooks that can publish newer ones, and the desk they are laid out on."""

    def __init__(self, root: Path) -> None:
        self.root, self.desk = root / "package", root / "desk"
        self.root.mkdir()
        self.publish(**{"00_start": written("import dgprune_lab"), "01_next": written("1 + 1")})

    def publish(self, **notebooks: bytes) -> None:
        for name, content in notebooks.items():
            (self.root / f"{name}.ipynb").write_bytes(content)

    @property
    def notebooks(self) -> Mapping[str, Path]:
        return {path.name: path for path in sorted(self.root.glob("*.ipynb"))}

    def lay_out(self, *, reset: str | None = None) -> dict[str, str]:
        actions = desk.lay_out(self.desk, reset=reset, notebooks=self.notebooks)
        return {action.notebook.removesuffix(".ipynb"): action.did for action in actions}

    def said(self) -> str:
        return " | ".join(action.sentence for action in desk.lay_out(self.desk, notebooks=self.notebooks))

    def here(self, name: str) -> bytes:
        return (self.desk / f"{name}.ipynb").read_bytes()

    def edit(self, name: str, content: bytes) -> None:
        (self.desk / f"{name}.ipynb").write_bytes(content)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


def test_the_first_time_everything_is_added_and_the_second_time_nothing_happens(package: Package) -> None:
    assert package.lay_out() == {"00_start": "added", "01_next": "added"}
    assert package.here("00_start") == written("import dgprune_lab")
    assert package.lay_out() == {"00_start": "unchanged", "01_next": "unchanged"}
    assert sorted(os.listdir(package.desk)) == [".dgprune_lab.json", "00_start.ipynb", "01_next.ipynb"]


def test_an_edited_notebook_is_kept_and_it_is_said(package: Package) -> None:
    package.lay_out()
    mine = written("import dgprune_lab", "my_idea = 1")
    package.edit("00_start", mine)
    assert package.lay_out() == {"00_start": "kept", "01_next": "unchanged"}
    assert package.here("00_start") == mine
    assert "kept as you edited it; --reset 00_start puts" in package.said()


def test_an_edited_notebook_is_kept_however_often_the_package_changes(package: Package) -> None:
    package.lay_out()
    mine = written("my_idea = 1")
    package.edit("00_start", mine)
    for round in range(3):
        package.publish(**{"00_start": written(f"version = {round}")})
        assert package.lay_out()["00_start"] == "kept"
    assert package.here("00_start") == mine
    assert "there is a newer one; --reset 00_start" in package.said()


def test_an_unedited_notebook_follows_the_package(package: Package) -> None:
    package.lay_out()
    package.publish(**{"00_start": written("import dgprune_lab as dg")})
    assert package.lay_out() == {"00_start": "updated", "01_next": "unchanged"}
    assert package.here("00_start") == written("import dgprune_lab as dg")
    assert package.lay_out()["00_start"] == "unchanged"


def test_running_and_saving_is_no_edit(package: Package) -> None:
    package.lay_out()
    saved = written("import dgprune_lab\n", "", outputs=True)  # JupyterLab adds an empty cell after the last
    package.edit("00_start", saved)
    assert package.lay_out()["00_start"] == "unchanged"
    assert package.here("00_start") == saved, "outputs must stay while the package has nothing newer"
    package.publish(**{"00_start": written("import dgprune_lab as dg")})
    assert package.lay_out()["00_start"] == "updated"


def test_a_source_stored_as_lines_is_the_same_source() -> None:
    one = written("a = 1\nb = 2")
    lines = json.loads(one)
    lines["cells"][0]["source"] = ["a = 1\n", "b = 2"]
    lines["cells"][0]["id"] = "a1b2"
    assert desk.sources_hash(json.dumps(lines, indent=1).encode()) == desk.sources_hash(one)
    assert desk.sources_hash(written("a = 1\n\nb = 2")) != desk.sources_hash(one)


def test_a_deleted_notebook_comes_back(package: Package) -> None:
    package.lay_out()
    (package.desk / "00_start.ipynb").unlink()
    assert package.lay_out()["00_start"] == "added"


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'{"cells": 3}'])
def test_a_spoiled_notebook_counts_as_edited(package: Package, content: bytes) -> None:
    package.lay_out()
    package.edit("00_start", content)
    package.publish(**{"00_start": written("new")})
    assert package.lay_out()["00_start"] == "kept"
    assert package.here("00_start") == content


@pytest.mark.parametrize("record", ["", "[]", '{"laid_out": 1}', '{"laid_out": {"00_start.ipynb": 1}}'])
def test_without_a_readable_record_nothing_is_overwritten(package: Package, record: str) -> None:
    package.lay_out()
    (package.desk / desk.RECORD).write_text(record)
    package.publish(**{"00_start": written("new")})
    assert package.lay_out() == {"00_start": "kept", "01_next": "unchanged"}
    assert package.here("00_start") == written("import dgprune_lab")


def test_reset_keeps_every_edited_one_beside_it(package: Package) -> None:
    package.lay_out()
    for number in ("one", "two", "three"):
        package.edit("00_start", written(number))
        assert package.lay_out(reset="00_start")["00_start"] == "reset"
        assert package.here("00_start") == written("import dgprune_lab")
    assert [package.here(f"00_start.mine{end}") for end in ("", "2", "3")] == [
        written("one"),
        written("two"),
        written("three"),
    ]
    assert package.lay_out()["00_start"] == "unchanged"


def test_reset_of_an_unedited_one_makes_no_copy_and_takes_the_newer(package: Package) -> None:
    package.lay_out()
    package.publish(**{"00_start": written("newer")})
    assert package.lay_out(reset="00_start.ipynb")["00_start"] == "reset"
    assert package.here("00_start") == written("newer")
    assert not (package.desk / "00_start.mine.ipynb").exists()


def test_reset_of_an_unknown_notebook_names_the_nearest_and_touches_nothing(package: Package) -> None:
    with pytest.raises(DgpruneError, match=r"unknown notebook '00_strat'; known: 00_start, 01_next\. Did you mean"):
        package.lay_out(reset="00_strat")
    assert not package.desk.exists()


def test_a_folder_that_cannot_be_made_gets_a_sentence(package: Package) -> None:
    package.desk.write_text("a file is in the way")
    with pytest.raises(DgpruneError, match=r"cannot be laid out in .*desk: .*Choose another folder with --workdir"):
        package.lay_out()


def test_the_package_s_own_folder_is_opened_in_place(package: Package) -> None:
    before = package.notebooks["00_start.ipynb"].read_bytes()
    actions = desk.lay_out(package.root, reset="00_start", notebooks=package.notebooks)
    assert {action.did for action in actions} == {"unchanged"}
    assert package.notebooks["00_start.ipynb"].read_bytes() == before
    assert not (package.root / desk.RECORD).exists()


def test_the_installation_at_hand_has_the_first_notebook() -> None:
    assert next(iter(desk.shipped())) == "00_start.ipynb"
