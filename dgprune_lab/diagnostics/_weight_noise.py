"""A network whose weights are shaken: its loss under noise, and how much noise it bears."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core import drain
from ..measurement import WeightMasking
from ..pruning import private
from ..study import Study

_HALVINGS = 10


class Shaken:
    """A study's network with noise on the weights of its convolution and linear layers, the same draws every time.

    Args:
        study: network and sources; untouched.
        draws: of standard normal numbers, one per weight.
        seed: of the first draw.
        split, images: what the loss is measured on.
        unit: whether each draw is scaled to norm 1 over all weights.
    """

    def __init__(
        self, study: Study, *, draws: int, seed: int, split: str, images: int | None, unit: bool = False
    ) -> None:
        self.twin = WeightMasking(private(study.model).to(study.device), domains=study.sources)
        self._ways = [self.twin.direction(seed + draw, unit=unit) for draw in range(draws)]
        self._sources, self._split, self._images = study.sources, split, images

    def losses(self, size: float) -> Generator[None, None, Tensor]:
        """(N,) losses under noise of this size, the mean over the draws; yields between batches."""
        parts: list[Tensor] = []
        for way in self._ways if size else self._ways[:1]:
            self.twin.shift(way, by=size)
            parts.append((yield from self.twin.losses(self._sources, split=self._split, images=self._images)))
        return torch.stack(parts).mean(0)

    def like_pruning(self, share: float) -> Generator[None, None, Tensor]:
        """`losses` under noise as long as the weights that leave when this share of the largest is kept."""
        return (yield from self.losses(self.twin.removed_norm(share)))

    def loss(self, size: float) -> float:
        """The mean of `losses`."""
        return float(drain(self.losses(size)).mean())


def largest_noise(shaken: Shaken, *, limit: float) -> float:
    """The largest size, from 0 on, at which the loss stays within a limit, to a thousandth of itself.

    Doubled or halved from a hundredth of the weights' root mean square, then halved ten times on a log scale.
    """
    squares = sum(float(weight.double().square().sum()) for weight in shaken.twin.full.values())
    start = inside = outside = 0.01 * math.sqrt(squares / shaken.twin.weights)
    if shaken.loss(start) <= limit:
        while shaken.loss(outside := 2 * inside) <= limit and outside < 1e6 * start:
            inside = outside
    else:
        while not shaken.loss(inside := outside / 2) <= limit and inside > 1e-9 * start:
            outside = inside
    for _ in range(_HALVINGS):
        middle = math.sqrt(inside * outside)
        inside, outside = (middle, outside) if shaken.loss(middle) <= limit else (inside, middle)
    return inside


def margins(found: Sequence[tuple[Tensor, Tensor]]) -> Any:
    """(N,) the true class's logit minus the largest other one."""
    parts = []
    for logits, labels in found:
        own = logits.gather(1, labels[:, None]).squeeze(1)
        others = logits.clone().scatter_(1, labels[:, None], -torch.inf)
        parts.append((own - others.amax(1)).double().cpu())
    return torch.cat(parts).numpy()
