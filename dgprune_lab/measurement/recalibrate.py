"""BatchNorm statistics re-estimated on source images."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..core import BATCHNORM, Count, DgpruneError, Domain, drain, provenance_of, public, set_provenance
from ..pruning import deep_copy, device_of, prove_copies, refuse_other_types
from .memory_format import layout_of

_BATCH = 250


def has_batchnorm(model: nn.Module) -> bool:
    """Whether any layer keeps running BatchNorm statistics."""
    return bool(_norms(model))


def _norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in model.modules() if isinstance(m, BATCHNORM) and m.running_mean is not None]


@public
def recalibrate(model: nn.Module, domains: Sequence[Domain], images: Count = 500) -> nn.Module:
    """Return a new network whose BatchNorm statistics are re-estimated on source images; no label is read.

    Equal numbers of the first images of each source's `train` split are mixed in batches of 250; the statistics are
    the plain average over the batches. Everything else runs as in eval mode and no weight changes. Without BatchNorm
    the result is a copy.

    Args:
        model: any network.
        domains: the domains in the role "source" are read (all domains where no role is set).
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
        drain(calibration_steps(twin, calibration_images(twin, calibration_batches(domains, images))))
        read = {f"{domain.name}/train": "images" for domain in calibration_sources(domains)}
        set_provenance(twin, provenance_of(model).adding("finetuning", read))  # type: ignore[arg-type]
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


def calibration_batches(domains: Sequence[Domain], images: int = 500) -> list[list[tuple[Domain, Tensor]]]:
    """Return the fixed batches of `recalibrate`; a batch lists each source with its row numbers."""
    if images < 2:
        raise DgpruneError(f"re-estimating BatchNorm needs at least 2 images; got {images}.")
    sources = calibration_sources(domains)[:images]
    shares = [images // len(sources) + (k < images % len(sources)) for k in range(len(sources))]
    rows = [domain.rows("train", share) for domain, share in zip(sources, shares, strict=True)]
    total = sum(map(len, rows))
    if total < 2:
        raise DgpruneError("re-estimating BatchNorm needs at least 2 images; the sources' train splits hold 1.")
    # Only as many batches as there are images to fill: an empty one would make every statistic NaN.
    count = max(1, round(total / _BATCH))
    batches = zip(*(of_source.tensor_split(count) for of_source in rows), strict=True)
    return [[(source, part) for source, part in zip(sources, batch, strict=True) if len(part)] for batch in batches]


def calibration_images(model: nn.Module, batches: Iterable[list[tuple[Domain, Tensor]]]) -> Iterator[Tensor]:
    """Yield the (B, C, H, W) images of `calibration_batches`, on the model's device and in its memory format."""
    layout: torch.memory_format | None = None
    device = device_of(model)
    for batch in batches:
        if layout is None:
            layout = layout_of(model, batch[0][0])
        images = [domain.take(rows, device=device, layout=layout).images for domain, rows in batch]
        yield torch.cat(images).contiguous(memory_format=layout)


def calibration_steps(model: nn.Module, batches: Iterable[Tensor]) -> Generator[None, None, None]:
    """Re-estimate a network's BatchNorm statistics in place; yields after every batch, restores train or eval mode."""
    layers = _norms(model)
    modes = {module: module.training for module in model.modules()}
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    try:
        for batch in batches:
            with torch.inference_mode(False), torch.no_grad():
                model(batch)
            yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, training in modes.items():
            module.training = training
