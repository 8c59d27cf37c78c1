"""The results of an experiment, finished or not, as tables."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..core import COLUMNS, at_home, public, tidy
from .settings import tupled
from .store import FILE, JSON, LOCK, RUN, about_of, is_held, reading


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of an experiment.

    Attributes:
        done: number of runs that have a result.
        failed: number of runs that raised an error.
        total: number of runs of the grid.
        workers: number of workers at the last start.
        running: whether a driver is running now.
        left: seconds until all runs are done; None if no driver is running, or none of its runs is done yet.
    """

    done: int
    failed: int
    total: int
    workers: int
    running: bool
    left: float | None


def seconds_left(mean: float | None, *, left: int, workers: int) -> float | None:
    """Return the mean duration of a run x the number of runs that are left / the number of workers."""
    return None if mean is None else mean * left / max(1, min(workers, left))


@public
class Results:
    """The results of an experiment, read from its folder, even while another process writes there; read-only.

    Attributes:
        folder: the folder.
        about: name, question, protocol (settings that all runs share), axes (names of the other settings), extra
            (further columns of the rows), cite, total (number of runs), format and versions of the experiment.
        name: name of the experiment.
        total: number of runs of its grid.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = at_home(folder)
        with self._open() as connection:
            self.about = about_of(connection, self.folder / FILE)
        self.name: str = self.about["name"]
        self.total: int = self.about["total"]

    def __repr__(self) -> str:
        state = self.progress()
        return (
            f"Results({str(self.folder)!r}): {self.name}, {state.done} done and {state.failed} failed of {state.total}"
        )

    def table(self) -> pd.DataFrame:
        """Return the rows of all runs, in the order of the grid.

        Returns:
            A tidy table with the settings of each run as columns (a row's own column of the same name wins), and its
            key in the column `run`.
        """
        rows, names = [], [*self.about["axes"], *self.about["protocol"], *self.about["extra"], "run"]
        for run in self._runs("settings", "rows", "key"):
            rows += [{**run["settings"], **row, "run": run["key"]} for row in run["rows"]]
        frame = tidy(rows, extra=[name for name in dict.fromkeys(names) if name not in COLUMNS])
        frame.attrs["cite"] = self.about.get("cite", "")  # for `dg.cite`; older folders do not say it
        return frame

    def runs(self) -> pd.DataFrame:
        """Return one row per finished run, in the order of the grid.

        Returns:
            A table with place (in the grid), key, a column per setting, state ("done" or "failed"), seconds (wall
            time), cpu_seconds (of its process), started (UTC), worker (computer and process), machine, versions, code
            (hash of this package's code), device, threads, data and weights (hashes), notes, error (one line) and
            traceback.
        """
        cells = [name for name in RUN if name not in ("settings", "rows")]
        settings = [name for name in (*self.about["axes"], *self.about["protocol"]) if name not in RUN]
        runs = [{**run["settings"], **run} for run in self._runs("settings", *cells)]
        frame = pd.DataFrame(runs, columns=[*cells[:2], *settings, *cells[2:]])
        frame["started"] = pd.to_datetime(frame["started"].astype("float64"), unit="s", utc=True)
        return frame

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return the settings of each finished run as they were given, by its key."""
        return {run["key"]: run["settings"] for run in self._runs("key", "settings")}

    def version(self) -> int:
        """Return a number that grows with each run that is written, so that a reader notices new results."""
        with self._open() as connection:
            return connection.execute("SELECT coalesce(max(number), 0) FROM runs").fetchone()[0]

    def progress(self) -> Progress:
        """Return how many runs are done, and about how many seconds are left."""
        with self._open() as connection:
            counts = dict(connection.execute("SELECT state, count(*) FROM runs GROUP BY state"))
            total = about_of(connection, self.folder / FILE)["total"]  # a driver may have enlarged the grid since
            last = connection.execute("SELECT started, workers FROM starts ORDER BY number DESC LIMIT 1").fetchone()
            started, workers = last or (0.0, 0)
            (mean,) = connection.execute(
                "SELECT avg(seconds) FROM runs WHERE state = 'done' AND started >= ?", (started,)
            ).fetchone()
        done, failed, running = counts.get("done", 0), counts.get("failed", 0), is_held(self.folder / LOCK)
        left = seconds_left(mean, left=total - done - failed, workers=workers) if running else None
        return Progress(done=done, failed=failed, total=total, workers=workers, running=running, left=left)

    def seconds_left(self) -> float | None:
        """Return about how many seconds are left; None if no driver is running, or none of its runs is done yet."""
        return self.progress().left

    def _runs(self, *names: str) -> Iterator[dict[str, Any]]:
        with self._open() as connection:
            records = connection.execute(f"SELECT {', '.join(names)} FROM runs ORDER BY place").fetchall()
        for cells in records:
            yield {name: _read_cell(name, cell) for name, cell in zip(names, cells, strict=True)}

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return reading(self.folder / FILE)


def _read_cell(name: str, cell: Any) -> Any:
    """Return the value that was written to a cell of a column of `store.RUN`."""
    value = json.loads(cell) if name in JSON else cell
    return tupled(value) if name == "settings" else value
