"""The panel "Which filters notice": a map of all filters, and the card of the one that is picked."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from ...charts import domain_styles
from ...charts.drop import span_rows
from ...charts.sensitivity import map_chart
from ...charts.sensitivity.card import facts_chart, pictures_chart, ranks_chart
from ...charts.sensitivity.map import MEANING, METHODS, compared, counted, full_colour, map_data, removed_rows
from ...charts.theme import shortened
from ...core import DgpruneError, Scores, noted, tidy, yielding
from ...diagnostics._removal import Removal, case_steps
from ...diagnostics.sensitivity import EXTRA, IMAGES, Attributed, attribution_steps, attributor, effect_rows
from ...measurement import TOGETHER, Attributor, Method
from ...scorers import Scorer
from ...study import Study
from . import filter_card
from .agreement import is_quick
from .domain_pairs import SPLIT, Pair, labelled, pairs, why_none
from .protocol import Frames, View

_CARDS, _MAPS = 24, 6
_ROOM = 2 * "\n\N{NO-BREAK SPACE}"  # for the lines that follow: nothing below jumps

Key = tuple[Method, Pair]
Cell = tuple[str, int]
Rows = list[dict[str, Any]]


@dataclass
class _Known:
    """What is known of one method and pair: per layer the attributions and the rows made of them."""

    held: dict[str, Attributed] = field(default_factory=dict)
    rows: dict[str, Rows] = field(default_factory=dict)
    data: dict[str, Rows] | None = None
    words: tuple[str, str] = "", ""
    most: Cell | None = None


class SensitivityPanel:
    """How differently each filter contributes on two domains; the slider marks which ones it removes.

    `selected["group"]` and `["filter"]` are the picked filter (the one that notices most, if none is), ["method"] how
    contributions are measured, ["between"] the two domains.
    """

    name, label, takes_filters = "sensitivity", "Which filters notice", True

    def __init__(self) -> None:
        self.charts: Mapping[str, dict[str, Any]] = {
            "sensitivity": map_chart().to_dict(),
            "pictures": pictures_chart().to_dict(),
            "facts": facts_chart().to_dict(),
            "ranks": ranks_chart().to_dict(),
        }
        self.selected: Any = None
        self._content: str | None = None
        self._forget()

    def unavailable(self, study: Study) -> str | None:
        """Where there are no two domains with labels and a class in common."""
        return why_none(study)

    def tick(self, view: View) -> Iterator[Frames]:
        """The map, then the card of the picked filter, once each is known; what the slider removes at once."""
        study = view.study
        with study.held():
            key, known, cell, beside = self._start(study)
            layers = self._missing(study, key, cell)
        if layers:
            if known.data is not None:
                yield {**self._map(view, known), **beside}
            yield from self._attribute(view, key, layers, beside)
        with study.held():
            cell = self._picked(study, known) or known.most
            assert cell is not None
            self._last = cell
            picked = {"picked": {"group": cell[0], "filter": cell[1]}}
            shown = {**self._map(view, known), **beside, **picked, "text": self._text(view, key)}
        if (key, cell) not in self._cards:
            yield shown
            self._cards[key, cell] = self._quick(study, key, cell)
            _bounded(self._cards, _CARDS)
        with study.held():
            for name, item in view.menu.items():
                if is_quick(item):
                    self._score(view, name)
            shown = {**shown, **self._card(view, key, cell)}
        yield shown

    def background(self, view: View) -> Iterator[Frames]:
        """The rest of the card: without the filter, its mean maps, and the scorers that take a pass."""
        key, cell = self._choice(view.study)[0], self._last
        card = self._cards.get((key, cell))
        if cell is None or card is None:
            return
        if "changes" not in card:
            card["changes"] = yield from self._without(view, key, cell)
            yield self._card(view, key, cell)
        if "maps" not in card:
            held, maps = self._known[key].held[cell[0]], []
            for domain in held.pair:
                maps.append(filter_card.mean_map_of(view.study, domain, split=SPLIT, layer=cell[0], filter=cell[1]))
                yield {}
            card["maps"] = filter_card.mean_map_rows(maps)
            yield self._card(view, key, cell)
        for name in view.menu:
            if self._score(view, name):
                yield self._card(view, key, cell)

    def close(self) -> None:
        """Let go of the copy of the network."""
        self._by = self._work = None

    def _start(self, study: Study) -> tuple[Key, _Known, Cell | None, dict[str, Any]]:
        """What is asked for, what is known of it, the picked filter, and what stands beside the charts."""
        if self._content != study.content:
            self._content = study.content
            self._forget()
        key, controls = self._choice(study)
        known = self._known[key] = self._known.pop(key, None) or _Known()
        _bounded(self._known, _MAPS)
        cell = self._picked(study, known)
        picked = {"group": cell[0], "filter": cell[1]} if cell else {}
        return key, known, cell, {"controls": controls, "picked": picked}

    def _forget(self) -> None:
        self._by: Attributor | None = None
        self._work: tuple[Any, Generator[tuple[int, int], None, Attributed]] | None = None
        self._known: dict[Key, _Known] = {}
        self._cards: dict[tuple[Key, Cell | None], dict[str, Any]] = {}
        self._scores: dict[str, tuple[Scorer | Scores, Scores | str]] = {}
        self._last: Cell | None = None

    def _choice(self, study: Study) -> tuple[Key, Rows]:
        """Method and pair, and the menus that offer others."""
        held, offered = self.selected or {}, pairs(study)
        methods: tuple[Method, ...] = get_args(Method)
        asked: Any = held.get("method")
        method: Method = asked if asked in methods else methods[0]
        between = tuple(held.get("between") or ())
        pair = next((one for one in offered if one == between), offered[0])
        slow = ", one layer at a time"
        return (method, pair), [
            {
                "name": "method",
                "label": "Measured by",
                "value": method,
                "choices": [[name, words + ("" if name in TOGETHER else slow)] for name, words in METHODS.items()],
            },
            {
                "name": "between",
                "label": "Compare",
                "value": list(pair),
                "choices": [[[a, b], f"{shortened(a, most=24)} against {shortened(b, most=24)}"] for a, b in offered],
            },
        ]

    def _picked(self, study: Study, known: _Known) -> Cell | None:
        """The filter that the user picked, or the last one shown where the map is not complete."""
        held = self.selected or {}
        group, number = held.get("group"), held.get("filter")
        if group in study.graph.names and isinstance(number, int) and 0 <= number < study.graph[group].filters:
            return group, number
        return None if set(known.held) == set(study.graph.names) else self._last

    def _missing(self, study: Study, key: Key, cell: Cell | None) -> list[str]:
        """The layers that must be read now: all at once, or that of the picked filter."""
        names, held = study.graph.names, self._known[key].held
        wanted = names if key[0] in TOGETHER else [cell[0] if cell else names[-1]]
        return [name for name in wanted if name not in held]

    def _attribute(self, view: View, key: Key, layers: list[str], beside: Mapping[str, Any]) -> Iterator[Frames]:
        """Captum at work; where the view changes meanwhile, the next tick goes on from there."""
        study, (method, pair) = view.study, key
        work, words = self._work, "Reading how much each filter contributes"
        if work is None or work[0] != (key, layers):
            by = self._network(study)
            work = (
                (key, layers),
                attribution_steps(study, method=method, between=pair, layers=layers, images=IMAGES, split=SPLIT, by=by),
            )
            self._work = work
        steps = work[1]
        yield {**beside, "text": f"{words}.{_ROOM}"}
        while True:
            try:
                done, total = next(steps)
            except StopIteration as end:
                held: Attributed = end.value
                break
            except Exception:
                self._work = None
                raise
            yield {"text": f"{words}: {done} of {total}.{_ROOM}"}
        self._work, known = None, self._known[key]
        rows = effect_rows(study, held, seed=0)
        for name in layers:
            known.held[name], known.rows[name] = held, [row for row in rows if row["group"] == name]
        frame = tidy((row for name in study.graph.names for row in known.rows.get(name, ())), extra=EXTRA)
        sizes = {group.name: group.filters for group in study.graph.groups}
        known.data, known.words = (
            map_data(frame, layers=sizes),
            (f"{compared(frame)}; {counted(frame)}.", full_colour(frame)),
        )
        known.most = _most_sensitive(known)

    def _network(self, study: Study) -> Attributor:
        if self._by is None:
            self._by = attributor(study)
        return self._by

    def _map(self, view: View, known: _Known) -> dict[str, Any]:
        assert known.data is not None
        return {"sensitivity": {**known.data, "removed": removed_rows(known.data["cells"], view.mask)}}

    def _text(self, view: View, key: Key) -> str:
        """What is compared, how, and what it does not say."""
        known = self._known[key]
        pale = "" if set(known.held) == set(view.study.graph.names) else "Pale: not computed; click a filter there. "
        return (
            f"How differently each filter contributes, within classes: {known.words[0]}\n"
            f"Measured by Captum: {MEANING[key[0]]}.\n"
            f"{known.words[1]} {pale}Noticing need not do harm: the card says what happens if one filter alone goes "
            "(BatchNorm as it is)."
        )

    def _quick(self, study: Study, key: Key, cell: Cell) -> dict[str, Any]:
        """What takes no pass: images, histogram, weights."""
        (layer, number), known = cell, self._known[key]
        held, style = known.held[layer], domain_styles((d.name, d.role or "source") for d in study.domains)
        assert known.data is not None
        here = next(one for one in known.data["cells"] if (one["group"], one["filter"]) == cell)
        shown = filter_card.picture_rows(study, self._network(study), held, layer=layer, filter=number)
        return {
            "pictures": shown["pictures"],
            "words": [filter_card.heading(here), *shown["words"]],
            **filter_card.histogram_rows(held, layer=layer, filter=number, style=style),
            **filter_card.weight_rows(study, layer=layer, filter=number),
        }

    def _card(self, view: View, key: Key, cell: Cell) -> Frames:
        """The card's rows as far as they are known."""
        card = self._cards[key, cell]
        maps = card.get("maps", {"pictures": [], "words": []})
        changes = card.get("changes") or filter_card.waiting_rows(view.study)
        span = span_rows([row for row in changes if row["change"] is not None])
        facts = {name: card[name] for name in ("histogram", "names", "weights", "weight_words")}
        return {
            "pictures": {part: card[part] + maps[part] for part in ("pictures", "words")},
            "facts": {**facts, "changes": changes, "span": span},
            "ranks": {"ranks": self._ranks(view, cell)},
        }

    def _ranks(self, view: View, cell: Cell) -> Rows:
        """Each scorer's place for the filter."""
        known = {name: held[1] for name, held in self._scores.items() if held[0] is view.menu.get(name)}
        return filter_card.rank_rows(view.study, view.menu, known, layer=cell[0], filter=cell[1])

    def _score(self, view: View, name: str) -> bool:
        """Score by one scorer of the menu, unless that is done; whether anything new is known."""
        item = view.menu[name]
        if self._scores.get(name, (None,))[0] is item:
            return False
        with noted(lambda _: None):
            try:
                why = view.study.unavailable(item) if isinstance(item, Scorer) else None
                found = why or view.study.score(item)
            except Exception as error:  # a user's own scorer may raise anything
                found = str(error)
        self._scores[name] = item, found
        return True

    def _without(self, view: View, key: Key, cell: Cell) -> Generator[Frames, None, Rows]:
        """The change of accuracy of every domain when this filter alone goes, BatchNorm as it is."""
        held = self._known[key].held[cell[0]]
        try:
            mask = filter_card.mask_without(view.study, held, layer=cell[0], filter=cell[1])
        except DgpruneError:
            return [{**filter_card.waiting_rows(view.study)[0], "label": "its layer has no other", "text": ""}]
        found = []
        for domain in labelled(view.study):
            steps = case_steps(view.study, mask, domain=domain, asked=Removal((), ()))
            found.append((yield from yielding(steps, {})))
        return filter_card.change_rows(found)


def _most_sensitive(known: _Known) -> Cell:
    """The filter with the largest |d| that can be told from 0; the largest of all if none can."""
    rows = [row for held in known.rows.values() for row in held if row["metric"] == "cohens_d"]
    best = max(rows, key=lambda row: (bool(row["low"] > 0 or row["high"] < 0), np.nan_to_num(abs(row["value"]))))
    return best["group"], best["filter"]


def _bounded(held: dict[Any, Any], most: int) -> None:
    """Forget what was put in first."""
    while len(held) > most:
        del held[next(iter(held))]
