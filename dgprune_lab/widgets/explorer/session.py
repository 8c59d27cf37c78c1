"""An explorer without its widget: the view, the order of its measurements, and the pinned views."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core import DgpruneError, Lock, Scores
from ...models import save
from ...scorers import Scorer
from ...study import Study
from ..page.comm import weakly
from ..panels.protocol import Panel, View
from ..worker import CURVES, EXACT, Job, Worker
from .choices import Choices, frame_key
from .measurements import Measurements
from .panel_host import PanelHost

_QUIET_SECONDS = 0.12
_MOVING_SECONDS = 0.6  # timeout after which the slider counts as at rest, without a message of the page
_MAX_PINS = 3
_LONGEST = 150  # characters of a file name, without number and ending


def file_name(study: str, view: Choices) -> str:
    """Return a file name for the pruned network of a view; it names all choices, in characters safe everywhere."""
    share = f"{100 * view['ratio']:.6g}pct"
    name = "-".join([study, view["scorer"], share, view["scope"], view["budget"], view["batchnorm"]])
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", name)[-_LONGEST:].lstrip("._-")


def _unused(name: str) -> Path:
    """The path of this name, with a number added if such a file exists, so that nothing is overwritten."""
    numbered = (Path(name if k == 1 else f"{name}-{k}") for k in itertools.count(1))
    return next(p for p in numbered if not any(Path(f"{p}.{end}").exists() for end in ("safetensors", "json")))


class Session:
    """The state of an explorer.

    Args:
        study: the network and its domains.
        controls: the initial values of `CONTROLS`.
        scorers: additional scorers for the menu.
        panels: the panels below the charts.
        send: function called with a name and its new value: "plan", "frames", "status", "pins", "panels" or "message";
            a "message" is sent once and not stored.
        images, calibration: see `Explorer`.

    Attributes:
        view: the last valid choices.
    """

    def __init__(
        self,
        study: Study,
        *,
        controls: Mapping[str, Any],
        scorers: Sequence[Scorer | Scores],
        panels: Sequence[Panel],
        send: Callable[[str, Any], None],
        images: int | None,
        calibration: int,
    ) -> None:
        self.study = study
        given = [*scorers, controls["scorer"]]
        self.measurements = Measurements(study, scorers=given, images=images, calibration=calibration)
        self.start: Choices = self.measurements.checked({"id": 0, "by": "kernel", **controls})
        self.view = self.start
        self.status: dict[str, Any] = {"ack": -1, "work": "", "progress": None, "error": None, "message": None}
        self._send, self._lock = send, Lock()
        self._plan: Any = None
        self._failed_job = "exact"
        self._pins: list[tuple[Choices, dict[str, Any]]] = []
        failed = weakly(self.failed)
        self.worker = Worker(lambda name, error: failed(error, name), noted=weakly(self._noted))
        show, view = (lambda state: send("panels", state)), weakly(self._panel_view)
        self.host = PanelHost(panels, study=study, worker=self.worker, view=view, show=show)

    @property
    def item(self) -> Scorer | Scores:
        """The scorer of the current view."""
        return self.measurements.menu[self.view["scorer"]]

    def request(self, choices: Choices, *, moving: bool = False) -> None:
        """Make these choices the view, and measure it after a short pause; earlier requests are dropped.

        While a layer's handle moves, or a filter is forced, a plan for this ratio is sent at once.
        """
        self.view = choices
        plan = self.measurements.plan_at_once(choices)
        if plan is not None:
            self._plan = plan
            self._send("plan", plan)
        waits = _MOVING_SECONDS if moving else 0.0
        self.measure(ack=choices["id"], after=_QUIET_SECONDS if choices["by"] == "kernel" else waits)

    def measure(self, *, ack: int, after: float = 0.0) -> None:
        """Measure the current view; `ack` is the number of the request that this answers."""
        self.worker.drop("curves", "latency")
        self.say(ack=ack, work="", progress=None, message=None)
        self.worker.put("exact", self._exact, priority=EXACT, after=after)

    def pin(self) -> None:
        """Pin the current view for comparison: at most three views, and only if the view is measured."""
        view = self.view
        if len(self._pins) >= _MAX_PINS:
            self.say(message="Three views are pinned already; unpin one first.")
        elif self.measurements.exact(view) is None:
            self.say(message="This view is still being measured; pin it in a moment.")
        else:
            kept = [keep.int().tolist() for keep in self.measurements.whole(self.measurements.mask(view)).keep.values()]
            pin = {"label": self.measurements.label(view), "ratio": view["ratio"], "kept": kept}
            self._pins = [*self._pins, (view, pin)]
            self._send_pins()

    def unpin(self, *numbers: Any) -> None:
        """Remove these pins, or all of them without a number."""
        self._pins = [pin for k, pin in enumerate(self._pins) if numbers and k not in numbers]
        self._send_pins()

    def save(self) -> None:
        """Save the pruned network of the current view in the notebook's folder, in the background."""
        self.worker.put("save", self._save, priority=EXACT)

    def retry(self, *, ack: int) -> None:
        """Do again what failed: save, or measure the present view."""
        self.say(error=None)
        if self._failed_job == "save":
            self.save()
        else:
            self.measure(ack=ack)

    def pause(self) -> None:
        """Cancel the curves, the latency and the panel's work, while no page shows the explorer."""
        self.worker.drop("curves", "latency")
        self.host.close()

    def close(self) -> None:
        """End the thread; results stay readable."""
        self.worker.close()
        self.host.close()

    def say(self, **changes: Any) -> None:
        """Update the status."""
        with self._lock:
            self.status = {**self.status, **changes}
            self._send("status", self.status)

    def failed(self, error: Exception, job: str = "exact") -> None:
        """Show an error message; the last valid view stays, and `retry` does the job again."""
        self._failed_job = job
        text = str(error) if isinstance(error, DgpruneError) else f"{type(error).__name__}: {error}"
        self.say(error=text, work="", progress=None)

    def _noted(self, text: str) -> None:
        self.say(message=text)

    def _exact(self) -> Job:
        view = self.view
        for words in self.measurements.scoring(view):
            self._say_work(words)
            yield
        plan = self.measurements.plan(view)
        if self._plan != plan:
            self._plan = plan
            self._send("plan", plan)
        self._send_frames(view)
        yield
        if self.measurements.exact(view) is None:
            for words, new in self.measurements.measure(view):
                if words or new:
                    self._say_work(words)
                if new:
                    self._send_frames(view)
                yield
        self.say(error=None, work="")
        self.host.refresh()
        self.worker.put("curves", lambda: self._curves(view), priority=CURVES, for_page=True)
        self.worker.put("latency", lambda: self._latency(view), priority=EXACT, after=0.3, for_page=True)

    def _say_work(self, words: str) -> None:
        """Show what is being done, unless it is shown already."""
        if words != self.status["work"]:
            self.say(work=words)

    def _curves(self, view: Choices) -> Job:
        last = ""
        for done, total, words in self.measurements.fill(view):
            if words != last:
                last = words
                self._send_frames(view)
                self.say(progress={"done": done, "total": total, "words": words})
            yield
        self.say(progress=None)
        for pinned, _ in list(self._pins):
            yield from (None for _ in self.measurements.fill(pinned))
            self._send_pins()

    def _latency(self, view: Choices) -> Job:
        yield from self.measurements.time(view)
        self._send_frames(view)

    def _save(self) -> Job:
        view = self.view
        yield
        path = save(self.measurements.network(view), _unused(file_name(self.study.name, view)))
        text = f"Saved {path.name} and {path.stem}.json in the notebook's folder."
        self._send("message", {"type": "saved", "text": text})

    def _send_frames(self, view: Choices) -> None:
        if frame_key(view) == frame_key(self.view):
            self._send("frames", self.measurements.curve(view))

    def _send_pins(self) -> None:
        """Send the pinned views, each with its curve so far."""
        with self._lock:
            curves = [self.measurements.curve(view)["lines"]["curves"] for view, _ in self._pins]
            self._send("pins", [{**pin, "points": rows} for (_, pin), rows in zip(self._pins, curves, strict=True)])

    def _panel_view(self, selected: Any) -> View:
        view = self.view
        return View(
            study=self.study,
            mask=self.measurements.mask(view),
            scorer=self.measurements.menu[view["scorer"]],
            batchnorm=view["batchnorm"],
            selected=selected,
            scorers=tuple(self.measurements.menu.values()),
            images=self.measurements.load.images,
            calibration=self.measurements.load.calibration,
        )
