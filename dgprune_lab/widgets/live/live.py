"""A run that one watches: a chart that grows while it goes on in the background, and buttons to stop and go on."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import pandas as pd
import traitlets

from ... import charts
from ...charts.training import training_data
from ...core import COLUMNS, BatchNorm, Budget, DgpruneError, Scope, tidy
from ...scorers import Scorer, resolve
from ...study import Study
from ...training import (
    EXTRA,
    BatchEvent,
    MeasureWhen,
    PruneEvent,
    StageEvent,
    TrainingOptions,
    Tuned,
    rounds_of,
    tuning_steps,
)
from ..page import static as assets
from ..page.comm import CommWidget
from ..page.vega import vega_host
from ..worker import EXACT, Job, Worker

_SAY_SECONDS = 0.2
_COUNTED = {"filters": "filters", "parameters": "weights", "macs": "computation"}


class Live(CommWidget):
    """A training with its chart: accuracy per domain against the epochs, a rule at every cut, words of progress.

    The run goes on in one background thread, so cells run meanwhile; an interrupted cell does not touch it. It starts
    at once. Stop lets it rest between two steps, Go on continues it; it also rests while its output is gone from the
    page.

    Args:
        start: makes the run: a generator of the events of `dgprune_lab.training.events` (and None) that returns its
            result. What it refuses is raised here.
        title: words above the chart.
        epochs: how many there will be in all, for the chart's axis; the axis grows where None.
    """

    _esm = assets.module("live")
    _css = assets.style("live")
    _worker: Worker | None = None
    _cut = "round"  # what one removal is called

    static = traitlets.Dict().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)

    def __init__(
        self, start: Callable[[], Generator[Any, None, Any]], *, title: str = "", epochs: int | None = None
    ) -> None:
        self._steps, self._epochs = start(), epochs
        self._rows: list[dict[str, Any]] = []
        self._so_far: Any = None
        self._error: Exception | None = None
        self._round, self._loss, self._said = "", [0.0, 0.0], 0.0
        self._changed = threading.Condition()
        self._stepping = threading.Lock()
        self._parked = False
        empty = tidy([], extra=EXTRA)
        static = {"title": title, "spec": charts.training(empty).to_dict(), "host": vega_host().ref}
        status = {"state": "running", "words": "measuring the full network", "error": None, "message": None}
        super().__init__(static=static, data=training_data(empty, epochs=epochs), status=status)
        self._worker = Worker(lambda *_: None, noted=_weakly(self._noted))
        self.set_trait("_view_count", 0)
        self.observe(_weakly(self._views_changed), "_view_count")
        self.on_msg(_weakly(self._message))
        self._worker.put("run", self._drive, priority=EXACT)

    # --- what a cell may read and do ----------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """ "running", "stopped", "finished", "failed" or "closed"."""
        return str(self.status["state"])

    @property
    def result(self) -> Any:
        """What the run gave; waits while it runs. Of a run that is stopped or closed, what is done so far.

        Raises:
            DgpruneError: the run failed, in words; or it was stopped before its first stage was done.
        """
        if self._parked:
            self.go_on()
        with self._changed:
            while self.state == "running":
                self._changed.wait(0.5)
        with self._stepping:  # a step that was under way when it was stopped belongs to it
            if self._error is not None:
                raise DgpruneError(f"the run failed: {_in_words(self._error)}") from self._error
            if self._so_far is None:
                raise DgpruneError("nothing is done yet: the run was stopped before its first stage; go on with it.")
            return self._so_far

    @property
    def table(self) -> pd.DataFrame:
        """The rows that are there so far, as a tidy table."""
        rows = list(self._rows)
        more = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
        return tidy(rows, extra=list(more) or EXTRA)

    def stop(self) -> None:
        """Rest between two steps; `go_on` continues."""
        if self._worker is not None and self._turn("stopped", only="running"):
            self._worker.drop("run")

    def go_on(self) -> None:
        """Continue a run that was stopped."""
        if self._worker is not None and self._turn("running", only="stopped"):
            self._parked = False
            self._worker.put("run", self._drive, priority=EXACT)

    def close(self) -> None:
        """End the run and its thread, and remove the widget; `result` is what was done so far."""
        if self._worker is not None:
            if self.state in ("running", "stopped"):
                self._turn("closed")
            self._worker.close()
            if self._stepping.acquire(blocking=False):
                self._steps.close()
                self._stepping.release()
        super().close()

    # --- work -----------------------------------------------------------------------------------------------------

    def _drive(self) -> Job:
        """One event after the other; what it tells is taken down before anybody can stop between."""
        while True:
            with self._stepping:
                try:
                    self._heard(next(self._steps))
                except StopIteration as end:
                    self._so_far = end.value
                    self._say(words=f"{self._round or 'the run'} is over")
                    self._turn("finished")
                    return
                except Exception as error:
                    self._error = error
                    self._say(error=_in_words(error))
                    self._turn("failed")
                    return
            yield

    def _heard(self, event: Any) -> None:
        if isinstance(event, BatchEvent):
            self._batch(event)
        elif isinstance(event, PruneEvent | StageEvent):
            self._so_far = event.so_far
            if isinstance(event, PruneEvent):
                self._round = f"{self._cut} {event.round} of {event.rounds}"
                gone = sum(map(len, event.removed.values()))
                self._say(words=f"{self._round}, {gone} filters removed" if gone else self._round)
            if event.rows:
                self._rows += [dict(row) for row in event.rows]
                self.data = training_data(self.table, epochs=self._epochs)

    def _batch(self, event: BatchEvent) -> None:
        """Where it is and the mean loss of the epoch so far, a few times a second."""
        total, images = (0.0, 0.0) if event.batch == 1 else self._loss
        self._loss = [total + event.loss * event.images, images + event.images]
        if time.monotonic() - self._said > _SAY_SECONDS or event.batch == event.batches:
            self._said = time.monotonic()
            where = f"{self._round}, " if self._round else ""
            loss = self._loss[0] / self._loss[1]
            self._say(words=f"{where}epoch {event.epoch} of {event.epochs}, loss {loss:.2f}")

    def _turn(self, state: str, *, only: str | None = None) -> bool:
        """Change the state, from a certain one where that is named; tell whoever waits."""
        with self._changed:
            if only is not None and self.state != only:
                return False
            self.status = {**self.status, "state": state}
            self._changed.notify_all()
            return True

    def _say(self, **changes: Any) -> None:
        with self._changed:
            self.status = {**self.status, **changes}

    def _noted(self, text: str) -> None:
        self._say(message=text)

    def _message(self, _: Any, content: Any, __: Any) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "stop":
            self.stop()
        elif kind == "go on":
            self.go_on()

    def _views_changed(self, event: Any) -> None:
        """No work for a page that is gone: a cell that ran again, a cleared output."""
        if event["old"] and not event["new"] and self.state == "running":
            self._parked = True
            self.stop()
        elif event["new"] and self._parked:
            self.go_on()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        if isinstance(data, dict):
            picture = charts.svg(charts.training(self.table)) if self._rows else None
            data["text/html"] = assets.picture(str(self.static["title"]), picture, what="chart")
        return bundle


class Tuning(Live):
    """`dg.prune_and_tune` live: stop it, go on with it, look at it while it runs; `result` is its `Tuned`.

    All arguments are those of `dg.prune_and_tune`; each epoch is measured unless `measure` says otherwise.

    Raises:
        DgpruneError: what `dg.prune_and_tune` refuses, at once.
    """

    def __init__(
        self,
        study: Study,
        scorer: str | Scorer | None,
        *,
        ratio: float,
        rounds: int | None = None,
        epochs: int = 20,
        options: TrainingOptions | None = None,
        batchnorm: BatchNorm = "as_is",
        scope: Scope = "layer",
        budget: Budget = "filters",
        seed: int = 0,
        split: str = "report",
        images: int | None = None,
        measure: MeasureWhen = "epochs",
    ) -> None:
        start = partial(
            tuning_steps,
            study,
            scorer,
            ratio=ratio,
            rounds=rounds,
            epochs=epochs,
            options=options,
            batchnorm=batchnorm,
            scope=scope,
            budget=budget,
            seed=seed,
            split=split,
            images=images,
            measure=measure,
        )
        steps = start()
        count = rounds_of(ratio, rounds)
        how = f"{count} round{'s' if count > 1 else ''} of {epochs} epoch{'s' if epochs != 1 else ''}"
        what = "Dense control, nothing removed" if scorer is None else resolve(scorer).label
        share = "" if scorer is None else f", {100 * ratio:g} % of the {_COUNTED[budget]}"
        super().__init__(lambda: steps, title=f"{what}{share}, in {how}", epochs=count * epochs)

    @property
    def result(self) -> Tuned:
        """The `Tuned`; waits while it runs. Of a run that is stopped or closed, what is done so far."""
        return super().result


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, DgpruneError) else f"{type(error).__name__}: {error}"


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """Calls a method as long as its object lives: a widget must not be kept alive by what it listens to."""
    held = weakref.WeakMethod(method)

    def call(*given: Any) -> None:
        found = held()
        if found is not None:
            found(*given)

    return call
