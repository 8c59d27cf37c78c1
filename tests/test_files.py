"""Files: written whole or not at all, with the permissions of an ordinary file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dgprune_lab.core import DgpruneError, card_text, read_card, write_file


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    assert write_file(path, "né") == path and path.read_bytes() == "né".encode()
    write_file(path, b"two")
    assert path.read_bytes() == b"two" and list(path.parent.iterdir()) == [path]


def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "a.txt", "old")

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_file(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_any_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    made = write_file(tmp_path / "made", "x")
    assert made.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_card_says_its_kind_format_and_versions(tmp_path: Path) -> None:
    path = write_file(tmp_path / "card.json", card_text({"a": 1}, kind="run"))
    card = read_card(path, kind="run")
    assert (card["a"], card["kind"], card["format"]) == (1, "run", 2) and set(card["versions"]) == {
        "dgprune-lab",
        "python",
        "torch",
    }
    lines = path.read_text().splitlines()
    assert len(lines) == 2 + len(card) and ' "a": 1' in [line.rstrip(",") for line in lines], "a line per field"
    with pytest.raises(DgpruneError, match="not the card of a network"):
        read_card(path, kind="network")
    with pytest.raises(DgpruneError, match="cannot be written as JSON"):
        card_text({"a": float("nan")}, kind="run")
