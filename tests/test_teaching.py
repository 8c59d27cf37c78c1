"""The teacher's page is true: its notebooks, questions and commands exist, and the minutes of its plans add up."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
import typer

import dgprune_lab as dg
from dgprune_lab.commands.cli import app

FOLDER = Path(__file__).parents[1] / "notebooks"
TEXT = (FOLDER / "TEACHING.md").read_text(encoding="utf-8")
PART = re.compile(r"[a-z] (\d+)(?=[,.])")


def rows_of(title: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named(text: str) -> list[str]:
    return re.findall(r"`(\d\d_\w+)`", text)


def test_every_notebook_stands_there_with_its_question_in_order() -> None:
    questions = {}
    for path in sorted(FOLDER.glob("*.ipynb")):
        title = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]).splitlines()[0]
        questions[path.stem] = title.removeprefix("# ")
    assert {row[0].strip("`"): row[1] for row in rows_of("The notebooks")} == questions
    assert [row[0].strip("`") for row in rows_of("The notebooks")] == list(questions)
    assert set(named(TEXT)) <= set(questions)


@pytest.mark.parametrize(("title", "minutes"), [("Three hours", 180), ("45 minutes", 45)])
def test_the_minutes_of_a_plan_add_up(title: str, minutes: int) -> None:
    needed = {row[0].strip("`"): int(row[2]) + int(row[3]) for row in rows_of("The notebooks")}
    clock = 0
    for begins, length, what, *_ in rows_of(title):
        assert begins == f"{clock // 60}:{clock % 60:02d}"
        clock += int(length)
        if parts := [int(part) for part in PART.findall(what)]:
            assert sum(parts) == int(length), what
            assert {needed[name] for name in named(what)} == {int(length)}, what
    assert clock == minutes


def test_every_command_and_option_exists() -> None:
    commands = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    found = re.findall(r"`dgprune-lab ([a-z-]+)([^`]*)`", TEXT)
    assert {name for name, _ in found} >= {"lab", "doctor", "report", "wheels"}
    for name, rest in found:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z]+", rest)) <= known, (name, rest)
    lab = {option for parameter in commands["lab"].params for option in parameter.opts}
    assert set(re.findall(r"`(--[a-z]+)`", TEXT)) <= lab | {"--cpu"}


def test_every_call_exists_and_every_file_is_there() -> None:
    calls = set(re.findall(r"\bdg\.([A-Za-z_.]+)\(", TEXT))
    assert {"glossary", "tally", "theme"} <= calls
    for call in calls:
        assert callable(functools.reduce(getattr, call.split("."), dg)), call
    assert hasattr(dg.predict("?", ["a", "b"]), "line")
    assert set(re.findall(r'glossary\("([^"]+)"\)', TEXT)) <= {entry.word for entry in dg.glossary()}
    for name in re.findall(r"`(results/[\w.]+)`", TEXT):
        assert (FOLDER / name).is_file(), name
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        compile(block, "TEACHING.md", "exec")
