"""Which filters must be removed together, as FilterGroups: connected components of the ties found in one pass.

The components are those of the dependency graph of Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from ..core import CONV, DgpruneError, FilterGraph, FilterGroup, Member, is_depthwise
from .channel_trace import ChannelTrace
from .copies import shared_copy
from .refusals import layer_label, refusal
from .tracing import refuse_unused, refuse_wrappers, run_order

Key = TypeVar("Key", bound=Hashable)
ToFilters = Callable[[Tensor], Tensor]


def trace_groups(model: nn.Module, example: Tensor, *, layers: Literal["conv", "all"] = "conv") -> FilterGraph:
    """Return the filter groups of a network, found in one pass through a copy; `verify.read_groups` checks them.

    Raises:
        DgpruneError: a wrapper, a layer that does not run in eval mode, an image size that does not fit.
    """
    refuse_wrappers(model)
    order = run_order(shared_copy(model), example)
    trace = ChannelTrace(shared_copy(model)).run(example)
    refuse_unused(trace.model, trace.used)
    reader = _GroupReader(trace, order=order, layers=layers)
    groups, refused, total = reader.read()
    if reader.tying:  # reshapes tie whole layers: try again with the inner size fixed in the code
        second = ChannelTrace(shared_copy(model), pairs=frozenset(reader.tying)).run(example)
        retried = _GroupReader(second, order=order, layers=layers).read()
        if len(retried[1]) < len(refused):
            trace, (groups, refused, total) = second, retried
    graph = assemble(model, groups, refused=refused, order=order, example=example, layers=layers, uses=trace.uses)
    return replace(graph, total=total, products=trace.products_of(graph))


def assemble(
    model: nn.Module,
    groups: Iterable[FilterGroup],
    *,
    refused: dict[str, str],
    order: Mapping[str, int],
    example: Tensor,
    layers: Literal["conv", "all"],
    uses: dict[str, int],
) -> FilterGraph:
    """Return a FilterGraph of these groups in the order of execution; its `total` counts only these groups."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    ordered = sorted(groups, key=lambda group: order[group.name])
    free = sum(group.filters for group in ordered)
    axes: dict[str, dict[int, Tensor]] = defaultdict(dict)
    start = 0
    for group in ordered:
        for member in group.members:
            length = tensors[member.tensor].shape[member.axis]
            ids = axes[member.tensor].setdefault(member.axis, torch.full((length,), free))
            ids[member.positions] = member.filters + start
        start += group.filters
    channels, height, width = example.shape[1:]
    return FilterGraph(
        groups=tuple(replace(group, depth=depth) for depth, group in enumerate(ordered)),
        axes=dict(axes),
        shapes={name: (tuple(t.shape), t.element_size()) for name, t in tensors.items()},
        parameters=frozenset(name for name, _ in model.named_parameters()),
        uses=dict(uses),
        refused=refused,
        input_shape=(channels, height, width),
        layers=layers,
        total=free,
    )


