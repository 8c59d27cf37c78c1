"""The cells of the sensitivity map: the position, colour and text of each filter.

Named data, x in pixels, `line` counted from the top; a page may swap all of them:

| name | one row is | fields |
|---|---|---|
| cells | a filter, the largest difference of its layer first | group, filter, line, place, x, x2, fill, sign, ink, |
| | | size, area, q, says: text |
| removed | a filter that the mask removes, or several side by side | line, x, x2, mark |
| lines | a layer | line, name, count, wait |
| legend | a kind of cell, as text | line, x, x2, fill, sign, ink, text, at |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ...core import DgpruneError, Mask, exposure_label, exposure_of, is_missing
from ..pixels.heat import ink_on, mixed
from ..theme import FIRST_SOURCE, FIRST_TARGET, INK, MINUS, Data, Rows, grouped, records, shortened, with_minus

METHODS = {
    "gradient_x_activation": "gradient × activation",
    "activation": "activation alone",
    "integrated_gradients": "integrated gradients from an empty layer",
    "conductance": "conductance, integrated gradients from a black image",
    "ablation": "ablation, each filter closed in turn",
}
MEANING = {
    "gradient_x_activation": "activation times the gradient of the true class's logit (Shrikumar et al. 2016)",
    "activation": "mean activation, whatever its effect on the prediction",
    "integrated_gradients": "the logit's gradients integrated from the layer's output for a black image to its own "
    "(integrated gradients, Sundararajan et al. 2017)",
    "conductance": "the share of the image's integrated gradients that flows through the filter (conductance, "
    "Dhamdhere et al. 2018)",
    "ablation": "the fall of the true class's logit when the filter is closed (ablation)",
}
NAME, PLOT, COUNT = 106, 600, 80
BAND = 18
SAME = "#D3D7DD"
WAITING = "#F1F3F5"
GAP, LEGIBLE = 1.0, 8.0
NOT_SIGNIFICANT = "not significant"
_LARGEST, _LETTERS = 16.0, 18
_APART = ("#7A5195", "#B35806")  # two domains of one role


def map_data(frame: pd.DataFrame, *, mask: Mask | None = None, layers: Mapping[str, int] | None = None) -> Data:
    """Return the named data of `map_chart`; frame and mask: see `sensitivity`.

    `layers` maps every layer to its number of filters; layers that the frame lacks stay pale.
    """
    effects = _layer_effects(frame)
    sizes = {name: len(rows) for name, rows in effects.items()} if layers is None else layers
    widths = _cell_widths(sizes)
    first = _first_effect(frame)
    colours = _domain_colours(frame, first)
    full = _full_colour_size(_effect_rows(frame))
    cells: Rows = []
    lines: Rows = []
    for line, (name, count) in enumerate(sizes.items()):
        rows = effects.get(name, [])
        # The largest |d| first; a filter that differs without any spread counts as the largest.
        ranked = sorted(rows, key=lambda row: (-_abs_d(row), row["filter"])) or [{"filter": k} for k in range(count)]
        width = widths[name]
        for place, row in enumerate(ranked):
            x, signs = NAME + place * width, width >= LEGIBLE
            about = {"group": name, "filter": int(row["filter"]), "line": line, "place": place}
            box = {"x": round(x, 2), "x2": round(x + width - (GAP if signs else 0), 2)}
            cells.append({**about, **box, **_cell_fields(row, full=full, colours=colours, signs=signs)})
        significant = f"{sum(map(is_significant, rows))} of {count}" if rows else ""
        texts = {"count": significant, "wait": "" if rows else "not computed"}
        lines.append({"line": line, "name": shortened(name, most=_LETTERS), **texts})
    removed = "" if mask is None and layers is None else "removed at present"
    if removed and min(widths.values()) < LEGIBLE:
        removed += " (a bar where cells are narrow)"
    pale = any(row["wait"] for row in lines)
    legend = _legend_rows(str(first["other"]), str(first["domain"]), colours=colours, pale=pale, removed=removed)
    crosses = [] if mask is None else removed_rows(cells, mask)
    return {"cells": cells, "lines": lines, "legend": legend, "removed": crosses}


def removed_rows(cells: Rows, mask: Mask) -> Rows:
    """Return the marks below the filters that a mask removes; adjacent narrow filters share a bar.

    Raises:
        DgpruneError: the mask lacks a layer or filter of the cells.
    """
    rows: Rows = []
    keep = {name: flags.tolist() for name, flags in mask.keep.items()}
    for cell in cells:
        flags = keep.get(cell["group"])
        if flags is None or cell["filter"] >= len(flags):
            raise DgpruneError(
                f"the mask has no filter {cell['filter']} of layer {cell['group']!r}; draw the table with a mask for "
                "the same network."
            )
        if flags[cell["filter"]]:
            continue
        wide = cell["x2"] - cell["x"] >= LEGIBLE - GAP
        last = rows[-1] if rows else None
        if not wide and last and last["line"] == cell["line"] and abs(last["x2"] - cell["x"]) < 0.05:
            last["x2"] = cell["x2"]
        else:
            rows.append({"line": cell["line"], "x": cell["x"], "x2": cell["x2"], "mark": "×" if wide else ""})
    return rows


def compared(frame: pd.DataFrame) -> str:
    """Return the two domains with their exposure mark, as in "mnist against mnist_m ◇ target-aware, seen"."""
    first = _first_effect(frame)
    return f"{first['other']} against {first['domain']}{exposure_label(exposure_of(first))}"


def about(frame: pd.DataFrame) -> str:
    """Return the method and the meaning of full colour, as text."""
    method = _first_effect(frame)["method"]
    return f"By {METHODS.get(method, method)}, within classes; {counted(frame)}. {full_colour(frame)}"


def counted(frame: pd.DataFrame) -> str:
    """Return the numbers of images of the two domains as text, such as "500 images of each"."""
    counts = {str(row["domain"]): int(row["images"]) for row in records(frame, metric="attribution")}
    if len(set(counts.values())) == 1:
        return f"{min(counts.values())} images of each"
    return "images: " + ", ".join(f"{count} of {name}" for name, count in counts.items())


def full_colour(frame: pd.DataFrame) -> str:
    """Return a sentence on the |d| that full colour stands for."""
    return f"Full colour is an effect size of {_full_colour_size(_effect_rows(frame)):.2g} or more."


def is_significant(row: Mapping[str, Any]) -> bool:
    """Return whether the interval of a row exists and does not cover 0."""
    low, high = row["low"], row["high"]
    return not is_missing(low) and not is_missing(high) and bool(low > 0 or high < 0)


def _first_effect(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the first row with an effect size; refuse rows of several methods or pairs of domains."""
    rows = _effect_rows(frame)
    if not rows:
        raise DgpruneError("the table has no row of metric 'cohens_d'; pass a table of diagnostics.sensitivity.")
    for column in ("method", "domain", "other"):
        if len(names := sorted({str(row[column]) for row in rows})) > 1:
            raise DgpruneError(
                f"one {column} is drawn at a time; the table holds {', '.join(names)}. Choose one: "
                f"frame[frame.{column} == {names[0]!r}]."
            )
    return rows[0]


