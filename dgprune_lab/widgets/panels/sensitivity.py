"""The panel "Domain-sensitive filters": a map of all filters, and the card of the picked filter."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, get_args

from ...charts.drop import span_rows
from ...charts.sensitivity import map_chart
from ...charts.sensitivity.card import facts_chart, pictures_chart, ranks_chart
from ...charts.sensitivity.map import MEANING, METHODS, removed_rows
from ...charts.theme import shortened
from ...core import batchnorm_words, yielding
from ...diagnostics._removal import Removal
from ...measurement import TOGETHER, Method
from ...study import Study, batchnorm_cell
from . import filter_card
from .domain_pairs import pairs, why_none
from .menu_scores import is_quick
from .protocol import Frames, Panel, Row, Rows, Specs, View
from .sensitivity_state import Cell, Key, SensitivityMap, SensitivityState

_COMPUTING = "Computing how much each filter contributes"
_ROOM = 2 * "\n\N{NO-BREAK SPACE}"  # for the lines below, so that the layout does not shift


class SensitivityPanel(Panel):
    """How differently each filter contributes on two domains; filters that the current mask removes are marked.

    `selected["group"]` and `selected["filter"]` are the picked filter (by default the most sensitive one),
    `selected["method"]` is the attribution method, `selected["between"]` the two domains.

    Attributes:
        state: the cached results.
    """

    name, label, takes_filters = "sensitivity", "Domain-sensitive filters", True
    charts: Any = Specs(
        {"sensitivity": map_chart, "pictures": pictures_chart, "facts": facts_chart, "ranks": ranks_chart}
    )

    def __init__(self) -> None:
        self.state = SensitivityState()

    def unavailable(self, study: Study) -> str | None:
        """Return why the panel cannot be shown, if no two domains have labels and a class in common."""
        return why_none(study)

    def close(self) -> None:
        """Release the copy of the network."""
        self.state.close()

    def tick(self, view: View) -> Iterator[Frames]:
        """Yield frames: removed filters marked at once, then the map, then the card of the picked filter."""
        study, state = view.study, self.state
        with study.assume_unchanged():
            key, controls = self._choice(study)
            known = state.map(study, key, images=view.images)
            cell = self._picked(study, known)
            layers = state.missing(study, key, cell)
        beside = {"controls": controls, "picked": _as_picked(cell)}
        if layers:
            if known.data is not None:
                yield {**_map_frame(view, known), **beside}
            yield {**beside, "text": f"{_COMPUTING}.{_ROOM}"}
            for done, total in state.attribute(study, key, layers):
                yield {"text": f"{_COMPUTING}: {done} of {total}.{_ROOM}"}
        with study.assume_unchanged():
            cell = self._picked(study, known) or known.top
            assert cell is not None
            state.shown = cell
            text = _text(view, key[0], known)
            frame = {**_map_frame(view, known), **beside, "picked": _as_picked(cell), "text": text}
        if (key, cell) not in state.cards:
            yield frame
            state.card(study, key, cell)
        with study.assume_unchanged():
            for item in view.scorers:
                if is_quick(item):
                    state.scores.add(study, item)
            frame = {**frame, **self._card_frame(view, key, cell)}
        yield frame

    def background(self, view: View) -> Iterator[Frames]:
        """Yield the rest of the card: accuracy without the filter, its mean maps, scorers that need a pass."""
        state, key, cell = self.state, self._choice(view.study)[0], self.state.shown
        if cell is None or (key, cell) not in state.cards:
            return
        card = state.cards[key, cell]
        removal = Removal(batchnorm=view.batchnorm, images=view.images, calibration=view.calibration)
        changes = partial(state.changes, removal=removal)
        for part, measure in ((_changes(view), changes), ("maps", state.mean_maps)):
            if part not in card:
                card[part] = yield from yielding(measure(view.study, key, cell), {})
                yield self._card_frame(view, key, cell)
        for item in view.scorers:
            if state.scores.add(view.study, item):
                yield self._card_frame(view, key, cell)

    def _choice(self, study: Study) -> tuple[Key, Rows]:
        """The chosen method and pair of domains, and the menus to choose others."""
        selected, offered = self.selected or {}, pairs(study)
        methods: tuple[Method, ...] = get_args(Method)
        method: Method = selected["method"] if selected.get("method") in methods else methods[0]
        between = tuple(selected.get("between") or ())
        pair = next((pair for pair in offered if pair == between), offered[0])
        slow = ", one layer at a time"
        by = [[name, words + slow * (name not in TOGETHER)] for name, words in METHODS.items()]
        domains = [[[a, b], f"{shortened(a, most=24)} against {shortened(b, most=24)}"] for a, b in offered]
        return (method, pair), [
            {"name": "method", "label": "Measured by", "value": method, "choices": by},
            {"name": "between", "label": "Compare", "value": list(pair), "choices": domains},
        ]

    def _picked(self, study: Study, known: SensitivityMap) -> Cell | None:
        """The filter that the user picked; the last filter shown while the map is not complete."""
        selected = self.selected or {}
        group, number = selected.get("group"), selected.get("filter")
        if group in study.graph.names and isinstance(number, int) and 0 <= number < study.graph[group].filters:
            return group, number
        return None if known.is_complete(study) else self.state.shown

    def _card_frame(self, view: View, key: Key, cell: Cell) -> Frames:
        """Return the card's rows as far as computed."""
        card = self.state.card(view.study, key, cell)
        maps = card.get("maps", {"pictures": [], "words": []})
        changes = card.get(_changes(view)) or filter_card.waiting_rows(view.study)
        span = span_rows([row for row in changes if row["change"] is not None])
        facts = {name: card[name] for name in ("histogram", "names", "weights", "weight_words")}
        ranks = filter_card.rank_rows(view.study, view.scorers, self.state.scores, layer=cell[0], filter=cell[1])
        return {
            "pictures": {name: card[name] + maps[name] for name in ("pictures", "words")},
            "facts": {**facts, "changes": changes, "span": span},
            "ranks": {"ranks": ranks},
        }


def _changes(view: View) -> str:
    """Name of the card's entry with the accuracy changes under the current BatchNorm setting."""
    return f"changes, {view.batchnorm}, {view.calibration}, {view.images}"


def _as_picked(cell: Cell | None) -> Row:
    return {"group": cell[0], "filter": cell[1]} if cell else {}


def _map_frame(view: View, known: SensitivityMap) -> Row:
    assert known.data is not None
    return {"sensitivity": {**known.data, "removed": removed_rows(known.data["cells"], view.mask)}}


def _text(view: View, method: Method, known: SensitivityMap) -> str:
    """Return a text on what is compared, how, and the limits of the comparison."""
    pale = "" if known.is_complete(view.study) else "Pale: not computed; click a filter there. "
    setting = batchnorm_words([batchnorm_cell(view.study, view.batchnorm)])
    setting = f" ({'; '.join(filter(None, (setting, view.measured)))})"
    return (
        f"How differently each filter contributes, within classes: {known.text[0]}\n"
        f"Measured by Captum: {MEANING[method]}.\n"
        f"{known.text[1]} {pale}A sensitive filter need not do harm: the card shows the accuracy change when it alone "
        f"is removed{setting}."
    )
