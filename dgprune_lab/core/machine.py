"""The machine: the device and the number of threads."""

from __future__ import annotations

import os
import platform
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .errors import DgpruneError, unknown
from .locks import Lock
from .memory import memory

FASTER = 0.8  # more threads must reduce the median time below this share of it
UNSTEADY = 1.3  # and must not lengthen the worst run beyond this multiple of it
_ROUNDS, _REPEATS, _PATIENCE = 4, 5, 0.5  # patience: seconds for two thread counts
_MOST_THREADS = 16  # more threads than this never help on networks of this size

_lock = Lock()
_chosen: Threads | None = None
_local = threading.local()
_open_blocks = 0  # number of running `full_precision` blocks
_saved_precisions: list[Any] = []


@dataclass(frozen=True)
class Threads:
    """Number of threads that torch uses on the CPU, and the reason as a sentence."""

    count: int
    reason: str


def threads(*, force: bool = False) -> Threads:
    """Set torch's number of threads: from the environment, otherwise as measured once per process.

    A small convolution is timed with 1, 2, 1, 2, ... threads (and larger counts where there are cores). On a shared
    machine two threads are often several times slower than one, so more threads must be clearly and steadily faster:
    see `decide`. `DGPRUNE_THREADS` (a number, or "off": leave torch as it is) overrides `OMP_NUM_THREADS`, which
    overrides measuring. Torch keeps the count per thread: a worker thread calls this once at its start.

    Args:
        force: measure again, for example because a step takes three times its usual time.

    Raises:
        DgpruneError: DGPRUNE_THREADS is neither a positive number nor "off".
    """
    global _chosen
    with _lock:
        if _chosen is None or force:
            _chosen = _from_environment() or _measure_threads()
            _local.count = None
        if getattr(_local, "count", None) != _chosen.count:
            _local.count = _chosen.count
            if torch.get_num_threads() != _chosen.count:
                torch.set_num_threads(_chosen.count)
        return _chosen


def decide(timings: Mapping[int, Sequence[float]]) -> Threads:
    """Return the best thread count, given for each count a list of seconds that the same work took.

    From the smallest count up, the next count is taken only if its median is below 0.8 of the median so far and its
    worst run at most 1.3 times the worst so far; the first refusal ends the search. The minimum is ignored: it favours
    more threads exactly when another process makes them unsteady.

    >>> decide({1: [0.033, 0.034, 0.035], 2: [0.031, 0.033, 0.204]}).count
    1
    >>> decide({1: [0.033, 0.034, 0.035], 2: [0.018, 0.018, 0.020]}).count
    2
    """
    best, *larger = sorted(timings)
    reason = "there is nothing to compare it with"
    for count in larger:
        (median, worst), (best_median, best_worst) = (
            (statistics.median(timings[n]), max(timings[n])) for n in (count, best)
        )
        reason = f"a small convolution takes {median * 1e3:.1f} ms with {count}, {best_median * 1e3:.1f} ms with {best}"
        if median < FASTER * best_median and worst > UNSTEADY * best_worst:
            reason += f", but up to {worst * 1e3:.1f} ms against {best_worst * 1e3:.1f} ms"
        elif median < FASTER * best_median:
            best = count
            continue
        break
    return _make_threads(best, f": {reason}")


def device(name: str | None = None) -> torch.device:
    """Return the device called `name` ("cpu", "cuda", "cuda:1", "mps"); None for a CUDA GPU if there is one.

    An Apple GPU ("mps") is taken only by name: passes for scorers sum in float64, which it lacks.

    Raises:
        DgpruneError: the name is unknown, or this machine has no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = str(name).partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise unknown("device", str(name), ["cpu", "cuda", "mps"])
    if kind == "cuda" and not torch.cuda.is_available():
        why = "this torch was built without CUDA" if torch.version.cuda is None else "torch finds no NVIDIA GPU"
        raise DgpruneError(f"device {name!r} was requested, but {why}. Use device='cpu', or device=None.")
    if kind == "cuda" and number and int(number) >= (count := torch.cuda.device_count()):
        raise DgpruneError(f"device {name!r} was requested, but there are {count} GPUs, counted from 0.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DgpruneError(f"device {name!r} was requested, but torch finds no Apple GPU. Use device='cpu'.")
    return torch.device(str(name))


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Within the block, keep float32 convolutions and matrix products on a GPU from being rounded to TF32 (10 bits).

    TF32 is the default for convolutions: two ways to compute the same logits then differ by about 0.1 %. The setting
    belongs to the whole process: while blocks of several threads overlap, the last one to end restores it.
    """
    global _open_blocks, _saved_precisions
    if device.type != "cuda":
        yield
        return
    with _lock:
        if not _open_blocks:
            _saved_precisions = [getattr(owner, name) for owner, name, _ in _precision_settings()]
            for owner, name, exact in _precision_settings():
                setattr(owner, name, exact)
        _open_blocks += 1
    try:
        yield
    finally:
        with _lock:
            _open_blocks -= 1
            if not _open_blocks:
                for (owner, name, _), value in zip(_precision_settings(), _saved_precisions, strict=True):
                    setattr(owner, name, value)


