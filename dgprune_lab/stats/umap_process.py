"""One seeded UMAP fit in a process of its own: Numba holds the interpreter while it compiles."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import DgpruneError, drain

_BETWEEN = 0.1  # seconds between two steps
_FEWEST = 5  # the spectral start needs some rows more than axes
_LOADING, _COMPARING, _DRAWING = 0.05, 0.2, 0.3  # shares at which the stages begin
# The toolkit's folder comes last on the child's path and the working folder (-P) not at all: no file of the user's
# that is called like a library gets in between.
_CHILD = "import sys; sys.path.append(sys.argv[1]); from dgprune_lab.stats.umap_process import serve; serve()"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

Tell = Callable[[str, float], None]


@dataclass
class _Told:
    """What the child has said so far."""

    words: str = "starting"
    share: float = 0.0
    places: NDArray[np.float32] | None = None
    error: str = "The map was stopped before it was drawn. Start it again."
    stopped: bool = False


class Fit:
    """A UMAP fit that runs in a child process while this one goes on; see `embed` for what it finds.

    The child ends with `close`, with this object, with the interpreter, and by itself when this process dies.

    Args:
        rows, seed, neighbours, min_dist: as for `embed`.

    Raises:
        DgpruneError: as `embed` does for its arguments, or no process can be started.
    """

    def __init__(self, rows: NDArray[Any], *, seed: int = 0, neighbours: int = 15, min_dist: float = 0.1) -> None:
        sent = _packed(_checked(rows, seed, neighbours, min_dist))
        wanted = {"seed": int(seed), "neighbours": int(neighbours), "min_dist": float(min_dist), "bytes": len(sent)}
        self._told = _Told()
        self._process = _started()
        self._thread = threading.Thread(
            target=_talk, args=(self._process, self._told, _line(wanted) + sent), name="dgprune-map", daemon=True
        )
        self._thread.start()
        self._end = weakref.finalize(self, _stop, self._process, self._thread)

    @property
    def progress(self) -> tuple[str, float]:
        """What it is doing, in words, and about how much of it is done, 0 to 1."""
        return self._told.words, self._told.share

    @property
    def done(self) -> bool:
        """Whether the child has ended, with places or without."""
        return not self._thread.is_alive()

    @property
    def places(self) -> NDArray[np.float32]:
        """The places (N, 2).

        Raises:
            DgpruneError: the child is still at work, was stopped, or failed (then its sentence).
        """
        if not self.done:
            raise DgpruneError(f"The map is not there yet ({self._told.words}). Ask again when `done` is true.")
        if self._told.places is None:
            raise DgpruneError(self._told.error)
        return self._told.places

    def wait(self, seconds: float) -> bool:
        """Until the child has ended or the time is up; whether it has ended."""
        self._thread.join(seconds)
        return self.done

    def close(self) -> None:
        """End the child at once and leave nothing of it; places that are there stay."""
        self._told.stopped = True
        self._end()


def fit_steps(
    rows: NDArray[Any], *, seed: int = 0, neighbours: int = 15, min_dist: float = 0.1
) -> Generator[tuple[str, float], None, NDArray[np.float32]]:
    """`embed`, told as (words, share in 0..1) about every 0.1 s; closing the generator ends the child at once."""
    fit = Fit(rows, seed=seed, neighbours=neighbours, min_dist=min_dist)
    try:
        yield fit.progress
        while not fit.wait(_BETWEEN):
            yield fit.progress
    finally:
        fit.close()
    return fit.places


def embed(rows: NDArray[Any], *, seed: int = 0, neighbours: int = 15, min_dist: float = 0.1) -> NDArray[np.float32]:
    """Places on a plane where rows that are near each other stay near each other.

    UMAP joins each row i to its k nearest by Euclidean distance with v(j | i) = exp(-max(0, d(i, j) - rho_i) / sigma_i)
    (rho_i: the smallest of these d above zero; sigma_i: such that sum_j v(j | i) = log2 k), makes v symmetric by
    v + v' - v v', and moves the places by stochastic gradient descent until 1 / (1 + a ||y_i - y_j||^(2b)) is close to
    v in cross entropy. Distances between far groups, their sizes and densities mean nothing.

    Args:
        rows: (N, D), finite, more than `neighbours` and at least 5 of them.
        seed: of the start and of the sampling, 0 to 2^32 - 1; same rows and seed, same places on one machine.
        neighbours: k with the row itself, 2 or more; more show the whole, fewer the detail.
        min_dist: how tightly near rows may lie, 0 to 1, in units of the places.

    Returns:
        (N, 2) float32; the axes have no unit and no direction.

    Raises:
        DgpruneError: an argument is not as above, all rows are equal, or the child failed.

    Source: McInnes, Healy & Melville (2018), arXiv:1802.03426v3, Sections 3.1 and 3.2, as umap-learn computes it. Two
    deviations: the neighbours are exact instead of approximate (at a few thousand rows that is quicker), and the rows
    are centred and scaled as a whole first, so that nothing depends on their unit.
    """
    return drain(fit_steps(rows, seed=seed, neighbours=neighbours, min_dist=min_dist))


def serve() -> None:
    """What the child does: read one request from its input, answer with lines of JSON, and end when the input ends."""
    warnings.simplefilter("ignore")  # UMAP warns of what was chosen here on purpose
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    wanted = json.loads(sys.stdin.buffer.readline())
    rows = _unpacked(sys.stdin.buffer.read(wanted.pop("bytes")))
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def say(answer: dict[str, Any], data: bytes = b"") -> None:
        out.write(_line(answer) + data)
        out.flush()

    try:
        places = _packed(_places(rows, lambda words, share: say({"words": words, "share": share}), **wanted))
        say({"bytes": len(places)}, places)
    except DgpruneError as error:
        say({"error": str(error)})
    except Exception as error:
        say({"error": _sentence(error)})
    os._exit(0)  # nothing else is to be kept, and a regular end takes half a second


def _checked(rows: NDArray[Any], seed: int, neighbours: int, min_dist: float) -> NDArray[np.float32]:
    """The rows, centred and scaled to a mean square length of one, or the reason why they cannot be drawn."""
    table = np.asarray(rows)
    if table.ndim != 2 or table.shape[1] < 1 or table.dtype.kind not in "biuf":
        raise DgpruneError(f"rows must be a table (N, D) of numbers, got shape {table.shape} of {table.dtype}.")
    if not (isinstance(seed, int | np.integer) and 0 <= seed < 2**32):
        raise DgpruneError(f"seed must be a whole number from 0 to 2^32 - 1, got {seed!r}.")
    if not (isinstance(neighbours, int | np.integer) and neighbours >= 2):
        raise DgpruneError(f"neighbours must be a whole number from 2, got {neighbours!r}. 15 is usual.")
    if not 0 <= min_dist <= 1:
        raise DgpruneError(f"min_dist must be between 0 and 1, got {min_dist!r}. 0.1 is usual.")
    need = max(neighbours + 1, _FEWEST)
    if len(table) < need:
        raise DgpruneError(
            f"A map with {neighbours} neighbours needs {need} rows or more, and there are {len(table)}. "
            "Give more images, or ask for fewer neighbours."
        )
    table = table.astype(np.float64)
    bad = int((~np.isfinite(table)).any(1).sum())
    if bad:
        raise DgpruneError(f"{bad} of {len(table)} rows hold NaN or infinity. Leave them out, or find out why they do.")
    spread = np.ptp(table, axis=0).max()
    if spread == 0:
        raise DgpruneError(f"All {len(table)} rows are equal: there is nothing to draw. Take other images or a layer.")
    table = (table - table.mean(0)) / spread
    return (table / np.sqrt(np.square(table).sum(1).mean())).astype(np.float32)


def _started() -> subprocess.Popen[bytes]:
    """The child, in a group of its own: an interrupt of the notebook is not meant for it."""
    command = [sys.executable, "-P", "-c", _CHILD, str(Path(__file__).resolve().parents[1])]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ONE_THREAD},
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise DgpruneError(
            f"No process could be started for the map: {error}. Close some programs and repeat."
        ) from None


def _talk(process: subprocess.Popen[bytes], told: _Told, request: bytes) -> None:
    """Send the request, note the answers, and reap the child; in a thread, which must not hold the Fit itself."""
    answered = False
    with contextlib.suppress(OSError, ValueError, EOFError), process:  # the child may die at any moment
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(request)
        process.stdin.flush()
        for line in process.stdout:
            answer = json.loads(line)
            if "words" in answer:
                told.words, told.share = answer["words"], answer["share"]
                continue
            if "error" in answer:
                told.error = answer["error"]
            else:
                told.places = _unpacked(process.stdout.read(answer["bytes"]))
                told.words, told.share = "done", 1.0
            answered = True
            break
    if not answered and not told.stopped:
        told.error = (
            f"The process that draws the map ended early (code {process.returncode}). "
            "It may have run out of memory: take fewer images and repeat."
        )


def _stop(process: subprocess.Popen[bytes], thread: threading.Thread) -> None:
    """Kill the child; its thread then sees the end of the answers, reaps it and ends."""
    process.kill()
    if thread is not threading.current_thread():
        thread.join(5)


def _end_with_parent() -> None:
    """End the child when its input does; read below Python's buffer, whose lock would hang at a regular end."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _places(rows: NDArray[np.float32], tell: Tell, *, seed: int, neighbours: int, min_dist: float) -> NDArray[Any]:
    """The fit itself, in the child."""
    tell("starting", _LOADING)
    library = _library()
    tell("comparing images", _COMPARING)
    nearest = _nearest(rows, neighbours)
    fit = library.UMAP(
        n_neighbors=neighbours,
        min_dist=min_dist,
        random_state=seed,
        n_jobs=1,
        precomputed_knn=(*nearest, None),
        tqdm_kwds={"disable": False, "file": _Epochs(tell), "bar_format": "{n_fmt}/{total_fmt}", "mininterval": 0.1},
    )
    places = np.asarray(fit.fit_transform(rows), dtype=np.float32)
    if not np.isfinite(places).all():
        raise DgpruneError("UMAP found no place for some of the rows. Repeat with another seed, or more neighbours.")
    return places


