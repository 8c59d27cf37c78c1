"""The panel "Scorer agreement": how far the other scorers agree with the current one, compared with chance."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any

from ...charts.agreement import METRICS, dot_chart, dots, waiting
from ...charts.theme import marked, with_minus
from ...charts.training import COUNTED
from ...core import DgpruneError, Scores, collect_notes, tidy
from ...diagnostics.agreement import EXTRA, pair_rows
from ...diagnostics.stability import halves
from ...pruning import allocate
from ...scorers import Scorer
from ...stats import ALL, correlations
from .menu_scores import MenuScores, label, name_of, plain_label, reads_target
from .protocol import Frames, Item, Panel, Rows, Specs, View

_SCOPES = {"layer": "per layer", "global": "global"}


class AgreementPanel(Panel):
    """Overlap and rank correlation of every other scorer with the current one, following the slider.

    Scorers that read only weights are shown at once; those that need a pass over images follow one by one; those that
    cannot run are left out, and the reason is given. The last result is the agreement of the current scorer with itself
    on two halves of its images.
    """

    name, label = "agreement", "Scorer agreement"
    charts: Any = Specs({"agreement": dot_chart})

    def __init__(self) -> None:
        self._content: str | None = None
        self._scores = MenuScores()
        self._reliability: dict[str, tuple[Item, str]] = {}

    def tick(self, view: View) -> Frames:
        """Return a frame with the scorers that are cached or need no pass over images."""
        with view.study.assume_unchanged():
            if self._content != view.study.content:
                self._content, self._scores, self._reliability = view.study.content, MenuScores(), {}
            self._scores.add_quick(view.study, view.scorers)
            return self._frame(view)

    def background(self, view: View) -> Iterator[Frames]:
        """Yield frames with the other scorers, one at a time; then the reliability of the current scorer."""
        for item in view.scorers:
            if self._scores.add(view.study, item):
                yield self._frame(view)
        item = view.scorer
        if isinstance(item, Scorer) and item.reads and self._reliability.get(item.name, (None,))[0] is not item:
            sentence = yield from self._measure_reliability(view, item)
            self._reliability[item.name] = item, sentence
            yield self._frame(view)

    def _measure_reliability(self, view: View, item: Scorer) -> Generator[Frames, None, str]:
        """Correlate a scorer's scores from two halves of the images it may read; return the result as text."""
        values = []
        with collect_notes(lambda _: None):  # its notes on all images were shown already
            try:
                for seed in (0, 1):
                    scores = []
                    for half in halves(view.study, seed=seed):
                        scores.append(half.score(item).values)
                        yield self._frame(view)
                    values.append(correlations(*scores, scope=view.mask.scope)[ALL])
            except DgpruneError as error:
                return f"The agreement of this scorer with itself on other images cannot be measured: {error}"
        numbers = " and ".join(with_minus(f"{value:.2f}") for value in values)
        return f"With itself, on two halves of the images it reads: rank correlation {numbers} (two random splits)."

    def _frame(self, view: View) -> Frames:
        current = view.study.score(view.scorer)
        others = {name: item for item in view.scorers if (name := name_of(item)) != name_of(view.scorer)}
        cached = {name: self._scores.get(item) for name, item in others.items()}
        scored = {name: scores for name, scores in cached.items() if isinstance(scores, Scores)}
        table = tidy((row for scores in scored.values() for row in _pair_rows(view, current, scores)), extra=EXTRA)
        labels = {name: plain_label(item) for name, item in others.items()}
        names = [name for name in others if not isinstance(cached[name], str)]
        base = {name: waiting(marked(labels[name], reads_target(others[name], view.study)), text="…") for name in names}
        data: dict[str, Rows] = {}
        for kind, metric in METRICS.items():
            measured = dict(zip(scored, dots(table, scorer=current.scorer, metric=metric, labels=labels), strict=True))
            data[kind] = [{**base[name], **measured.get(name, {}), "place": place} for place, name in enumerate(names)]
        return {"agreement": data, "text": self._text(view, others)}

    def _text(self, view: View, others: Mapping[str, Item]) -> str:
        mask, present = view.mask, label(view.study, view.scorer)
        share = f"{100 * mask.ratio_requested:.4g} % of the {COUNTED[mask.budget]} removed, {_SCOPES[mask.scope]}"
        lines = [f"Compared with “{present}”, {share}. Grey: agreement of unrelated scores (95 %)."]
        if view.images is not None:
            lines.append("Scores are from all images of their split, also where accuracies are from fewer.")
        item, sentence = self._reliability.get(name_of(view.scorer), (None, ""))
        if sentence and item is view.scorer:
            lines.append(sentence)
        reasons = {plain_label(other): self._scores.get(other) for other in others.values()}
        left_out = "; ".join(f"{name}: {why.rstrip('.')}" for name, why in reasons.items() if isinstance(why, str))
        if left_out:
            lines.append(f"Left out, as they cannot run here: {left_out}.")
        lines += [f"{plain_label(other)}: {text}" for other in view.scorers for text in self._scores.notes(other)]
        return "\n".join(lines)


def _pair_rows(view: View, current: Scores, other: Scores) -> Rows:
    """Return `diagnostics.agreement` rows for a pair of scorers and the whole network, at the current mask's ratio."""
    mask = view.mask
    other_mask = allocate(other, ratio=mask.ratio_requested, scope=mask.scope, budget=mask.budget)
    return [row for row in pair_rows(view.study, (current, other), masks=(mask, other_mask)) if row["group"] == ALL]
