"""Feature shift: one map of all images, and below it the distances between domains against the ratio.

The named data are those of `map` and `numbers`; for the k-th of several maps `points_k` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import altair as alt
import numpy as np
import pandas as pd

from ...core import DgpruneError, Exposure, Side, Tidy, exposure_of, is_missing, public, strongest_exposure, unknown
from ..marks import check_table
from ..theme import Data, DomainStyle, Rows, beside, domain_styles, grouped, records, titled
from .map import SMALL, Colour, map_plot, parameters
from .map_rows import SIDE, Dot, boxed, legend_rows, map_words, point_rows
from .numbers import EXPLAINED, METRICS, large_plot, legend_of, number_chart, number_data, number_plots

MAPS = ("map_1", "map_2")


@public
def feature_shift(
    frame: Tidy | Mapping[str, pd.DataFrame],
    *,
    at: float | None = None,
    layer: str | None = None,
    colour: Colour = "domain",
    slider: bool = False,
) -> alt.HConcatChart:
    """Draw a map of the images' features, full and pruned, and how far apart the domains are at each ratio.

    On the map, colour and mark show the domain; an image is pale in the full network and filled in the pruned one, with
    a thin line between. In a live page (`dg.widgets.LiveChart(chart)`) colour can show the class. Below, the distances:
    a line per pair of domains, or per domain, with 95 % intervals over images; several layers stand side by side. A
    hollow diamond, with text after the name, marks domains that the scorer, fine-tuning or selection looked at.

    Args:
        frame: a table of `diagnostics.feature_shift`; or name -> table, of which only the maps are drawn, side by side.
        at: the ratio (0 to 1) that the map shows; None for the middle one of the table.
        layer: the layer of the map; None for the last layer of the table that has a map.
        colour: what colour on the map shows at first, "domain" or "class".
        slider: give the map a slider over the ratio, for `dg.widgets.LiveChart(chart)`.

    Raises:
        DgpruneError: a table without numbers and map; no map of this layer; tables whose ratios differ; a ratio outside
            [0, 1].
    """
    for table in [frame] if isinstance(frame, pd.DataFrame) else frame.values():
        check_table(table, "diagnostics.feature_shift(study)", columns=("other", "embedding"))
    if at is not None and not 0 <= at <= 1:
        raise DgpruneError(f"at is the share removed, from 0 to 1; got {at!r}.")
    tables = {"": frame} if isinstance(frame, pd.DataFrame) else dict(frame)
    mapped = [_select_map_rows(records(table), layer) for table in tables.values()]
    numbers: list[Any] = []
    if isinstance(frame, pd.DataFrame):
        rows = records(frame)
        layers = list(dict.fromkeys(str(row["group"]) for row in rows if row["metric"] in METRICS))
        if not layers and not mapped[0]:
            raise DgpruneError("the table has no features to draw; make one with diagnostics.feature_shift(study).")
        data = number_data(rows, layers, styles=_order_styles(rows))
        if not mapped[0]:
            return number_chart(data, layers=layers, at=at, columns=2, title=titled("Feature shift", frame))
        tables = {f"Layer {mapped[0][0]['group']}" if len(layers) > 1 else "": frame}
        numbers = [number_plots(data, layers)] if layers else []
    knots, side = _common_ratios(mapped), SIDE if len(tables) == 1 else SMALL
    plots: list[Any] = []
    for (name, table), rows in zip(tables.items(), mapped, strict=True):
        suffix = f"_{len(plots)}" if plots else ""
        last = len(plots) + 1 == len(tables)  # one legend is enough
        data = _map_data(rows, knots, styles=_order_styles(records(table)), side=side)
        plot = map_plot(data, knots=knots, side=side, suffix=suffix, legend=last)
        plots.append(plot.properties(title=alt.Title(text=name)) if name else plot)
    first = next(iter(tables.values()))
    title = titled("Feature shift", cast(pd.DataFrame, first[first["metric"] != "trustworthiness"]))
    content = [alt.vconcat(*plots, *numbers, spacing=24)] if numbers else plots
    chart = beside(*content, spacing=12, padding=(8, 12, 6, 6), title=title)
    ratio = knots[len(knots) // 2] if at is None else at
    chart.params = parameters(knots, at=ratio, side=side, slider=slider, by=colour)
    chart.usermeta = {"embedOptions": {"actions": False, "renderer": "canvas"}}
    return chart


@public
def shift_by_ratio(frame: Tidy, *, metric: str = "mmd", width: Side = 480, height: Side = 240) -> alt.HConcatChart:
    """Draw one number of `diagnostics.feature_shift` against the ratio in a large plot, its meaning below the title.

    A line per pair of domains, per domain, or for all images; 95 % intervals over images.

    Args:
        frame: a table of `diagnostics.feature_shift` of one layer.
        metric: the number: "mmd", "coral", "proxy_a_distance", "cka", "silhouette_classes" or "silhouette_domains".
        width, height: size of the plot, in pixels.

    Raises:
        DgpruneError: another metric, or one that the table does not hold; a table of several layers.
    """
    check_table(frame, "diagnostics.feature_shift(study)", columns=("other", "embedding"))
    rows = records(frame)
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    used = [row for row in rows if row["metric"] == metric]
    layers = list(dict.fromkeys(str(row["group"]) for row in used))
    if len(layers) != 1:
        raise DgpruneError(f"frame must hold one layer with metric {metric!r}; it holds {', '.join(layers) or 'none'}.")
    data = number_data(used, layers, styles=_order_styles(rows))
    table = cast(pd.DataFrame, frame[frame["metric"] == metric])
    title = titled(f"{METRICS[metric][0]}, layer {layers[0]}", table, below=EXPLAINED[metric])
    plot = large_plot(data, metric, layer=layers[0]).properties(width=width, height=height)
    return beside(plot, legend_of(data), spacing=18, padding=(10, 10, 6, 6), title=title)


def _select_map_rows(rows: Rows, layer: str | None) -> Rows:
    """Return the rows of the layer whose map is drawn: its positions and its trustworthiness."""
    mapped = list(dict.fromkeys(str(row["group"]) for row in rows if row["metric"] == MAPS[0]))
    if layer is not None and layer not in mapped:
        raise DgpruneError(f"the table has no map of layer {layer!r}; it has: {', '.join(mapped) or 'none'}.")
    chosen = layer or (mapped[-1] if mapped else None)
    return [row for row in rows if row["group"] == chosen and row["metric"] in (*MAPS, "trustworthiness")]


def _common_ratios(mapped: Sequence[Rows]) -> list[float]:
    """Return the ratios that all maps share; refuse maps whose ratios differ."""
    ratios = [sorted({float(row["ratio_requested"]) for row in rows if row["metric"] == MAPS[0]}) for rows in mapped]
    if not ratios or any(knots != ratios[0] or not knots for knots in ratios):
        lists = "; ".join(", ".join(f"{knot:.4g}" for knot in knots) or "none" for knots in ratios) or "no table"
        raise DgpruneError(f"maps side by side need the same ratios; got {lists}.")
    return ratios[0]


def _order_styles(rows: Rows) -> dict[str, DomainStyle]:
    """Return the styles of the domains in the study's order, taken from the pairs of domains."""
    names = (row[end] for row in rows for end in ("other", "domain"))
    order = dict.fromkeys(str(name) for name in names if not is_missing(name))
    roles = {str(row["domain"]): str(row["role"]) for row in rows if not is_missing(row["domain"])}
    return domain_styles((name, roles.get(name, "")) for name in order)


