"""The panel "Compare": how two of the networks that were tried differ."""

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
from .protocol import CALIBRATION, Frames, Panel, Row, Tried, View, controls_of, drop_oldest, telling

_WIDTH = 780
_PRESENT, _FULL = "The present view", "The full network"
_MOST = 32
"""Comparisons that are kept, some tens of kilobytes each."""


class ComparePanel(Panel):
    """Accuracy, flips, classes, calibration and filters of two steps, pins, the present view or the full network.

    `selected["a"]` and `selected["b"]` are their names; by default the present view, and the first pin or else the
    network from which the view was pruned.
    """

    name, label = "compare", "Compare"
    charts: Mapping[str, Row] = {}  # made for the domains and classes of the study

    def __init__(self) -> None:
        self._tables: dict[str, pd.DataFrame] = {}
        self._structure: tuple[Any, ...] = ()
        self._spec: Row = {}

    def tick(self, view: View) -> Iterator[Frames]:
        """Yield what is compared, then how far that is, then the result."""
        offered = _offered(view)
        pair = self._pair(view, offered)
        controls = [
            {"name": name, "label": label, "value": chosen, "choices": [[each, each] for each in offered]}
            for name, label, chosen in zip("ab", ("Network a", "against b"), pair, strict=True)
        ]
        if pair[0] == pair[1]:
            yield {"controls": controls, "text": "Choose two networks to compare.", "hidden": ["compare"]}
            return
        says = f"Comparing {pair[0]} with {pair[1]}"
        yield {"controls": controls, "text": f"{says}."}
        compared = [offered[name] for name in pair]
        key = _key(view, *compared)
        if key not in self._tables:
            steps = _steps(view, *compared)
            self._tables[key] = yield from telling(steps, lambda done, total: f"{says}: measured {done} of {total}.")
            drop_oldest(self._tables, most=_MOST)
        data = compare_data(self._tables[key], names=pair)
        yield {**self._chart(data), "text": _text(view, compared), "hidden": []}

    def _pair(self, view: View, offered: Mapping[str, Tried | None]) -> tuple[str, str]:
        selected, names = self.selected or {}, list(offered)
        tried = {name: each for name, each in offered.items() if each is not None and name != _PRESENT}
        before = [name for name, each in tried.items() if each.kind == "step" and _step(each) == _step(view)]
        now = view.present and controls_of(view.present.choice)
        pins = [name for name, each in tried.items() if each.kind == "pin" and controls_of(each.choice) != now]
        second = [*pins, *before, names[-1]][0]
        a, b = selected.get("a", names[0]), selected.get("b", second)
        return (a if a in offered else names[0]), (b if b in offered else second)

    def _chart(self, data: Data) -> Row:
        """The chart's rows; with its specification where it has other plots than the last one."""
        room = label_room(data)
        structure = room, len(data["words"]), *((name, bool(rows)) for name, rows in data.items())
        if structure != self._structure:
            self._structure, self._spec = structure, compare_chart(data, width=_WIDTH, labels=room).to_dict()
        return {"charts": {"compare": self._spec}, "compare": data}


def _offered(view: View) -> dict[str, Tried | None]:
    """Name -> network, the present view first; None for the full network where it is no step."""
    offered: dict[str, Tried | None] = {} if view.present is None else {_PRESENT: view.present}
    offered |= {each.name: each for each in view.tried if each.kind != "ratio"}
    if not any(each is not None and _is_full(each) for each in offered.values()):
        offered[_FULL] = None
    return offered


def _is_full(tried: Tried) -> bool:
    return tried.kind == "step" and tried.parent is None


def _step(shown: Tried | View) -> int:
    return int(shown.choice.get("step", 0))


def _key(view: View, a: Tried | None, b: Tried | None) -> str:
    """Return the key of a comparison in the cache: all that it depends on, as JSON."""
    study = view.full or view.study
    pair = [None if each is None else [controls_of(each.choice), each.mask.key.hex()] for each in (a, b)]
    return json.dumps([study.content, view.images, view.calibration, pair], sort_keys=True)


def _steps(view: View, a: Tried | None, b: Tried | None) -> Generator[tuple[int, int], None, pd.DataFrame]:
    """Compare two networks. One with the weights of the full network is its mask, whose results the study has kept."""
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


def _text(view: View, compared: Sequence[Tried | None]) -> str:
    """How the two networks were measured."""
    pruned = [
        each.choice["batchnorm"] for each in compared if each is not None and not _step(each) and not _is_full(each)
    ]
    words = batchnorm_words([batchnorm_cell(view.study, setting) for setting in pruned])
    first, second = (None if each is None else controls_of(each.choice) for each in compared)
    same = "They are the same network. " if first == second else ""
    setting = f" of split report{'; ' * bool(words)}{words}"
    return f"{same}Measured on {view.measured}{setting}."
