"""Outcomes and features of one network under many masks; the layers that no mask changes run only once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..core import Batch, DgpruneError, Domain, FilterGraph, Lock, Mask, Outcomes
from ..pruning import deep_copy, device_of, pruned_view, shared_copy
from .hooks import on_output
from .memory_format import layout_of
from .outcomes import batch_outcomes, join
from .pooled_outputs import PooledOutputs
from .recalibrate import calibration_batches, calibration_images, calibration_steps, has_batchnorm
from .shared_prefix import AfterPrefix, SharedPrefix, find_shared_prefix, prefix_output

_PREFIX_BYTES = 192 * 2**20
_SIZE = 250
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Request:
    domain: Domain
    split: str
    images: int | None
    calibration: int


@dataclass(frozen=True)
class _Base:
    """The dense network of one BatchNorm setting, and its prefix's outputs on the calibration images if they fit."""

    model: nn.Module
    calibration: list[Tensor] | None


class Evaluator:
    """Runs a network, pruned by any mask, over its domains; the network itself is never changed.

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
        self._prefix: SharedPrefix | bool | None = False
        self._outputs: OrderedDict[tuple[object, ...], list[Tensor]] = OrderedDict()
        self._last: tuple[tuple[object, ...], nn.Module] | None = None

    @property
    def abandoned(self) -> bool:
        """Whether this process was forked while another thread was running the network."""
        return self._lock.abandoned

    def steps(
        self, mask: Mask | None, *, domain: Domain, split: str, images: int | None, calibration: int
    ) -> Generator[None, None, Outcomes]:
        """Return the outcomes of the network under a mask; yields between batches, so that the caller can cancel.

        Args:
            mask: the filters to remove; None for the full network.
            domain, split, images: run over the first `images` images of this split of the domain; None for all.
            calibration: number of source images on which BatchNorm is re-estimated after pruning; 0 leaves it as it is.
        """
        request = _Request(domain=domain, split=split, images=images, calibration=calibration)
        return join((yield from self._run(mask, request, lambda model, batch: batch_outcomes(model, batch, domain))))

    def feature_steps(
        self, mask: Mask | None, *, layer: str, domain: Domain, split: str, images: int | None, calibration: int
    ) -> Generator[None, None, Tensor]:
        """Return the (N, C) float32 pooled outputs of a group under a mask, on the CPU; removed filters are 0.

        Pooled: the spatial mean at the input of the group's last consumer. The other arguments are those of `steps`.
        """
        request = _Request(domain=domain, split=split, images=images, calibration=calibration)
        pooled = PooledOutputs(self.graph, layer, mask=mask)
        features = torch.cat((yield from self._run(mask, request, lambda model, batch: pooled.of(model, batch.images))))
        if not torch.isfinite(features).all():
            raise DgpruneError(
                f"domain {domain.name!r}: the output of layer {layer!r} is NaN or infinite; check the domain's images "
                "and the network's weights."
            )
        return features

    def _run(
        self, mask: Mask | None, request: _Request, step: Callable[[nn.Module, Batch], T]
    ) -> Generator[None, None, list[T]]:
        """Call `step` with the pruned network and each batch of a request; return the results.

        A network behind a shared prefix stores its input while it runs, so threads take turns, step by step.
        """
        work = self._work(mask, request, step)
        while True:
            with self._lock:
                try:
                    next(work)
                except StopIteration as end:
                    return end.value
            yield

    def _work(
        self, mask: Mask | None, request: _Request, step: Callable[[nn.Module, Batch], T]
    ) -> Generator[None, None, list[T]]:
        calibration, results = request.calibration if self._norm else 0, []
        model = yield from self._network(mask, calibration)
        for batch in self._batches(model, request, calibration):
            results.append(step(model, batch))
            yield
        return results

    def _network(self, mask: Mask | None, calibration: int) -> Generator[None, None, nn.Module]:
        """The network under a mask; yields between batches while its BatchNorm statistics are re-estimated."""
        key = (None if mask is None else mask.key, calibration)
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        base = yield from self._base(calibration)
        if mask is None:
            model = base.model
        elif self.shared_prefix is None or (calibration and base.calibration is None):
            model = pruned_view(self._dense, mask).eval()
            if calibration:
                yield from calibration_steps(model, self._calibration_images(calibration))
        else:
            model = AfterPrefix(pruned_view(self._dense, mask), self.shared_prefix, mask=mask).eval()
            if base.calibration:
                yield from calibration_steps(model, base.calibration)
        self._last = (key, model)
        return model

    def _base(self, calibration: int) -> Generator[None, None, _Base]:
        """The dense network, recalibrated unless `calibration` is 0, and the prefix's outputs on those images."""
        if calibration in self._bases:
            return self._bases[calibration]
        base = _Base(self._dense, None)
        if calibration:
            twin, outputs = deep_copy(self._dense).eval(), _Bounded()
            if self.shared_prefix is not None:
                on_output(twin, self.shared_prefix.last, lambda y: outputs.add(y.clone()))
            yield from calibration_steps(twin, self._calibration_images(calibration))
            base = _Base(shared_copy(twin), outputs.tensors if self.shared_prefix is not None else None)
        self._bases[calibration] = base
        return base

    @property
    def shared_prefix(self) -> SharedPrefix | None:
        """The layers that no mask changes, found on first use; None on GPU, where reductions are not deterministic."""
        if isinstance(self._prefix, bool):
            first = self.domains[0]
            rows = torch.arange(min(16, len(first)))
            example = first.take(rows, device=self.device, layout=self.layout).images
            self._prefix = find_shared_prefix(self._dense, self.graph, example) if self.device.type == "cpu" else None
        return self._prefix

    def _batches(self, model: nn.Module, request: _Request, calibration: int) -> Iterator[Batch]:
        """The batches of a request; a shared prefix's outputs replace their images, and are stored while they fit."""
        domain, split, images = request.domain, request.split, request.images
        if not isinstance(model, AfterPrefix):
            yield from domain.batches(split, size=_SIZE, images=images, device=self.device, layout=self.layout)
            return
        assert self.shared_prefix is not None
        key = (domain.key, split, images, calibration)
        stored, fresh = self._outputs.get(key), _Bounded()
        for k, rows in enumerate(domain.rows(split, images).split(_SIZE)):
            if stored is None:
                batch = domain.take(rows, device=self.device, layout=self.layout)
                output = prefix_output(self._bases[calibration].model, self.shared_prefix, batch.images)
                fresh.add(output)
                yield Batch(output, batch.labels, rows)
            else:
                labels = None if domain.labels is None else domain.labels[rows.to(domain.labels.device)].to(self.device)
                yield Batch(stored[k], labels, rows)
        if stored is None and fresh.tensors is not None:
            while self._outputs and fresh.size + _bytes(self._outputs.values()) > _PREFIX_BYTES:
                self._outputs.popitem(last=False)
            self._outputs[key] = fresh.tensors

    def _calibration_images(self, images: int) -> Iterator[Tensor]:
        return calibration_images(self._dense, calibration_batches(self.domains, images))


class _Bounded:
    """A list of tensors with a size limit; `tensors` becomes None when the limit is exceeded."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] | None = []
        self.size = 0

    def add(self, tensor: Tensor) -> None:
        self.size += tensor.nbytes
        if self.size > _PREFIX_BYTES:
            self.tensors = None
        if self.tensors is not None:
            self.tensors.append(tensor.detach())


def _bytes(stored: Iterable[list[Tensor]]) -> int:
    return sum(tensor.nbytes for tensors in stored for tensor in tensors)
