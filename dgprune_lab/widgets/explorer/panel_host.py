"""Panels: what opens below the explorer; each an own question on the same mask."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..panels.protocol import Frames, Panel, Rows, View
from ..worker import BACKGROUND, PANEL, Job

if TYPE_CHECKING:
    from .explorer import Explorer


_BESIDE: Mapping[str, Any] = {"text": None, "pages": None, "controls": [], "picked": None}  # in place of a chart's data
_NOTHING: Mapping[str, Any] = {"data": {}, **_BESIDE, "error": None}


class Panels:
    """The panels of one explorer: at most one is open, and a closed one does no work."""

    def __init__(self, panels: Sequence[Panel], explorer: Explorer) -> None:
        self._panels = {panel.name: panel for panel in panels}
        self._explorer = weakref.ref(explorer)
        self._asked = 0  # messages so far: what a tick before the last one found comes too late
        study = explorer.study
        listed = [
            {"name": p.name, "label": p.label, "unavailable": p.unavailable(study), "filters": _takes_filters(p)}
            for p in panels
        ]
        explorer.panels = {"list": listed, "open": None, "charts": {}, "heard": 0, **_NOTHING}

    def message(self, content: Mapping[str, Any]) -> None:
        """Open or close a panel, or tell the open one what was picked: filter, page, control or brush."""
        explorer = self._explorer()
        if explorer is None:
            return
        before = self._open(explorer)
        with explorer._lock:
            self._asked += 1
            if content["type"] == "panel":
                self._turn(explorer, content.get("name"))
            elif content["type"] == "filter" and before is None:
                self._turn(explorer, _for_filters(explorer.panels["list"]))
            if content["type"] != "panel" and (opened := self._open(explorer)) is not None:
                _heed(explorer, opened, content)
        if before is not None and self._open(explorer) is not before:
            explorer._worker.drop("panel", "panel background")
            _end(before)
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

    def close(self) -> None:
        """End what the open panel keeps running; it stays open, and a tick may begin anew."""
        explorer = self._explorer()
        if explorer is not None and (panel := self._open(explorer)) is not None:
            _end(panel)

    def _turn(self, explorer: Explorer, name: Any) -> None:
        """Open a panel, or none; its charts are empty."""
        name = name if name in self._panels else None
        charts = {} if name is None else dict(self._panels[name].charts)
        explorer.panels = {**explorer.panels, "open": name, "charts": charts, **_NOTHING}

    def _open(self, explorer: Explorer) -> Panel | None:
        return self._panels.get(explorer.panels.get("open") or "")

    def _tick(self, panel: Panel) -> Job:
        explorer, asked = self._explorer(), self._asked
        if explorer is None:
            return
        view = View(
            explorer.study,
            explorer.mask,
            batchnorm=explorer.batchnorm,
            selected=panel.selected,
            menu=dict(explorer._measurements.menu),
        )
        found = _steps(panel, view)
        while self._guarded(panel, lambda: next(found, None), asked=asked):
            yield
        if self._is_wanted(panel, asked) and explorer.panels["error"] is None:
            explorer._worker.put("panel background", lambda: self._later(panel, view, asked), priority=BACKGROUND)

    def _later(self, panel: Panel, view: View, asked: int) -> Job:
        more = panel.background(view)
        while self._guarded(panel, lambda: next(more, None), asked=asked):
            yield

    def _is_wanted(self, panel: Panel, asked: int | None) -> bool:
        """Whether a panel is still open, and nothing was picked since that message."""
        explorer = self._explorer()
        return explorer is not None and asked in (None, self._asked) and self._open(explorer) is panel

    def _guarded(self, panel: Panel, work: Callable[[], Frames | None], *, asked: int | None = None) -> bool:
        """Show what some work of a panel gives, if that is still wanted; an error stays in the panel."""
        found, error = None, None
        try:
            found = work()
        except Exception as raised:
            error = f"{raised}" or type(raised).__name__
        explorer = self._explorer()
        if explorer is None:
            return False
        with explorer._lock:
            if not self._is_wanted(panel, asked):
                return False
            if error is not None:
                explorer.panels = {**explorer.panels, "error": error}
            elif found is not None:
                explorer.panels = {**explorer.panels, **_joined(explorer.panels, found), "error": None}
        return found is not None


def _joined(held: Mapping[str, Any], found: Frames) -> dict[str, Any]:
    """What is shown, and over it what a frame brings."""
    data, beside = dict(held["data"]), {name: held[name] for name in _BESIDE}
    for name, rows in found.items():
        if name in beside:
            beside[name] = rows
        elif isinstance(rows, Mapping):
            data[name] = {**data.get(name, {}), **rows}
    return {"data": data, **beside}


def _heed(explorer: Explorer, panel: Panel, content: Mapping[str, Any]) -> None:
    """Tell a panel what was picked in it; a control or cell that the page numbered is answered at once."""
    picked, answer = _picked(content, explorer.panels["controls"])
    panel.selected = {**(panel.selected or {}), **picked}
    if "number" in content:
        explorer.panels = {**explorer.panels, **answer, "heard": content["number"]}


def _picked(content: Mapping[str, Any], controls: Rows) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a message picks, and what that changes on the page; nothing where no control offers such a value."""
    if content["type"] == "page":
        return {"page": content.get("page")}, {}
    if content["type"] == "brush":
        ends = {channel: _span(content.get(channel)) for channel in ("x", "y")}
        return {"brush": ends if any(ends.values()) else None}, {}
    if content["type"] == "filter":
        cell = {"group": content.get("group"), "filter": content.get("filter")}
        return cell, {"picked": cell}
    name, value = content.get("name"), content.get("value")
    if not any(one["name"] == name and value in [offered for offered, _ in one["choices"]] for one in controls):
        return {}, {}
    told = [{**one, "value": value} if one["name"] == name else one for one in controls]
    return {str(name): value}, {"controls": told}


def _span(ends: Any) -> list[float] | None:
    """The two ends of a brush, the lower first; None where there is none."""
    if isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, int | float) for end in ends):
        return sorted(ends)
    return None


def _takes_filters(panel: Panel) -> bool:
    return getattr(panel, "takes_filters", False) is True


def _for_filters(listed: Rows) -> str | None:
    """The first panel that a picked filter opens."""
    return next((one["name"] for one in listed if one["filters"] and one["unavailable"] is None), None)


def _end(panel: Panel) -> None:
    """A panel's page is gone: so is its brush, and what it keeps running."""
    if (panel.selected or {}).get("brush") is not None:
        panel.selected = {**panel.selected, "brush": None}
    with contextlib.suppress(Exception):
        getattr(panel, "close", lambda: None)()


def _steps(panel: Panel, view: View) -> Iterator[Frames]:
    """The frames of a tick, one or many."""
    found = panel.tick(view)
    yield from ([found] if isinstance(found, Mapping) else found)
