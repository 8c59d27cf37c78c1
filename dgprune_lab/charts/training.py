"""Accuracy per domain while a network is fine-tuned or trained, with a rule at every cut or event.

Named data, all of which a live page may replace with `view.data(name, rows)`; `value`, `low`, `high` in percent:

| name | one row is | fields |
|---|---|---|
| curves | a measured network | domain, curve (the domain, or its training images), epoch, step, round, value, low, |
|        |                    | high, when, looked; colour, dash, shape, fill, ring |
| cuts | a cut | epoch, label, tip: text of the tooltip |
| names | the name at a line's end | domain, label, epoch, value, colour |
| ends | an end of the axis | epoch |
| unit | the unit of the numbers beside the rules of events | text |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import Count, Side, Tidy, exposure_of, public
from .marks import (
    COLOUR,
    DASH,
    LABEL_HEIGHT,
    RIGHT,
    TEXT_COLOUR,
    check_table,
    for_field,
    layered,
    line_names,
    point_marks,
    rows_of,
    spread,
    tooltip,
)
from .sweep import domain_label, line_label
from .theme import DOTTED, Data, Rows, domain_styles_of, finish, interval_of, mark_of, points_text, records, titled

PADDING = {"left": 52, "right": 150, "top": 26, "bottom": 36}
COUNTED = {"filters": "filters", "parameters": "parameters", "macs": "MACs"}
WHEN = {"full": "the full network", "cut": "right after a cut", "tuned": "fine-tuned", "trained": "trained"}
TRAINING = ", training images"
MOST_LABELS = 18  # of events; more would overlap


@public
def training(frame: Tidy, *, epochs: Count | None = None, width: Side = 520, height: Side = 280) -> alt.LayerChart:
    """Draw the accuracy of each domain against the epochs, a rule at every cut, and names at the ends of lines.

    At a cut a line moves straight down or up, from the network before the cut to the one after it, at the same epoch.
    For a training run with pruning, the rule says how many percentage points the first source lost, and a dotted line
    shows the accuracy on training images.

    Args:
        frame: the table of one run of `dg.prune_and_tune` or `dg.train_with_pruning`.
        epochs: epoch at which the axis ends; None for the last measured epoch.
        width, height: size of the plot, in pixels.
    """
    check_table(frame, "dg.prune_and_tune or dg.train_with_pruning", columns=("stage", "epoch"), metrics=("accuracy",))
    chart = _draw_layers(training_data(frame, epochs=epochs, height=height))
    title = titled("Accuracy during training", frame)
    return finish(chart, width=width, height=height, padding=PADDING, title=title)


def training_data(frame: pd.DataFrame, *, epochs: int | None = None, height: int = 280) -> Data:
    """Return the chart's named data from a table, which may be incomplete."""
    used, styles = records(frame, metric="accuracy"), domain_styles_of(frame)
    data: Data = {"curves": [], "cuts": [], "names": [], "ends": [], "unit": []}
    last: dict[str, dict[str, Any]] = {}
    reported = {str(row["domain"]) for row in used if row["split"] != "train"}
    for step, row in enumerate(used):
        name, exposure = str(row["domain"]), exposure_of(row)
        on_training = row["split"] == "train" and name in reported
        number = int(row["round"] if "round" in row else row["event"])
        place = {"domain": name, "curve": name + TRAINING * on_training, "epoch": int(row["epoch"]), "step": step}
        when = {"round": number, "when": WHEN.get(str(row["stage"]), str(row["stage"]))}
        point = {**place, **when, **interval_of(row), **mark_of(styles[name], exposure=exposure)}
        point |= {"dash": list(DOTTED), "fill": "transparent"} if on_training else {}
        if row["stage"] == "cut":
            _add_cut(data["cuts"], row, point=point, before=last.get(name))
        data["curves"].append(point)
        label = line_label(name, TRAINING if on_training else domain_label(styles[name].role, exposure))
        last[point["curve"]] = {**{key: point[key] for key in ("domain", "epoch", "value", "colour")}, "label": label}
    if data["cuts"] and "event" in used[0]:
        data["unit"] = [{"text": "points, at once"}]
    if len(data["cuts"]) > MOST_LABELS:
        data["cuts"] = [{**cut, "label": ""} for cut in data["cuts"]]
    data["names"] = spread(list(last.values()), gap=100.0 * LABEL_HEIGHT / max(height, 1))
    end = max([point["epoch"] for point in data["curves"]], default=1) if epochs is None else epochs
    data["ends"] = [{"epoch": 0}, {"epoch": max(end, 1)}]
    return data


def _add_cut(cuts: Rows, row: Mapping[str, Any], *, point: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    """Add a cut, labelled with the share removed (or, for an event, the first domain's change in percentage points)."""
    if "event" not in row or before is None:
        text = f"{100 * row['ratio_achieved']:.0f} % of {COUNTED[row['budget']]} removed"
        cut = {"epoch": point["epoch"], "label": text, "tip": text}
        if cut not in cuts:
            cuts.append(cut)
        return
    lost = points_text(point["value"] - before["value"])
    text = f"{point['domain']} {lost} points"
    if cuts and cuts[-1]["epoch"] == point["epoch"]:
        cuts[-1]["tip"] += f", {text}"
    else:
        cuts.append({"epoch": point["epoch"], "label": lost, "tip": f"event {point['round']}: {text}"})


def _draw_layers(data: Mapping[str, Rows]) -> alt.LayerChart:
    """Draw bands, lines, points and names in front of the rules."""
    axis = alt.Axis(tickCount=8, format="d", labelExpr="datum.value % 1 ? '' : datum.label")
    x = alt.X("epoch:Q", scale=alt.Scale(nice=False, zero=True), title="Epochs", axis=axis)
    scale = alt.Scale(domain=[0, 100], nice=False)
    y = alt.Y("value:Q", scale=scale, title="Accuracy (%)", axis=alt.Axis(tickCount=5))
    curves, cuts = rows_of("curves", data["curves"]), rows_of("cuts", data["cuts"])
    fields = {"curve": "Images", "epoch": "Epochs", "when": "Network", "value": ("Accuracy %", ".1f")}
    tips = tooltip(fields, ends=".1f", looked=True)
    line = {"stroke": COLOUR, "strokeDash": DASH, "order": alt.Order("step:Q"), "detail": alt.Detail("curve:N")}
    band = {"y2": alt.Y2("high:Q"), "fill": TEXT_COLOUR, "detail": [alt.Detail("curve:N"), alt.Detail("round:N")]}
    share: dict[str, Any] = {"style": "words", "align": "left", "dy": -13}
    return layered(
        rows_of("ends", data["ends"]).mark_point(opacity=0).encode(x=x),
        cuts.mark_rule(style="ink", strokeWidth=1, opacity=0.45).encode(x=x, tooltip=tooltip({"tip": "At once"})),
        cuts.mark_text(dx=3, **share).encode(x=x, y=alt.YValue(0), text=alt.Text("label:N")),
        curves.mark_area(opacity=0.13).encode(x=x, y=for_field(y, "low"), **band),
        curves.mark_line(strokeWidth=2).encode(x=x, y=y, **line),
        *point_marks(curves, size=26, stroke=1.2, at={"x": x, "y": y}, tips=tips),
        line_names(rows_of("names", data["names"]), x=x, y=y, limit=PADDING["right"]),
        rows_of("unit", data["unit"])
        .mark_text(dx=8, **share)
        .encode(x=RIGHT, y=alt.YValue(0), text=alt.Text("text:N")),
    )
