"""Connections between consecutive layers: the statistics of one pair, as numbers and as text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

NEARLY = "nearly uniform"
UNIFORM = 1.5  # rho is called nearly uniform if its spread is at most this multiple of the spread by chance


class Spread(NamedTuple):
    """Distribution of the correlations rho over the connections of one pair of layers.

    Attributes:
        mean, std: mean and population standard deviation of rho.
        low, middle, high: 5, 50 and 95 % quantiles of rho (observed values, not interpolated).
        silent: fraction of connections whose rho is exactly 0 (removed connections, or constant responses).
    """

    mean: float
    std: float
    low: float
    middle: float
    high: float
    silent: float

    @classmethod
    def of(cls, rho: Tensor) -> Spread:
        """Return the distribution of the correlations in a tensor of any shape."""
        flat = rho.detach().double().flatten().sort().values
        index = (torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64) * (len(flat) - 1)).round().long()
        silent = float((flat == 0).double().mean())
        low, middle, high = flat[index].tolist()
        return cls(float(flat.mean()), float(flat.std(correction=0)), low, middle, high, silent)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two consecutive layers: a group of filters, and a layer that consumes it.

    Attributes:
        name: name of GC-Net's parameter, whose shape is (outputs of the layer, filters of the group).
        group: name of the group, that is, of the first layer that produces it.
        layer: name of the consumer.
        null: mean |rho| when the images of a class are paired at random: the level to expect of independent responses.
        null_spread: standard deviation of rho under this random pairing.
        null_expected: `null` as a formula predicts it, about 0.8 / sqrt(n) for n images, averaged as `null` is.
    """

    name: str
    group: str
    layer: str
    null: float
    null_spread: float
    null_expected: float

    def lines(self, spread: Spread) -> list[str]:
        """Return text lines: rho, its null level, the share of zeros if at least 5 %, `NEARLY` if rho hardly varies."""
        lines = [f"rho {spread.mean:.2f}, spread {spread.std:.2f}"]
        lines += [f"by chance {self.null:.2f}, spread {self.null_spread:.2f}"]
        lines += [f"{spread.silent:.0%} are exactly 0"] * (spread.silent >= 0.05)
        return lines + [NEARLY] * (spread.std <= UNIFORM * self.null_spread)

    def words(self, spread: Spread) -> str:
        """Return the text of `lines` in one line."""
        return "; ".join(self.lines(spread))


@runtime_checkable
class Connections(Protocol):
    """The correlations between a network's consecutive layers, as GC-Net holds them."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs of consecutive layers."""
        ...

    def rho(self, name: str) -> Tensor:
        """Return the correlations (outputs, filters) of the pair of layers with this name."""
        ...


def pair_names(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return a parameter name for each (group, layer): dots become underscores, and a repeated name gets a number.

    >>> pair_names([("conv1", "block.conv2")])
    ['conv1_to_block_conv2']
    """
    names: list[str] = []
    for group, layer in pairs:
        name = f"{group}_to_{layer}".replace(".", "_")
        names.append(f"{name}_{len(names)}" if name in names else name)
    return names
