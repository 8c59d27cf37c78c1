"""Files: write checks before long work, atomic writes, and JSON cards that record the version that wrote them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from .errors import DgpruneError
from .kinds import Place, Refused

FORMATS: Mapping[str, int] = {"network": 3, "mask": 2, "run": 2, "zoo": 2, "session": 2, "experiment": 1, "table": 1}
"""Format number of each kind of saved file."""


def at_home(path: str | Path, *, argument: str = "a path") -> Path:
    """Return a path in which "~" is replaced by the home directory.

    Raises:
        DgpruneError: it begins with the home directory of an unknown user, or no file can have this name.
    """
    try:
        return Place().take(path).expanduser()
    except Refused as refused:
        raise DgpruneError(f"{argument} must {refused.must}; got {str(path)[:60]!r}. Choose another name.") from None
    except RuntimeError as error:
        name = Path(path).parts[0]
        raise DgpruneError(f"{path}: this machine has no home directory {name!r}; write the full path.") from error


def check_writable_file(path: str | Path, *, argument: str) -> Path:
    """Check that a file can be written, and return its path; nothing is left behind, and no folder is made.

    Raises:
        DgpruneError: the path of a folder, or no file can be written there; `argument` begins the message.
    """
    path = at_home(path, argument=argument)
    if path.is_dir():
        raise DgpruneError(f"{argument} must name a file, and {path} is a folder; name a file in it.")
    _check_writable(path.parent, argument=argument)
    return path


def check_writable_folder(path: str | Path, *, argument: str) -> Path:
    """Check that a folder exists or can be made, and that files can be written in it; return its path.

    Raises:
        DgpruneError: the path of a file, or no file can be written there; `argument` begins the message.
    """
    path = at_home(path, argument=argument)
    if path.exists() and not path.is_dir():
        raise DgpruneError(f"{argument} must be a folder, and {path} is a file; name a folder.")
    _check_writable(path, argument=argument)
    return path


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Within the block, turn an OSError, such as from a full disk, into a DgpruneError about the path.

    Raises:
        DgpruneError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise DgpruneError(f"{path} cannot be written: {why}. Free space, or name another place.") from error


def _check_writable(folder: Path, *, argument: str) -> None:
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise DgpruneError(f"{argument} must lie in a folder, and {nearest} is a file; name another place.")
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise DgpruneError(
            f"{argument}: nothing can be written in {nearest} ({error.strerror or error}); name another folder."
        ) from error


def write_file(path: Path, content: str | bytes) -> Path:
    """Write a file atomically: a reader finds, and an interruption leaves, either the old or the complete new file.

    Missing folders are made. The content goes to a temporary file in the same folder, which is then renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def notebook_folders() -> tuple[Traversable, Traversable]:
    """Return the folders of the notebooks in an installed wheel and in a source checkout; one of them exists."""
    package = files("dgprune_lab")
    return package.joinpath("notebooks"), package.joinpath("..", "notebooks")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` when the block ends.

    An error or an interruption leaves the old folder intact. The two renames at the end are not atomic: a process that
    is killed between them leaves the old folder as .NAME.before; `settled_folder` renames it back.
    """
    new, before = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "before"))
    settled_folder(folder)
    shutil.rmtree(new, ignore_errors=True)  # left by a killed process
    new.mkdir(parents=True)
    try:
        yield new
        if folder.exists():
            os.rename(folder, before)
        try:
            os.rename(new, folder)
        except OSError:
            settled_folder(folder)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(before, ignore_errors=True)


def settled_folder(folder: Path) -> Path:
    """Return a folder that `whole_folder` writes, after completing or undoing an interrupted replacement."""
    before = folder.with_name(f".{folder.name}.before")
    if before.is_dir():
        if folder.exists():
            shutil.rmtree(before, ignore_errors=True)
        else:
            os.rename(before, folder)
    return folder


def card_text(values: Mapping[str, Any], *, kind: str) -> str:
    """Return a JSON card: the values, its kind (in `FORMATS`), the format and the versions that wrote it.

    Each field is on one line, for human readers; `json` with an indent is several times slower.

    Raises:
        DgpruneError: values that JSON cannot hold.
    """
    try:
        card = {"kind": kind, "format": FORMATS[kind], "versions": versions(), **values}
        texts = {name: json.dumps(value, allow_nan=False, default=_to_python) for name, value in card.items()}
        return "{\n" + ",\n".join(f' "{name}": {text}' for name, text in texts.items()) + "\n}\n"
    except (TypeError, ValueError) as error:
        raise DgpruneError(f"the card cannot be written as JSON ({error}); use plain values.") from error


@cache
def code_key() -> str:
    """Return a hash of the package's Python files: two machines with the same key run the same code."""
    folder, digest = Path(__file__).parents[1], hashlib.blake2b(digest_size=12)
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _to_python(value: Any) -> Any:
    """Return a numpy number as a Python number; refuse anything else."""
    return value.item() if isinstance(value, np.generic) else json.JSONEncoder().default(value)


def read_card(path: Path, *, kind: str) -> dict[str, Any]:
    """Read a file with a card that `card_text` made, and return the card's values; see `parse_card`."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DgpruneError(f"{path} cannot be read: {error.strerror or error}.") from error
    return parse_card(text, name=path.name, kind=kind)


def parse_card(text: str | bytes, *, name: str, kind: str) -> dict[str, Any]:
    """Parse a card, the JSON text that describes a saved object, and return its fields; errors begin with `name`.

    Raises:
        DgpruneError: text that is not JSON, another kind of card, a card of another format.
    """
    card = parse_json(text, name=name)
    if not ("builder" in card or str(card.get("form")).startswith("dgprune_lab") or card.get("kind") == kind):
        raise DgpruneError(f"{name} is not the card of a {kind} that dgprune_lab saved.")
    check_format(card, name=name, kind=kind)
    return card


def parse_json(text: str | bytes, *, name: str) -> dict[str, Any]:
    """Return the dictionary that a JSON text holds, or {} if it holds anything else; `name` begins the error message.

    Raises:
        DgpruneError: the text is not JSON, or nested too deeply.
    """
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise DgpruneError(f"{name} is not JSON ({why}); save it again.") from None
    return value if isinstance(value, dict) else {}


def check_format(card: Mapping[str, Any], *, name: str, kind: str) -> None:
    """Refuse a card whose format this version cannot read; the message begins with `name`.

    Raises:
        DgpruneError: the format differs; the message says which version wrote the card, and what to do.
    """
    number, versions, known = card.get("format", 1), card.get("versions"), FORMATS[kind]
    if number != known:
        writer = versions.get("dgprune-lab", "0.1.0") if isinstance(versions, Mapping) else "0.1.0"
        newer = isinstance(number, int) and number > known
        advice = "Update dgprune-lab, or save it in the older format with" if newer else "Load it with"
        raise DgpruneError(
            f"{name} has format {number}, written by dgprune-lab {writer}; this version reads format {known}. {advice} "
            f"the version that wrote it{'.' if newer else ', and save it again with this one.'}"
        )


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python, this package and torch."""
    installed = {"python": platform.python_version()}
    for package in ("dgprune-lab", "torch"):
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "not installed"
    return installed
