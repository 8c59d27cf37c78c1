"""Running sums of what a network computes, reduced inside its hooks: an in-place layer rewrites what was kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core import CONV, ClassMap, DgpruneError, FilterGraph, FilterGroup, Moments, Need
from .co_moments import PairSums

CO_MOMENT_BYTES = 256 * 2**20
_DOOR: frozenset[Need] = frozenset({"mean_map", "unit_map", "class_map", "moments"})
_RAW: frozenset[Need] = frozenset({"conv_map", "conv_unit_map"})
PAIRS: frozenset[Need] = frozenset({"co_moments", "class_co_moments"})
_BLOCK = 2**18


class Running:
    """Sums over the images that pass through a private copy of a network.

    Args:
        model: the private copy; its hooks go with it.
        graph: its groups.
        needs: which sums; others are passed over.
        classes: number of classes of the domain, for class_co_moments; 0 where nobody knows.

    Raises:
        DgpruneError: the co-moments would take more than 256 MB; nothing is allocated then.
    """

    def __init__(self, model: nn.Module, graph: FilterGraph, *, needs: Collection[Need], classes: int = 0) -> None:
        self.graph, self.needs = graph, frozenset(needs)
        self.pairs = pairs(model, graph) if self.needs & PAIRS else []
        self._check_size(model, classes)
        self._classes = max(classes, 1)
        self._sums: dict[Any, Tensor] = {}
        self._seen: dict[Any, int] = defaultdict(int)
        self._pooled: dict[str, Tensor] = {}
        self._means: dict[str, Tensor] = {}
        self._pair_sums: dict[tuple[Need, str, str], PairSums] = {}
        self._labels: Tensor | None = None
        self._listen(model)

    def begin(self, labels: Tensor | None) -> None:
        """Before a batch: its labels, where there are any."""
        self._labels = labels
        self._pooled.clear()
        self._means.clear()

    def end(self, logits: Tensor) -> None:
        """After a batch: what the network predicted."""
        if "class_map" not in self.needs:
            return
        predicted = logits.detach().argmax(1)
        for name, pooled in self._pooled.items():
            sums = pooled.new_zeros(logits.shape[1], pooled.shape[1]).index_add_(0, predicted, pooled)
            self._add(("class_map", name), sums, 0)
        self._add("predicted", torch.bincount(predicted, minlength=logits.shape[1]).double(), 0)

    def results(self) -> dict[str, dict[Any, Any]]:
        """The sums as fields of `Statistics`, on the CPU."""
        found: dict[str, dict[Any, Any]] = defaultdict(dict)
        convs: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        for key, total in self._sums.items():
            kind, name, *_ = key if isinstance(key, tuple) else (key, "")
            if kind in ("mean_map", "unit_map"):
                found[kind][name] = (total / self._seen[key]).cpu().contiguous()
            elif kind in ("conv_map", "conv_unit_map"):
                convs[kind, name].append((total / self._seen[key]).cpu().contiguous())
            elif kind == "moments":
                found[kind][name] = Moments(*(total / self._seen[key]).cpu())
            elif kind == "class_map":
                images = self._sums["predicted"]
                found[kind][name] = ClassMap((total / images.clamp_min(1)[:, None]).cpu(), images.long().cpu())
        for (kind, name), parts in convs.items():
            found[kind][name] = tuple(parts)
        for (kind, name, layer), sums in self._pair_sums.items():
            found[kind][name, layer] = sums.result()
        return found

    def shapes(self) -> dict[str, list[tuple[int, ...]]]:
        """Group -> the shape (C, ...) of its map at the door, then of each raw convolution output."""
        found: dict[str, list[tuple[int, ...]]] = defaultdict(list)
        for kind in ("mean_map", "conv_map"):
            for key, total in self._sums.items():
                if key[0] == kind:
                    found[key[1]].append(tuple(total.shape))
        return found

    def _listen(self, model: nn.Module) -> None:
        if self.needs & _DOOR:
            for group in self.graph.groups:
                model.get_submodule(group.consumers[-1]).register_forward_pre_hook(self._door(group))
        if self.needs & (_RAW | PAIRS):
            used = {layer for group, reader in self.pairs for layer in (reader, *group.feeds.get(reader, ()))}
            for name, module in model.named_modules():
                writes = list(_whole(self.graph, name)) if isinstance(module, CONV) else []
                if writes or name in used:
                    module.register_forward_hook(self._conv(name, writes))

    def _door(self, group: FilterGroup) -> Callable[..., None]:
        places, filters = group.consumer_inputs[group.consumers[-1]]
        index = places[filters.argsort(stable=True)]

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            with torch.no_grad():
                y = inputs[0].detach()
                if isinstance(module, nn.Linear):
                    y = y.movedim(-1, 1)
                spatial = y.shape[2:] if len(index) == group.filters else (-1, *y.shape[2:])
                y = _select(y, index)
                self._at_door(group.name, y.reshape(len(y), group.filters, *(spatial or (1,))))

        return hook

    def _at_door(self, name: str, y: Tensor) -> None:
        self._maps(y, ("mean_map", name), ("unit_map", name))
        if "moments" in self.needs:
            for part in _blocks(y):
                flat = part.flatten(2)
                kinds = flat, flat.abs(), flat.square(), flat.clone().eq_(0)  # a float; bools are slow to count
                sums = torch.stack([kind.sum((0, 2)) for kind in kinds]).double()
                self._add(("moments", name), sums, len(flat) * flat.shape[2])
        if "class_map" in self.needs:
            self._pooled[name] = y.flatten(2).mean(2).double()

    def _maps(self, y: Tensor, mean: tuple[str, ...], unit: tuple[str, ...]) -> None:
        """Add to the mean map and to the mean of the unit maps; a layer called twice sees each image twice."""
        if mean[0] in self.needs:
            self._add(mean, _over_images(y).double(), len(y))
        for part in _blocks(y) if unit[0] in self.needs else ():
            # In float64: the squares of a nearly silent filter are zero in float32, its values are not.
            norm = part.flatten(2).double().square().sum(2).sqrt()  # ten times as fast as vector_norm, channels last
            norm = norm.to(y.dtype).clamp_min(torch.finfo(y.dtype).tiny)
            self._add(unit, _over_images(part / norm.view(*norm.shape, *(1,) * (y.ndim - 2))).double(), len(part))

    def _conv(self, name: str, writes: list[tuple[FilterGroup, Tensor]]) -> Callable[..., None]:
        consumers = [group for group, layer in self.pairs if layer == name]
        mapped = writes if self.needs & _RAW else []

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            with torch.no_grad():
                y = output.detach()
                for group, index in mapped:
                    part = _select(y, index)
                    self._maps(part, ("conv_map", group.name, name), ("conv_unit_map", group.name, name))
                if self.pairs:
                    means = y.flatten(2).mean(2) if isinstance(module, CONV) else _rows(y)
                    self._means[name] = means.to(torch.float64, copy=True)
                    self._connect(name, consumers)

        return hook

    def _response(self, group: FilterGroup, reader: str) -> Tensor | None:
        """(N, C) the sum of what the layers that feed this reader have written of each filter."""
        total = None
        for layer in group.feeds.get(reader, ()):
            for positions, filters in written(group, layer) if layer in self._means else ():
                part = _select(self._means[layer], positions)
                if not _in_order(filters, group.filters):
                    part = part.new_zeros(len(part), group.filters).index_add_(1, filters.to(part.device), part)
                total = part if total is None else total + part
        return total

    def _connect(self, layer: str, groups: list[FilterGroup]) -> None:
        second = self._means[layer]
        for group in groups:
            first = self._response(group, layer)
            if first is None:
                continue
            for kind in sorted(self.needs & PAIRS):
                self._co((kind, group.name, layer), first, second)

    def _co(self, key: tuple[Need, str, str], first: Tensor, second: Tensor) -> None:
        labels, classes = torch.zeros(len(first), dtype=torch.int64, device=first.device), 1
        if key[0] == "class_co_moments":
            assert self._labels is not None
            labels, classes = self._labels, self._classes
        if key not in self._pair_sums:
            self._pair_sums[key] = PairSums(first, second, classes=classes)
        self._pair_sums[key].add(first, second, labels)

    def _add(self, key: Any, value: Tensor, count: int) -> None:
        if key in self._sums:
            self._sums[key] += value
        else:
            self._sums[key] = value
        self._seen[key] += count

    def _check_size(self, model: nn.Module, classes: int) -> None:
        tables = ("co_moments" in self.needs) + max(classes, 1) * ("class_co_moments" in self.needs)
        if why := too_large(model, self.pairs, tables=tables):
            raise DgpruneError(why)


def too_large(model: nn.Module, listed: Sequence[tuple[FilterGroup, str]], *, tables: int) -> str | None:
    """Why the co-moments of these pairs, a table for each class, are not taken; None where they are small enough."""
    size = sum(8 * tables * group.filters * outputs(model.get_submodule(layer)) for group, layer in listed)
    if size <= CO_MOMENT_BYTES:
        return None
    what = f"over {tables} classes" if tables > 1 else "over all classes together"
    instead = "take them over all classes together (by_class=False), or a smaller" if tables > 1 else "take a smaller"
    return (
        f"the co-moments of {len(listed)} pairs of layers {what} would take {size / 2**20:,.0f} MB, more than "
        f"{CO_MOMENT_BYTES // 2**20} MB; {instead} network."
    )


def pairs(model: nn.Module, graph: FilterGraph) -> list[tuple[FilterGroup, str]]:
    """Each group with each layer that reads it and mixes its filters: consecutive layers, in the order of execution.

    What a reader gets a group from says the dependency graph (`FilterGroup.feeds`); the response of a filter there is
    the sum of the raw outputs of these layers. Behind a residual addition they are all that the stream adds up; behind
    a depthwise convolution it is that alone. Through a concatenation a layer reads several groups, each a pair.
    Grouped convolutions, which read each filter only for some of their outputs, make no pair.
    """
    order = {weight.rpartition(".")[0]: k for k, weight in enumerate(graph.uses)}
    found = [
        (group, layer)
        for group in graph.groups
        for layer in group.consumers
        if group.feeds.get(layer) and getattr(model.get_submodule(layer), "groups", 1) == 1
    ]
    return sorted(found, key=lambda pair: (order[pair[1]], pair[0].depth))


def written(group: FilterGroup, layer: str) -> list[tuple[Tensor, Tensor]]:
    """Places on a layer's output axis and the filters of the group there; empty where it writes none of them."""
    return [(m.positions, m.filters) for m in group.members if m.tensor == f"{layer}.weight" and m.side == "out"]


