"""BatchNorm statistics re-estimated on source images."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core import BATCHNORM, Count, DgpruneError, Domain, drain, full_precision, provenance_of, public, set_provenance
from ..pruning import deep_copy, device_of, prove_copies, refuse_other_types
from .batch_size import layout_of

_BATCH, _PIXELS = 250, 2**20
Rows = list[tuple[Domain, Tensor]]


class Chunk(NamedTuple):
    """Images of a batch that go through the network together; `last` marks those that complete the batch."""

    images: Tensor
    last: bool


def has_batchnorm(model: nn.Module) -> bool:
    """Return whether any layer keeps running BatchNorm statistics."""
    return bool(_batchnorms(model))


def _batchnorms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, BATCHNORM) and m.running_mean is not None]


@public
def recalibrate(model: nn.Module, domains: Sequence[Domain], images: Count = 500) -> nn.Module:
    """Return a new network whose BatchNorm statistics are re-estimated on source images; no label is read.

    The first images of each source's `train` split, equally many per source or all that it has, are mixed in batches of
    250; the statistics are the plain average over the batches. A batch of more than a million pixels (250 images of
    64 x 64) goes through the network in equal chunks below that size, each normalised by its own statistics, and its
    mean and variance are those of all chunks together. The chunks depend on the image size alone, so that every machine
    gives the same numbers. Everything else runs in eval mode, and no weight changes. Without BatchNorm the result is a
    copy.

    Args:
        model: any network.
        domains: those in the role "source" are read (all if no domain has a role).
        images: total number of images, at least 2.

    Raises:
        DgpruneError: no source has a `train` split.
    """
    if domains:
        example = domains[0].take(torch.arange(min(2, len(domains[0])))).images
        refuse_other_types(model, example)
        prove_copies(model, example)
    twin = deep_copy(model)
    set_provenance(twin, provenance_of(model))
    if has_batchnorm(twin):
        drain(calibration_steps(twin, calibration_chunks(twin, calibration_rows(domains, images))))
        reads = {f"{domain.name}/train": "images" for domain in calibration_sources(domains)}
        set_provenance(twin, provenance_of(model).adding("finetuning", reads))  # type: ignore[arg-type]
    return twin


def calibration_sources(domains: Sequence[Domain]) -> list[Domain]:
    """Return the domains on which BatchNorm statistics may be re-estimated."""
    if any(domain.role is not None for domain in domains):
        domains = [domain for domain in domains if domain.role == "source"]
    sources = [domain for domain in domains if len(domain.splits.get("train", ()))]
    if not sources:
        names = ", ".join(repr(domain.name) for domain in domains) or "none"
        raise DgpruneError(
            f"re-estimating BatchNorm needs a source with a train split; sources here: {names}. Give one a train "
            "split, or leave the statistics alone with batchnorm='as_is'."
        )
    return sources


def calibration_batches(domains: Sequence[Domain], images: int = 500) -> list[Rows]:
    """Return the fixed batches of `recalibrate`; each lists the sources with their row numbers."""
    if images < 2:
        raise DgpruneError(f"re-estimating BatchNorm needs at least 2 images; got {images}.")
    sources = calibration_sources(domains)[:images]
    shares = [images // len(sources) + (k < images % len(sources)) for k in range(len(sources))]
    rows = [domain.rows("train", share) for domain, share in zip(sources, shares, strict=True)]
    total = sum(map(len, rows))
    if total < 2:
        raise DgpruneError("re-estimating BatchNorm needs at least 2 images; the sources' train splits hold 1.")
    # No more batches than the images can fill, since an empty one would make every statistic NaN.
    count = max(1, round(total / _BATCH))
    batches = zip(*(of_source.tensor_split(count) for of_source in rows), strict=True)
    return [[(source, part) for source, part in zip(sources, batch, strict=True) if len(part)] for batch in batches]


def calibration_count(domains: Sequence[Domain], images: int) -> int:
    """Return how many images BatchNorm is re-estimated on: `images`, or fewer if the sources have fewer."""
    return sum(len(rows) for batch in calibration_batches(domains, images) for _, rows in batch)


def calibration_rows(domains: Sequence[Domain], images: int = 500) -> list[tuple[Rows, bool]]:
    """Return the chunks of `calibration_batches`, and whether each completes its batch."""
    chunks: list[tuple[Rows, bool]] = []
    for batch in calibration_batches(domains, images):
        sizes, (_, height, width) = [len(rows) for _, rows in batch if len(rows)], batch[0][0].shape
        max_images = max(2, _PIXELS // (height * width))
        count = max(1, min(-(-sum(sizes) // max_images), sum(sizes) // 2, *sizes))  # no chunk of a single image
        splits = zip(*(rows.tensor_split(count) for _, rows in batch), strict=True)
        parts = [[(domain, rows) for (domain, _), rows in zip(batch, split, strict=True)] for split in splits]
        chunks += [(part, k == count) for k, part in enumerate(parts, start=1)]
    return chunks


def calibration_chunks(model: nn.Module, chunks: Iterable[tuple[Rows, bool]]) -> Iterator[Chunk]:
    """Yield the chunks of `calibration_rows`, on the model's device and in its memory format."""
    layout: torch.memory_format | None = None
    device = device_of(model)
    for chunk, last in chunks:
        if layout is None:
            layout = layout_of(model, chunk[0][0])
        images = [domain.take(rows, device=device, layout=layout).images for domain, rows in chunk]
        yield Chunk(torch.cat(images).contiguous(memory_format=layout), last)


