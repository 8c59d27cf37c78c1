"""Pictures of an explorer without its page: charts of a view and of the open panel, and the filter grid."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ...charts import drop, size_and_cost, sweep
from ...charts.renderer import vegalite_to_svg
from ...core import Mask
from ..page.static import picture
from ..panels.protocol import Row, Tried, View
from ..panels.trade_off import distinct
from .frames import is_labelled

_SHOWN = ("accuracy", "accuracy_change")
_PLOT = 400  # pixels of a chart
_MOVED = ("id", "by", "ratio", "moving")
# Of the filter grid, as the page's menu saves it:
_SIDE, _WIDTH, _GAP, _EDGE, _HEAD = 148, 660, 8, 12, 44
_SIZES = (15, 13, 11, 9, 8)  # of a cell
_TALL = 900  # pixels; larger cells are taken as long as all fit
_CELL, _RING, _MARK, _SOFT = "#46566a", "#b3bac3", "#22272e", "#5b6470"
_NAME = 21  # letters of a layer's name that have room beside its cells
_NOTES = {
    "filled": "disc: kept, ring: removed",
    "squares": "square: kept by hand",
    "crosses": "cross: removed by hand",
    "lines": "line through: silent",
}


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
    text = "".join(f"<p>{html.escape(text)}</p>" for text in (panels["text"], panels["error"]) if text)
    return picture(sentence, text + "".join(map(vegalite_to_svg, panel_charts(panels, view.choice))))


def panel_charts(panels: Row, choice: Mapping[str, Any]) -> list[Row]:
    """Return the specifications of the open panel's charts with the data and the choice that the page shows."""
    names = [
        name for name in panels["charts"] if name not in panels["hidden"] and any(panels["data"].get(name, {}).values())
    ]
    return [_filled(panels["charts"][name], panels["data"][name], choice, panels["picked"]) for name in names]


def _filled(spec: Row, data: Mapping[str, Any], choice: Mapping[str, Any], picked: Any) -> Row:
    """Return a chart specification with these data, and with parameters set as on the page."""
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


def view_charts(view: View) -> Iterator[tuple[str, Row]]:
    """Yield (name, specification) of each chart of the present view and its curve that has numbers."""
    present, labelled = view.present, is_labelled(view.study)
    if present is None:
        return
    curve = [tried for tried in distinct(view.tried) if _settings(tried) == _settings(present)]
    of_ratio = {tried.choice["ratio"]: tried.table for tried in curve}  # a step and its pin are one network
    if curve and labelled:
        yield "accuracy", sweep(pd.concat(of_ratio.values(), ignore_index=True)).to_dict(validate=False)
    if len(present.table):
        full = (view.full or view.study).graph.full._asdict()
        yield "size_and_cost", size_and_cost(present.table, full=full, width=_PLOT).to_dict(validate=False)
        if labelled:
            yield "accuracy_change", drop(present.table, width=_PLOT).to_dict(validate=False)


def _settings(tried: Tried) -> dict[str, Any]:
    """What one curve shares: all choices but the ratio."""
    return {name: value for name, value in tried.choice.items() if name not in _MOVED}


def filters_kept_svg(
    mask: Mask, *, forced: Mapping[str, Mapping[str, Sequence[int]]], silent: Mapping[str, Sequence[int]] | None = None
) -> str:
    """Return a picture of which filters of the full network stay: a row per layer, a cell per filter.

    Args:
        mask: of the full network.
        forced: {"remove": layer -> indices, "keep": layer -> indices} of the filters forced by hand.
        silent: layer -> indices of the filters whose output is 0 for every image; None if that is not known.
    """
    counts = {group.name: group.filters for group in mask.graph.groups}
    size = next((size for size in _SIZES if sum(_tall(n, size) for n in counts.values()) <= _TALL), _SIZES[-1])
    paths: dict[str, list[str]] = {name: [] for name in (*_NOTES, "rings", "slits")}
    texts, top = list[str](), _HEAD
    for name, count in counts.items():
        keep = mask.keep[name].tolist()
        by_hand = {way: set(forced.get(way, {}).get(name, ())) for way in ("keep", "remove")}
        quiet, short = set((silent or {}).get(name, ())), name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"
        texts += [_text(short, top + 12, 12, _MARK), _text(f"{sum(keep)} of {count}", top + 26, 11, _SOFT)]
        for k, kept in enumerate(keep):
            x, y = _SIDE + k % _per(size) * size, top + k // _per(size) * size
            way = next((way for way in by_hand if k in by_hand[way]), "")
            _add(paths, x, y, size, kept=kept, forced=way, silent=k in quiet)
        top += _tall(count, size)
    paths_by_name = {**paths, "lines": paths["lines"] + paths["slits"]}
    notes = " · ".join(text for name, text in _NOTES.items() if name == "filled" or paths_by_name[name])
    texts += [_text("Filters kept", 13, 13, _MARK), _text(notes, 31, 11, _SOFT)]
    wide, tall = _SIDE + _WIDTH + 2 * _EDGE, top + 2 * _EDGE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{tall}" viewBox="0 0 {wide} {tall}">'
        f'<rect width="{wide}" height="{tall}" fill="#ffffff"/><g transform="translate({_EDGE} {_EDGE})">'
        f'<path d="{"".join(paths["filled"] + paths["squares"])}" fill="{_CELL}"/>'
        f'<path d="{"".join(paths["rings"])}" fill="none" stroke="{_RING}"/>'
        f'<path d="{"".join(paths["crosses"] + paths["lines"])}" fill="none" stroke="{_SOFT}" stroke-width="1.3"/>'
        f'<path d="{"".join(paths["slits"])}" fill="none" stroke="#ffffff" stroke-width="1.3"/>'
        f"{''.join(texts)}</g></svg>"
    )


def _add(
    paths: Mapping[str, list[str]], x: float, y: float, size: int, *, kept: bool, forced: str, silent: bool
) -> None:
    """Add a cell: a disc if kept, a ring if removed; by hand, a square if kept, a ring with a cross if removed.

    A line through the cell marks a silent filter.
    """
    if silent and not (forced == "remove" and not kept):
        paths["slits" if kept else "lines"].append(f"M{x + 2} {y + size / 2}h{size - 4}")
    if kept and forced == "keep":
        paths["squares"].append(f"M{x + 1} {y + 1}h{size - 2}v{size - 2}h{2 - size}z")
        return
    reach, middle = size / 2 - (1.4 if kept else 1.8), y + size / 2
    arc = f"a{reach} {reach} 0 1 1"
    left = x + size / 2 - reach
    paths["filled" if kept else "rings"].append(f"M{left} {middle}{arc} {2 * reach} 0{arc} {-2 * reach} 0")
    if not kept and forced == "remove":
        low, high, arm = x + size / 2 - 0.6 * reach, middle - 0.6 * reach, 1.2 * reach
        paths["crosses"].append(f"M{low} {high}l{arm} {arm}m{-arm} 0l{arm} {-arm}")


def _per(size: int) -> int:
    return _WIDTH // size


def _tall(count: int, size: int) -> int:
    return max(-(-count // _per(size)) * size, 30) + _GAP


def _text(text: str, y: float, size: int, ink: str) -> str:
    font = f'font-family="system-ui, sans-serif" font-size="{size}"'
    return f'<text x="0" y="{y}" {font} fill="{ink}">{html.escape(text)}</text>'
