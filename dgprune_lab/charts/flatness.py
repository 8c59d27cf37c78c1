"""Flatness: the loss along the first two eigenvectors of the Hessian, with the pruned network marked.

Named data, all of which a live page may replace with `view.data(name, rows)`:

| name | one row is | fields |
|---|---|---|
| curves | a step along an eigenvector | rank, step (%), loss, low, high, colour, dash |
| names | the line above the plot that names an eigenvector | text, line (pixels), colour, dash, shape |
| pruned | the pruned network along an eigenvector | step (%), loss, text, colour, shape |
| words | a sentence above the plot | text, line (pixels) |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import DgpruneError, Side, Tidy, is_missing, public
from .marks import COLOUR, DASH, LEFT, SHAPE, TEXT_COLOUR, check_table, for_field, layered, rows_of, tooltip
from .theme import Data, Rows, finish, grouped, marked, records, scorer_styles, titled

PADDING = {"left": 64, "right": 24, "top": 84, "bottom": 42}
_LEAST = 1e-9
_LINES = (-66, -50, -30, -14)  # pixels above the plot: two eigenvectors, then two sentences
_EIGENVECTORS = 2


@public
def flatness(frame: Tidy, *, width: Side = 560, height: Side = 300) -> alt.LayerChart:
    """Draw the training loss of one network along the first two eigenvectors of its Hessian, on a log scale.

    Lines: L(w + step |w| v); bands: the interval over images. Hollow marks: the pruned network, at its loss and at the
    step along each eigenvector that comes closest to it. It lies off the plane of the two eigenvectors, by the distance
    given above the plot, and so need not lie on the lines.

    Args:
        frame: a table of `diagnostics.flatness` of one network; with `mask=` for the pruned network.
        width, height: size of the plot, in pixels.

    Raises:
        DgpruneError: a table without losses along eigenvectors, or of several networks.
    """
    check_table(frame, "diagnostics.flatness(study)", columns=("rank", "step", "weight_norm"), metrics=("loss",))
    networks = list(frame["network"].dropna().unique()) if "network" in frame.columns else []
    if len(networks) > 1:
        raise DgpruneError(
            f"frame holds the surroundings of {len(networks)} networks; draw each by itself: "
            f"frame[frame.network == {networks[0]!r}]."
        )
    data = flatness_data(frame)
    if not data["curves"]:
        raise DgpruneError(
            "the table has no losses to draw; make one with diagnostics.flatness(study), steps not empty."
        )
    return flatness_chart(data, width=width, height=height, title=titled("Flatness", frame))


def flatness_data(frame: pd.DataFrame) -> Data:
    """Return the chart's named data from a table of one network, which may have no pruned network."""
    data: Data = {"curves": [], "names": [], "pruned": [], "words": []}
    losses, closest = (
        grouped(records(frame, metric=metric), lambda row: row["rank"]) for metric in ("loss", "pruned_step")
    )
    for row, style, line in zip(
        records(frame, metric="hessian_eigenvalue"), scorer_styles(), _LINES[:_EIGENVECTORS], strict=False
    ):
        rank, mark = row["rank"], {"colour": style.colour, "dash": list(style.dash), "shape": style.shape}
        name = f"eigenvector {rank:.0f}, eigenvalue {row['value']:.4g}"
        data["names"].append({"text": name, "line": line, **mark})
        for step_row in losses.get(rank, ()):
            ends = {end: max(step_row[end], _LEAST) for end in ("low", "high") if not is_missing(step_row[end])}
            point = {"rank": name, "step": 100 * step_row["step"], "loss": max(step_row["value"], _LEAST)}
            data["curves"].append({**point, **ends, **mark})
        for loss in records(frame, metric="pruned_loss"):
            for step_row in closest.get(rank, ()):
                point = {"rank": name, "step": 100 * step_row["value"], "loss": max(loss["value"], _LEAST)}
                data["pruned"].append({**point, **mark})
    data["words"] = [
        {"text": text, "line": line} for text, line in zip(pruned_words(frame), _LINES[_EIGENVECTORS:], strict=False)
    ]
    return data


def pruned_words(frame: pd.DataFrame) -> list[str]:
    """Return two sentences on where the pruned network lies, or none if the table has no pruned network."""
    pruned = {row["metric"]: row for row in records(frame) if str(row["metric"]).startswith("pruned_")}
    if "pruned_loss" not in pruned:
        return []
    loss, distance, off_plane = (pruned[f"pruned_{name}"] for name in ("loss", "distance", "off_plane"))
    mask = f"{100 * loss['ratio_achieved']:.3g} % removed by {marked(str(loss['scorer']), loss['target_aware'])}"
    return [
        f"Hollow marks: the pruned network ({mask}), loss {loss['value']:.3g}.",
        f"It is {100 * distance['value']:.3g} % of the weights’ norm away, and {100 * off_plane['value']:.3g} % off "
        "the plane of the eigenvectors.",
    ]


def flatness_chart(
    data: Mapping[str, Rows], *, title: alt.Title | None = None, width: int = 560, height: int = 300
) -> alt.LayerChart:
    """Return the chart of these data, which may be empty and come later."""
    scale = alt.Scale(type="log", nice=False, padding=8)
    axis = alt.Axis(format="~g", tickCount=5, grid=False)
    step_title, across = "Step along the eigenvector (% of the weights’ norm)", alt.Scale(nice=False, padding=8)
    step: Any = alt.X("step:Q", title=step_title, scale=across, axis=alt.Axis(tickCount=10))
    loss = alt.Y("loss:Q", title="Loss on the training images", scale=scale, axis=axis)
    fields = {"rank": "Along", "step": ("Step %", ".3~g"), "loss": ("Loss", ".4~g")}
    curves, names, pruned = (rows_of(name, data[name]) for name in ("curves", "names", "pruned"))
    band = {"x": step, "y": for_field(loss, "low"), "y2": alt.Y2("high:Q"), "color": alt.Color("colour:N", scale=None)}
    at: Any = {"y": {"expr": "datum.line"}}
    sentences = rows_of("words", data["words"]).mark_text(style="strong", align="left", baseline="middle", **at)
    chart = layered(
        curves.mark_area(opacity=0.16).encode(**band, detail=alt.Detail("rank:N")),
        curves.mark_line(strokeWidth=2).encode(
            x=step, y=loss, stroke=COLOUR, strokeDash=DASH, detail=alt.Detail("rank:N")
        ),
        curves.mark_point(size=22, opacity=1, filled=True).encode(
            x=step, y=loss, fill=TEXT_COLOUR, shape=SHAPE, tooltip=tooltip(fields, ends=".4~g")
        ),
        pruned.mark_rule(strokeDash=[2, 3], strokeWidth=1.2).encode(x=step, stroke=COLOUR),
        pruned.mark_point(size=170, strokeWidth=2.4, opacity=1).encode(
            x=step, y=loss, stroke=COLOUR, shape=SHAPE, tooltip=tooltip(fields)
        ),
        names.mark_rule(strokeWidth=2, **at).encode(x=LEFT, x2=alt.X2Value(34), stroke=COLOUR, strokeDash=DASH),
        names.mark_point(size=40, x=17, filled=True, opacity=1, **at).encode(fill=TEXT_COLOUR, shape=SHAPE),
        names.mark_text(align="left", baseline="middle", dx=42, fontWeight=600, **at).encode(
            x=LEFT, text=alt.Text("text:N"), fill=TEXT_COLOUR
        ),
        sentences.encode(x=LEFT, text=alt.Text("text:N")),
    )
    return finish(chart, width=width, height=height, padding=PADDING, title=title)
