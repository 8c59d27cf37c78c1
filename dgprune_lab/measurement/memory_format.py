"""The memory format in which a network runs fastest."""

from __future__ import annotations

import torch
from torch import nn

from ..core import Domain
from ..pruning import device_of, shared_copy


def layout_of(model: nn.Module, domain: Domain) -> torch.memory_format:
    """Return channels last if the network accepts it, otherwise channels first.

    On a CPU, convolutions and pooling run 1.1 to 2 times faster on channels-last images. A network that flattens with
    `view` rejects such images, so two images of the domain are tried. On a GPU the result is channels first.
    """
    device = device_of(model)
    if device.type != "cpu" or not any(isinstance(m, nn.Conv2d) for m in model.modules()):
        return torch.contiguous_format
    images = domain.take(torch.arange(min(2, len(domain))), device=device, layout=torch.channels_last).images
    try:
        with torch.inference_mode():
            shared_copy(model)(images)
    except Exception:
        return torch.contiguous_format
    return torch.channels_last
