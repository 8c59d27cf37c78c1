"""Layer by layer: what each domain loses when one layer alone is pruned.

Named data: `layers` (place, layer, domain, label, change, low, high in points of accuracy; text, at, first and the
fields of a mark) and `span` (change): the ends of the axis, in steps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import DgpruneError, exposure_label, exposure_of, is_missing
from .drop import CAPTION, CHANGE, span_rows
from .theme import DomainStyle, beside, domain_styles_of, interval_of, layered, mark_of, named, records, shortened

ROW = 17
LETTERS = 30
_MINUS = "\N{MINUS SIGN}"
_MEASURING = {"change": None, "low": None, "high": None, "text": "…", "opacity": 0.0, "looked": ""}

Rows = list[dict[str, Any]]


def layers(frame: pd.DataFrame, *, width: int = 320) -> alt.HConcatChart:
    """Draw the change of accuracy per layer and domain when that layer alone is pruned, in points around 0.

    Layers stand in the order of execution, from the top. Where a table holds several ratios the largest is drawn.

    Args:
        frame: a table of `diagnostics.drop(study, by="layer")` of one network and one scorer.
        width: of the plot, in pixels.

    Raises:
        DgpruneError: rows of several networks or scorers.
    """
    used = _used(frame)
    for column in ("network", "scorer"):
        found = sorted({str(row.get(column)) for row in used})
        if len(found) > 1:
            raise DgpruneError(
                f"layers are drawn for one {column} at a time; the table holds {', '.join(found)}. "
                f"Choose one: frame[frame.{column} == {found[0]!r}]."
            )
    rows = layer_rows(frame)
    what = (
        f"One layer alone loses {100 * used[0]['ratio_requested']:.4g} % of its filters" if used else "Layer by layer"
    )
    whole = layers_chart({"layers": rows, "span": span_rows(known(rows))}, width=width)
    whole.title = alt.Title(text=what, subtitle=[CAPTION], offset=10)
    return whole


def layer_rows(
    frame: pd.DataFrame, *, estimates: Collection[tuple[str, str]] = (), style: Mapping[str, DomainStyle] | None = None
) -> Rows:
    """The chart's rows in points, per layer and domain; `estimates` are (layer, domain) measured on few images.

    An estimate is pale and its number begins with "~". `style` is how each domain looks, from the frame if not given.
    """
    style, found = style or domain_styles_of(frame), []
    used = sorted(_used(frame), key=_order(frame))
    for row in used:
        change, low, high = interval_of(row)
        exposure = exposure_of(row)
        layer, rough = str(row["group"]), (row["group"], row["domain"]) in estimates
        text = ("~ " if rough else "") + (f"{change:+.1f}".replace("-", _MINUS) if abs(change) >= 0.05 else "0.0")
        mark = mark_of(style[str(row["domain"])], exposure=exposure)
        found.append(
            {
                "layer": layer,
                "domain": str(row["domain"]),
                "label": str(row["domain"]) + exposure_label(exposure),
                "change": change,
                "low": low,
                "high": high,
                "text": text,
                "opacity": 0.45 if rough else 1.0,
                **{key: mark[key] for key in ("colour", "fill", "shape", "looked")},
            }
        )
    return placed(found)


def waiting(layer: str, *, domain: str, look: DomainStyle) -> dict[str, Any]:
    """The row of a layer that is not measured yet."""
    mark = mark_of(look)
    return {
        **_MEASURING,
        "layer": layer,
        "domain": domain,
        "label": domain,
        **{key: mark[key] for key in ("colour", "fill", "shape")},
    }


def placed(rows: Rows) -> Rows:
    """Rows with their places, names cut to a length, and where the names of the layers end."""
    longest = max((len(row["label"]) for row in rows), default=0)
    before = [None, *(row["layer"] for row in rows)]
    return [
        {
            **row,
            "place": k,
            "label": shortened(row["label"], most=LETTERS),
            "first": row["layer"] != before[k],
            "name": shortened(row["layer"], most=LETTERS),
            "at": -24 - 6.4 * min(longest, LETTERS),
        }
        for k, row in enumerate(rows)
    ]


def known(rows: Rows) -> Rows:
    """Those that are measured."""
    return [row for row in rows if row["change"] is not None]


def layers_chart(data: Mapping[str, Rows] | None = None, *, width: int = 300) -> alt.HConcatChart:
    """The chart itself; rows may be fed later."""
    data = data or {"layers": [], "span": span_rows([])}
    axis = alt.Axis(tickCount=5, orient="top", labelExpr="datum.value > 0 ? '+' + datum.label : datum.label")
    scale, title = alt.Scale(nice=False, zero=True), "Points of accuracy"
    place, top = alt.Y("place:O", axis=None), alt.Y("place:O", axis=None, bandPosition=0)
    colour, fill = alt.Stroke("colour:N", scale=None), alt.Fill("fill:N", scale=None)
    shape, seen = alt.Shape("shape:N", scale=None), alt.Opacity("opacity:Q", scale=None)
    change = alt.X("change:Q", scale=scale, title=title, axis=axis)
    base = alt.Chart(alt.NamedData(name="layers"))
    first = base.transform_filter("datum.first")
    tips = [
        alt.Tooltip("layer:N", title="Layer"),
        alt.Tooltip("domain:N", title="Domain"),
        alt.Tooltip("change:Q", title="Change, points", format="+.1f"),
        alt.Tooltip("low:Q", title="from", format="+.1f"),
        alt.Tooltip("high:Q", title="to", format="+.1f"),
        alt.Tooltip("looked:N", title="Looked at before"),
    ]
    drawn = layered(
        alt.Chart(named("span", data["span"])).mark_point(opacity=0).encode(x=change),
        alt.Chart(named("layers", data["layers"]))
        .mark_text(style="words", align="right", dx=-9)
        .encode(x=alt.value(0), y=place, text="label:N"),
        first.mark_rule(style="track").encode(x=alt.value(0), x2=alt.value("width"), y=top),
        first.mark_text(style="strong", align="right", fontWeight=600).encode(
            x=alt.X("at:Q", scale=None), y=place, text="name:N"
        ),
        base.mark_rule(style="ink", strokeWidth=1, opacity=0.6).encode(x=alt.datum(0)),
        base.mark_text(style="strong", align="left", dx=12).encode(x=alt.value("width"), y=place, text="text:N"),
        base.mark_rule(strokeWidth=2.2).encode(
            x=alt.X("low:Q", title=title), x2="high:Q", y=place, stroke=colour, opacity=seen
        ),
        base.mark_point(size=50, strokeWidth=1.8).encode(
            x=change, y=place, stroke=colour, fill=fill, shape=shape, opacity=seen, tooltip=tips
        ),
    )
    return beside(drawn.properties(width=width, height=alt.Step(ROW)))


def _used(frame: pd.DataFrame) -> Rows:
    """Rows of single layers at the largest ratio."""
    rows = [row for row in records(frame, metric=CHANGE) if not is_missing(row.get("group"))]
    last = max((row["ratio_requested"] for row in rows), default=None)
    return [row for row in rows if row["ratio_requested"] == last]


def _order(frame: pd.DataFrame) -> Any:
    """Layers as they come, within them the domains as they come."""
    rows = _used(frame)
    layers = list(dict.fromkeys(row["group"] for row in rows))
    domains = list(dict.fromkeys(row["domain"] for row in rows))
    return lambda row: (layers.index(row["group"]), domains.index(row["domain"]))
