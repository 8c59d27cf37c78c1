"""The loss of a network under noise on its weights, and the largest noise that keeps it."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import DgpruneError, drain
from ..measurement import WeightMasking
from ..pruning import shared_copy
from ..study import Study

_HALVINGS = 10


class WeightNoise:
    """A study's network with noise on the weights of its convolution and linear layers, the same draws every time.

    Args:
        study: network and sources; untouched.
        draws: of standard normal numbers, one per weight.
        seed: of the first draw.
        split, images: what the loss is measured on.
        unit: scale each draw to norm 1 over all weights.

    Raises:
        DgpruneError: draws < 1.
    """

    def __init__(
        self, study: Study, *, draws: int, seed: int, split: str, images: int | None, unit: bool = False
    ) -> None:
        if draws < 1:
            raise DgpruneError(f"draws must be at least 1; got {draws}.")
        self.masking = WeightMasking(shared_copy(study.model).to(study.device), domains=study.sources)
        self._directions = [self.masking.direction(seed + draw, unit=unit) for draw in range(draws)]
        self._sources, self._split, self._images = study.sources, split, images

    def losses(self, size: float) -> Generator[None, None, Tensor]:
        """(N,) losses under noise of this size, the mean over the draws; yields between batches."""
        losses: list[Tensor] = []
        for direction in self._directions if size else self._directions[:1]:
            self.masking.shift(direction, by=size)
            steps = self.masking.losses(self._sources, split=self._split, images=self._images)
            losses.append((yield from steps))
        return torch.stack(losses).mean(0)

    def like_pruning(self, share: float) -> Generator[None, None, Tensor]:
        """`losses` under noise with the norm of the weights that are removed when this share of the largest is kept."""
        return (yield from self.losses(self.masking.removed_norm(share)))

    def loss(self, size: float) -> float:
        """The mean of `losses`."""
        return float(drain(self.losses(size)).mean())


def largest_noise(noise: WeightNoise, *, limit: float) -> float:
    """Find the largest size, from 0 on, at which the loss stays within a limit, to a thousandth of itself.

    Doubled or halved from a hundredth of the weights' root mean square, then bisected ten times on a log scale.
    """
    squares = sum(float(weight.double().square().sum()) for weight in noise.masking.full.values())
    start = inside = outside = 0.01 * math.sqrt(squares / noise.masking.weights)
    if noise.loss(start) <= limit:
        while noise.loss(outside := 2 * inside) <= limit and outside < 1e6 * start:
            inside = outside
    else:
        while not noise.loss(inside := outside / 2) <= limit and inside > 1e-9 * start:
            outside = inside
    for _ in range(_HALVINGS):
        middle = math.sqrt(inside * outside)
        inside, outside = (middle, outside) if noise.loss(middle) <= limit else (inside, middle)
    return inside


def margins(outputs: Sequence[tuple[Tensor, Tensor]]) -> NDArray[np.float64]:
    """(N,) the logit of the true class minus the largest other one, from (logits, labels) per batch."""
    batches = []
    for logits, labels in outputs:
        true = logits.gather(1, labels[:, None]).squeeze(1)
        others = logits.clone().scatter_(1, labels[:, None], -torch.inf)
        batches.append((true - others.amax(1)).double().cpu())
    return torch.cat(batches).numpy()
