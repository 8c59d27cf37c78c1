"""The panel "Domain-sensitive filters": a map of all filters, and the card of the picked filter."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, get_args

from ...charts.drop import span_rows
from ...charts.sensitivity import map_chart
from ...charts.sensitivity.card import changes_chart, facts_chart, pictures_chart, ranks_chart
from ...charts.sensitivity.map import MEANING, METHODS, removed_rows
from ...charts.theme import shortened
from ...core import batchnorm_words
from ...measurement import TOGETHER, Method
from ...study import Study, batchnorm_cell
from . import filter_card
from .domains import pairs, why_no_pairs
from .picked import actions, as_picked, to_full, to_step
from .protocol import Cell, Frames, Panel, Row, Rows, Specs, View
from .sensitivity_state import Key, SensitivityMap, SensitivityState

_CARD = ("pictures", "facts", "ranks")
_COMPUTING = "Computing how much each filter contributes"
_BLANK = 2 * "\n\N{NO-BREAK SPACE}"  # two lines for later text, so that the layout does not shift


class SensitivityPanel(Panel):
    """Each filter's contributions on two domains compared; filters that the current mask removes are marked.

    `selected["group"]` and `selected["filter"]` are the picked filter (by default the most sensitive one), numbered as
    in the full network; `selected["cells"]` are several filters, shown with the cost of removing all of them;
    `selected["method"]` is the attribution method, `selected["between"]` the two domains.

    Attributes:
        state: the cached results.
    """

    name, label, takes_filters = "sensitivity", "Domain-sensitive filters", True
    charts: Any = Specs(
        {
            "sensitivity": map_chart,
            "pictures": pictures_chart,
            "facts": facts_chart,
            "ranks": ranks_chart,
            "changes": changes_chart,
        }
    )

    def __init__(self) -> None:
        self.state = SensitivityState()

    def unavailable(self, study: Study) -> str | None:
        """Return why the panel cannot be shown (no two domains have labels and a class in common), or None."""
        return why_no_pairs(study)

    def close(self) -> None:
        """Release the copy of the network."""
        self.state.close()

    def tick(self, view: View) -> Iterator[Frames]:
        """Yield frames: removed filters marked at once, then the map, then the card of the picked filter."""
        study, state = view.study, self.state
        with study.assume_unchanged():
            key, controls = self._chosen_pair(study)
            cached = state.map(study, key, images=view.images)
            cells, cell = self._picked_cells(view), self._picked_cell(view, cached)
            layers = state.missing(study, key, cell)
        picked = cells or ((cell,) if cell else ())
        shared = {"controls": controls, "actions": actions(view, picked), "hidden": _CARD if cells else ["changes"]}
        shared["picked"] = as_picked(view, None if cells else cell)
        if layers:
            if cached.data is not None:
                yield {**_map_frame(view, cached), **shared}
            yield {**shared, "text": f"{_COMPUTING}.{_BLANK}"}
            for done, total in state.attribute(study, key, layers):
                yield {"text": f"{_COMPUTING}: {done} of {total}.{_BLANK}"}
        with study.assume_unchanged():
            frame = {**_map_frame(view, cached), **shared, "text": _text(view, key[0], cached)}
            if not cells:
                cell = cell or cached.top
                assert cell is not None
                frame |= {"actions": actions(view, (cell,)), "picked": as_picked(view, cell)}
        if cells:
            yield {**frame, "changes": _change_data(view, state.results_without(key, cells))}
            return
        assert cell is not None
        state.last_cell = cell
        if (key, cell) not in state.cards:
            yield frame
            state.card(study, key, cell)
        with study.assume_unchanged():
            state.scores.add_quick(study, view.scorers)
            frame = {**frame, **self._card_frame(view, key, cell)}
        yield frame

    def background(self, view: View) -> Iterator[Frames]:
        """Yield the rest of the card: accuracy without the filter, its mean maps, ranks by scorers that need a pass.

        For several filters, yield only the accuracy without all of them.
        """
        state, key, cell = self.state, self._chosen_pair(view.study)[0], self.state.last_cell
        if cells := self._picked_cells(view):
            results = state.results_without(key, cells)
            if _changes_key(view) not in results:
                results[_changes_key(view)] = yield from state.changes(view, key, cells)
            yield {"changes": _change_data(view, results)}
            return
        if cell is None or (key, cell) not in state.cards:
            return
        card = state.cards[key, cell]
        changes = partial(state.changes, view, key, (cell,))
        maps = partial(state.mean_maps, view.study, key, cell)
        for part, measure in ((_changes_key(view), changes), ("maps", maps)):
            if part not in card:
                card[part] = yield from measure()
                yield self._card_frame(view, key, cell)
        for item in view.scorers:
            if state.scores.add(view.study, item):
                yield self._card_frame(view, key, cell)

    def _chosen_pair(self, study: Study) -> tuple[Key, Rows]:
        """Return the chosen method and pair of domains, and the menus to choose others."""
        selected, offered = self.selected or {}, pairs(study)
        methods: tuple[Method, ...] = get_args(Method)
        method: Method = selected["method"] if selected.get("method") in methods else methods[0]
        between = tuple(selected.get("between") or ())
        pair = next((pair for pair in offered if pair == between), offered[0])
        slow = ", one layer at a time"
        by = [[name, label + slow * (name not in TOGETHER)] for name, label in METHODS.items()]
        domains = [[[a, b], f"{shortened(a, most=24)} against {shortened(b, most=24)}"] for a, b in offered]
        return (method, pair), [
            {"name": "method", "label": "Measured by", "value": method, "choices": by},
            {"name": "between", "label": "Compare", "value": list(pair), "choices": domains},
        ]

    def _picked_cell(self, view: View, cached: SensitivityMap) -> Cell | None:
        """Return the filter that the user picked, or else, while the map is incomplete, the last one shown."""
        selected = self.selected or {}
        cell = to_step(view, (selected.get("group"), selected.get("filter")))
        return cell or (None if cached.is_complete(view.study) else self.state.last_cell)

    def _picked_cells(self, view: View) -> tuple[Cell, ...]:
        """Return the filters that the user picked together; () for a single one."""
        cells = [to_step(view, cell) for cell in (self.selected or {}).get("cells") or ()]
        return tuple(cell for cell in cells if cell)

    def _card_frame(self, view: View, key: Key, cell: Cell) -> Frames:
        """Return the card's rows as far as computed."""
        card = self.state.card(view.study, key, cell)
        maps = card.get("maps", {"pictures": [], "words": []})
        facts = {name: card[name] for name in ("histogram", "names", "weights", "weight_words")}
        ranks = filter_card.rank_rows(view.study, view.scorers, self.state.scores, layer=cell[0], filter=cell[1])
        return {
            "pictures": {
                "pictures": card["pictures"] + maps["pictures"],
                "words": [filter_card.heading(_renumbered(view, card["cell"])), *card["words"], *maps["words"]],
            },
            "facts": {**facts, **_change_data(view, card)},
            "ranks": {"ranks": ranks},
        }


