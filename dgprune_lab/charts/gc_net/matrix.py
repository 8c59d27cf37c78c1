"""Where everything stands in the picture of connections: layers as columns, filters as dots, connections as lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...core import Pair, Spread
from ..pixels.heat import Floats, hexes
from ..theme import AXIS_INK as INK
from ..theme import QUIET

MOST = 128
TREE = 260
_LETTER = 6.4  # pixels of a letter, on average
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Panel:
    """One pair: its numbers (outputs, filters), which stay, and its lines of words."""

    pair: Pair
    rho: Floats
    stays: Any

    @property
    def lines(self) -> list[str]:
        return self.pair.lines(Spread.of(torch.from_numpy(self.rho)))


class Plan:
    """Where what stands: a column per layer, names above them in up to four rows by turns where they are close."""

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
        """Of a filter's dot."""
        return self.top + TREE * (number / (self.sizes[layer] - 1) if self.sizes[layer] > 1 else 0.5)

    def names(self) -> Rows:
        """A name above each column, with the number of filters where there is room."""
        return [
            caption(
                "names",
                self.column[name],
                71 + 13 * (k % self.turns),
                short(name, self.turns * self.gap - 8) + (f" ({size})" if self.turns == 1 else ""),
            )
            for k, (name, size) in enumerate(self.sizes.items())
        ]


def tree(panels: list[Panel], plan: Plan, links: int, scale: tuple[float, float]) -> tuple[Rows, Rows]:
    """Dots and lines, layers from left to right."""
    lines: Rows = []
    shown = {name: set(range(size)) if size <= MOST else set() for name, size in plan.sizes.items()}
    for panel in panels:
        pair = panel.pair
        places = _strongest(panel.rho, links)
        tints = hexes(np.array([panel.rho[place] for place in places]), low=scale[0], high=scale[1])
        for (j, i), tint in zip(places, tints, strict=True):
            shown[pair.group].add(i)
            shown[pair.layer].add(j)
            stays = bool(panel.stays[j, i])
            lines.append(
                {
                    "x": plan.column[pair.group],
                    "y": plan.height(pair.group, i),
                    "x2": plan.column[pair.layer],
                    "y2": plan.height(pair.layer, j),
                    "rho": float(panel.rho[j, i]),
                    "colour": tint if stays else QUIET,
                    "what": "stays" if stays else "removed",
                    "from": f"{pair.group}, filter {i}",
                    "to": f"{pair.layer}, output {j}",
                }
            )
    alive, nodes = _alive(panels, plan), []
    for name in plan.sizes:
        for k in sorted(shown[name]):
            what = f"{name}, filter {k}" + ("" if alive[name][k] else ": nothing left on one side")
            fill = INK if alive[name][k] else "transparent"
            nodes.append({"x": plan.column[name], "y": plan.height(name, k), "fill": fill, "what": what})
    return nodes, lines


def _alive(panels: list[Panel], plan: Plan) -> dict[str, Any]:
    """Layer -> (filters,) bool: whether a filter keeps a connection on each side that has any."""
    alive = {name: np.ones(size, dtype=bool) for name, size in plan.sizes.items()}
    for name, flags in alive.items():
        entering = [panel.stays.any(1) for panel in panels if panel.pair.layer == name]
        leaving = [panel.stays.any(0) for panel in panels if panel.pair.group == name]
        for held in (entering, leaving):
            if held:
                flags &= np.any(held, axis=0)
    return alive


def _strongest(rho: Floats, most: int) -> list[tuple[int, int]]:
    """(output, filter) of each filter's strongest connection and of the strongest into each output; a 0 is none."""
    size = np.abs(rho)
    found = {(int(j), i) for i, j in enumerate(size.argmax(0))} | {(j, int(i)) for j, i in enumerate(size.argmax(1))}
    ranked = sorted((place for place in found if size[place] > 0), key=lambda place: (-size[place], place))
    if len(ranked) <= most:
        return ranked
    return [ranked[k] for k in np.linspace(0, len(ranked) - 1, most).round().astype(int)]


def caption(look: str, x: float, y: float, text: str) -> dict[str, Any]:
    """A row of words with the look that its name says."""
    return {"look": look, "x": x, "y": y, "text": text}


def short(name: str, width: float) -> str:
    """The end of a long name, which says more than its beginning."""
    most = max(6, int(width / _LETTER))
    return name if len(name) <= most else "…" + name[-(most - 1) :]
