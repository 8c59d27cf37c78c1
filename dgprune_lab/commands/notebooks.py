"""The notebooks' working folder: the shipped notebooks are copied to it, and an edited one is never overwritten.

A small file beside them, `.dgprune_lab.json`, records what was copied. A notebook counts as edited if the sources of
its cells differ from the copied ones; running and saving it changes only outputs, which is no edit.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

from ..core import DgpruneError, at_home, notebook_folders, unknown, write_file
from .notebook_versions import Version, as_version, check_unsolved, has_answers

RECORD = ".dgprune_lab.json"
GUIDE = "TEACHING.md"
Kind = Literal["added", "unchanged", "updated", "kept", "reset", "removed"]
Record = dict[str, dict[str, str | None]]


@dataclass(frozen=True)
class Action:
    """What was done with one notebook: its file name, the kind of action, and a sentence about it."""

    notebook: str
    kind: Kind
    sentence: str


def shipped() -> dict[str, Traversable]:
    """Return the shipped notebooks by file name, in reading order.

    Raises:
        DgpruneError: the installation has no notebooks.
    """
    for folder in notebook_folders():
        if folder.is_dir():
            notebooks = {entry.name: entry for entry in folder.iterdir() if entry.name.endswith(".ipynb")}
            if notebooks:
                return dict(sorted(notebooks.items()))
    raise DgpruneError("the package has no notebooks: install it again with `pip install --force-reinstall`.")


def update_folder(
    folder: str | Path,
    *,
    reset: str | None = None,
    version: Version | None = None,
    notebooks: Mapping[str, Traversable] | None = None,
) -> list[Action]:
    """Copy the notebooks to a folder, and return what was done with each.

    A missing notebook is added. An unedited one is updated if the package has a newer version; an edited one is kept.
    Only changed cell sources count as edits, so outputs stay as long as there is no newer version. An unedited notebook
    of another version, such as the students', is replaced by the one of this version. In the students' version, files
    in the folder that hold answers are reported.

    Args:
        folder: the folder; it is made if it does not exist.
        reset: the name of one notebook ("00_start" or "00_start.ipynb") to restore as shipped; an edited one is kept
            beside it as `00_start.mine.ipynb`, the next as `00_start.mine2.ipynb`.
        version: "student" for notebooks without solutions, "teacher" for those with notes for the speaker, with the
            guide for teachers beside them.
        notebooks: file name -> notebook; None for the shipped ones.

    Raises:
        DgpruneError: no notebook of the name `reset`, a folder that cannot be written to, a version requested in the
            folder that the notebooks come from, or a solution that would reach students.
    """
    notebooks = {**shipped(), **_find_guide()} if notebooks is None else dict(notebooks)
    notebooks = {name: file for name, file in notebooks.items() if name != GUIDE or version == "teacher"}
    name_reset = None if reset is None else _file_name(reset, notebooks)
    folder = at_home(folder, argument="folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _is_origin(folder, notebooks):
            if version is not None:
                raise DgpruneError(
                    f"--{version} cannot be used in {folder}: the notebooks there are the source of both versions. "
                    "Choose another folder with --workdir."
                )
            return [Action(name, "unchanged", f"{name}: the package's own file") for name in notebooks]
        record, actions = _read_record(folder), []
        files = {name: _ShippedFile.of(name, source.read_bytes(), version) for name, source in notebooks.items()}
        for name, fresh in files.items():
            step = _reset_notebook if name == name_reset else _update_notebook
            actions.append(step(folder / name, fresh, record.get(name, {})))
            if actions[-1].kind != "kept":
                file = {"file": _hash(fresh.content), "version": version}
                record[name] = {"sources": _source_hash(name, fresh.content), **file}
        if version == "student":
            actions += _hide_answers(folder, record)
        text = json.dumps({"format": 1, "laid_out": record}, indent=1, sort_keys=True) + "\n"
        write_file(folder / RECORD, text)
    except OSError as error:
        raise DgpruneError(
            f"the notebooks cannot be written to {folder}: {error.strerror or error}. Choose another folder with "
            "--workdir."
        ) from error
    return actions


def sources_hash(content: bytes) -> str | None:
    """Return a hash of what a person writes in a notebook: the types, sources and attachments of its cells.

    None if the content is not a notebook. Outputs, run numbers, metadata, cell ids, trailing blanks and empty cells
    (JupyterLab adds one at the end) do not count.
    """
    try:
        cells = [_cell_source(cell) for cell in json.loads(content)["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return _hash(json.dumps([cell for cell in cells if cell[1]], sort_keys=True).encode())


def _cell_source(cell: Mapping[str, Any]) -> tuple[str, str, Any]:
    """Return the type, the source without trailing blanks, and the attachments of a cell."""
    lines = [line.rstrip() for line in "".join(cell["source"]).splitlines()]
    return str(cell["cell_type"]), "\n".join(lines).strip("\n"), cell.get("attachments") or {}


@dataclass(frozen=True, kw_only=True)
class _ShippedFile:
    """A file as the package would copy it now, with the hashes of what is written in each version of it."""

    name: str
    content: bytes
    version: Version | None
    hashes: frozenset[str | None]

    @classmethod
    def of(cls, name: str, source: bytes, version: Version | None) -> _ShippedFile:
        """Return a file of the package in a given version; a file that is not a notebook has only one."""
        contents: dict[Version | None, bytes] = {None: source}
        if name.endswith(".ipynb") and sources_hash(source) is not None:
            contents = {each: as_version(source, each) for each in (None, *get_args(Version))}
            if version == "student":
                check_unsolved(contents[version], name=name)
        hashes = frozenset(_source_hash(name, content) for content in contents.values())
        return cls(name=name, content=contents.get(version, source), version=version, hashes=hashes)

    def is_unedited(self, content: bytes, recorded: Mapping[str, str | None]) -> bool:
        """Return whether this content is unedited: any version of the file as it is now, or what was copied earlier."""
        hashed = _source_hash(self.name, content)
        return hashed is not None and hashed in {*self.hashes, recorded.get("sources")}


def _update_notebook(path: Path, fresh: _ShippedFile, recorded: Mapping[str, str | None]) -> Action:
    """Add, update or keep one notebook; return what was done."""
    name = path.name
    if not path.exists():
        write_file(path, fresh.content)
        return Action(name, "added", f"{name}: added")
    content, sources = path.read_bytes(), _source_hash(name, fresh.content)
    is_alike = sources is not None and sources == _source_hash(name, content)
    if content == fresh.content or (is_alike and recorded.get("version") == fresh.version):
        return Action(name, "unchanged", f"{name}: unchanged")
    if fresh.is_unedited(content, recorded):
        write_file(path, fresh.content)
        return Action(name, "updated", f"{name}: replaced by the package's present one (you had not edited it)")
    newer = "there is a newer version; " if recorded and recorded.get("file") != _hash(fresh.content) else ""
    return Action(name, "kept", f"{name}: kept as you edited it; {newer}--reset {path.stem} restores the shipped one")


def _hide_answers(folder: Path, record: Record) -> list[Action]:
    """Delete an unedited guide from a students' folder, and report the files that hold answers."""
    actions, guide = [], folder / GUIDE
    if guide.exists() and _hash(guide.read_bytes()) == record.get(GUIDE, {}).get("file"):
        guide.unlink()
        actions = [Action(GUIDE, "removed", f"{GUIDE}: removed, as it is for teachers")]
    record.pop(GUIDE, None)
    paths = [path for path in sorted(folder.rglob("*.ipynb")) if has_answers(path.read_bytes())]
    files = [path.relative_to(folder).as_posix() for path in paths]
    warning = "holds solutions or notes for the speaker. Move it away before students get this folder."
    return actions + [Action(name, "kept", f"{name}: {warning}") for name in [*files, *[GUIDE] * guide.exists()]]


