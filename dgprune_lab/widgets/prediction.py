"""A widget that asks for a prediction before the measured answer is revealed."""

from __future__ import annotations

import html
from collections.abc import Sequence

import ipywidgets

from ..core import DgpruneError, public, unknown


@public
class Prediction(ipywidgets.VBox):
    """A question with options; a button locks the prediction, which stays in this notebook.

    Attributes:
        question: the question, as plain text.
        options: the answers to choose from.
    """

    def __init__(self, question: str, options: Sequence[str]) -> None:
        if len(options) < 2 or len(set(options)) < len(options):
            raise DgpruneError(f"a prediction needs two or more different options; got {list(options)!r}.")
        self.question, self.options = question, tuple(options)
        self._choices = ipywidgets.RadioButtons(options=list(options), value=None, layout={"width": "max-content"})
        tooltip = "It cannot be changed afterwards"
        self._lock = ipywidgets.Button(description="Lock my prediction", disabled=True, tooltip=tooltip)
        self._text = ipywidgets.HTML()
        self._choices.observe(lambda change: setattr(self._lock, "disabled", change["new"] is None), "value")
        self._lock.on_click(lambda _: self.lock())
        super().__init__([ipywidgets.HTML(f"<b>{html.escape(question)}</b>"), self._choices, self._lock, self._text])

    @property
    def guess(self) -> str | None:
        """The option chosen so far, or None."""
        return self._choices.value

    @guess.setter
    def guess(self, option: str | None) -> None:
        if option is not None and option not in self.options:
            raise unknown("option", option, self.options)
        self._choices.value = option

    @property
    def locked(self) -> bool:
        """Whether the prediction can no longer be changed."""
        return self._choices.disabled

    @property
    def text(self) -> str:
        """The HTML below the options."""
        return self._text.value

    def lock(self) -> None:
        """Lock the prediction; do nothing if there is none, so that Run All is not blocked."""
        if self.guess is not None:
            self._choices.disabled = self._lock.disabled = True
            self._text.value = "Locked."

    def reveal(self, answer: str, *, because: str = "") -> None:
        """Show the measured answer beside the prediction.

        Args:
            answer: one of the options.
            because: the numbers that support the answer.

        Raises:
            DgpruneError: an answer that is not an option.
        """
        if answer not in self.options:
            raise DgpruneError(f"the answer {answer!r} is not an option; options: {', '.join(self.options)}.")
        self._choices.disabled = self._lock.disabled = True
        verdict = "Right." if self.guess == answer else "Measured otherwise."
        prediction = "No prediction." if self.guess is None else f"You predicted: {self.guess}. {verdict}"
        self._text.value = html.escape(f"{prediction} Measured: {answer}. {because}")


@public
def predict(question: str, options: Sequence[str]) -> Prediction:
    """Ask for a prediction before the answer is revealed; it is kept in this notebook only.

    >>> prediction = predict("Which drops first?", ["digits", "digits on photographs"])
    >>> prediction.guess is None
    True
    """
    return Prediction(question, options)
