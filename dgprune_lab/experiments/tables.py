"""The table of an experiment as two files, a CSV and a card; the shipped tables, and recomputing one of their runs."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..core import (
    COLUMNS,
    DgpruneError,
    Whole,
    card_text,
    check_writable_file,
    notebook_folders,
    parse_card,
    public,
    tidy,
    unknown,
    write_file,
    written,
)
from .experiment import Experiment
from .results import Results
from .runner import run as run_all
from .settings import tupled
from .studies import STUDIES

QUICK = "_quick"
"""Suffix of the name of an experiment's quick form."""
_PLAIN = 500_000  # bytes of the longest table that is written as plain text
_ENDINGS = (".csv", ".csv.gz")
_KEPT = ("scorer", "ratio_requested", "training_seed", "domain", "role", "split", "images", "metric", "value", "unit")
_KEPT += ("target_aware", "run")
_PATH = re.compile(r"(?:[A-Za-z]:)?[\\/](?:[^\s'\":;,()\\/]+[\\/])+")


class Exported(NamedTuple):
    """Paths of the two files of an experiment's table."""

    table: Path
    card: Path


@public
def study_named(name: str, *, quick: bool = False, seeds: int | None = None) -> Experiment:
    """Return a study that ships, by its name.

    Args:
        name: a name in `STUDIES`; with "_quick" appended, its quick form.
        quick: whether to return the quick form: bundled data, few seeds, seconds.
        seeds: number of training seeds; None for as many as the protocol has.

    Raises:
        DgpruneError: an unknown name.
    """
    plain = name.removesuffix(QUICK)
    if plain not in STUDIES:
        raise unknown("study", name, STUDIES)
    return STUDIES[plain](quick=quick or plain != name, seeds=seeds)


@public
def export(
    results: Results | str | Path, path: str | Path, *, experiment: Experiment | None = None, command: str | None = None
) -> Exported:
    """Write the table of an experiment as PATH.csv and PATH.json; above 500 kB it is compressed, as PATH.csv.gz.

    The CSV holds the rows; columns that are the same in all rows are in the card. `run` is the index of the run in
    the card's list. The card records how the table was made: question, protocol, what differs from the published one,
    command, date, machine, seeds, data, code, versions, times, failures, notes. It names no computer and no folder.

    Args:
        results: results of all runs or of some, or their folder.
        path: where to write, without ending; missing folders are made.
        experiment: the experiment of the results; None for the study of that name.
        command: the command that made the results, as a reader would repeat it.

    Raises:
        DgpruneError: results without a row; the experiment is not that of the results; a file that cannot be written.
    """
    results = results if isinstance(results, Results) else Results(results)
    experiment = experiment or study_named(results.name)
    if experiment.name != results.name:
        raise DgpruneError(f"experiment must be that of the results, {results.name!r}; got {experiment.name!r}.")
    card_path = check_writable_file(f"{path}.json", argument="path")
    runs: Any = results.runs()
    frame: Any = results.table()
    if frame.empty:
        raise DgpruneError(f"{results.folder} holds no finished run of {results.name}; run it first.")
    done = runs[runs["state"] == "done"]
    frame["run"] = frame["run"].map({key: index for index, key in enumerate(done["key"])})
    frame = frame.loc[:, frame.notna().any()]
    constant = [name for name in frame if name not in _KEPT and frame[name].map(str).nunique(dropna=False) == 1]
    content = frame.drop(columns=constant).to_csv(index=False, lineterminator="\n").encode()
    card = _card(results, experiment, runs, frame) | {
        "command": command or _command(results.name),
        "columns": {name: _plain(frame[name].iloc[0]) for name in constant},
        "rows": len(frame),
        "csv": _hash(content),
    }
    target, outdated = (card_path.with_suffix(ending) for ending in _ENDINGS)
    if len(content) > _PLAIN:
        target, outdated = outdated, target
    with written(card_path):
        write_file(target, gzip.compress(content, mtime=0) if target.suffix == ".gz" else content)
        outdated.unlink(missing_ok=True)  # the same table, exported when it was longer or shorter
        return Exported(target, write_file(card_path, card_text(card, kind="table")))


@public
def shipped(name: str) -> pd.DataFrame:
    """Return the tidy table of a study that ships with the package.

    Args:
        name: name of the study, such as "mnist_m"; with "_quick" appended, its quick form.

    Raises:
        DgpruneError: an unknown name; a table that is not the one that its card describes.
    """
    card, file = shipped_card(name), _file(name, *_ENDINGS)
    try:
        content = gzip.decompress(file.read_bytes()) if file.name.endswith(".gz") else file.read_bytes()
    except (EOFError, OSError, zlib.error):
        content = b""
    if _hash(content) != card["csv"]:
        raise DgpruneError(f"{file.name} is not the table that {name}.json describes; export it again.")
    rows, shared = csv.DictReader(io.StringIO(content.decode())), tupled(card["columns"])
    records = [{**shared, **{column: _read_cell(text) for column, text in row.items()}} for row in rows]
    frame = tidy(records, extra=[column for column in records[0] if column not in COLUMNS])
    frame.attrs["cite"] = study_named(name).cite  # for `dg.cite`
    return frame


@public
def shipped_card(name: str) -> dict[str, Any]:
    """Return the card of a table that ships: how, when, on what machine and from which data it was made.

    Raises:
        DgpruneError: an unknown name.
    """
    return parse_card(_file(name, ".json").read_bytes(), name=f"{name}.json", kind="table")


