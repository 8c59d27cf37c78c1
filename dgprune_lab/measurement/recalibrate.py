"""BatchNorm statistics re-estimated on source images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..core import BATCHNORM, DgpruneError, Domain, provenance_of, set_provenance
from ..pruning import rebuild
from .memory_format import layout_of

_BATCH = 250


def has_batchnorm(model: nn.Module) -> bool:
    """Whether some layer keeps running BatchNorm statistics."""
    return any(isinstance(m, BATCHNORM) and m.running_mean is not None for m in model.modules())


def recalibrate(model: nn.Module, domains: Sequence[Domain], images: int = 500) -> nn.Module:
    """A new network whose BatchNorm statistics are re-estimated on source images; no weight changes, no label is read.

    `images` in all, the first of each source's `train` part in equal shares, mixed in batches of 250; the
    statistics are the plain average over the batches. Everything else runs as in eval mode. Without BatchNorm the
    result is a copy.

    Args:
        model: any network.
        domains: those in the role "source" are read (all of them where no role is set).
        images: in all, at least 2.

    Raises:
        DgpruneError: no source has a `train` part.
    """
    twin = rebuild(model, lambda _, tensor: tensor.clone())
    layers = [m for m in twin.modules() if isinstance(m, BATCHNORM) and m.running_mean is not None]
    set_provenance(twin, provenance_of(model))
    if not layers:
        return twin
    run_calibration(twin, calibration_images(twin, calibration_batches(domains, images)))
    read = {f"{domain.name}/train": "images" for domain in calibration_sources(domains)}
    set_provenance(twin, provenance_of(model).adding("tuning", read))  # type: ignore[arg-type]
    return twin


def calibration_sources(domains: Sequence[Domain]) -> list[Domain]:
    """The domains that BatchNorm statistics may be re-estimated on."""
    if any(domain.role is not None for domain in domains):
        domains = [domain for domain in domains if domain.role == "source"]
    found = [domain for domain in domains if len(domain.splits.get("train", ()))]
    if not found:
        names = ", ".join(domain.name for domain in domains) or "none"
        raise DgpruneError(f"re-estimating BatchNorm needs a source with a train part; sources here: {names}.")
    return found


def calibration_batches(domains: Sequence[Domain], images: int = 500) -> list[list[tuple[Domain, Tensor]]]:
    """The fixed batches of `recalibrate`: for each, the rows of every source; equal shares, 250 images a batch."""
    if images < 2:
        raise DgpruneError(f"re-estimating BatchNorm needs at least 2 images; got {images}.")
    sources = calibration_sources(domains)
    shares = [images // len(sources) + (k < images % len(sources)) for k in range(len(sources))]
    held = [domain.rows("train", share) for domain, share in zip(sources, shares, strict=True)]
    there = sum(map(len, held))
    if there < 2:
        raise DgpruneError("re-estimating BatchNorm needs at least 2 images; the sources' train parts hold 1.")
    # As many batches as the images that are there fill: an empty one would make every statistic NaN.
    count = max(1, round(there / _BATCH))
    parts = [
        [(domain, rows) for rows in chosen.tensor_split(count)] for domain, chosen in zip(sources, held, strict=True)
    ]
    return [list(batch) for batch in zip(*parts, strict=True)]


def calibration_images(model: nn.Module, batches: Iterable[list[tuple[Domain, Tensor]]]) -> Iterator[Tensor]:
    """The images of `calibration_batches`, (B, C, H, W) each, where and how the model reads them."""
    layout: torch.memory_format | None = None
    device = next(model.parameters()).device
    for batch in batches:
        if layout is None:
            layout = layout_of(model, batch[0][0])
        parts = [domain.take(rows, device=device, layout=layout).images for domain, rows in batch]
        yield torch.cat(parts).contiguous(memory_format=layout)


def run_calibration(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Re-estimate a network's own BatchNorm statistics in place on these batches, and leave the modes as found."""
    for _ in calibration_steps(model, batches):
        pass


def calibration_steps(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[None]:
    """`run_calibration` that yields after every batch; modes are put back however it ends."""
    layers = [m for m in model.modules() if isinstance(m, BATCHNORM) and m.running_mean is not None]
    modes = {module: module.training for module in model.modules()}
    held = [layer.momentum for layer in layers]
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
        for layer, momentum in zip(layers, held, strict=True):
            layer.momentum = momentum
        for module, training in modes.items():
            module.training = training
