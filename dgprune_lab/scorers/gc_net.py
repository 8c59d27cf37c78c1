"""GC-Net: correlations between the responses of consecutive layers, and a scorer based on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..core import CoMoments, DgpruneError, Need, note
from .contract import scorer
from .view import GroupView

Direction = Literal["out", "in", "both"]
MIN_IMAGES = 3  # images that a class needs for a correlation
ENOUGH_IMAGES = 200  # a note gives the null level for classes with fewer images
_STEADY = 1e-3  # smaller standard deviations count as 0


def correlation(sums: CoMoments, *, signed: bool = False, shuffled: bool = False) -> Tensor:
    """Return the mean over classes of the (absolute) Pearson correlation of each filter with each output of a layer.

    (E[xy] - E[x] E[y]) / (s_x s_y) over the images of a class, with population standard deviations; 0 where s_x or s_y
    is below 1e-3. Classes with fewer than 3 images are left out.

    Args:
        sums: co-moments of A filters with B outputs of a layer that consumes them.
        signed: whether to average the correlations themselves instead of their absolute values.
        shuffled: whether to use the randomly paired images in `sums`, which give the null level.

    Returns:
        (A, B) float64 in [0, 1], or in [-1, 1] if `signed`; for the random pairing at most (64, 64).

    Raises:
        DgpruneError: no class has 3 images.
    """
    classes = (sums.images >= MIN_IMAGES).nonzero().flatten().tolist()
    if not classes:
        raise DgpruneError(
            f"no class has {MIN_IMAGES} images here, so nothing can be correlated within a class; pool the classes "
            "(by_class=False), or use a domain with more images in this split."
        )
    table = sums.shuffled if shuffled else sums.cross
    total = torch.zeros(table.shape[1:], dtype=torch.float64)
    for k in classes:
        count = sums.images[k].double()
        (x, x_scale), (y, y_scale) = (
            _centre_and_scale(part[:, k, :size], count)
            for part, size in zip((sums.first, sums.second), table.shape[1:], strict=True)
        )
        rho = ((table[k] / count - torch.outer(x, y)) / torch.outer(x_scale, y_scale)).clamp(-1, 1)
        total += rho if signed else rho.abs()
    return total / len(classes)


def expected_null(images: Tensor, *, signed: bool = False) -> float:
    """Return the expected |correlation| of independent responses, averaged over classes as in `correlation`.

    About sqrt(2 / pi) / sqrt(n) for one class of n images; with `signed`, the mean over K classes is smaller by a
    factor of about sqrt(K).
    """
    counts = images[images >= MIN_IMAGES].double()
    spread = counts.reciprocal().sum().sqrt() / len(counts) if signed else counts.rsqrt().mean()
    return float(spread) * (2 / torch.pi) ** 0.5


def note_if_few(images: Mapping[str, Sequence[int]]) -> None:
    """Issue a note if the smallest class in use has fewer than 200 images.

    Args:
        images: domain -> number of images of each class.
    """
    smallest = {name: min(count for count in counts if count >= MIN_IMAGES) for name, counts in images.items()}
    name = min(smallest, key=smallest.__getitem__)
    if smallest[name] < ENOUGH_IMAGES:
        scope = "in its smallest class" if len(images[name]) > 1 else "in all"
        note(
            f"connections are correlations over {smallest[name]} images of {name!r} {scope}; independent filters have "
            f"a mean |rho| of about {0.8 / smallest[name] ** 0.5:.2f} there, so smaller differences are not "
            f"meaningful. {ENOUGH_IMAGES} images would be enough."
        )


def _centre_and_scale(sums: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Return means and standard deviations (inf where constant), given (2, C) sums and sums of squares."""
    mean, square = sums / count
    scale = (square - mean.square()).clamp_min(0).sqrt()
    return mean, torch.where(scale < _STEADY, torch.inf, scale)


def _gathers(*, by_class: bool = True, **_: object) -> tuple[Need, ...]:
    return ("class_co_moments" if by_class else "co_moments",)


