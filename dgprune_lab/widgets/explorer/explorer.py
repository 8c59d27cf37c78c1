"""The live explorer: a slider on which one sees what removing filters does."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
import traitlets

from ... import charts
from ...core import BatchNorm, Budget, DgpruneError, Mask, Scope, Scores
from ...models import save
from ...scorers import Scorer
from ...study import Study
from ..page import static as assets
from ..page.comm import CommWidget
from ..page.vega import vega_host
from ..panels.agreement import AgreementPanel
from ..panels.feature_shift import FeatureShiftPanel
from ..panels.flips import FlipsPanel
from ..panels.layers import LayersPanel
from ..panels.protocol import Panel
from ..panels.prunability import PrunabilityPanel
from ..panels.sensitivity import SensitivityPanel
from ..worker import CURVES, EXACT, Job, Worker
from .code import as_code
from .measurements import Choices, Measurements, frame_key
from .panel_host import Panels

QUIET_SECONDS = 0.12
_MOVING_SECONDS = 0.6  # the page says when its slider rests; this is how long it may forget to
_PICTURE_SECONDS = 0.6
_CHOICES = ("ratio", "scorer", "scope", "budget", "batchnorm")
_PINS = 3


class Explorer(CommWidget):
    """A slider over the share removed, live on the kernel: what each domain loses, which filters stay, what is left.

    The page follows the slider by itself; the kernel measures in one background thread, the newest request first, so
    cells run meanwhile. At rest every number equals `dg.measure` of the pruned network on all images. The attributes
    ratio, scorer, scope, of and batchnorm hold the present view; setting one moves the controls.

    Args:
        study: the network and its domains.
        scorer: a name, a Scorer of one's own or Scores; it joins the menu.
        ratio: the share removed at the start.
        scope: "layer" or "global".
        of: what the ratio counts: "filters", "parameters" or "macs".
        batchnorm: "recalibrate" (where there is BatchNorm, if None) or "as_is".
        scorers: further scorers of one's own for the menu.
        panels: what the row "more" offers; the built-in ones where None.
        device: where evaluation runs; the study's own where None.

    Raises:
        DgpruneError: a ratio outside [0, 1), an unknown scorer, scope or count.
    """

    _esm = assets.module()
    _css = assets.style()

    static = traitlets.Dict().tag(sync=True)
    choice = traitlets.Dict().tag(sync=True)
    plan = traitlets.Dict().tag(sync=True)
    frames = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)
    pins = traitlets.List().tag(sync=True)
    panels = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        study: Study,
        *,
        scorer: str | Scorer | Scores = "l1",
        ratio: float = 0.5,
        scope: Scope = "layer",
        budget: Budget = "filters",
        batchnorm: BatchNorm | None = None,
        scorers: Sequence[Scorer | Scores] = (),
        panels: Sequence[Panel] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.study = study if device is None else study.on(device)
        self._measurements = Measurements(self.study, scorers=[*scorers, scorer])
        self._lock = threading.RLock()
        settled = batchnorm or ("recalibrate" if self.study.has_batchnorm else "as_is")
        start = self._measurements.checked(
            {
                "id": 0,
                "ratio": ratio,
                "scorer": scorer,
                "scope": scope,
                "budget": budget,
                "batchnorm": settled,
                "by": "kernel",
            }
        )
        self._start = self._view = start
        self._pinned: list[tuple[Choices, dict[str, Any]]] = []
        this: weakref.ref[Explorer] = weakref.ref(self)
        self._worker = Worker(
            lambda job, error: _call(this, "_failed", error), noted=lambda text: _call(this, "_noted", text)
        )
        words = {**self._measurements.words(), "specs": assets.specs(), "host": vega_host().ref}
        status = {"ack": -1, "progress": None, "error": None, "message": None}
        super().__init__(static=words, choice=dict(start), status=status)
        built_in = (FlipsPanel, LayersPanel, SensitivityPanel, FeatureShiftPanel, AgreementPanel, PrunabilityPanel)
        self._panels = Panels([panel() for panel in built_in] if panels is None else panels, self)
        self.set_trait("_view_count", 0)
        self.observe(lambda event: _call(this, "_chosen", event["new"]), "choice")
        self.observe(lambda event: _call(this, "_views_changed", event), "_view_count")
        self.on_msg(lambda _, content, __: _call(this, "_message", content))
        self._request(after=0)

    # --- what a cell may read and set ---------------------------------------------------------------------------

    @property
    def view(self) -> Choices:
        """What the controls say: the last choice that made sense."""
        return self._view

    @property
    def ratio(self) -> float:
        """The share removed."""
        return self.view["ratio"]

    @ratio.setter
    def ratio(self, value: float) -> None:
        self._choose(ratio=value)

    @property
    def scorer(self) -> str:
        """Name of the scorer; a Scorer or Scores of one's own may be set."""
        return self.view["scorer"]

    @scorer.setter
    def scorer(self, value: str | Scorer | Scores) -> None:
        name = self._measurements.admit(value)
        if not isinstance(value, str):
            self.static = {**self.static, "scorers": self._measurements.words()["scorers"]}
        self._choose(scorer=name)

    @property
    def scope(self) -> Scope:
        """The same share in every "layer", or the lowest scores anywhere, "global"."""
        return self.view["scope"]

    @scope.setter
    def scope(self, value: Scope) -> None:
        self._choose(scope=value)

    @property
    def budget(self) -> Budget:
        """What the ratio counts."""
        return self.view["budget"]

    @budget.setter
    def budget(self, value: Budget) -> None:
        self._choose(budget=value)

    @property
    def batchnorm(self) -> BatchNorm:
        """Whether BatchNorm statistics are re-estimated after removal."""
        return self.view["batchnorm"]

    @batchnorm.setter
    def batchnorm(self, value: BatchNorm) -> None:
        self._choose(batchnorm=value)

    @property
    def mask(self) -> Mask:
        """The filters that stay in the present view."""
        return self._measurements.mask(self.view)

    @property
    def evaluations(self) -> dict[str, int]:
        """Networks evaluated so far: because they were asked for, and to fill curves."""
        return dict(self._measurements.evaluations)

    @property
    def table(self) -> pd.DataFrame:
        """What is shown, as a tidy table: accuracy and change per domain on all images, and what is left.

        Waits until the present view is measured.

        Raises:
            DgpruneError: what went wrong, if it cannot be measured.
        """
        self.wait()
        found = self._measurements.table(self.view)
        if found is None:
            raise DgpruneError(
                self.status.get("error") or "the present view has not been measured; is the explorer closed?"
            )
        return found

    def wait(self, *, timeout: float = 60.0, curves: bool = False) -> bool:
        """Until the present view is measured (and its curves, where asked); False when the time is up."""
        return self._worker.wait(*(("exact", "curves", "latency") if curves else ("exact",)), timeout=timeout)

    def code(self) -> str:
        """A cell that rebuilds this view, with versions and the hash of the data."""
        return as_code(self.study, self.view, scorer=self._measurements.menu[self.scorer])

    def pin(self) -> None:
        """Keep the present view to compare with; at most three, and only once it is measured."""
        if len(self._pinned) >= _PINS:
            self._say(message="Three views are pinned already; remove one first.")
        elif self._measurements.exact(self.view) is None:
            self._say(message="This view is still being measured; pin it in a moment.")
        else:
            view = self.view
            kept = [part.int().tolist() for part in self._measurements.mask(view).keep.values()]
            shown = {
                "label": self._measurements.label(view),
                "key": frame_key(view),
                "ratio": view["ratio"],
                "kept": kept,
            }
            self._pinned = [*self._pinned, (view, shown)]
            self._send_pins()

    def close(self) -> None:
        """End the thread and remove the widget; what was measured stays readable in Python."""
        self._worker.close()
        self._panels.close()
        super().close()

    # --- work ----------------------------------------------------------------------------------------------------

    def _choose(self, **changes: Any) -> None:
        with self._lock:
            self.choice = dict(
                self._measurements.checked({**self._view, **changes, "id": self._latest() + 1, "by": "kernel"})
            )

    def _latest(self) -> int:
        """Number of the newest request, whether it made sense or not."""
        return int(self.choice.get("id") or 0)  # type: ignore[arg-type]

    def _chosen(self, new: dict[str, Any]) -> None:
        try:
            self._view = self._measurements.checked(new)
        except (DgpruneError, KeyError, TypeError, ValueError) as error:
            self._failed(error)
        else:
            after = QUIET_SECONDS if new["by"] == "kernel" else _MOVING_SECONDS if new.get("moving") else 0.0
            self._request(after=after)

    def _request(self, *, after: float) -> None:
        """Measure the present view after a short quiet; whatever was asked before is forgotten."""
        self._worker.drop("curves", "latency")
        self._say(ack=self._latest(), progress=None, message=None)
        self._worker.put("exact", self._exact, priority=EXACT, after=after)

    def _exact(self) -> Job:
        view = self.view
        made = self._measurements.plan(view)
        if self.plan != made:
            self.plan = made
        self._send_frames(view)
        yield
        if self._measurements.exact(view) is None:
            for new in self._measurements.measure(view):
                if new:
                    self._send_frames(view)
                yield
        self._say(error=None)
        self._panels.ticked()
        self._worker.put("curves", lambda: self._curves(view), priority=CURVES)
        self._worker.put("latency", lambda: self._latency(view), priority=EXACT, after=0.3)

    def _curves(self, view: Choices) -> Job:
        last = -1
        for done, total in self._measurements.fill(view):
            if done != last:
                last = done
                self._send_frames(view)
                self._say(progress={"done": done, "total": total})
            yield
        self._say(progress=None)
        for pinned, _ in list(self._pinned):
            yield from (None for _ in self._measurements.fill(pinned))
            self._send_pins()

    def _latency(self, view: Choices) -> Job:
        yield from self._measurements.time(view)
        self._send_frames(view)

    def _save(self) -> Job:
        view = self.view
        yield
        name = f"{self.study.name}-{view['scorer']}-{100 * view['ratio']:.0f}"
        written = save(self.study.network(self._measurements.mask(view), batchnorm=view["batchnorm"]), name)
        self.send({"type": "saved", "text": f"Saved {written.name} and {written.stem}.json in the notebook's folder."})

    # --- what the page is told, and tells ------------------------------------------------------------------------

    def _send_frames(self, view: Choices) -> None:
        if frame_key(view) == frame_key(self.view):
            self.frames = {"key": frame_key(view), "rows": self._measurements.rows(view)}

    def _send_pins(self) -> None:
        """The pinned views, each with what its curve has by now."""
        with self._lock:
            self.pins = [{**shown, "rows": self._measurements.rows(view)} for view, shown in self._pinned]

    def _say(self, **changes: Any) -> None:
        with self._lock:
            self.status = {**self.status, **changes}

    def _failed(self, error: Exception) -> None:
        """Show an error in words; the last good view stays."""
        words = str(error) if isinstance(error, DgpruneError) else f"{type(error).__name__}: {error}"
        self._say(error=words, progress=None)

    def _noted(self, text: str) -> None:
        self._say(message=text)

    def _views_changed(self, event: Any) -> None:
        """No work for a page that is gone: a cell that ran again, a closed tab."""
        if event["old"] and not event["new"]:
            self._worker.drop("curves", "latency", "panel", "panel background")
            self._panels.close()
        elif event["new"] and not event["old"] and not self._worker.has("exact"):
            self._request(after=0)

    def _message(self, content: Any) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "pin":
            self.pin()
        elif kind == "unpin":
            self._pinned = [pin for k, pin in enumerate(self._pinned) if k != content.get("index")]
            self._send_pins()
        elif kind == "reset":
            self._pinned = []
            self._send_pins()
            self._choose(**{name: self._start[name] for name in _CHOICES})  # type: ignore[literal-required]
        elif kind == "code":
            self.send({"type": "code", "text": self.code()})
        elif kind == "save":
            self._worker.put("save", self._save, priority=EXACT)
        elif kind == "retry":
            self._say(error=None)
            self._request(after=0)
        elif kind == "instead":
            item = self._measurements.menu[self.scorer]
            if isinstance(item, Scorer) and item.instead is not None:
                self.scorer = item.instead
        elif kind == "option":
            self._use(**{str(content.get("name")): content.get("value")})
        elif kind in ("panel", "filter", "page", "control", "brush"):
            self._panels.message(content)

    def _use(self, **options: Any) -> None:
        """The present scorer with another option; what cannot be is told in words, and the view stays."""
        item = self._measurements.menu[self.scorer]
        try:
            if isinstance(item, Scorer):
                self.scorer = item.using(**options)
        except DgpruneError as error:
            self._failed(error)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        if isinstance(data, dict):
            data["text/html"] = self._picture()
        return bundle

    def _picture(self) -> str:
        """For a notebook that is read without a kernel: waits a moment for the first numbers, not for all."""
        self.wait(timeout=_PICTURE_SECONDS)
        table, row = self._measurements.table(self.view), self._measurements.exact(self.view)
        if table is None or row is None:
            return assets.picture(None, None)
        return assets.picture(row["sentence"], charts.svg(charts.drop(table)))


def _call(reference: weakref.ref[Explorer], method: str, argument: Any) -> None:
    """Call a method of an explorer that may be gone."""
    explorer = reference()
    if explorer is not None:
        getattr(explorer, method)(argument)
