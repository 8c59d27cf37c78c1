"""The result of each run of the study `instability` against mean stability: a dot per run, by treatment.

The page shows the rows of the images, the outcome and the pruning rate that are chosen below the chart; controls are
always shown. Named data:

| name | one row is | fields |
|---|---|---|
| treated | a run, its outcome and its domain | outcome, images, rate, control, treatment, seed, stable, value, ... |
| correlated | a correlation | outcome, images, within, line (pixels), text |
| legend | a treatment | line (pixels), label, colour, shape, fill |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import DgpruneError, Side, Tidy, is_missing, public
from ..stats import POOLED, rate_words
from .marks import COLOUR, FILL, SHAPE, check_table, layered, menu, point_marks, rows_of, tooltip
from .theme import (
    FIRST_SOURCE,
    FIRST_TARGET,
    FULL,
    FURTHER,
    SOLID,
    DomainStyle,
    Rows,
    finish,
    percent,
    plain,
    point_of,
    records,
    scorer_styles,
    shortened,
    with_minus,
)

_PADDING = {"left": 56, "right": 168, "top": 70, "bottom": 40}
_LINE = 17
_OUTCOMES = {
    ("accuracy", "last"): "accuracy, last epoch (%)",
    ("accuracy", "selected on test"): "accuracy, best epoch on test images (%)",
    ("generalization_gap", "last"): "generalization gap, last epoch (points)",
}
_GREEN, _SKY, _BROWN, _VIOLET = FURTHER
STYLES: Mapping[str, DomainStyle] = {
    arm: DomainStyle(colour=colour, dash=SOLID, shape=shape)
    for arm, colour, shape in (
        ("unpruned", FULL, "circle"),
        ("unpruned_longer", FULL, "square"),
        ("before", FULL, "triangle-down"),
        ("smallest_low", _SKY, "triangle-up"),
        ("smallest_high", FIRST_SOURCE, "circle"),
        ("random_high", _GREEN, "square"),
        ("largest_low", _BROWN, "triangle-up"),
        ("largest_high", FIRST_TARGET, "triangle-down"),
        ("zero_short", _VIOLET, "triangle-right"),
        ("zero_middle", _VIOLET, "square"),
        ("zero_long", _VIOLET, "cross"),
        ("noise", "#4C5B6B", "cross"),
    )
}
_SELECTED = "datum.outcome === outcome && datum.images === images"


@public
def treatments(
    frame: Tidy, correlations: Tidy, *, rate: str = POOLED, width: Side = 420, height: Side = 320
) -> alt.LayerChart:
    """Draw each run's result against its mean stability, as a dot with the colour and mark of its treatment.

    Above the plot stand the correlations over the runs that are shown, without the hollow controls, from which nothing
    was removed while they trained. In a live page (`dg.widgets.LiveChart(chart)`) images, outcome and pruning rate are
    chosen below the chart; a picture shows the first images, the accuracy at the last epoch and `rate`.

    Args:
        frame: table of the study `instability`, with the runs of one training setting (column `knob`).
        correlations: `experiments.instability_correlations(frame)`.
        rate: pruning rate of the correlations: "all rates", or a rate as text, as in the column `within`.
        width, height: size of the plot, in pixels.

    Raises:
        DgpruneError: tables of another kind; several training settings; an unknown rate.
    """
    check_table(frame, "the study instability", columns=("arm", "knob", "rate", "events", "stage"))
    check_table(correlations, "experiments.instability_correlations(frame)", columns=("measure", "within"))
    if len(knobs := list(dict.fromkeys(frame["knob"]))) > 1:
        raise DgpruneError(f"frame must hold one knob; it holds {', '.join(knobs)}. Pass frame[frame.knob == 'none'].")
    rows, lines = treated_rows(frame), correlated_rows(correlations)
    rates = list(dict.fromkeys(row["within"] for row in lines))
    if rate not in rates:
        raise DgpruneError(f"rate must be one of {', '.join(rates)}; got {rate!r}.")
    title = alt.Title(text="Do less stable runs end better?", offset=8)
    layers = _draw_layers(rows, lines, legend_rows(rows))
    chart = finish(layers, width=width, height=height, padding=_PADDING, title=title)
    images = list(dict.fromkeys(row["images"] for row in rows))
    outcomes = [text for text in _OUTCOMES.values() if text in {row["outcome"] for row in rows}]
    menus: list[Any] = [
        menu("images", images, value=images[0]),
        menu("outcome", outcomes, value=outcomes[0]),
        menu("rate", rates, value=rate),
    ]
    chart.params = menus
    return chart


def treated_rows(frame: pd.DataFrame) -> Rows:
    """Return the chart's rows; a run without a mean stability is not drawn."""
    keys = ("data_set", "arm", "training_seed")
    stable = {
        tuple(row[key] for key in keys): row
        for row in records(frame, metric="mean_stability")
        if is_missing(row["domain"])
    }
    others = dict.fromkeys(arm for arm in frame["arm"] if arm not in STYLES)
    styles, rows = {**STYLES, **dict(zip(others, scorer_styles(), strict=False))}, Rows()
    for row in records(frame):
        outcome, run = _OUTCOMES.get((row["metric"], row["stage"])), stable.get(tuple(row[key] for key in keys))
        if outcome is None or run is None or row["split"] != "report":
            continue
        control = not run["events"] > 0
        style = point_of(styles[row["arm"]]) | ({"fill": "transparent"} if control else {})
        rows.append(
            {
                "outcome": outcome,
                "images": row["domain"],
                "within": "" if control else rate_words(run["rate"]),
                "control": control,
                "arm": row["arm"],
                "treatment": plain(row["arm"]),
                "seed": int(row["training_seed"]),
                "events": int(run["events"]),
                "stable": float(run["value"]),
                "value": percent(row["value"], row["unit"]),
                **style,
            }
        )
    return rows


