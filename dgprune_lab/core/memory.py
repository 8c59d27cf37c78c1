"""Available memory, and how much of it a cache or a pass may take."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

_LEAST_ROOM, _MOST_ROOM = 2**26, 2**30


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes used by this process, available to it, and in total; and bytes free on the GPU, where there is one."""

    used: int
    available: int
    total: int
    gpu_free: int | None = None

    def __str__(self) -> str:
        gpu = "" if self.gpu_free is None else f"; {self.gpu_free / 1e9:.1f} GB free on the GPU"
        available, total, used = (f"{size / 1e9:.1f}" for size in (self.available, self.total, self.used))
        return f"{available} of {total} GB available, {used} GB used by this process{gpu}"


def memory(
    *, gpu: bool = False, cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> Memory:
    """Return the memory of this process, within the limits of its container (cgroups) and of `ulimit -v`.

    Args:
        gpu: look at the GPU too; this starts CUDA in the process, which then can no longer be forked.
        cgroups: where the kernel shows the control groups.
        own: the file that names the group of this process.
    """
    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    for limit, used in (*_container_limits(cgroups, own), *_process_limit()):
        total, available = min(total, limit), min(available, max(limit - used, 0))
    free = int(torch.cuda.mem_get_info()[0]) if gpu and torch.cuda.is_available() else None
    return Memory(used=int(psutil.Process().memory_info().rss), available=available, total=total, gpu_free=free)


def cache_room(share: float, size: int) -> int:
    """Return how many bytes a cache of `size` bytes may take: between 64 MB and 1 GB.

    Within these limits it is `share` of (available memory + `size`); for up to 64 MB the memory is not queried.
    """
    if size <= _LEAST_ROOM:
        return _LEAST_ROOM
    return min(max(int(share * (memory().available + size)), _LEAST_ROOM), _MOST_ROOM)


def pass_room(limit: int) -> int:
    """Return how many bytes a pass on the CPU may take: `limit`, but at most half of the available memory."""
    return min(limit, memory().available // 2)


def give_back_memory() -> None:
    """Give freed memory back to the system; the C library of Linux keeps free blocks between used ones."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _process_limit() -> Iterator[tuple[int, int]]:
    """Yield (limit, bytes used) of the address space of this process, if `ulimit -v` sets a limit."""
    try:
        import resource
    except ImportError:  # Windows has none
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        yield limit, int(psutil.Process().memory_info().vms)


def _container_limits(cgroups: Path, own: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, bytes used except droppable cache) of every control group of this process that sets a limit."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines() if line.count(":") > 1]
    except OSError:
        return
    for number, kinds, path in lines:
        if number == "0":
            yield from _group_limits(cgroups, path, names=("memory.max", "memory.current", "inactive_file"))
        elif "memory" in kinds.split(","):  # version 1
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _group_limits(cgroups / "memory", path, names=names)


def _group_limits(cgroups: Path, path: str, *, names: tuple[str, str, str]) -> Iterator[tuple[int, int]]:
    """Yield the limits of one hierarchy; `names` are its entries for the limit, the bytes used, and those droppable."""
    group = cgroups / path.strip("/")
    for folder in [group, *group.parents][: len(group.parts) - len(cgroups.parts) + 1]:
        try:
            limit, used = (int((folder / name).read_text()) for name in names[:2])
        except (OSError, ValueError):
            continue  # no such group, or the value "max"
        with suppress(OSError, ValueError):
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            used -= int(stat.get(names[2], 0))
        yield limit, max(used, 0)