def _changes_key(view: View) -> str:
    """Return the key under which results of a filter or set hold the accuracy changes for the current settings."""
    return f"changes, {view.batchnorm}, {view.calibration}, {view.images}"


def _change_data(view: View, results: Row) -> Row:
    """Return the rows of the accuracy changes, "…" before they are measured, and the ends of their axis."""
    rows = results.get(_changes_key(view)) or filter_card.waiting_rows(view.study)
    return {"changes": rows, "span": span_rows([row for row in rows if row["change"] is not None])}


def _map_frame(view: View, cached: SensitivityMap) -> Row:
    assert cached.data is not None
    removed = removed_rows(cached.data["cells"], view.mask)
    cells = [_renumbered(view, cell) for cell in cached.data["cells"]]
    return {"sensitivity": {**cached.data, "cells": cells, "removed": removed}}


def _renumbered(view: View, cell: Row) -> Row:
    """Return a filter's row, renumbered as in the full network."""
    return {**cell, "filter": to_full(view, (cell["group"], cell["filter"]))[1]}


def _text(view: View, method: Method, cached: SensitivityMap) -> str:
    """Return a text on what is compared, how, and the limits of the comparison."""
    pale = "" if cached.is_complete(view.study) else "Pale: not computed; click a filter there. "
    setting = batchnorm_words([batchnorm_cell(view.study, view.batchnorm)])
    step = "" if view.full is None else f"from the network of step {view.choice.get('step')}"
    setting = f" ({'; '.join(filter(None, (step, setting, view.measured)))})"
    return (
        f"How differently each filter contributes, within classes: {cached.text[0]}\n"
        f"Measured by Captum: {MEANING[method]}.\n"
        f"{cached.text[1]} {pale}A sensitive filter need not do harm: the accuracy change is shown when it alone, or "
        f"a set that was picked in B, is removed{setting}."
    )
