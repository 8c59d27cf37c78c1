"""Widgets for a single question: an explorer whose only panel is open from the start."""

from __future__ import annotations

import threading
from typing import Any

import pandas as pd

from ..core import DgpruneError, public
from ..study import Study
from .explorer.explorer import Explorer
from .panels.agreement import AgreementPanel
from .panels.compare import ComparePanel
from .panels.feature_shift import FeatureShiftPanel
from .panels.find import FindPanel
from .panels.flatness import FlatnessPanel
from .panels.flips import FlipsPanel
from .panels.layers import LayersPanel
from .panels.prunability import PrunabilityPanel
from .panels.sensitivity import SensitivityPanel
from .panels.trade_off import TradeOffPanel


@public
class SinglePanel(Explorer):
    """An explorer with one panel, open from the start; `options` are keyword arguments of `Explorer`.

    Attributes:
        panel: the panel.
    """

    def __init__(self, study: Study, **options: Any) -> None:
        if "panels" in options:
            raise DgpruneError(f"panels: {type(self).__name__} shows one panel; for others, dg.Explorer(panels=[...]).")
        (kind,) = self._built_in
        self.panel: Any = kind()
        super().__init__(study, panels=[self.panel], **options)
        self.handle_message({"type": "panel", "name": self.panel.name})


class Flips(SinglePanel):
    """Images whose prediction turns from right to wrong, or from wrong to right; see `FlipsPanel`."""

    _built_in = (FlipsPanel,)


class Layers(SinglePanel):
    """The accuracy change of every domain when one layer alone is pruned; see `LayersPanel`."""

    _built_in = (LayersPanel,)


class Sensitivity(SinglePanel):
    """Each filter's contributions on two domains compared, and a card per filter; see `SensitivityPanel`."""

    _built_in = (SensitivityPanel,)


class FeatureShift(SinglePanel):
    """A map of features in the full and pruned network, and distances between domains; see `FeatureShiftPanel`."""

    _built_in = (FeatureShiftPanel,)

    @property
    def brushed(self) -> pd.DataFrame:
        """The table `FeatureShiftPanel.brushed` of the images in the rectangle on the map. Blocks until it is ready."""
        self._session.worker.wait("panel", timeout=threading.TIMEOUT_MAX)
        return self.panel.brushed


class Agreement(SinglePanel):
    """Agreement of every other scorer with the current one, compared with chance; see `AgreementPanel`."""

    _built_in = (AgreementPanel,)


class Prunability(SinglePanel):
    """The training loss against the share of individual weights kept; see `PrunabilityPanel`."""

    _built_in = (PrunabilityPanel,)


class Flatness(SinglePanel):
    """Curvature of the training loss around the network, with the pruned network marked; see `FlatnessPanel`."""

    _built_in = (FlatnessPanel,)


class TradeOff(SinglePanel):
    """The size or cost of each network tried against its accuracy; see `TradeOffPanel`."""

    _built_in = (TradeOffPanel,)


class Find(SinglePanel):
    """The smallest network that keeps enough accuracy, or the most accurate within a size limit; see `FindPanel`."""

    _built_in = (FindPanel,)


class Compare(SinglePanel):
    """Differences between two of the networks tried; see `ComparePanel`."""

    _built_in = (ComparePanel,)
