"""A guess before the reveal."""

from __future__ import annotations

import html
from collections.abc import Sequence

import ipywidgets

from ..core import DgpruneError


class Prediction(ipywidgets.VBox):
    """A question with options; the guess is locked by a button and stays in this notebook.

    Attributes:
        question: the words asked.
        options: the answers to choose from.
    """

    def __init__(self, question: str, options: Sequence[str]) -> None:
        if len(options) < 2 or len(set(options)) < len(options):
            raise DgpruneError(f"a guess needs two or more different options; got {list(options)!r}.")
        self.question, self.options = question, tuple(options)
        self._choices = ipywidgets.RadioButtons(options=list(options), value=None, layout={"width": "max-content"})
        self._lock = ipywidgets.Button(
            description="Lock my guess", disabled=True, tooltip="It cannot be changed afterwards"
        )
        self._words = ipywidgets.HTML()
        self._choices.observe(lambda change: setattr(self._lock, "disabled", change["new"] is None), "value")
        self._lock.on_click(lambda _: self.lock())
        super().__init__([ipywidgets.HTML(f"<b>{html.escape(question)}</b>"), self._choices, self._lock, self._words])

    @property
    def guess(self) -> str | None:
        """The option chosen so far; None where there is none."""
        return self._choices.value

    @property
    def locked(self) -> bool:
        """Whether it can no longer be changed."""
        return self._choices.disabled

    def lock(self) -> None:
        """Fix the guess. Without one nothing happens, so that running all cells is not held up."""
        if self.guess is not None:
            self._choices.disabled = self._lock.disabled = True
            self._words.value = "Locked. Now look."

    def reveal(self, answer: str, *, because: str = "") -> None:
        """Show what was measured beside the guess.

        Args:
            answer: one of the options.
            because: the numbers behind it.

        Raises:
            DgpruneError: an answer that was not an option.
        """
        if answer not in self.options:
            raise DgpruneError(f"the answer {answer!r} was not an option; options: {', '.join(self.options)}.")
        self.lock()
        self._choices.disabled = self._lock.disabled = True
        yours = "You made no guess." if self.guess is None else f"You guessed: {self.guess}."
        verdict = "" if self.guess is None else " Right." if self.guess == answer else " Measured otherwise."
        words = f"{yours}{verdict} Measured: {answer}. {because}"
        self._words.value = html.escape(words)


def predict(question: str, options: Sequence[str]) -> Prediction:
    """Ask for a guess before the reveal; it is kept in this notebook only.

    >>> guess = predict("Which falls first?", ["digits", "digits on photographs"])
    >>> guess.guess is None
    True
    """
    return Prediction(question, options)
