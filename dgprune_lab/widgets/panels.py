"""Panels: what opens below the explorer; each an own question on the same mask."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..study import Study
from ..types.filters import Mask
from ..types.tables import BatchNorm
from .worker import BACKGROUND, PANEL, Job

if TYPE_CHECKING:
    from .explorer import Explorer

Frames = Mapping[str, Mapping[str, list[dict[str, Any]]]]


class View:
    """What a panel is shown: the study, the mask and the options of the explorer at rest."""

    def __init__(self, study: Study, mask: Mask, *, batchnorm: BatchNorm, selected: Any = None) -> None:
        self.study, self.mask, self.batchnorm, self.selected = study, mask, batchnorm, selected


class Panel(Protocol):
    """One question below the explorer.

    Attributes:
        name: unique.
        label: words on its button.
        charts: chart name -> Vega-Lite specification with named data.
        selected: what the user picked in it, if anything: {"group": ..., "filter": ...}.
    """

    name: str
    label: str
    charts: Mapping[str, dict[str, Any]]
    selected: Any

    def unavailable(self, study: Study) -> str | None:
        """Why it has nothing to show here; None where it has."""
        ...

    def tick(self, view: View) -> Frames:
        """Chart name -> data name -> rows, for this view; quick enough to follow a slider at rest."""
        ...

    def background(self, view: View) -> Iterator[Frames]:
        """Further frames that take longer, one at a time; it is dropped when the view changes."""
        ...


class Panels:
    """The panels of one explorer: at most one is open, and a closed one does no work."""

    def __init__(self, panels: Sequence[Panel], explorer: Explorer) -> None:
        self._panels = {panel.name: panel for panel in panels}
        self._explorer = weakref.ref(explorer)
        study = explorer.study
        listed = [{"name": p.name, "label": p.label, "unavailable": p.unavailable(study)} for p in panels]
        explorer.panels = {"list": listed, "open": None, "charts": {}, "data": {}, "text": None, "error": None}

    def message(self, content: Mapping[str, Any]) -> None:
        """Open or close a panel, or tell the open one which filter was picked."""
        explorer = self._explorer()
        if explorer is None:
            return
        if content["type"] == "panel":
            name = content.get("name") if content.get("name") in self._panels else None
            charts = {} if name is None else dict(self._panels[name].charts)
            explorer.panels = {**explorer.panels, "open": name, "charts": charts, "data": {}, "error": None}
        elif (opened := self._open(explorer)) is not None:
            opened.selected = {"group": content.get("group"), "filter": content.get("filter")}
        self.ticked()

    def ticked(self) -> None:
        """The view at rest has changed."""
        explorer = self._explorer()
        if explorer is None:
            return
        explorer._worker.drop("panel", "panel background")
        panel = self._open(explorer)
        if panel is not None and panel.unavailable(explorer.study) is None:
            explorer._worker.put("panel", lambda: self._tick(panel), priority=PANEL)

    def _open(self, explorer: Explorer) -> Panel | None:
        return self._panels.get(explorer.panels.get("open") or "")

    def _tick(self, panel: Panel) -> Job:
        explorer = self._explorer()
        if explorer is None:
            return
        view = View(explorer.study, explorer.mask, batchnorm=explorer.batchnorm, selected=panel.selected)
        if self._guarded(lambda: panel.tick(view)):
            explorer._worker.put("panel background", lambda: self._later(panel, view), priority=BACKGROUND)
        yield

    def _later(self, panel: Panel, view: View) -> Job:
        more = panel.background(view)
        while self._guarded(lambda: next(more, None)):
            yield

    def _guarded(self, work: Any) -> bool:
        """Show what some work of a panel gives; an error stays in the panel."""
        explorer = self._explorer()
        if explorer is None:
            return False
        try:
            found = work()
        except Exception as error:
            explorer.panels = {**explorer.panels, "error": f"{error}" or type(error).__name__}
            return False
        if found is None:
            return False
        data = {**explorer.panels["data"]}
        for chart, rows in found.items():
            data[chart] = {**data.get(chart, {}), **rows}
        explorer.panels = {**explorer.panels, "data": data, "error": None}
        return True
