"""A widget that asks for a guess before the measured answer is shown."""

from __future__ import annotations

import html
import reprlib
from collections.abc import Sequence
from typing import Any

import altair as alt
import traitlets

from ..charts import present_theme, svg
from ..core import DgpruneError, public, unknown
from .guess_lines import MAX_OPTIONS, Guess, person_code, question_code
from .page import static as assets
from .page.comm import CommWidget
from .page.vega import vega_host


@public
class Prediction(CommWidget):
    """A question with options: choose one, lock it, then compare it with the measured answer.

    All cells that show a prediction share its state. Nothing leaves the notebook.

    Attributes:
        question: the question, as plain text.
        options: the answers to choose from.
    """

    _esm = assets.module("prediction")
    _css = assets.style("prediction")

    static = traitlets.Dict().tag(sync=True)
    chosen = traitlets.Int(None, allow_none=True).tag(sync=True)
    locked = traitlets.Bool(False).tag(sync=True)
    shown = traitlets.Bool(False).tag(sync=True)
    answer = traitlets.Dict().tag(sync=True)

    def __init__(self, question: str, options: Sequence[str]) -> None:
        if not question.strip():
            raise DgpruneError("question must not be empty; write what is to be guessed.")
        if not (2 <= len(set(options)) == len(options) <= MAX_OPTIONS and all(map(str.strip, options))):
            raise DgpruneError(
                f"options must be two or more different texts, at most {MAX_OPTIONS}, none of them empty; got "
                f"{reprlib.repr(list(options))}."
            )
        self.question, self.options = question, tuple(options)
        self._charts: tuple[alt.TopLevelMixin, ...] = ()
        self._locked_choice: tuple[int | None] | None = None
        code, person = question_code(question, options), person_code()
        numbers = range(1, len(options) + 1)
        lines = [str(Guess(question=code, number=number, person=person)) for number in numbers]
        super().__init__(
            static={"question": question, "options": list(options), "lines": lines, "theme": present_theme()}
        )

    @property
    def guess(self) -> str | None:
        """The option chosen so far, or None."""
        return None if self.chosen is None else self.options[self.chosen]

    @guess.setter
    def guess(self, option: str | None) -> None:
        if option is not None and option not in self.options:
            raise unknown("option", option, self.options)
        if self.locked:
            raise DgpruneError("guess: this prediction is locked; make a new one with dg.predict(question, options).")
        self.chosen = None if option is None else self.options.index(option)

    @property
    def text(self) -> str:
        """The sentence below the options: "", "Locked.", or the guess and the measured answer."""
        if self.shown and self.answer:
            return self.answer["words"][-1 if self.chosen is None else self.chosen]
        return "Locked." if self.locked else ""

    @property
    def line(self) -> str | None:
        """The line, without a name, to send a guess to `dg.tally` through a chat or a form; None until it is locked."""
        return self.static["lines"][self.chosen] if self.locked and self.chosen is not None else None

    def lock(self) -> None:
        """Lock the guess; do nothing if none is chosen, so that Run All is not blocked."""
        self.locked = self.locked or self.chosen is not None

    def reveal(
        self,
        answer: str,
        *,
        because: str = "",
        chart: alt.TopLevelMixin | Sequence[alt.TopLevelMixin] = (),
        wait: bool = False,
    ) -> None:
        """Lock the prediction and show the measured answer beside it.

        Args:
            answer: one of the options.
            because: the numbers that support the answer.
            chart: charts that appear with the answer.
            wait: show the answer only after the button "Show the answer" is pressed; until then the prediction stays
                open. Once it has been pressed, the answer of any later call appears at once.

        Raises:
            DgpruneError: `answer` is not an option.
        """
        if answer not in self.options:
            raise DgpruneError(f"the answer {answer!r} is not an option; options: {', '.join(self.options)}.")
        self._charts = (chart,) if isinstance(chart, alt.TopLevelMixin) else tuple(chart)
        place, measured = self.options.index(answer), f"Measured: {answer}. {because}".strip()
        texts = [f"You guessed: {option}. Measured otherwise. {measured}" for option in self.options]
        texts[place] = f"You guessed: {answer}. Right. {measured}"
        specs = [each.to_dict() for each in self._charts]
        answered = {"place": place, "words": [*texts, f"No guess. {measured}"], "charts": specs, "measured": measured}
        with self.hold_sync():
            self.answer = {**answered, "host": vega_host().ref if specs else None}
            if not wait:
                self.locked = self.shown = True

    @traitlets.validate("chosen")
    def _validate_choice(self, proposal: dict[str, Any]) -> int | None:
        """Return the index of the proposed option, None if there is no such option; once locked, the locked index."""
        if self._locked_choice is not None:
            return self._locked_choice[0]
        place = proposal["value"]
        return place if place is not None and 0 <= place < len(self.options) else None

    @traitlets.observe("locked", "shown")
    def _fix_choice(self, _: Any) -> None:
        """Fix the choice on locking; a page may send a choice along with the lock, but cannot change it later."""
        if self.locked or self.shown or self._locked_choice is not None:
            self._locked_choice = self._locked_choice or (self.chosen,)
            self.locked = True

    def __repr__(self) -> str:
        lines = [self.question, *(f"  {number}. {option}" for number, option in enumerate(self.options, start=1))]
        return "\n".join([*lines, self.text] if self.text else lines)

    def still(self) -> str:
        """Return the question, the options and the collapsed answer (HTML)."""
        options = "".join(f"<li>{html.escape(option)}</li>" for option in self.options)
        header = f"<p><strong>{html.escape(self.question)}</strong></p><ol>{options}</ol>"
        if not self.answer:
            return f"<div>{header}<p>Choose before you read on.</p></div>"
        answer = f"<p>{html.escape(self.answer['measured'])}</p>{''.join(map(svg, self._charts))}"
        return f"<div>{header}<details><summary>Show the answer</summary>{answer}</details></div>"


@public
def predict(question: str, options: Sequence[str]) -> Prediction:
    """Ask for a guess before the answer is shown; the guess stays in this notebook.

    >>> guess = predict("Which drops first?", ["digits", "digits on photographs"])
    >>> guess.guess is None
    True
    >>> guess.reveal("digits", because="98 to 80 %.", wait=True)
    >>> guess.text
    ''
    """
    return Prediction(question, options)
