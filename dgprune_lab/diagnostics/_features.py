"""The pooled features of the same images in the full and in pruned networks: what `feature_shift` is made of."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..core import BatchNorm, DgpruneError, Mask, yielding
from ..stats import FEWEST, standardised
from ..study import Study

Floats = NDArray[np.float64]
Words = tuple[str, float]
"""What is being done, and the share of it that is done."""


@dataclass(frozen=True, eq=False)
class Features:
    """Pooled features of the same images under several masks, standardised by the first source in the full network.

    Attributes:
        layer: the group.
        split: the part that was read.
        batchnorm: under the masks; the full network is as given.
        masks: what is removed; the first is None, the full network.
        rows: domain -> (N,) row numbers of its images.
        labels: domain -> (N,) true classes, or None.
        values: per mask, domain -> (N, C); removed filters are zero columns.
    """

    layer: str
    split: str
    batchnorm: BatchNorm
    masks: tuple[Mask | None, ...]
    rows: Mapping[str, NDArray[np.int64]] = field(repr=False)
    labels: Mapping[str, NDArray[np.int64] | None] = field(repr=False)
    values: tuple[Mapping[str, Floats], ...] = field(repr=False)

    @property
    def stacked(self) -> Floats:
        """(masks x images of all domains, C): mask by mask, in each domain by domain."""
        return np.concatenate([part for held in self.values for part in held.values()])

    def linear(self) -> Floats:
        """(rows of `stacked`, 2) on the two principal axes of the full network's features, which no mask changes."""
        full = np.concatenate(list(self.values[0].values()))
        centre = full.mean(0)
        axes = np.linalg.svd(full - centre, full_matrices=False)[2][:2]
        axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
        places = (self.stacked - centre) @ axes.T
        return np.pad(places, ((0, 0), (0, 2 - places.shape[1])))


def features_steps(
    study: Study, layer: str, *, masks: Sequence[Mask], batchnorm: BatchNorm, images: int | None, split: str
) -> Generator[Words, None, Features]:
    """The features of the full network and under each mask; yields between batches.

    Raises:
        DgpruneError: an unknown layer; a domain without an image; features that are constant in all domains.
    """
    every: tuple[Mask | None, ...] = (None, *masks)
    raw: list[dict[str, Floats]] = []
    for k, mask in enumerate(every):
        # The full network is what the others are compared with: as given.
        norm: BatchNorm = "as_is" if mask is None else batchnorm
        found: dict[str, Floats] = {}
        for domain in study.domains:
            steps = study.feature_steps(
                mask, layer=layer, domain=domain.name, split=split, batchnorm=norm, images=images
            )
            features = yield from yielding(steps, ("features", k / len(every)))
            if len(features) < FEWEST:
                raise DgpruneError(
                    f"domain {domain.name!r} has {len(features)} images in its part {split!r}; comparing features "
                    f"takes at least {FEWEST}."
                )
            found[domain.name] = features.double().numpy()
        raw.append(found)
    rows = {d.name: d.rows(split, images) for d in study.domains}
    labels = {
        d.name: None if d.labels is None else d.labels[rows[d.name].to(d.labels.device)].cpu().numpy()
        for d in study.domains
    }
    base = raw[0][study.sources[0].name]
    standard = _standard(raw, by=base, layer=layer)
    for mask, found in zip(every, standard, strict=True):
        gone = np.zeros(base.shape[1], dtype=bool) if mask is None else ~mask.keep[layer].numpy()
        for values in found.values():
            values[:, gone] = 0.0
    numbers = {name: held.numpy() for name, held in rows.items()}
    return Features(layer, split, batchnorm, every, numbers, labels, tuple(standard))


def _standard(raw: Sequence[Mapping[str, Floats]], *, by: Floats, layer: str) -> list[dict[str, Floats]]:
    """All masks' features, standardised by one of them."""
    try:
        standardised(raw[0], by=by)
    except DgpruneError as error:
        raise DgpruneError(f"layer {layer!r}: {error}") from None
    flat = {f"{k}/{name}": values for k, found in enumerate(raw) for name, values in found.items()}
    done = standardised(flat, by=by)
    return [{name: done[f"{k}/{name}"] for name in found} for k, found in enumerate(raw)]
