"""How well measures predict generalisation: a row per measure, a dot with its interval per domain.

The page shows the rows of the statistic and the outcome that are chosen below the chart. Named data:

| name | one row is | fields |
|---|---|---|
| judged | a measure on a domain | statistic, outcome, line (pixels), value, low, high, text, ... |
| names | a measure | line (pixels), label |
| legend | a domain | at (pixels), label, colour, shape |
"""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from ..core import Side, Tidy, exposure_of, is_missing, public, unknown
from .marks import (
    RIGHT,
    SHAPE,
    TEXT_COLOUR,
    ZERO_LINE,
    check_table,
    interval_marks,
    layered,
    menu,
    row_labels,
    rows_of,
    signed_axis,
    tooltip,
)
from .theme import Rows, domain_styles_of, finish, plain, point_of, records, role_label, shortened, with_minus

_ROW, _LETTERS, _HEAD, _EDGE = 18, 28, 46, -180
_PADDING = {"left": 190, "right": 168, "top": _HEAD, "bottom": 30}
_STATISTIC_NAMES = {
    "kendall_tau_a": "Kendall's tau-a",
    "kendall_tau_b": "Kendall's tau-b",
    "granulated_tau": "Granulated tau",
    "tau_of_one_hyperparameter": "Tau-a, varying only",
    "conditional_mutual_information": "Conditional mutual information",
    "conditional_mutual_information_pgdl": "Conditional mutual information (PGDL)",
    "tau_difference": "Tau-a minus that of",
    "partial_correlation": "Partial rank correlation given",
}
_READING = (
    "indexof(statistic, 'information') >= 0 ? 'Never below 0; it has no direction.' : "
    "indexof(statistic, 'minus') >= 0 ? 'Above 0: predicts better than the other.' : 'Above 0: predicts correctly.'"
)


@public
def predictors(
    frame: Tidy, *, statistic: str = "kendall_tau_a", outcome: str | None = None, width: Side = 360
) -> alt.LayerChart:
    """Draw a table of `experiments.predictors`: a row per measure, a dot with its 95 % interval per domain.

    Above 0 the measure predicts correctly; conditional mutual information has no direction. In a live page
    (`dg.widgets.LiveChart(chart)`) statistic and outcome are chosen below the chart; a picture shows the initial ones.

    Args:
        frame: the table.
        statistic: metric of the table that is shown first.
        outcome: outcome that is shown first; None for the first of the table.
        width: width of the plot, in pixels.

    Raises:
        DgpruneError: a table of another kind; an unknown statistic or outcome.
    """
    check_table(frame, "experiments.predictors(frame, hyperparameters=...)", columns=("measure", "outcome", "given"))
    outcomes = list(dict.fromkeys(frame["outcome"]))
    for kind, name, known in (("statistic", statistic, set(frame["metric"])), ("outcome", outcome, set(outcomes))):
        if name is not None and name not in known:
            raise unknown(kind, name, sorted(known))
    rows = judged_rows(frame)
    statistics = list(dict.fromkeys(row["statistic"] for row in rows))
    first = next(row["statistic"] for row in rows if row["metric"] == statistic)
    counts = f"{frame['networks'].max():.0f} networks in {frame['cells'].max():.0f} cells of the grid"
    lost = (
        f" {frame['dropped'].max():.0f} left out: not converged, or without a value." if any(frame["dropped"]) else ""
    )
    about = [f"{counts}, 95 % intervals over cells.{lost}"]
    title = alt.Title(text="Does the measure predict how networks generalise?", subtitle=about, offset=8)
    height = max((row["line"] for row in rows), default=0) + _ROW
    chart = finish(_draw_layers(frame, rows, height=height), width=width, height=height, padding=_PADDING, title=title)
    menus: list[Any] = [
        menu("statistic", statistics, value=first),
        menu("outcome", [plain(name) for name in outcomes], value=plain(outcome or outcomes[0])),
    ]
    chart.params = menus
    return chart


