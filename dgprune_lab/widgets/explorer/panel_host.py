"""The host of the panels: opens one at a time, passes on what the user picks, and shows its frames."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from ...core import Lock
from ...study import Study
from ..panels.protocol import Frames, Panel, Row, View
from ..worker import BACKGROUND, PANEL, Job, Worker

JOBS = ("panel", "panel background")
MESSAGES = ("panel", "filter", "page", "control", "brush", "press")
_BESIDE: Row = {"text": None, "pages": None, "controls": [], "actions": [], "hidden": [], "picked": None}  # no charts
_FILTERS = ("group", "filter", "cells")
_EMPTY: Row = {"data": {}, **_BESIDE, "error": None}


class PanelHost:
    """The panels of one explorer: at most one is open, and a closed panel does no work.

    Args:
        panels: the panels in the order of their buttons.
        study: the network and its domains.
        worker: the thread in which panels are ticked.
        view: function from a panel's selection to its View, or to None if the explorer no longer exists.
        show: function called with `state` whenever it changes.

    Attributes:
        state: the state of the panels, for the page.
    """

    def __init__(
        self,
        panels: Sequence[Panel],
        *,
        study: Study,
        worker: Worker,
        view: Callable[[Any], View | None],
        show: Callable[[Row], None],
    ) -> None:
        self._panels = {panel.name: panel for panel in panels}
        self._study, self._worker, self._view, self._show = study, worker, view, show
        self._lock = Lock()
        self._messages = 0  # what a tick found before the last message is out of date
        buttons = [
            {
                "name": panel.name,
                "label": panel.label,
                "unavailable": panel.unavailable(study),
                "filters": panel.takes_filters,
            }
            for panel in panels
        ]
        self.state: Row = {"list": buttons, "open": None, "charts": {}, "ack": 0, **_EMPTY}

    @property
    def opened(self) -> Panel | None:
        """The open panel, or None."""
        return self._panels.get(self.state["open"] or "")

    def handle_message(self, content: Mapping[str, Any]) -> None:
        """Open or close a panel, or pass on what the user picked in the open one: see `MESSAGES`."""
        with self._lock:
            before = self.opened
            self._messages += 1
            if content["type"] == "panel":
                self._open(content.get("name"))
            elif content["type"] == "filter" and (before is None or not before.takes_filters):
                able = (b["name"] for b in self.state["list"] if b["filters"] and b["unavailable"] is None)
                if (name := next(able, None)) is not None:
                    self._open(name)
            if content["type"] != "panel" and self.opened is not None:
                self._select(self.opened, content)
        if before is not None and self.opened is not before:
            self._worker.drop(*JOBS)
            _end(before)
        self.refresh()

    def refresh(self) -> None:
        """Tick the open panel again, for instance because the view has changed."""
        self._worker.drop(*JOBS)
        panel = self.opened
        if panel is not None and panel.unavailable(self._study) is None:
            self._worker.put("panel", lambda: self._tick(panel), priority=PANEL)

    def forget_picked(self) -> None:
        """Clear the picked filters of every panel; menus, brush and page stay."""
        with self._lock:
            self._messages += 1
            for panel in self._panels.values():
                if panel.selected:
                    panel.selected = {name: value for name, value in panel.selected.items() if name not in _FILTERS}
            self._update(picked={})
        self.refresh()

    def close(self) -> None:
        """Stop the open panel's background work; the panel stays open, and the next tick starts the work again."""
        self._worker.drop(*JOBS)
        if self.opened is not None:
            _end(self.opened)

    def _update(self, **changes: Any) -> None:
        with self._lock:
            self.state = {**self.state, **changes}
            self._show(self.state)

    def _open(self, name: Any) -> None:
        panel = self._panels.get(name) if isinstance(name, str) else None
        self._update(open=panel and panel.name, charts=dict(panel.charts) if panel else {}, **_EMPTY)

    def _select(self, panel: Panel, content: Mapping[str, Any]) -> None:
        """Record what the user picked in the panel; acknowledge a numbered message at once."""
        selected, state = _selection(content, self.state)
        panel.selected = {**(panel.selected or {}), **selected}
        if "number" in content:
            self._update(**state, ack=content["number"])

    def _tick(self, panel: Panel) -> Job:
        messages, view = self._messages, self._view(panel.selected)
        if view is None:
            return

        def frames() -> Iterator[Frames]:
            ticked = panel.tick(view)
            yield from ([ticked] if isinstance(ticked, Mapping) else ticked)

        def further() -> Iterator[Frames]:
            now = self._view(panel.selected) or view
            yield from panel.background(replace(view, tried=now.tried, silent=now.silent))

        if (yield from self._show_frames(panel, frames(), messages)):
            later = lambda: self._show_frames(panel, further(), messages)  # noqa: E731
            self._worker.put("panel background", later, priority=BACKGROUND, for_page=True)

    def _show_frames(self, panel: Panel, frames: Iterator[Frames], messages: int) -> Any:
        """Show frames until a newer request; return whether all were shown. Errors are shown in the panel."""
        while True:
            frame, error = None, None
            try:
                frame = next(frames, None)
            except Exception as raised:
                error = f"{raised}" or type(raised).__name__
            with self._lock:
                if self.opened is not panel or messages != self._messages:
                    return False
                if error is not None:
                    self._update(error=error)
                if frame is None:
                    return error is None
                self._update(**_joined(self.state, frame), error=None)
            yield


