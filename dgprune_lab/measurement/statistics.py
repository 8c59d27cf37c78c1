"""The statistics that the chosen scorers need, from one pass of a network over a domain."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from operator import itemgetter
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ..core import LABELLED, Batch, DgpruneError, Domain, FilterGraph, Moments, Need, Statistics, drain, note
from ..pruning import device_of, shared_copy
from .batch_size import TOO_LITTLE, batch_size, layout_of
from .co_moments import PAIRS, CoMomentSums
from .collectors import ClassMaps, Collector, Images, Means, Reduce, collecting, half_cosines, maps, moments, unit_maps
from .gradients import ClassGates, RiskGradients
from .hooks import Site
from .taps import MapKey, Taps

_MEANS: dict[Need, tuple[Site, Reduce, Callable[[list[Tensor]], Any]]] = {
    "activation_map": ("activation", maps, itemgetter(0)),
    "activation_unit_map": ("activation", unit_maps, itemgetter(0)),
    "mean_map": ("consumer_input", maps, itemgetter(0)),
    "unit_map": ("consumer_input", unit_maps, itemgetter(0)),
    "conv_map": ("conv_output", maps, tuple),
    "conv_unit_map": ("conv_output", unit_maps, tuple),
    "moments": ("consumer_input", moments, lambda means: Moments(*means[0])),
}


def gather(
    model: nn.Module,
    graph: FilterGraph,
    *,
    domain: Domain,
    needs: Collection[Need],
    split: str = "score",
    size: int | None = None,
    layout: torch.memory_format | None = None,
) -> Statistics:
    """Return the result of `gathering`."""
    return drain(gathering(model, graph, domain=domain, needs=needs, split=split, size=size, layout=layout))


def gathering(
    model: nn.Module,
    graph: FilterGraph,
    *,
    domain: Domain,
    needs: Collection[Need],
    split: str = "score",
    size: int | None = None,
    layout: torch.memory_format | None = None,
) -> Generator[int, None, Statistics]:
    """Run one pass over one split of a domain, in eval mode, on a private copy that shares the parameters.

    Yields the number of images of each batch.

    Args:
        model, graph: the network and its filter groups.
        domain, split: the split of the domain whose images are read; for needs in `LABELLED`, its labels too.
        needs: names of the fields of Statistics to fill.
        size: images per batch, by default `batch_size`; halved, with a note, on out-of-memory.
        layout: memory format of the images, by default `layout_of`.

    Raises:
        DgpruneError: labels are needed but the domain has none; outputs of the network that are not finite.
    """
    layout = layout_of(model, domain) if layout is None else layout
    labelled = bool(LABELLED & set(needs))
    if labelled and domain.labels is None:
        raise DgpruneError(f"domain {domain.name!r} has no labels; the risk, its gradients and classes need them.")
    size = size or _fit_batch_size(model, domain, gradients=labelled)
    batches = domain.batches(split, size=size, device=device_of(model), layout=layout)
    collectors = [Images(domain, split=split), *_collectors(graph, domain, set(needs))]
    try:
        fields = yield from collecting(model, graph, collectors=collectors, batches=batches)
        return Statistics(domain=domain.name, split=split, labels_read=labelled, **fields)
    except torch.OutOfMemoryError:
        if size == 1:
            raise DgpruneError(TOO_LITTLE) from None
    # Outside the handler, which would keep the failed pass alive; from the start, as the sums are incomplete.
    del batches, collectors
    half = -(-min(size, len(domain.rows(split))) // 2)
    note(f"memory ran out at {size} images a batch; starting again with {half}.")
    return (yield from gathering(model, graph, domain=domain, needs=needs, split=split, size=half, layout=layout))


def _fit_batch_size(model: nn.Module, domain: Domain, *, gradients: bool) -> int:
    return batch_size(model, domain.take(torch.arange(1), device=device_of(model)).images, gradients=gradients)


def _collectors(graph: FilterGraph, domain: Domain, needs: set[Need]) -> list[Collector]:
    """Return the collectors for some needs; class gates precede the risk, whose backward pass frees the graph."""
    collectors: list[Collector] = []
    if "class_gate" in needs:
        retain = bool(needs & {"gate", "weight_gradient"})
        collectors.append(ClassGates(graph, classes=domain.classes, retain=retain))
    if needs & LABELLED:
        collectors.append(RiskGradients(graph, needs=needs))
    collectors += [
        Means(need, site, reduce=reduce, finish=finish)
        for need, (site, reduce, finish) in _MEANS.items()
        if need in needs
    ]
    if "class_map" in needs:
        collectors.append(ClassMaps())
    return [*collectors, CoMomentSums(needs & PAIRS, domain=domain)] if needs & PAIRS else collectors


def paired_cosines(
    model: nn.Module,
    graph: FilterGraph,
    *,
    domains: tuple[Domain, Domain],
    site: Site,
    split: str = "score",
    size: int | None = None,
    layout: torch.memory_format | None = None,
) -> dict[str, Tensor]:
    """Return group -> (C,) mean over i of the cosine between a filter's maps on the i-th images of two domains.

    A separate pass runs over both domains together, over as many images as the smaller split has. The cosine with a
    zero map is 0. At site "conv_output" it is the mean over the convolutions that produce the group.
    """
    count = min(len(domain.rows(split)) for domain in domains)
    layout, device = layout_of(model, domains[0]) if layout is None else layout, device_of(model)
    size = size or -(-_fit_batch_size(model, domains[0], gradients=False) // 2)
    streams = [domain.batches(split, size=size, images=count, device=device, layout=layout) for domain in domains]
    batches = (
        Batch(torch.cat([first.images, second.images]), None, first.index)
        for first, second in zip(*streams, strict=True)
    )
    cosines = Means("mean_map", site, reduce=half_cosines, finish=lambda means: torch.stack(means).mean(0))
    return drain(collecting(model, graph, collectors=[cosines], batches=batches))["mean_map"]


class MapShapes(NamedTuple):
    """Shapes (C, H, W) of one group's maps.

    Attributes:
        sites: site -> shapes of its maps: at "conv_output" one per convolution, and none for a linear layer.
        activation_found: whether the map after the activation was found; otherwise the consumer input replaces it.
    """

    sites: Mapping[Site, tuple[tuple[int, ...], ...]]
    activation_found: bool


def map_shapes(model: nn.Module, graph: FilterGraph, example: Tensor) -> dict[str, MapShapes]:
    """Return group -> the shapes of its maps at the three sites."""
    shapes: dict[str, dict[Site, dict[str, tuple[int, ...]]]] = {
        group.name: {site: {} for site in get_args(Site)} for group in graph.groups
    }
    taps = Taps(shared_copy(model), graph)
    for site in get_args(Site):

        def record(key: MapKey, maps: Tensor, site: Site = site) -> None:
            shapes[key[0]][site][key[1]] = tuple(maps.shape[1:])

        taps.listen(site, record)
    with torch.no_grad():
        taps.run(example)
    return {
        name: MapShapes({site: tuple(maps.values()) for site, maps in sites.items()}, "" in sites["activation"])
        for name, sites in shapes.items()
    }
