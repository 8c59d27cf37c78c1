"""The cells of the sensitivity map: where each filter stands, its colour, its words.

Named data, x in pixels, `line` counted from the top; a page may swap all of them:

| name | one row is | fields |
|---|---|---|
| cells | a filter, the largest difference of its layer first | group, filter, line, place, x, x2, fill, sign, ink, |
| | | size, area, q, says: words |
| removed | a filter that the mask removes, or several side by side | line, x, x2, mark |
| lines | a layer | line, name, count, wait |
| legend | a kind of cell, in words | line, x, x2, fill, sign, ink, text, at |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from ...core import DgpruneError, Mask, exposure_label, exposure_of, is_missing
from ..theme import FIRST_SOURCE, FIRST_TARGET, ink_on, records, shortened

METHODS = {
    "gradient_x_activation": "gradient × activation",
    "activation": "activation alone",
    "integrated_gradients": "gradients summed up from an empty layer (integrated gradients)",
    "conductance": "gradients summed up from a black image (conductance)",
    "ablation": "each filter closed in turn (ablation)",
}
MEANING = {
    "gradient_x_activation": "how strongly the filter answers, times how much the true answer's logit hangs on that "
    "(gradient × activation, Shrikumar et al. 2016)",
    "activation": "how strongly the filter answers, whatever comes of it",
    "integrated_gradients": "the logit's gradients summed up while the layer's output grows from that of a black image "
    "to its own (integrated gradients, Sundararajan et al. 2017)",
    "conductance": "the part of the image's integrated gradients that flows through the filter (conductance, Dhamdhere "
    "et al. 2018)",
    "ablation": "by how much the true answer's logit falls when the filter is closed (ablation)",
}
NAME, PLOT, COUNT = 112, 704, 84
BAND = 18
SAME = "#D3D7DD"
WAITING = "#F1F3F5"
GAP, LEGIBLE = 1.0, 8.0
_LARGEST, _LETTERS = 16.0, 18
_APART = ("#7A5195", "#B35806")  # two domains of one role
_NEUTRAL, _MINUS = "#F6F6F4", "\N{MINUS SIGN}"

Rows = list[dict[str, Any]]


def map_data(
    frame: pd.DataFrame, *, mask: Mask | None = None, layers: Mapping[str, int] | None = None
) -> dict[str, Rows]:
    """The named data of `map_chart`.

    Args:
        frame: as of `sensitivity`.
        mask: as of `sensitivity`.
        layers: all layers with their numbers of filters; those of which the frame says nothing stay pale.
    """
    held = _by_layer(frame)
    sizes = {name: len(rows) for name, rows in held.items()} if layers is None else layers
    widths = _widths(sizes)
    other, domain, ends = _sides(frame)
    most = _most(_effects(frame))
    cells: Rows = []
    lines: Rows = []
    for line, (name, count) in enumerate(sizes.items()):
        rows = _ranked(held[name]) if name in held else [{"filter": k} for k in range(count)]
        told = [row for row in rows if name in held and _is_told(row)]
        for place, row in enumerate(rows):
            x = NAME + place * widths[name]
            wide = widths[name] >= LEGIBLE
            cells.append(
                {
                    "group": name,
                    "filter": int(row["filter"]),
                    "line": line,
                    "place": place,
                    "x": round(x, 2),
                    "x2": round(x + widths[name] - (GAP if wide else 0), 2),
                    **_look(row, most, ends, signs=wide),
                }
            )
        lines.append(
            {
                "line": line,
                "name": shortened(name, most=_LETTERS),
                "count": f"{len(told)} of {count}" if name in held else "",
                "wait": "" if name in held else "not computed",
            }
        )
    gone = "" if mask is None and layers is None else "removed at present"
    if gone and min(widths.values()) < LEGIBLE:
        gone += " (a bar where cells are narrow)"
    kinds = _legend(other, domain, ends, pale=any(row["wait"] for row in lines), gone=gone)
    return {
        "cells": cells,
        "lines": lines,
        "legend": kinds,
        "removed": [] if mask is None else removed_rows(cells, mask),
    }


def removed_rows(cells: Rows, mask: Mask) -> Rows:
    """The marks below the filters that a mask removes; where cells are narrow, one bar for all that stand together.

    Raises:
        DgpruneError: the mask has no such layer or filter.
    """
    found: Rows = []
    keep = {name: part.tolist() for name, part in mask.keep.items()}
    for cell in cells:
        stays = keep.get(cell["group"])
        if stays is None or cell["filter"] >= len(stays):
            raise DgpruneError(
                f"the mask has no filter {cell['filter']} of layer {cell['group']!r}; draw the table with a mask for "
                "the same network."
            )
        if stays[cell["filter"]]:
            continue
        wide = cell["x2"] - cell["x"] >= LEGIBLE - GAP
        last = found[-1] if found else None
        if not wide and last and last["line"] == cell["line"] and abs(last["x2"] - cell["x"]) < 0.05:
            last["x2"] = cell["x2"]
        else:
            found.append({"line": cell["line"], "x": cell["x"], "x2": cell["x2"], "mark": "×" if wide else ""})
    return found


def compared(frame: pd.DataFrame) -> str:
    """The two domains, with the mark of what was looked at: "mnist against mnist_m ◇ target-aware, seen"."""
    first = _only(frame)
    return f"{first['other']} against {first['domain']}{exposure_label(exposure_of(first))}"


def about(frame: pd.DataFrame) -> str:
    """How it is measured and what full colour is, in words."""
    method = _only(frame)["method"]
    return f"By {METHODS.get(method, method)}, within classes; {counted(frame)}. {full_colour(frame)}"


def counted(frame: pd.DataFrame) -> str:
    """How many images it is made of: "500 images of each"."""
    counts = {str(row["domain"]): int(row["images"]) for row in records(frame, metric="attribution")}
    if len(set(counts.values())) == 1:
        return f"{min(counts.values())} images of each"
    return "images: " + ", ".join(f"{count} of {name}" for name, count in counts.items())


def full_colour(frame: pd.DataFrame) -> str:
    """What the strongest colour stands for, in a sentence."""
    return f"Full colour is an effect size of {_most(_effects(frame)):.2g} or more."


def _only(frame: pd.DataFrame) -> dict[str, Any]:
    """The first row with an effect size, once it is certain that all are of one kind."""
    rows = _effects(frame)
    if not rows:
        raise DgpruneError("the table has no row of metric 'cohens_d'; pass a table of diagnostics.sensitivity.")
    for column in ("method", "domain", "other"):
        if len(found := sorted({str(row[column]) for row in rows})) > 1:
            raise DgpruneError(
                f"one {column} is drawn at a time; the table holds {', '.join(found)}. Choose one: "
                f"frame[frame.{column} == {found[0]!r}]."
            )
    return rows[0]


def _effects(frame: pd.DataFrame) -> Rows:
    return records(frame, metric="cohens_d")


def _sides(frame: pd.DataFrame) -> tuple[str, str, tuple[str, str]]:
    """The domain that is compared with, the one that is compared, and a colour for each."""
    first = _only(frame)
    roles = {str(row["domain"]): row["role"] for row in records(frame, metric="attribution")}
    other, domain = str(first["other"]), str(first["domain"])
    known = (roles.get(other), roles.get(domain)) == ("source", "target")
    return other, domain, (FIRST_SOURCE, FIRST_TARGET) if known else _APART


def _by_layer(frame: pd.DataFrame) -> dict[str, Rows]:
    """Layer -> its filters, each with effect size, AUROC and words."""
    areas = {(row["group"], row["filter"]): row["value"] for row in records(frame, metric="auroc")}
    found: dict[str, Rows] = {}
    for row in _effects(frame):
        row["auroc"] = areas.get((row["group"], row["filter"]))
        found.setdefault(str(row["group"]), []).append(row)
    return found


def _ranked(rows: Rows) -> Rows:
    """The largest |d| first; one without any spread that yet differs counts as the largest."""
    return sorted(rows, key=lambda row: (-_size(row), row["filter"]))


def _size(row: Mapping[str, Any]) -> float:
    return math.inf if is_missing(row["value"]) else abs(float(row["value"]))


def _is_told(row: Mapping[str, Any]) -> bool:
    """Whether the interval is there and does not cover 0."""
    low, high = row["low"], row["high"]
    return not is_missing(low) and not is_missing(high) and bool(low > 0 or high < 0)


def _most(rows: Rows) -> float:
    """The |d| of full colour: the largest that can be told from 0, at least .5 and at most 2."""
    return min(max([_size(row) for row in rows if _is_told(row)] or [0.5], default=0.5), 2.0) if rows else 0.5


def _widths(sizes: Mapping[str, int]) -> dict[str, float]:
    """Pixels per cell: the same in all rows, unless the widest layer would make them too narrow for a sign."""
    shared = PLOT / max(sizes.values(), default=1)
    if shared >= LEGIBLE:
        return dict.fromkeys(sizes, _whole(shared))  # whole pixels: their edges are sharp
    return {name: _whole(PLOT / count) for name, count in sizes.items()}


def _whole(width: float) -> float:
    return width if width < LEGIBLE else min(_LARGEST, float(int(width)))


def _look(row: Mapping[str, Any], most: float, ends: tuple[str, str], *, signs: bool) -> dict[str, Any]:
    """Colour, sign and words of one cell."""
    if "value" not in row:
        return {"fill": WAITING, "sign": "", "ink": "", "size": "not computed", "area": "", "q": "", "says": ""}
    words = {"size": _estimate(row), "area": _number(row["auroc"], "{:.2f}"), "q": _number(row["q_value"], "{:.2g}")}
    if not _is_told(row):
        return {"fill": SAME, "sign": "", "ink": "", **words, "says": "cannot be told from 0"}
    more = row["low"] > 0
    fill = mixed(ends[more], 0.25 + 0.75 * min(_size(row) / most, 1.0))
    says = f"contributes more on {row['domain'] if more else row['other']}"
    return {
        "fill": fill,
        "sign": ("+" if more else _MINUS) if signs else "",
        "ink": ink_on(fill),
        **words,
        "says": says,
    }


def _estimate(row: Mapping[str, Any]) -> str:
    """The effect size with its interval: "0.83 (0.61 to 1.05)"."""
    if is_missing(row["value"]):
        return "differs without any spread"
    ends = "" if is_missing(row["low"]) else f" ({row['low']:.2f} to {row['high']:.2f})"
    return f"{row['value']:.2f}{ends}".replace("-", _MINUS)


def _number(value: Any, form: str) -> str:
    return "" if is_missing(value) else form.format(value)


def mixed(colour: str, share: float) -> str:
    """A colour that is paler the smaller its share.

    >>> mixed("#0072B2", 1.0), mixed("#0072B2", 0.0)
    ('#0072B2', '#F6F6F4')
    """
    pairs = ((int(held[k : k + 2], 16) for held in (_NEUTRAL, colour)) for k in (1, 3, 5))
    return "#" + "".join(f"{round((1 - share) * pale + share * full):02X}" for pale, full in pairs)


def _legend(other: str, domain: str, ends: Sequence[str], *, pale: bool, gone: str) -> Rows:
    """What the cells say, side by side above the layers."""
    kinds = [
        (ends[1], "+", f"contributes more on {shortened(domain, most=16)}"),
        (ends[0], _MINUS, f"more on {shortened(other, most=16)}"),
        (SAME, "", "cannot be told from 0"),
        *([(WAITING, "", "not computed")] if pale else []),
        *([(None, "×", gone)] if gone else []),
    ]
    starts = [float(NAME)]
    for _, _, text in kinds:
        starts.append(starts[-1] + 40 + 6.0 * len(text))
    rows: Rows = [
        {
            "line": -1,
            "x": x,
            "x2": x + 15,
            "fill": fill or "transparent",
            "sign": sign,
            "ink": ink_on(fill) if fill else "#22272E",
            "text": text,
            "at": x + 21,
        }
        for (x, _), (fill, sign, text) in zip(pairwise(starts), kinds, strict=True)
    ]
    right = NAME + PLOT + 10
    last = {"line": -1, "x": right, "x2": right, "fill": "transparent", "sign": "", "ink": "", "text": "told from 0"}
    return [*rows, {**last, "at": right}]
