"""Several measures of the same networks: a row per measure, a dot with its interval per network.

Named data: `measures` (measure, meaning, network, line in pixels; share, low, high, relative to the largest number of
the row; text, colour, shape) and `names` (line, label, verdict).
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import altair as alt

from ..core import DgpruneError, Side, Tidy, is_missing, public
from ..stats import alike
from .marks import COLOUR, RIGHT, SHAPE, TEXT_COLOUR, check_table, for_field, layered, row_labels, rows_of, tooltip
from .theme import Rows, ends_of, finish, grouped, plain, records, scorer_styles, shortened

_MEANING = {
    "prunability": "smallest share of the weights that keeps the loss",
    "parameter_count": "number of parameters",
    "l2_norm": "length of the vector of all weights",
    "distance_from_initialisation": "how far training has moved the weights",
    "margin": "logit of the true class minus the largest other; nine images of ten have more",
    "sharpness": "largest noise on the weights that keeps the loss",
    "random_perturbation": "as prunability, but the weights move equally far in a random direction",
    "sam_sharpness": "how much the loss rises in the worst direction",
    "hessian_trace": "how strongly the loss curves upwards around the weights",
    "training_loss": "loss on the training images",
}
_SHARES = ("prunability", "random_perturbation")
_ROW, _APART, _LETTERS, _HEAD = 32, 11, 30, 30
_EDGE = 0.03  # of the axis, beyond the last number
_PADDING = {"left": 272, "right": 226, "top": _HEAD, "bottom": 56}


@public
def generalization_measures(frame: Tidy, *, measured: str | None = None, width: Side = 300) -> alt.LayerChart:
    """Draw every measure of two or more networks, and which network each predicts to generalise best.

    A row per measure. Values are divided by the largest number of their row, the ends of intervals included, so that
    measures of all units share one axis; the tooltip has the value itself and the meaning of the measure. Rules are the
    intervals that the table holds: over images, 95 %. One correct prediction tells little about a measure: guessing
    finds the better of two networks half of the time.

    Args:
        frame: a table of `diagnostics.generalization_measures`.
        measured: name of the network that was measured to generalise best, which adds "right" or "wrong" to
            predictions; None if that is not known or not significant.
        width: width of the plot, in pixels.

    Raises:
        DgpruneError: a table of another kind or without measures; a `measured` that names no network; two rows with the
            same network and measure.
    """
    check_table(frame, "diagnostics.generalization_measures(studies)", columns=("network", "better_direction"))
    used = [row for row in records(frame) if not is_missing(row["better_direction"]) and not is_missing(row["value"])]
    names = list(dict.fromkeys(str(row["network"]) for row in used))
    if not used:
        raise DgpruneError("frame has no measures to draw; make it with diagnostics.generalization_measures(studies).")
    if measured is not None and measured not in names:
        raise DgpruneError(f"measured must be one of {names}; got {measured!r}.")
    measures = grouped(used, lambda row: str(row["metric"]))
    points, labels = Rows(), Rows()
    for place, (measure, rows) in enumerate(measures.items()):
        if len({row["network"] for row in rows}) < len(rows):
            raise DgpruneError(f"frame has several rows of one network for {measure!r}; draw one setting at a time.")
        line = (place + 0.5) * _ROW
        points += _point_rows(rows, names, line=line)
        name = shortened(plain(measure), most=_LETTERS) + ", share kept" * (measure in _SHARES)
        label = f"{name} ({rows[0]['better_direction']}: better)"
        labels.append({"line": line, "label": label, "verdict": _state_verdict(rows, measured=measured)})
    text = "Which network does each measure predict to generalise best?"
    layers = _draw_layers(points, labels, names, height=_ROW * len(measures))
    title = alt.Title(text=text, offset=8)
    return finish(layers, width=width, height=_ROW * len(measures), padding=_PADDING, title=title)


def _point_rows(rows: Rows, names: list[str], *, line: float) -> Rows:
    """Return the points of one measure for every network, relative to the largest number of the row."""
    ends = [ends_of(row) for row in rows]
    most = max(abs(number) for numbers in ends for number in numbers.values()) or 1.0
    points: Rows = []
    for row, numbers in zip(rows, ends, strict=True):
        place = names.index(str(row["network"]))
        about = {"measure": row["metric"], "network": names[place], "unit": row["unit"], "number": row["value"]}
        about["meaning"] = _MEANING.get(str(row["metric"]), "")
        shares = {"share": numbers["value"] / most, "low": numbers["low"] / most, "high": numbers["high"] / most}
        at = {"line": line + _APART * (place - (len(names) - 1) / 2)}
        points.append({**about, **shares, **at, **_style(place)})
    return points


def _style(place: int) -> dict[str, Any]:
    """Return colour and mark of the k-th network, the same as in the chart of prunability."""
    style = next(islice(scorer_styles(), place, None))
    return {"colour": style.colour, "shape": style.shape}


def _state_verdict(rows: Rows, *, measured: str | None) -> str:
    """Return which network a measure predicts, whether that is right, and whether two intervals overlap.

    >>> row = {"better_direction": "lower", "low": None, "high": None}
    >>> _state_verdict([{**row, "network": "A", "value": 1.0}, {**row, "network": "B", "value": 2.0}], measured="B")
    'predicts A: wrong'
    """
    better = min if rows[0]["better_direction"] == "lower" else max
    values = {str(row["network"]): float(row["value"]) for row in rows}
    equal = rows[0].get("metric") == "training_loss" and alike(values.values())
    winners = [name for name, value in values.items() if equal or value == better(values.values())]
    if len(winners) > 1:
        return "predicts neither" if len(rows) == 2 else "a tie"
    text = f"predicts {shortened(winners[0], most=12)}"
    if measured is not None:
        text += ": right" if winners[0] == measured else ": wrong"
    known = not any(is_missing(row[name]) for row in rows for name in ("low", "high"))
    if known and len(rows) == 2 and max(row["low"] for row in rows) <= min(row["high"] for row in rows):
        text += ", intervals overlap"
    return text


def _draw_layers(points: Rows, labels: Rows, names: list[str], *, height: int) -> alt.LayerChart:
    """Draw names, intervals with marks, predictions at the right, and the networks above."""
    least = min(0.0, *(row["low"] for row in points))
    x = alt.X(
        "share:Q",
        scale=alt.Scale(domain=[least - _EDGE, 1 + _EDGE], nice=False),
        title=["Divided by the largest number of the row,", "which is a dot or the end of an interval"],
        axis=alt.Axis(tickCount=4, grid=False),
    )
    y = alt.Y("line:Q", scale=alt.Scale(domain=[height, 0], nice=False, zero=False), axis=None)
    fields = {"measure": "Measure", "network": "Network", "number": ("Value", ".4~g"), "unit": "Unit"}
    fields["meaning"] = "What it is"
    base, rows = rows_of("measures", points), rows_of("names", labels)
    legend = rows_of(
        "legend", [{"label": shortened(name, most=18), "at": 6 + 90 * k, **_style(k)} for k, name in enumerate(names)]
    )
    at: Any = {"y": -13, "x": {"expr": "datum.at"}}
    mark: dict[str, Any] = {"fill": TEXT_COLOUR, "shape": SHAPE}
    return layered(
        base.mark_rule(strokeWidth=2.2).encode(y=y, x=for_field(x, "low"), x2=alt.X2("high:Q"), stroke=COLOUR),
        base.mark_point(size=64, opacity=1, filled=True).encode(y=y, x=x, tooltip=tooltip(fields), **mark),
        row_labels(rows, y=y),
        rows.mark_text(style="strong", align="left", dx=12).encode(x=RIGHT, y=y, text=alt.Text("verdict:N")),
        legend.mark_point(size=52, opacity=1, filled=True, **at).encode(**mark),
        legend.mark_text(style="words", align="left", baseline="middle", dx=10, **at).encode(text=alt.Text("label:N")),
    )