def _map_data(rows: Rows, knots: Sequence[float], *, styles: Mapping[str, DomainStyle], side: int) -> Data:
    """Return the named data of the map from the rows of one layer."""
    places: dict[tuple[str, int, float, str], float] = {}
    mapped = [row for row in rows if row["metric"] in MAPS]
    for row in mapped:
        key = str(row["domain"]), int(row["image"]), float(row["ratio_requested"]), row["metric"]
        places[key] = float(row["value"])
    first = [row for row in rows if row["metric"] == MAPS[0] and float(row["ratio_requested"]) == knots[0]]
    dots = [
        Dot(
            str(row["domain"]),
            int(row["image"]),
            None if is_missing(row["class"]) else int(row["class"]),
            "" if is_missing(row.get("class_name")) else str(row["class_name"]),
        )
        for row in first
    ]
    grid = [[[places[dot.domain, dot.image, knot, axis] for axis in MAPS] for dot in dots] for knot in knots]
    roles = {str(row["domain"]): str(row["role"]) for row in first}
    domains: dict[str, tuple[str, Exposure]] = {
        name: (roles[name], strongest_exposure(exposure_of(row) for row in domain_rows))
        for name, domain_rows in grouped(mapped, lambda row: str(row["domain"])).items()
    }
    trust = next((row for row in rows if row["metric"] == "trustworthiness"), None)
    return {
        "points": point_rows(dots, boxed(np.array(grid)), styles=styles),
        "legend": legend_rows(domains, dots, styles=styles, side=side),
        "words": map_words(str(first[0]["embedding"]), trust, images=len(dots), knots=knots),
    }
