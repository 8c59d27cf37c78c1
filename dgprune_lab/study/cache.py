"""A cache with a limit in bytes, and values that change when a network is changed in place."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from ..core import Lock

Key = tuple[Hashable, ...]


class Cache:
    """Values by key; the least recently used are evicted first. Safe to use from several threads.

    Args:
        limit: total bytes of the values; the newest value stays even if it is larger.

    Attributes:
        lock: held while the cache changes; the study holds it while it takes a new snapshot of its network.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._entries: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        self.lock = Lock()

    def get(self, key: Key) -> Any:
        """Return the value of this key, or None."""
        with self.lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def find(self, fits: Callable[[Key], bool]) -> Any:
        """Return the smallest value whose key fits, or None."""
        with self.lock:
            key = min(filter(fits, self._entries), key=lambda key: self._entries[key][1], default=None)
            return None if key is None else self.get(key)

    def put(self, key: Key, value: Any, *, size: int) -> None:
        """Store a value of `size` bytes under this key."""
        with self.lock:
            self._size += size - self._entries.pop(key, (None, 0))[1]
            self._entries[key] = (value, size)
            self._evict()

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Temporarily raise the size limit by `size` bytes."""
        with self.lock:
            self._limit += size
        try:
            yield
        finally:
            with self.lock:
                self._limit -= size
                self._evict()

    def _evict(self) -> None:
        while self._size > self._limit and len(self._entries) > 1:
            self._size -= self._entries.popitem(last=False)[1][1]


def stamp(model: nn.Module) -> tuple[object, ...]:
    """Return a value, cheap to compute, that changes with any weight or layer.

    It holds the layers and, of each tensor, address, version and sums. A plain sum would miss filters that are swapped
    without a new version, so a sample of the values is summed with weights too.
    """
    tensors = [*model.parameters(), *model.buffers()]
    sums = []
    with torch.no_grad():
        for t in tensors:
            sample = t.detach().flatten()[:: 1 + t.numel() // 4096].double()
            summed = t if t.numel() >= 4096 else sample
            sums += [float(summed.sum()), float(sample @ _ramp(len(sample)).to(sample))]
    layers = tuple((name, type(module), module.extra_repr()) for name, module in model.named_modules())
    return (*((t.data_ptr(), t._version, tuple(t.shape)) for t in tensors), *sums, *layers, *_settings(model))


_INTERNAL = frozenset(vars(nn.Module()))


def _settings(model: nn.Module) -> list[tuple[str, str, object]]:
    """Attributes of layers that are neither tensors nor layers: numbers, texts, containers of these, functions.

    Of layers that are not PyTorch's, those of the class too, with its `forward`.
    """
    found = []
    for layer, module in model.named_modules():
        own = [kind for kind in type(module).__mro__ if not kind.__module__.startswith(("torch.", "builtins"))]
        for held in (vars(module), *map(vars, own)):
            for name, value in held.items():
                known = _setting(value)
                if known is not None and name not in _INTERNAL and not name.startswith(("__", "dgprune_")):
                    found.append((layer, name, known))
    return found


def _setting(value: object) -> object:
    if isinstance(value, (bool, int, float, complex, str, bytes)):
        return value
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, (list, tuple)) and len(value) <= 1000:
        return tuple(map(_setting, value))
    if isinstance(value, dict) and len(value) <= 1000:
        return tuple((str(key), _setting(part)) for key, part in value.items())
    code = getattr(value, "__code__", None)
    return None if code is None else (code.co_code, [c for c in code.co_consts if not hasattr(c, "co_code")])


@lru_cache(maxsize=64)
def _ramp(count: int) -> torch.Tensor:
    return torch.linspace(1, 2, count, dtype=torch.float64)


def content(model: nn.Module) -> str:
    """Return a hash of layers, parameters and buffers."""
    digest = hashlib.blake2b(repr(model).encode(), digest_size=12)
    digest.update(repr(_settings(model)).encode())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
