"""The panel "How little is enough?": the training loss against the weights kept, and the smallest share that does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...charts.prunability import prunability_chart, prunability_data
from ...core import DgpruneError, tidy
from ...diagnostics._loss_curve import LossCurve
from ...diagnostics.prunability import EXTRA, Search, Setting, curve_rows, loss_curve
from ...study import Study, refuse
from .protocol import Frames, View

TOLERANCE = 0.1
_TOLERANCES = tuple(k / 100 for k in range(1, 101))
_ABOUT = (
    "Single weights of the whole network go, the smallest first; BatchNorm stays as it is. Dot: the smallest share "
    "that keeps the loss on the training images within the tolerance. Of several networks of equal training loss, the "
    "one that needs less is said to generalise better (Kuhn et al. 2021); one network alone proves nothing."
)


class PrunabilityPanel:
    """The prunability of the network as given, whatever the slider says: a quick search first, then every share.

    The tolerance is a slider of the chart itself.
    """

    name, label = "prunability", "How little is enough?"

    def __init__(self) -> None:
        self.charts: Mapping[str, dict[str, Any]] = {
            "prunability": prunability_chart(
                {"curve": [], "ends": [], "words": []}, tolerance=TOLERANCE, width=620
            ).to_dict()
        }
        self.selected: Any = None
        self._setting = Setting()
        self._content: str | None = None
        self._curve: LossCurve | None = None
        self._found = False
        self._data: dict[str, Any] = {}

    def unavailable(self, study: Study) -> str | None:
        """Why there is no loss to keep, if so."""
        try:
            refuse(study, self._setting.split)
        except DgpruneError as error:
            return str(error)
        return None

    def tick(self, view: View) -> Frames:
        """What is measured already."""
        if self._content != view.study.content:
            self._content, self._found = view.study.content, False
            self._curve = loss_curve(view.study, self._setting, name=view.study.name)
            self._data = {"curve": [], "ends": [], "words": []}
        return self._frames()

    def background(self, view: View) -> Iterator[Frames]:
        """The end of the contiguous stretch first, then every share; a frame at each that is measured."""
        curve = self._curve
        assert curve is not None
        if not self._found:
            for _ in curve.bracket(TOLERANCE):
                yield {}
            self._found = True
            self._read(view.study, "fast")
            yield self._frames()
        if len(curve.losses) < len(curve.grid):
            shown = len(curve.losses)
            for _ in curve.fill():
                if len(curve.losses) == shown:
                    yield {}
                    continue
                shown = len(curve.losses)
                yield {"text": self._text()}
            self._read(view.study, "grid")
            yield self._frames()

    def _read(self, study: Study, search: Search) -> None:
        assert self._curve is not None
        rows = curve_rows(study, self._curve, setting=self._setting, search=search, tolerances=_TOLERANCES)
        self._data = prunability_data(tidy(rows, extra=EXTRA))

    def _frames(self) -> Frames:
        return {"prunability": self._data, "text": self._text()}

    def _text(self) -> str:
        curve = self._curve
        assert curve is not None
        done, total = len(curve.losses), len(curve.grid)
        state = "Looking for the place quickly" if not self._found else "Quick search done, no islands looked for yet"
        words = f"{state}; measured {done} of {total} shares."
        if done == total:
            words = "Every share is measured; rings mark islands, within the tolerance below one that is not."
        if curve.broken:
            words += f" The loss is not finite at {len(curve.broken)} of them, which count as above the limit."
        return f"{_ABOUT}\n{words}"
