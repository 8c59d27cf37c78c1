"""The working folder: the packaged notebooks are laid out in it, and what a person edited is never overwritten.

A small file beside them, `.dgprune_lab.json`, remembers what was laid out. A notebook counts as edited when its cells'
sources differ from that: running and saving it, which fills in outputs, is no edit.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from ..core import DgpruneError, unknown, write_file

RECORD = ".dgprune_lab.json"
Did = Literal["added", "unchanged", "updated", "kept", "reset"]


@dataclass(frozen=True)
class Action:
    """What happened to one notebook: its file name, the deed and a sentence about it."""

    notebook: str
    did: Did
    sentence: str


def shipped() -> dict[str, Traversable]:
    """The notebooks that came with the package, by file name, in the order in which they are meant to be read.

    Raises:
        DgpruneError: the installation has none.
    """
    package = files("dgprune_lab")
    for folder in (package.joinpath("notebooks"), package.joinpath("..", "notebooks")):  # a wheel; a source checkout
        if folder.is_dir():
            found = {entry.name: entry for entry in folder.iterdir() if entry.name.endswith(".ipynb")}
            if found:
                return dict(sorted(found.items()))
    raise DgpruneError("the package has no notebooks in it: install it again with `pip install --force-reinstall`.")


def lay_out(
    folder: str | Path, *, reset: str | None = None, notebooks: Mapping[str, Traversable] | None = None
) -> list[Action]:
    """Put the notebooks into a working folder and say for each what was done.

    A missing one is added. One that nobody edited is updated when the package has a newer one; an edited one is kept.
    Only cell sources count as edits, so outputs stay as long as there is nothing newer to lay out.

    Args:
        folder: made if it does not exist.
        reset: the name of one notebook ("00_start" or "00_start.ipynb") to put back as shipped; an edited one is kept
            beside it as `00_start.mine.ipynb`, the next as `00_start.mine2.ipynb`.
        notebooks: what to lay out, by file name; by default what came with the package.

    Raises:
        DgpruneError: no such notebook to reset, or the folder cannot be written.
    """
    given = shipped() if notebooks is None else dict(notebooks)
    wanted = None if reset is None else _named(reset, given)
    place = Path(folder).expanduser()
    try:
        place.mkdir(parents=True, exist_ok=True)
        if _is_origin(place, given):
            return [Action(name, "unchanged", f"{name}: the package's own file, opened in place") for name in given]
        record = _read_record(place)
        actions = []
        for name, source in given.items():
            fresh = source.read_bytes()
            step = _reset if name == wanted else _one
            actions.append(step(place / name, fresh, record))
            if actions[-1].did != "kept":
                record[name] = {"sources": sources_hash(fresh), "file": _hash(fresh)}
        text = json.dumps({"format": 1, "laid_out": record}, indent=1, sort_keys=True) + "\n"
        write_file(place / RECORD, text.encode())
    except OSError as error:
        why = error.strerror or error
        raise DgpruneError(
            f"the notebooks cannot be laid out in {place}: {why}. Choose another folder with --workdir."
        ) from error
    return actions


def sources_hash(content: bytes) -> str | None:
    """A hash of what a person writes in a notebook: cell types, sources and attachments; None if it is no notebook.

    Outputs, run numbers, metadata, cell ids, trailing blanks and empty cells (JupyterLab adds one after the last) do
    not count.
    """
    try:
        cells = json.loads(content)["cells"]
        written = [_written(cell) for cell in cells]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return _hash(json.dumps([cell for cell in written if cell[1]], sort_keys=True).encode())


def _written(cell: Mapping[str, Any]) -> tuple[str, str, Any]:
    """The type, the source without trailing blanks, and the attachments of one cell."""
    source = cell["source"]
    text = source if isinstance(source, str) else "".join(source)
    lines = [line.rstrip() for line in text.splitlines()]
    return str(cell["cell_type"]), "\n".join(lines).strip("\n"), cell.get("attachments") or {}


def _one(target: Path, fresh: bytes, record: Mapping[str, Mapping[str, str | None]]) -> Action:
    """Add, update or leave one notebook."""
    name = target.name
    if not target.exists():
        write_file(target, fresh)
        return Action(name, "added", f"{name}: added")
    content, before = target.read_bytes(), record.get(name, {})
    here = sources_hash(content)
    if content == fresh or (here is not None and here == sources_hash(fresh)):
        return Action(name, "unchanged", f"{name}: as it was")
    if here is not None and here == before.get("sources"):
        write_file(target, fresh)
        return Action(name, "updated", f"{name}: updated to the package's newer one (you had not edited it)")
    newer = "there is a newer one; " if before and before.get("file") != _hash(fresh) else ""
    back = f"--reset {target.stem} puts the shipped one back"
    return Action(name, "kept", f"{name}: yours, kept as you edited it; {newer}{back}")


def _reset(target: Path, fresh: bytes, record: Mapping[str, Mapping[str, str | None]]) -> Action:
    """Put the shipped notebook back, the edited one kept beside it."""
    name, aside = target.name, ""
    if target.exists():
        content, before = target.read_bytes(), record.get(name, {}).get("sources")
        here = sources_hash(content)
        if content != fresh and (here is None or here not in (before, sources_hash(fresh))):
            mine = _free(target)
            os.replace(target, mine)
            aside = f", yours is now {mine.name}"
    write_file(target, fresh)
    return Action(name, "reset", f"{name}: put back as shipped{aside}")


def _free(target: Path) -> Path:
    """The first of NAME.mine.ipynb, NAME.mine2.ipynb, ... that does not exist yet."""
    number = 1
    while True:
        mine = target.with_name(f"{target.stem}.mine{'' if number == 1 else number}.ipynb")
        if not mine.exists():
            return mine
        number += 1


def _named(name: str, given: Mapping[str, Traversable]) -> str:
    """The file name of a notebook named with or without its ending."""
    full = name if name.endswith(".ipynb") else f"{name}.ipynb"
    if full not in given:
        raise unknown("notebook", name, [entry.removesuffix(".ipynb") for entry in given])
    return full


def _is_origin(place: Path, given: Mapping[str, Traversable]) -> bool:
    """Whether the working folder is the very folder the notebooks come from."""
    return any(isinstance(source, Path) and source.parent.resolve() == place.resolve() for source in given.values())


def _read_record(place: Path) -> dict[str, dict[str, str | None]]:
    """What was laid out here; nothing if the file is missing or spoiled: then what is there counts as edited."""
    try:
        content = json.loads((place / RECORD).read_text(encoding="utf-8"))["laid_out"]
        return {str(name): dict(entry) for name, entry in content.items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _hash(content: bytes) -> str:
    """A short stable hash."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
