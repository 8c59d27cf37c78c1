"""Attributions per image and filter on two domains: the data behind `sensitivity`."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import DgpruneError, Domain, Provenance, Seen
from ..measurement import TOGETHER, Attributor, Method
from ..pruning import shared_copy
from ..stats import Estimate, Floats, auroc, class_moments, cohens_d, p_values, q_values, resolution
from ..study import Study


@dataclass(frozen=True, eq=False, kw_only=True)
class Attributions:
    """One attribution per image and filter, on two domains.

    Attributes:
        method: the attribution method.
        pair: the reference domain, and the domain that is compared with it.
        split: the split that was read.
        rows: row numbers of the images in each domain.
        values: layer -> attributions on the two domains, (N, C) and (M, C) float32; all 0 for a filter whose values
            are within `resolution` of 0 on every image.
        resolution: layer -> the difference below which values count as equal, see `stats.resolution`.
        labels: true classes of the images, (N,) and (M,).
    """

    method: Method
    pair: tuple[Domain, Domain]
    split: str
    rows: tuple[Tensor, Tensor] = field(repr=False)
    values: Mapping[str, tuple[Tensor, Tensor]] = field(repr=False)
    resolution: Mapping[str, float] = field(repr=False)
    labels: tuple[NDArray[np.int64], NDArray[np.int64]] = field(repr=False)

    def stacked(self, side: int) -> Floats:
        """Return the attributions of all layers on one of the two domains (0 or 1): (N, filters of all layers)."""
        return np.concatenate([pair[side].double().numpy() for pair in self.values.values()], axis=1)

    def estimates(self, *, seed: int) -> tuple[Estimate, Estimate, Floats]:
        """Return Cohen's d and AUROC with intervals, and q-values, for the filters of all layers in order."""
        first, second = self.stacked(0), self.stacked(1)
        widths = [pair[0].shape[1] for pair in self.values.values()]
        resolved = np.repeat(list(self.resolution.values()), widths)
        d = cohens_d(first, second, labels=self.labels, seed=seed, resolution=resolved)
        area = auroc(first, second, labels=self.labels)
        return d, area, q_values(p_values(first, second, labels=self.labels))

    def active(self) -> dict[str, Tensor]:
        """Return layer -> (C,) bool: filters whose attribution varies within a class, both domains' images together.

        Silent filters and filters with a constant output do not vary: their d is 0 by definition, not measured.
        """
        labels = torch.from_numpy(np.concatenate(self.labels))
        active: dict[str, Tensor] = {}
        for name, pair in self.values.items():
            classes = [torch.cat(pair)[labels == label] for label in labels.unique()]
            ranges = torch.stack([images.amax(0) - images.amin(0) for images in classes])
            active[name] = ranges.amax(0) > self.resolution[name]
        return active

    def provenance(self, study: Study) -> Provenance:
        """Return the provenance of a network whose filters are chosen by these attributions."""
        reads: dict[str, Seen] = {f"{domain.name}/{self.split}": "labels" for domain in self.pair}
        return study.provenance.adding("scorer", reads)


def pair_of(study: Study, between: tuple[str, str] | None) -> tuple[Domain, Domain]:
    """Return the two domains to compare: those named, or the first source and the first target (or second source).

    Raises:
        DgpruneError: a study with fewer than two domains, the same domain twice, a domain without labels.
    """
    if between is None:
        domains = [*study.sources[:1], *study.targets[:1], *study.sources[1:2]]
        if len(domains) < 2:
            raise DgpruneError("sensitivity compares two domains and the study has one; add a target or a source.")
        pair = domains[0], domains[1]
    else:
        if len(between) != 2 or between[0] == between[1]:
            raise DgpruneError(f"between names two different domains, ('mnist', 'mnist_m'); got {between!r}.")
        pair = study.domain(between[0]), study.domain(between[1])
    for domain in pair:
        if domain.labels is None:
            raise DgpruneError(
                f"domain {domain.name!r} has no labels; attributions are to the logit of the true class, and domains "
                "are compared class by class."
            )
    return pair


