"""The one family of errors and notes."""

from __future__ import annotations

import difflib
import threading
import warnings
from collections.abc import Callable, Iterable


class DgpruneError(ValueError):
    """What was wanted, what was got and what to do next, in one sentence or two."""


class DgpruneNote(UserWarning):
    """Something was decided for the user, and is said aloud (a split that was cut, a smaller batch)."""


_here = threading.local()


def note(text: str, *, stacklevel: int = 2) -> None:
    """Say something aloud: as a DgpruneNote warning, or to whoever hears this thread's notes."""
    tell = getattr(_here, "tell", None)
    if tell is None:
        warnings.warn(DgpruneNote(text), stacklevel=stacklevel + 1)
    else:
        tell(text)


def hear(tell: Callable[[str], None]) -> None:
    """From now on, notes of this thread go to `tell`: a warning in a worker thread would reach nobody."""
    _here.tell = tell


def unknown(kind: str, name: object, known: Iterable[str]) -> DgpruneError:
    """The error for a name that is not on a list, with the nearest one that is.

    >>> str(unknown("scorer", "dds", ["dss", "l2"]))
    "unknown scorer 'dds'; known: dss, l2. Did you mean 'dss'?"
    """
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return DgpruneError(f"unknown {kind} {name!r}; known: {', '.join(names)}.{hint}")
