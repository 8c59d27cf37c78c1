"""Outcomes of one network under many masks, sharing what the masks have in common."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Batch, DgpruneError, Domain, FilterGraph, Mask, Outcomes
from ..pruning import device_of, private, pruned_view, rebuild
from .memory_format import layout_of
from .outcomes import join, outcome_batches
from .recalibrate import calibration_batches, calibration_images, calibration_steps, has_batchnorm
from .shared_prefix import Replayed, Stem, find_shared_prefix, record

_STEM_BYTES = 192 * 2**20
_SIZE = 250


@dataclass(frozen=True)
class _Base:
    """The dense network of one BatchNorm setting, and what its stem gave while statistics were collected."""

    model: nn.Module
    calibration: list[Tensor] | None


class Evaluator:
    """Runs a network, pruned by any mask, over its domains; the argument is never touched.

    Args:
        model: the full network.
        graph: its groups.
        domains: its domains, with roles; sources are what BatchNorm is re-estimated on.

    Attributes:
        layout: how images lie in memory while the network reads them.
    """

    def __init__(self, model: nn.Module, graph: FilterGraph, *, domains: tuple[Domain, ...]) -> None:
        self.graph, self.domains = graph, domains
        self._lock = threading.RLock()
        self.device = device_of(model)
        self._dense = private(model)
        self._norm = has_batchnorm(model)
        self.layout = layout_of(self._dense, domains[0])
        self._bases: dict[int, _Base] = {}
        self._stem: Stem | bool | None = False
        self._held: OrderedDict[tuple[object, ...], list[Tensor]] = OrderedDict()
        self._last: tuple[tuple[object, ...], nn.Module] | None = None

    def steps(
        self, mask: Mask | None, *, domain: Domain, split: str, images: int | None, calibration: int
    ) -> Generator[None, None, Outcomes]:
        """Outcomes of the network under a mask; yields between batches, so that whoever drives it may stop.

        Args:
            mask: what is removed; None for the full network.
            domain: where the images come from.
            split: which part.
            images: only the first so many.
            calibration: source images that BatchNorm statistics are re-estimated on after pruning; 0 leaves them.
        """
        calibration = calibration if self._norm else 0
        model = yield from self._built(mask, calibration)
        batches = outcome_batches(model, self._inputs(model, domain, split, images, calibration), domain)
        parts: list[Outcomes] = []
        while True:
            # A replayed network holds its input while it runs, so two threads take turns, batch by batch.
            with self._lock:
                part = next(batches, None)
            if part is None:
                return join(parts)
            parts.append(part)
            yield

    def feature_steps(
        self, mask: Mask | None, *, layer: str, domain: Domain, split: str, images: int | None, calibration: int
    ) -> Generator[None, None, Tensor]:
        """(N, C) float32 pooled outputs of a group under a mask, on the CPU; removed filters are zero columns.

        Pooled: the mean over places of what the last layer that reads the group gets. Yields between batches.
        """
        calibration = calibration if self._norm else 0
        model = yield from self._built(mask, calibration)
        consumer_input, inner = (
            PooledOutputs(self.graph, layer, mask),
            model.small if isinstance(model, Replayed) else model,
        )
        batches = self._inputs(model, domain, split, images, calibration)
        parts: list[Tensor] = []
        while True:
            with self._lock:
                batch = next(batches, None)
                if batch is not None:
                    with torch.inference_mode(), consumer_input.open(inner) as found:
                        model(batch.images)
                    parts.append(torch.stack(found).mean(0))  # a layer may be called several times
            if batch is None:
                break
            yield
        features = torch.cat(parts)
        if not torch.isfinite(features).all():
            raise DgpruneError(
                f"domain {domain.name!r}: what layer {layer!r} gives is NaN or infinite; check the domain's images and "
                "the network's weights."
            )
        return features

    def _built(self, mask: Mask | None, calibration: int) -> Generator[None, None, nn.Module]:
        """The network to run, made while nobody else runs one."""
        building = self._network(mask, calibration)
        while True:
            with self._lock:
                try:
                    next(building)
                except StopIteration as end:
                    return end.value
            yield

    def _network(self, mask: Mask | None, calibration: int) -> Generator[None, None, nn.Module]:
        """The network to run; yields while its statistics are re-estimated."""
        key = (None if mask is None else mask.key, calibration)
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        base = yield from self._base(calibration)
        if mask is None:
            model = base.model
        elif self.stem is None or (calibration and base.calibration is None):
            model = pruned_view(self._dense, mask).eval()
            if calibration:
                yield from calibration_steps(model, self._calibration_images(calibration))
        else:
            model = Replayed(pruned_view(self._dense, mask), self.stem, mask).eval()
            if base.calibration:
                yield from calibration_steps(model, base.calibration)
        self._last = (key, model)
        return model

    def _base(self, calibration: int) -> Generator[None, None, _Base]:
        """The dense network, its statistics re-estimated where asked, and what its stem gave meanwhile."""
        if calibration in self._bases:
            return self._bases[calibration]
        base = _Base(self._dense, None)
        if calibration:
            twin = rebuild(self._dense, lambda _, tensor: tensor.clone()).eval()
            kept = _Kept()
            if self.stem is not None:
                twin.get_submodule(self.stem.last).register_forward_hook(
                    lambda _m, _i, output: kept.add(output.clone())
                )
            yield from calibration_steps(twin, self._calibration_images(calibration))
            base = _Base(private(twin), kept.parts if self.stem is not None else None)
        self._bases[calibration] = base
        return base

    @property
    def stem(self) -> Stem | None:
        """What every mask shares; found on first use. None on a GPU, whose sums are not repeatable."""
        if isinstance(self._stem, bool):
            first = self.domains[0]
            rows = torch.arange(min(16, len(first)))
            example = first.take(rows, device=self.device, layout=self.layout).images
            self._stem = find_shared_prefix(self._dense, self.graph, example) if self.device.type == "cpu" else None
        return self._stem

    def _inputs(
        self, model: nn.Module, domain: Domain, split: str, images: int | None, calibration: int
    ) -> Iterator[Batch]:
        if not isinstance(model, Replayed):
            return domain.batches(split, size=_SIZE, images=images, device=self.device, layout=self.layout)
        return self._replayed(domain, split, images, calibration)

    def _replayed(self, domain: Domain, split: str, images: int | None, calibration: int) -> Iterator[Batch]:
        """Batches whose images are the dense stem's outputs, kept as long as they fit."""
        assert self.stem is not None
        key = (domain.key, split, images, calibration)
        held, fresh = self._held.get(key), _Kept()
        for k, part in enumerate(domain.rows(split, images).split(_SIZE)):
            if held is None:
                batch = domain.take(part, device=self.device, layout=self.layout)
                output = record(self._bases[calibration].model, self.stem, [batch.images])[0]
                fresh.add(output)
                yield Batch(output, batch.labels, part)
            else:
                labels = None if domain.labels is None else domain.labels[part.to(domain.labels.device)].to(self.device)
                yield Batch(held[k], labels, part)
        if held is None and fresh.parts is not None:
            while self._held and fresh.size + sum(map(_bytes, self._held.values())) > _STEM_BYTES:
                self._held.popitem(last=False)
            self._held[key] = fresh.parts

    def _calibration_images(self, images: int) -> Iterator[Tensor]:
        return calibration_images(self._dense, calibration_batches(self.domains, images))


