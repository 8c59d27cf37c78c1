"""One question alone: an explorer whose only panel is open from the start."""

from __future__ import annotations

from typing import ClassVar, cast

import pandas as pd

from ..core import BatchNorm, Budget, Scope, Scores
from ..scorers import Scorer
from ..study import Study
from .explorer.explorer import Explorer
from .panels.agreement import AgreementPanel
from .panels.feature_shift import FeatureShiftPanel
from .panels.flips import FlipsPanel
from .panels.layers import LayersPanel
from .panels.protocol import Panel
from .panels.prunability import PrunabilityPanel
from .panels.sensitivity import SensitivityPanel


class _Question(Explorer):
    """An explorer with one panel."""

    _panel: ClassVar[type[Panel]]

    def __init__(
        self,
        study: Study,
        *,
        scorer: str | Scorer | Scores = "l1",
        ratio: float = 0.5,
        scope: Scope = "layer",
        budget: Budget = "filters",
        batchnorm: BatchNorm | None = None,
    ) -> None:
        self._question = panel = type(self)._panel()
        super().__init__(
            study, scorer=scorer, ratio=ratio, scope=scope, budget=budget, batchnorm=batchnorm, panels=[panel]
        )
        self._panels.message({"type": "panel", "name": panel.name})


class Agreement(_Question):
    """Do the choices agree? How far every other scorer agrees with the present choice, against chance, on a slider.

    Args:
        study, scorer, ratio, scope, of, batchnorm: as of the Explorer.
    """

    _panel = AgreementPanel


class Layers(_Question):
    """Which layer cannot bear it? What every domain loses at once when one layer alone is pruned, on a slider.

    How much removal hurts at once says nothing yet about generalisation.

    Args:
        study, scorer, ratio, scope, of, batchnorm: as of the Explorer; of the panel scorer, ratio and batchnorm.
    """

    _panel = LayersPanel


class Flips(_Question):
    """Which images turn from right to wrong, and which from wrong to right? As pictures, on a slider.

    How much removal hurts at once says nothing yet about generalisation.

    Args:
        study, scorer, ratio, scope, of, batchnorm: as of the Explorer.
    """

    _panel = FlipsPanel


class Prunability(_Question):
    """How little is enough? The training loss against the single weights kept; the tolerance is a slider.

    What is shown is about the network as given; slider and choices above do not change it.

    Args:
        study, scorer, ratio, scope, of, batchnorm: as of the Explorer.
    """

    _panel = PrunabilityPanel


class FeatureShift(_Question):
    """Where do the features go? A map of all domains' images, full and pruned, and numbers beside it, on a slider.

    Believe the number with its interval; the picture only says where to look.

    Args:
        study, scorer, ratio, scope, of, batchnorm: as of the Explorer.
    """

    _panel = FeatureShiftPanel

    @property
    def brushed(self) -> pd.DataFrame:
        """The images in the rectangle drawn on the map, as of `FeatureShiftPanel.brushed`; waits for them."""
        self._worker.wait("panel", timeout=60.0)
        return cast(FeatureShiftPanel, self._question).brushed


class Sensitivity(_Question):
    """Which filters notice the domain? A map to click into, and a card of each filter; the slider marks what goes.

    A filter that notices need not do harm: the card says what happens without it.

    Args:
        study, scorer, ratio, scope, of, batchnorm: as of the Explorer.
    """

    _panel = SensitivityPanel
