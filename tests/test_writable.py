"""Where nothing can be written, a sentence says so before the work; what is written has the usual permissions."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from material import domain, norm_net, randomise
from typer.testing import CliRunner

import dgprune_lab as dg
from dgprune_lab.commands import docs, train
from dgprune_lab.commands.cli import app
from dgprune_lab.core import check_writable_file, check_writable_folder, write_file


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("the work began")


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.fixture
def a_file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("mine")
    return path


def test_a_path_that_can_be_written_is_returned_and_nothing_stays(tmp_path: Path) -> None:
    for make in (check_writable_file, check_writable_folder):
        assert make(tmp_path / "new" / "deep", argument="it") == tmp_path / "new" / "deep"
    assert check_writable_file("~/a.html", argument="it") == Path.home() / "a.html"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    for make in (check_writable_file, check_writable_folder):
        with pytest.raises(dg.DgpruneError, match="--output must be a path without null characters"):
            make(name, argument="--output")


CALLS: dict[str, Callable[[Path], Any]] = {
    "report": lambda path: dg.report("digits", path / "page.html"),
    "train": lambda path: train.make("digits", folder=path / "new", progress=False),
    "docs": lambda path: docs.write_docs(path / "pages"),
    "bench": lambda path: __import__("dgprune_lab.commands.bench", fromlist=["main"]).main(json=path / "rows.json"),
    "checkpoint": lambda path: dg.train_with_pruning(
        randomise(norm_net(), dtype=torch.float32), sources=[domain("a")], schedule=None, checkpoint=path / "run"
    ),
}


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgprune_lab.widgets.study_report.demo", never)
    monkeypatch.setattr("dgprune_lab.commands.train.untrained", never)
    monkeypatch.setattr("dgprune_lab.commands.docs._page", never)
    monkeypatch.setattr("dgprune_lab.commands.bench.heading", never)
    monkeypatch.setattr("dgprune_lab.training.scheduled.train_with_pruning.check_training", never)


@pytest.mark.parametrize("call", CALLS)
def test_a_place_below_a_file_is_refused_before_the_work(call: str, a_file: Path, no_work: None) -> None:
    with pytest.raises(dg.DgpruneError, match=rf"{a_file} is a file; name another place"):
        CALLS[call](a_file)
    assert a_file.read_text() == "mine"


@pytest.mark.parametrize("call", CALLS)
def test_a_read_only_folder_is_refused_before_the_work(
    call: str, tmp_path: Path, no_work: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", full_disk)
    with pytest.raises(dg.DgpruneError, match=rf"nothing can be written in {tmp_path} \(Read-only file system\)"):
        CALLS[call](tmp_path)


def test_a_report_into_a_folder_is_one_sentence(tmp_path: Path, no_work: None) -> None:
    result = CliRunner().invoke(app, ["report", "-o", str(tmp_path)])
    assert result.exit_code == 2 and f"must name a file, and {tmp_path} is a folder" in result.output
    assert not list(tmp_path.iterdir())


def test_a_training_into_a_file_is_one_sentence(a_file: Path, no_work: None) -> None:
    result = CliRunner().invoke(app, ["train", "digits", "--folder", str(a_file)])
    assert result.exit_code == 2 and f"folder must be a folder, and {a_file} is a file" in result.output


def test_a_checkpoint_on_a_disk_that_fills_up_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgprune_lab.training.scheduled.checkpoints.write_file", full_disk)
    with pytest.raises(dg.DgpruneError, match=r"cannot be written: Read-only file system"):
        dg.train_with_pruning(
            randomise(norm_net(), dtype=torch.float32),
            sources=[domain("a")],
            schedule=None,
            options=dg.TrainingOptions(epochs=1),
            checkpoint=tmp_path / "run",
        )


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_written_files_have_the_mode_that_the_umask_leaves(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        first = write_file(tmp_path / "page.html", "one")
        assert first.stat().st_mode & 0o777 == 0o666 & ~mask
        assert write_file(first, "two").stat().st_mode & 0o777 == 0o666 & ~mask
    finally:
        os.umask(before)
