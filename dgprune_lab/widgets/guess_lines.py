"""Lines that carry a guess through a chat or a form: `dg-K7Q2-3-M4XPT-R`.

The parts are a code of the question (a hash of its text and options), the number of the option (from 1), a code of the
person (random, one per kernel), and a check symbol: the sum of position times value over the symbols before it, modulo
31. As in ISBN-10, the modulus is prime, so one wrong symbol or two exchanged symbols always change the sum.
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
MAX_OPTIONS = 99
"""The largest option number; a line has room for two digits."""
_QUESTION, _PERSON = 4, 5
_GAP = r"[\W_]{1,3}"
_LINE = re.compile(
    rf"(?<![0-9A-Z])DG{_GAP}([0-9A-Z]{{{_QUESTION}}}){_GAP}([0-9A-Z]{{1,2}}){_GAP}([0-9A-Z]{{{_PERSON}}}){_GAP}"
    r"([0-9A-Z])(?![0-9A-Z])"
)
# Start of a guess directly behind another guess or a word.
_JOINED = re.compile(rf"(?<=[0-9A-Z])(?=DG{_GAP}[0-9A-Z]{{{_QUESTION}}}{_GAP}[0-9A-Z]{{1,2}}{_GAP}[0-9A-Z])")
_DASH = r"[\u2010-\u2015\u2212_-]"
_MISTYPED = re.compile(rf"(?<![0-9A-Z])DG{_DASH}(?:[0-9A-Z]+{_DASH}[0-9A-Z]+{_DASH}[0-9A-Z-]+|[0-9A-Z]{{4}}{_DASH}\d+)")


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A guess: code of the question, number of the option (from 1), code of the person."""

    question: str
    number: int
    person: str

    def __str__(self) -> str:
        check = _check_symbol(self.question, self.number, self.person)
        return f"dg-{self.question}-{self.number}-{self.person}-{check}"


@dataclass(kw_only=True)
class ParsedLines:
    """Guesses in the order read, mistyped guesses, and the number of lines that hold only other text."""

    guesses: list[Guess] = field(default_factory=list)
    mistyped: list[str] = field(default_factory=list)
    other: int = 0


def question_code(question: str, options: Sequence[str]) -> str:
    """Return the four symbols that identify a question with these options."""
    digest = hashlib.sha256("\x1f".join([question, *options]).encode()).digest()
    return _symbols(int.from_bytes(digest, "big"), _QUESTION)


@cache
def person_code() -> str:
    """Return five random symbols for the user of this kernel, without changing the user's random state."""
    return _symbols(secrets.randbits(64), _PERSON)


def read_guesses(lines: Iterable[str]) -> ParsedLines:
    """Find the guesses in the lines of a chat, ignoring names, times and quotation marks around them.

    A line may hold several guesses, even without a separator.
    """
    parsed = ParsedLines()
    for line in lines:
        text = _JOINED.sub(" ", unicodedata.normalize("NFKC", line).upper())
        matches = [*_LINE.finditer(text)]
        rest = _MISTYPED.findall(_LINE.sub(" ", text))
        mistyped = [candidate for candidate in rest if any(map(str.isdigit, candidate))]
        for match in matches:
            guess = _parse_guess(*match.groups())
            if guess is None:
                mistyped.append(match[0])
            else:
                parsed.guesses.append(guess)
        parsed.mistyped += mistyped
        parsed.other += bool(text.strip()) and not matches and not mistyped
    return parsed


def _parse_guess(question: str, number: str, person: str, check: str) -> Guess | None:
    """Return the guess with these parts; None if a symbol is invalid or the check symbol is wrong."""
    valid = set(question + person + check) <= set(SYMBOLS) and number.isascii() and number.isdigit()
    if not valid or _check_symbol(question, int(number), person) != check:
        return None
    return Guess(question=question, number=int(number), person=person)


def _check_symbol(question: str, number: int, person: str) -> str:
    values = [*map(SYMBOLS.index, question), number, *map(SYMBOLS.index, person)]
    return SYMBOLS[sum(place * value for place, value in enumerate(values, start=1)) % len(SYMBOLS)]


def _symbols(value: int, count: int) -> str:
    return "".join(SYMBOLS[value // len(SYMBOLS) ** place % len(SYMBOLS)] for place in range(count))
