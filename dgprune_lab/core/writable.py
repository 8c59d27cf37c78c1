"""Whether files can be written, tried before the work whose result they shall hold."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DgpruneError
from .kinds import Place, Refused


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
        raise DgpruneError(f"{path}: this machine knows no home directory {name!r}; write the whole path.") from error


def check_writable_file(path: str | Path, *, argument: str) -> Path:
    """Return the path of a file that can be written; nothing stays behind, and missing folders are not made yet.

    Raises:
        DgpruneError: a folder, or a folder in which nothing can be written; `argument` begins the sentence.
    """
    path = at_home(path, argument=argument)
    if path.is_dir():
        raise DgpruneError(f"{argument} must name a file, and {path} is a folder; name a file in it.")
    _try(path.parent, argument=argument)
    return path


def check_writable_folder(path: str | Path, *, argument: str) -> Path:
    """Return the path of a folder in which files can be written, or that can be made.

    Raises:
        DgpruneError: a file, or a folder in which nothing can be written; `argument` begins the sentence.
    """
    path = at_home(path, argument=argument)
    if path.exists() and not path.is_dir():
        raise DgpruneError(f"{argument} must be a folder, and {path} is a file; name a folder.")
    _try(path, argument=argument)
    return path


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Turn an error of the system within the block into a sentence about the path: a full disk, say.

    Raises:
        DgpruneError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise DgpruneError(f"{path} cannot be written: {why}. Free space, or name another place.") from error


def _try(folder: Path, *, argument: str) -> None:
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise DgpruneError(f"{argument} must lie in a folder, and {nearest} is a file; name another place.")
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise DgpruneError(
            f"{argument}: nothing can be written in {nearest} ({error.strerror or error}); name another folder."
        ) from error
