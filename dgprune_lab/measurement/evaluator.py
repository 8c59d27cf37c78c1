"""Outcomes and features of a network under many masks; the layers that no mask changes run only once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..core import (
    Batch,
    DgpruneError,
    Domain,
    FilterGraph,
    Lock,
    Mask,
    Outcomes,
    cache_room,
    full_precision,
    interruptible,
    yielding,
)
from ..pruning import device_of, pruned_view, shared_copy
from .batch_size import batch_size, layout_of
from .hooks import input_ids, on_input
from .outcomes import batch_outcomes, join
from .recalibrate import Chunk, Rows, calibration_chunks, calibration_rows, calibration_steps, has_batchnorm
from .shared_prefix import AfterPrefix, SharedPrefix, find_shared_prefix, prefix_output

_SHARE = 1 / 10  # of the available memory, for the outputs of the shared prefix
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Request:
    domain: Domain
    split: str
    images: int | None
    calibration: int


@dataclass(frozen=True)
class _Base:
    """The network, its prefix's BatchNorm set for one `calibration`; the prefix's calibration outputs if they fit."""

    model: nn.Module
    chunks: list[Chunk] | None


class Evaluator:
    """Runs a network, pruned by any mask, over its domains; the network itself stays unchanged.

    The `domains` must have roles: BatchNorm is re-estimated on the sources. `layout` is the images' memory format.
    """

    def __init__(self, model: nn.Module, graph: FilterGraph, *, domains: tuple[Domain, ...]) -> None:
        self.graph, self.domains = graph, domains
        self._lock = Lock()
        self.device = device_of(model)
        self._dense = shared_copy(model)
        self._norm = has_batchnorm(model)
        self.layout = layout_of(self._dense, domains[0])
        self._bases: dict[int, _Base] = {}
        self._outputs: OrderedDict[tuple[object, ...], list[Tensor]] = OrderedDict()
        self._last: tuple[tuple[object, ...], nn.Module] | None = None

    @property
    def abandoned(self) -> bool:
        """Whether this process was forked while another thread was running the network."""
        return self._lock.abandoned

    def steps(
        self, mask: Mask | None, *, domain: Domain, split: str, images: int | None, calibration: int
    ) -> Generator[int, None, Outcomes]:
        """Return the outcomes of the network under a mask; yields the number of images of each batch.

        Args:
            mask: the filters to remove; None for the full network.
            domain, split, images: the first `images` images of this split of the domain; None for all.
            calibration: number of source images on which BatchNorm is re-estimated after pruning; 0 leaves it as it is.
        """
        request = _Request(domain=domain, split=split, images=images, calibration=calibration)
        results = yield from self._run(mask, request, lambda model, batch: batch_outcomes(model, batch, domain))
        return join(results, domain)

    def feature_steps(
        self, mask: Mask | None, *, layer: str, domain: Domain, split: str, images: int | None, calibration: int
    ) -> Generator[int, None, Tensor]:
        """Return the (N, C) float32 pooled outputs of a group under a mask, on the CPU; removed filters are 0.

        The pooled output is the spatial mean at the input of the group's last consumer. Arguments as for `steps`.
        """
        request = _Request(domain=domain, split=split, images=images, calibration=calibration)
        pooled = _PooledOutputs(self.graph, layer, mask=mask)
        results = yield from self._run(mask, request, lambda model, batch: pooled.run(model, batch.images))
        features = torch.cat(results).cpu()
        if not torch.isfinite(features).all():
            raise DgpruneError(
                f"domain {domain.name!r}: the output of layer {layer!r} is NaN or infinite; check the domain's images "
                "and the network's weights."
            )
        return features

    @cached_property
    def size(self) -> int:
        """Number of images per batch; see `batch_size`."""
        return batch_size(self._dense, self._example(1))

    def _example(self, images: int) -> Tensor:
        """Return the first images of the first domain."""
        first = self.domains[0]
        return first.take(torch.arange(min(images, len(first))), device=self.device, layout=self.layout).images

    def _run(
        self, mask: Mask | None, request: _Request, step: Callable[[nn.Module, Batch], T]
    ) -> Generator[int, None, list[T]]:
        """Call `step` with the pruned network and each batch of a request; return the results.

        Threads take turns, batch by batch, since a network after a shared prefix stores its input while it runs.
        """
        work = self._run_batches(mask, request, step)
        while True:
            with self._lock, interruptible():
                try:
                    images = next(work)
                except StopIteration as end:
                    return end.value
            yield images

    def _run_batches(
        self, mask: Mask | None, request: _Request, step: Callable[[nn.Module, Batch], T]
    ) -> Generator[int, None, list[T]]:
        calibration, results = request.calibration if self._norm else 0, []
        model = yield from self._network(mask, calibration)
        for batch in self._batches(model, request, calibration):
            results.append(step(model, batch))
            yield len(batch.index)
        return results

    def _network(self, mask: Mask | None, calibration: int) -> Generator[int, None, nn.Module]:
        """Return the network under a mask; yields between batches while BatchNorm statistics are re-estimated."""
        if mask is None and not calibration:
            return self._dense
        key = (None if mask is None else mask.key, calibration)
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        self._last = None  # frees its memory before the next network is made
        model = yield from self._build_network(mask, calibration)
        self._last = (key, model)
        return model

    def _build_network(self, mask: Mask | None, calibration: int) -> Generator[int, None, nn.Module]:
        rows = calibration_rows(self.domains, calibration) if calibration else []
        if mask is not None and self.shared_prefix is not None:
            base = yield from self._prefix_base(calibration, rows, prefix=self.shared_prefix)
            if base.chunks is not None:
                model = AfterPrefix(pruned_view(self._dense, mask), self.shared_prefix, mask=mask).eval()
                if calibration:  # without images, this would only reset the statistics
                    yield from calibration_steps(model, base.chunks)
                return model
        model = shared_copy(self._dense) if mask is None else pruned_view(self._dense, mask).eval()
        if calibration:
            yield from calibration_steps(model, calibration_chunks(self._dense, rows))
        return model

    def _prefix_base(
        self, calibration: int, rows: list[tuple[Rows, bool]], *, prefix: SharedPrefix
    ) -> Generator[int, None, _Base]:
        if calibration not in self._bases:
            twin, outputs = shared_copy(self._dense), _BoundedList()

            def run(images: Tensor) -> None:
                outputs.add(prefix_output(twin, prefix, images))

            if calibration:
                steps = calibration_steps(twin, calibration_chunks(self._dense, rows), run=run)
                yield from yielding(steps, 0)  # 0 images, as a few layers that run once take hardly any time
            tensors = outputs.tensors
            chunks = None if tensors is None else [Chunk(y, last) for y, (_, last) in zip(tensors, rows, strict=True)]
            self._bases[calibration] = _Base(twin, chunks)
        return self._bases[calibration]

    @cached_property
    def shared_prefix(self) -> SharedPrefix | None:
        """The layers that no mask changes, found on first use; None on GPU, where reductions are not deterministic."""
        example = self._example(min(16, 2 + self.size // 8))
        return find_shared_prefix(self._dense, self.graph, example) if self.device.type == "cpu" else None

    def _batches(self, model: nn.Module, request: _Request, calibration: int) -> Iterator[Batch]:
        """Yield the batches of a request; a shared prefix's outputs replace the images, and are cached if they fit."""
        domain, split, images = request.domain, request.split, request.images
        if not isinstance(model, AfterPrefix):
            yield from domain.batches(split, size=self.size, images=images, device=self.device, layout=self.layout)
            return
        assert self.shared_prefix is not None
        key = (domain.key, split, images, calibration)
        cached, outputs = self._outputs.get(key), _BoundedList()
        for k, rows in enumerate(domain.rows(split, images).split(self.size)):
            if cached is None:
                batch = domain.take(rows, device=self.device, layout=self.layout)
                output = prefix_output(self._bases[calibration].model, self.shared_prefix, batch.images)
                outputs.add(output)
                yield Batch(output, batch.labels, rows)
            else:
                labels = None if domain.labels is None else domain.labels[rows.to(domain.labels.device)].to(self.device)
                yield Batch(cached[k], labels, rows)
        if cached is None and outputs.tensors is not None:
            while self._outputs and (size := outputs.size + _total(self._outputs.values())) > cache_room(_SHARE, size):
                self._outputs.popitem(last=False)
            self._outputs[key] = outputs.tensors