def correlated_rows(correlations: pd.DataFrame) -> Rows:
    """Return the lines above the plot: both correlations for each choice below the chart, and what pooling means."""
    rows: Rows = []
    for row in records(correlations):
        outcome = _OUTCOMES.get((row["of_metric"], row["stage"]))
        if row["measure"] != "mean_stability" or outcome is None:
            continue
        shared = {"outcome": outcome, "images": row["domain"], "within": row["within"]}
        interval = "" if is_missing(row["low"]) else f" ({row['low']:+.2f} to {row['high']:+.2f})"
        name = {"pearson": "Pearson", "kendall": "Kendall"}[row["metric"]]
        place = 0 if row["metric"] == "pearson" else 1
        count = f", {int(row['runs'])} runs" if place == 0 else ""
        rows.append({**shared, "line": place * 15, "text": with_minus(f"{name} {row['value']:+.2f}{interval}") + count})
        if place == 0 and not is_missing(row["note"]):
            rows.append({**shared, "line": 30, "text": f"Over all rates it {row['note']}."})
    return rows


def legend_rows(rows: Rows) -> Rows:
    """Return the legend: the mark of each treatment, in the order of the study."""
    first = {row["arm"]: row for row in reversed(rows)}
    order = [arm for arm in STYLES if arm in first] + [arm for arm in first if arm not in STYLES]
    fields = ("colour", "shape", "fill", "ring")
    return [
        {
            "line": _LINE * k,
            "label": shortened(first[arm]["treatment"], most=24),
            **{name: first[arm][name] for name in fields},
        }
        for k, arm in enumerate(order)
    ]


def _draw_layers(rows: Rows, lines: Rows, legend: Rows) -> alt.LayerChart:
    scale = alt.Scale(zero=False, nice=True, padding=8)
    x = alt.X("stable:Q", scale=scale, title="Mean stability of the run (%)", axis=alt.Axis(tickCount=6))
    y = alt.Y("value:Q", scale=scale, title=None, axis=alt.Axis(tickCount=6))
    selected = rows_of("treated", rows).transform_filter(
        f"{_SELECTED} && (datum.control || rate === '{POOLED}' || datum.within === rate)"
    )
    fields = {"treatment": "Treatment", "seed": "Training seed", "events": "Events"}
    tips = tooltip({**fields, "stable": ("Mean stability %", ".1f"), "value": ("Result", ".1f")})
    above = rows_of("correlated", lines).transform_filter(f"{_SELECTED} && datum.within === rate")
    head = alt.Chart(alt.InlineData(values=[{}])).mark_text(
        style="strong", align="left", x=-44, y=-64, text={"expr": "outcome + ', ' + images + ', ' + rate"}
    )
    side: Any = {"text": {"expr": "outcome"}, "x": -42, "y": {"expr": "height / 2"}}
    return layered(
        head,
        alt.Chart(alt.InlineData(values=[{}])).mark_text(style="words", align="center", angle=270, **side),
        above.mark_text(style="words", align="left", x=0, y={"expr": "datum.line - 48"}, dx=-44).encode(
            text=alt.Text("text:N")
        ),
        *point_marks(selected, size=54, stroke=1.6, at={"x": x, "y": y}, tips=tips),
        *legend_marks(legend),
    )


def legend_marks(legend: Rows, *, left: int | None = None) -> list[alt.Chart]:
    """Draw the rows of `legend_rows` to the right of the plot, or at `left` pixels where it is one of several."""
    key = rows_of("legend", legend)
    place: Any = {"x": {"expr": "width + 22" if left is None else str(left)}, "y": {"expr": "datum.line + 8"}}
    return [
        key.mark_point(size=54, strokeWidth=1.6, opacity=1, **place).encode(stroke=COLOUR, fill=FILL, shape=SHAPE),
        key.mark_text(style="words", align="left", baseline="middle", dx=10, **place).encode(text=alt.Text("label:N")),
    ]
