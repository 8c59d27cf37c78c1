"""Largest eigenvalues of a symmetric matrix given by its products with vectors: SciPy's `eigsh` as a generator."""

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
"""Relative tolerance of the residual: |H v - lambda v| <= TOLERANCE |lambda|."""
_RESTARTS = 300

Array = NDArray[Any]


class _Cancelled(Exception):
    """Raised inside the search when its generator has been closed."""


def lanczos_vectors(count: int) -> int:
    """Return the number of vectors that the search for `count` eigenvectors holds."""
    return max(2 * count + 1, 20)


def lanczos(
    multiply: Callable[[Array], Generator[None, None, Array]], start: Array, *, count: int, seed: int
) -> Generator[None, None, tuple[Array, Array]]:
    """Return the `count` largest eigenvalues and their unit eigenvectors (P, count); yields as `multiply` does.

    SciPy requests products from a loop of its own, which therefore runs in a thread and waits while this generator
    multiplies. If the generator is closed or fails, the thread ends.

    Args:
        multiply: function from a vector to a generator that returns the matrix times the vector.
        start: (P,) the first vector; P is above `lanczos_vectors(count)`.
        seed: random seed of further start vectors, in case the products of the first span too small a space.

    Raises:
        DgpruneError: no convergence.
    """
    requests: SimpleQueue[Array | None] = SimpleQueue()
    products: SimpleQueue[Array | None] = SimpleQueue()
    results: list[Any] = []

    def search() -> None:
        try:
            results.append(_search(requests, products, start, count=count, seed=seed))
        except Exception as error:
            results.append(error)
        requests.put(None)

    # A daemon thread, since one that waits forever must not keep the interpreter alive.
    threading.Thread(target=search, daemon=True).start()
    try:
        while (vector := requests.get()) is not None:
            products.put((yield from multiply(vector)))
    finally:
        products.put(None)
    if isinstance(results[0], Exception):
        raise DgpruneError(
            f"the search for the {count} largest eigenvalues of the Hessian did not converge ({results[0]}); take a "
            "smaller top or more images."
        ) from results[0]
    return results[0]


def _search(requests: Any, products: Any, start: Array, *, count: int, seed: int) -> tuple[Array, Array]:
    from scipy.sparse import linalg as untyped

    linalg: Any = untyped

    def product(vector: Array) -> Array:
        requests.put(vector.copy().ravel())
        result = products.get()
        if result is None:
            raise _Cancelled
        return result

    operator = linalg.LinearOperator((len(start), len(start)), matvec=product, dtype=start.dtype)
    options = {}
    if "rng" in inspect.signature(linalg.eigsh).parameters:  # from SciPy 1.17 on
        options["rng"] = np.random.default_rng(seed)
    return linalg.eigsh(
        operator, k=count, which="LA", v0=start, ncv=lanczos_vectors(count), tol=TOLERANCE, maxiter=_RESTARTS, **options
    )
