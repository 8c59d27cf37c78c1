"""Pooled features of the same images in the full and in pruned networks: the data behind `feature_shift`."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import BatchNorm, DgpruneError, Mask, yielding
from ..stats import FEWEST, Floats, standardised
from ..study import Study


@dataclass(frozen=True, eq=False, kw_only=True)
class Features:
    """Pooled features of the same images under several masks, standardised by the full network's on the first source.

    Attributes:
        layer: name of the group whose outputs are the features.
        split: the split that was read.
        batchnorm: the BatchNorm setting under the masks; the full network runs as given.
        masks: the masks; the first is None, for the full network.
        rows: domain -> (N,) row numbers of its images.
        labels: domain -> (N,) true classes, or None.
        values: for each mask, domain -> features (N, C); removed filters are zero columns.
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
        """All features in one table (masks x images of all domains, C), ordered by mask, then by domain."""
        return np.concatenate([values for by_domain in self.values for values in by_domain.values()])

    def linear(self) -> Floats:
        """Project `stacked` on the two principal axes of the full network's features: (rows, 2)."""
        full = np.concatenate(list(self.values[0].values()))
        centre = full.mean(0)
        axes = np.linalg.svd(full - centre, full_matrices=False)[2][:2]
        axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
        projected = (self.stacked - centre) @ axes.T
        return np.pad(projected, ((0, 0), (0, 2 - projected.shape[1])))


def features_steps(
    study: Study,
    layer: str,
    *,
    masks: Sequence[Mask],
    batchnorm: BatchNorm,
    images: int | None,
    split: str,
    calibration: int = 500,
) -> Generator[float, None, Features]:
    """Compute the features in the full network and under each mask; yield the fraction done between batches.

    Raises:
        DgpruneError: an unknown layer; a domain with too few images; features that are constant in all domains.
    """
    all_masks: tuple[Mask | None, ...] = (None, *masks)
    raw: list[dict[str, Floats]] = []
    for k, mask in enumerate(all_masks):
        # The full network, the reference, is never recalibrated.
        setting: BatchNorm = "as_is" if mask is None else batchnorm
        features: dict[str, Floats] = {}
        for domain in study.domains:
            options: Any = {"images": images, "batchnorm": setting, "calibration": calibration}
            steps = study.feature_steps(mask, layer=layer, domain=domain.name, split=split, **options)
            values = yield from yielding(steps, k / len(all_masks))
            if len(values) < FEWEST:
                raise DgpruneError(
                    f"domain {domain.name!r} has {len(values)} images in its split {split!r}; comparing features "
                    f"takes at least {FEWEST}."
                )
            features[domain.name] = values.double().numpy()
        raw.append(features)
    values = tuple(_standardised(raw, by=raw[0][study.sources[0].name], layer=layer))
    for mask, features in zip(masks, values[1:], strict=True):
        for pruned in features.values():
            pruned[:, ~mask.keep[layer].numpy()] = 0.0
    rows = {d.name: d.rows(split, images) for d in study.domains}
    labels = {
        d.name: None if d.labels is None else d.labels[rows[d.name].to(d.labels.device)].cpu().numpy()
        for d in study.domains
    }
    return Features(
        layer=layer,
        split=split,
        batchnorm=batchnorm,
        masks=all_masks,
        rows={name: numbers.numpy() for name, numbers in rows.items()},
        labels=labels,
        values=values,
    )


def _standardised(raw: Sequence[Mapping[str, Floats]], *, by: Floats, layer: str) -> list[dict[str, Floats]]:
    """Standardise the features under all masks by the mean and standard deviation of the set `by`."""
    try:
        standardised(raw[0], by=by)  # refuses features that are constant
    except DgpruneError as error:
        raise DgpruneError(f"layer {layer!r}: {error}") from None
    tables = [values for features in raw for values in features.values()]
    scaled = standardised({layer: np.concatenate(tables)}, by=by)[layer]
    parts = iter(np.split(scaled, np.cumsum([len(values) for values in tables])[:-1]))
    return [{name: next(parts) for name in features} for features in raw]
