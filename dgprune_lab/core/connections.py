"""Connections between consecutive layers: what is known of one pair, as plain numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

NEARLY = "nearly uniform"
UNIFORM = 1.5  # a spread below so many times the spread by chance is called nearly uniform


class Spread(NamedTuple):
    """How the connections of one pair differ.

    Attributes:
        mean, std: of rho; the population standard deviation.
        low, middle, high: 5, 50 and 95 % quantiles (of the values themselves, none between two).
        silent: share of connections that are exactly 0, because a response never changes, or removed.
    """

    mean: float
    std: float
    low: float
    middle: float
    high: float
    silent: float

    @classmethod
    def of(cls, rho: Tensor) -> Spread:
        """Of any number of connections."""
        flat = rho.detach().double().flatten().sort().values
        at = (torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64) * (len(flat) - 1)).round().long()
        low, middle, high = flat[at].tolist()
        silent = float((flat == 0).double().mean())
        return cls(float(flat.mean()), float(flat.std(correction=0)), low, middle, high, silent)


@dataclass(frozen=True)
class Pair:
    """Two consecutive layers: a group of filters, and a layer that reads it.

    Attributes:
        name: of the companion's parameter, (outputs of the layer, filters of the group).
        group: name of the group, that is of the first layer that writes it.
        layer: name of the layer that reads it.
        floor: mean |rho| when the images of a class are paired at random: what no connection looks like.
        floor_std: standard deviation of rho then.
        expected: the floor by formula, about .8 / sqrt(n), averaged alike.
    """

    name: str
    group: str
    layer: str
    floor: float
    floor_std: float
    expected: float

    def lines(self, spread: Spread) -> list[str]:
        """Its connections, the floor, how many are 0, and whether they hardly differ, a short line each."""
        lines = [
            f"rho {spread.mean:.2f}, spread {spread.std:.2f}",
            f"by chance {self.floor:.2f}, spread {self.floor_std:.2f}",
        ]
        if spread.silent >= 0.05:
            lines.append(f"{spread.silent:.0%} are exactly 0")
        return lines + [NEARLY] * (spread.std <= UNIFORM * self.floor_std)

    def words(self, spread: Spread) -> str:
        """`lines` as one."""
        return "; ".join(self.lines(spread))
