"""`dgprune-lab zoo`: which architectures this toolkit and Torch-Pruning can prune, each tried in its own process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from ...core import DgpruneError, check_writable_file
from .architectures import Architecture, architectures
from .examine import examine, prune_by_torch_pruning
from .limits import Limits, run_limited
from .rows import Row, families, line, markdown, read_rows, row_of, write_rows

__all__ = ["Architecture", "Limits", "Row", "architectures", "families", "main", "markdown", "read_rows", "try_all"]


def main(
    *, timm: bool = False, names: Sequence[str] = (), size: int | None = None, jobs: int = 1, out: Path | None = None
) -> list[Row]:
    """Try each architecture, print its row as soon as it is known, and at the end the tables as Markdown.

    Args:
        timm: try timm's architectures instead of the package's own and torchvision's.
        names: patterns such as "resnet*"; all architectures that match one are tried; without patterns, one or two
            of each family.
        size: height and width of the images in pixels; None for the first of 64, 128, 224, ... that works.
        jobs: number of architectures that are tried at the same time, each with one thread.
        out: file for the rows as JSON, written after each row; rows that it already holds are not computed again.

    Raises:
        DgpruneError: an argument out of range; a file that cannot be written or holds something else.
    """
    if jobs < 1 or (size is not None and not 8 <= size <= 1024):
        raise DgpruneError(f"jobs must be 1 or more and size from 8 to 1024; got jobs {jobs}, size {size}.")
    wanted = architectures(timm=timm, names=names, size=size)
    rows = [] if out is None else read_rows(check_writable_file(out, argument="out"))
    known = {row.key for row in rows if size in (None, row.size)}
    missing = [each for each in wanted if each.key not in known]
    if len(missing) < len(wanted):
        print(f"{len(wanted) - len(missing)} of {len(wanted)} are in {out} already.", flush=True)
    started = time.monotonic()
    for done, row in enumerate(try_all(missing, jobs=jobs), start=1):
        rows = [*(each for each in rows if each.key != row.key), row]
        if out is not None:
            write_rows(out, rows)
        minutes = (time.monotonic() - started) / done * (len(missing) - done) / 60
        print(f"[{done}/{len(missing)}, about {minutes:.0f} min left] {line(row)}", flush=True)
    keys = {each.key for each in wanted}
    print("\n" + markdown(row for row in rows if row.key in keys))
    return rows


def try_all(
    chosen: Sequence[Architecture], *, jobs: int = 1, limits: Limits | None = None, peer: bool = True
) -> Iterator[Row]:
    """Yield the row of each architecture as soon as it is done, whatever happens to the others.

    Args:
        chosen: the architectures to try.
        jobs: number of architectures that are tried at the same time.
        limits: limits of each child process.
        peer: whether Torch-Pruning does the same job too, in a separate child process.
    """
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        tasks = [pool.submit(_try_one, each, limits=limits or Limits(), peer=peer) for each in chosen]
        try:
            for task in as_completed(tasks):
                yield task.result()
        finally:
            for task in tasks:
                task.cancel()


def _try_one(architecture: Architecture, *, limits: Limits, peer: bool) -> Row:
    preload = (examine.__module__, "torch_pruning", architecture.source)
    ours = run_limited(examine, architecture, limits=limits, preload=preload)
    theirs = run_limited(prune_by_torch_pruning, architecture, limits=limits, preload=preload) if peer else None
    return row_of(architecture, ours, peer=theirs)