def _library() -> ModuleType:
    """UMAP, which keeps what it compiles for the next process.

    It loads pynndescent, which compiles for ten seconds on a new machine and is only needed to look for approximate
    neighbours: empty modules stand in for it. Should UMAP ever want more of them, it gets the real ones.
    """
    _stand_in()
    try:
        import umap
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] in ("pynndescent", "umap")]:
            del sys.modules[name]
        import umap
    for name in [name for name in sys.modules if name.startswith("umap.")]:
        for value in vars(sys.modules[name]).values():
            if hasattr(value, "enable_caching"):
                value.enable_caching()
    return umap


def _stand_in() -> None:
    """Modules with the three names that UMAP takes from pynndescent."""
    names = {"": "NNDescent", ".distances": "named_distances", ".sparse": "sparse_named_distances"}
    for ending, name in names.items():
        module = ModuleType(f"pynndescent{ending}")
        setattr(module, name, {} if ending else type(name, (), {}))
        sys.modules[module.__name__] = module


def _nearest(rows: NDArray[np.float32], neighbours: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Indices and distances (N, k) of the nearest rows, exact, each row itself first."""
    from sklearn.neighbors import NearestNeighbors

    distances, indices = NearestNeighbors(n_neighbors=neighbours - 1, algorithm="brute").fit(rows).kneighbors()
    own = np.arange(len(rows))[:, None]
    return np.hstack([own, indices]).astype(np.int32), np.hstack([0.0 * own, distances]).astype(np.float32)


class _Epochs:
    """The file that UMAP's progress bar writes to: `k/n` becomes words and a share, anything else is dropped."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def write(self, text: str) -> None:
        found = re.search(r"(\d+)/(\d+)", text)
        if found and int(found[2]):
            done = int(found[1]) / int(found[2])
            self._tell(f"drawing (epoch {found[1]} of {found[2]})", _DRAWING + (1 - _DRAWING) * done)

    def flush(self) -> None: ...


def _sentence(error: Exception) -> str:
    """What went wrong inside UMAP, and what to do next."""
    said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": .")
    next_step = "Repeat with another seed, or with fewer neighbours."
    if "no locator available" in said:  # Numba's words where it finds no folder to keep what it compiles
        next_step = "Set NUMBA_CACHE_DIR to a folder that can be written."
    return f"UMAP could not draw these rows: {said}. {next_step}"


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _packed(table: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, table, allow_pickle=False)
    return file.getvalue()


def _unpacked(data: bytes) -> NDArray[Any]:
    return np.load(io.BytesIO(data), allow_pickle=False)
