"""`dgprune-lab experiment`: sentences, what is done stays, and what was found is printed with its interval."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_up_study
import pytest
from made_up_study import NAME, made_up
from typer.testing import CliRunner

import dgprune_lab as dg
from dgprune_lab.commands import cli
from dgprune_lab.experiments import STUDIES, Results, shipped_names


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, and the made-up study as the only one."""
    for name in list(STUDIES):
        monkeypatch.delitem(STUDIES, name)  # pyright: ignore[reportArgumentType]
    monkeypatch.setitem(STUDIES, NAME, made_up)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(made_up_study, "before_each", [])
    monkeypatch.setattr(made_up_study, "runs", [])
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def command(*words: str, code: int = 0) -> Any:
    """The result of the command, in this process alone."""
    workers = () if "--scheduler" in words or "--list" in words else ("--workers", "1")
    result = CliRunner().invoke(cli.app, ["experiment", *words, *workers])
    assert result.exit_code == code, result.output
    return result


def test_a_study_runs_once_and_its_claims_are_printed(folder: Path) -> None:
    result = command(NAME, "--quick")
    shown = " ".join(result.stdout.split())
    assert "Does it help? 6 runs" in shown and "◇ target-aware: It helps (Nobody 2026: +50 points)" in shown
    assert "3 training seeds" in shown and "a gain, smaller than published" in shown
    (row,) = made_up(quick=True).claims(Results(folder / "experiments" / "made_up_quick").table())  # type: ignore[misc]
    assert f"here {100 * row.estimate:+.1f} points [{100 * row.low:+.1f}, {100 * row.high:+.1f}]" in shown
    for ending in ("csv", "json"):
        assert (folder / "experiments" / "made_up_quick" / f"made_up_quick.{ending}").is_file()
    assert "6/6" in result.stderr and len(made_up_study.runs) == 6
    command(NAME, "--quick")
    assert len(made_up_study.runs) == 6, "nothing is done again"


def test_seeds_and_folder(folder: Path) -> None:
    command(NAME, "--seeds", "4", "--out", "there")
    results = Results(folder / "there")
    assert results.total == 16 and '--seeds 4"' in (folder / "there" / "made_up.json").read_text()


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on() -> None:
    def stop(settings: Any) -> None:
        if len(made_up_study.runs) == 2:
            raise KeyboardInterrupt

    made_up_study.before_each.append(stop)
    shown = command(NAME, "--quick", code=130).stdout
    assert "Stopped. 2 of 6 runs are written in experiments/made_up_quick; the same command resumes" in shown
    made_up_study.before_each.clear()
    command(NAME, "--quick")
    assert len(made_up_study.runs) == 6


def test_failed_runs_are_said_and_done_again_on_request() -> None:
    def fail(settings: Any) -> None:
        if settings["training_seed"] == 2:
            raise dg.DgpruneError("the loss is not finite")

    made_up_study.before_each.append(fail)
    shown = command(NAME, "--quick", code=1).stdout
    assert "2 of 6 runs failed; --retry does them again. The first: DgpruneError: the loss is not finite" in shown
    assert "2 training seeds" in shown, "the others are judged"
    made_up_study.before_each.clear()
    command(NAME, "--quick", code=1)
    assert "3 training seeds" in command(NAME, "--quick", "--retry").stdout


def test_one_seed_judges_no_claim() -> None:
    assert "No claim can be judged from these runs: frame holds one" in command(NAME, "--seeds", "1").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("mad_up",), "unknown study 'mad_up'; known: made_up. Did you mean 'made_up'?"),
        ((NAME, "--scheduler", "tcp://127.0.0.1:1", "--workers", "2"), "--workers counts processes of this machine"),
        ((NAME, "--device", "cuda:99"), "device 'cuda:99' was requested"),
        ((NAME, "--out", "file"), "folder must be a folder"),
    ],
)
def test_a_sentence_instead_of_a_traceback(words: tuple[str, ...], said: str, folder: Path) -> None:
    (folder / "file").write_text("")
    assert said in command(*words, code=2).stderr and not made_up_study.runs


def test_the_list_tells_what_is_asked_and_what_it_costs(folder: Path) -> None:
    assert NAME not in shipped_names()
    before = command("--list").stdout
    assert before == command().stdout, "without a name"
    lines = before.splitlines()
    assert lines[0] == NAME and lines[1].strip() == "Does it help?"
    assert "full" in lines[2] and "12 runs, not yet measured here" in lines[2] and "6 runs" in lines[3]
    command(NAME, "--quick")
    after = command("--list").stdout.splitlines()
    assert "not yet measured here" in after[2] and "here, as 6 finished runs took" in after[3]
