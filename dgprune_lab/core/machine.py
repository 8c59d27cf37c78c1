"""The machine: device, threads, memory left, and randomness that never touches the global generators."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from .errors import DgpruneError, unknown

FASTER = 0.8  # more threads must bring the median below this share of it
UNSTEADY = 1.3  # and must not make the worst run longer than this multiple of it
_ROUNDS, _REPEATS, _PATIENCE = 4, 5, 0.5  # patience: seconds for one pair of counts
_MOST = 16  # more threads than this never help on networks of this size

_lock = threading.Lock()
_chosen: Threads | None = None
_here = threading.local()


@dataclass(frozen=True)
class Threads:
    """How many threads torch uses on the CPU, and the sentence that says why."""

    count: int
    reason: str


@dataclass(frozen=True)
class Memory:
    """Bytes in use by this process, still available to it and in all; free on the GPU where there is one."""

    used: int
    available: int
    total: int
    gpu_free: int | None = None

    def __str__(self) -> str:
        gpu = "" if self.gpu_free is None else f"; {self.gpu_free / 1e9:.1f} GB free on the GPU"
        return (
            f"{self.available / 1e9:.1f} of {self.total / 1e9:.1f} GB available, "
            f"{self.used / 1e9:.1f} GB used by this process{gpu}"
        )


def threads(*, force: bool = False) -> Threads:
    """The thread count torch uses from now on: as the environment says, else as measured once per process.

    A small convolution is timed with 1, 2, 1, 2, ... threads (and larger counts where there are cores). On a shared
    machine two threads are often several times slower than one, so more threads must win clearly and steadily: see
    `decide`. `DGPRUNE_THREADS` (a number, or "off": leave torch as it is) comes before `OMP_NUM_THREADS`, which comes
    before measuring. Torch keeps the count per thread: a worker thread calls this once at its start.

    Args:
        force: measure again, for example because a step takes three times its usual time.

    Raises:
        DgpruneError: DGPRUNE_THREADS is neither a positive number nor "off".
    """
    global _chosen
    with _lock:
        if _chosen is None or force:
            _chosen = _asked() or _probed()
            _here.count = None
        if getattr(_here, "count", None) != _chosen.count:
            _here.count = _chosen.count
            if torch.get_num_threads() != _chosen.count:
                torch.set_num_threads(_chosen.count)
        return _chosen


def decide(timings: Mapping[int, Sequence[float]]) -> Threads:
    """The best thread count by timings of the same work, one list of seconds for each count.

    From the smallest count upwards, the next one is taken only if its median is below 0.8 of the median so far and
    its worst run is at most 1.3 times the worst so far; the first refusal ends it. The minimum is never looked at:
    it favours more threads exactly when another process makes them unsteady.

    >>> decide({1: [0.033, 0.034, 0.035], 2: [0.031, 0.033, 0.204]}).count
    1
    >>> decide({1: [0.033, 0.034, 0.035], 2: [0.018, 0.018, 0.020]}).count
    2
    """
    best, *more = sorted(timings)
    said = "there is nothing to compare it with"
    for count in more:
        middle, worst = statistics.median(timings[count]), max(timings[count])
        middle_best, worst_best = statistics.median(timings[best]), max(timings[best])
        said = f"a small convolution takes {middle * 1e3:.1f} ms with {count}, {middle_best * 1e3:.1f} ms with {best}"
        if middle >= FASTER * middle_best:
            return Threads(best, f"{_words(best)}: {said}")
        if worst > UNSTEADY * worst_best:
            said += f", but up to {worst * 1e3:.1f} ms against {worst_best * 1e3:.1f} ms"
            return Threads(best, f"{_words(best)}: {said}")
        best = count
    return Threads(best, f"{_words(best)}: {said}")


def device(name: str | None = None) -> torch.device:
    """The device called `name` ("cpu", "cuda", "cuda:1", "mps"), or the best one there is.

    Raises:
        DgpruneError: the name is unknown, or this machine has no such device.
    """
    if name is None:
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    kind, _, number = str(name).partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise unknown("device", str(name), ["cpu", "cuda", "mps"])
    if kind == "cuda" and not torch.cuda.is_available():
        why = "this torch was built without CUDA" if torch.version.cuda is None else "torch finds no NVIDIA GPU"
        raise DgpruneError(f"device {name!r} was asked for, but {why}. Use device='cpu', or device=None for the best.")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise DgpruneError(f"device {name!r} was asked for, but there are {there} GPUs, counted from 0.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DgpruneError(f"device {name!r} was asked for, but torch finds no Apple GPU. Use device='cpu'.")
    return torch.device(str(name))


def memory(*, cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Memory:
    """Memory of this process, within the limit of its container (cgroup v1 or v2) where there is one.

    Args:
        cgroups: where the kernel shows the control groups.
        own: the file that names the groups of this process.
    """
    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    for limit, used in _limits(cgroups, own):
        if limit < machine.total:
            total, available = min(total, limit), min(available, max(limit - used, 0))
    gpu = int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
    return Memory(used=int(psutil.Process().memory_info().rss), available=available, total=total, gpu_free=gpu)


def cores() -> int:
    """Cores this process may use: by affinity and by the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no container, or one without a quota ("max")
    return max(1, allowed)


