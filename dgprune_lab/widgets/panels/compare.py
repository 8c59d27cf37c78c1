"""The panel "Compare": differences between two of the networks tried."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from torch import nn

from ...charts.compare import compare_chart, label_room
from ...charts.compare_rows import compare_data
from ...charts.theme import Data
from ...core import Mask, batchnorm_words
from ...diagnostics import compare
from ...study import batchnorm_cell
from .protocol import CALIBRATION, Frames, Panel, Row, Tried, View, controls_of, drop_oldest, frames_of

_WIDTH = 780
_PRESENT, _FULL = "The present view", "The full network"
_MAX_CACHED = 32
"""Comparisons kept in the cache, tens of kilobytes each."""


class ComparePanel(Panel):
    """Accuracy, flips, classes, calibration and filters of two networks: steps, pins, present view or full network.

    `selected["a"]` and `selected["b"]` are their names; by default the present view and the first pin, or else the
    network from which the view was pruned.
    """

    name, label = "compare", "Compare"
    charts: Mapping[str, Row] = {}  # made for the domains and classes of the study

    def __init__(self) -> None:
        self._tables: dict[str, pd.DataFrame] = {}
        self._structure: tuple[Any, ...] = ()
        self._spec: Row = {}

    def tick(self, view: View) -> Iterator[Frames]:
        """Yield the compared networks, then the progress, then the result."""
        offered = _list_networks(view)
        pair = self._selected_pair(view, offered)
        controls = [
            {"name": name, "label": label, "value": chosen, "choices": [[each, each] for each in offered]}
            for name, label, chosen in zip("ab", ("Network a", "against b"), pair, strict=True)
        ]
        if pair[0] == pair[1]:
            yield {"controls": controls, "text": "Choose two networks to compare.", "hidden": ["compare"]}
            return
        title = f"Comparing {pair[0]} with {pair[1]}"
        yield {"controls": controls, "text": f"{title}."}
        compared = [offered[name] for name in pair]
        key = _cache_key(view, *compared)
        if key not in self._tables:
            steps = _compare_steps(view, *compared)
            self._tables[key] = yield from frames_of(steps, lambda done, total: f"{title}: measured {done} of {total}.")
            drop_oldest(self._tables, most=_MAX_CACHED)
        data = compare_data(self._tables[key], names=pair)
        yield {**self._chart(data), "text": _describe_measurement(view, compared), "hidden": []}

    def _selected_pair(self, view: View, offered: Mapping[str, Tried | None]) -> tuple[str, str]:
        selected, names = self.selected or {}, list(offered)
        tried = {name: each for name, each in offered.items() if each is not None and name != _PRESENT}
        parents = [name for name, each in tried.items() if each.kind == "step" and _step(each) == _step(view)]
        present = view.present and controls_of(view.present.choice)
        pins = [name for name, each in tried.items() if each.kind == "pin" and controls_of(each.choice) != present]
        default = [*pins, *parents, names[-1]][0]
        a, b = selected.get("a", names[0]), selected.get("b", default)
        return (a if a in offered else names[0]), (b if b in offered else default)

    def _chart(self, data: Data) -> Row:
        """Return the chart's rows and specification, which is made again only if its plots have changed."""
        room = label_room(data)
        structure = room, len(data["words"]), *((name, bool(rows)) for name, rows in data.items())
        if structure != self._structure:
            self._structure, self._spec = structure, compare_chart(data, width=_WIDTH, labels=room).to_dict()
        return {"charts": {"compare": self._spec}, "compare": data}


def _list_networks(view: View) -> dict[str, Tried | None]:
    """Return name -> network, the present view first; the full network is added as None if it is not a step."""
    offered: dict[str, Tried | None] = {} if view.present is None else {_PRESENT: view.present}
    offered |= {each.name: each for each in view.tried if each.kind != "ratio"}
    if not any(each is not None and _is_full(each) for each in offered.values()):
        offered[_FULL] = None
    return offered


def _is_full(tried: Tried) -> bool:
    return tried.kind == "step" and tried.parent is None


def _step(network: Tried | View) -> int:
    return int(network.choice.get("step", 0))


def _cache_key(view: View, a: Tried | None, b: Tried | None) -> str:
    """Return the cache key of a comparison: everything that it depends on, as JSON."""
    study = view.full or view.study
    pair = [None if each is None else [controls_of(each.choice), each.mask.key.hex()] for each in (a, b)]
    return json.dumps([study.content, view.images, view.calibration, pair], sort_keys=True)


def _compare_steps(view: View, a: Tried | None, b: Tried | None) -> Generator[tuple[int, int], None, pd.DataFrame]:
    """Compare two networks; those with the full network's weights are passed as masks if possible, to use the cache."""
    pair: list[Mask | nn.Module | None] = []
    setting: Any = "recalibrate"
    for each in (a, b):
        if each is None or _is_full(each):
            pair.append(None)
        elif (
            _step(each)
            or view.calibration != CALIBRATION
            or (pair and isinstance(pair[0], Mask) and each.choice["batchnorm"] != setting)
        ):
            pair.append(each.network())
        else:
            pair.append(each.mask)
            setting = each.choice["batchnorm"]
    return compare.steps(view.full or view.study, *pair, batchnorm=setting, images=view.images)


def _describe_measurement(view: View, compared: Sequence[Tried | None]) -> str:
    """Return how the two networks were measured."""
    pruned = [
        each.choice["batchnorm"] for each in compared if each is not None and not _step(each) and not _is_full(each)
    ]
    batchnorm = batchnorm_words([batchnorm_cell(view.study, setting) for setting in pruned])
    first, second = (None if each is None else controls_of(each.choice) for each in compared)
    note = "They are the same network. " if first == second else ""
    setting = f" of split report{'; ' * bool(batchnorm)}{batchnorm}"
    return f"{note}Measured on {view.measured}{setting}."
