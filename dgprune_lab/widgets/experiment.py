"""A live view of a results folder that another process writes: progress, chart, latest runs and failed runs."""

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

_LATEST, _VALUES, _FAILED, _LETTERS, _PANELS = 8, 4, 20, 6000, 4  # the most of each that are shown
_PAUSE, _LONGEST = 10.0, 20.0  # the pause is 10 times the CPU time of the last check, at most 20 times `seconds`
Rows = list[dict[str, Any]]


@public
class Experiment(CommWidget):
    """A study while it runs, in this process or another: its progress, chart, latest runs and failed runs.

    The folder is checked about once a second while a page shows the widget, and read again only after a run was added.
    Nothing is written to it.

    Args:
        folder: results folder of `experiments.run` or `dgprune-lab experiment`; it may not exist yet.
        baseline: value of `of` to compare with, such as "l1"; None draws the metric itself. The page offers all values.
        of: setting that is compared.
        over: column on the horizontal axis.
        metric: metric that is drawn.
        where: values of settings and columns; only matching rows are drawn, such as {"domain": "mnist_m"}.
        seconds: time between two checks of the folder.
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
        self._drawn_version: tuple[Any, ...] = ()
        static = {"folder": str(folder), **shared_static()}
        chart = {"spec": None, "words": None, "names": [], "baseline": baseline}
        super().__init__(static=static, chart=chart, data={"cells": []}, runs={"latest": [], "failed": []})
        self._worker = Worker(weakly(self._show_error))
        self._refresh()
        self.listen()
        self._worker.put("look", self._check, priority=PANEL, for_page=True, after=seconds)

    def close(self) -> None:
        """Stop watching the folder and remove the widget."""
        self._worker.close()
        super().close()

    def handle_message(self, content: Mapping[str, Any]) -> None:
        """Compare with the baseline chosen on the page: {"type": "baseline", "value": name or None}."""
        if content.get("type") == "baseline":
            self._baseline, self._drawn_version = content.get("value"), ()
            self._worker.put("look", self._check, priority=PANEL, for_page=True)

    def views_changed(self, before: int, now: int) -> None:
        """Watch the folder only while a page shows this widget."""
        self._worker.show(now > 0)

    def still(self) -> str:
        """Return the current progress and chart (HTML)."""
        caption = " ".join(filter(None, (f"{self.status['title']}:", self.status["progress"], self.status["error"])))
        rows = self.data["cells"]
        return assets.picture(caption, svg(study_chart(rows, **self._chart_options)) if rows else None, what="chart")

    # --- checks of the folder ---------------------------------------------------------------------------------------

    def _check(self) -> Job:
        started = time.thread_time()
        self._refresh()
        wait = max(self._seconds, min(_PAUSE * (time.thread_time() - started), _LONGEST * self._seconds))
        self._worker.put("look", self._check, priority=PANEL, for_page=True, after=wait)
        yield

    def _show_error(self, _: str, error: Exception) -> None:
        self.status = {**self.status, "error": f"{type(error).__name__}: {error}", "state": "stopped"}

    def _refresh(self) -> None:
        """Set the traits from the folder; unchanged results are neither read nor sent."""
        try:
            results = Results(self._folder)
            version = (results.version(), self._baseline)
            if version != self._drawn_version:
                table, axes = results.table(), results.about["axes"]
                rows, runs = (cast(Rows, each.to_dict("records")) for each in (table, results.runs()))
                self._draw(table)
                latest = latest_runs(runs, rows, axes=axes, metric=self._metric)
                self.runs = {"latest": latest, "failed": failed_runs(runs, axes=axes)}
                self._seed_parts = seed_parts(runs)
                self._drawn_version = version
            about, progress = results.about, results.progress()
        except DgpruneError as error:
            started = self._folder.is_dir() and any(self._folder.iterdir())
            message = str(error) if started else f"Nothing has been written to {self._folder} yet. Results appear here."
            empty = {"title": self._folder.name, "progress": "", "share": None}
            self.status = {**empty, "error": message, "state": "waiting"}
            return
        ended = progress.done + progress.failed
        self.status = {
            "title": f"{about['name']}: {about['question']}",
            "progress": ", ".join([*progress_parts(progress), *self._seed_parts]),
            "share": ended / max(progress.total or ended, 1),
            "state": "finished" if ended == progress.total else "running" if progress.running else "stopped",
            "error": None,
        }

    def _draw(self, table: pd.DataFrame) -> None:
        """Set the chart and its rows from the table of all runs."""
        message, rows, names = "", [], []
        try:
            selected = self._select_rows(table)
            names = [str(name) for name in selected[self._of].dropna().unique()]
            frame, message = self._compare_runs(selected)
            rows, hidden = first_panels(cells(frame, of=self._of, over=self._over))
            message += f" {hidden} further panels are not drawn; choose with where={{...}}." if hidden else ""
            signed = any(map(is_difference, cast(Rows, frame.to_dict("records"))))
            self._chart_options = {"title": study_title(frame), "over": self._over, "signed": signed}
        except DgpruneError as error:
            message = str(error)
        spec = study_chart([], **self._chart_options).to_dict() if rows else None
        with self.hold_sync():  # together, as a chart given the rows of the old one would keep their empty panels
            self.chart = {"spec": spec, "words": message.strip(), "names": names, "baseline": self._baseline}
            self.data = {"cells": rows}

    def _select_rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows to draw; refuse a column that the table does not have."""
        for name in (self._of, self._over, *self._where):
            if len(table) and name not in table.columns:
                raise unknown("column", name, list(table.columns))
        for name, value in {"metric": self._metric, **self._where}.items():
            table = cast(pd.DataFrame, table[table[name] == value])
        return table

    def _compare_runs(self, selected: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        """Return differences from the baseline, or else averages; and the error that prevented differences, or ""."""
        options: dict[str, str] = {"of": self._of, "over": self._over, "metric": self._metric}
        if self._baseline is None or selected.empty:
            return averages(selected, **options), ""
        try:
            with collect_notes(lambda _: None):  # pairs are missing while runs are unfinished
                return compare(selected, baseline=self._baseline, **options), ""
        except DgpruneError as error:
            return averages(selected, **options), f"The accuracy itself is drawn: {error}"


def first_panels(rows: Rows) -> tuple[Rows, int]:
    """Return the rows of the first panels, targets before sources, and the number of panels left out."""
    columns = list(dict.fromkeys(row["column"] for row in rows))
    visible = sorted(columns, key=lambda name: "(target)" not in name)[:_PANELS]
    return [row for row in rows if row["column"] in visible], len(columns) - len(visible)


def progress_parts(progress: Any) -> list[str]:
    """Return the progress of a study as parts of a sentence."""
    parts = [f"{progress.done:,} of {progress.total:,} runs done"]
    parts += [f"{progress.failed:,} failed"] if progress.failed else []
    if progress.running:
        parts += [f"{progress.workers} workers" if progress.workers != 1 else "1 worker"]
        parts += [] if is_missing(progress.left) else [f"about {duration(progress.left)} left"]
    return parts


def seed_parts(runs: Rows) -> list[str]:
    """Return the number of finished runs per training seed, as a part of a sentence."""
    done = [run["training_seed"] for run in runs if run["state"] == "done" and not is_missing(run.get("training_seed"))]
    counts = [f"{seed:g}: {count}" for seed, count in sorted(Counter(done).items())]
    return [f"runs per training seed: {', '.join(counts)}"] if counts else []


def latest_runs(runs: Rows, rows: Rows, *, axes: Sequence[str], metric: str) -> Rows:
    """Return the runs that ended last, newest first: settings, measured values, seconds."""
    done = [run for run in runs if run["state"] == "done"]
    newest = sorted(done, key=lambda run: run["started"].timestamp() + run["seconds"], reverse=True)[:_LATEST]
    texts: dict[str, list[str]] = {run["key"]: [] for run in newest}
    for row in rows:
        if row["run"] in texts and row["metric"] == metric:
            texts[row["run"]].append(f"{row['domain']} {_format_value(row)}")
    return [
        {
            "what": settings_text(run, axes),
            "values": ", ".join(texts[run["key"]][:_VALUES]) + ", …" * (len(texts[run["key"]]) > _VALUES),
            "seconds": f"{run['seconds']:.1f} s",
        }
        for run in newest
    ]


def _format_value(row: Mapping[str, Any]) -> str:
    return f"{100 * row['value']:.1f} %" if row.get("unit") == "share" else f"{row['value']:.3g}"


def failed_runs(runs: Rows, *, axes: Sequence[str]) -> Rows:
    """Return the last failed runs: settings, error in one line, end of the traceback."""
    failed = [run for run in runs if run["state"] == "failed"][-_FAILED:]
    return [
        {"what": settings_text(run, axes), "error": str(run["error"]), "traceback": str(run["traceback"])[-_LETTERS:]}
        for run in failed
    ]


def settings_text(run: Mapping[str, Any], axes: Sequence[str]) -> str:
    """Return a run's settings as text, only those in which the runs of its study differ.

    >>> settings_text({"scorer": "l1", "ratio_requested": 0.6, "training_seed": 0}, ["scorer", "ratio_requested"])
    'scorer l1, removed 60 %'
    """
    settings = {name: run[name] for name in axes if not is_missing(run.get(name))}
    return ", ".join(
        f"removed {100 * value:g} %" if name == "ratio_requested" else f"{name.replace('_', ' ')} {value}"
        for name, value in settings.items()
    )