def rows_of(domain: Domain, split: str, images: int | None = None) -> Tensor:
    """Return the row numbers of the first `images` images of a split.

    Raises:
        DgpruneError: an unknown split, or one without images.
    """
    rows = domain.rows(split, images)
    if not len(rows):
        others = ", ".join(name for name, numbers in domain.splits.items() if len(numbers)) or "none"
        raise DgpruneError(f"domain {domain.name!r} has no image in its split {split!r}; splits with images: {others}.")
    return rows


def attributor(study: Study) -> Attributor:
    """Return the Attributor of a study's network, on the study's device."""
    model = shared_copy(study.model).to(study.device)
    example = study.domains[0].take(torch.arange(min(2, len(study.domains[0]))), device=study.device).images
    return Attributor(model, study.graph, example=example)


def attribution_steps(
    study: Study,
    *,
    method: Method,
    between: tuple[str, str] | None,
    layers: Sequence[str] | None,
    images: int | None,
    split: str,
    by: Attributor | None = None,
) -> Generator[tuple[int, int], None, Attributions]:
    """Compute attributions on both domains; yield (done, total) between calls of Captum.

    Args:
        study, method, between, layers, images, split: see `sensitivity`.
        by: an existing attributor of the study's network; None makes one.
    """
    pair = pair_of(study, between)
    layer_names = study.graph.names if layers is None else [layers] if isinstance(layers, str) else layers
    names = [study.graph[name].name for name in layer_names]
    if not names:
        raise DgpruneError("sensitivity needs at least one layer; layers=None takes all.")
    by = attributor(study) if by is None else by
    rows = rows_of(pair[0], split, images), rows_of(pair[1], split, images)
    size = by.batch_size(method)
    calls = [names] if method in TOGETHER else [[name] for name in names]
    total, done = len(calls) * sum(-(-len(numbers) // size) for numbers in rows), 0
    batches: dict[str, tuple[list[Tensor], list[Tensor]]] = {name: ([], []) for name in names}
    for side, domain in enumerate(pair):
        for numbers in rows[side].split(size):
            batch = domain.take(numbers, device=study.device)
            for call in calls:
                for name, values in by.values(batch, method=method, layers=call).items():
                    if not torch.isfinite(values).all():
                        raise DgpruneError(
                            f"the network gives NaN or infinite attributions on domain {domain.name!r}; check the "
                            "domain's images and the network's weights."
                        )
                    batches[name][side].append(values)
                done += 1
                yield done, total
    joined = {name: (torch.cat(first), torch.cat(second)) for name, (first, second) in batches.items()}
    labels = _labels(pair[0], rows[0]), _labels(pair[1], rows[1])
    limits = {name: _resolution(sides, labels) for name, sides in joined.items()}
    values = {name: _zero_rounding(sides, limits[name]) for name, sides in joined.items()}
    return Attributions(
        method=method, pair=pair, split=split, rows=rows, values=values, resolution=limits, labels=labels
    )


def _resolution(values: tuple[Tensor, Tensor], labels: tuple[NDArray[np.int64], NDArray[np.int64]]) -> float:
    codes = [torch.from_numpy(part) for part in labels]
    classes = 1 + max(int(part.max()) for part in codes)
    return resolution(*(class_moments(v, part, classes=classes) for v, part in zip(values, codes, strict=True)))


def _zero_rounding(values: tuple[Tensor, Tensor], limit: float) -> tuple[Tensor, Tensor]:
    """Set to 0 the attributions of filters that never exceed the limit: they are rounding errors."""
    silent = torch.maximum(*(part.abs().amax(0) for part in values)) <= limit
    return values[0].masked_fill(silent, 0), values[1].masked_fill(silent, 0)


def _labels(domain: Domain, rows: Tensor) -> NDArray[np.int64]:
    assert domain.labels is not None
    return domain.labels[rows.to(domain.labels.device)].cpu().numpy()