@public
def shipped_names() -> list[str]:
    """Return the names of the tables that ship."""
    folders = [folder.joinpath("results") for folder in notebook_folders()]
    entries = [entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir()]
    return sorted({name.removesuffix(".json") for name in entries if name.endswith(".json")})


@public
def recompute(name: str, *, run: Whole, device: str = "cpu") -> pd.DataFrame:
    """Recompute one run of a shipped table from its settings alone, and return its rows.

    Args:
        name: name of the table.
        run: number of the run, as in the column `run`.
        device: name of the device that computes it.

    Raises:
        DgpruneError: an unknown table or run; a run that fails; data that differ.
    """
    card = shipped_card(name)
    if run >= len(card["runs"]):
        raise DgpruneError(f"run must be below {len(card['runs'])}, the number of runs of {name}; got {run}.")
    settings, protocol = tupled(card["runs"][run]["settings"]), tupled(card["protocol"])
    with tempfile.TemporaryDirectory() as folder:
        alone = replace(study_named(name), name=card["name"], grid=[settings], protocol=protocol)
        if alone.key(0) != card["runs"][run]["key"]:
            raise DgpruneError(f"{name}.json does not hold the settings of run {run} as they were; export it again.")
        results = run_all(alone, folder=folder, device=device)
        (row,) = results.runs().to_dict("records")
        if row["state"] != "done":
            raise DgpruneError(f"run {run} of {name} fails here: {row['error']}.")
        for domain, key in row["data"].items():
            if key not in card["data"].get(domain, {}).get("hashes", ()):
                raise DgpruneError(f"run {run} of {name} read other images of {domain} than the table's.")
        return results.table().assign(run=run)


def _card(results: Results, experiment: Experiment, runs: Any, frame: Any) -> dict[str, Any]:
    """Return what a table's card says about its runs, without names of computers and folders."""
    done, failed = (runs[runs["state"] == state] for state in ("done", "failed"))
    axes, settings = results.about["axes"], results.settings()
    seeds = sorted(frame["training_seed"].dropna().unique().tolist()) if "training_seed" in frame else []
    notes = Counter(_without_paths(text) for texts in runs["notes"] for text in texts)
    return {
        "name": results.name,
        "question": results.about["question"],
        "protocol": results.about["protocol"],
        "differences": list(experiment.differences),
        "tolerance": experiment.tolerance,
        "date": f"{runs['started'].max():%Y-%m-%d}",
        "machines": _count_runs(runs["machine"]),
        "devices": _count_runs(runs["device"]),
        "threads": _count_runs(runs["threads"]),
        "code": _count_runs(runs["code"]),
        "packages": _count_runs(runs["versions"].map(lambda pins: ", ".join(f"{k} {v}" for k, v in pins.items()))),
        "seeds": seeds,
        "data": _data(done, frame),
        "total": results.total,
        "done": len(done),
        "failed": [
            {"settings": _select(settings[key], axes), "error": _without_paths(error)}
            for key, error in zip(failed["key"], failed["error"], strict=True)
        ],
        "seconds": round(float(runs["seconds"].sum()), 1),
        "cpu_seconds": round(float(runs["cpu_seconds"].sum()), 1),
        "notes": dict(notes.most_common()),
        "runs": [{"key": key, "settings": _select(settings[key], axes)} for key in done["key"]],
    }


def _data(done: Any, frame: Any) -> dict[str, Any]:
    """Return domain -> the hashes of its images, labels and splits, and the numbers of images that were reported."""
    hashes: dict[str, set[str]] = defaultdict(set)
    for data in done["data"]:
        for domain, key in data.items():
            hashes[domain].add(key)
    images = frame.groupby("domain")["images"] if "images" in frame else ()
    reported = {domain: sorted(counts.dropna().astype(int).unique().tolist()) for domain, counts in images}
    return {name: {"hashes": sorted(keys), "reported": reported.get(name, [])} for name, keys in hashes.items()}


def _file(name: str, *endings: str) -> Traversable:
    if name not in (names := shipped_names()):
        raise unknown("table", name, names)
    folders = [folder.joinpath("results") for folder in notebook_folders()]
    paths = [folder.joinpath(f"{name}{ending}") for folder in folders for ending in endings]
    return next(path for path in paths if path.is_file())


def _select(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: settings[name] for name in names if name in settings}


def _count_runs(values: Iterable[Any]) -> dict[str, int]:
    """Return value -> number of runs, the most frequent first."""
    return dict(Counter(map(str, values)).most_common())


def _without_paths(text: str) -> str:
    """Shorten each path in a text to the name of its file.

    >>> _without_paths("/home/me/data/mnist.gz cannot be read")
    'mnist.gz cannot be read'
    """
    return _PATH.sub("", text)


@lru_cache(maxsize=10_000)
def _read_cell(text: str) -> Any:
    """Return the value that was written to a cell of a CSV, exact to the last digit."""
    if text in ("", "True", "False"):
        return None if text == "" else text == "True"
    try:
        return json.loads(text)
    except ValueError:
        return text


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _command(name: str) -> str:
    return f"dgprune-lab experiment {name.removesuffix(QUICK)}{' --quick' if name.endswith(QUICK) else ''}"


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