def _precision_settings() -> list[tuple[Any, str, object]]:
    """Return (object, attribute, value) for each setting that forbids TF32."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # since PyTorch 2.9; reading the older names fails where these were set
        owners: list[Any] = [matmul, cudnn.conv, cudnn.rnn]  # type: ignore[attr-defined]
        return [(owner, "fp32_precision", "ieee") for owner in owners]
    return [(owner, "allow_tf32", False) for owner in (matmul, cudnn)]


def cores() -> int:
    """Return the number of cores this process may use: by affinity and by the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no container, or one without a quota ("max")
        return max(1, allowed)


def machine_description() -> str:
    """Return the processor, cores and memory that this process may use, as text, without the machine's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    name = names[0] if names and names[0] else platform.processor() or platform.machine() or "unknown processor"
    count = cores()
    return f"{name}, {count} core{'' if count == 1 else 's'}, {memory().total / 1e9:.0f} GB of memory"


def _make_threads(count: int, reason: str) -> Threads:
    return Threads(count, f"{count} thread{'' if count == 1 else 's'}{reason}")


def _from_environment() -> Threads | None:
    """Return the thread count that the environment sets, or None."""
    value = os.environ.get("DGPRUNE_THREADS", "").strip()
    if value.lower() == "off":
        return _make_threads(torch.get_num_threads(), ", left as torch set it: DGPRUNE_THREADS=off")
    if value:
        if not value.isdigit() or int(value) < 1:
            raise DgpruneError(f'DGPRUNE_THREADS must be a number from 1 or "off"; got {value!r}. Change or unset it.')
        return _make_threads(int(value), ": set by DGPRUNE_THREADS")
    outer = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # OpenMP allows a list, one per nesting level
    return _make_threads(int(outer), ": set by OMP_NUM_THREADS") if outer.isdigit() and int(outer) >= 1 else None


def _measure_threads() -> Threads:
    """Return the thread count chosen by timings on this machine; larger counts are tried as long as each is faster."""
    limit = min(cores(), _MOST_THREADS)
    counts = sorted({count for count in (1, 2, 4, 8, 16) if count <= limit} | {limit})
    before, best = torch.get_num_threads(), Threads(1, "1 thread: there is only one core to use")
    try:
        for count in counts[1:]:
            decision = decide(_timings(best.count, count))
            if decision.count == best.count:
                return decision if best.count == 1 else best
            best = decision
    finally:
        torch.set_num_threads(before)
    return best


def _timings(first: int, second: int) -> dict[int, list[float]]:
    """Return thread count -> seconds of each run of a small convolution, in alternating rounds; fewer if it is slow."""
    image, weight = torch.ones(32, 16, 28, 28), torch.ones(16, 16, 3, 3)
    seconds: dict[int, list[float]] = {first: [], second: []}
    end = time.perf_counter() + _PATIENCE
    with torch.inference_mode():
        for turn in range(_ROUNDS + 1):
            for count in (first, second):
                torch.set_num_threads(count)
                for _ in range(_REPEATS if turn else 1):  # turn 0 starts the threads and is not counted
                    start = time.perf_counter()
                    torch.nn.functional.conv2d(image, weight, padding=1)
                    if turn:
                        seconds[count].append(time.perf_counter() - start)
            if turn and time.perf_counter() > end:
                break
    return seconds
