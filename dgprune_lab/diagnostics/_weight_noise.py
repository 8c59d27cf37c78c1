"""The loss of a network under noise on its weights, and the largest noise at which it stays within a limit."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from ..core import drain
from ..measurement import WeightMasking
from ..pruning import shared_copy
from ..stats import Floats
from ..study import Study

SEARCHED = (1e-9, 1e6)
"""The smallest and the largest size of noise to search, as multiples of the first size tried."""
_HALVINGS = 10


class WeightNoise:
    """A study's network with normal noise on the weights of its convolution and linear layers.

    Args:
        study: the network and its sources; it stays unchanged.
        draws: number of noise samples, each one standard normal number per weight; the same samples for every size.
        seed: random seed of the first sample; the others count up from it.
        split, images: measure the loss on the first `images` images of this split of each source.
        unit: scale each noise sample to norm 1 over all weights.
    """

    def __init__(
        self, study: Study, *, draws: int, seed: int, split: str, images: int | None, unit: bool = False
    ) -> None:
        self.masking = WeightMasking(shared_copy(study.model).to(study.device), domains=study.sources)
        self._directions = [self.masking.direction(seed + draw, unit=unit) for draw in range(draws)]
        self._sources, self._split, self._images = study.sources, split, images

    def losses(self, size: float) -> Generator[None, None, Tensor]:
        """Return each image's loss, (N,), averaged over the noise samples scaled by `size`; yields between batches."""
        losses: list[Tensor] = []
        for direction in self._directions if size else self._directions[:1]:
            self.masking.shift(direction, by=size)
            steps = self.masking.losses(self._sources, split=self._split, images=self._images)
            losses.append((yield from steps))
        return torch.stack(losses).mean(0)

    def loss(self, size: float) -> float:
        """Return the mean of `losses` over images."""
        return float(drain(self.losses(size)).mean())

    def within(self, size: float, limit: float) -> bool:
        """Return whether `loss` is at most `limit`; stops as soon as the sum of the losses rules that out."""
        count = sum(len(source.rows(self._split, self._images)) for source in self._sources)
        remaining = limit * count * len(self._directions)
        for direction in self._directions:
            self.masking.shift(direction, by=size)
            steps = self.masking.losses(self._sources, split=self._split, images=self._images, most=remaining)
            remaining -= float(drain(steps).sum())
            if not remaining >= 0:
                return False
        return True


def largest_noise(noise: WeightNoise, *, limit: float) -> float:
    """Return the largest size of noise at which the mean loss stays within a limit, to a relative precision of .001.

    From a hundredth of the weights' root mean square, or .01 where all weights are 0, the size is doubled or halved
    until the limit is passed, then bisected ten times on a log scale. NaN if the search leaves `SEARCHED`.
    """
    squares = sum(float(weight.double().square().sum()) for weight in noise.masking.full.values())
    start = inside = outside = 0.01 * (math.sqrt(squares / noise.masking.weights) or 1.0)
    smallest, largest = (share * start for share in SEARCHED)
    if noise.within(start, limit):
        while noise.within(outside := 2 * inside, limit):
            if outside >= largest:
                return math.nan
            inside = outside
    else:
        while not noise.within(inside := outside / 2, limit):
            if inside <= smallest:
                return math.nan
            outside = inside
    for _ in range(_HALVINGS):
        middle = math.sqrt(inside * outside)
        inside, outside = (middle, outside) if noise.within(middle, limit) else (inside, middle)
    return inside


def margins(outputs: Sequence[tuple[Tensor, Tensor]]) -> Floats:
    """Return the true class's logit minus the largest other logit, (N,), from (logits, labels) of each batch."""
    batches = []
    for logits, labels in outputs:
        true = logits.gather(1, labels[:, None]).squeeze(1)
        others = logits.clone().scatter_(1, labels[:, None], -torch.inf)
        batches.append((true - others.amax(1)).double().cpu())
    return torch.cat(batches).numpy()
