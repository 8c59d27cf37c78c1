"""The errors and notes of this package."""

from __future__ import annotations

import difflib
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class DgpruneError(ValueError):
    """A wrong argument, file or state: what was wanted, what was got, and what to do next."""


class DgpruneNote(UserWarning):
    """A note about a decision made for the user, such as how the images were split, or a smaller batch."""


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # a file name that is not UTF-8 holds lone surrogates
_NUMBER = re.compile(r"\d+(\.\d+)?")
_thread = threading.local()
_printed: set[str] = set()
_registry: dict[str | tuple[str, type[Warning], int], int] = {}


def note(text: str) -> None:
    """Issue a DgpruneNote, or pass the text to the handler that `collect_notes` set for this thread.

    The warning names the toolkit instead of a line of code. In a notebook, warnings that pass
    Python's filters are printed below the cell, once per text.
    """
    handler = getattr(_thread, "handler", None)
    if handler is not None:
        handler(text)
    elif "ipykernel" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        with warnings.catch_warnings(record=True) as passed:
            _warn(text)
        if passed and text not in _printed:
            _printed.add(text)
            print(f"Note: {text}")
    else:
        _warn(text)


def _warn(text: str) -> None:
    warnings.warn_explicit(DgpruneNote(text), DgpruneNote, "dgprune_lab", 1, "dgprune_lab", _registry)


@contextmanager
def collect_notes(handler: Callable[[str], None] | None) -> Iterator[None]:
    """Within the block, pass notes of this thread to `handler`; with None, issue them as warnings."""
    before = getattr(_thread, "handler", None)
    _thread.handler = handler
    try:
        yield
    finally:
        _thread.handler = before


@contextmanager
def note_once(kinds: set[str] | None = None) -> Iterator[None]:
    """Within the block, issue only the first of notes that differ only in their numbers, for repeated computations.

    Blocks that share one set `kinds` (initially empty) count as one.
    """
    kinds = set() if kinds is None else kinds
    before = getattr(_thread, "handler", None)

    def once(text: str) -> None:
        kind = _NUMBER.sub("#", text)
        if kind not in kinds:
            kinds.add(kind)
            with collect_notes(before):
                note(text)

    with collect_notes(once):
        yield


def unknown(kind: str, name: object, known: Iterable[str]) -> DgpruneError:
    """Return the error for a name that is not on a list, with the nearest known one.

    >>> str(unknown("scorer", "dds", ["dss", "l2"]))
    "unknown scorer 'dds'; known: dss, l2. Did you mean 'dss'?"
    """
    names = list(known)
    return DgpruneError(f"unknown {kind} {name!r}; known: {', '.join(names)}.{did_you_mean(name, names)}")


def checked_name(what: str, name: object) -> str:
    """Return a name; refuse one that is not text, is empty, or holds control or broken characters.

    >>> checked_name("study", "PACS, épreuve 2")
    'PACS, épreuve 2'
    """
    if name == "":
        raise DgpruneError(f"the {what} needs a name; got an empty one.")
    if not isinstance(name, str) or _UNPRINTABLE.search(name):
        raise DgpruneError(f"the name of the {what} must be text without control characters; got {name!r}.")
    return name


def did_you_mean(name: object, known: Iterable[str], *, cutoff: float = 0.5) -> str:
    """Return " Did you mean ...?" with the nearest known name; "" if none is near.

    >>> did_you_mean("acc", ["macs", "accuracy"]), did_you_mean("TAYLOR", ["l1", "taylor"]), did_you_mean("x", ["l1"])
    (" Did you mean 'accuracy'?", " Did you mean 'taylor'?", '')
    """
    text, names = str(name).casefold(), {name.casefold(): name for name in known}
    prefixed = [name for name in names if len(text) > 2 and name.startswith(text)]
    near = prefixed or difflib.get_close_matches(text, names, n=1, cutoff=cutoff)
    return f" Did you mean {names[near[0]]!r}?" if near else ""