def _words(count: int) -> str:
    """The count in words: 1 thread, 2 threads."""
    return f"{count} thread" if count == 1 else f"{count} threads"


def _asked() -> Threads | None:
    """The count that the environment asks for, if it does."""
    wish = os.environ.get("DGPRUNE_THREADS", "").strip()
    if wish.lower() == "off":
        found = torch.get_num_threads()
        return Threads(found, f"{_words(found)}, as torch had it: DGPRUNE_THREADS=off")
    if wish:
        if not wish.isdigit() or int(wish) < 1:
            raise DgpruneError(f'DGPRUNE_THREADS must be a number from 1 or "off", got {wish!r}. Set it, or unset it.')
        return Threads(int(wish), f"{_words(int(wish))}: DGPRUNE_THREADS says so")
    outer = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # OpenMP allows a list, one per nesting level
    if outer.isdigit() and int(outer) >= 1:
        return Threads(int(outer), f"{_words(int(outer))}: OMP_NUM_THREADS says so")
    return None


def _probed() -> Threads:
    """The count that timings on this machine decide, larger ones tried as long as they win."""
    most = min(cores(), _MOST)
    counts = sorted({count for count in (1, 2, 4, 8, 16) if count <= most} | {most})
    before, best = torch.get_num_threads(), Threads(1, "1 thread: there is only one core to use")
    try:
        for count in counts[1:]:
            found = decide(_timings(best.count, count))
            if found.count == best.count:
                return found if best.count == 1 else best
            best = found
    finally:
        torch.set_num_threads(before)
    return best


def _timings(one: int, other: int) -> dict[int, list[float]]:
    """Seconds of a small convolution with either count, in alternating rounds, ended early where it is slow."""
    image = torch.ones(32, 16, 28, 28, dtype=torch.float32, device="cpu")
    weight = torch.ones(16, 16, 3, 3, dtype=torch.float32, device="cpu")
    taken: dict[int, list[float]] = {one: [], other: []}
    end = time.perf_counter() + _PATIENCE
    with torch.inference_mode():
        for turn in range(_ROUNDS + 1):
            for count in (one, other):
                torch.set_num_threads(count)
                for _ in range(_REPEATS if turn else 1):  # turn 0 starts the threads and is not counted
                    start = time.perf_counter()
                    torch.nn.functional.conv2d(image, weight, padding=1)
                    if turn:
                        taken[count].append(time.perf_counter() - start)
            if turn and time.perf_counter() > end:
                break
    return taken


def _limits(cgroups: Path, own: Path) -> list[tuple[int, int]]:
    """(limit, used without what can be dropped) in bytes of every control group above this process."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, kinds, path = (*line.split(":", 2), "", "")[:3]
        if kinds == "":
            base, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            base, names = cgroups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = base / path.strip("/")
        for group in (folder, *folder.parents):
            if (entry := _limit(group, *names)) is not None:
                found.append(entry)
            if group == base:
                break
    return found


def _limit(group: Path, most: str, used: str, droppable: str) -> tuple[int, int] | None:
    """(limit, used) of one control group; None where it sets none."""
    try:
        limit, now = int((group / most).read_text()), int((group / used).read_text())
    except (OSError, ValueError):
        return None  # no such group, or the word "max"
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        now -= int(stat.get(droppable, 0))
    except (OSError, ValueError):
        pass
    return limit, max(now, 0)
