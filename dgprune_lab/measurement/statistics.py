"""One pass of a network over a domain: what the chosen scorers need, as running sums."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from ..core import LABELLED, Batch, DgpruneError, Domain, FilterGraph, Need, Statistics, note
from ..pruning import device_of
from .co_moments import PAIRS, CoMomentSums
from .collectors import ClassMaps, Collector, FilterMoments, Images, Maps, PairedCosines, UnitMaps, collect
from .gradients import ClassGates, RiskGradients
from .hooks import Site
from .memory_format import layout_of

# Maps of twice as many images of 28 pixels are too large for the allocator to keep, and a LeNet's pass takes 1.5 times
# as long; with fewer a ResNet's last layers have too little to do.
SIZE = 125

_COLLECTORS: dict[Need, Callable[[], Collector]] = {
    "mean_map": lambda: Maps("mean_map", site="consumer_input"),
    "unit_map": lambda: UnitMaps("unit_map", site="consumer_input"),
    "conv_map": lambda: Maps("conv_map", site="conv_output"),
    "conv_unit_map": lambda: UnitMaps("conv_unit_map", site="conv_output"),
    "moments": FilterMoments,
    "class_map": ClassMaps,
}


def gather(
    model: nn.Module,
    graph: FilterGraph,
    *,
    domain: Domain,
    needs: Collection[Need],
    split: str = "score",
    size: int = SIZE,
    layout: torch.memory_format | None = None,
) -> Statistics:
    """Run one pass over one split of a domain, in eval mode, on a private copy of the network.

    Memory does not grow with the number of images: every hook reduces what it receives to sums.

    Args:
        model: untouched; its parameters are shared with the copy, not duplicated.
        graph: its groups.
        domain: source of the images, and of the labels for gate, class_gate, weight_gradient, risk, class_co_moments.
        needs: which fields of Statistics to fill.
        split: which split of the domain.
        size: images per batch; halved, with a note, on out-of-memory.
        layout: memory format of the images; by default the one that `layout_of` finds.

    Raises:
        DgpruneError: labels are needed and there are none; the network gives non-finite outputs.
    """
    layout = layout_of(model, domain) if layout is None else layout
    labelled = bool(LABELLED & set(needs))
    if labelled and domain.labels is None:
        raise DgpruneError(f"domain {domain.name!r} has no labels; the risk, its gradients and classes need them.")
    batches = domain.batches(split, size=size, device=device_of(model), layout=layout)
    collectors = [Images(domain, split=split), *_collectors(graph, domain, set(needs))]
    try:
        fields = collect(model, graph, collectors=collectors, batches=batches)
        return Statistics(domain=domain.name, split=split, labels_read=labelled, **fields)
    except torch.OutOfMemoryError:
        if size == 1:
            raise DgpruneError(
                "the device has too little memory for a single image; use a smaller network or the CPU."
            ) from None
    # Outside the handler, which would keep the failed pass alive; from the start, as some sums were already made.
    half = -(-min(size, len(domain.rows(split))) // 2)
    note(f"memory ran out at {size} images a batch; starting again with {half}.")
    return gather(model, graph, domain=domain, needs=needs, split=split, size=half, layout=layout)


def _collectors(graph: FilterGraph, domain: Domain, needs: set[Need]) -> list[Collector]:
    """Those that fill the needed fields; class gates come before the risk, whose backward pass frees the graph."""
    collectors: list[Collector] = []
    if "class_gate" in needs:
        retain = bool(needs & {"gate", "weight_gradient"})
        collectors.append(ClassGates(graph, classes=domain.classes, retain=retain))
    if needs & LABELLED:
        collectors.append(RiskGradients(graph, needs=needs))
    collectors += [make() for need, make in _COLLECTORS.items() if need in needs]
    return [*collectors, CoMomentSums(needs & PAIRS, classes=domain.classes)] if needs & PAIRS else collectors


def paired_cosines(
    model: nn.Module,
    graph: FilterGraph,
    *,
    domains: tuple[Domain, Domain],
    site: Site,
    split: str = "score",
    size: int = SIZE,
    layout: torch.memory_format | None = None,
) -> dict[str, Tensor]:
    """Return per group the (C,) mean over i of the cosine of a filter's maps on the i-th image of each of two domains.

    A pass of its own, over both together, as many images as the smaller split has; a zero map has cosine 0. Of several
    convolutions that produce a group, the mean (site "conv_output").
    """
    count = min(len(domain.rows(split)) for domain in domains)
    layout = layout_of(model, domains[0]) if layout is None else layout
    device = device_of(model)
    streams = [domain.batches(split, size=size, images=count, device=device, layout=layout) for domain in domains]
    batches = (
        Batch(torch.cat([first.images, second.images]), None, first.index)
        for first, second in zip(*streams, strict=True)
    )
    fields = collect(model, graph, collectors=[PairedCosines("mean_map", site=site)], batches=batches)
    found = fields["mean_map"]
    return {name: torch.stack(v).mean(0) if isinstance(v, tuple) else v for name, v in found.items()}


def map_shapes(model: nn.Module, graph: FilterGraph, example: Tensor) -> dict[str, list[tuple[int, ...]]]:
    """Return per group the shape (C, H, W) of its map at its last consumer, then at each of its convolutions."""
    collectors = [_COLLECTORS["mean_map"](), _COLLECTORS["conv_map"]()]
    batch = Batch(example, None, torch.arange(len(example)))
    fields = collect(model, graph, collectors=collectors, batches=[batch])
    return {
        name: [tuple(maps.shape) for maps in (mean, *fields["conv_map"].get(name, ()))]
        for name, mean in fields["mean_map"].items()
    }
