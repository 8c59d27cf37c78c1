"""The guesses of a class, collected from pasted lines without a server."""

from __future__ import annotations

import codecs
import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import altair as alt
import pandas as pd

from .. import charts
from ..core import DgpruneError, at_home, public
from .guess_lines import MAX_OPTIONS, Guess, ParsedLines, question_code, read_guesses
from .page.chart import LiveChart
from .prediction import Prediction

_MAX_QUOTED = 3
Lines = Annotated[str | os.PathLike | Sequence[str], "the text of a chat, a list of its lines, or the path of a file"]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The number of people who chose each option.

    Attributes:
        question: the question; its code if `guess` was not given.
        table: one row per option: number (from 1), option, guesses, measured.
        words: the result and the lines that were not counted, as sentences.
    """

    question: str
    table: pd.DataFrame
    words: tuple[str, ...]

    @property
    def chart(self) -> alt.LayerChart:
        """The table as bars, with the sentences above them."""
        return charts.tally(self.table, question=self.question, below=self.words)

    @cached_property
    def _live(self) -> LiveChart:
        return LiveChart(self.chart)  # in the colours of the page, light or dark

    def _repr_mimebundle_(self, **_: Any) -> Any:
        data, metadata = self._live._repr_mimebundle_()
        text = "\n".join([self.question, self.table.to_string(index=False), *self.words])
        return {**data, "text/plain": text}, metadata


@public
def tally(lines: Lines, *, guess: Prediction | None = None) -> Tally:
    """Count the guesses that a class pasted into a chat or a form, one `guess.line` per person.

    Every kernel has random symbols in its lines, so two people with the same guess count twice, and a line pasted
    twice counts once. If lines of one person differ, the first counts; a person who restarts the kernel and
    guesses again counts twice. The measured answer is marked only after it is shown in `guess`.

    Args:
        lines: the text of the chat, with anything around the guesses; a list of its lines; or the path of a file.
        guess: the question put to the class, made by the same call of `dg.predict`; None for the question to which most
            lines belong; its options are then named by number.

    Raises:
        DgpruneError: no guess for this question in the lines, or a path without a file; without `guess`, two questions
            with equally many lines.

    >>> from dgprune_lab import predict
    >>> guess = predict("Which drops first?", ["digits", "photographs"])
    >>> guess.guess = "digits"
    >>> guess.lock()
    >>> tally(f"10:02 Ana: {guess.line}", guess=guess).table["guesses"].tolist()
    [1, 0]
    """
    chat = _split_lines(lines)
    parsed = read_guesses(chat)
    own_code = None if guess is None else question_code(guess.question, guess.options)
    codes = Counter(entry.question for entry in parsed.guesses)
    code = own_code or (codes.most_common(1)[0][0] if codes else "")
    if own_code is None and (tied := [name for name, count in codes.items() if count == codes[code]])[1:]:
        raise DgpruneError(
            f"lines: the questions {' and '.join(tied)} have equally many lines; name the question by guess=."
        )
    options = MAX_OPTIONS if guess is None else len(guess.options)
    valid = [entry for entry in parsed.guesses if entry.question == code and 1 <= entry.number <= options]
    if not valid:
        count = f"{len(chat)} line{'s' * (len(chat) != 1)}"
        raise DgpruneError(
            f"lines: wanted lines such as dg-K7Q2-3-M4XPT-R (guess.line) of this question, got none in {count}. "
            f"{_list_left_out(parsed, valid, {}, code=code)} Paste the text of the chat, or give the path of a file."
        )
    first: dict[str, Guess] = {}
    for entry in valid:
        first.setdefault(entry.person, entry)
    rows = _count_options(first, guess)
    question = f"Guesses for question {code}" if guess is None else guess.question
    sentences = tuple(filter(None, (_describe_result(rows), _list_left_out(parsed, valid, first, code=code))))
    return Tally(question=question, table=pd.DataFrame(rows), words=sentences)


def _split_lines(lines: str | os.PathLike | Sequence[str]) -> list[str]:
    """Return the lines of a text, of a list of texts, or of a file."""
    if isinstance(lines, str | os.PathLike):
        text = os.fspath(lines)
        if isinstance(lines, os.PathLike) or ("\n" not in text and not read_guesses([text]).guesses):
            with contextlib.suppress(OSError, ValueError):  # a long text, or one with a zero byte, is not a path
                content = at_home(text).read_bytes()
                wide = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
                return content.decode("utf-16" if wide else "utf-8-sig", errors="replace").splitlines()
            if isinstance(lines, os.PathLike) or _is_file_name(text):
                raise DgpruneError(f"lines: {text} cannot be read; give the path of a text file, or the text itself.")
        return text.splitlines()
    return [part for line in lines for part in line.splitlines()]


def _is_file_name(text: str) -> bool:
    """Return whether a text is one word with the extension of a text file."""
    return not any(map(str.isspace, text)) and text.lower().endswith((".txt", ".csv", ".tsv", ".md", ".log"))


def _count_options(first: dict[str, Guess], guess: Prediction | None) -> list[dict[str, Any]]:
    """Return a row per option with the number of people who chose it."""
    counts = Counter(entry.number for entry in first.values())
    options = [f"option {number}" for number in range(1, max(counts) + 1)] if guess is None else list(guess.options)
    measured = guess.answer["place"] if guess is not None and guess.shown and guess.answer else None
    return [
        {"number": place + 1, "option": option, "guesses": counts[place + 1], "measured": place == measured}
        for place, option in enumerate(options)
    ]


def _describe_result(rows: list[dict[str, Any]]) -> str:
    total = sum(row["guesses"] for row in rows)
    people = f"{total} person" if total == 1 else f"{total} people"
    right = next((row for row in rows if row["measured"]), None)
    if right is None:
        return f"{people} guessed."
    return f"{right['guesses']} of {people} guessed what was measured: {right['option']}."


def _list_left_out(parsed: ParsedLines, valid: list[Guess], first: dict[str, Guess], *, code: str) -> str:
    """Return a sentence on the lines that were not counted; "" if all were counted."""
    changed = sum(entry != first[entry.person] for entry in valid if entry.person in first)
    again, elsewhere = len(valid) - len(first) - changed, sum(entry.question != code for entry in parsed.guesses)
    no_option, mistyped = len(parsed.guesses) - len(valid) - elsewhere, len(parsed.mistyped)
    quoted = ", ".join(parsed.mistyped[:_MAX_QUOTED]) + (", ..." if mistyped > _MAX_QUOTED else "")
    kinds = {
        "pasted again": again,
        "another guess of the same person (the first counts)": changed,
        "of another question": elsewhere,
        "with the number of an option that this question does not have": no_option,
        f"mistyped ({quoted})": mistyped,
        "without a guess": parsed.other,
    }
    parts = [f"{count} {kind}" for kind, count in kinds.items() if count]
    return f"Lines that do not count: {'; '.join(parts)}." if parts else ""
