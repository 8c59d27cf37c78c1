"""Versions of a notebook for a class: without solutions for students, with notes for the speaker for teachers."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from ..core import DgpruneError

Version = Literal["student", "teacher"]
_SOLUTION = re.compile(r'\n*<details class="solution">.*?</details>[ \t]*', re.DOTALL)

_ANSWER = re.compile(r'(?<!re)solution|"(?:check|speaker_notes)":', re.IGNORECASE)


def version_of(*, student: bool, teacher: bool) -> Version | None:
    """Return the version that two options select; None for the notebooks as they are.

    Raises:
        DgpruneError: both are set.
    """
    if student and teacher:
        raise DgpruneError(
            "--student and --teacher exclude each other: lay out one version in each folder (--workdir)."
        )
    return "student" if student else "teacher" if teacher else None


def has_answers(content: bytes) -> bool:
    """Return whether a notebook holds a solution or notes for the speaker."""
    return any(mark in content for mark in (b'class=\\"solution', b'"speaker_notes"', b"**For the speaker:**"))


def as_version(content: bytes, version: Version | None) -> bytes:
    """Return a version of a notebook; version None is the file as it is.

    Students get neither solutions nor outputs, which would give answers away. Teachers get the notes for the speaker
    (`metadata.dgprune_lab.speaker_notes` of a cell) in a new cell after the one they belong to.
    """
    if version is None:
        return content
    notebook = json.loads(content)
    if version == "student":
        notebook["cells"] = [_remove_solution(cell) for cell in notebook["cells"]]
        notebook["metadata"].pop("dgprune_lab", None)
    else:
        notebook["cells"] = [each for cell in notebook["cells"] for each in (cell, *_speaker_cells(cell))]
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()


def check_unsolved(content: bytes, *, name: str) -> None:
    """Refuse a version for students that still holds an answer.

    Raises:
        DgpruneError: a cell with the word "solution", or with a check or notes for the speaker in its metadata.
    """
    for number, cell in enumerate(json.loads(content)["cells"], start=1):
        if left := _ANSWER.search(json.dumps(cell)):
            raise DgpruneError(
                f"{name}: the version for students would hold {left[0]!r} in cell {number}. Write a solution as "
                '<details class="solution">...</details>, and checks and notes in metadata.dgprune_lab.'
            )


def _remove_solution(cell: dict[str, Any]) -> dict[str, Any]:
    """Return a cell without solution, outputs, notes and checks."""
    metadata = {name: value for name, value in cell["metadata"].items() if name != "dgprune_lab"}
    if cell["cell_type"] == "code":
        return {**cell, "metadata": metadata, "outputs": [], "execution_count": None}
    return {**cell, "metadata": metadata, "source": _SOLUTION.sub("", "".join(cell["source"]))}


def _speaker_cells(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a cell with a given cell's notes for the speaker, to be put after it; no cell if it has no notes."""
    notes = cell["metadata"].get("dgprune_lab", {}).get("speaker_notes")
    if not notes:
        return []
    quoted = "\n".join(f"> {line}".rstrip() for line in f"**For the speaker:** {''.join(notes)}".splitlines())
    cell_id = {"id": f"{cell['id'][:56]}-speaker"} if "id" in cell else {}
    return [{"cell_type": "markdown", **cell_id, "metadata": {}, "source": quoted}]
