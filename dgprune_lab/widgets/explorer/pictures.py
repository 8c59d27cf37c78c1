"""The picture of an explorer for a notebook that is read without a kernel: what is measured, and the open panel."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from ...charts.renderer import vegalite_to_svg
from ..page.static import picture
from ..panels.protocol import Row, View
from .session_content import view_charts

_SHOWN = ("accuracy", "accuracy_change")


def explorer_picture(view: View, panels: Row, *, sentence: str) -> str:
    """Return the sentence with the charts of accuracy, or with those of the open panel instead (HTML).

    Args:
        view: the present view, which is measured.
        panels: the state of the panels, for the page.
        sentence: what removal does, as plain text.
    """
    if panels["open"] is None:
        charts = dict(view_charts(view))
        return picture(sentence, "".join(vegalite_to_svg(charts[name]) for name in _SHOWN if name in charts))
    said = "".join(f"<p>{html.escape(text)}</p>" for text in (panels["text"], panels["error"]) if text)
    return picture(sentence, said + "".join(map(vegalite_to_svg, panel_charts(panels, view.choice))))


def panel_charts(panels: Row, choice: Mapping[str, Any]) -> list[Row]:
    """Return the specifications of the open panel's charts with the data and the choice that the page shows."""
    shown = [
        name for name in panels["charts"] if name not in panels["hidden"] and any(panels["data"].get(name, {}).values())
    ]
    return [_filled(panels["charts"][name], panels["data"][name], choice, panels["picked"]) for name in shown]


def _filled(spec: Row, data: Mapping[str, Any], choice: Mapping[str, Any], picked: Any) -> Row:
    """Return a specification over these data, its parameters set as the page sets them."""
    wishes = spec.get("usermeta", {})
    values = {name: choice[followed] for followed, name in wishes.get("follows", {}).items() if followed in choice}
    values |= {"picked": picked or {}} if "picks" in wishes else {}
    named = [{**each, "value": values.get(each["name"], each.get("value"))} for each in spec.get("params", ())]
    params = [new if new["name"] in values else old for new, old in zip(named, spec.get("params", ()), strict=True)]
    filled = _with_rows(spec, data)
    return {**filled, "params": params} if params else filled


def _with_rows(part: Any, data: Mapping[str, Any]) -> Any:
    """Return a part of a specification in which data of these names hold these rows."""
    if isinstance(part, list):
        return [_with_rows(each, data) for each in part]
    if not isinstance(part, dict):
        return part
    name = part["data"].get("name") if isinstance(part.get("data"), dict) else None
    own = {} if name is None or name not in data else {"data": {"name": name, "values": data[name]}}
    return {**{key: _with_rows(each, data) for key, each in part.items() if key not in own}, **own}
