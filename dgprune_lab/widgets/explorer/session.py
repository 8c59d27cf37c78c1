"""An explorer without its widget: the view, the order of its measurements, and the pinned views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ...core import DgpruneError, Lock, Scores
from ...scorers import Scorer
from ...study import Study
from ..page.comm import weakly
from ..panels.protocol import Panel, View
from ..worker import BACKGROUND, CURVES, EXACT, Job, Worker
from .choices import CONTROLS, Choices, arguments, frame_key
from .history import History
from .measurements import Measurements
from .network_file import saved_text
from .panel_host import PanelHost
from .pins import PinBoard
from .steps import Steps
from .tried import view_of
from .workbench import Workbench

_QUIET_SECONDS = 0.12
_MOVING_SECONDS = 0.6  # timeout after which the slider counts as at rest, without a message of the page


class Session:
    """The state of an explorer.

    Args:
        study: the network and its domains.
        controls: the initial values of `CONTROLS`.
        scorers: additional scorers for the menu.
        panels: the panels below the charts.
        send: function called with a name and its new value: "plan", "frames", "status", "pins", "panels", "tree",
            "silent", "scorers", "choose" (controls to set) or "message"; a "message" is sent once and not stored.
        images, calibration: see `Explorer`.

    Attributes:
        view: the last valid choices.
        steps: the tree of networks.
        history: the settled choices.
        board: the pinned views.
        workbench: what makes and undoes steps.
        closed: whether the thread has ended.
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
        items = [*scorers, controls["scorer"]]
        full = Measurements(study, scorers=items, images=images, calibration=calibration)
        self.steps, self.board = Steps(full), PinBoard()
        self.start: Choices = full.checked({"id": 0, "by": "kernel", **controls})
        self.view = self.start
        self.history, self.workbench = History(self.start, step_label=self.steps.label), Workbench(self)
        self.status: dict[str, Any] = {"ack": -1, "work": "", "progress": None, "error": None, "message": None}
        self._send, self._lock = send, Lock()
        self._plan, self.closed = None, False
        self._shown_step, self._silent = 0, dict[int, dict[str, list[int]]]()
        self.failed_job = "exact"
        failed, say, view = weakly(self.failed), weakly(self.say), weakly(self._panel_view)
        self.worker = Worker(lambda name, error: failed(error, name), noted=lambda text: say(message=text))
        self.host = PanelHost(panels, study=study, worker=self.worker, view=view, show=partial(send, "panels"))

    @property
    def measurements(self) -> Measurements:
        """The measurements of the step of the view."""
        return self.steps.at(self.view.get("step", 0))

    @property
    def silent(self) -> Mapping[str, Sequence[int]] | None:
        """The silent filters of the step of the view; None while they are not known."""
        return self._silent.get(self.view.get("step", 0))

    @property
    def item(self) -> Scorer | Scores:
        """The scorer of the current view."""
        return self.steps.full.menu[self.view["scorer"]]

    def checked(self, choices: Mapping[str, Any]) -> Choices:
        """Return the choices if all of them are valid.

        Raises:
            DgpruneError: one of them is not; a filter to keep that the step no longer has.
        """
        known = self.steps.ready(self.view.get("step", 0)) or self.steps.full
        checked = known.checked(choices, steps=range(len(self.steps)))
        if number := checked.get("step", 0):
            arguments(checked, taken=self.steps[number].mask, graph=self.study.graph)
        return checked

    def changed(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the view with these changes; going to another step begins with nothing removed and nothing by hand."""
        fresh: dict[str, Any] = {}
        if changes.get("step", present := self.view.get("step", 0)) != present:
            fresh = {"ratio": 0.0, "layers": {}, "forced": {}}
        return {**self.view, **fresh, **changes}

    def choose(self, changes: Mapping[str, Any]) -> None:
        """Set controls, as if Python had set them; other names are ignored."""
        self._send("choose", {name: changes[name] for name in CONTROLS if changes.get(name) is not None})

    def request(self, choices: Choices, *, moving: bool = False) -> None:
        """Make these choices the view, and measure it after a short pause; earlier requests are dropped.

        While a layer's handle moves, or a filter is forced, a plan for this ratio is sent at once.
        """
        self.view = choices
        known = self.steps.ready(choices.get("step", 0))
        plan = None if known is None else known.plan_at_once(choices)
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

    def renew(self) -> None:
        """Measure the current view again if the network, or a variable that its scorer reads, has changed since."""
        measured = self.steps.ready(self.view.get("step", 0))
        if measured is not None and not self.closed and measured.is_outdated(self.view):
            self.measure(ack=self.status["ack"])

    def pin(self) -> None:
        """Pin the current view for comparison: at most three views, and only if the view is measured."""
        self.renew()
        self.worker.put("pin", self._pin, priority=EXACT)

    def unpin(self, *numbers: Any) -> None:
        """Remove these pins, or all of them without a number."""
        self.board.remove(*numbers)
        self.send_pins()
        self.host.refresh()

    def save(self) -> None:
        """Save the pruned network of the current view in the notebook's folder, in the background."""
        self.renew()
        self.worker.put("save", self._save, priority=EXACT)

    def pause(self) -> None:
        """Cancel the curves, the latency and the panel's work, while no page shows the explorer."""
        self.worker.drop("curves", "latency", "silent")
        self.host.close()

    def close(self) -> None:
        """End the thread; results stay readable, except of steps whose weights are on disk."""
        self.closed = True
        self.worker.close()
        self.host.close()
        self.steps.close()

    def say(self, **changes: Any) -> None:
        """Update the status."""
        with self._lock:
            self.status = {**self.status, **changes}
            self._send("status", self.status)

    def failed(self, error: Exception, job: str = "exact") -> None:
        """Show an error message; the last valid view stays, and the page offers to do the job again."""
        self.failed_job = job
        text = str(error) if isinstance(error, DgpruneError) else f"{type(error).__name__}: {error}"
        self.say(error=text, work="", progress=None)

    def show_tree(self) -> None:
        """Send the tree of steps, with what can be undone and the progress of a fine-tuning."""
        with self._lock:
            now = {"current": self.view.get("step", 0), "job": self.workbench.job}
            self._send("tree", {"steps": self.steps.rows(), **now, **self.history.labels()})

    def _exact(self) -> Job:
        view, number = self.view, self.view.get("step", 0)
        if self.steps.ready(number) is None:
            self._say_work(f"examining the network of step {number}")
            yield
        measured = self.steps.at(number)
        if self._shown_step != number:
            self._send("scorers", measured.static()["scorers"])
        self._shown_step = number
        for text in measured.scoring(view):
            self._say_work(text)
            yield
        if self._plan != (plan := measured.plan(view)):
            self._plan = plan
            self._send("plan", plan)
        self.history.settle(view, is_present=lambda: view is self.view)
        self.show_tree()
        self._send_frames(view)
        yield
        if measured.exact(view) is None:
            for text, new in measured.measure(view):
                if text or new:
                    self._say_work(text)
                if new:
                    self._send_frames(view)
                yield
        yield from self._compared(measured, view)
        self.say(error=None, work="")
        self.host.refresh()
        self.worker.put("curves", lambda: self._curves(view), priority=CURVES, for_page=True)
        self.worker.put("latency", lambda: self._latency(view), priority=EXACT, after=0.3, for_page=True)
        self.worker.put("silent", lambda: self._find_silent(number), priority=BACKGROUND, for_page=True)

    def _compared(self, measured: Measurements, view: Choices) -> Job:
        """Compare the pins with a view that was just measured, and note the accuracy of its step."""
        if (yield from self.steps.describe(measured, view)):
            self._silent.clear()
        yield from self.board.compare(measured, view)
        self.send_pins()
        self.show_tree()

    def _pin(self) -> Job:
        view = self.view
        measured = self.steps.at(view.get("step", 0))
        if self.board.is_full and self.board.letter_of(measured, view) is None:
            self.say(message="Three views are pinned already; unpin one first.")
        elif measured.exact(view) is None:
            self.say(message="This view is still being measured; pin it in a moment.")
        else:
            yield from self.board.add(measured, view)
            yield from self.board.compare(measured, view)
            self.send_pins()
            self.host.refresh()

    def _find_silent(self, number: int) -> Job:
        if new := number not in self._silent:
            self._silent[number] = yield from self.steps.silent(number)
        if number == self.view.get("step", 0):
            self._send("silent", {"key": [number], "groups": self._silent[number]})
            if new and self._silent[number] and self.host.opened is not None and self.host.opened.takes_filters:
                self.host.refresh()

    def _say_work(self, text: str) -> None:
        """Show what is being done, unless it is shown already."""
        if text != self.status["work"]:
            self.say(work=text)

    def _curves(self, view: Choices) -> Job:
        last, measured = "", self.steps.at(view.get("step", 0))
        for done, total, text in measured.fill(view):
            if text != last:
                last = text
                self._send_frames(view)
                self.say(progress={"done": done, "total": total, "words": text})
            yield
        self.say(progress=None)
        for pinned, _ in self.board:
            if pinned.get("step", 0) == view.get("step", 0):
                yield from (None for _ in measured.fill(pinned))
                self.send_pins()

    def _latency(self, view: Choices) -> Job:
        yield from self.steps.at(view.get("step", 0)).time(view)
        self._send_frames(view)

    def _save(self) -> Job:
        view = self.view
        yield
        text = saved_text(self.measurements.network(view), study=self.study.name, view=view)
        self._send("message", {"type": "saved", "text": text})

    def _send_frames(self, view: Choices) -> None:
        if frame_key(view) == frame_key(self.view):
            self._send("frames", self.steps.full.curve(view))

    def send_pins(self) -> None:
        """Send the pinned views, each with its curve so far."""
        rows = self.board.rows(self.steps.ready(self.view.get("step", 0)) or self.steps.full)
        with self._lock:
            self._send("pins", rows)

    def _panel_view(self, selected: Any) -> View:
        return view_of(self, selected)
