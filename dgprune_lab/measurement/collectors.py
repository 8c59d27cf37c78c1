"""Collectors of one pass: they reduce maps or logits of the network to running sums."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import Batch, ClassMap, DgpruneError, Domain, FilterGraph, Need, full_precision, mapped
from ..pruning import shared_copy
from .hooks import Site
from .taps import MapKey, Taps

_BLOCK, _GPU_BLOCK = 2**18, 2**26
Reduce = Callable[[Tensor], Iterator[tuple[Tensor, int]]]
Value = TypeVar("Value")


class Collector:
    """The protocol of a collector; its memory does not grow with the number of images.

    Attributes:
        needs_gradients: whether the forward pass must record gradients.
    """

    needs_gradients = False
    labels: Tensor | None = None

    def attach(self, taps: Taps) -> None:
        """Register receivers on the hooks of a private copy, before the first batch."""

    def begin(self, batch: Batch) -> None:
        """Prepare for a batch."""
        self.labels = batch.labels

    def end(self, logits: Tensor) -> None:
        """Finish a batch."""

    def sums(self) -> Any:
        """Return the sums of the pass: tensors in containers, on any device."""

    def result(self, sums: Any) -> dict[str, Any]:
        """Return fields of `Statistics`, given the result of `sums` on the CPU."""
        return {}


def collecting(
    model: nn.Module, graph: FilterGraph, *, collectors: Sequence[Collector], batches: Iterable[Batch]
) -> Generator[int, None, dict[str, Any]]:
    """Run a private copy of a network in eval mode over batches, and return the results of all collectors, on the CPU.

    Nothing is read from a GPU before the end of the pass, so that the GPU never waits. Yields the number of images of
    each batch.
    """
    taps = Taps(shared_copy(model), graph)
    for collector in collectors:
        collector.attach(taps)
    for batch in batches:
        for collector in collectors:
            collector.begin(batch)
        gradients = any(collector.needs_gradients for collector in collectors)
        with torch.set_grad_enabled(gradients), full_precision(batch.images.device):
            logits = taps.run(batch.images)
            for collector in collectors:
                collector.end(logits)
        del logits  # frees what a backward pass needs
        yield len(batch.images)
    pairs = zip(collectors, on_cpu([collector.sums() for collector in collectors]), strict=True)
    return {field: value for collector, sums in pairs for field, value in collector.result(sums).items()}


class Images(Collector):
    """Counts the images of a split and checks the logits; comes first, so that no result of invalid logits is used."""

    def __init__(self, domain: Domain, *, split: str) -> None:
        self._domain, self._split, self._count = domain, split, 0
        self._finite: list[Tensor] = []

    def end(self, logits: Tensor) -> None:
        check_classes(logits, self._domain)
        self._finite.append(torch.isfinite(logits).all())
        self._count += len(logits)

    def sums(self) -> list[Tensor]:
        return self._finite

    def result(self, sums: list[Tensor]) -> dict[str, Any]:
        if self._count == 0:
            raise DgpruneError(f"domain {self._domain.name!r} has no image in its split {self._split!r}.")
        check_finite(torch.stack(sums), self._domain)
        return {"images": self._count}


def _advise(logits: Any) -> str:
    """Return how to change a network so that each image gets a row of logits."""
    if not isinstance(logits, Tensor):
        return "; pass a network that returns them alone, such as a wrapper with its own forward"
    if logits.ndim > 2 and all(size == 1 for size in logits.shape[2:]):
        return "; add flatten(1) at its end"
    if logits.ndim == 1:
        return "; a squeeze() removes the axis of a single image too (flatten(1) keeps it), and one output is too few"
    return "; one row for each image"


def check_finite(finite: Tensor, domain: Domain) -> None:
    """Refuse logits unless all are finite; `finite` is a mask of the finite ones."""
    if not finite.all():
        raise DgpruneError(f"the network gives NaN or infinite logits on domain {domain.name!r}; check its weights.")


def check_classes(logits: Any, domain: Domain) -> None:
    """Refuse an output other than one row of logits per image, and fewer outputs than the domain has classes."""
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise DgpruneError(
            f"the network must return logits of shape (images, classes); it returned {got}{_advise(logits)}."
        )
    if domain.labels is not None and logits.shape[1] < domain.classes:
        raise DgpruneError(
            f"the network has {logits.shape[1]} outputs, domain {domain.name!r} has labels up to {domain.classes - 1}; "
            "use a network with an output for each class, or renumber the labels."
        )


class Means(Collector):
    """The mean of a function of every group's maps at one site; a layer called twice counts each image twice.

    Args:
        field: the field of `Statistics` to fill.
        site: where the maps are taken: after the activation, at the last consumer, or at every convolution that
            produces the group.
        reduce: function from maps (N, C, ...) to sums, each with its number of images or values.
        finish: function from a group's means, one per layer, to its value in the field.
    """

    def __init__(self, field: Need, site: Site, *, reduce: Reduce, finish: Callable[[list[Tensor]], Any]) -> None:
        self._field, self._reduce, self._finish = field, reduce, finish
        self._site: Site = site
        self._sums: dict[MapKey, Tensor] = {}
        self._counts: dict[MapKey, int] = defaultdict(int)

    def attach(self, taps: Taps) -> None:
        taps.listen(self._site, self._add)

    def _add(self, key: MapKey, y: Tensor) -> None:
        for value, count in self._reduce(y):
            if key in self._sums:
                self._sums[key] += value
            else:
                self._sums[key] = value
            self._counts[key] += count

    def sums(self) -> dict[MapKey, Tensor]:
        return self._sums

    def result(self, sums: dict[MapKey, Tensor]) -> dict[str, Any]:
        means: dict[str, list[Tensor]] = defaultdict(list)
        for key, total in sums.items():
            means[key[0]].append((total / self._counts[key]).contiguous())
        return {self._field: {group: self._finish(of_layers) for group, of_layers in means.items()}}


def maps(y: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Reduce maps to their mean over images."""
    yield _image_sum(y).double(), len(y)


