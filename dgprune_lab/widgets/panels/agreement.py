"""The panel "Do the choices agree?": how far the other scorers agree with the present choice, against chance."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any

from ...charts.agreement import METRICS, dot_chart, dots, waiting
from ...charts.theme import marked
from ...core import DgpruneError, Mask, Scores, noted, tidy
from ...diagnostics.agreement import EXTRA, pair_rows
from ...diagnostics.stability import halves
from ...pruning import allocate
from ...scorers import Scorer
from ...stats import ALL, correlations
from ...study import Study
from .labels import label
from .protocol import Frames, View

_SCOPES = {"layer": "the same share in every layer", "global": "the weakest anywhere"}
_COUNTS = {"filters": "the filters", "parameters": "the weights", "macs": "the computation"}


class AgreementPanel:
    """Each other scorer's overlap and rank correlation with the present choice, following the slider.

    Scorers of weights are there at once, those that need a pass over images one by one; what cannot run here is left
    out, with the reason in words. Last comes whether the present choice agrees with itself on halves of its images.
    """

    name, label = "agreement", "Do the choices agree?"

    def __init__(self) -> None:
        self.charts: Mapping[str, dict[str, Any]] = {"agreement": dot_chart().to_dict()}
        self.selected: Any = None
        self._content: str | None = None
        self._found: dict[str, tuple[Scorer | Scores, Scores | str]] = {}  # a string says why there are none
        self._notes: dict[str, list[str]] = {}
        self._itself: dict[str, tuple[Scorer | Scores, str]] = {}

    def unavailable(self, study: Study) -> str | None:
        """Never: there is always another scorer."""
        return None

    def tick(self, view: View) -> Frames:
        """What is known already, and what takes no pass over images."""
        with view.study.held():
            if self._content != view.study.content:
                self._content, self._found, self._notes, self._itself = view.study.content, {}, {}, {}
            for name in self._missing(view):
                if is_quick(view.menu[name]):
                    self._find(view, name)
            return self._frames(view)

    def background(self, view: View) -> Iterator[Frames]:
        """The other scorers, one at a time; then whether the present choice agrees with itself."""
        for name in self._missing(view):
            self._find(view, name)
            yield self._frames(view)
        item = view.menu[view.mask.scorer]
        if isinstance(item, Scorer) and item.reads and self._itself.get(item.name, (None,))[0] is not item:
            words = yield from self._with_itself(view, item)
            self._itself[item.name] = item, words
            yield self._frames(view)

    def _with_itself(self, view: View, item: Scorer) -> Generator[Frames, None, str]:
        """How far a scorer agrees with itself over halves of the images it may read, in words."""
        found = []
        with noted(lambda _: None):  # said already, of all images
            try:
                for draw in (0, 1):
                    scores = []
                    for half in halves(view.study, seed=draw):
                        scores.append(half.score(item).values)
                        yield self._frames(view)
                    found.append(correlations(*scores, scope=view.mask.scope)[ALL])
            except DgpruneError as error:
                return f"Whether this choice agrees with itself on other images cannot be told: {error}"
        numbers = " and ".join(f"{value:.2f}" for value in found).replace("-", "\N{MINUS SIGN}")
        return (
            f"With itself, on one half of the images it reads and on the other: rank correlation {numbers} (two cuts)."
        )

    def _missing(self, view: View) -> list[str]:
        """Scorers of the menu that are not known, or not as they are now."""
        return [name for name, item in view.menu.items() if self._found.get(name, (None,))[0] is not item]

    def _find(self, view: View, name: str) -> None:
        """Scores of one scorer, or the reason why there are none; what it says aloud stands in this panel."""
        item, said = view.menu[name], []
        with noted(said.append):
            try:
                why = view.study.unavailable(item) if isinstance(item, Scorer) else None
                found = why or view.study.score(item)
            except Exception as error:  # a user's own scorer may raise anything; the others are still worth showing
                found = str(error) if isinstance(error, DgpruneError) else f"{type(error).__name__}: {error}"
        self._found[name], self._notes[name] = (item, found), said

    def _frames(self, view: View) -> Frames:
        """Rows of both charts, and the words above them."""
        mine = view.study.score(view.menu[view.mask.scorer])
        others = {name: item for name, item in view.menu.items() if name != view.mask.scorer}
        held = {name: self._found[name][1] for name in others if name in self._found}
        known = {name: scores for name, scores in held.items() if isinstance(scores, Scores)}
        frame = tidy((row for scores in known.values() for row in _rows(view, mine, scores)), extra=EXTRA)
        words = {name: _words(item) for name, item in others.items()}
        shown = [name for name in others if not isinstance(held.get(name), str)]
        data = {}
        for kind, metric in METRICS.items():
            ready = dict(zip(known, dots(frame, scorer=mine.scorer, metric=metric, words=words), strict=True))
            later = {name: waiting(marked(words[name], _looks(view, others[name])), text="…") for name in shown}
            data[kind] = [{**later[name], **ready.get(name, {}), "place": k} for k, name in enumerate(shown)]
        text = self._text(view, {name: why for name, why in held.items() if isinstance(why, str)})
        return {"agreement": data, "text": text}

    def _text(self, view: View, left_out: Mapping[str, str]) -> str:
        """What the others are compared with, who is left out and why, and what the scorers said."""
        mask, present = view.mask, label(view.study, view.menu[view.mask.scorer])
        share = f"{100 * mask.ratio_requested:.4g} % of {_COUNTS[mask.budget]} removed, {_SCOPES[mask.scope]}"
        lines = [f"Compared with “{present}”, {share}. Grey is what unrelated choices give (95 %)."]
        item, itself = self._itself.get(mask.scorer, (None, ""))
        if itself and item is view.menu[mask.scorer]:
            lines.append(itself)
        if left_out:
            listed = "; ".join(f"{_words(view.menu[name])}: {why.rstrip('.')}" for name, why in left_out.items())
            lines.append(f"Left out, as they cannot run here: {listed}.")
        lines += [
            f"{_words(view.menu[n])}: {text}" for n, said in self._notes.items() if n in view.menu for text in said
        ]
        return "\n".join(lines)


def _rows(view: View, mine: Scores, other: Scores) -> list[dict[str, Any]]:
    """The diagnostic's rows of the whole network for one pair, at the mask's own ratio."""
    mask: Mask = view.mask
    theirs = allocate(other, ratio=mask.ratio_requested, scope=mask.scope, budget=mask.budget)
    return [row for row in pair_rows(view.study, (mine, other), masks=(mask, theirs)) if row["group"] == ALL]


def is_quick(item: Scorer | Scores) -> bool:
    """Whether it takes no pass over images."""
    return isinstance(item, Scores) or (not item.reads and set(item.needs) <= {"weights"})


def _words(item: Scorer | Scores) -> str:
    return item.label if isinstance(item, Scorer) else item.scorer


def _looks(view: View, item: Scorer | Scores) -> str:
    """What a scorer will have looked at: the cell `target_aware` before its scores are there."""
    aware = isinstance(item, Scorer) and "target" in item.reads and view.study.targets
    return view.study.targets[0].name if aware else "none"
