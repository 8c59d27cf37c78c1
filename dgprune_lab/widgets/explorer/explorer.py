"""The live explorer: a slider that shows what removing filters does."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import pandas as pd
import torch
import traitlets
from torch import nn

from ...charts import drop, svg
from ...core import BatchNorm, Budget, Count, DgpruneError, Mask, NotNegative, Ratio, Scope, Scores, public, unknown
from ...scorers import Scorer
from ...study import Study
from ..page import static as assets
from ..page.comm import CommWidget, weakly
from ..page.vega import vega_host
from ..panels.agreement import AgreementPanel
from ..panels.compare import ComparePanel
from ..panels.feature_shift import FeatureShiftPanel
from ..panels.find import FindPanel
from ..panels.flips import FlipsPanel
from ..panels.layers import LayersPanel
from ..panels.protocol import Panel
from ..panels.prunability import PrunabilityPanel
from ..panels.sensitivity import SensitivityPanel
from ..panels.trade_off import TradeOffPanel
from .choices import CONTROLS, Choices
from .code import as_code
from .frames import CALIBRATION
from .panel_host import MESSAGES
from .session import Session

_PICTURE_SECONDS = 0.6


class _Control:
    """An attribute that reads the current view; setting it moves the controls."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, explorer: Explorer | None, owner: type) -> Any:
        return self if explorer is None else explorer.view[self._name]

    def __set__(self, explorer: Explorer, value: Any) -> None:
        explorer.choose(**{self._name: value})


