"""Loss against the share kept, the loss that is allowed, and where the curve crosses it; the tolerance is a slider.

The read-off happens in the page, from the points alone: a point is allowed where its loss is at most (1 + tolerance)
times the loss of the whole network. Named data, all of which a page may swap with `view.data(name, rows)`:

| name | one row is | fields |
|---|---|---|
| curve | a measured share of one network | network, kept (%), loss, base, whole, dots, place, colour, dash |
| ends | an interval of the read-off | network, tolerance (%), low, high (%), base, place, colour |
| words | a line above the plot | text |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import DgpruneError, is_missing
from ..stats import unlike
from .theme import finish, layered, named, records, scorer_styles, shortened

PADDING = {"left": 64, "right": 24, "top": 38, "bottom": 42}
_COUNTED = {"weight": "Single weights kept (%)", "filter": "Filters kept (%)"}
_LINE = 16
_DOTS = 40
_LEAST, _MOST = 1e-9, 1e6
Data = dict[str, list[dict[str, Any]]]


def prunability(
    frame: pd.DataFrame, *, tolerance: float | None = None, width: int = 560, height: int = 300
) -> alt.LayerChart:
    """Draw the loss of each network against the share kept, and the smallest share within the tolerance.

    Dashed: (1 + tolerance) times the loss of the whole network. Dot: the smallest share within it (of a fast search the
    end of the contiguous stretch); ring: shares of an island, within the limit although a larger share is not. Thick:
    the interval over images, at tolerances that the table holds. In a live page (`dg.widgets.Shown(chart)`) the
    tolerance is a slider and the read-off follows it; a picture shows the tolerance it begins with.

    Args:
        frame: a table of `diagnostics.prunability`.
        tolerance: at the beginning, above 0 to 1; the first of the table where None.
        width, height: of the plot, in pixels.

    Raises:
        DgpruneError: a table without losses; a tolerance outside (0, 1].
    """
    data = prunability_data(frame)
    if not data["curve"]:
        raise DgpruneError("the table has no losses to draw; make one with diagnostics.prunability(study).")
    found = records(frame, metric="prunability")
    start = float(found[0]["tolerance"] if found else 0.1) if tolerance is None else tolerance
    if not 0 < start <= 1:
        raise DgpruneError(f"the chart's tolerance lies above 0 and up to 1, so 0.1 is a tenth; got {start!r}.")
    counted = str(records(frame, metric="loss")[0]["granularity"])
    return prunability_chart(data, tolerance=start, counted=counted, width=width, height=height)


def prunability_data(frame: pd.DataFrame) -> Data:
    """The chart's named data, from a table or from as much of it as there is."""
    losses, found = records(frame, metric="loss"), records(frame, metric="prunability")
    domain_styles, data = scorer_styles(), Data(curve=[], ends=[], words=[])
    bases = {str(row["network"]): float(row["training_loss"]) for row in losses}
    shared = {}
    for place, (name, base) in enumerate(bases.items()):
        look = next(domain_styles)
        mine = [row for row in losses if str(row["network"]) == name]
        shared[name] = {
            "network": shortened(name, most=28),
            "base": base,
            "place": _LINE * place,
            "colour": look.colour,
            "dash": list(look.dash),
        }
        for row in mine:
            loss = min(max(row["value"], _LEAST), _MOST) if math.isfinite(row["value"]) else None
            data["curve"].append(
                {
                    **shared[name],
                    "kept": 100 * row["fraction_kept"],
                    "loss": loss,
                    "whole": row["search"] == "grid",
                    "dots": len(mine) <= _DOTS,
                }
            )
    data["ends"] = [
        {
            **shared[str(row["network"])],
            "tolerance": 100 * row["tolerance"],
            "low": 100 * row["low"],
            "high": 100 * row["high"],
        }
        for row in found
        if not is_missing(row["low"]) and str(row["network"]) in shared
    ]
    if len(bases) > 1 and (words := unlike(bases)) is not None:
        first, _, second = words.partition(". ")
        data["words"] = [{"text": f"{first[:1].upper()}{first[1:]}.", "line": -21}, {"text": second, "line": -7}]
    return data


def prunability_chart(
    data: Mapping[str, list[dict[str, Any]]],
    *,
    tolerance: float = 0.1,
    counted: str = "weight",
    width: int = 560,
    height: int = 300,
) -> alt.LayerChart:
    """The chart over these data, which may be empty and be fed later."""
    chart = finish(_layers(data, _COUNTED[counted]), width=width, height=height, padding=PADDING)
    slider = alt.binding_range(min=1, max=100, step=1, name="The loss may grow by (%) ")
    parameter: Any = alt.param(name="tolerance", value=round(100 * tolerance, 6), bind=slider).param
    chart.params = [parameter]
    return chart


