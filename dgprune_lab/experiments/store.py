"""The file of an experiment's results: an SQLite database with a row per finished run.

SQLite of the standard library rather than Parquet parts: it is one file for any number of runs; a commit is atomic,
even if the process is killed during it; and another process reads complete rows while this one writes. Its write-ahead
log (WAL) with `synchronous=NORMAL` takes 0.1 ms per run where a synchronised file takes several. After a power failure
the last rows may be missing but never damaged, and their runs are repeated. One process on one machine writes: workers
send it their results and never open the file, which is not safe on network file systems.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from ..core import DgpruneError, card_text, code_key, parse_card

FILE, LOCK = "results.sqlite", "driver.lock"
RUN = ("place", "key", "settings", "state", "rows", "seconds", "cpu_seconds", "started", "worker", "machine")
RUN += ("versions", "code", "device", "threads", "data", "weights", "notes", "error", "traceback")
"""Columns of the table of runs; those of `JSON` hold JSON texts."""
JSON = ("settings", "rows", "versions", "data", "notes")
_PATIENCE = 10.0  # seconds to wait for a reader's lock, which lasts milliseconds, before raising an error
_SCHEMA = (
    "CREATE TABLE about (card TEXT NOT NULL)",
    "CREATE TABLE starts (number INTEGER PRIMARY KEY, started REAL, workers INTEGER, driver TEXT)",
    f"CREATE TABLE runs (number INTEGER PRIMARY KEY AUTOINCREMENT, {', '.join(RUN)}, UNIQUE (key))",
)


class Store:
    """The database, opened by its only writer."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path

    def states(self) -> dict[str, str]:
        """Return the key of each finished run -> "done" or "failed"."""
        with explain_errors(self._path):
            return dict(self._connection.execute("SELECT key, state FROM runs"))

    def other_code(self) -> int:
        """Return how many finished runs were computed by code of this package that differs from this process's."""
        with explain_errors(self._path):
            return self._connection.execute("SELECT count(*) FROM runs WHERE code != ?", (code_key(),)).fetchone()[0]

    def write(self, run: Mapping[str, Any]) -> None:
        """Write a finished run as one commit; it takes the place of an earlier one with the same key."""
        cells = {**run, **{name: json.dumps(run[name]) for name in JSON}}
        names = ", ".join(RUN)
        self._execute(
            f"INSERT OR REPLACE INTO runs ({names}) VALUES ({', '.join('?' * len(RUN))})", *map(cells.get, RUN)
        )

    def begin(self, *, started: float, workers: int, driver: str) -> None:
        """Record the start of a driver."""
        self._execute("INSERT INTO starts (started, workers, driver) VALUES (?, ?, ?)", started, workers, driver)

    def set_workers(self, workers: int) -> None:
        """Record the current number of workers."""
        self._execute("UPDATE starts SET workers = ? WHERE number = (SELECT max(number) FROM starts)", workers)

    def _execute(self, statement: str, *values: Any) -> None:
        with explain_errors(self._path):
            self._connection.execute(statement, values)


@contextmanager
def writing(folder: Path, about: Mapping[str, Any], *, keys: Sequence[str]) -> Iterator[Store]:
    """Open the database of a folder for its only writer; make it if there is none.

    A folder whose finished runs are all in the experiment's grid adopts this grid, whether larger or smaller.

    Args:
        folder: the results folder.
        about: name, question, protocol, grid, ... of the experiment; see `Results.about`.
        keys: key of each run of the experiment, in the order of its grid.

    Raises:
        DgpruneError: another driver writes to it; a file that is not such a database, or is that of another
            experiment, protocol, version or format; finished runs that are not in the grid.
    """
    path = folder / FILE
    with explain_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
    with closing(exclusive(folder / LOCK)) as attempts:
        with explain_errors(folder / LOCK):
            if not next(attempts):
                raise DgpruneError(
                    f"folder: another process writes to {folder}{_describe_driver(path)}. Wait until it has ended, or "
                    "name another folder."
                )
        with explain_errors(path):
            connection = _connected(str(path))
        with closing(connection):
            with explain_errors(path):
                _prepare(connection, path, about=about, keys=keys)
            yield Store(connection, path)


def _describe_driver(path: Path) -> str:
    """Return the driver that wrote last, as text in brackets; "" if unknown."""
    with suppress(DgpruneError, sqlite3.Error), reading(path) as connection:
        record = connection.execute("SELECT driver FROM starts ORDER BY number DESC LIMIT 1").fetchone()
        return f" (computer and process: {record[0]})" if record else ""
    return ""


