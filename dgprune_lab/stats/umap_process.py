"""A seeded UMAP fit in a child process, because Numba holds the GIL while it compiles."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import DgpruneError, Seed, drain, public
from .umap_child import line, packed, unpacked

_INTERVAL = 0.1  # seconds between two steps
_FEWEST = 5  # the spectral initialisation needs a few more rows than axes
# This folder comes last on the child's path and the working folder (-P) not at all, so that no file shadows a library.
_CHILD = "import sys; sys.path.append(sys.argv[1]); from umap_child import serve; serve()"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


@dataclass(kw_only=True)
class _State:
    """The latest progress and the result that the child has sent."""

    stage: str = "starting"
    share: float = 0.0
    places: NDArray[np.float32] | None = None
    error: str = "The map was stopped before it was drawn. Start it again."
    stopped: bool = False


@public
class Fit:
    """A UMAP fit that runs in a child process while this process continues; `places` is the result of `embed`.

    The child ends when `close` is called, when this object or the interpreter ends, and when this process dies.

    Args:
        rows, seed, neighbours, min_dist: as for `embed`.

    Raises:
        DgpruneError: arguments that `embed` refuses, or no process can be started.
    """

    def __init__(self, rows: NDArray[Any], *, seed: Seed = 0, neighbours: int = 15, min_dist: float = 0.1) -> None:
        data = packed(_scale_rows(rows, seed=seed, neighbours=neighbours, min_dist=min_dist))
        options = {"seed": int(seed), "neighbours": int(neighbours), "min_dist": float(min_dist), "bytes": len(data)}
        self._state = _State()
        self._process = _start_child()
        self._thread = threading.Thread(
            target=_exchange, args=(self._process, self._state, line(options) + data), name="dgprune-map", daemon=True
        )
        self._thread.start()
        self._end = weakref.finalize(self, _stop, self._process, self._thread)

    @property
    def progress(self) -> tuple[str, float]:
        """The current stage as text, and the approximate fraction that is done, 0 to 1."""
        return self._state.stage, self._state.share

    @property
    def done(self) -> bool:
        """Whether the child has ended, with or without a result."""
        return not self._thread.is_alive()

    @property
    def places(self) -> NDArray[np.float32]:
        """The positions of the rows on the map, (N, 2).

        Raises:
            DgpruneError: the child is still running, was stopped, or failed (with its message).
        """
        if not self.done:
            raise DgpruneError(f"The map is not ready yet ({self._state.stage}). Read it once `done` is true.")
        if self._state.places is None:
            raise DgpruneError(self._state.error)
        return self._state.places

    def wait(self, seconds: float) -> bool:
        """Wait until the child has ended or the time is up; return whether it has ended."""
        self._thread.join(seconds)
        return self.done

    def close(self) -> None:
        """End the child at once and clean up after it; a finished result is kept."""
        self._state.stopped = True
        self._end()


@public
def fit_steps(
    rows: NDArray[Any], *, seed: Seed = 0, neighbours: int = 15, min_dist: float = 0.1
) -> Generator[tuple[str, float], None, NDArray[np.float32]]:
    """Run `embed`, yielding (stage, fraction done) about every 0.1 s; closing the generator ends the child at once."""
    fit = Fit(rows, seed=seed, neighbours=neighbours, min_dist=min_dist)
    try:
        yield fit.progress
        while not fit.wait(_INTERVAL):
            yield fit.progress
    finally:
        fit.close()
    return fit.places


def embed(rows: NDArray[Any], *, seed: Seed = 0, neighbours: int = 15, min_dist: float = 0.1) -> NDArray[np.float32]:
    """Return positions in a plane (UMAP) that keep neighbouring rows together.

    UMAP joins each row i to its k nearest by Euclidean distance with v(j | i) = exp(-max(0, d(i, j) - rho_i) / sigma_i)
    (rho_i: the smallest of these d above zero; sigma_i: such that sum_j v(j | i) = log2 k), makes v symmetric by
    v + v' - v v', and moves the positions by stochastic gradient descent until 1 / (1 + a ||y_i - y_j||^(2b)) is close
    to v in cross entropy. The distances between separate groups, their sizes and their densities mean nothing.

    Args:
        rows: (N, D), finite; N is larger than `neighbours` and at least 5.
        seed: random seed of the initial positions and of the sampling, 0 to 2^32 - 1; the same rows and seed give the
            same result on one machine.
        neighbours: number of neighbours k, counting the row itself, 2 or more; a larger one shows more of the global
            structure, a smaller one more detail.
        min_dist: smallest distance at which neighbouring rows may be placed, 0 to 1, in units of the positions.

    Returns:
        (N, 2) float32; the axes have no unit and no direction.

    Raises:
        DgpruneError: an argument is not as above, all rows are equal, or the child failed.

    Source: McInnes, Healy & Melville (2018), arXiv:1802.03426v3, Sections 3.1 and 3.2, as umap-learn computes it. Two
    deviations: the neighbours are exact instead of approximate (faster for a few thousand rows), and the rows are
    centred and scaled as a whole first, so that nothing depends on their unit.
    """
    return drain(fit_steps(rows, seed=seed, neighbours=neighbours, min_dist=min_dist))


def _scale_rows(rows: NDArray[Any], *, seed: Seed, neighbours: int, min_dist: float) -> NDArray[np.float32]:
    """Return the rows, centred and scaled to a mean square length of one; refuse what `embed` refuses."""
    values = np.asarray(rows)
    if values.ndim != 2 or values.shape[1] < 1 or values.dtype.kind not in "biuf":
        raise DgpruneError(f"rows must be a table (N, D) of numbers, got shape {values.shape} of {values.dtype}.")
    if not (isinstance(seed, int | np.integer) and 0 <= seed < 2**32):
        raise DgpruneError(f"seed must be a whole number from 0 to 2^32 - 1, got {seed!r}.")
    if not (isinstance(neighbours, int | np.integer) and neighbours >= 2):
        raise DgpruneError(f"neighbours must be a whole number from 2, got {neighbours!r}. 15 is usual.")
    if not 0 <= min_dist <= 1:
        raise DgpruneError(f"min_dist must be between 0 and 1, got {min_dist!r}. 0.1 is usual.")
    if len(values) < max(neighbours + 1, _FEWEST):
        raise DgpruneError(
            f"A map with {neighbours} neighbours needs {max(neighbours + 1, _FEWEST)} rows or more, and there are "
            f"{len(values)}. Give more images, or ask for fewer neighbours."
        )
    values = values.astype(np.float64)
    bad = int((~np.isfinite(values)).any(1).sum())
    if bad:
        raise DgpruneError(f"{bad} of {len(values)} rows hold NaN or infinity. Remove them, or find out why they do.")
    spread = np.ptp(values, axis=0).max()
    if spread == 0:
        raise DgpruneError(
            f"All {len(values)} rows are equal: there is nothing to draw. Choose other images or a layer."
        )
    values = (values - values.mean(0)) / spread
    return (values / np.sqrt(np.square(values).sum(1).mean())).astype(np.float32)


def _start_child() -> subprocess.Popen[bytes]:
    """Start the child in its own process group, so that an interrupt of the notebook does not reach it."""
    command = [sys.executable, "-P", "-c", _CHILD, str(Path(__file__).resolve().parent)]
    pipe, environment = subprocess.PIPE, {**os.environ, **_ONE_THREAD}
    flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    try:
        return subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            creationflags=flags,
        )
    except OSError as error:
        raise DgpruneError(
            f"No process could be started for the map: {error}. Close some programs and repeat."
        ) from None


def _exchange(process: subprocess.Popen[bytes], state: _State, request: bytes) -> None:
    """Send the request, record the answers, and reap the child; runs in a thread, which must not refer to the Fit."""
    answered = False
    with contextlib.suppress(OSError, ValueError, EOFError), process:  # the child may die at any moment
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(request)
        process.stdin.flush()
        for received in process.stdout:
            answer = json.loads(received)
            if "stage" in answer:
                state.stage, state.share = answer["stage"], answer["share"]
                continue
            if "error" in answer:
                state.error = answer["error"]
            else:
                state.places = unpacked(process.stdout.read(answer["bytes"]))
                state.stage, state.share = "done", 1.0
            answered = True
            break
    if not answered and not state.stopped:
        state.error = (
            f"The process that draws the map ended early (code {process.returncode}). "
            "It may have run out of memory: take fewer images and repeat."
        )


def _stop(process: subprocess.Popen[bytes], thread: threading.Thread) -> None:
    """Kill the child; its thread then reads the end of the answers, reaps it and ends."""
    process.kill()
    if thread is not threading.current_thread():
        thread.join(5)
