"""Prunability: loss against the share kept, the allowed loss, and where the curve crosses the allowed loss.

The page finds the smallest share from the points alone and follows the slider of the tolerance: a point is
allowed if its loss is at most (1 + tolerance) times the loss of the full network. Named data, all of which a page may
swap with `view.data(name, rows)`:

| name | one row is | fields |
|---|---|---|
| curve | a measured share of one network | network, kept (%), loss, base, times (loss / base), grid, searched, ... |
| ends | the interval of a share read off the curve | network, tolerance (%), low, high (%), base, place, colour, dash |
| words | a line above the plot | text, line (pixels) |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import altair as alt
import pandas as pd

from ..core import DgpruneError, Side, Tidy, is_missing, public
from ..stats import unlike
from .marks import COLOUR, DASH, LEFT, RIGHT, TEXT_COLOUR, check_table, for_field, layered, rows_of, tooltip
from .theme import Data, Rows, finish, records, scorer_styles, shortened, titled

PADDING = {"left": 64, "right": 24, "top": 38, "bottom": 42}
_COUNTED = {"weight": "Single weights kept (%)", "filter": "Filters kept (%)"}
_LINE = 16
_DOTS = 40
_LEAST, _MOST = 1e-9, 1e6
_TOPS = (3, 10, 100, 1000)


@public
def prunability(
    frame: Tidy, *, tolerance: float | None = None, width: Side = 600, height: Side = 340
) -> alt.LayerChart:
    """Draw the loss of each network against the share kept, and the smallest share within the tolerance.

    Losses are relative to the full network's, so that all networks share one limit, 1 + tolerance, a grey line. Dot:
    the smallest share within the limit (for a fast search, the lower end of the unbroken range from 1, marked "at most"
    at a tolerance not in the table, since shares between were not measured); ring: an isolated share, within the limit
    although a larger share is not. Thick line: the interval over images, at tolerances that the table holds. In a live
    page (`dg.widgets.LiveChart(chart)`) the dot follows a slider for the tolerance, and a menu sets the end of the axis
    of losses: at first 3 times the full network's, where the crossing is large. A picture shows the initial view.

    Args:
        frame: a table of `diagnostics.prunability`.
        tolerance: initial tolerance, above 0 to 1; None for the first of the table.
        width, height: size of the plot, in pixels.

    Raises:
        DgpruneError: a table without losses; a tolerance outside (0, 1].
    """
    check_table(
        frame, "diagnostics.prunability(study)", columns=("fraction_kept", "search"), metrics=("loss", "prunability")
    )
    data = prunability_data(frame)
    if not data["curve"]:
        raise DgpruneError("the table has no losses to draw; make one with diagnostics.prunability(study).")
    results = records(frame, metric="prunability")
    start = float(results[0]["tolerance"] if results else 0.1) if tolerance is None else tolerance
    if not 0 < start <= 1:
        raise DgpruneError(f"the chart's tolerance must be above 0 and at most 1 (0.1 is a tenth); got {start!r}.")
    counted = str(records(frame, metric="loss")[0]["granularity"])
    text = "Prunability: how few weights keep the training loss"
    title = titled(text, frame) or alt.Title(text=text, offset=12)
    return prunability_chart(data, tolerance=start, counted=counted, width=width, height=height, title=title)


def prunability_data(frame: pd.DataFrame) -> Data:
    """Return the chart's named data from a table, which may be incomplete."""
    losses, results = records(frame, metric="loss"), records(frame, metric="prunability")
    data: Data = {"curve": [], "ends": [], "words": []}
    bases = {str(row["network"]): float(row["training_loss"]) for row in losses}
    shared: dict[str, dict[str, Any]] = {}
    for place, ((name, base), style) in enumerate(zip(bases.items(), scorer_styles(), strict=False)):
        rows = [row for row in losses if str(row["network"]) == name]
        searched = [round(100 * result["tolerance"], 6) for result in results if str(result["network"]) == name]
        colours = {"colour": style.colour, "dash": list(style.dash)}
        shared[name] = {"network": shortened(name, most=28), "base": base, "place": _LINE * place, **colours}
        for row in rows:
            loss = min(max(row["value"], _LEAST), _MOST) if math.isfinite(row["value"]) else None
            percent_kept, full_grid = 100 * row["fraction_kept"], row["search"] == "grid"
            times = None if loss is None else loss / base
            point = {"kept": percent_kept, "loss": loss, "times": times, "grid": full_grid, "dots": len(rows) <= _DOTS}
            point["searched"] = [] if full_grid else searched
            data["curve"].append({**shared[name], **point})
    for row in results:
        if not is_missing(row["low"]) and str(row["network"]) in shared:
            ends = {name: 100 * row[name] for name in ("tolerance", "low", "high")}
            data["ends"].append({**shared[str(row["network"])], **ends})
    if len(bases) > 1 and (warning := unlike(bases)) is not None:
        first, _, second = warning.partition(". ")
        data["words"] = [{"text": f"{first[:1].upper()}{first[1:]}.", "line": -21}, {"text": second, "line": -7}]
    return data


def prunability_chart(
    data: Mapping[str, Rows],
    *,
    tolerance: float = 0.1,
    counted: str = "weight",
    title: alt.Title | None = None,
    width: int = 560,
    height: int = 300,
) -> alt.LayerChart:
    """Return the chart of these data, which may be empty and come later."""
    chart = finish(_draw_layers(data, _COUNTED[counted]), width=width, height=height, padding=PADDING, title=title)
    slider = alt.binding_range(min=1, max=100, step=1, name="The loss may grow by (%) ")
    parameter: Any = alt.param(name="tolerance", value=round(100 * tolerance, 6), bind=slider).param
    most = alt.binding_select(
        options=list(_TOPS), labels=[f"{top} times" for top in _TOPS], name="The axis goes up to "
    )
    chart.params = [parameter, cast("Any", alt.param(name="most", value=_TOPS[0], bind=most).param)]
    return chart