def _prepare(connection: sqlite3.Connection, path: Path, *, about: Mapping[str, Any], keys: Sequence[str]) -> None:
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        text = card_text(about, kind="experiment")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO about VALUES (?)", (text,))
        connection.execute("COMMIT")
    connection.execute("PRAGMA synchronous = NORMAL")
    stored, started = about_of(connection, path), json.loads(card_text(about, kind="experiment"))
    indices = {key: index for index, key in enumerate(keys)}
    finished = [key for (key,) in connection.execute("SELECT key FROM runs")]
    difference = _describe_difference(stored, started)
    if not difference and (others := [key for key in finished if key not in indices]):
        difference = f"{len(others):,} of the {len(finished):,} runs there are not in this grid of {len(indices):,}"
    if difference:
        raise DgpruneError(
            f"folder: {path.parent} holds other results: {difference}. Name another folder, or start the "
            "experiment that this one belongs to."
        )
    if stored["grid"] != started["grid"]:
        connection.execute("BEGIN")
        connection.execute("UPDATE about SET card = ?", (json.dumps(started),))
        connection.executemany("UPDATE runs SET place = ? WHERE key = ?", [(indices[key], key) for key in finished])
        connection.execute("COMMIT")


def _describe_difference(stored: Mapping[str, Any], started: Mapping[str, Any]) -> str:
    """Return the first relevant difference between two experiments as text; "" if there is none."""
    old, new = stored["protocol"], started["protocol"]
    compared = [
        ("the experiment", stored["name"], started["name"]),
        ("the version of dgprune-lab", *(card["versions"].get("dgprune-lab") for card in (stored, started))),
        *((f"{name} of the protocol", old.get(name), new.get(name)) for name in {**old, **new}),
    ]
    return next(
        (f"{what} is {first!r} there, {second!r} here" for what, first, second in compared if first != second), ""
    )


def about_of(connection: sqlite3.Connection, path: Path) -> dict[str, Any]:
    """Return the card of a database: the experiment, and the format and versions that wrote it.

    Raises:
        DgpruneError: a database of something else, or of another format.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        _refuse_missing(path)
    if not {"about", "runs", "starts"} <= tables:
        raise DgpruneError(f"{path} is a database of something else, not the results of an experiment.")
    return parse_card(connection.execute("SELECT card FROM about").fetchone()[0], name=path.name, kind="experiment")


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database read-only, also while another process writes; nothing is created.

    Raises:
        DgpruneError: no database, or a file of something else.
    """
    if not path.is_file():
        _refuse_missing(path)
    address = f"{path.absolute().as_uri()}?mode=ro"
    with explain_errors(path):
        try:
            connection = _readable(address)
        except sqlite3.OperationalError:  # on a read-only disk, to which no other process writes either
            connection = _readable(f"{address}&immutable=1")
        with closing(connection):
            yield connection


def _refuse_missing(path: Path) -> NoReturn:
    raise DgpruneError(
        f"folder: there are no results in {path.parent} (no {path.name}, or an empty one); name the folder of an "
        "experiment that was started."
    )


def _readable(address: str) -> sqlite3.Connection:
    connection = _connected(address)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _connected(address: str, *, timeout: float = _PATIENCE) -> sqlite3.Connection:
    """Open a connection that commits each statement and can be used by several threads, as a driver may be."""
    uri = address.startswith("file:")
    return sqlite3.connect(address, uri=uri, timeout=timeout, isolation_level=None, check_same_thread=False)


def exclusive(path: Path) -> Generator[bool, None, None]:
    """Yield whether this generator got a file's lock, trying for up to a second; closing the generator frees the lock.

    It is SQLite's lock on an empty database: the system releases it when the process ends in any way, a forked worker
    does not inherit it, and it works on every system.
    """
    with closing(_connected(str(path), timeout=1.0)) as connection:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname != "SQLITE_BUSY":
                    raise
                yield False
        while True:
            yield True


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock of a file now."""
    try:
        with closing(_connected(f"{path.absolute().as_uri()}?mode=rw", timeout=0.0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        return error.sqlite_errorname == "SQLITE_BUSY"
    return False


@contextmanager
def explain_errors(path: Path) -> Iterator[None]:
    """Turn an error of SQLite or the system within the block into a message about the file.

    Raises:
        DgpruneError: the block raised such an error.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            text = f"{path} is not an SQLite database, or is damaged. Move it away, or name another folder"
        elif name == "SQLITE_FULL":
            text = f"{path}: the disk is full. Finished runs are kept: free space and start again to compute the rest"
        else:
            reason = getattr(error, "strerror", None) or error
            text = f"{path} cannot be read or written ({reason}). Name a folder on a local disk that can be written to"
        raise DgpruneError(f"{text}.") from error
