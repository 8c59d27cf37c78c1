"""Running sums of what a network computes, reduced inside its hooks: an in-place layer rewrites what was kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .contract import Need
from .types.errors import DgpruneError
from .types.graph import FilterGraph, FilterGroup
from .types.layers import CONV, is_depthwise
from .types.statistics import ClassMap, CoMoments, Moments

CO_MOMENT_BYTES = 256 * 2**20
_DOOR: frozenset[Need] = frozenset({"mean_map", "unit_map", "class_map", "moments"})
_CONV: frozenset[Need] = frozenset({"conv_map", "conv_unit_map", "co_moments", "class_co_moments"})
_SHUFFLED = 64


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
        self.pairs = pairs(model, graph) if self.needs & {"co_moments", "class_co_moments"} else []
        self._check_size(model, classes)
        self._classes = max(classes, 1)
        self._sums: dict[Any, Tensor] = {}
        self._seen: dict[Any, int] = defaultdict(int)
        self._pooled: dict[str, Tensor] = {}
        self._streams: dict[str, Tensor] = {}
        self._labels: Tensor | None = None
        self._listen(model)

    def begin(self, labels: Tensor | None) -> None:
        """Before a batch: its labels, where there are any."""
        self._labels = labels
        self._pooled.clear()
        self._streams.clear()

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
            kind, name, *rest = key if isinstance(key, tuple) else (key, "")
            if kind in ("mean_map", "unit_map"):
                found[kind][name] = (total / self._seen[key]).cpu()
            elif kind in ("conv_map", "conv_unit_map"):
                convs[kind, name].append((total / self._seen[key]).cpu())
            elif kind == "moments":
                found[kind][name] = Moments(*(total / self._seen[key]).cpu())
            elif kind == "class_map":
                images = self._sums["predicted"]
                found[kind][name] = ClassMap((total / images.clamp_min(1)[:, None]).cpu(), images.long().cpu())
            elif kind in ("co_moments", "class_co_moments") and rest[1] == "cross":
                found[kind][name, rest[0]] = self._co_moments(kind, name, rest[0])
        for (kind, name), parts in convs.items():
            found[kind][name] = tuple(parts)
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
        if self.needs & _CONV:
            readers = {layer for _, layer in self.pairs}
            for name, module in model.named_modules():
                writes = list(_written(self.graph, name)) if isinstance(module, CONV) else []
                if writes or name in readers:
                    module.register_forward_hook(self._conv(name, writes))

    def _door(self, group: FilterGroup) -> Callable[..., None]:
        places, filters = group.doors[group.consumers[-1]]
        index = places[filters.argsort(stable=True)]
        whole = torch.equal(index, torch.arange(len(index)))

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            with torch.no_grad():
                y = inputs[0].detach()
                if isinstance(module, nn.Linear):
                    y = y.movedim(-1, 1)
                spatial = y.shape[2:] if len(index) == group.filters else (-1, *y.shape[2:])
                if len(index) != y.shape[1] or not whole:
                    y = y.index_select(1, index.to(y.device))
                self._at_door(group.name, y.reshape(len(y), group.filters, *(spatial or (1,))))

        return hook

    def _at_door(self, name: str, y: Tensor) -> None:
        self._maps(y, ("mean_map", name), ("unit_map", name))
        if "moments" in self.needs:
            flat = y.flatten(2)
            sums = [flat.sum((0, 2)), flat.abs().sum((0, 2)), flat.square().sum((0, 2)), (flat == 0).sum((0, 2))]
            self._add(("moments", name), torch.stack([s.double() for s in sums]), len(flat) * flat.shape[2])
        if "class_map" in self.needs:
            self._pooled[name] = y.flatten(2).mean(2).double()

    def _maps(self, y: Tensor, mean: tuple[str, ...], unit: tuple[str, ...]) -> None:
        """Add to the mean map and to the mean of the unit maps; a layer called twice sees each image twice."""
        if mean[0] in self.needs:
            self._add(mean, y.sum(0).double(), len(y))
        if unit[0] in self.needs:
            norm = y.flatten(2).norm(dim=2).clamp_min(torch.finfo(y.dtype).tiny)
            self._add(unit, (y / norm.view(*norm.shape, *(1,) * (y.ndim - 2))).sum(0).double(), len(y))

    def _conv(self, name: str, writes: list[tuple[FilterGroup, Tensor]]) -> Callable[..., None]:
        readers = [group for group, layer in self.pairs if layer == name]

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            with torch.no_grad():
                y = output.detach()
                for group, index in writes:
                    part = y.index_select(1, index.to(y.device))
                    self._maps(part, ("conv_map", group.name, name), ("conv_unit_map", group.name, name))
                if self.pairs:
                    pooled = (y.flatten(2).mean(2) if isinstance(module, CONV) else _rows(y)).double()
                    self._connect(name, readers, pooled)
                    self._write(module, writes, pooled)

        return hook

    def _write(self, module: nn.Module, writes: list[tuple[FilterGroup, Tensor]], pooled: Tensor) -> None:
        """A convolution adds its response to the stream it writes into; one that also reads the stream rewrites it."""
        for group, index in writes:
            part, before = pooled.index_select(1, index.to(pooled.device)), self._streams.get(group.name)
            self._streams[group.name] = part if before is None or is_depthwise(module) else before + part

    def _connect(self, layer: str, groups: list[FilterGroup], second: Tensor) -> None:
        for group in groups:
            first = self._streams.get(group.name)
            if first is None:  # no convolution writes the group as a whole
                continue
            if "co_moments" in self.needs:
                self._co(("co_moments", group.name, layer), first[None], second[None])
            if "class_co_moments" in self.needs:
                assert self._labels is not None
                parts = [self._labels == k for k in range(self._classes)]
                self._co(("class_co_moments", group.name, layer), *([t[p] for p in parts] for t in (first, second)))

    def _co(self, key: tuple[str, str, str], first: Any, second: Any) -> None:
        cross, shuffled, sums = [], [], []
        for x, y in zip(first, second, strict=True):
            cross.append(x.T @ y)
            # Images lie in a random order, so each with the next one's response is a random pairing.
            shuffled.append(x[:, :_SHUFFLED].roll(1, 0).T @ y[:, :_SHUFFLED])
            sums.append((x.new_tensor([len(x)]), *(torch.stack([v.sum(0), v.square().sum(0)]) for v in (x, y))))
        self._add((*key, "cross"), torch.stack(cross), 0)
        self._add((*key, "shuffled"), torch.stack(shuffled), 0)
        for position, part in enumerate(("images", "first", "second")):
            self._add((*key, part), torch.stack([held[position] for held in sums]), 0)

    def _co_moments(self, kind: str, group: str, layer: str) -> CoMoments:
        part = {name: self._sums[kind, group, layer, name].cpu() for name in CoMoments._fields}
        return CoMoments(
            part["images"][:, 0].long(), part["first"].movedim(0, 1), part["second"].movedim(0, 1), part["cross"],
            part["shuffled"],
        )  # fmt: skip

    def _add(self, key: Any, value: Tensor, count: int) -> None:
        if key in self._sums:
            self._sums[key] += value
        else:
            self._sums[key] = value
        self._seen[key] += count

    def _check_size(self, model: nn.Module, classes: int) -> None:
        tables = ("co_moments" in self.needs) + max(classes, 1) * ("class_co_moments" in self.needs)
        size = sum(8 * tables * group.filters * _outputs(model.get_submodule(layer)) for group, layer in self.pairs)
        if size > CO_MOMENT_BYTES:
            raise DgpruneError(
                f"the co-moments of {len(self.pairs)} pairs of layers over {max(classes, 1)} classes would take "
                f"{size / 2**20:,.0f} MB, more than {CO_MOMENT_BYTES // 2**20} MB; take them over all classes together "
                "(by_class=False), or a smaller network."
            )


def pairs(model: nn.Module, graph: FilterGraph) -> list[tuple[FilterGroup, str]]:
    """Each group with each layer that reads it and mixes its filters, in the order of execution.

    Through a residual addition the layer reads the stream; through a concatenation it reads several groups, each a
    pair; a depthwise convolution stands inside its group. Grouped convolutions, which read each filter only in part
    of their outputs, make no pair.
    """
    return [
        (group, layer)
        for group in graph.groups
        for layer in group.consumers
        if getattr(model.get_submodule(layer), "groups", 1) == 1
    ]


def _written(graph: FilterGraph, layer: str) -> Iterator[tuple[FilterGroup, Tensor]]:
    """The groups that a convolution writes whole, each with the place of every filter on its output."""
    for group in graph.groups:
        for member in group.members:
            whole = len(member.filters) == len(member.filters.unique()) == group.filters
            if member.tensor == f"{layer}.weight" and member.side == "out" and whole:
                index = torch.empty(group.filters, dtype=torch.int64)
                index[member.filters] = member.positions
                yield group, index


def _rows(y: Tensor) -> Tensor:
    """(N, units) of a linear layer, the mean over the places between where there are any."""
    return y if y.ndim == 2 else y.flatten(1, -2).mean(1)


def _outputs(layer: nn.Module) -> int:
    return int(getattr(layer, "out_channels", 0) or getattr(layer, "out_features", 0))