class _GroupReader:
    """Turns the ids and ties of a trace into groups.

    Attributes:
        tying: names and classes of the layers that tie all filters of a group together.
    """

    def __init__(self, trace: ChannelTrace, *, order: Mapping[str, int], layers: Literal["conv", "all"]) -> None:
        self._trace, self._order, self._layers = trace, order, layers
        elements = trace.elements
        self._filter, unit = elements.filters(), elements.units()
        # Filters of one layer are one group, whether they are tied or not.
        chains = [(unit[ids[:-1]], unit[ids[1:]]) for ids in self._outputs().values()]
        group = elements.components(chains)[unit]
        with_filters = group[torch.cat([group.new_zeros(0), *self._outputs().values()])].unique()
        self._unit, self._group = unit, torch.where(torch.isin(group, with_filters), group, -1)
        self.tying: list[str] = []
        self._reasons: dict[int, str] = {}
        for ids, reason in elements.fixed:
            for number in self._group[ids].unique().tolist():
                self._reasons.setdefault(number, reason)
        spans = {key: torch.arange(start, start + size) for key, (start, size) in elements.starts.items()}
        self._axes = self._by_group(spans)
        self._producers, self._consumers = self._by_group(trace.producers), self._by_group(trace.consumers)
        self._ends = set(self._group[trace.outputs[trace.outputs > 0]].tolist())

    def _by_group(self, spans: Mapping[Key, Tensor]) -> dict[int, dict[Key, Tensor]]:
        """Return group -> key -> the positions, in the ids of that key, that belong to the group."""
        positions: dict[int, dict[Key, Tensor]] = defaultdict(dict)
        for key, ids in spans.items():
            groups = torch.where(ids > 0, self._group[ids], -1)
            numbers = groups.unique().tolist()
            is_single = len(numbers) == 1
            for number in (number for number in numbers if number >= 0):
                positions[number][key] = torch.arange(len(ids)) if is_single else (groups == number).nonzero().flatten()
        return positions

    def _outputs(self) -> dict[str, Tensor]:
        """Return layer -> the ids on its output, for linear layers and convolutions that are not depthwise."""
        trace = self._trace
        return {name: trace.producers[name] for name in trace.mixing if name in trace.producers}

    def read(self) -> tuple[list[FilterGroup], dict[str, str], int]:
        """Return the groups, the refused groups with reasons, and the number of filters in both.

        The network's output belongs to neither.
        """
        layers: dict[int, list[str]] = defaultdict(list)
        for name, ids in self._outputs().items():
            layers[int(self._group[ids[0]])].append(name)
        opaque = {**self._trace.opaque, **dict(self._untraced_convolutions())}
        refused = {name: reason for name, (_, reason) in opaque.items()}
        groups, total = [], sum(count for count, _ in opaque.values())
        for number, names in layers.items():
            names = sorted(names, key=lambda name: self._order.get(name, len(self._order)))
            filters = torch.cat([self._trace.producers[name] for name in names])
            first = next((n for n in names if self._covers(n, filters)), names[0])
            if number in self._ends or (self._layers == "conv" and self._trace.mixing[first] != "conv"):
                continue
            try:
                group = self._make_group(number, first, names=names)
                groups.append(group)
                total += group.filters
            except DgpruneError as error:
                refused[first] = str(error)
                total += len(self._filter[filters].unique())
        return groups, refused, total

    def _untraced_convolutions(self) -> Iterator[tuple[str, tuple[int, str]]]:
        """Yield the convolutions whose weights an untraced operation computed, as in `ChannelTrace.opaque`."""
        trace = self._trace
        for name in self._order:
            module = trace.model.get_submodule(name)
            seen = name in trace.mixing or name in trace.opaque
            if isinstance(module, CONV) and not seen and not is_depthwise(module) and module.out_channels > 1:
                yield name, (module.out_channels, refusal("opaque", where=layer_label(name, trace.model)))

    def _covers(self, name: str, filters: Tensor) -> bool:
        return bool(torch.isin(self._filter[filters], self._filter[self._trace.producers[name]]).all())

    def _make_group(self, number: int, name: str, *, names: list[str]) -> FilterGroup:
        """Return a group, named after a layer that produces all its filters if there is one, or refuse it."""
        trace = self._trace
        if number in self._reasons:
            raise DgpruneError(self._reasons[number])
        filters_of, units = self._number_filters(name, names)
        count = len(units)
        if count > 1 and int(units.max()) == 0:
            ties = trace.elements.ties()
            layers = list(dict.fromkeys(layer for ids, layer in ties if bool((self._group[ids] == number).any())))
            self.tying += layers
            where = " with ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
            raise DgpruneError(refusal("tied", where=where, detail=str(count)))
        consumers = self._read_inputs(number, filters_of, units=units)
        producers = tuple(self._producers[number])
        for layer in (*producers, *consumers):
            self._check_layer(layer, is_producer=layer in producers)
        if not consumers:
            sides = ((tensor, trace.elements.sides.get((tensor, axis))) for tensor, axis in self._axes[number])
            consumer = next((tensor.rpartition(".")[0] for tensor, side in sides if side == "in"), None)
            raise DgpruneError(refusal("unread") if consumer is None else refusal("function", where=consumer))
        producers = tuple(sorted(producers, key=self._order.__getitem__))
        ends, feeds = self._read_flow(consumers, producers)
        return FilterGroup(
            name=name,
            filters=count,
            members=tuple(self._members(number, filters_of)),
            units=units,
            producers=producers,
            consumer_inputs=consumers,
            ends=ends,
            feeds=feeds,
        )

    def _number_filters(self, name: str, names: list[str]) -> tuple[ToFilters, Tensor]:
        """Return a function from ids to the group's filters, and (C,) the unit of each filter, in order of appearance.

        Filters are the positions of the named layer, followed by those that only the other layers have.
        """
        outputs = self._trace.producers
        own = outputs[name]
        rest = torch.cat([own[:0], *(outputs[other] for other in names if other != name)])
        rest = rest[~torch.isin(self._filter[rest], self._filter[own])]
        seen: dict[int, int] = {}
        ids = [*own.tolist(), *(i for i in rest.tolist() if seen.setdefault(int(self._filter[i]), i) == i)]
        components = self._filter[torch.tensor(ids)]
        ordered, number = components.sort(stable=True)
        first: dict[int, int] = {}
        units = [first.setdefault(unit, len(first)) for unit in self._unit[torch.tensor(ids)].tolist()]

        def filters_of(ids: Tensor) -> Tensor:
            """Return the filter of each id; where a channel sums several filters (added chunks), ids take turns."""
            targets, places = self._filter[ids].sort(stable=True)
            start, end = torch.searchsorted(ordered, targets), torch.searchsorted(ordered, targets, right=True)
            offset = torch.arange(len(ids)) - torch.searchsorted(targets, targets)
            return torch.empty_like(places).index_copy_(0, places, number[start + offset % (end - start)])

        return filters_of, torch.tensor(units)

    def _check_layer(self, layer: str, *, is_producer: bool) -> None:
        """Refuse a layer that could be cut but not measured: not a convolution, linear or norm module."""
        module = self._trace.model.get_submodule(layer)
        where = layer_label(layer, self._trace.model)
        is_known = isinstance(module, (*CONV, nn.Linear, nn.GroupNorm, nn.modules.batchnorm._NormBase))
        if layer not in self._order:
            where = layer if is_known else layer_label(layer.rpartition(".")[0], self._trace.model)
            raise DgpruneError(refusal("function" if is_known else "own", where=where))
        if not is_known:
            raise DgpruneError(refusal("own", where=where))
        own = self._trace.elements.names.get(id(module.weight), "")
        if is_producer and own and own != f"{layer}.weight":
            raise DgpruneError(refusal("shared", where=where, detail=own))

    def _read_inputs(self, number: int, filters_of: ToFilters, *, units: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return consumer -> (positions on its input axis, filters there), in the order of execution."""
        ids, consumers = self._trace.consumers, self._consumers[number]
        inputs = {
            name: _balance_positions(at, filters_of(ids[name][at]), units=units) for name, at in consumers.items()
        }
        last = len(self._order)
        return dict(sorted(inputs.items(), key=lambda item: self._order.get(item[0], last)))

    def _members(self, number: int, filters_of: ToFilters) -> Iterator[Member]:
        """Yield each tensor axis that carries filters of the group."""
        elements = self._trace.elements
        for (tensor, axis), at in self._axes[number].items():
            filters, side = filters_of(elements.starts[tensor, axis][0] + at), elements.sides.get((tensor, axis), "out")
            yield Member(tensor=tensor, axis=axis, side=side, positions=at, filters=filters)

    def _read_flow(
        self, consumers: Iterable[str], producers: tuple[str, ...]
    ) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
        """Return `ends`, producers whose output reaches a consumer directly, and `feeds`, consumer -> its producers."""
        reads = {layer: self._trace.reads[layer] for layer in consumers}
        written = {end for marks in reads.values() for mark in marks for end in mark.ends}
        feeds = {layer: {feed for mark in marks for feed in mark.feeds} for layer, marks in reads.items()}
        ordered = {layer: tuple(p for p in producers if p in feeding) for layer, feeding in feeds.items()}
        return tuple(p for p in producers if p in written), {layer: fed for layer, fed in ordered.items() if fed}


def _balance_positions(positions: Tensor, filters: Tensor, *, units: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions on a consumer's input axis, and their filters, such that each filter occurs equally often.

    Where a gate or a shuffle merges the filters of a unit into one channel, each of them gets this channel. Of filters
    that occur more often than others, the first positions are kept.
    """
    counts = filters.bincount(minlength=len(units))
    if len(counts.unique()) == 1:
        return positions, filters
    by_filter = {f: positions[filters == f] for f in counts.nonzero().flatten().tolist()}
    by_unit: dict[int, Tensor] = {}
    for filter_, places in by_filter.items():
        by_unit.setdefault(int(units[filter_]), places)
    balanced = {f: by_filter.get(f, by_unit[unit]) for f, unit in enumerate(units.tolist()) if unit in by_unit}
    count = min(len(places) for places in balanced.values())
    repeated = torch.tensor(list(balanced)).repeat_interleave(count)
    return torch.cat([places[:count] for places in balanced.values()]), repeated