def _reset_notebook(path: Path, fresh: _ShippedFile, recorded: Mapping[str, str | None]) -> Action:
    """Restore a notebook as shipped; an edited one is kept beside it. Return what was done."""
    renamed = ""
    if path.exists():
        content = path.read_bytes()
        if content != fresh.content and not fresh.is_unedited(content, recorded):
            names = (f"{path.stem}.mine{number if number > 1 else ''}{path.suffix}" for number in count(1))
            mine = next(path.with_name(name) for name in names if not path.with_name(name).exists())
            os.replace(path, mine)
            renamed = f"; yours is now {mine.name}"
    write_file(path, fresh.content)
    return Action(path.name, "reset", f"{path.name}: restored as shipped{renamed}")


def notebook_path(name: str, notebooks: Mapping[str, Traversable]) -> Path:
    """Return the path of one of these notebooks, given its name, or of your own, given its path.

    Raises:
        DgpruneError: neither a file nor a known name.
    """
    own = at_home(name)
    return own if own.suffix == ".ipynb" and own.is_file() else Path(str(notebooks[_file_name(name, notebooks)]))


def _file_name(name: str, notebooks: Mapping[str, Traversable]) -> str:
    full = name if name in notebooks or name.endswith(".ipynb") else f"{name}.ipynb"
    if full not in notebooks:
        raise unknown("notebook", name, [entry.removesuffix(".ipynb") for entry in notebooks])
    return full


def _find_guide() -> dict[str, Traversable]:
    """Return {file name: guide for teachers}, or {} if this installation lacks the guide."""
    files = [folder.joinpath(GUIDE) for folder in notebook_folders()]
    guide = next((file for file in files if file.is_file()), None)
    return {} if guide is None else {GUIDE: guide}


def _source_hash(name: str, content: bytes) -> str | None:
    """Return a hash of what a person writes in a file: `sources_hash` for a notebook, else all content."""
    return sources_hash(content) if name.endswith(".ipynb") else _hash(content)


def _is_origin(folder: Path, notebooks: Mapping[str, Traversable]) -> bool:
    return any(isinstance(path, Path) and path.parent.resolve() == folder.resolve() for path in notebooks.values())


def _read_record(folder: Path) -> Record:
    """Return what was copied to this folder; empty, so that everything counts as edited, if the file is unreadable."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))["laid_out"]
        return {str(name): dict(entry) for name, entry in content.items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
