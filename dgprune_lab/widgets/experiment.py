"""A folder of results, watched while another process writes it: progress, the chart, the latest and the failed runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd
import traitlets

from ..charts import svg
from ..charts.experiment import cells, is_difference, study_chart, study_title
from ..core import DgpruneError, NotNegative, at_home, collect_notes, duration, is_missing, public, unknown
from ..experiments import Results, averages, compare
from .page import static as assets
from .page.comm import CommWidget, weakly
from .page.vega import shared_static
from .worker import PANEL, Job, Worker

LATEST, VALUES, FAILED, LETTERS, PANELS = 8, 4, 20, 6000, 4
_BUSY, _LONGEST = 10.0, 20.0  # the next look waits that many times as long as the last one computed, at most 20 pauses
Rows = list[dict[str, Any]]


@public
class Experiment(CommWidget):
    """A study while it runs, in this process or another one: how far it is, its chart, its latest and failed runs.

    The folder is looked at about once a second while a page shows the widget, and read again only when a run was added.
    Nothing is written to it.

    Args:
        folder: results folder of `experiments.run` or `dgprune-lab experiment`; it may not exist yet.
        baseline: what the others are compared with, such as "l1"; None draws the accuracy itself. The page offers all.
        of: setting that is compared.
        over: column along the horizontal axis.
        metric: metric that is drawn.
        where: values of settings and columns; only rows with these are drawn, such as {"domain": "mnist_m"}.
        seconds: time between two looks at the folder.
    """

    _esm = assets.module("experiment")
    _css = assets.style("experiment")

    static = traitlets.Dict().tag(sync=True)
    chart = traitlets.Dict().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)
    runs = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        folder: str | Path,
        *,
        baseline: str | None = None,
        of: str = "scorer",
        over: str = "ratio_requested",
        metric: str = "accuracy",
        where: Mapping[str, Any] | None = None,
        seconds: NotNegative = 1.0,
    ) -> None:
        self._folder, self._baseline, self._where = at_home(folder), baseline, dict(where or {})
        self._of, self._over, self._metric, self._seconds = of, over, metric, seconds
        self._seen: tuple[Any, ...] = ()
        static = {"folder": str(folder), **shared_static()}
        chart = {"spec": None, "words": None, "names": [], "baseline": baseline}
        super().__init__(static=static, chart=chart, data={"cells": []}, runs={"latest": [], "failed": []})
        self._worker = Worker(weakly(self._failed))
        self._look()
        self.listen()
        self._worker.put("look", self._looking, priority=PANEL, for_page=True, after=seconds)

    def close(self) -> None:
        """Stop looking at the folder, and remove the widget."""
        self._worker.close()
        super().close()

    def handle_message(self, content: Mapping[str, Any]) -> None:
        """Act on the page's choice: {"type": "baseline", "value": name or None}."""
        if content.get("type") == "baseline":
            self._baseline, self._seen = content.get("value"), ()
            self._worker.put("look", self._looking, priority=PANEL, for_page=True)

    def views_changed(self, before: int, now: int) -> None:
        """Look at the folder while a page shows this widget."""
        self._worker.show(now > 0)

    def still(self) -> str:
        """Return the progress and the chart as they are now (HTML)."""
        words = " ".join(filter(None, (f"{self.status['title']}:", self.status["progress"], self.status["error"])))
        rows = self.data["cells"]
        return assets.picture(words, svg(study_chart(rows, **self._kind)) if rows else None, what="chart")

    # --- looking ----------------------------------------------------------------------------------------------------

    def _looking(self) -> Job:
        started = time.thread_time()
        self._look()
        wait = max(self._seconds, min(_BUSY * (time.thread_time() - started), _LONGEST * self._seconds))
        self._worker.put("look", self._looking, priority=PANEL, for_page=True, after=wait)
        yield

    def _failed(self, _: str, error: Exception) -> None:
        self.status = {**self.status, "error": f"{type(error).__name__}: {error}", "state": "stopped"}

    def _look(self) -> None:
        """Set the traits from the folder; what has not changed is neither read nor sent."""
        try:
            results = Results(self._folder)
            seen = (results.version(), self._baseline)
            if seen != self._seen:
                table, axes = results.table(), results.about["axes"]
                rows, runs = (cast(Rows, each.to_dict("records")) for each in (table, results.runs()))
                self._draw(table)
                latest = latest_runs(runs, rows, axes=axes, metric=self._metric)
                self.runs = {"latest": latest, "failed": failed_runs(runs, axes=axes)}
                self._words = seed_words(runs)
                self._seen = seen
            about, progress = results.about, results.progress()
        except DgpruneError as error:
            started = self._folder.is_dir() and any(self._folder.iterdir())
            words = str(error) if started else f"Nothing has been written to {self._folder} yet. Results appear here."
            empty = {"title": self._folder.name, "progress": "", "share": None}
            self.status = {**empty, "error": words, "state": "waiting"}
            return
        ended = progress.done + progress.failed
        self.status = {
            "title": f"{about['name']}: {about['question']}",
            "progress": ", ".join([*progress_words(progress), *self._words]),
            "share": ended / max(progress.total or ended, 1),
            "state": "finished" if ended == progress.total else "running" if progress.running else "stopped",
            "error": None,
        }

    def _draw(self, table: pd.DataFrame) -> None:
        """Set the chart and its rows from the table of all runs."""
        words, rows, names = "", [], []
        try:
            used = self._chosen(table)
            names = [str(name) for name in used[self._of].dropna().unique()]
            frame, words = self._frame(used)
            rows, hidden = first_panels(cells(frame, of=self._of, over=self._over))
            words += f" {hidden} further panels are not drawn; choose with where={{...}}." if hidden else ""
            signed = any(map(is_difference, cast(Rows, frame.to_dict("records"))))
            self._kind = {"title": study_title(frame), "over": self._over, "signed": signed}
        except DgpruneError as error:
            words = str(error)
        spec = study_chart([], **self._kind).to_dict() if rows else None
        with self.hold_sync():  # a chart that had got the rows of the one before would keep their empty panels
            self.chart = {"spec": spec, "words": words.strip(), "names": names, "baseline": self._baseline}
            self.data = {"cells": rows}

    def _chosen(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that are drawn; refuse a column that the table does not have."""
        for name in (self._of, self._over, *self._where):
            if len(table) and name not in table.columns:
                raise unknown("column", name, list(table.columns))
        for name, value in {"metric": self._metric, **self._where}.items():
            table = cast(pd.DataFrame, table[table[name] == value])
        return table

    def _frame(self, used: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        """Return the differences to the baseline and no words, or the averages and why there are no differences."""
        chosen: dict[str, str] = {"of": self._of, "over": self._over, "metric": self._metric}
        if self._baseline is None or used.empty:
            return averages(used, **chosen), ""
        try:
            with collect_notes(lambda _: None):  # pairs are missing as long as runs are under way
                return compare(used, baseline=self._baseline, **chosen), ""
        except DgpruneError as error:
            return averages(used, **chosen), f"The accuracy itself is drawn: {error}"


def first_panels(rows: Rows) -> tuple[Rows, int]:
    """Return the rows of the first panels, those of targets before those of sources, and the number of further ones."""
    columns = list(dict.fromkeys(row["column"] for row in rows))
    kept = sorted(columns, key=lambda name: "(target)" not in name)[:PANELS]
    return [row for row in rows if row["column"] in kept], len(columns) - len(kept)


def progress_words(progress: Any) -> list[str]:
    """Return how far a study is, in parts of a sentence."""
    parts = [f"{progress.done:,} of {progress.total:,} runs done"]
    parts += [f"{progress.failed:,} failed"] if progress.failed else []
    if progress.running:
        parts += [f"{progress.workers} workers" if progress.workers != 1 else "1 worker"]
        parts += [] if is_missing(progress.left) else [f"about {duration(progress.left)} left"]
    return parts


def seed_words(runs: Rows) -> list[str]:
    """Return how many runs of each training seed are done, as a part of a sentence."""
    done = [run["training_seed"] for run in runs if run["state"] == "done" and not is_missing(run.get("training_seed"))]
    counts = [f"{seed:g}: {count}" for seed, count in sorted(Counter(done).items())]
    return [f"runs per training seed: {', '.join(counts)}"] if counts else []


def latest_runs(runs: Rows, rows: Rows, *, axes: Sequence[str], metric: str) -> Rows:
    """Return the runs that ended last, the newest first: settings, what was measured, seconds."""
    done = [run for run in runs if run["state"] == "done"]
    newest = sorted(done, key=lambda run: run["started"].timestamp() + run["seconds"], reverse=True)[:LATEST]
    found: dict[str, list[str]] = {run["key"]: [] for run in newest}
    for row in rows:
        if row["run"] in found and row["metric"] == metric:
            found[row["run"]].append(f"{row['domain']} {_value(row)}")
    return [
        {
            "what": settings_text(run, axes),
            "values": ", ".join(found[run["key"]][:VALUES]) + (", …" if len(found[run["key"]]) > VALUES else ""),
            "seconds": f"{run['seconds']:.1f} s",
        }
        for run in newest
    ]


def _value(row: Mapping[str, Any]) -> str:
    return f"{100 * row['value']:.1f} %" if row.get("unit") == "share" else f"{row['value']:.3g}"


def failed_runs(runs: Rows, *, axes: Sequence[str]) -> Rows:
    """Return the last failed runs: settings, the error in a line, the end of the traceback."""
    failed = [run for run in runs if run["state"] == "failed"][-FAILED:]
    return [
        {"what": settings_text(run, axes), "error": str(run["error"]), "traceback": str(run["traceback"])[-LETTERS:]}
        for run in failed
    ]


def settings_text(run: Mapping[str, Any], axes: Sequence[str]) -> str:
    """Return the settings in which a run differs from the others, as text.

    >>> settings_text({"scorer": "l1", "ratio_requested": 0.6, "training_seed": 0}, ["scorer", "ratio_requested"])
    'scorer l1, removed 60 %'
    """
    known = {name: run[name] for name in axes if not is_missing(run.get(name))}
    return ", ".join(
        f"removed {100 * value:g} %" if name == "ratio_requested" else f"{name.replace('_', ' ')} {value}"
        for name, value in known.items()
    )