def _effect_rows(frame: pd.DataFrame) -> Rows:
    return records(frame, metric="cohens_d")


def _domain_colours(frame: pd.DataFrame, first: Mapping[str, Any]) -> tuple[str, str]:
    """Return the colours of the two domains, `other` (the reference) first."""
    roles = {str(row["domain"]): row["role"] for row in records(frame, metric="attribution")}
    pair = (roles.get(str(first["other"])), roles.get(str(first["domain"])))
    return (FIRST_SOURCE, FIRST_TARGET) if pair == ("source", "target") else _APART


def _layer_effects(frame: pd.DataFrame) -> dict[str, Rows]:
    """Return layer -> the rows of its filters, each with effect size and AUROC."""
    areas = {(row["group"], row["filter"]): row["value"] for row in records(frame, metric="auroc")}
    rows = [{**row, "auroc": areas.get((row["group"], row["filter"]))} for row in _effect_rows(frame)]
    return grouped(rows, lambda row: str(row["group"]))


def _abs_d(row: Mapping[str, Any]) -> float:
    return math.inf if is_missing(row["value"]) else abs(float(row["value"]))


def _full_colour_size(rows: Rows) -> float:
    """Return the |d| of full colour: the largest significant |d|, at most 2; .5 if none is significant."""
    return min(max([_abs_d(row) for row in rows if is_significant(row)], default=0.5), 2.0)


