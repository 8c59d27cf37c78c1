"""`dgprune-lab notebooks`: run notebooks in a fresh kernel and store what they show as pictures and tables.

A stored notebook can be read where no kernel runs: on GitHub, in nbviewer, and as a page of `jupyter nbconvert`. It
holds no widget, only a picture of each, taken once the widget's cell had run.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import DgpruneError, check_writable_folder, write_file
from ..widgets.page.comm import PICTURES
from .notebooks import notebook_path, shipped, sources_hash
from .still_outputs import Output, still_outputs

PAGE = "results/notebooks.md"
_SECONDS, _LOOK = 900, 0.1
_LEAD = """# What the notebooks cost

Each was run from top to bottom in a fresh kernel by `dgprune-lab notebooks`, which waits for the whole picture of every
widget; in JupyterLab the next cell does not wait for it. Memory is the largest sum over the kernel and its child
processes; a page that they share counts once.

| notebook | seconds | memory (MB) | code cells |
|---|---|---|---|
"""


@dataclass(frozen=True)
class RunCost:
    """The cost of a run: seconds from the start of the kernel to the last output, peak bytes, code cells."""

    seconds: float
    memory: int
    cells: int


def run_notebooks(names: Sequence[str] = (), *, say: Callable[[str], None] = print) -> None:
    """Run notebooks, store their outputs in their files, and write the table of the shipped ones beside them.

    Args:
        names: names of shipped notebooks ("00_start"), or paths of notebooks of your own; () for all shipped ones.
        say: called with a sentence per notebook.

    Raises:
        DgpruneError: no such notebook, a file or folder that cannot be written to, or a cell that fails or warns.
    """
    known = shipped()
    paths = [notebook_path(name, known) for name in names] or [Path(str(path)) for path in known.values()]
    for path in paths:
        check_writable_folder(path.parent, argument=f"the folder of {path.name}")
    for path in paths:
        cost = run_notebook(path)
        say(f"{path.name}: {cost.seconds:.0f} s, {cost.memory / 1e6:.0f} MB, {path.stat().st_size / 1e3:.0f} kB")
        if path.name in known and path.samefile(Path(str(known[path.name]))):
            _write_cost(path.parent / PAGE, path.stem, cost)


def run_notebook(path: Path) -> RunCost:
    """Run a notebook in a folder of its own and store its outputs in its file; return what the run cost.

    Raises:
        DgpruneError: a cell that fails or writes to stderr, or an output that names a folder of this machine.
    """
    notebook = json.loads(path.read_bytes())
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dgprune-lab-") as folder, _kernel(path, folder) as (client, peak):
        for number, cell in enumerate(client.nb.cells):
            _run_cell(client, cell, number, path=path)
        seconds = time.monotonic() - started
    code = 0
    for cell, run in zip(notebook["cells"], client.nb.cells, strict=True):
        if cell["cell_type"] == "code":
            code += 1
            cell["execution_count"] = code
            cell["outputs"] = [_check_output(output, path=path) for output in still_outputs(run.outputs, count=code)]
    notebook["metadata"].pop("widgets", None)
    notebook["metadata"]["dgprune_lab"] = {"ran": code_hash(notebook)}
    write_file(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return RunCost(seconds=seconds, memory=peak(), cells=code)


def code_hash(notebook: dict[str, Any]) -> str | None:
    """Return a hash of the code cells' sources, which determine the outputs."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return sources_hash(json.dumps({"cells": code}).encode())


def _run_cell(client: Any, cell: Any, number: int, *, path: Path) -> None:
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    where = f"{path.name}, cell {number + 1}"
    try:
        client.execute_cell(cell, number)
    except CellExecutionError as error:
        raise DgpruneError(f"{where} fails: {error.ename}: {error.evalue}") from None
    except (CellTimeoutError, DeadKernelError) as error:
        raise DgpruneError(f"{where} does not end: {error}") from None
    warnings = [output["text"] for output in cell.get("outputs", ()) if output.get("name") == "stderr"]
    if warnings:
        raise DgpruneError(f"{where} writes to stderr, which a reader would see: {''.join(warnings).strip()[:500]}")


@contextmanager
def _kernel(path: Path, folder: str) -> Iterator[tuple[Any, Callable[[], int]]]:
    """Yield nbclient with a fresh kernel in this folder, and a function returning the kernel's peak memory so far."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": folder}}
    client = NotebookClient(notebook, timeout=_SECONDS, resources=resources, store_widget_state=False)
    environment = {**os.environ, PICTURES: "whole"}
    with client.setup_kernel(env=environment):
        assert client.km is not None
        with _watch_memory(client.km.provisioner.pid) as peak:  # type: ignore[union-attr]
            yield client, peak


@contextmanager
def _watch_memory(pid: int) -> Iterator[Callable[[], int]]:
    """Yield a function that returns the peak memory so far, in bytes, of a process with its children.

    A memory page that several processes share is divided among them, so that their sum counts it once.
    """
    import psutil

    peak, stop = 0, threading.Event()

    def resident(process: psutil.Process) -> int:
        try:
            full = process.memory_full_info()
            return getattr(full, "pss", full.rss)  # only Linux reports the proportional share
        except psutil.Error:  # it has ended
            return 0

    def watch() -> None:
        nonlocal peak
        while not stop.wait(_LOOK):
            try:
                kernel = psutil.Process(pid)
                peak = max(peak, sum(map(resident, [kernel, *kernel.children(recursive=True)])))
            except psutil.Error:
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: peak
    finally:
        stop.set()
        thread.join()


def _check_output(output: Output, *, path: Path) -> Output:
    """Return an output; refuse one that shows folders or memory addresses of this machine."""
    texts = [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    text = re.sub(r'src="data:[^"]*"', "", "\n".join(map("".join, [*texts, output.get("text", "")])))
    folders = [str(Path.home()), tempfile.gettempdir(), os.getcwd()]
    match = re.search("|".join([*(re.escape(folder + os.sep) for folder in folders), r"\b0x[0-9a-f]{6,}"]), text)
    if match:
        around = text[max(match.start() - 60, 0) : match.end() + 60]
        raise DgpruneError(f"{path.name} shows what only this machine has: ... {around} ...")
    return output


def _write_cost(page: Path, name: str, cost: RunCost) -> None:
    """Write a notebook's row into the table of costs; other rows stay."""
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    rows = {match[1]: match[0] for match in re.finditer(r"^\| (\d\d_\w+) \|.*\|$", old, re.MULTILINE)}
    rows[name] = f"| {name} | {cost.seconds:.0f} | {cost.memory / 1e6:.0f} | {cost.cells} |"
    write_file(page, _LEAD + "".join(f"{row}\n" for _, row in sorted(rows.items())))
