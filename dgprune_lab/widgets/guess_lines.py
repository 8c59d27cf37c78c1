"""Lines that carry a guess through a chat or a form: `dg-K7Q2-3-M4XPT-R`.

The parts are the question (a hash of its text and options), the number of the option from 1, the person (random, one
per kernel), and a check symbol: the sum of position times value over the symbols before it, modulo 31. As in ISBN-10
the modulus is a prime, so one wrong symbol or two exchanged ones always change it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

# Without 0, 1, I, L and O, which are easily confused.
SYMBOLS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
MOST = 99
"""The largest number of an option: lines have two digits for it."""
_QUESTION, _PERSON = 4, 5
_GAP = r"[\W_]{1,3}"
_LINE = re.compile(
    rf"(?<![0-9A-Z])DG{_GAP}([0-9A-Z]{{{_QUESTION}}}){_GAP}([0-9A-Z]{{1,2}}){_GAP}([0-9A-Z]{{{_PERSON}}}){_GAP}"
    r"([0-9A-Z])(?![0-9A-Z])"
)
# Where a guess begins right behind another one or a word.
_JOINED = re.compile(rf"(?<=[0-9A-Z])(?=DG{_GAP}[0-9A-Z]{{{_QUESTION}}}{_GAP}[0-9A-Z]{{1,2}}{_GAP}[0-9A-Z])")
_DASH = r"[\u2010-\u2015\u2212_-]"
_NEARLY = re.compile(rf"(?<![0-9A-Z])DG{_DASH}(?:[0-9A-Z]+{_DASH}[0-9A-Z]+{_DASH}[0-9A-Z-]+|[0-9A-Z]{{4}}{_DASH}\d+)")


@dataclass(frozen=True, kw_only=True)
class Guess:
    """One line: the question, the number of the option from 1, and the person."""

    question: str
    number: int
    person: str

    def __str__(self) -> str:
        check = _check(self.question, self.number, self.person)
        return f"dg-{self.question}-{self.number}-{self.person}-{check}"


@dataclass(kw_only=True)
class Found:
    """What a text holds: guesses in their order, mistyped lines, and the number of further lines with other text."""

    guesses: list[Guess] = field(default_factory=list)
    mistyped: list[str] = field(default_factory=list)
    other: int = 0


def question_code(question: str, options: Sequence[str]) -> str:
    """Return the four symbols of a question with these options."""
    digest = hashlib.sha256("\x1f".join([question, *options]).encode()).digest()
    return _symbols(int.from_bytes(digest, "big"), _QUESTION)


@cache
def person_code() -> str:
    """Return the five random symbols of the person who uses this kernel; the user's random state is not changed."""
    return _symbols(secrets.randbits(64), _PERSON)


def read_guesses(lines: Iterable[str]) -> Found:
    """Find the guesses in lines of a chat; names, times and quotation marks around them do not matter.

    Two guesses may stand in one line, also without anything between them.
    """
    found = Found()
    for line in lines:
        text = _JOINED.sub(" ", unicodedata.normalize("NFKC", line).upper())
        whole = [*_LINE.finditer(text)]
        rest = _NEARLY.findall(_LINE.sub(" ", text))
        nearly = [words for words in rest if any(map(str.isdigit, words))]
        for match in whole:
            guess = _read(*match.groups())
            if guess is None:
                nearly.append(match[0])
            else:
                found.guesses.append(guess)
        found.mistyped += nearly
        found.other += bool(text.strip()) and not whole and not nearly
    return found


def _read(question: str, number: str, person: str, check: str) -> Guess | None:
    """Return the guess of a line; None if a symbol or the check symbol is wrong."""
    known = set(question + person + check) <= set(SYMBOLS) and number.isascii() and number.isdigit()
    if not known or _check(question, int(number), person) != check:
        return None
    return Guess(question=question, number=int(number), person=person)


def _check(question: str, number: int, person: str) -> str:
    values = [*map(SYMBOLS.index, question), number, *map(SYMBOLS.index, person)]
    return SYMBOLS[sum(place * value for place, value in enumerate(values, start=1)) % len(SYMBOLS)]


def _symbols(value: int, count: int) -> str:
    return "".join(SYMBOLS[value // len(SYMBOLS) ** place % len(SYMBOLS)] for place in range(count))
