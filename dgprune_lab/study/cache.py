"""A cache with a limit in bytes, and hashes that change when a network is changed in place."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core import Lock, cache_room

Key = tuple[Hashable, ...]
_COLUMNS = 16 * 67  # 64-bit words; aligned, and no length of a filter, so that the sums notice swapped filters


def _default_limit(size: int) -> int:
    return cache_room(0.05, size)


class Cache:
    """Values by key; the least recently used are evicted first. Safe to use from several threads.

    Args:
        limit: function that maps the size of all values to the size allowed, in bytes; by default 5 % of the available
            memory. The newest value stays even if it is larger.

    Attributes:
        lock: held while the cache changes; the study holds it while it takes a new snapshot of its network.
    """

    def __init__(self, *, limit: Callable[[int], int] = _default_limit) -> None:
        self._limit, self._extra, self._size = limit, 0, 0
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
        """Return the value that takes the fewest bytes among those whose key fits, or None."""
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
            self._extra += size
        try:
            yield
        finally:
            with self.lock:
                self._extra -= size
                self._evict()

    def _evict(self) -> None:
        limit = self._extra + self._limit(self._size)
        while self._size > limit and len(self._entries) > 1:
            self._size -= self._entries.popitem(last=False)[1][1]


def stamp(model: nn.Module) -> tuple[object, ...]:
    """Return a value that is cheap to compute and changes whenever any weight or layer changes.

    It holds the layers, the address and version of each tensor, and check sums of all values, because writing
    through `.data` or numpy makes no new version. The check sums read each value once, on its device.
    """
    tensors = [*model.parameters(), *model.buffers()]
    layers = tuple((name, type(module)) for name, module in model.named_modules())
    versions = ((t.data_ptr(), t.is_inference() or t._version, tuple(t.shape)) for t in tensors)
    return (*versions, _check_sums(tensors), *layers, *_settings(model))


def _check_sums(tensors: Iterable[Tensor]) -> str:
    """Return a hash of small tensors and, for larger ones, of the sums over every 1,072nd 64-bit word, modulo 2^64.

    A change of one value always changes a sum; two swapped values go unnoticed only if they are a multiple of 1,072
    words apart. Each GPU copies its data to the CPU at once.
    """
    devices: dict[torch.device, list[Tensor]] = defaultdict(list)
    with torch.no_grad():
        for tensor in tensors:
            memory, parts = _memory(tensor), devices[tensor.device]
            size = len(memory) // (8 * _COLUMNS) * 8 * _COLUMNS
            if size > 8 * _COLUMNS:
                rows, memory = memory[:size].view(torch.int64).view(-1, _COLUMNS), memory[size:]
                # numpy adds rows 1.4 times as fast as torch, as fast as memory can be read
                sums = rows.sum(0) if tensor.device.type != "cpu" else torch.from_numpy(np.add.reduce(rows.numpy()))
                parts.append(sums.view(torch.uint8))
            parts.append(memory)
        buffers = [torch.cat(parts).cpu().numpy().data for parts in devices.values()]
    digest = hashlib.blake2b(digest_size=16)
    for data in buffers:
        digest.update(data)
    return digest.hexdigest()


def _memory(tensor: Tensor) -> Tensor:
    """Return a tensor's bytes in memory order, copied only if there are gaps or unaligned words."""
    if not tensor.is_contiguous():
        tensor = tensor.permute(sorted(range(tensor.ndim), key=tensor.stride, reverse=True))
    memory = tensor.detach().contiguous().flatten().view(torch.uint8)
    return memory.clone() if memory.storage_offset() % 8 else memory


_INTERNAL = frozenset(vars(nn.Module()))


def _settings(model: nn.Module) -> list[tuple[str, str, object]]:
    """Return (owner, name, value) of layer attributes that are numbers, strings, functions or containers of these.

    For layers that are not PyTorch's, the attributes of their classes count too, `forward` among them.
    """
    modules = dict(model.named_modules())
    kinds = {kind: None for module in modules.values() for kind in type(module).__mro__}
    own = [kind for kind in kinds if not kind.__module__.startswith(("torch.", "builtins"))]
    settings = []
    owners = [*modules.items(), *((kind.__qualname__, kind) for kind in own)]
    for owner, attributes in ((name, vars(item)) for name, item in owners):
        for name, value in attributes.items():
            if name not in _INTERNAL and not name.startswith(("__", "dgprune_")):
                setting = _setting(value)
                if setting is not None:
                    settings.append((owner, name, setting))
    return settings


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


def content(model: nn.Module) -> str:
    """Return a hash of layers, parameters and buffers."""
    digest = hashlib.blake2b(repr(model).encode(), digest_size=12)
    digest.update(repr(_settings(model)).encode())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
