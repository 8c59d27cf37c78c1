"""Computes one run: in the driver's process, or in a worker that may be on another machine."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import pkgutil
import platform
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..core import (
    COLUMNS,
    NUMBERS,
    DgpruneError,
    Lock,
    code_key,
    collect_notes,
    device,
    machine_description,
    reproducible,
    threads,
    versions,
)
from .experiment import Finding
from .scratch import Scratch
from .settings import Settings

_lock = Lock()  # one run at a time: the global generators and the CPU time belong to the process
_LINE, _LONGEST = 1_000, 20_000  # characters of an error and of its traceback


def work(task: Mapping[str, Any]) -> dict[str, Any]:
    """Compute a run in a worker.

    Args:
        task: `function` ("module:name" of the experiment's function) and the arguments of `finished_run`, as plain
            values; `versions` and `code` of the driver.

    Returns:
        The cells of the run; or {"refused": message} if this worker would compute something else, so that no run fails
        for this reason.
    """
    if multiprocessing.parent_process() is not None:  # one of several workers of this machine
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    local, driver = versions()["dgprune-lab"], task["versions"]["dgprune-lab"]
    try:
        if local != driver:
            raise DgpruneError(f"it has dgprune-lab {local}, this process {driver}. Install the same version there.")
        if code_key() != task["code"]:
            raise DgpruneError(
                f"its code of dgprune-lab {local} differs from that of this process. Install the same code there."
            )
        device(task["device"])
        run = pkgutil.resolve_name(task["function"])
    except DgpruneError as error:
        return {"refused": f"worker {process_name()}: {error}"}
    except Exception as error:
        why = f"it cannot import {task['function']} ({error}). The module of the function must lie on its path."
        return {"refused": f"worker {process_name()}: {why}"}
    return finished_run(run, task)


def finished_run(run: Callable[[Settings, Scratch], Finding], task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of a run (see `store.RUN`) with its result, or with its error.

    Args:
        run: the experiment's function.
        task: `settings`, `key` and `place` of the run, `folder`, `device` (a name; None for a GPU if there is one) and
            `columns` (names that its rows may have beyond the shared ones).

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed during the run, even if the function handled it.
    """
    with _lock:
        count, notes = threads().count, list[str]()
        scratch = Scratch(Path(task["folder"]), device=device(task["device"]))
        started, clock, cpu = time.time(), time.perf_counter(), time.process_time()
        cells: dict[str, Any] = {"state": "done", "rows": [], "data": {}, "weights": None, "error": None}
        cells["traceback"] = None
        with _list_interrupts() as interrupts, reproducible(task["key"]), _restore_torch(), collect_notes(notes.append):
            try:
                finding = run(dict(task["settings"]), scratch)
                result = {"rows": _check_rows(finding, task["columns"]), "data": dict(finding.data)}
                result["weights"] = finding.weights
                json.dumps(result, ensure_ascii=False).encode()
                cells |= result
            except (Exception, SystemExit) as error:
                cells |= {"state": "failed", **_describe_error(error)}
        if interrupts:
            raise KeyboardInterrupt
        spent = {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}
    environment = {
        "worker": process_name(),
        "machine": _machine(scratch.device),
        "versions": versions(),
        "code": code_key(),
        "threads": count,
    }
    context = {"device": str(scratch.device), "notes": list(dict.fromkeys(notes)), "started": started}
    return {**{name: task[name] for name in ("place", "key", "settings")}, **cells, **spent, **environment, **context}


@contextmanager
def _list_interrupts() -> Iterator[list[int]]:
    """Within the block, list each Ctrl-C: it ends training early, and that must not count as a result."""
    noted, before = list[int](), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield noted
        return

    def note_and_pass_on(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note_and_pass_on)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _restore_torch() -> Iterator[None]:
    """Restore what a run may have set for the whole process: default type, gradients, threads."""
    dtype, grad, count = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)


def _describe_error(error: BaseException) -> dict[str, str]:
    """Return an error as one line, and its traceback, as text that a database can store."""
    try:
        line = (str(error).strip().splitlines() or [""])[0]
    except Exception as inner:  # an exception whose text cannot be made
        line = f"its text cannot be made ({type(inner).__name__})"
    cells = {"error": f"{type(error).__name__}: {line}"[:_LINE], "traceback": traceback.format_exc()[-_LONGEST:]}
    return {name: text.encode(errors="backslashreplace").decode() for name, text in cells.items()}


def _check_rows(finding: Finding, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a run as values that JSON can hold."""
    if not isinstance(finding, Finding):
        raise DgpruneError(f"an experiment's function must return a Finding; it returned {type(finding).__name__}.")
    known = {*COLUMNS, *columns}
    for row in finding.rows:
        if extra := [name for name in row if name not in known]:
            raise DgpruneError(
                f"a row has the column {extra[0]!r}; the shared columns, settings and extra={list(columns)} are known. "
                "Name it in the experiment's extra."
            )
    rows = [{name: _to_plain(name, value) for name, value in row.items()} for row in finding.rows]
    if all(row.get("value") is None for row in rows):
        raise DgpruneError("the run found no value: each of its rows has an empty column 'value', or there is no row.")
    return rows


def _to_plain(name: str, value: Any) -> Any:
    """Return a NumPy number as a Python number; None for an empty cell."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, float | int | None if name in NUMBERS else str | float | int | tuple | None):
        wanted = "a number" if name in NUMBERS else "text, a number, True, False, None or a tuple of these"
        raise DgpruneError(f"a row's column {name!r} must hold {wanted}; got {type(value).__name__} {value!r:.60}.")
    return value


@cache
def _machine(device: torch.device) -> str:
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return machine_description() + gpu


def process_name() -> str:
    """Return the name of this computer and the number of this process."""
    return f"{platform.node()}:{os.getpid()}"
