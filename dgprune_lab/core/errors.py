"""The one family of errors and notes."""

from __future__ import annotations

import difflib
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class DgpruneError(ValueError):
    """What was wanted, what was got and what to do next, in one sentence or two."""


class DgpruneNote(UserWarning):
    """Something was decided for the user, and is said aloud (a split that was cut, a smaller batch)."""


_NUMBER = re.compile(r"\d+(\.\d+)?")
_here = threading.local()
_printed: set[str] = set()
_registry: dict[str | tuple[str, type[Warning], int], int] = {}


def note(text: str) -> None:
    """Say something aloud: as a DgpruneNote warning, or to whoever hears this thread's notes.

    The warning names the toolkit instead of a line of code: the sentence stands for itself. In a notebook what the
    filters let through is a plain line below the cell, once for each text.
    """
    tell = getattr(_here, "tell", None)
    if tell is not None:
        tell(text)
    elif "ipykernel" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        with warnings.catch_warnings(record=True) as let_through:
            _warn(text)
        if let_through and text not in _printed:
            _printed.add(text)
            print(f"Note: {text}")
    else:
        _warn(text)


def _warn(text: str) -> None:
    warnings.warn_explicit(DgpruneNote(text), DgpruneNote, "dgprune_lab", 1, "dgprune_lab", _registry)


def hear(tell: Callable[[str], None]) -> None:
    """From now on, notes of this thread go to `tell`: a warning in a worker thread would reach nobody."""
    _here.tell = tell


@contextmanager
def noted(tell: Callable[[str], None] | None) -> Iterator[None]:
    """Within it, notes of this thread go to `tell` (None: they are warnings); afterwards where they went before."""
    before = getattr(_here, "tell", None)
    _here.tell = tell
    try:
        yield
    finally:
        _here.tell = before


@contextmanager
def said_once() -> Iterator[None]:
    """Within it a note is passed on once, whatever numbers are in it: for what repeats a computation many times."""
    said: set[str] = set()
    before = getattr(_here, "tell", None)

    def tell(text: str) -> None:
        kind = _NUMBER.sub("#", text)
        if kind not in said:
            said.add(kind)
            with noted(before):
                note(text)

    with noted(tell):
        yield


def unknown(kind: str, name: object, known: Iterable[str]) -> DgpruneError:
    """The error for a name that is not on a list, with the nearest one that is.

    >>> str(unknown("scorer", "dds", ["dss", "l2"]))
    "unknown scorer 'dds'; known: dss, l2. Did you mean 'dss'?"
    """
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return DgpruneError(f"unknown {kind} {name!r}; known: {', '.join(names)}.{hint}")
