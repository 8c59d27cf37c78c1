"""Rows of the chart of sizes and accuracies, see `trade_off`; how networks are identified, named and numbered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..core import DgpruneError, Exposure, exposure_label, exposure_of, is_missing, rounded, scorer_exposure
from ..stats import pareto_front
from .marks import check_alike
from .size_and_cost import QUANTITIES, amount
from .theme import INK, Data, DomainStyle, Rows, domain_styles_of, grouped, interval_of, mark_of, records, shortened

Cost = Literal["filters", "parameters", "macs", "bytes", "latency"]
ROLES = ("source", "target")
RATIO = "measured ratio"
LINE = 16
"""Pixels between two lines of text."""
NAMES = {**QUANTITIES, "macs": "MACs per image", "latency": "Latency (ms per batch)"}
_SIZES = {"step": 90, "pin": 90, RATIO: 26}
_HEADINGS = {"source": "Source domains", "target": "Target domains", "": "Domains"}
_LETTER, _AXIS, SPACING = 6.2, 44, 34
_MOST = 24


def trade_off_data(
    frame: pd.DataFrame, *, cost: Cost, roles: Sequence[str] = ROLES, width: int = 560, height: int = 230
) -> Data:
    """Return the named data of the chart from a table of networks."""
    styles = domain_styles_of(frame)
    points = _point_rows(records(frame), cost=cost, styles=styles)
    end = 1.05 * max([row["cost_high"] for row in points] or [1.0])
    low, high = axis_ends(points)
    data: Data = {"key": _key_rows(points, width=width)}
    most = max((sum(style.role == role for style in styles.values()) for role in roles), default=0)
    for k, role in enumerate(roles):
        rows = [{**row, "line": k} for row in points if row["role"] == role]
        shared = {name: style for name, style in styles.items() if style.role == role}
        scale = (end / plot_width(width, roles=roles), (high - low) / height)
        data |= {
            f"points_{k}": rows,
            f"front_{k}": [corner for name, style in shared.items() for corner in _corners(rows, name, style, end=end)],
            f"numbers_{k}": _number_rows(rows, scale=scale, ends=(end, low, high)),
            f"names_{k}": name_rows(_HEADINGS[role], shared, lines=most),
            f"span_{k}": [{"cost": 0.0, "value": low}, {"cost": end, "value": high}],
            f"axis_{k}": [{"text": NAMES[cost]}],
        }
    return data


def plot_width(width: int, *, roles: Sequence[str]) -> int:
    """Return the width of one plot in a chart of this width, in pixels."""
    return (width - 16 - len(roles) * (_AXIS + SPACING) + SPACING) // len(roles)


def _point_rows(table: Rows, *, cost: Cost, styles: Mapping[str, DomainStyle]) -> Rows:
    """Return the points of all domains, the cheapest network first; networks without this cost have none."""
    costs = {_identity(row): row for row in table if row["metric"] == cost}
    exposures: dict[Any, Exposure] = {key: scorer_exposure(rows) for key, rows in grouped(table, _identity).items()}
    if not costs and table:
        present = [name for name in NAMES if any(row["metric"] == name for row in table)]
        raise DgpruneError(f"frame has no rows of {cost!r}; cost can be {', '.join(map(repr, present)) or 'nothing'}.")
    measured = (row for row in table if row["metric"] == "accuracy" and not is_missing(row["domain"]))
    groups = grouped((row for row in measured if _identity(row) in costs), lambda row: (_identity(row), row["domain"]))
    places = {key: k for k, key in enumerate(sorted(costs, key=lambda key: costs[key]["value"]))}
    numbers = _number_networks(table, [key for key in places if any(key == at for at, _ in groups)])
    points: Rows = []
    for (key, domain), alike in groups.items():
        check_alike(alike)
        row, cost_row, exposure = alike[0], costs[key], exposure_of(alike[0])
        kind, name = _network_kind(row), _network_name(row)
        about = {"network": name, "called": f"{name}{exposure_label(exposures[key])}", "kind": kind}
        about |= {"number": numbers.get(key, ""), "domain": str(domain)}
        about |= {"label": f"{domain}{exposure_label(exposure)}", "role": styles[str(domain)].role}
        ends = {f"cost_{end}": cost_row["value" if is_missing(cost_row[end]) else end] for end in ("low", "high")}
        about |= {"cost": cost_row["value"], **ends}
        ratio = row["ratio_achieved"]
        removed = "" if is_missing(ratio) else f"{rounded(100 * ratio, 1):.1f} %"
        about |= {"amount": _format_amount(cost_row, cost=cost), "removed": removed, "place": places[key]}
        style = {"size": _SIZES.get(kind, 70), "opacity": 0.6 if kind == RATIO else 1.0}
        points.append({**about, **style, **interval_of(row), **mark_of(styles[str(domain)], exposure=exposure)})
    return sorted(points, key=lambda row: row["place"])


def _identity(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the identity of a network: its name, or the settings of its pruning."""
    if not is_missing(row.get("network")):
        return (str(row["network"]),)
    names = ("scorer", "ratio_requested", "scope", "budget", "seed", "training_seed")
    return tuple("" if is_missing(row.get(name)) else str(row.get(name)) for name in names)