def _cell_widths(sizes: Mapping[str, int]) -> dict[str, float]:
    """Return layer -> width of a cell in pixels: one width for all layers, unless too narrow for a sign."""

    def round_width(width: float) -> float:  # wide cells have whole pixels, for sharp edges
        return width if width < LEGIBLE else min(_LARGEST, float(int(width)))

    shared = PLOT / max(sizes.values(), default=1)
    return {name: round_width(shared if shared >= LEGIBLE else PLOT / count) for name, count in sizes.items()}


def _cell_fields(row: Mapping[str, Any], *, full: float, colours: tuple[str, str], signs: bool) -> dict[str, Any]:
    """Return the colour, sign and text of one cell."""
    blank = {"fill": WAITING, "sign": "", "ink": ""}
    if "value" not in row:
        return {**blank, "size": "not computed", "area": "", "q": "", "says": ""}
    numbers = {"size": _format_effect(row), "area": _format(row["auroc"], ".2f"), "q": _format(row["q_value"], ".2g")}
    if not is_significant(row):
        return {**blank, "fill": SAME, **numbers, "says": NOT_SIGNIFICANT}
    more = row["low"] > 0
    fill = mixed(colours[more], 0.25 + 0.75 * min(_abs_d(row) / full, 1.0))
    sign = ("+" if more else MINUS) if signs else ""
    says = f"contributes more on {row['domain'] if more else row['other']}"
    return {"fill": fill, "sign": sign, "ink": ink_on(fill), **numbers, "says": says}


def _format_effect(row: Mapping[str, Any]) -> str:
    """Return the effect size with its interval as text, such as "0.83 (0.61 to 1.05)"."""
    if is_missing(row["value"]):
        return "differs without any spread"
    ends = "" if is_missing(row["low"]) else f" ({row['low']:.2f} to {row['high']:.2f})"
    return with_minus(f"{row['value']:.2f}{ends}")


def _format(value: Any, form: str) -> str:
    return "" if is_missing(value) else format(value, form)


def _legend_rows(other: str, domain: str, *, colours: Sequence[str], pale: bool, removed: str) -> Rows:
    """Return the rows of the legend, a line above the layers: the kinds of cells, and the heading of the counts."""
    kinds: list[tuple[str | None, str, str]] = [
        (colours[1], "+", f"contributes more on {shortened(domain, most=16)}"),
        (colours[0], MINUS, f"more on {shortened(other, most=16)}"),
        (SAME, "", NOT_SIGNIFICANT),
        *([(WAITING, "", "not computed")] if pale else []),
        *([(None, "×", removed)] if removed else []),
    ]
    rows: Rows = []
    x = float(NAME)
    for fill, sign, text in kinds:
        ink = ink_on(fill) if fill else INK
        cell = {"line": -1, "x": x, "x2": x + 15, "fill": fill or "transparent", "sign": sign, "ink": ink}
        rows.append({**cell, "text": text, "at": x + 21})
        x += 40 + 6.0 * len(text)
    right = NAME + PLOT + 10
    heading = {"line": -1, "x": right, "x2": right, "fill": "transparent", "sign": "", "ink": ""}
    return [*rows, {**heading, "text": "significant", "at": right}]
