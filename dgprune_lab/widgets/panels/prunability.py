"""The panel "Prunability": the training loss against the share of weights kept, and the smallest sufficient share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ...charts.prunability import prunability_chart, prunability_data
from ...core import batchnorm_words, tidy
from ...diagnostics._loss_curve import LossCurve
from ...diagnostics.prunability import EXTRA, Search, Setting, curve_rows, loss_curve
from ...study import Study, batchnorm_cell, why_no_loss
from .protocol import Frames, Panel, Specs, View

TOLERANCE = 0.1
_TOLERANCES = tuple(k / 100 for k in range(1, 101))
_EMPTY: Mapping[str, Any] = {"curve": [], "ends": [], "words": []}
_CAPTION = (
    "Single weights of the whole network are removed, smallest magnitude first{setting}. Dot: the smallest share "
    "kept whose loss on the {images} stays within the tolerance. Of several networks with equal training "
    "loss, the one with the smaller share is predicted to generalise better (Kuhn et al. 2021); one network alone "
    "proves nothing."
)


class PrunabilityPanel(Panel):
    """Prunability of the network as given, whatever the explorer's ratio: by a fast search, then on a grid of shares.

    The chart has its own slider for the tolerance.

    Attributes:
        curve: the losses measured so far.
    """

    name, label = "prunability", "Prunability"
    charts: Any = Specs({"prunability": partial(prunability_chart, _EMPTY, tolerance=TOLERANCE, width=620)})

    def __init__(self) -> None:
        self.curve: LossCurve | None = None
        self._setting = Setting()
        self._content: str | None = None
        self._searched = False
        self._data, self._caption = _EMPTY, ""

    def unavailable(self, study: Study) -> str | None:
        """Return why the panel cannot be shown (no training loss can be measured), or None."""
        return why_no_loss(study, self._setting.split)

    def tick(self, view: View) -> Frames:
        """Return a frame with the losses measured so far."""
        if self.curve is None or self._content != view.study.content or self._setting.images != view.images:
            self._content, self._searched, self._data = view.study.content, False, _EMPTY
            self._setting = replace(self._setting, images=view.images)
            self.curve = loss_curve(view.study, self._setting, name=view.study.name)
            setting = batchnorm_words([batchnorm_cell(view.study, self._setting.batchnorm)])
            images = "training images" if view.images is None else f"first {view.images:,} training images of a source"
            self._caption = _CAPTION.format(setting="; " * bool(setting) + setting, images=images)
        return self._frame(self.curve)

    def background(self, view: View) -> Iterator[Frames]:
        """Yield a frame after the fast search, then a text after each further share, then a frame with all shares."""
        curve = self.curve
        assert curve is not None
        if not self._searched:
            for _ in curve.bracket(TOLERANCE):
                yield {}
            self._searched = True
            self._update_data(view.study, curve, "fast")
            yield self._frame(curve)
        if len(curve.losses) < len(curve.grid):
            measured = len(curve.losses)
            for _ in curve.fill():
                yield {} if len(curve.losses) == measured else {"text": self._text(curve)}
                measured = len(curve.losses)
            self._update_data(view.study, curve, "grid")
            yield self._frame(curve)

    def _update_data(self, study: Study, curve: LossCurve, search: Search) -> None:
        tolerances = _TOLERANCES if search == "grid" else [TOLERANCE]
        rows = curve_rows(study, curve, setting=self._setting, search=search, tolerances=tolerances)
        self._data = prunability_data(tidy(rows, extra=EXTRA))

    def _frame(self, curve: LossCurve) -> Frames:
        return {"prunability": self._data, "text": self._text(curve)}

    def _text(self, curve: LossCurve) -> str:
        done, total = len(curve.losses), len(curve.grid)
        state = "Quick search" if not self._searched else "Quick search done, isolated shares not searched yet"
        text = f"{state}; measured {done} of {total} shares."
        if done == total:
            text = "Every share is measured; rings: isolated shares within the tolerance, below one that is not."
        if curve.broken:
            text += f" The loss is not finite at {len(curve.broken)} of them, which count as above the limit."
        return f"{self._caption}\n{text}"
