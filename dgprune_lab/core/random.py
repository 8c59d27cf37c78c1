"""Seeds, generators, and the random state left as found."""

from __future__ import annotations

import hashlib
import random
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch


def seed(*parts: int | str) -> int:
    """A number below 2^63 that depends on nothing but its parts, the same on every machine and in every process.

    >>> seed("random", 0) == seed("random", 0) != seed("random", 1)
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A generator on the CPU seeded from its parts; the global generators are neither read nor moved.

    >>> bool((torch.rand(3, generator=generator("a", 1)) == torch.rand(3, generator=generator("a", 1))).all())
    True
    """
    return torch.Generator(device="cpu").manual_seed(seed(*parts))


class preserved_rng:
    """Leaves the global generators of torch (CPU, and CUDA where it was in use), numpy and `random` as found."""

    def __enter__(self) -> Self:
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._numpy: Any = np.random.get_state()  # the global state is the point here
        self._python = random.getstate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        np.random.set_state(self._numpy)
        random.setstate(self._python)