def _joined(state: Row, frame: Frames) -> Row:
    """Return a panel's state (the charts' data, text and controls), updated by a frame."""
    data, beside = dict(state["data"]), {name: state[name] for name in _BESIDE}
    for name, rows in frame.items():
        if name == "charts":
            beside[name] = {**state["charts"], **dict(cast(Any, rows))}
        elif name in beside:
            beside[name] = rows
        elif isinstance(rows, Mapping):
            data[name] = {**data.get(name, {}), **rows}
    return {"data": data, **beside}


def _selection(content: Mapping[str, Any], state: Row) -> tuple[Row, Row]:
    """Return a message's selection and the change of the page's state; both empty if the panel does not offer it."""
    if content["type"] == "page":
        return {"page": content.get("page")}, {}
    if content["type"] == "brush":
        ends = {channel: _span(content.get(channel)) for channel in ("x", "y")}
        return {"brush": ends if any(ends.values()) else None}, {}
    if content["type"] == "filter":
        cell = {"group": content.get("group"), "filter": content.get("filter")}
        cells = _cells(content.get("cells"))
        return {**cell, "cells": cells}, {"picked": {} if cells else cell}
    name, value = content.get("name"), content.get("value")
    if content["type"] == "press":
        offered = any(action.get("message") == {"type": "press", "name": name} for action in state["actions"])
        return {"pressed": name} if offered else {}, {}
    if not any(control["name"] == name and _offers(control, value) for control in state["controls"]):
        return {}, {}
    changed = [{**control, "value": value} if control["name"] == name else control for control in state["controls"]]
    return {str(name): value}, {"controls": changed}


def _cells(cells: Any) -> list[tuple[str, int]] | None:
    """Return the set of filters that was picked; None for a single filter."""
    if not isinstance(cells, list):
        return None
    pairs = [(cell.get("group"), cell.get("filter")) for cell in cells if isinstance(cell, Mapping)]
    return [(group, number) for group, number in pairs if isinstance(group, str) and isinstance(number, int)] or None


def _offers(control: Row, value: Any) -> bool:
    """Return whether a control offers a value: one of a menu, or a number between two ends."""
    if control.get("kind") != "number":
        return value in [offered for offered, _ in control["choices"]]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and control["low"] <= value <= control["high"]


def _span(ends: Any) -> list[float] | None:
    """Return the two ends of a brush in ascending order; None without a brush."""
    if isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, int | float) for end in ends):
        return sorted(ends)
    return None


def _end(panel: Panel) -> None:
    """Drop the brush and stop the background work of a panel that no page shows."""
    if (panel.selected or {}).get("brush") is not None:
        panel.selected = {**panel.selected, "brush": None}
    with contextlib.suppress(Exception):
        panel.close()
