"""The UMAP fit itself, run by `umap_process` in a child: a script that imports neither this package nor torch."""

import io
import json
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOADING, _COMPARING, _DRAWING = 0.05, 0.2, 0.3  # shares at which the stages begin

Report = Callable[[str, float], None]


class _Refused(Exception):
    """An error whose message is sent to the user unchanged."""


def serve() -> None:
    """Fit UMAP in this child process: read one request from standard input, write lines of JSON to standard output."""
    warnings.simplefilter("ignore")  # UMAP warns about settings that are intended here
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keeps the output of libraries out of the answers
    options = json.loads(sys.stdin.buffer.readline())
    rows = unpacked(sys.stdin.buffer.read(options.pop("bytes")))
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def send(answer: dict[str, Any], data: bytes = b"") -> None:
        out.write(line(answer) + data)
        out.flush()

    try:
        places = packed(_places(rows, lambda stage, share: send({"stage": stage, "share": share}), **options))
        send({"bytes": len(places)}, places)
    except _Refused as error:
        send({"error": str(error)})
    except Exception as error:
        send({"error": _describe_error(error)})
    os._exit(0)  # nothing is left to save, and a normal exit takes half a second


def _end_with_parent() -> None:
    """End the child when stdin closes; read it unbuffered, as the buffer's lock would hang a normal exit."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _places(rows: NDArray[np.float32], report: Report, *, seed: int, neighbours: int, min_dist: float) -> NDArray[Any]:
    """Fit UMAP and return the positions; `report` gets the progress."""
    report("starting", _LOADING)
    library = _library()
    report("comparing images", _COMPARING)
    nearest = _nearest(rows, neighbours)
    bar = {"disable": False, "file": _Epochs(report), "bar_format": "{n_fmt}/{total_fmt}", "mininterval": 0.1}
    options = {"n_neighbors": neighbours, "min_dist": min_dist, "random_state": seed, "n_jobs": 1}
    fit = library.UMAP(**options, precomputed_knn=(*nearest, None), tqdm_kwds=bar)
    places = np.asarray(fit.fit_transform(rows), dtype=np.float32)
    if not np.isfinite(places).all():
        raise _Refused("UMAP found no place for some of the rows. Repeat with another seed, or more neighbours.")
    return places


def _library() -> ModuleType:
    """Import umap, with Numba's compiled code cached for the next process.

    UMAP imports pynndescent, which compiles for 10 s on a new machine (first map: 18 s instead of 8 s) and is only
    needed for approximate neighbours. Stand-ins provide the three names that UMAP imports; if they do not suffice,
    pynndescent itself is imported.
    """
    names = {"": "NNDescent", ".distances": "named_distances", ".sparse": "sparse_named_distances"}
    for suffix, name in names.items():
        sys.modules[f"pynndescent{suffix}"] = stand_in = ModuleType(f"pynndescent{suffix}")
        setattr(stand_in, name, {} if suffix else ModuleType)
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


def _nearest(rows: NDArray[np.float32], neighbours: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return indices and distances (N, k) of the nearest rows, exact, each row itself first."""
    from sklearn.neighbors import NearestNeighbors

    distances, indices = NearestNeighbors(n_neighbors=neighbours - 1, algorithm="brute").fit(rows).kneighbors()
    own = np.arange(len(rows))[:, None]
    return np.hstack([own, indices]).astype(np.int32), np.hstack([0.0 * own, distances]).astype(np.float32)


class _Epochs:
    """The file to which UMAP's progress bar writes: `k/n` is reported as stage and fraction done, all else ignored."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def write(self, text: str) -> None:
        match = re.search(r"(\d+)/(\d+)", text)
        if match and int(match[2]):
            done = int(match[1]) / int(match[2])
            self._report(f"drawing (epoch {match[1]} of {match[2]})", _DRAWING + (1 - _DRAWING) * done)

    def flush(self) -> None: ...


def _describe_error(error: Exception) -> str:
    """Return an error message for the user: what failed inside UMAP, and what to do next."""
    reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": .")
    advice = "Repeat with another seed, or with fewer neighbours."
    if "no locator available" in reason:  # Numba's message if it finds no folder for its cache
        advice = "Set NUMBA_CACHE_DIR to a folder that can be written."
    return f"UMAP could not draw these rows: {reason}. {advice}"


def line(message: dict[str, Any]) -> bytes:
    """Return a message as one line of JSON."""
    return json.dumps(message).encode() + b"\n"


def packed(table: NDArray[Any]) -> bytes:
    """Return an array as bytes, without pickle."""
    file = io.BytesIO()
    np.save(file, table, allow_pickle=False)
    return file.getvalue()


def unpacked(data: bytes) -> NDArray[Any]:
    """Return the array that `packed` made."""
    return np.load(io.BytesIO(data), allow_pickle=False)