def calibration_steps(
    model: nn.Module, chunks: Iterable[Chunk], *, run: Callable[[Tensor], object] | None = None
) -> Generator[int, None, None]:
    """Re-estimate a network's BatchNorm statistics in place; restore train or eval mode.

    Yields the number of images after every chunk. `run` is called instead of the network, to run only some layers.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    norms = [_Average(layer) for layer in _batchnorms(model)]
    in_chunks = False
    try:
        for chunk in chunks:
            in_chunks = in_chunks or not chunk.last
            for norm in norms if in_chunks else ():
                norm.begin()
            with torch.inference_mode(False), torch.no_grad(), full_precision(chunk.images.device):
                (run or model)(chunk.images)
            for norm in norms if in_chunks else ():
                norm.end(last=chunk.last)
            in_chunks = in_chunks and not chunk.last
            yield len(chunk.images)
    finally:
        for norm in norms:
            norm.close()
        for module, training in modes.items():
            module.training = training


class _Average:
    """Makes a BatchNorm average its statistics over its calls; the chunks of a batch count as one call.

    momentum=None averages too, but would read the number of calls from a GPU.
    """

    def __init__(self, layer: Any) -> None:
        self._layer, self._momentum = layer, layer.momentum
        self._count = 0  # number of calls in the average
        self._values = 0  # number of values per channel in the latest call
        self._previous: tuple[Tensor, Tensor, int] | None = None
        self._chunks: list[tuple[Tensor, Tensor, int]] = []
        self._hook = layer.register_forward_pre_hook(self._add)
        layer.reset_running_stats()
        layer.train()

    def close(self) -> None:
        """Remove the hook and restore the layer's momentum; the new statistics stay."""
        self._hook.remove()
        self._layer.momentum = self._momentum

    def _add(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._count, self._values = self._count + 1, inputs[0].numel() // inputs[0].shape[1]
        self._layer.momentum = 1 / self._count

    def begin(self) -> None:
        """Prepare for a chunk."""
        if self._previous is None:
            self._previous = *self._statistics(), self._count
        self._count = 0  # so that the first call replaces the statistics

    def end(self, *, last: bool) -> None:
        """Add the statistics of a chunk; after the last one of a batch, average over the batches so far."""
        self._chunks.append((*self._statistics(), self._values))
        if not last or self._previous is None or not self._values:  # not reached by `run`
            return
        means, variances = (torch.stack(tensors) for tensors in list(zip(*self._chunks, strict=True))[:2])
        counts = torch.tensor([count for *_, count in self._chunks], dtype=means.dtype)[:, None]
        total, values = float(counts.sum()), counts.to(means.device, non_blocking=True)
        mean = (values * means).sum(0) / total
        spread = ((values - 1) * variances).sum(0) + (values * (means - mean).square()).sum(0)
        old_mean, old_variance, batches = self._previous
        with torch.no_grad():
            self._layer.running_mean.copy_((old_mean * batches + mean) / (batches + 1))
            self._layer.running_var.copy_((old_variance * batches + spread / (total - 1)) / (batches + 1))
            self._layer.num_batches_tracked.fill_(batches + 1)
        self._count = batches + 1
        self._previous, self._chunks = None, []

    def _statistics(self) -> tuple[Tensor, Tensor]:
        layer = self._layer
        return layer.running_mean.to(torch.float64, copy=True), layer.running_var.to(torch.float64, copy=True)
