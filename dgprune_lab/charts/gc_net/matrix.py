"""Positions in the picture of connections: layers as columns, filters as dots, connections as lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...core import Pair, Spread
from ..pixels.heat import Floats, hexes
from ..theme import AXIS_INK, QUIET, Rows

MOST = 128
TREE = 260
_LETTER = 6.4  # pixels of a letter, on average


@dataclass(frozen=True)
class Panel:
    """A pair of layers, with its connections rho and whether each is kept, both of shape (outputs, filters)."""

    pair: Pair
    rho: Floats
    kept: Any

    @property
    def lines(self) -> list[str]:
        return self.pair.lines(Spread.of(torch.from_numpy(self.rho)))


class Plan:
    """Positions in the picture: a column per layer; names above, in up to four staggered rows where they are close."""

    def __init__(self, panels: Sequence[Panel], width: int) -> None:
        self.width = width
        self.sizes: dict[str, int] = {}
        for panel in panels:
            self.sizes.setdefault(panel.pair.group, panel.rho.shape[1])
            self.sizes.setdefault(panel.pair.layer, panel.rho.shape[0])
        self.gap = (width - 120) / max(len(self.sizes) - 1, 1)
        self.turns = min(4, max(1, math.ceil((max(map(len, self.sizes)) * _LETTER + 30) / self.gap)))
        self.column = {name: 60 + k * self.gap for k, name in enumerate(self.sizes)}
        self.top = 72 + 13 * self.turns
        self.bottom = self.top + TREE

    def height(self, layer: str, number: int) -> float:
        """Return the y position of a filter's dot, in pixels."""
        return self.top + TREE * (number / (self.sizes[layer] - 1) if self.sizes[layer] > 1 else 0.5)

    def names(self) -> Rows:
        """Return the text above the columns: each layer's name, with its number of filters if there is room."""
        rows: Rows = []
        for k, (name, size) in enumerate(self.sizes.items()):
            text = short(name, self.turns * self.gap - 8) + (f" ({size})" if self.turns == 1 else "")
            rows.append(caption("names", text, x=self.column[name], y=71 + 13 * (k % self.turns)))
        return rows


def tree(panels: list[Panel], plan: Plan, *, links: int, scale: tuple[float, float]) -> tuple[Rows, Rows]:
    """Return the rows of the filters' dots and of the lines between them; at most `links` lines per pair."""
    lines: Rows = []
    visible = {name: set(range(size)) if size <= MOST else set() for name, size in plan.sizes.items()}
    for panel in panels:
        pair = panel.pair
        places = _strongest_links(panel.rho, links)
        tints = hexes(np.array([panel.rho[place] for place in places]), low=scale[0], high=scale[1])
        for (output, filter), tint in zip(places, tints, strict=True):
            visible[pair.group].add(filter)
            visible[pair.layer].add(output)
            kept = bool(panel.kept[output, filter])
            start = {"x": plan.column[pair.group], "y": plan.height(pair.group, filter)}
            end = {"x2": plan.column[pair.layer], "y2": plan.height(pair.layer, output)}
            about = {"from": f"{pair.group}, filter {filter}", "to": f"{pair.layer}, output {output}"}
            about |= {"colour": tint, "what": "kept"} if kept else {"colour": QUIET, "what": "removed"}
            lines.append({**start, **end, **about, "rho": float(panel.rho[output, filter])})
    nodes: Rows = []
    for name, connected in _find_connected(panels, plan).items():
        for k in sorted(visible[name]):
            what = f"{name}, filter {k}" + ("" if connected[k] else ": no connection left on one side")
            fill = AXIS_INK if connected[k] else "transparent"
            nodes.append({"x": plan.column[name], "y": plan.height(name, k), "fill": fill, "what": what})
    return nodes, lines


def _find_connected(panels: list[Panel], plan: Plan) -> dict[str, Any]:
    """Return layer -> (filters,) bool: whether each filter keeps a connection on each side that has connections."""
    connected = {name: np.ones(size, dtype=bool) for name, size in plan.sizes.items()}
    for name, flags in connected.items():
        entering = [panel.kept.any(1) for panel in panels if panel.pair.layer == name]
        leaving = [panel.kept.any(0) for panel in panels if panel.pair.group == name]
        for side in filter(None, (entering, leaving)):
            flags &= np.any(side, axis=0)
    return connected


def _strongest_links(rho: Floats, most: int) -> list[tuple[int, int]]:
    """Return (output, filter) of each filter's and each output's strongest connection; 0 counts as no connection."""
    size = np.abs(rho)
    places = {(int(j), i) for i, j in enumerate(size.argmax(0))} | {(j, int(i)) for j, i in enumerate(size.argmax(1))}
    ranked = sorted((place for place in places if size[place] > 0), key=lambda place: (-size[place], place))
    if len(ranked) <= most:
        return ranked
    return [ranked[k] for k in np.linspace(0, len(ranked) - 1, most).round().astype(int)]


def caption(style: str, text: str, *, x: float, y: float) -> dict[str, Any]:
    """Return a row of text in a style of `_TEXTS`."""
    return {"style": style, "x": x, "y": y, "text": text}


def short(name: str, width: float) -> str:
    """Return a long name cut to its end, which is more specific than its beginning."""
    most = max(6, int(width / _LETTER))
    return name if len(name) <= most else "…" + name[-(most - 1) :]