def _whole(graph: FilterGraph, layer: str) -> Iterator[tuple[FilterGroup, Tensor]]:
    """The groups that a convolution writes whole, each with the place of every filter on its output."""
    for group in graph.groups:
        for positions, filters in written(group, layer):
            if len(filters) == len(filters.unique()) == group.filters:
                index = torch.empty(group.filters, dtype=torch.int64)
                index[filters] = positions
                yield group, index


def _select(y: Tensor, places: Tensor) -> Tensor:
    """y[:, places], and y itself where these are all in order."""
    return y if _in_order(places, y.shape[1]) else y.index_select(1, places.to(y.device))


def _in_order(places: Tensor, count: int) -> bool:
    return len(places) == count and torch.equal(places, torch.arange(count))


def _blocks(y: Tensor) -> tuple[Tensor, ...]:
    """Images in blocks of about 1 MB: what is made of one stays in the processor's cache and in memory at hand."""
    return y.split(max(1, _BLOCK * len(y) // max(1, y.numel())))


def _over_images(y: Tensor) -> Tensor:
    """The sum over images, read in the order of memory: along the channels-first axes it takes ten times as long."""
    last = y.movedim(1, -1)
    if y.is_contiguous() or not last.is_contiguous():
        return y.sum(0)
    return last.flatten(1).sum(0).view(last.shape[1:]).movedim(-1, 0)


def _rows(y: Tensor) -> Tensor:
    """(N, units) of a linear layer, the mean over the places between where there are any."""
    return y if y.ndim == 2 else y.flatten(1, -2).mean(1)


def outputs(layer: nn.Module) -> int:
    """How many channels or units a convolution or linear layer writes."""
    return int(getattr(layer, "out_channels", 0) or getattr(layer, "out_features", 0))