def _refuses(views: dict[str, GroupView], *, by_class: bool = True, **_: object) -> str | None:
    layers = {layer for view in views.values() for layer in view.pairs}
    for name, view in views.items():
        if not view.pairs and not any(view.places_on(layer) for layer in layers):
            return f"only grouped convolutions read or produce the filters of {name!r}, so none is connected."
    first = next(iter(views.values()))
    for domain in first.sources if by_class else ():
        counts = first.class_counts(domain)
        if (largest := int(counts.max())) < MIN_IMAGES:
            return (
                f"no class of {domain!r} has {MIN_IMAGES} images that scorers may read (the largest has {largest}); "
                "pool the classes (by_class=False)."
            )
        if reason := first.co_moments_refused(tables=len(counts)):
            return reason
    return None if by_class else first.co_moments_refused(tables=1)


@scorer(
    "gc_net",
    needs=("co_moments", "class_co_moments"),
    reads={"source": "labels"},
    level="network",
    gathers=_gathers,
    refuses=_refuses,
    label="GC-Net",
)
def gc_net(
    views: dict[str, GroupView], *, direction: Direction = "out", by_class: bool = True, signed: bool = False
) -> dict[str, Tensor]:
    """Mean |correlation| with the outputs of the layers that consume a filter; weakly connected are removed first.

    rho_ij = mean over sources (equal weight) and classes of |Pearson(a_i, a_j)|, a = spatial mean of a raw convolution
    output (for a linear layer, its output); 0 where a standard deviation is below 1e-3; classes with fewer than 3
    images are left out. "out": mean of rho_ij over the outputs j of all layers that consume filter i; "in": mean of
    rho_ki over the filters k that the producers of i consume; "both": the mean of the two. Where one does not exist
    (the first layer consumes no filter; a group may be consumed only by grouped convolutions), the other is used.
    `by_class=False` correlates over all images and reads no label; `signed` omits the absolute value. `dg.gc_net`
    defines which layers are consecutive. Returns (C,) per layer, in [0, 1], or [-1, 1] if signed. A note gives the null
    level of |rho| if a class has fewer than 200 images.
    Source: Wisell and Yasaei Sekeh 2024, Ghost-Connect Net, Neural Processing Letters 57(5), arXiv:2411.09199;
    only the abstract is available, the channel form and the filter score are our reconstruction.
    """
    rho = _connections(views, by_class=by_class, signed=signed)
    scores = {}
    for name, view in views.items():
        means = torch.stack([_outgoing(view, rho), _incoming(view, rho)])
        first, second = means if direction == "out" else means.flip(0)
        scores[name] = means.nanmean(0) if direction == "both" else torch.where(first.isnan(), second, first)
    return scores


def _connections(views: dict[str, GroupView], *, by_class: bool, signed: bool) -> dict[tuple[str, str], Tensor]:
    """Return (group, layer that consumes the group) -> (A, B) correlations, averaged over the sources."""
    sources = next(iter(views.values())).sources
    rho: dict[tuple[str, str], Tensor] = {}
    images: dict[str, list[int]] = {}
    # Domains in the outer loop, the last gathered first: only one domain's sums of a large network are in memory.
    for domain in reversed(sources):
        for name, view in views.items():
            for layer in view.pairs:
                sums = view.co_moments(domain, layer=layer, by_class=by_class)
                assert sums is not None
                images[domain] = sums.images.tolist()
                part = correlation(sums, signed=signed) / len(sources)
                rho[name, layer] = rho[name, layer] + part if (name, layer) in rho else part
    note_if_few(images)
    return rho


def _outgoing(view: GroupView, rho: Mapping[tuple[str, str], Tensor]) -> Tensor:
    """Return the (C,) mean correlation over all outputs that consume the filter; NaN where there are none."""
    parts = [rho[view.name, layer] for layer in view.pairs]
    return torch.cat(parts, dim=1).mean(1) if parts else torch.full((view.filters,), torch.nan, dtype=torch.float64)


def _incoming(view: GroupView, rho: Mapping[tuple[str, str], Tensor]) -> Tensor:
    """Return the (C,) mean correlation over all filters that the filter's producers consume; NaN if there are none."""
    total, count = torch.zeros(2, view.filters, dtype=torch.float64)
    for (_, layer), part in rho.items():
        for positions, filters in view.places_on(layer):
            total.index_add_(0, filters, part.sum(0)[positions])
            count.index_add_(0, filters, torch.full((len(filters),), len(part), dtype=torch.float64))
    return total / count