def judged_rows(frame: pd.DataFrame) -> Rows:
    """Return the chart's rows, for every statistic and outcome of the table."""
    styles = domain_styles_of(frame)
    measures, domains = (list(dict.fromkeys(frame[name])) for name in ("measure", "domain"))
    rows: Rows = []
    for row in records(frame):
        place, domain_place = measures.index(row["measure"]), domains.index(row["domain"])
        condition = "" if is_missing(row["given"]) else f" {plain(row['given'])}"
        ends = {name: None if is_missing(row[name]) else float(row[name]) for name in ("value", "low", "high")}
        filled = {name: ends["value"] if ends[name] is None else ends[name] for name in ends}
        rows.append(
            {
                "metric": row["metric"],
                "statistic": f"{_STATISTIC_NAMES.get(row['metric'], row['metric'])}{condition}",
                "outcome": plain(row["outcome"]),
                "measure": plain(row["measure"]),
                "domain": row["domain"],
                "line": (place * (len(domains) + 0.5) + domain_place + 0.5) * _ROW,
                "text": _format_interval(ends, sign="" if row["unit"] == "share" else "+"),
                "networks": int(row["networks"]),
                "ties": int(row["ties"]),
                "note": row["note"] or "",
                **filled,
                **point_of(styles[row["domain"]], exposure=exposure_of(row)),
            }
        )
    return rows


def _draw_layers(frame: pd.DataFrame, rows: Rows, *, height: float) -> alt.LayerChart:
    """Draw names, intervals with dots, and numbers at the right; above, what is shown and a legend."""
    x = alt.X("value:Q", scale=alt.Scale(zero=True, nice=True), title=None, axis=signed_axis(tickCount=5, **ZERO_LINE))
    y = alt.Y("line:Q", scale=alt.Scale(domain=[height, 0], nice=False, zero=False), axis=None)
    used = rows_of("judged", rows).transform_filter("datum.statistic === statistic && datum.outcome === outcome")
    known = used.transform_filter("isValid(datum.value)")
    fields = {"measure": "Measure", "domain": "Domain", "value": ("Value", "+.3f"), "networks": "Networks"}
    tips = tooltip({**fields, "ties": "Tied pairs", "note": "Note"}, ends="+.3f", looked=True)
    measures = {row["measure"]: [r["line"] for r in rows if r["measure"] == row["measure"]] for row in rows}
    names = [{"label": shortened(name, most=_LETTERS), "line": sum(at) / len(at)} for name, at in measures.items()]
    legend = rows_of("legend", _legend_rows(frame))
    at: Any = {"y": -12, "x": {"expr": "datum.at"}}
    caption = alt.Chart(alt.InlineData(values=[{}])).mark_text(
        style="strong",
        align="left",
        x=_EDGE,
        y=-_HEAD + 14,
        fontWeight=600,
        text={"expr": f"statistic + ', ' + outcome + '. ' + ({_READING})"},
    )
    return layered(
        caption,
        legend.mark_point(size=42, opacity=1, filled=True, **at).encode(fill=TEXT_COLOUR, shape=SHAPE),
        legend.mark_text(style="words", align="left", baseline="middle", dx=10, **at).encode(text=alt.Text("label:N")),
        row_labels(rows_of("names", names), y=y),
        *interval_marks(known, x, at={"y": y}, tips=tips, size=44),
        used.mark_text(style="words", align="left", dx=12).encode(x=RIGHT, y=y, text=alt.Text("text:N"), tooltip=tips),
    )


def _legend_rows(frame: pd.DataFrame) -> Rows:
    rows, at = [], 6.0
    for name, style in domain_styles_of(frame).items():
        label = shortened(name, most=_LETTERS) + role_label(style.role)
        rows.append({"label": label, "at": at, **point_of(style)})
        at += 26 + 6.4 * len(label)
    return rows


def _format_interval(ends: dict[str, float | None], *, sign: str = "+") -> str:
    """Return a value with its interval as text.

    >>> _format_interval({"value": 0.5, "low": -0.001, "high": 0.75}), _format_interval({"value": None})
    ('+0.50 (0.00 to 0.75)', 'no value')
    """
    if ends["value"] is None:
        return "no value"
    interval = "" if ends["low"] is None else f" ({ends['low']:z.2f} to {ends['high']:z.2f})"
    return with_minus(f"{ends['value']:{sign}z.2f}{interval}")