class _BoundedList:
    """A list of tensors with a size limit; `tensors` becomes None when the limit is exceeded."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] | None = []
        self.size = 0

    def add(self, tensor: Tensor) -> None:
        self.size += tensor.nbytes
        if self.size > cache_room(_SHARE, self.size):
            self.tensors = None
        if self.tensors is not None:
            self.tensors.append(tensor.detach())


def _total(outputs: Iterable[list[Tensor]]) -> int:
    return sum(tensor.nbytes for tensors in outputs for tensor in tensors)


class _PooledOutputs:
    """A group's pooled output under a mask (None removes no filter): the spatial mean at its last consumer's input."""

    def __init__(self, graph: FilterGraph, layer: str, *, mask: Mask | None) -> None:
        group = graph[layer]
        self._consumer = group.consumers[-1]
        ids = input_ids(graph, self._consumer)
        keep = torch.ones(len(ids), dtype=torch.bool) if mask is None else graph.vector(mask.keep)[ids]
        positions, filters = group.consumer_inputs[self._consumer]
        kept = keep[positions]
        self._positions, self._filters = (keep.cumsum(0) - 1)[positions[kept]], filters[kept]
        self._sizes = torch.bincount(filters, minlength=group.filters).float()

    def run(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the pooled outputs (B, C), float32, averaged over the consumer's calls; 0 for removed filters."""
        pooled: list[Tensor] = []
        network = model.network if isinstance(model, AfterPrefix) else model
        if self._sizes.device != images.device:
            parts = self._positions, self._filters, self._sizes
            self._positions, self._filters, self._sizes = (part.to(images.device) for part in parts)
        with (
            torch.inference_mode(),
            full_precision(images.device),
            on_input(network, self._consumer, lambda y: pooled.append(self._pooled(y))),
        ):
            model(images)
        return torch.stack(pooled).mean(0)

    def _pooled(self, y: Tensor) -> Tensor:
        means = (y if y.ndim == 2 else y.flatten(2).mean(2)).float()
        pooled = means.new_zeros(len(means), len(self._sizes))
        return pooled.index_add_(1, self._filters, means[:, self._positions]) / self._sizes
