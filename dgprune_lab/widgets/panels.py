"""Panels: what opens below the explorer; each an own question on the same mask."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..contract import Scorer
from ..scorers import SCORERS
from ..study import Study
from ..types.filters import Mask, Scores
from ..types.tables import BatchNorm
from .worker import BACKGROUND, PANEL, Job

if TYPE_CHECKING:
    from .explorer import Explorer

Frames = Mapping[str, Mapping[str, list[dict[str, Any]]] | Mapping[str, int] | str]

_NOTHING: Mapping[str, Any] = {"data": {}, "text": None, "pages": None, "error": None}


class View:
    """What a panel is shown: study, mask, options and menu (scorers by name) of the explorer at rest."""

    def __init__(
        self, study: Study, mask: Mask, *, batchnorm: BatchNorm, selected: Any = None,
        menu: Mapping[str, Scorer | Scores] = SCORERS,
    ) -> None:  # fmt: skip
        self.study, self.mask, self.selected, self.menu = study, mask, selected, menu
        self.batchnorm: BatchNorm = batchnorm


class Panel(Protocol):
    """One question below the explorer.

    Attributes:
        name: unique.
        label: words on its button.
        charts: chart name -> Vega-Lite specification with named data.
        selected: what the user picked in it, if anything: {"group": ..., "filter": ...}, {"page": ...}.
    """

    name: str
    label: str
    charts: Mapping[str, dict[str, Any]]
    selected: Any

    def unavailable(self, study: Study) -> str | None:
        """Why it has nothing to show here; None where it has."""
        ...

    def tick(self, view: View) -> Frames | Iterator[Frames]:
        """Chart name -> data name -> rows, for this view; quick enough to follow a slider at rest.

        Under the name "text", in place of data: words above the charts. Under "pages", {"at": 0, "of": 3}: buttons to
        browse; they set `selected["page"]`. Work of many steps is an iterator, which gives way to the slider between
        two of its frames; a frame may be empty.
        """
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
        explorer.panels = {"list": listed, "open": None, "charts": {}, **_NOTHING}

    def message(self, content: Mapping[str, Any]) -> None:
        """Open or close a panel, or tell the open one which filter or page was picked."""
        explorer = self._explorer()
        if explorer is None:
            return
        if content["type"] == "panel":
            name = content.get("name") if content.get("name") in self._panels else None
            charts = {} if name is None else dict(self._panels[name].charts)
            fresh = {"open": name, "charts": charts, **_NOTHING}
            explorer.panels = {**explorer.panels, **fresh}
        elif (opened := self._open(explorer)) is not None:
            names = ("page",) if content["type"] == "page" else ("group", "filter")
            opened.selected = {**(opened.selected or {}), **{name: content.get(name) for name in names}}
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
        view = View(
            explorer.study, explorer.mask, batchnorm=explorer.batchnorm, selected=panel.selected,
            menu=dict(explorer._measurements.menu),
        )  # fmt: skip
        found = _steps(panel, view)
        while self._guarded(panel, lambda: next(found, None)):
            yield
        if self._open(explorer) is panel and explorer.panels["error"] is None:
            explorer._worker.put("panel background", lambda: self._later(panel, view), priority=BACKGROUND)

    def _later(self, panel: Panel, view: View) -> Job:
        more = panel.background(view)
        while self._guarded(panel, lambda: next(more, None)):
            yield

    def _guarded(self, panel: Panel, work: Any) -> bool:
        """Show what some work of a panel gives, if it is still open; an error stays in the panel."""
        explorer = self._explorer()
        if explorer is None:
            return False
        try:
            found = work()
        except Exception as error:
            if self._open(explorer) is panel:
                explorer.panels = {**explorer.panels, "error": f"{error}" or type(error).__name__}
            return False
        if found is None or self._open(explorer) is not panel:
            return False
        data, text, pages = {**explorer.panels["data"]}, explorer.panels["text"], explorer.panels["pages"]
        for chart, rows in found.items():
            if isinstance(rows, str):
                text = rows
            elif chart == "pages":
                pages = rows
            else:
                data[chart] = {**data.get(chart, {}), **rows}
        explorer.panels = {**explorer.panels, "data": data, "text": text, "pages": pages, "error": None}
        return True


def _steps(panel: Panel, view: View) -> Iterator[Frames]:
    """The frames of a tick, one or many."""
    found = panel.tick(view)
    yield from ([found] if isinstance(found, Mapping) else found)
