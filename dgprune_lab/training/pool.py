"""The train splits of the sources as one set of images, and how the steps of an epoch are drawn from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import DgpruneError, Domain
from .options import TrainingOptions


class Pool:
    """The train splits of several domains as one set of images, read batch by batch."""

    def __init__(self, sources: Sequence[Domain]) -> None:
        if not sources:
            raise DgpruneError("training needs at least one source domain; got none.")
        for source in sources:
            if source.labels is None:
                raise DgpruneError(f"domain {source.name!r} has no labels, so no network can be trained on it.")
            if source.shape != sources[0].shape:
                raise DgpruneError(
                    f"domain {source.name!r} has images of {source.shape}, {sources[0].name!r} of {sources[0].shape}; "
                    "bring them to one size first (domain.padded)."
                )
        rows = [source.rows("train") for source in sources]
        self.sources = list(sources)
        self.counts = [len(split) for split in rows]
        self.source = torch.cat([torch.full_like(split, number) for number, split in enumerate(rows)])
        self.rows = torch.cat(rows)
        if len(self.rows) < 2:
            raise DgpruneError(f"training needs at least two images; the train splits hold {len(self.rows)}.")

    def take(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the images and labels at these indices of the pool, grouped by source."""
        batches = [
            source.take(self.rows[index[self.source[index] == number]], device=device)
            for number, source in enumerate(self.sources)
        ]
        labels = [batch.labels for batch in batches if batch.labels is not None]
        return torch.cat([batch.images for batch in batches]), torch.cat(labels)

    def steps(self, options: TrainingOptions) -> int:
        """Return the number of steps of an epoch; a last batch of a single image is skipped."""
        full, rest = divmod(len(self.rows), options.batch_size)
        return full + (rest > 1)

    def batches(self, options: TrainingOptions, generator: torch.Generator) -> list[Tensor]:
        """Draw the steps of an epoch: the indices of each step's images.

        Pooled: all images in a random order, `batch_size` per step. Equal batches: as many steps, each with
        batch_size // E images of each of the E sources, in the order of the sources; a source is passed through in a
        random order, and again in a new one if it has too few images, so an epoch repeats images of a small source and
        leaves out some of a large one. Every epoch begins new passes.
        """
        if not options.equal_batches:
            order = torch.randperm(len(self.rows), generator=generator)
            return [index for index in order.split(options.batch_size) if len(index) > 1]
        steps, share, first, indices = self.steps(options), options.batch_size // len(self.sources), 0, []
        for count in self.counts:
            passes = [torch.randperm(count, generator=generator) for _ in range(-(-steps * share // count))]
            indices.append(first + torch.cat(passes)[: steps * share].view(steps, share))
            first += count
        return list(torch.cat(indices, 1))

    def risks(self, scores: Tensor, labels: Tensor, *, equal: bool) -> Tensor:
        """Return the mean cross-entropy over each source's images (E,) or, where they are pooled, over all (1,)."""
        if not equal:
            return F.cross_entropy(scores, labels)[None]
        return F.cross_entropy(scores, labels, reduction="none").view(len(self.sources), -1).mean(1)
