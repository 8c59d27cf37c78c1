"""Seeds, random generators, and a context that restores the global random state."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed(*parts: int | str) -> int:
    """Return a seed below 2^63 that depends on the parts alone: the same on every machine and in every process.

    >>> seed("random", 0) == seed("random", 0) != seed("random", 1)
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Return a random generator on the CPU, seeded by the parts; the global generators are not used.

    >>> bool((torch.rand(3, generator=generator("a", 1)) == torch.rand(3, generator=generator("a", 1))).all())
    True
    """
    return torch.Generator(device="cpu").manual_seed(seed(*parts))


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Restore the global generators of torch (CPU, and CUDA where it was in use), numpy and `random` afterwards."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    numpy_state: Any = np.random.get_state()  # numpy's global state
    python_state = random.getstate()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@contextmanager
def reproducible(*parts: int | str) -> Iterator[None]:
    """Within the block, seed the global generators of torch, numpy and `random` by the parts; restore them after it."""
    number = seed(*parts)
    with preserved_rng():
        torch.default_generator.manual_seed(number)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(number)
        np.random.seed(number % 2**32)
        random.seed(number)
        yield