@public
class Explorer(CommWidget):
    """A slider over the ratio, live on the kernel: accuracy on each domain, filters kept, size and cost.

    The page follows the slider by itself; the kernel measures in one background thread, the newest request first, so
    other cells can run at the same time. At rest every number equals `dg.measure` of the pruned network on all images,
    or on the first `images`. Where that takes more than a quarter of a second, an estimate from fewer images comes
    first; the page says from how many, and how long the exact numbers will take. A move of a control ends what runs.
    Curves, latency and what a panel computes in the background are computed while a page shows the explorer, or a cell
    waits for them (`wait_idle`).
    The attributes ratio, scorer, scope, budget and batchnorm hold the current view; setting one moves the controls.

    Args:
        study: the network and its domains.
        scorer: a name, your own Scorer, or Scores; added to the menu.
        ratio: the initial ratio.
        scope, budget: see `dg.allocate`.
        batchnorm: "recalibrate" (the default if the network has BatchNorm) or "as_is".
        scorers: your own scorers, for the menu.
        panels: panels offered below the charts; None for the built-in ones.
        device: where the evaluation runs; None for the study's device.
        images: the exact numbers are from the first so many images of each domain; None for all images.
        calibration: number of source images on which BatchNorm is re-estimated for the exact numbers.

    Raises:
        DgpruneError: a ratio outside [0, 1), an unknown scorer, scope or budget; two of your scorers of one name.
    """

    _esm = assets.module()
    _css = assets.style()
    _built_in: ClassVar[tuple[type[Panel], ...]] = (
        TradeOffPanel,
        FindPanel,
        ComparePanel,
        FlipsPanel,
        LayersPanel,
        SensitivityPanel,
        FeatureShiftPanel,
        AgreementPanel,
        PrunabilityPanel,
    )

    static = traitlets.Dict().tag(sync=True)
    choice = traitlets.Dict().tag(sync=True)
    plan = traitlets.Dict().tag(sync=True)
    frames = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)
    pins = traitlets.List().tag(sync=True)
    panels = traitlets.Dict().tag(sync=True)

    ratio = _Control("The pruning ratio, in [0, 1).")
    scorer = _Control("Name of the scorer; a Scorer or Scores may be set.")
    scope = _Control('"layer" or "global", see `dg.allocate`.')
    budget = _Control("What the ratio counts, see `dg.allocate`.")
    batchnorm = _Control('"recalibrate" or "as_is".')
    layers = _Control("Layers with a ratio of their own, {'conv2': 0.2}; 0 keeps a layer whole. See `dg.allocate`.")
    forced = _Control("Filters by hand, {'remove': {'conv2': [0, 5]}, 'keep': {'conv1': [3]}}. See `dg.allocate`.")

    def __init__(
        self,
        study: Study,
        *,
        scorer: str | Scorer | Scores = "l1",
        ratio: Ratio = 0.5,
        scope: Scope = "layer",
        budget: Budget = "filters",
        batchnorm: BatchNorm | None = None,
        scorers: Sequence[Scorer | Scores] = (),
        panels: Sequence[Panel] | None = None,
        device: torch.device | str | None = None,
        images: Count | None = None,
        calibration: Count = CALIBRATION,
    ) -> None:
        self.study = study if device is None else study.on(device)
        batchnorm = batchnorm or ("recalibrate" if self.study.has_batchnorm else "as_is")
        self._session = Session(
            self.study,
            controls=dict(zip(CONTROLS, (ratio, scorer, scope, budget, batchnorm), strict=False)),
            scorers=scorers,
            panels=[panel() for panel in self._built_in] if panels is None else panels,
            send=weakly(self._show),
            images=images,
            calibration=calibration,
        )
        static = {**self._session.measurements.static(), "host": vega_host().ref}
        state = {"status": self._session.status, "panels": self._session.host.state}
        super().__init__(static=static, choice=dict(self._session.start), **state)
        chosen = weakly(self._chosen)
        self.observe(lambda event: chosen(event["new"]), "choice")
        self.listen()
        self._session.measure(ack=0)

    @property
    def view(self) -> Choices:
        """The state of the controls: the last valid choices."""
        return self._session.view

    @property
    def mask(self) -> Mask:
        """The mask of the current view: which filters of the full network stay."""
        return self._session.measurements.whole(self._session.measurements.mask(self.view))

    @property
    def network(self) -> nn.Module:
        """The network of the current view, a copy: pruned, and with BatchNorm re-estimated if the view says so."""
        return self._session.measurements.network(self.view)

    @property
    def evaluations(self) -> dict[str, int]:
        """Number of networks measured so far, by reason: on request, and to fill the curves; estimates do not count."""
        return dict(self._session.measurements.evaluations)

    @property
    def table(self) -> pd.DataFrame:
        """The current view as a tidy table: accuracy per domain, its change from the full network, size and cost.

        All values are measured exactly; none is an estimate.

        The column `calibration` is the number of images on which BatchNorm was re-estimated.

        Waits until the view is measured, however long that takes; Ctrl-C ends the waiting.

        Raises:
            DgpruneError: the view cannot be measured.
        """
        self.wait(timeout=threading.TIMEOUT_MAX)
        frame = self._session.measurements.exact(self.view)
        if frame is None:
            unmeasured = "the present view has not been measured; is the explorer closed?"
            raise DgpruneError(self.status.get("error") or unmeasured)
        return frame.table.copy()

    def choose(self, **changes: Any) -> None:
        """Set several controls at once, by the names of the attributes.

        Raises:
            DgpruneError: a value that a control does not offer.
        """
        for name in changes:
            if name not in CONTROLS:
                raise unknown("control", name, CONTROLS)
        measurements = self._session.measurements
        if not isinstance(changes.get("scorer", ""), str):
            changes["scorer"] = measurements.admit(changes["scorer"])
            self.static = {**self.static, "scorers": measurements.static()["scorers"]}
        changes |= {"id": self._number() + 1, "by": "kernel"}
        self.choice = dict(measurements.checked({**self.view, **changes}))

    def wait(self, *, timeout: NotNegative = 60.0, curves: bool = False) -> bool:
        """Wait until the current view (and with `curves`, its curves) is measured; return False on a timeout."""
        jobs = ("exact", "curves", "latency") if curves else ("exact",)
        return self._session.worker.wait(*jobs, timeout=timeout)

    def wait_idle(self, timeout: NotNegative = 60.0) -> bool:
        """Wait until view, curves and the open panel are all computed; return False on a timeout."""
        return self._session.worker.wait(timeout=timeout)

    def code(self) -> str:
        """Return the code of a cell that rebuilds the current view, with versions and the hash of the data."""
        measurements = self._session.measurements
        counts = {"images": measurements.load.images, "calibration": measurements.load.calibration}
        view: Choices = {**self.view, "ratio": measurements.possible_ratio(self.view)}
        return as_code(self.study, view, steps=(), menu=measurements.menu, **counts)

    def pin(self) -> None:
        """Pin the current view for comparison: at most three views, and only if the view is measured."""
        self._session.pin()

    def close(self) -> None:
        """End the thread and remove the widget; results stay readable in Python."""
        if "_session" in vars(self):  # not where the constructor has refused an argument
            self._session.close()
        super().close()

    def handle_message(self, content: Mapping[str, Any]) -> None:
        """Act on a message of the page: a button, an option of the scorer, or a choice in a panel."""
        kind, session = content.get("type"), self._session
        item = session.item
        if kind in MESSAGES:
            session.host.handle_message(content)
        elif kind in ("pin", "save"):
            getattr(session, kind)()
        elif kind == "unpin":
            session.unpin(content.get("index"))
        elif kind == "reset":
            session.unpin()
            self.choose(**{name: value for name, value in session.start.items() if name in CONTROLS})
        elif kind == "code":
            self.send({"type": "code", "text": self.code()})
        elif kind == "retry":
            session.retry(ack=self._number())
        elif kind == "instead" and isinstance(item, Scorer) and item.instead is not None:
            self.scorer = item.instead
        elif kind == "option" and isinstance(item, Scorer):
            try:
                self.scorer = item.using(**{str(content.get("name")): content.get("value")})
            except DgpruneError as error:
                session.failed(error)

    def views_changed(self, before: int, now: int) -> None:
        """Pause the work while no page shows the explorer, because its cell ran again or a tab was closed."""
        self._session.worker.show(now > 0)
        if before and not now:
            self._session.pause()
        elif now and not before and not self._session.worker.has("exact"):
            self._session.measure(ack=self._number())

    def still(self) -> str:
        """Return the sentence and the chart of accuracy changes as HTML, for a notebook without a kernel.

        Waits briefly for the first numbers.
        """
        self.wait(timeout=_PICTURE_SECONDS)
        frame = self._session.measurements.exact(self.view)
        if frame is None:
            return assets.picture(None, None)
        return assets.picture(frame.payload["sentence"], svg(drop(frame.table)))

    def _number(self) -> int:
        """Number of the newest request, valid or not."""
        return int(cast(Any, self.choice.get("id")) or 0)

    def _chosen(self, choices: dict[str, Any]) -> None:
        try:
            checked = self._session.measurements.checked(choices)
        except (DgpruneError, KeyError, TypeError, ValueError) as error:
            self._session.failed(error)
        else:
            if checked["by"] == "page":
                self._session.worker.show(True)
            self._session.request(checked, moving=bool(choices.get("moving")))

    def _show(self, name: str, value: Any) -> None:
        if name == "message":
            self.send(value)
        else:
            setattr(self, name, value)
