"""The glossary in a notebook: one word, or all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, overload

from ...core import public, unknown
from .entry import STYLE, Entry
from .words import entries


class Glossary:
    """All words, in the order in which a lesson needs them; iterating yields the entries."""

    def __init__(self) -> None:
        self._entries = entries()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        entries_html = "".join(entry.html() for entry in self)
        return {"text/html": f'{STYLE}<div class="dg-words">{entries_html}</div>', "text/plain": repr(self)}


@overload
def glossary(word: None = None) -> Glossary: ...
@overload
def glossary(word: str) -> Entry: ...
@public
def glossary(word: str | None = None) -> Entry | Glossary:
    """Explain a word of the field in plain sentences and a picture; without a word, list all.

    Args:
        word: the word, in any case, with spaces, hyphens or underscores.

    Raises:
        DgpruneError: a word that is not in the glossary.

    >>> print(glossary("ratio").formula)
    ratio = removed / all
    >>> [entry.word for entry in glossary()][:3]
    ['domain', 'source', 'target']
    """
    every = Glossary()
    if word is None:
        return every
    for entry in every:
        if _plain(entry.word) == _plain(word):
            return entry
    raise unknown("word", word, [entry.word for entry in every])


def _plain(word: str) -> str:
    return " ".join(word.casefold().replace("-", " ").replace("_", " ").split())
