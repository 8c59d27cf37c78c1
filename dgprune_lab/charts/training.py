"""How well each domain is read while a network is tuned or trained, with a rule at every cut or event.

Named data, all of which a page may swap with `view.data(name, rows)`; `value`, `low`, `high` in percent:

| name | one row is | fields |
|---|---|---|
| curves | a measured network | domain, curve (the domain, or its training images), epoch, step, round, value, low, |
|        |                    | high, when, looked; line: colour of the line; of the point: colour, dash, shape, fill |
| cuts | a cut | epoch, label, told |
| names | the name at a line's end | domain, label, epoch, value, colour |
| ends | an end of the axis | epoch |
| unit | what the numbers at the rules are, of events | text |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import Exposure, exposure_of, strongest_exposure
from .sweep import domain_words
from .theme import DOTTED, domain_styles_of, finish, interval_of, layered, mark_of, named, records, shortened, spread

PADDING = {"left": 52, "right": 150, "top": 26, "bottom": 36}
COUNTED = {"filters": "filters", "parameters": "weights", "macs": "computation"}
WHEN = {"full": "the full network", "cut": "right after a cut", "tuned": "tuned", "trained": "trained"}
TRAINING = ", training images"
MOST_LABELS = 18  # of events; more would stand on each other
Data = dict[str, list[dict[str, Any]]]


def training(frame: pd.DataFrame, *, epochs: int | None = None, width: int = 520, height: int = 280) -> alt.LayerChart:
    """Draw the accuracy per domain against the epochs, named at the lines' ends, with a rule at every cut.

    A cut moves a line straight down or up: the network before and after it, at the same epoch. Of a training with
    pruning the rule says how many points the first source lost at once, and a dotted line is the images trained on.

    Args:
        frame: the table of `dg.prune_and_tune` or of `dg.train_with_pruning`, of one run.
        epochs: where the axis ends; at the last measured epoch where None.
        width, height: of the plot, in pixels.
    """
    data = training_data(frame, epochs=epochs, height=height)
    return finish(_layers(data), width=width, height=height, padding=PADDING)


def training_data(frame: pd.DataFrame, *, epochs: int | None = None, height: int = 280) -> Data:
    """The chart's named data, from a table or from as much of it as there is; the page swaps them as it grows."""
    used, style = records(frame, metric="accuracy"), domain_styles_of(frame)
    data: Data = {"curves": [], "cuts": [], "names": [], "ends": [], "unit": []}
    last: dict[str, dict[str, Any]] = {}
    apart = {str(row["domain"]) for row in used if row["split"] != "train"}
    exposures: dict[str, Exposure] = {
        name: strongest_exposure(exposure_of(row) for row in used if str(row["domain"]) == name) for name in style
    }
    for step, row in enumerate(used):
        value, low, high = interval_of(row)
        name, exposure = str(row["domain"]), exposure_of(row)
        trained = row["split"] == "train" and name in apart
        number = row["round"] if "round" in row else row["event"]
        point = {
            "domain": name,
            "curve": name + TRAINING * trained,
            "epoch": int(row["epoch"]),
            "step": step,
            "round": int(number),
            "value": value,
            "low": low,
            "high": high,
            "when": WHEN.get(str(row["stage"]), str(row["stage"])),
            "line": mark_of(style[name], exposure=exposures[name])["colour"],
            **mark_of(style[name], exposure=exposure),
        }
        point |= {"dash": list(DOTTED), "fill": "transparent"} if trained else {}
        words = TRAINING if trained else domain_words(style[name].words, exposure)
        label = shortened(name, most=min(22, max(7, 27 - len(words)))) + words
        if row["stage"] == "cut":
            told = f"{100 * row['ratio_achieved']:.0f} % of {COUNTED[row['budget']]} gone"
            cut = {"epoch": point["epoch"], "label": told, "told": told}
            if "event" in row:
                _add_event(data["cuts"], point, last[name]["value"])
            elif cut not in data["cuts"]:
                data["cuts"].append(cut)
        data["curves"].append(point)
        last[point["curve"]] = {**{key: point[key] for key in ("domain", "epoch", "value", "colour")}, "label": label}
    if data["cuts"] and "event" in used[0]:
        data["unit"] = [{"text": "points, at once"}]
    if len(data["cuts"]) > MOST_LABELS:
        data["cuts"] = [{**cut, "label": ""} for cut in data["cuts"]]
    data["names"] = spread(list(last.values()), gap=100.0 * 14 / max(height, 1))
    end = max([point["epoch"] for point in data["curves"]], default=1) if epochs is None else epochs
    data["ends"] = [{"epoch": 0}, {"epoch": max(end, 1)}]
    return data


