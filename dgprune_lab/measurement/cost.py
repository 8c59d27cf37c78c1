"""Size, multiply-accumulates and measured latency of a network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Domain, MacCounter
from ..pruning import device_of, shared_copy

LATENCY_IMAGES, LATENCY_REPEATS = 32, 21
_FEWEST, _PATIENCE = 5, 10.0


def cost_rows(model: nn.Module, domain: Domain) -> list[dict[str, Any]]:
    """Return rows of parameters, MACs per image (as `MacCounter` counts) and bytes (with buffers)."""
    twin = shared_copy(model)
    example = domain.take(domain.rows(next(iter(domain.splits)), 1), device=device_of(model)).images
    with MacCounter() as counter, torch.no_grad():
        twin(example)
    parameters = sum(p.numel() for p in model.parameters())
    size = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    return [
        {"metric": "parameters", "value": parameters, "unit": "count"},
        {"metric": "macs", "value": counter.total, "unit": "per image"},
        {"metric": "bytes", "value": size, "unit": "bytes"},
    ]


def timings(model: nn.Module, images: Tensor, *, repeats: int = LATENCY_REPEATS) -> Iterator[float]:
    """Yield the milliseconds of each of `repeats` forward passes of one batch, after two warm-up passes.

    After 10 seconds, five passes are enough.
    """
    twin, end = shared_copy(model), time.perf_counter() + _PATIENCE
    for k in range(repeats + 2):
        if k >= 2 + _FEWEST and time.perf_counter() > end:
            return
        _wait(images)
        start = time.perf_counter()
        with torch.inference_mode():
            twin(images)
        _wait(images)
        if k >= 2:
            yield (time.perf_counter() - start) * 1e3


def latency_row(milliseconds: Sequence[float], images: int) -> dict[str, Any]:
    """Return a row with the median and the range of the milliseconds per batch."""
    return {
        "metric": "latency",
        "value": statistics.median(milliseconds),
        "low": min(milliseconds),
        "high": max(milliseconds),
        "interval": "range",
        "unit": f"ms per {images} images",
        "images": images,
    }


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