def _network_name(row: Mapping[str, Any]) -> str:
    if not is_missing(row.get("network")):
        return str(row["network"])
    seed = "" if is_missing(row.get("seed")) else f", seed {row['seed']}"
    return f"{row['scorer']}, {100 * row['ratio_requested']:.4g} %{seed}"


def _network_kind(row: Mapping[str, Any]) -> str:
    named = "network" if not is_missing(row.get("network")) else RATIO
    return named if is_missing(row.get("kind")) else str(row["kind"])


def _number_networks(table: Rows, present: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Return network -> its number, in the order of the table; the measured ratios of a sweep have none."""
    named = dict.fromkeys(_identity(row) for row in table if _network_kind(row) != RATIO)
    return {key: str(k) for k, key in enumerate((key for key in named if key in present), start=1)}


def _format_amount(row: Mapping[str, Any], *, cost: Cost) -> str:
    if cost == "latency":
        return f"{row['value']:.3g} {row['unit']}"
    return amount(row["value"], metric=cost)


def _corners(points: Rows, domain: str, style: DomainStyle, *, end: float) -> Rows:
    """Return the corners of a domain's Pareto front, which is continued to the right end of the axis."""
    rows = [row for row in points if row["domain"] == domain and "target-aware" not in row["label"]]
    flags = pareto_front(*(np.array([row[name] for row in rows], dtype=np.float64) for name in ("cost", "value")))
    corners = sorted({(row["cost"], row["value"]) for row, flag in zip(rows, flags, strict=True) if flag})
    shared = {"domain": domain, "colour": style.colour, "dash": list(style.dash)}
    last = [(end, corners[-1][1])] if corners else []
    return [{**shared, "cost": cost, "value": value} for cost, value in [*corners, *last]]


def _number_rows(points: Rows, *, scale: tuple[float, float], ends: tuple[float, float, float]) -> Rows:
    """Return each network's number beside its most accurate point, if there is room; `scale`: units per pixel."""
    best: dict[str, dict[str, Any]] = {}
    for row in points:
        if row["number"] and (row["number"] not in best or row["value"] > best[row["number"]]["value"]):
            best[row["number"]] = row
    (end, low, high), taken, placed = ends, [(row["cost"], row["value"]) for row in points], Rows()
    for text, row in best.items():
        for right, up in ((10, 9), (-10, 9), (10, -9), (-10, -9), (0, 15), (0, -15), (15, 0), (-15, 0)):
            x, y = row["cost"] + right * scale[0], row["value"] + up * scale[1]
            free = all(
                abs(x - at) > (5 + 3 * len(text)) * scale[0] or abs(y - value) > 9 * scale[1] for at, value in taken
            )
            if free and 0 < x < end and low < y < high:
                taken.append((x, y))
                placed.append({"text": text, "cost": x, "value": y})
                break
    return placed


def name_rows(heading: str, styles: Mapping[str, DomainStyle], *, lines: int) -> Rows:
    """Return the lines above a plot: a heading in the first of `lines` + 1 lines, then the names of the domains."""
    rows = [{"text": heading, "kind": "role", "colour": INK, "shape": "circle", "fill": "transparent"}]
    for name, style in styles.items():
        mark = {"colour": style.colour, "shape": style.shape, "fill": style.colour}
        rows.append({"text": shortened(name, most=26), "kind": "domain", **mark})
    return [{**row, "y": -LINE * (lines + 1 - k)} for k, row in enumerate(rows)]


def axis_ends(points: Rows) -> tuple[float, float]:
    """Return the ends of an axis in percent: the multiples of ten that enclose all intervals of these points."""
    low, high = min([row["low"] for row in points] or [0.0]), max([row["high"] for row in points] or [100.0])
    return 10.0 * math.floor(low / 10), 10.0 * math.ceil(high / 10)


def _key_rows(points: Rows, *, width: int) -> Rows:
    """Return the numbered networks by name, in two columns if there are more than three."""
    named = {row["number"]: row for row in points if row["number"]}
    ordered = sorted(named.values(), key=lambda row: int(row["number"]))
    columns = 2 if len(ordered) > 3 else 1
    lines = math.ceil(min(len(ordered), _MOST) / columns)
    column = (width - _AXIS - 20) // columns
    letters = int((column - 34) / _LETTER)
    rows: Rows = []
    for k, row in enumerate(ordered[:_MOST]):
        removed = "" if row["removed"] in ("", "0.0 %") else f" (−{row['removed']})"
        after = row["called"].removeprefix(row["network"]) + removed  # the mark is never cut off
        text = shortened(row["network"], most=max(letters - len(after), 8)) + after
        x, y = 22 + (k // lines) * column, LINE * (k % lines)
        rows.append({"number": row["number"], "text": text, "x": x, "y": y})
    if (further := len(ordered) - _MOST) > 0:
        rows.append({"number": "", "text": f"and {further} more", "x": 22, "y": LINE * lines})
    return rows
