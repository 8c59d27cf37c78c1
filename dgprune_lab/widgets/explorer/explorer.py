"""The live explorer: a slider that shows what removing filters does."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pandas as pd
import torch

from ...core import BatchNorm, Budget, Count, DgpruneError, NotNegative, Ratio, Scope, Scores, public
from ...scorers import Scorer
from ...study import Study
from ..page import static as assets
from ..page.comm import weakly
from ..page.vega import shared_static
from ..panels.agreement import AgreementPanel
from ..panels.compare import ComparePanel
from ..panels.feature_shift import FeatureShiftPanel
from ..panels.find import FindPanel
from ..panels.flatness import FlatnessPanel
from ..panels.flips import FlipsPanel
from ..panels.layers import LayersPanel
from ..panels.protocol import Panel
from ..panels.prunability import PrunabilityPanel
from ..panels.sensitivity import SensitivityPanel
from ..panels.trade_off import TradeOffPanel
from .choices import CONTROLS
from .frames import CALIBRATION
from .panel_host import MESSAGES
from .pictures import explorer_picture
from .session import Session
from .session_actions import SessionActions
from .tried import view_of
from .workbench import MESSAGES as STEP_MESSAGES
from .workbench import defaults


@public
class Explorer(SessionActions):
    """A slider over the ratio, live on the kernel: accuracy on each domain, filters kept, size and cost.

    The page follows the slider by itself; the kernel measures in one background thread, the newest request first, so
    other cells can run at the same time. At rest every number equals `dg.measure` of the pruned network on all images,
    or on the first `images`. Where that takes more than a quarter of a second, an estimate from fewer images comes
    first; the page says from how many, and how long the exact numbers will take. A move of a control ends what runs.
    Curves, latency and a panel's background results are computed only while a page shows the explorer, or a cell
    waits for them (`wait_idle`).
    The attributes ratio, scorer, scope, budget and batchnorm hold the current view; setting one moves the controls.
    `layers` and `forced` set layers and filters by hand. Whoever sets them has seen the accuracies that the explorer
    shows, those of the target too, so such a choice is target-aware where the study has a target.
    `apply` and `finetune` make steps, networks from which the slider goes on; `step` goes to one of them. Costs and
    changes always refer to the full network, and filters are numbered as there.

    Args:
        study: the network and its domains.
        scorer: a name, your own Scorer, or Scores; added to the menu.
        ratio: the initial ratio.
        scope, budget: see `dg.allocate`.
        batchnorm: "recalibrate" (the default if the network has BatchNorm) or "as_is".
        scorers: your own scorers, for the menu.
        panels: panels offered below the charts; None for the built-in ones.
        device: where the evaluation runs; None for the study's device.
        images: how many images of each domain, from the first, give the exact numbers; None for all images.
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
        FlatnessPanel,
    )

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
        static: dict[str, Any] = {**self._session.measurements.static(), **shared_static()}
        static["finetuning"] = defaults()
        state = {"status": self._session.status, "panels": self._session.host.state}
        super().__init__(static=static, choice=dict(self._session.start), **state)
        chosen = weakly(self._chosen)
        self.observe(lambda event: chosen(event["new"]), "choice")
        self.listen()
        self._session.show_tree()
        self._session.measure(ack=0)

    @property
    def evaluations(self) -> dict[str, int]:
        """Number of networks measured so far, by reason: on request, and to fill the curves; estimates do not count."""
        return dict(self._session.steps.full.evaluations)

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
        frame = self._session.steps.full.exact(self.view)
        if frame is None:
            unmeasured = "the present view has not been measured; is the explorer closed?"
            raise DgpruneError(self.status.get("error") or unmeasured)
        return frame.table.copy()

    def wait(self, *, timeout: NotNegative = 60.0, curves: bool = False) -> bool:
        """Wait until the current view (and with `curves`, its curves) is measured; return False on a timeout."""
        self._session.renew()
        jobs = ("exact", "curves", "latency") if curves else ("exact",)
        return self._session.worker.wait(*jobs, timeout=timeout)

    def wait_idle(self, timeout: NotNegative = 60.0) -> bool:
        """Wait until view, curves and the open panel are all computed; return False on a timeout."""
        return self._session.worker.wait(timeout=timeout)

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
        elif kind in STEP_MESSAGES:
            session.workbench.handle_message(content)
        elif kind in ("pin", "save"):
            getattr(session, kind)()
        elif kind == "unpin":
            session.unpin(content.get("index"))
        elif kind == "reset":
            session.unpin()
            session.host.forget_picked()
            self.choose(**{name: value for name, value in session.start.items() if name in CONTROLS})
        elif kind == "code":
            self.send({"type": "code", "text": self.code()})
        elif kind == "download":
            self.download()
        elif kind == "retry":
            self._retry()
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

    def settle(self) -> None:
        """Wait until view, curves and the open panel are all computed."""
        self.wait_idle(threading.TIMEOUT_MAX)

    def still(self) -> str:
        """Return what is measured, as a sentence and charts (HTML), for a notebook without a kernel; does not wait."""
        frame = self._session.steps.full.exact(self.view)
        if frame is None:
            return assets.picture(None, None)
        view = view_of(self._session, None)
        return explorer_picture(view, self.panels, sentence=frame.payload["sentence"])
