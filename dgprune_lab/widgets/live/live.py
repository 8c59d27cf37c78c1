"""A run in the background: a growing chart, a progress line, and buttons to stop and resume."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import pandas as pd
import traitlets

from ...charts import svg, training
from ...charts.training import training_data
from ...core import COLUMNS, Count, DgpruneError, cancelled_when, public, renew_after_fork, tidy
from ...training import EXTRA, BatchEvent, PruneEvent, StageEvent
from ..page import static as assets
from ..page.comm import CommWidget, weakly
from ..page.vega import shared_static
from ..worker import EXACT, Job, Worker

_REPORT_SECONDS = 0.2

Steps = Generator[Any, None, Any]


@public
class Live(CommWidget):
    """A run with a progress line and a chart: accuracy per domain against epochs, with a vertical line at each removal.

    The run starts at once, in a background thread, so other cells can run at the same time, and interrupting a cell
    does not stop the run. "Stop" pauses it between two steps, "Resume" continues it; it also pauses while no page shows
    it.

    Args:
        steps: a generator of the events of `dgprune_lab.training.events` (and None) that returns the run's result, such
            as `dg.prune_and_tune.steps(study, "l1", ratio=0.5)`, or a function that makes the generator.
        title: text above the chart.
        epochs: total number of epochs, at which the chart's axis ends; None lets the axis grow.
    """

    _esm = assets.module("live")
    _css = assets.style("live")
    _worker: Worker | None = None
    _removal = "round"  # what one removal is called

    static = traitlets.Dict().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)

    def __init__(self, steps: Steps | Callable[[], Steps], *, title: str = "", epochs: Count | None = None) -> None:
        self._steps = _start_steps(steps)
        self._epochs = epochs
        self._rows: list[dict[str, Any]] = []
        self._partial_result: Any = None
        self._error: Exception | None = None
        self._round, self._loss, self._last_report = "", [0.0, 0.0], 0.0
        self._changed = threading.Condition()
        self._step_lock = threading.Lock()
        self._forked = False
        renew_after_fork(self)
        self._paused_unseen = False
        empty = tidy([], extra=EXTRA)
        static = {"title": title, "spec": training(empty).to_dict(), **shared_static()}
        status = {"state": "running", "progress": "evaluating the full network", "error": None, "message": None}
        super().__init__(static=static, data=training_data(empty, epochs=epochs), status=status)
        self._worker = Worker(lambda *_: None, noted=weakly(self._show_note))
        self.listen()
        self._worker.put("run", self._run, priority=EXACT)

    # --- state, results and control ------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """ "running", "stopped", "finished", "failed" or "closed"."""
        return "failed" if self._forked else str(self.status["state"])

    @property
    def result(self) -> Any:
        """The result of the run. Blocks until the run ends; a stopped or closed run gives the result so far.

        Raises:
            DgpruneError: the run failed, or was stopped before its first stage was complete.
        """
        if self._paused_unseen:
            self.resume()
        self.settle()
        with self._step_lock:  # a step in progress when the run was stopped belongs to the result
            if self._error is not None:
                raise DgpruneError(f"the run failed: {_describe_error(self._error)}") from self._error
            if self._partial_result is None:
                raise DgpruneError("no stage is complete yet: the run was stopped before its first stage; resume it.")
            return self._partial_result

    @property
    def table(self) -> pd.DataFrame:
        """The rows measured so far, as a tidy table."""
        rows = list(self._rows)
        extra = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
        return tidy(rows, extra=list(extra) or EXTRA)

    def stop(self) -> None:
        """Pause the run between two steps; `resume` continues it."""
        if self._worker is not None and self._set_state("stopped", only_from="running"):
            self._worker.drop("run")

    def resume(self) -> None:
        """Continue a stopped run."""
        if self._worker is not None and self._set_state("running", only_from="stopped"):
            self._paused_unseen = False
            self._worker.put("run", self._run, priority=EXACT)

    def after_fork(self) -> None:
        """Mark an active run as failed in a forked child, as it continues only in the parent."""
        self._changed, self._step_lock = threading.Condition(), threading.Lock()
        if self.state == "running":
            self._forked = True
            self._error = DgpruneError("this process was forked from the one that runs it; read the result there.")

    def close(self) -> None:
        """End the run and its thread, and remove the widget; `result` is then the result so far."""
        if self._worker is not None:
            if self.state in ("running", "stopped"):
                self._set_state("closed")
            self._worker.close()
            if self._step_lock.acquire(blocking=False):
                self._steps.close()
                self._step_lock.release()
        super().close()

    # --- work -----------------------------------------------------------------------------------------------------

    def _run(self) -> Job:
        """Process the events of the run one by one; each is recorded before the run can be stopped.

        A step is never cancelled halfway: that would end the generator, so the run could not be resumed.
        """
        while True:
            with self._step_lock, cancelled_when(None):
                try:
                    self._record(next(self._steps))
                except StopIteration as end:
                    self._partial_result = end.value
                    self._update_status(progress=f"{self._round or 'the run'} is finished")
                    self._set_state("finished")
                    return
                except Exception as error:
                    self._error = error
                    self._update_status(error=_describe_error(error))
                    self._set_state("failed")
                    return
            yield

    def _record(self, event: Any) -> None:
        if isinstance(event, BatchEvent):
            self._record_batch(event)
        elif isinstance(event, PruneEvent | StageEvent):
            self._partial_result = event.so_far
            if isinstance(event, PruneEvent):
                self._round = f"{self._removal} {event.round} of {event.rounds}"
                removed = sum(map(len, event.removed.values()))
                self._update_status(progress=f"{self._round}, {removed} filters removed" if removed else self._round)
            if event.rows:
                self._rows += [dict(row) for row in event.rows]
                self.data = training_data(self.table, epochs=self._epochs)

    def _record_batch(self, event: BatchEvent) -> None:
        """Update the progress line with the epoch and its mean loss so far, a few times a second."""
        total, images = (0.0, 0.0) if event.batch == 1 else self._loss
        self._loss = [total + event.loss * event.images, images + event.images]
        if time.monotonic() - self._last_report > _REPORT_SECONDS or event.batch == event.batches:
            self._last_report = time.monotonic()
            prefix = f"{self._round}, " if self._round else ""
            loss = self._loss[0] / self._loss[1]
            self._update_status(progress=f"{prefix}epoch {event.epoch} of {event.epochs}, loss {loss:.2f}")

    def _set_state(self, state: str, *, only_from: str | None = None) -> bool:
        with self._changed:
            if only_from is not None and self.state != only_from:
                return False
            self.status = {**self.status, "state": state}
            self._changed.notify_all()
            return True

    def _update_status(self, **changes: Any) -> None:
        with self._changed:
            self.status = {**self.status, **changes}

    def _show_note(self, text: str) -> None:
        self._update_status(message=text)

    def handle_message(self, content: Any) -> None:
        """Act on a button of the page: {"type": "stop"} or {"type": "resume"}."""
        if content.get("type") in ("stop", "resume"):
            getattr(self, content["type"])()

    def views_changed(self, before: int, now: int) -> None:
        """Pause while no page shows the run, as after its cell ran again or its output was cleared."""
        if before and not now and self.state == "running":
            self._paused_unseen = True
            self.stop()
        elif now and self._paused_unseen:
            self.resume()

    def settle(self) -> None:
        """Wait until the run ends."""
        with self._changed:
            while self.state == "running":
                self._changed.wait(0.5)

    def still(self) -> str:
        """Return the current chart as a picture (HTML)."""
        return assets.picture(
            str(self.static["title"]), svg(training(self.table)) if self._rows else None, what="chart"
        )


def _start_steps(steps: Steps | Callable[[], Steps]) -> Steps:
    try:
        started = steps() if callable(steps) else steps
    except TypeError as error:
        raise DgpruneError(f"steps must be a function without arguments; calling it failed: {error}.") from error
    if not isinstance(started, Generator):
        raise DgpruneError(f"the function steps must return a generator; it returned {type(started).__name__}.")
    return started


def _describe_error(error: Exception) -> str:
    return str(error) if isinstance(error, DgpruneError) else f"{type(error).__name__}: {error}"
