"""How far apart the domains' features are: one map of all images, and beside it the numbers against the ratio.

The named data are those of `feature_map` and `feature_numbers`; of the k-th of several maps `points_k` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from ...core import DgpruneError
from .map import Dot, Rows, boxed, legend_rows, map_plot, map_words, parameters, point_rows
from .numbers import METRICS, number_chart, number_data, number_plots
from ..theme import DomainStyle, beside, domain_styles, records
from ...core import Exposure, is_missing, exposure_of, strongest_exposure

MAPS = ("map_1", "map_2")


def feature_shift(
    frame: pd.DataFrame | Mapping[str, pd.DataFrame],
    *,
    at: float | None = None,
    layer: str | None = None,
    slider: bool = False,
) -> alt.HConcatChart:
    """Draw where each image's features lie, full and pruned, and how far apart the domains are at each ratio.

    The map: domain by shape, class by colour, the full network pale, the pruned one filled, a thin line from one to the
    other. The numbers: a line per pair of domains, or per domain, with 95 % intervals over images; several layers stand
    side by side. What scorer, tuning or selection have looked at is a hollow diamond, and said behind the name.

    Args:
        frame: a table of `diagnostics.feature_shift`; or several by name: their maps alone, side by side.
        at: the share removed that the map shows (0 to 1); the middle one of the table if None.
        layer: the layer of the map; the last one of the table that has a map if None.
        slider: give the map a slider over the ratio, for `dg.widgets.Shown(chart)`.

    Raises:
        DgpruneError: a table without numbers and map; no map of that layer; tables of other ratios than the first; a
            ratio outside [0, 1].
    """
    if at is not None and not 0 <= at <= 1:
        raise DgpruneError(f"at is the share removed, from 0 to 1; got {at!r}.")
    tables = {"": frame} if isinstance(frame, pd.DataFrame) else frame
    mapped = [_mapped(records(table), layer) for table in tables.values()]
    numbers: list[Any] = []
    if isinstance(frame, pd.DataFrame):
        rows = records(frame)
        layers = list(dict.fromkeys(str(row["group"]) for row in rows if row["metric"] in METRICS))
        if not layers and not mapped[0]:
            raise DgpruneError("the table has no features to draw; make one with diagnostics.feature_shift(study).")
        data = number_data(rows, layers, style=_looks_of(rows))
        if not mapped[0]:
            return number_chart(data, layers=layers, at=at)
        tables = {f"Layer {mapped[0][0]['group']}" if len(layers) > 1 else "": frame}
        numbers = [number_plots(data, layers)] if layers else []
    knots = _knots(mapped)
    plots: list[Any] = []
    for (name, table), rows in zip(tables.items(), mapped, strict=True):
        data, suffix = _map_data(rows, knots, style=_looks_of(records(table))), f"_{len(plots)}" if plots else ""
        last = len(plots) + 1 == len(tables)  # one legend is enough
        plot = map_plot(data, knots=knots, suffix=suffix, legend=last)
        plots.append(plot.properties(title=alt.Title(text=name)) if name else plot)
    whole = beside(*plots, *numbers, spacing=12)
    whole.padding = {"left": 8, "right": 12, "top": 6, "bottom": 6}
    whole.params = parameters(knots, at=knots[len(knots) // 2] if at is None else at, slider=slider)
    whole.usermeta = {"embedOptions": {"actions": False, "renderer": "canvas"}}
    return whole


def _mapped(rows: Sequence[Mapping[str, Any]], layer: str | None) -> list[Mapping[str, Any]]:
    """The rows of the map that is drawn, and of how far it can be trusted."""
    mapped = list(dict.fromkeys(str(row["group"]) for row in rows if row["metric"] == MAPS[0]))
    if layer is not None and layer not in mapped:
        raise DgpruneError(f"the table has no map of layer {layer!r}; it has: {', '.join(mapped) or 'none'}.")
    chosen = layer or (mapped[-1] if mapped else None)
    return [row for row in rows if row["group"] == chosen and row["metric"] in (*MAPS, "trustworthiness")]


def _knots(mapped: Sequence[Sequence[Mapping[str, Any]]]) -> list[float]:
    """The ratios of the maps, which are the same in all of them."""
    found = [sorted({float(row["ratio_requested"]) for row in rows if row["metric"] == MAPS[0]}) for rows in mapped]
    if not found or any(knots != found[0] or not knots for knots in found):
        said = "; ".join(", ".join(f"{knot:.4g}" for knot in knots) or "none" for knots in found) or "no table"
        raise DgpruneError(f"maps side by side are of the same ratios; got {said}.")
    return found[0]


def _looks_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, DomainStyle]:
    """The looks of the domains in the order of the study, which that of the pairs is."""
    named_first = (row[end] for row in rows for end in ("other", "domain"))
    order = dict.fromkeys(str(name) for name in named_first if not is_missing(name))
    roles = {str(row["domain"]): str(row["role"]) for row in rows if not is_missing(row["domain"])}
    return domain_styles((name, roles.get(name, "")) for name in order)


def _map_data(
    rows: Sequence[Mapping[str, Any]], knots: Sequence[float], *, style: Mapping[str, DomainStyle]
) -> dict[str, Rows]:
    """The map's named data, from the rows of one layer."""
    places = {
        (str(row["domain"]), int(row["image"]), float(row["ratio_requested"]), row["metric"]): float(row["value"])
        for row in rows
        if row["metric"] in MAPS
    }
    first = [row for row in rows if row["metric"] == MAPS[0] and float(row["ratio_requested"]) == knots[0]]
    dots = [
        Dot(str(row["domain"]), int(row["image"]), None if is_missing(row["class"]) else int(row["class"]))
        for row in first
    ]
    held = np.array([[[places[dot.domain, dot.image, knot, axis] for axis in MAPS] for dot in dots] for knot in knots])
    exposures: dict[str, list[Exposure]] = {}
    for row in rows:
        if row["metric"] == MAPS[0]:
            exposures.setdefault(str(row["domain"]), []).append(exposure_of(row))
    roles = {str(row["domain"]): str(row["role"]) for row in first}
    trust = next((row for row in rows if row["metric"] == "trustworthiness"), None)
    return {
        "points": point_rows(dots, boxed(held), domain_styles=style),
        "legend": legend_rows(
            {name: (roles[name], strongest_exposure(found)) for name, found in exposures.items()},
            [dot.label for dot in dots],
            domain_styles=style,
        ),
        "words": map_words(str(first[0]["embedding"]), trust, images=len(dots), knots=knots),
    }
