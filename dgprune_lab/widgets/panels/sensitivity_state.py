"""Cached results on the domain sensitivity of filters: maps for each method and pair of domains, and filter cards."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...charts.sensitivity.map import compared, counted, full_colour, is_significant, map_data
from ...core import DgpruneError, FilterGraph, tidy
from ...diagnostics._attributions import Attributions, attribution_steps, attributor
from ...diagnostics.mean_map import square_maps
from ...diagnostics.sensitivity import EXTRA, IMAGES, effect_rows
from ...measurement import TOGETHER, Attributor, Method
from ...study import Study
from . import filter_card
from .domains import SPLIT, Pair, case_frames, labelled, styles_of
from .menu_scores import MenuScores
from .picked import mask_without
from .protocol import Cell, Frames, Row, Rows, View, drop_oldest

_MAX_CARDS, _MAX_MAPS = 24, 6
_LEGIBLE = 36  # positions that a map needs to show where in the image a filter contributes

Key = tuple[Method, Pair]


@dataclass
class SensitivityMap:
    """Cached results for one method and pair of domains, by layer."""

    attributions: dict[str, Attributions] = field(default_factory=dict)
    rows: dict[str, Rows] = field(default_factory=dict)
    data: dict[str, Rows] | None = None
    text: tuple[str, str] = "", ""
    top: Cell | None = None  # the most sensitive filter, see `_most_sensitive`

    def is_complete(self, study: Study) -> bool:
        """Return whether the attributions of all layers have been computed."""
        return set(self.attributions) == set(study.graph.names)


class SensitivityState:
    """Cached maps and cards of one study; cleared when the network is changed in place.

    Attributes:
        maps: (method, pair of domains) -> map.
        cards: method, pair and filter -> rows of the card.
        sets: method, pair and several filters -> setting -> accuracy changes when all of these are removed.
        scores: the scores of the menu's scorers.
        network: the copy of the network that Captum uses, while it is kept.
        last_cell: the filter that was shown last.
    """

    def __init__(self) -> None:
        self.network: Attributor | None = None
        self._content: tuple[str, int] = "", IMAGES
        self._clear()

    def _clear(self) -> None:
        self.maps: dict[Key, SensitivityMap] = {}
        self.cards: dict[tuple[Key, Cell], Row] = {}
        self.sets: dict[tuple[Key, tuple[Cell, ...]], Row] = {}
        self.scores = MenuScores()
        self.last_cell: Cell | None = None
        self.close()

    def close(self) -> None:
        """Release the copy of the network, and drop unfinished work."""
        self.network = self._work = None

    def map(self, study: Study, key: Key, *, images: int | None = None) -> SensitivityMap:
        """Return the cached results of a method and a pair, from at most `images` images of each domain."""
        content = study.content, min(IMAGES, images or IMAGES)
        if self._content != content:
            self._content = content
            self._clear()
        cached = self.maps[key] = self.maps.pop(key, None) or SensitivityMap()
        drop_oldest(self.maps, most=_MAX_MAPS)
        return cached

    def missing(self, study: Study, key: Key, cell: Cell | None) -> list[str]:
        """Return the layers without attributions; for a slow method only the picked filter's layer is considered."""
        names = study.graph.names
        layers = names if key[0] in TOGETHER else [cell[0] if cell else names[-1]]
        return [name for name in layers if name not in self.maps[key].attributions]

    def attribute(self, study: Study, key: Key, layers: list[str]) -> Iterator[tuple[int, int]]:
        """Compute the attributions of layers and yield (done, total); resume interrupted work."""
        if self._work is None or self._work[0] != (key, layers):
            options: dict[str, Any] = {"images": self._content[1], "split": SPLIT, "by": self._network(study)}
            steps = attribution_steps(study, method=key[0], between=key[1], layers=layers, **options)
            self._work = (key, layers), steps
        steps = self._work[1]
        while True:
            try:
                progress = next(steps)
            except StopIteration as end:
                self._store(study, key, layers=layers, data=end.value)
                return
            except BaseException:  # also if cancelled: a generator that raised has ended
                self._work = None
                raise
            yield progress

    def card(self, study: Study, key: Key, cell: Cell) -> Row:
        """Return a filter's card; a new card has what needs no pass over images: pictures, histogram, weights."""
        if (key, cell) not in self.cards:
            (layer, number), cached = cell, self.maps[key]
            assert cached.data is not None
            data = cached.attributions[layer]
            self.cards[key, cell] = {
                "cell": next(row for row in cached.data["cells"] if (row["group"], row["filter"]) == cell),
                **filter_card.picture_rows(study, self._network(study), data, layer=layer, filter=number),
                **filter_card.histogram_rows(data, layer=layer, filter=number, styles=styles_of(study)),
                **filter_card.weight_rows(study, layer=layer, filter=number),
            }
            drop_oldest(self.cards, most=_MAX_CARDS)
        return self.cards[key, cell]

    def results_without(self, key: Key, cells: tuple[Cell, ...]) -> Row:
        """Return the cached accuracy changes when these filters are removed: setting -> rows."""
        cached = self.sets.setdefault((key, cells), {})
        drop_oldest(self.sets, most=_MAX_CARDS)
        return cached

    def changes(self, view: View, key: Key, cells: Sequence[Cell]) -> Generator[Frames, None, Rows]:
        """Measure the accuracy change of every domain when these filters alone are removed."""
        try:
            mask = mask_without(view.study, cells, reads={f"{name}/{SPLIT}": "labels" for name in key[1]})
        except DgpruneError:
            reason = "its layer has no other" if len(cells) == 1 else "all of a layer"
            return [{**filter_card.waiting_rows(view.study)[0], "label": reason, "text": ""}]
        return filter_card.change_rows((yield from case_frames(view, mask, labelled(view.study))))

    def mean_maps(self, study: Study, key: Key, cell: Cell) -> Generator[Frames, None, dict[str, Rows]]:
        """Compute the filter's map after the activation, averaged over the images of each of the two domains."""
        (layer, number), maps = cell, []
        for domain in self.maps[key].attributions[layer].pair:
            statistics = study.statistics(domain.name, needs=["activation_map"], split=SPLIT)
            maps += square_maps(statistics.activation_map[layer][[number]])
            yield {}
        return filter_card.mean_map_rows(maps)

    def _network(self, study: Study) -> Attributor:
        self.network = self.network or attributor(study)
        return self.network

    def _store(self, study: Study, key: Key, *, layers: list[str], data: Attributions) -> None:
        self._work, cached = None, self.maps[key]
        rows = effect_rows(study, data, seed=0)
        for name in layers:
            cached.attributions[name], cached.rows[name] = data, [row for row in rows if row["group"] == name]
        table = tidy((row for name in study.graph.names for row in cached.rows.get(name, ())), extra=EXTRA)
        cached.data = map_data(table, layers={group.name: group.filters for group in study.graph.groups})
        cached.text = f"{compared(table)}; {counted(table)}.", full_colour(table)
        cached.top = _most_sensitive(cached, study.graph)


def _most_sensitive(cached: SensitivityMap, graph: FilterGraph) -> Cell:
    """Return the top filter, ranked by significance, then by having maps of 6 x 6 or more, then by |d|.

    Smaller maps do not show where in the image the filter contributes.
    """
    sizes = {group.name: graph.uses.get(f"{group.name}.weight", 1) for group in graph.groups}
    rows = [row for layer in cached.rows.values() for row in layer if row["metric"] == "cohens_d"]

    def order(row: Row) -> tuple[bool, bool, float]:
        return is_significant(row), sizes[row["group"]] >= _LEGIBLE, float(np.nan_to_num(abs(row["value"])))

    top = max(rows, key=order)
    return top["group"], top["filter"]
