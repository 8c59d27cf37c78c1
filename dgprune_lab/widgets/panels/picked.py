"""The filters that the user picked: their numbers in the full network, their state in the mask, and their buttons.

A filter is a pair (layer, number), numbered in the network of the present step (`to_step`) or the full one (`to_full`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...core import Mask
from ...study import Study
from .protocol import Cell, Row, Rows, View

_MAX_LISTED = 3
_BUTTONS = {
    "remove": ("Remove", "Remove it whatever its score is"),
    "keep": ("Keep", "Keep it whatever its score is"),
    "score": ("By score", "Let the score decide again"),
}


def to_step(view: View, cell: tuple[Any, Any]) -> Cell | None:
    """Renumber a filter of the full network for the present step; return None if the step does not have it."""
    layer, number = cell
    if layer not in view.study.graph.names or not isinstance(number, int):
        return None
    if view.original is not None:
        return (layer, list(view.original[layer]).index(number)) if number in view.original[layer] else None
    return (layer, number) if 0 <= number < view.study.graph[layer].filters else None


def to_full(view: View, cell: Cell) -> Cell:
    """Renumber a filter of the present step for the full network."""
    layer, number = cell
    return (layer, number) if view.original is None else (layer, int(view.original[layer][number]))


def whole_units(study: Study, cells: Iterable[Cell]) -> list[Cell]:
    """Return the filters and those that grouped convolutions tie to them, sorted by layer and number."""
    tied = set[Cell]()
    for layer, number in cells:
        units = study.graph[layer].units
        tied |= {(layer, k) for k in (units == units[number]).nonzero().flatten().tolist()}
    order = {name: k for k, name in enumerate(study.graph.names)}
    return sorted(tied, key=lambda cell: (order[cell[0]], cell[1]))


def mask_without(study: Study, cells: Sequence[Cell], *, reads: dict[str, str]) -> Mask:
    """Return the mask that removes only these filters and those tied to them.

    Raises:
        DgpruneError: no filter of a layer would remain.
    """
    removed: dict[str, list[int]] = {}
    for layer, number in whole_units(study, cells):
        removed.setdefault(layer, []).append(number)
    return Mask.by_hand(study.graph, removed=removed, reads=reads)


def actions(view: View, cells: Sequence[Cell]) -> Rows:
    """Return a sentence on the state of these filters in the mask, and the buttons that force them."""
    if not cells:
        return []
    sentence = [{"label": f"{names(view, cells)}: {_describe_states(view, cells)}.{_describe_silent(view, cells)}"}]
    if not view.choice:
        return sentence
    tied = [as_picked(view, cell) for cell in whole_units(view.study, cells)]
    states = {_forced_state(view, cell) for cell in cells}
    buttons = [
        {
            "label": label,
            "title": title.replace(" it ", " them ").replace("its", "their") if len(cells) > 1 else title,
            "pressed": states == {to},
            "message": {"type": "force", "to": to, "cells": tied},
        }
        for to, (label, title) in _BUTTONS.items()
    ]
    return [*sentence, *buttons]


def names(view: View, cells: Sequence[Cell]) -> str:
    """Return a name for these filters: "conv3, filter 17", or "5 filters (conv1: 0, 3; conv2: 1, 2, 7, ...)"."""
    if len(cells) == 1:
        layer, number = to_full(view, cells[0])
        return f"{layer}, filter {number}"
    layers: dict[str, list[str]] = {}
    for layer, number in (to_full(view, cell) for cell in cells):
        layers.setdefault(layer, []).append(str(number))
    lists = [
        f"{layer}: {', '.join(numbers[:_MAX_LISTED])}{', …' if len(numbers) > _MAX_LISTED else ''}"
        for layer, numbers in layers.items()
    ]
    further = f"; and of {len(lists) - _MAX_LISTED} further layers" if len(lists) > _MAX_LISTED else ""
    return f"{len(cells)} filters ({'; '.join(lists[:_MAX_LISTED])}{further})"


def _describe_states(view: View, cells: Sequence[Cell]) -> str:
    """Return the filter's state in the mask and its cause; for several filters, the number in each state."""
    states = [_filter_state(view, cell) for cell in cells]
    if len(cells) == 1:
        return states[0]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _filter_state(view: View, cell: Cell) -> str:
    layer, number = cell
    forced = _forced_state(view, cell)
    if forced != "score":
        return "removed by hand" if forced == "remove" else "kept by hand"
    if view.mask.layer_ratios.get(layer) == 0:
        return "kept with its layer"
    return "kept by score" if view.mask.keep[layer][number] else "removed by score"


def _forced_state(view: View, cell: Cell) -> str:
    """Return how a filter is forced: "remove" or "keep"; "score" if it is not."""
    layer, number = to_full(view, cell)
    lists = view.choice.get("forced", {})
    return next((to for to in ("remove", "keep") if number in lists.get(to, {}).get(layer, ())), "score")


def _describe_silent(view: View, cells: Sequence[Cell]) -> str:
    """Return a sentence on silent filters, to append to the line; "" if none of these filters is silent."""
    silent = view.silent or {}
    count = sum(number in silent.get(layer, ()) for layer, number in (to_full(view, cell) for cell in cells))
    if not count:
        return ""
    images = sum(len(domain.rows("score")) for domain in view.study.sources)
    which = "Silent" if len(cells) == 1 else f"{count} of them silent"
    return f" {which}: 0 on all {images:,} source images of split score."


def as_picked(view: View, cell: Cell | None) -> Row:
    """Return a filter in the form in which the page expects the map's outlined cell; {} for None."""
    return dict(zip(("group", "filter"), to_full(view, cell), strict=True)) if cell else {}