def _draw_layers(data: Mapping[str, Rows], title: str) -> alt.LayerChart:
    """Draw limits, curves, intervals, isolated shares, and the smallest share with its text."""
    scale = alt.Scale(domain=[0, 100], nice=False)
    share = alt.X("kept:Q", scale=scale, title=title, axis=alt.Axis(tickCount=10))
    log = alt.Scale(type="log", nice=False, padding=12, domainMax=alt.expr("most"))
    axis = alt.Axis(format="~g", tickCount=6, grid=False)
    loss = alt.Y("times:Q", scale=log, title="Relative training loss (logarithmic)", axis=axis)
    limit, low = for_field(loss, "allowed_times"), for_field(share, "low")
    fields = {
        "network": "Network",
        "kept": ("Kept %", ".3~g"),
        "times": ("Relative loss", ".4~g"),
        "loss": ("Loss", ".4~g"),
        "base": ("of the full network", ".4~g"),
        "limit": ("allowed", ".4~g"),
    }
    tips = tooltip(fields)
    curve = _add_limit(rows_of("curve", data["curve"]))
    ends = _add_limit(rows_of("ends", data["ends"]).transform_filter("abs(datum.tolerance - tolerance) < 1e-6"))
    judged = _judge_points(curve)
    smallest = judged.transform_filter("datum.kept === datum.value")
    corner: Any = {"y": {"expr": "datum.place"}, "baseline": "top", "align": "right"}
    bound = "datum.grid || indexof(datum.searched, tolerance) >= 0 ? '' : 'at most '"
    label = f"datum.network + ': ' + ({bound}) + format(datum.kept, '.3~g') + ' %'"
    interval_label = "'95 % interval over images: ' + format(datum.low, '.3~g') + ' to ' + format(datum.high, '.3~g')"
    warning = rows_of("words", data["words"]).mark_text(
        style="strong", align="left", baseline="bottom", y=alt.expr("datum.line")
    )
    points = curve.transform_filter("datum.dots && datum.loss !== null")
    isolated = judged.transform_filter("datum.allowed && datum.above > 0 && datum.grid")
    name = smallest.transform_calculate(label=label).mark_text(fontSize=12, fontWeight=600, dx=-206, **corner)
    interval = ends.transform_calculate(label=interval_label).mark_text(style="words", dy=1, **corner)
    return layered(
        warning.encode(x=LEFT, text=alt.Text("text:N")),
        *_draw_limit(loss),
        curve.mark_line(strokeWidth=2.4, clip=True).encode(
            x=share, y=loss, stroke=COLOUR, strokeDash=DASH, detail=alt.Detail("network:N")
        ),
        points.mark_point(size=22, opacity=0.9, strokeWidth=1.2, clip=True).encode(
            x=share, y=loss, stroke=COLOUR, tooltip=tips
        ),
        ends.mark_rule(strokeWidth=6, opacity=0.35).encode(x=low, x2=alt.X2("high:Q"), y=limit, stroke=COLOUR),
        isolated.mark_point(size=90, strokeWidth=1.8, opacity=1, clip=True).encode(
            x=share, y=loss, stroke=COLOUR, tooltip=tips
        ),
        smallest.mark_rule(strokeWidth=1.4, strokeDash=[2, 2]).encode(x=share, y=loss, stroke=COLOUR),
        smallest.mark_point(size=150, filled=True, opacity=1).encode(x=share, y=loss, fill=TEXT_COLOUR, tooltip=tips),
        name.encode(x=RIGHT, text=alt.Text("label:N"), fill=TEXT_COLOUR),
        interval.encode(x=RIGHT, text=alt.Text("label:N")),
    )


def _draw_limit(loss: alt.Y) -> list[alt.Chart]:
    """Draw the limit, which all networks share, with its value above the line."""
    text = "'allowed: ' + format(1 + tolerance / 100, '.2f') + ' times'"
    limit = alt.Chart(alt.InlineData(values=[{}])).transform_calculate(times="1 + tolerance / 100", label=text)
    marks = limit.mark_text(style="words", align="left", baseline="bottom", dx=4, dy=-3)
    line = limit.mark_rule(style="quiet", strokeWidth=1.4).encode(y=loss)
    return [line, marks.encode(x=LEFT, y=loss, text=alt.Text("label:N"))]


def _add_limit(chart: alt.Chart) -> alt.Chart:
    return chart.transform_calculate(limit="datum.base * (1 + tolerance / 100)", allowed_times="1 + tolerance / 100")


def _judge_points(curve: alt.Chart) -> alt.Chart:
    """Compute whether each point's loss is allowed, how many larger shares are not allowed, and the smallest share."""
    sort: Any = [{"field": "kept", "order": "descending"}]
    return (
        curve.transform_calculate(allowed="datum.loss !== null && datum.loss <= datum.limit * (1 + 1e-9)")
        .transform_calculate(outside="datum.allowed ? 0 : 1")
        .transform_window(above="sum(outside)", groupby=["network"], sort=sort, frame=[None, 0])
        .transform_calculate(candidate="datum.allowed && (datum.grid || datum.above === 0) ? datum.kept : 1e3")
        .transform_joinaggregate(value="min(candidate)", groupby=["network"])
    )
