"""`dgprune-lab bench`: this toolkit against its peers, in one run on one machine."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from ...core import check_writable_file, threads, unknown
from .browser import browser_rows
from .folder import folder_rows
from .imports import import_rows
from .panels import panel_rows
from .passes import pass_rows
from .prunability import prunability_rows
from .scoring import fpgm_rows, mask_rows
from .sweeps import sweep_rows
from .table import heading, line
from .ticks import tick_rows
from .timing import Row

Part = Callable[[torch.device, bool], Iterator[Row]]

PARTS: Mapping[str, Part] = {
    "mask": mask_rows,
    "tick": tick_rows,
    "fpgm": fpgm_rows,
    "sweep": sweep_rows,
    "statistics": pass_rows,
    "prunability": prunability_rows,
    "panels": panel_rows,
    "folder": folder_rows,
    "import": import_rows,
    "browser": browser_rows,
}

__all__ = ["PARTS", "Row", "main"]


def main(*, json: Path | None = None, quick: bool = False, parts: Sequence[str] = tuple(PARTS)) -> list[Row]:
    """Time every part on the CPU and, where there is one, on the GPU; print each row as soon as it is known.

    Args:
        json: file for the rows as a list of {name, ours, peer, ratio, unit, repeats, device, aim, note}.
        quick: use small cases and few repeats, only to check that the benchmarks run.
        parts: which of `PARTS` to run.

    Returns:
        The rows. `ours` and `peer` are medians in `unit`; `ratio` = peer / ours, so above 1 means ours is faster.

    Raises:
        DgpruneError: a part that does not exist; a file that cannot be written (tried before anything is timed).
    """
    for name in parts:
        if name not in PARTS:
            raise unknown("part of the benchmark", name, PARTS)
    if json is not None:
        json = check_writable_file(json, argument="json")
    devices = [torch.device(name) for name in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]]
    print(heading(threads().reason, quick))
    rows: list[Row] = []
    for device in devices:
        for name in parts:
            for row in PARTS[name](device, quick):
                rows.append(row)
                print(line(row), flush=True)
    if json is not None:
        json.write_text(json_format.dumps([row.as_json() for row in rows], indent=1) + "\n")
        print(f"Wrote {json}.")
    return rows
