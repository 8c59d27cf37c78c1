"""`dgprune-lab bench`: this toolkit against its peers, in one run on one machine."""

from __future__ import annotations

import json as json_format
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from ...core import DgpruneError, check_writable_file, threads, unknown
from ...core import device as core_device
from .browser import browser_rows
from .folder import folder_rows
from .live import equality_rows, estimate_rows, live_rows
from .panels import panel_rows
from .passes import pass_rows
from .processes import import_rows, process_rows
from .prunability import prunability_rows
from .sweeps import sweep_rows
from .ticks import fpgm_rows, mask_rows, tick_rows
from .timing import Row, heading, line

Part = Callable[[torch.device, bool], Iterator[Row]]

PARTS: Mapping[str, Part] = {
    "live": live_rows,
    "mask": mask_rows,
    "tick": tick_rows,
    "fpgm": fpgm_rows,
    "sweep": sweep_rows,
    "processes": process_rows,
    "statistics": pass_rows,
    "prunability": prunability_rows,
    "panels": panel_rows,
    "folder": folder_rows,
    "estimate": estimate_rows,
    "equality": equality_rows,
    "import": import_rows,
    "browser": browser_rows,
}

_PROGRAMS = ("import", "browser")
_CPU_ONLY = ("mask", "processes", "folder", "estimate", *_PROGRAMS)

__all__ = ["PARTS", "Row", "main"]


def main(
    *, json: Path | None = None, quick: bool = False, device: str | None = None, parts: Sequence[str] = ()
) -> list[Row]:
    """Time every part; print each row as soon as it is known.

    Args:
        json: file for the rows as a list of {name, ours, peer, ratio, unit, repeats, device, aim, note}; written anew
            after each row.
        quick: use small cases and few repeats, only to check that the benchmarks run.
        device: "cpu" or "cuda"; None for the CPU and then, if there is one, the GPU.
        parts: which of `PARTS` to run; () for all, or with `quick` for all but those that start other programs.

    Returns:
        The rows. `ours` and `peer` are medians in `unit`; `ratio` = peer / ours, so above 1 means ours is faster.

    Raises:
        DgpruneError: a part or a device that does not exist; a file that cannot be written (checked before anything is
            timed); a part that failed (raised after all others have run).
    """
    for name in parts:
        if name not in PARTS:
            raise unknown("part of the benchmark", name, PARTS)
    if json is not None:
        json = check_writable_file(json, argument="json")
    names = ("cpu", "cuda")[: 1 + torch.cuda.is_available()] if device is None else (device,)
    devices = [core_device(name) for name in names]
    print(heading(threads().reason, quick))
    rows: list[Row] = []
    failed: list[str] = []
    for place in devices:
        for name in parts or [name for name in PARTS if not (quick and name in _PROGRAMS)]:
            if name in _CPU_ONLY and place.type != "cpu":
                continue
            try:
                for row in PARTS[name](place, quick):
                    rows.append(row)
                    print(line(row), flush=True)
                    if json is not None:
                        json.write_text(json_format.dumps([row.as_json() for row in rows], indent=1) + "\n")
            except Exception:
                traceback.print_exc()
                failed.append(f"{name} ({place.type})")
    if failed:
        raise DgpruneError(f"these parts of the benchmark failed, see above: {', '.join(failed)}.")
    if json is not None:
        print(f"Wrote {json}.")
    return rows