def unit_maps(y: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Reduce maps, each divided by its Euclidean norm, to their mean over images."""
    for block in _blocks(y):
        # In float64, since the squares of a nearly silent filter's values underflow in float32.
        norm = block.flatten(2).double().square().sum(2).sqrt()  # for channels last ten times as fast as vector_norm
        norm = norm.to(y.dtype).clamp_min(torch.finfo(y.dtype).tiny)
        yield _image_sum(block / norm.view(*norm.shape, *(1,) * (y.ndim - 2))).double(), len(block)


def moments(y: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Reduce maps to the four `Moments` over images and positions, (4, C)."""
    for block in _blocks(y):
        flat = block.flatten(2)
        kinds = flat, flat.abs(), flat.square(), flat.clone().eq_(0)  # as floats, since bools are slow to count
        yield torch.stack([kind.sum((0, 2)) for kind in kinds]).double(), len(flat) * flat.shape[2]


def half_cosines(y: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Reduce maps to the mean cosine (C,) between the i-th images of a batch's first and second half."""
    first, second = y.flatten(2).double().chunk(2)
    yield F.cosine_similarity(first, second, dim=2, eps=1e-30).sum(0), len(first)


class ClassMaps(Collector):
    """The mean, over the images of each predicted class, of every filter's spatial mean."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor | int] = defaultdict(int)
        self._images: Tensor | int = 0
        self._pooled: dict[str, Tensor] = {}

    def attach(self, taps: Taps) -> None:
        taps.listen("consumer_input", self._keep)

    def _keep(self, key: MapKey, y: Tensor) -> None:
        self._pooled[key[0]] = y.flatten(2).mean(2).double()

    def end(self, logits: Tensor) -> None:
        predicted, classes = logits.detach().argmax(1), logits.shape[1]
        for group, pooled in self._pooled.items():
            self._sums[group] += pooled.new_zeros(classes, pooled.shape[1]).index_add_(0, predicted, pooled)
        ones = torch.ones_like(predicted)
        self._images += ones.new_zeros(classes).index_add_(0, predicted, ones)  # bincount waits for its result's size
        self._pooled.clear()

    def sums(self) -> tuple[Tensor | int, dict[str, Tensor | int]]:
        return self._images, self._sums

    def result(self, sums: tuple[Tensor | int, dict[str, Tensor]]) -> dict[str, Any]:
        images = torch.as_tensor(sums[0])
        count = images.double().clamp_min(1)[:, None]
        return {"class_map": {key: ClassMap(total / count, images) for key, total in sums[1].items()}}


def _blocks(y: Tensor) -> tuple[Tensor, ...]:
    """Split images into blocks, of about 1 MB on a CPU, so that intermediate results stay in the processor's cache."""
    block = _BLOCK if y.device.type == "cpu" else _GPU_BLOCK
    return y.split(max(1, block * len(y) // max(1, y.numel())))


def _image_sum(y: Tensor) -> Tensor:
    """Sum over images, in memory order: for channels-last maps any other order takes ten times as long."""
    last = y.movedim(1, -1)
    if y.is_contiguous() or not last.is_contiguous():
        return y.sum(0)
    return last.flatten(1).sum(0).view(last.shape[1:]).movedim(-1, 0)


def on_cpu(value: Value) -> Value:
    """Return a value (a tensor, or tensors in containers) with every tensor on the CPU.

    The tensors of one dtype are joined on the GPU and copied together, since each copy waits for all earlier work.
    """
    by_type: dict[tuple[torch.device, torch.dtype], dict[int, Tensor]] = defaultdict(dict)

    def collect(tensor: Tensor) -> Tensor:
        if tensor.device.type != "cpu":
            by_type[tensor.device, tensor.dtype][id(tensor)] = tensor
        return tensor

    mapped(value, collect)
    copies: dict[int, Tensor] = {}
    for tensors in by_type.values():
        joined = torch.cat([tensor.detach().flatten() for tensor in tensors.values()]).cpu()
        parts = joined.split([tensor.numel() for tensor in tensors.values()])
        for (key, tensor), part in zip(tensors.items(), parts, strict=True):
            copies[key] = part.view(tensor.shape).clone()  # a view would keep all the others in memory
    return mapped(value, lambda tensor: copies.get(id(tensor), tensor))