def _layers(data: Mapping[str, list[dict[str, Any]]], title: str) -> alt.LayerChart:
    """Limits, curves, intervals, islands, the read-off and its words."""
    kept, low = (
        alt.X(f"{field}:Q", scale=alt.Scale(domain=[0, 100], nice=False), title=title, axis=alt.Axis(tickCount=10))
        for field in ("kept", "low")
    )
    axis = alt.Axis(format="~g", tickCount=5, grid=False)
    loss, limit = (
        alt.Y(
            f"{field}:Q",
            scale=alt.Scale(type="log", nice=False, padding=12),
            title="Loss on the training images",
            axis=axis,
        )
        for field in ("loss", "limit")
    )
    colour = alt.Stroke("colour:N", scale=None)
    fill = alt.Fill("colour:N", scale=None)
    dash = alt.StrokeDash("dash:N", scale=None)
    tips = [
        alt.Tooltip("network:N", title="Network"),
        alt.Tooltip("kept:Q", title="Kept %", format=".3~g"),
        alt.Tooltip("loss:Q", title="Loss", format=".4~g"),
        alt.Tooltip("base:Q", title="of the whole", format=".4~g"),
        alt.Tooltip("limit:Q", title="allowed", format=".4~g"),
    ]
    curve, ends = _limited(alt.Chart(alt.NamedData(name="curve"))), _limited(_at(alt.Chart(alt.NamedData(name="ends"))))
    judged = _judged(curve)
    read = judged.transform_filter("datum.kept === datum.value")
    far = alt.value("width")
    line: Any = {"y": {"expr": "datum.place"}, "baseline": "top", "align": "right"}
    words = "datum.network + ': ' + format(datum.kept, '.3~g') + ' %'"
    between = "'95 % of image draws: ' + format(datum.low, '.3~g') + ' to ' + format(datum.high, '.3~g')"
    return layered(
        alt.Chart(named("words", data["words"]))
        .mark_text(style="strong", align="left", baseline="bottom", y=alt.expr("datum.line"))
        .encode(x=alt.value(0), text="text:N"),
        _limited(alt.Chart(named("curve", data["curve"])))
        .transform_filter("datum.kept === 100")
        .mark_rule(strokeWidth=1.2, strokeDash=[5, 4])
        .encode(y=limit, stroke=colour),
        curve.mark_line(strokeWidth=2).encode(x=kept, y=loss, stroke=colour, strokeDash=dash, detail="network:N"),
        curve.transform_filter("datum.dots && datum.loss !== null")
        .mark_point(size=18, opacity=0.9, strokeWidth=1.2)
        .encode(x=kept, y=loss, stroke=colour, tooltip=tips),
        _limited(_at(alt.Chart(named("ends", data["ends"]))))
        .mark_rule(strokeWidth=6, opacity=0.35)
        .encode(x=low, x2="high:Q", y=limit, stroke=colour),
        judged.transform_filter("datum.allowed && datum.above > 0 && datum.whole")
        .mark_point(size=70, strokeWidth=1.8, opacity=1)
        .encode(x=kept, y=loss, stroke=colour, tooltip=tips),
        read.mark_rule(strokeWidth=1, strokeDash=[2, 2]).encode(x=kept, y=loss, stroke=colour),
        read.mark_point(size=90, filled=True, opacity=1).encode(x=kept, y=loss, fill=fill, tooltip=tips),
        read.transform_calculate(label=words)
        .mark_text(fontSize=12, fontWeight=600, dx=-176, **line)
        .encode(x=far, text="label:N", fill=fill),
        ends.transform_calculate(label=between).mark_text(style="words", dy=1, **line).encode(x=far, text="label:N"),
    )


def _limited(chart: alt.Chart) -> alt.Chart:
    return chart.transform_calculate(limit="datum.base * (1 + tolerance / 100)")


def _at(chart: alt.Chart) -> alt.Chart:
    """Only the intervals of the tolerance that is set."""
    return chart.transform_filter("abs(datum.tolerance - tolerance) < 1e-6")


def _judged(curve: alt.Chart) -> alt.Chart:
    """Every point with whether it is allowed, how many above it are not, and the read-off of its network."""
    sort: Any = [{"field": "kept", "order": "descending"}]
    return (
        curve.transform_calculate(allowed="datum.loss !== null && datum.loss <= datum.limit * (1 + 1e-9)")
        .transform_calculate(outside="datum.allowed ? 0 : 1")
        .transform_window(above="sum(outside)", groupby=["network"], sort=sort, frame=[None, 0])
        .transform_calculate(candidate="datum.allowed && (datum.whole || datum.above === 0) ? datum.kept : 1e3")
        .transform_joinaggregate(value="min(candidate)", groupby=["network"])
    )
