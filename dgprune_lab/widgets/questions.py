"""One question alone: an explorer whose only panel is open from the start."""

from __future__ import annotations

from ..contract import Scorer
from ..study import Study
from ..types.filters import Scores
from ..types.tables import Of, Scope
from .agreement import AgreementPanel
from .explorer import Explorer


class Agreement(Explorer):
    """Do the choices agree? How far every other scorer agrees with the present choice, against chance, on a slider.

    Args:
        study, scorer, ratio, scope, of: as of the Explorer.
    """

    def __init__(
        self,
        study: Study,
        *,
        scorer: str | Scorer | Scores = "l1",
        ratio: float = 0.5,
        scope: Scope = "layer",
        of: Of = "filters",
    ) -> None:
        panel = AgreementPanel()
        super().__init__(study, scorer=scorer, ratio=ratio, scope=scope, of=of, panels=[panel])
        self._panels.message({"type": "panel", "name": panel.name})
