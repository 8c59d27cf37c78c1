"""The largest eigenvalues of a symmetric matrix that is known by its products: SciPy's `eigsh`, as a generator."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import DgpruneError

TOLERANCE = 1e-4
"""Of the residual: |H v - lambda v| <= TOLERANCE |lambda|."""
_RESTARTS = 300

Array = NDArray[Any]


class _Ended(Exception):
    """Ends the search of a generator that was closed."""


def lanczos_vectors(count: int) -> int:
    """Return how many vectors the search for `count` eigenvectors holds."""
    return max(2 * count + 1, 20)


def lanczos(
    multiply: Callable[[Array], Generator[None, None, Array]], start: Array, *, count: int, seed: int
) -> Generator[None, None, tuple[Array, Array]]:
    """Return the `count` largest eigenvalues and their unit eigenvectors (P, count); yields as `multiply` does.

    SciPy calls for products from its own loop, so that loop runs in a thread, which waits while this generator
    multiplies. If the generator is closed or fails, the thread ends.

    Args:
        multiply: function of a vector: a generator that returns the matrix times this vector.
        start: (P,) the first vector; P is above `lanczos_vectors(count)`.
        seed: random seed of further vectors, should the products of the first span too little.

    Raises:
        DgpruneError: no convergence.
    """
    asked: SimpleQueue[Array | None] = SimpleQueue()
    answered: SimpleQueue[Array | None] = SimpleQueue()
    found: list[Any] = []

    def search() -> None:
        try:
            found.append(_search(asked, answered, start, count=count, seed=seed))
        except Exception as error:
            found.append(error)
        asked.put(None)

    # A daemon, so that one that is left waiting does not keep the interpreter from ending.
    threading.Thread(target=search, daemon=True).start()
    try:
        while (vector := asked.get()) is not None:
            answered.put((yield from multiply(vector)))
    finally:
        answered.put(None)
    if isinstance(found[0], Exception):
        raise DgpruneError(
            f"the search for the {count} largest eigenvalues of the Hessian did not converge ({found[0]}); take a "
            "smaller top or more images."
        ) from found[0]
    return found[0]


def _search(asked: Any, answered: Any, start: Array, *, count: int, seed: int) -> tuple[Array, Array]:
    from scipy.sparse import linalg as untyped

    linalg: Any = untyped

    def product(vector: Array) -> Array:
        asked.put(vector.copy().ravel())
        result = answered.get()
        if result is None:
            raise _Ended
        return result

    operator = linalg.LinearOperator((len(start), len(start)), matvec=product, dtype=start.dtype)
    drawn = {}
    if "rng" in inspect.signature(linalg.eigsh).parameters:  # from SciPy 1.17 on
        drawn["rng"] = np.random.default_rng(seed)
    return linalg.eigsh(
        operator, k=count, which="LA", v0=start, ncv=lanczos_vectors(count), tol=TOLERANCE, maxiter=_RESTARTS, **drawn
    )
