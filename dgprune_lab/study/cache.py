"""What a study has computed: values bounded in bytes, and fingerprints that notice a network changed in place."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import nn

Key = tuple[Hashable, ...]


class Cache:
    """Values by key, the least recently used given up first; safe to use from several threads.

    Args:
        limit: bytes in all; the newest value stays even if it is larger.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._held: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, key: Key) -> Any:
        """The value, or None."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def find(self, fits: Callable[[Key], bool]) -> Any:
        """The smallest value whose key fits, or None."""
        with self._lock:
            found = min(filter(fits, self._held), key=lambda key: self._held[key][1], default=None)
            return None if found is None else self.get(found)

    def put(self, key: Key, value: Any, *, size: int) -> None:
        """Keep a value of so many bytes."""
        with self._lock:
            self._size += size - self._held.pop(key, (None, 0))[1]
            self._held[key] = (value, size)
            self._shrink()

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Let so many bytes more stay until the end."""
        with self._lock:
            self._limit += size
        try:
            yield
        finally:
            with self._lock:
                self._limit -= size
                self._shrink()

    def _shrink(self) -> None:
        while self._size > self._limit and len(self._held) > 1:
            self._size -= self._held.popitem(last=False)[1][1]


def stamp(model: nn.Module) -> tuple[object, ...]:
    """Cheap, and changes when a weight or a layer does: place, version and two sums of every tensor, and the layers.

    A plain sum would miss filters that change places behind the version counter: a sample is summed with weights.
    """
    tensors = [*model.parameters(), *model.buffers()]
    sums = []
    with torch.no_grad():
        for t in tensors:
            sample = t.detach().flatten()[:: 1 + t.numel() // 4096].double()
            whole = t if t.numel() >= 4096 else sample
            sums += [float(whole.sum()), float(sample @ _ramp(len(sample)).to(sample))]
    layers = tuple((name, type(module), module.extra_repr()) for name, module in model.named_modules())
    return (*((t.data_ptr(), t._version, tuple(t.shape)) for t in tensors), *sums, *layers)


@lru_cache(maxsize=64)
def _ramp(count: int) -> torch.Tensor:
    return torch.linspace(1, 2, count, dtype=torch.float64)


def content(model: nn.Module) -> str:
    digest = hashlib.blake2b(repr(model).encode(), digest_size=12)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
