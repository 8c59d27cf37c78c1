"""The filter grid as an SVG, for a saved session: as the page's menu saves it, without a page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from ...core import Mask

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
    words, top = list[str](), _HEAD
    for name, count in counts.items():
        keep = mask.keep[name].tolist()
        by_hand = {way: set(forced.get(way, {}).get(name, ())) for way in ("keep", "remove")}
        quiet, short = set((silent or {}).get(name, ())), name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"
        words += [_text(short, top + 12, 12, _MARK), _text(f"{sum(keep)} of {count}", top + 26, 11, _SOFT)]
        for k, kept in enumerate(keep):
            x, y = _SIDE + k % _per(size) * size, top + k // _per(size) * size
            way = next((way for way in by_hand if k in by_hand[way]), "")
            _add(paths, x, y, size, kept=kept, forced=way, silent=k in quiet)
        top += _tall(count, size)
    drawn = {**paths, "lines": paths["lines"] + paths["slits"]}
    notes = " · ".join(text for name, text in _NOTES.items() if name == "filled" or drawn[name])
    words += [_text("Filters kept", 13, 13, _MARK), _text(notes, 31, 11, _SOFT)]
    wide, tall = _SIDE + _WIDTH + 2 * _EDGE, top + 2 * _EDGE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{tall}" viewBox="0 0 {wide} {tall}">'
        f'<rect width="{wide}" height="{tall}" fill="#ffffff"/><g transform="translate({_EDGE} {_EDGE})">'
        f'<path d="{"".join(paths["filled"] + paths["squares"])}" fill="{_CELL}"/>'
        f'<path d="{"".join(paths["rings"])}" fill="none" stroke="{_RING}"/>'
        f'<path d="{"".join(paths["crosses"] + paths["lines"])}" fill="none" stroke="{_SOFT}" stroke-width="1.3"/>'
        f'<path d="{"".join(paths["slits"])}" fill="none" stroke="#ffffff" stroke-width="1.3"/>'
        f"{''.join(words)}</g></svg>"
    )


def _add(
    paths: Mapping[str, list[str]], x: float, y: float, size: int, *, kept: bool, forced: str, silent: bool
) -> None:
    """Add a cell, by shape: a disc stays, a ring is removed; by hand a square stays, a cross is in the ring.

    A line through it: silent.
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


def _text(words: str, y: float, size: int, ink: str) -> str:
    font = f'font-family="system-ui, sans-serif" font-size="{size}"'
    return f'<text x="0" y="{y}" {font} fill="{ink}">{html.escape(words)}</text>'
