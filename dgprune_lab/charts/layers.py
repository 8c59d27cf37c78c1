"""Layer sensitivity: the accuracy change of each domain when one layer alone is pruned.

Named data: `layers` (place, layer, domain, label, change, low, high in percentage points; text, opacity, name, at,
first, colour, fill, shape, looked) and `span` (change): the ends of the axis, rounded to steps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import DgpruneError, Side, Tidy, exposure_label, exposure_of, is_missing, public
from .drop import CAPTION, CHANGE, POINTS, at_largest_ratio, change_of, span_rows
from .marks import (
    LEFT,
    OPACITY,
    ZERO,
    check_table,
    interval_marks,
    layered,
    row_labels,
    row_numbers,
    rows_of,
    signed_axis,
    tooltip,
)
from .theme import DomainStyle, Rows, beside, domain_styles_of, point_of, records, shortened, titled

ROW = 17
LETTERS = 30
_MEASURING = {"change": None, "low": None, "high": None, "text": "…", "opacity": 0.0}


@public
def layers(frame: Tidy, *, width: Side = 320) -> alt.HConcatChart:
    """Draw each domain's accuracy change, in percentage points, when one layer alone is pruned, for every layer.

    Layers stand in the order of execution, from the top. If the table holds several ratios, the largest is drawn.

    Args:
        frame: a table of `diagnostics.drop(study, by="layer")` of one network and one scorer.
        width: width of the plot, in pixels.

    Raises:
        DgpruneError: rows of several networks or scorers.
    """
    check_table(frame, "diagnostics.drop(study, by='layer')", columns=("group",), metrics=(CHANGE,), where=_is_of_layer)
    used = _read_layer_rows(frame)
    for column in ("network", "scorer"):
        names = sorted({str(row.get(column)) for row in used})
        if len(names) > 1:
            raise DgpruneError(
                f"layers are drawn for one {column} at a time; the table holds {', '.join(names)}. "
                f"Choose one: frame[frame.{column} == {names[0]!r}]."
            )
    rows = layer_rows(frame)
    removed = (
        [f"{100 * used[0]['ratio_requested']:.4g} % of the filters of one layer removed at a time."] if used else []
    )
    title = titled("Layer sensitivity", frame, below=[*removed, CAPTION], change=True)
    return layers_chart({"layers": rows, "span": span_rows(known(rows))}, width=width, title=title)


def layer_rows(
    frame: pd.DataFrame, *, estimates: Collection[tuple[str, str]] = (), styles: Mapping[str, DomainStyle] | None = None
) -> Rows:
    """Return the chart's rows, one per layer and domain, in percentage points; `styles` default to those of the frame.

    `estimates` are the pairs (layer, domain) measured on few images, drawn pale with a "~" before the number.
    """
    styles = styles or domain_styles_of(frame)
    rows: Rows = []
    for row in _read_layer_rows(frame):
        exposure, layer, domain = exposure_of(row), str(row["group"]), str(row["domain"])
        change, estimate = change_of(row), (row["group"], row["domain"]) in estimates
        change |= {"text": f"~ {change['text']}", "opacity": 0.45} if estimate else {"opacity": 1.0}
        point = point_of(styles[domain], exposure=exposure)
        label = domain + exposure_label(exposure)
        rows.append({"layer": layer, "domain": domain, "label": label, **change, **point})
    return placed(rows)


def waiting(layer: str, *, domain: str, style: DomainStyle) -> dict[str, Any]:
    """Return the row of a layer that has not been measured yet."""
    return {"layer": layer, "domain": domain, "label": domain, **_MEASURING, **point_of(style), "looked": ""}


def placed(rows: Rows) -> Rows:
    """Return the rows, adding their positions, shortened names, and the position where the layers' names end."""
    end = -24 - 6.4 * min(max((len(row["label"]) for row in rows), default=0), LETTERS)
    before = [None, *(row["layer"] for row in rows)]
    positioned: Rows = []
    for place, (row, previous) in enumerate(zip(rows, before, strict=False)):
        label, name = (shortened(row[key], most=LETTERS) for key in ("label", "layer"))
        first = row["layer"] != previous
        positioned.append({**row, "place": place, "label": label, "first": first, "name": name, "at": end})
    return positioned


def known(rows: Rows) -> Rows:
    """Return the rows that have been measured."""
    return [row for row in rows if row["change"] is not None]


def layers_chart(
    data: Mapping[str, Rows] | None = None, *, width: int = 300, title: alt.Title | None = None
) -> alt.HConcatChart:
    """Return the chart of these data; rows may come later."""
    data = data or {"layers": [], "span": span_rows([])}
    axis = signed_axis(tickCount=width // 48, orient="top")
    change = alt.X("change:Q", scale=alt.Scale(nice=False, zero=True), title=POINTS, axis=axis)
    y, top = alt.Y("place:O", axis=None), alt.Y("place:O", axis=None, bandPosition=0)
    base = rows_of("layers", data["layers"])
    first = base.transform_filter("datum.first")
    fields = {"layer": "Layer", "domain": "Domain", "change": ("Change, points", "+.1f")}
    tips = tooltip(fields, ends="+.1f", looked=True)
    chart = layered(
        rows_of("span", data["span"]).mark_point(opacity=0).encode(x=change),
        row_labels(base, y=y),
        first.mark_rule(style="track").encode(x=LEFT, x2=alt.X2Value("width"), y=top),
        first.mark_text(style="strong", align="right", fontWeight=600).encode(
            x=alt.X("at:Q", scale=None), y=y, text=alt.Text("name:N")
        ),
        base.mark_rule(**ZERO).encode(x=alt.XDatum(0)),
        row_numbers(base, y=y),
        *interval_marks(base, change, at={"y": y}, tips=tips, size=50, opacity=OPACITY),
    )
    return beside(chart.properties(width=width, height=alt.Step(ROW)), title=title)


def _is_of_layer(row: Mapping[str, Any]) -> bool:
    return not is_missing(row.get("group"))


def _read_layer_rows(frame: pd.DataFrame) -> Rows:
    """Return the rows of single layers at the largest ratio, ordered by layer as in the table, then by domain."""
    rows = [row for row in records(frame, metric=CHANGE) if _is_of_layer(row)]
    rows = at_largest_ratio(rows)
    order = {name: list(dict.fromkeys(row[name] for row in rows)) for name in ("group", "domain")}
    return sorted(rows, key=lambda row: tuple(names.index(row[name]) for name, names in order.items()))
