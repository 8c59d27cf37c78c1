"""Fastest batch size, bounded by the memory of the feature maps, and fastest memory format of a network."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..core import Domain, Observer, pass_room
from ..pruning import device_of, shared_copy

IMAGES = 250
"""Maximum batch size of a forward pass on a CPU, where larger batches are no faster."""
GRADIENT_IMAGES = 125
"""Maximum batch of a pass with gradients on a CPU. With twice as many images of 28 x 28 pixels, maps are too large for
the allocator to reuse, and a LeNet's pass takes 1.5 times as long; with fewer, a ResNet's last layers are underused.
"""
BYTES, GRADIENT_BYTES = 2**28, 2**30
"""Maximum bytes of feature maps alive at once on a CPU, in a forward pass and in a pass with gradients; never more than
half of the available memory."""
MAP_BYTES = 2**24
"""Maximum bytes of one feature map of a forward pass on a CPU. The allocator returns blocks of 32 MB and more to the
system after each layer, and the next layer waits for new pages: a fifth of a ResNet-50's time at 224 pixels, and half
of an EfficientNet-Lite0's at 96.
"""
_REUSABLE_BYTES = 2 * MAP_BYTES  # the allocator reuses the memory of maps of `IMAGES` images up to this size
TOO_LITTLE = "the device has too little memory for a single image; use a smaller network or the CPU."
GPU_SHARE = 0.5
"""Share of a GPU's free memory for feature maps; there, a whole split is one batch if it fits."""


def batch_size(model: nn.Module, example: Tensor, *, gradients: bool = False) -> int:
    """Return the largest batch for which a network's feature maps stay within the bounds above.

    Args:
        model: the network; a private copy runs once on one image.
        example: (N, C, H, W) images on the network's device; only the first is used.
        gradients: whether the pass keeps what a backward pass needs.
    """
    device = device_of(model)
    if device.type == "cuda":
        limit, memory = 2**20, int(GPU_SHARE * torch.cuda.mem_get_info(device)[0])
    else:
        limit, memory = (GRADIENT_IMAGES, GRADIENT_BYTES) if gradients else (IMAGES, BYTES)
        memory = pass_room(memory)
    try:
        peak, largest = bytes_per_image(model, example, gradients=gradients)
    except torch.OutOfMemoryError:  # the pass itself will report it
        return 1
    if device.type != "cuda" and not gradients and limit * largest > _REUSABLE_BYTES:  # small networks keep `IMAGES`
        limit = MAP_BYTES // largest
    return max(1, min(limit, memory // max(1, peak)))


def bytes_per_image(model: nn.Module, example: Tensor, *, gradients: bool) -> tuple[int, int]:
    """Return the peak bytes of feature maps alive at once while a network runs on one image, and of the largest map.

    With `gradients`, the peak includes all that a backward pass needs, and room for the largest gradient.
    """
    twin = shared_copy(model).requires_grad_(gradients)
    alive = _PeakMemory()
    with torch.set_grad_enabled(gradients), alive:
        logits = twin(example[:1])
    del logits
    return alive.peak + gradients * 2 * alive.largest, alive.largest


class _PeakMemory(Observer):
    """Tracks how many bytes of the tensors made in this block are alive at once.

    Attributes:
        peak: maximum of these bytes.
        largest: bytes of the largest tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.largest = self._now = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {_storage(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _storage(tensor) not in self._storages | inputs:
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._storages.add(key)
        self._now += size
        self.peak, self.largest = max(self.peak, self._now), max(self.largest, size)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self._now -= size


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


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