def _add_event(cuts: list[dict[str, Any]], point: Mapping[str, Any], before: float) -> None:
    """What one domain lost or won at an event: the first domain's points stand at the rule, all in its tooltip."""
    lost = f"{point['value'] - before:+.1f}".replace("-", "\N{MINUS SIGN}")
    told = f"{point['domain']} {lost} points"
    if cuts and cuts[-1]["epoch"] == point["epoch"]:
        cuts[-1]["told"] += f", {told}"
    else:
        cuts.append({"epoch": point["epoch"], "label": lost, "told": f"event {point['round']}: {told}"})


def _layers(data: Mapping[str, list[dict[str, Any]]]) -> alt.LayerChart:
    """Bands, lines, points and names, in front of the rules."""
    axis = alt.Axis(tickCount=8, labelExpr="datum.value % 1 ? '' : datum.label")
    epoch = alt.X("epoch:Q", scale=alt.Scale(nice=False, zero=True), title="Epochs", axis=axis)
    scale, title = alt.Scale(domain=[0, 100], nice=False), "Accuracy (%)"
    value, low = (alt.Y(f"{f}:Q", scale=scale, title=title, axis=alt.Axis(tickCount=5)) for f in ("value", "low"))
    inside, shape = alt.Fill("fill:N", scale=None), alt.Shape("shape:N", scale=None)
    curves = alt.Chart(alt.NamedData(name="curves"))
    tips = [
        alt.Tooltip("curve:N", title="Images"),
        alt.Tooltip("epoch:Q", title="Epochs"),
        alt.Tooltip("when:N", title="Network"),
        alt.Tooltip("value:Q", title="Accuracy %", format=".1f"),
        alt.Tooltip("low:Q", title="from", format=".1f"),
        alt.Tooltip("high:Q", title="to", format=".1f"),
        alt.Tooltip("looked:N", title="Looked at before"),
    ]
    return layered(
        alt.Chart(named("ends", data["ends"])).mark_point(opacity=0).encode(x=epoch),
        alt.Chart(named("cuts", data["cuts"]))
        .mark_rule(style="ink", strokeWidth=1, opacity=0.45)
        .encode(x=epoch, tooltip=alt.Tooltip("told:N", title="At once")),
        alt.Chart(alt.NamedData(name="cuts"))
        .mark_text(style="words", align="left", dx=3, dy=-13)
        .encode(x=epoch, y=alt.value(0), text="label:N"),
        alt.Chart(named("curves", data["curves"]))
        .mark_area(opacity=0.13)
        .encode(x=epoch, y=low, y2="high:Q", fill=alt.Fill("line:N", scale=None), detail=["curve:N", "round:N"]),
        curves.mark_line(strokeWidth=2).encode(
            x=epoch,
            y=value,
            stroke=alt.Stroke("line:N", scale=None),
            order="step:Q",
            detail="curve:N",
            strokeDash=alt.StrokeDash("dash:N", scale=None),
        ),
        curves.mark_point(size=26, strokeWidth=1.2, opacity=1).encode(
            x=epoch, y=value, stroke=alt.Stroke("colour:N", scale=None), fill=inside, shape=shape, tooltip=tips
        ),
        alt.Chart(named("names", data["names"]))
        .mark_text(align="left", dx=8, limit=PADDING["right"], fontSize=10.5, fontWeight=600)
        .encode(x=epoch, y=value, text="label:N", fill=alt.Fill("colour:N", scale=None)),
        alt.Chart(named("unit", data["unit"]))
        .mark_text(style="words", align="left", dx=8, dy=-13)
        .encode(x=alt.value("width"), y=alt.value(0), text="text:N"),
    )