class _Kept:
    """Tensors, as long as all of them fit: `parts` is None from the one on that does not."""

    def __init__(self) -> None:
        self.parts: list[Tensor] | None = []
        self.size = 0

    def add(self, tensor: Tensor) -> None:
        self.size += tensor.nbytes
        if self.size > _STEM_BYTES:
            self.parts = None
        if self.parts is not None:
            self.parts.append(tensor.detach())


def _bytes(tensors: list[Tensor]) -> int:
    return sum(t.nbytes for t in tensors)


class PooledOutputs:
    """The input of the last layer that reads a group, in the network that a mask leaves.

    Args:
        graph: of the full network.
        layer: the group's name.
        mask: what is removed; None for nothing.

    Raises:
        DgpruneError: an unknown layer.
    """

    def __init__(self, graph: FilterGraph, layer: str, mask: Mask | None) -> None:
        group = graph[layer]
        self.name, self._filters = group.consumers[-1], group.filters
        here = [
            (graph.offsets[g.name], *g.consumer_inputs[self.name])
            for g in graph.groups
            if self.name in g.consumer_inputs
        ]
        ids = torch.full((1 + max(int(where.max()) for _, where, _ in here),), graph.free)
        for offset, where, filters in here:
            ids[where] = filters + offset
        stays = torch.ones(len(ids), dtype=torch.bool) if mask is None else graph.vector(mask.keep)[ids]
        places, filters = group.consumer_inputs[self.name]
        kept = stays[places]
        self._places, self._of = (stays.cumsum(0) - 1)[places[kept]], filters[kept]
        self._shares = torch.bincount(filters, minlength=group.filters).float()

    @contextmanager
    def open(self, model: nn.Module) -> Iterator[list[Tensor]]:
        """Within it, what passes the door of a network is pooled and appended: (B, C), removed filters zero."""
        found: list[Tensor] = []

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            found.append(self._pooled(inputs[0], last=isinstance(module, nn.Linear)))

        handle = model.get_submodule(self.name).register_forward_pre_hook(hook)
        try:
            yield found
        finally:
            handle.remove()

    def _pooled(self, y: Tensor, *, last: bool) -> Tensor:
        y = y.movedim(-1, 1) if last else y
        means = (y if y.ndim == 2 else y.flatten(2).mean(2)).float().cpu()
        pooled = means.new_zeros(len(means), self._filters)
        return pooled.index_add_(1, self._of, means[:, self._places]) / self._shares
