"""How many images turned from right to wrong, and how many from wrong to right, per domain.

Named data: `turned_wrong` and `turned_right` (label, value, low, high in percent of the images; text, the fields of a
mark).
"""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from ..core import exposure_label, exposure_of, scorer_exposure
from .drop import CAPTION, is_whole
from .theme import beside, domain_styles_of, interval_of, layered, mark_of, named, records

METRICS = {"right_to_wrong": "Turned wrong (% of the images)", "wrong_to_right": "Turned right (% of the images)"}
_NAMES = {"right_to_wrong": "turned_wrong", "wrong_to_right": "turned_right"}
ROW = 24

Rows = list[dict[str, Any]]


def flips(frame: pd.DataFrame, *, width: int = 260) -> alt.HConcatChart:
    """Draw the shares of images that turned wrong and that turned right, a dot with its interval per domain.

    Args:
        frame: a table of `diagnostics.flips`; of several ratios the largest is drawn.
        width: of one plot, in pixels.
    """
    rows = {metric: flip_rows(frame, metric=metric) for metric in METRICS}
    most = max((row["high"] for held in rows.values() for row in held), default=0.0)
    end = next((step for step in (5, 10, 25, 50, 100) if most <= step), 100)
    drawn = beside(*(_plot(metric, rows[metric], end, width) for metric in METRICS), spacing=36)
    drawn.title = alt.Title(text=CAPTION, fontSize=12, fontWeight="normal", color="#5B6470", offset=12)
    return drawn


def flip_rows(frame: pd.DataFrame, *, metric: str) -> Rows:
    """The rows of one plot in percent, with the number of images in words."""
    counts = {_key(row): row["value"] for row in records(frame, metric=f"{metric}_count")}
    used, style = [row for row in records(frame, metric=metric) if is_whole(row)], domain_styles_of(frame)
    last = max((row["ratio_requested"] for row in used), default=None)
    used = [row for row in used if row["ratio_requested"] == last]
    several = {name: len({row.get(name) for row in used}) > 1 for name in ("scorer", "network")}
    found: Rows = []
    for row in used:
        value, low, high = interval_of(row)
        exposure = exposure_of(row)
        first = [f"{row['network']}"] * several["network"]
        first += [f"{row['scorer']}{exposure_label(scorer_exposure([row]))}"] * several["scorer"]
        count = f"{counts[_key(row)]:,.0f} of {row['images']:,}" if _key(row) in counts else ""
        found.append(
            {
                "place": len(found),
                "label": ", ".join([*first, f"{row['domain']}{exposure_label(exposure)}"]),
                "domain": str(row["domain"]),
                "value": value,
                "low": low,
                "high": high,
                "text": count,
                **{
                    key: held
                    for key, held in mark_of(style[str(row["domain"])], exposure=exposure).items()
                    if key != "dash"
                },
            }
        )
    return found


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("network", "scorer", "ratio_requested", "domain"))


def _plot(metric: str, rows: Rows, end: float, width: int) -> alt.LayerChart:
    """Names at the first plot, then intervals, dots and the numbers of images."""
    title, name = METRICS[metric], _NAMES[metric]
    scale, place = alt.Scale(domain=[0, end], nice=False), alt.Y("place:O", axis=None)
    value, low = (alt.X(f"{field}:Q", scale=scale, title=title) for field in ("value", "low"))
    colour, fill = alt.Stroke("colour:N", scale=None), alt.Fill("fill:N", scale=None)
    base = alt.Chart(alt.NamedData(name=name))
    tips = [
        alt.Tooltip("label:N", title="Domain"),
        alt.Tooltip("value:Q", title="% of the images", format=".1f"),
        alt.Tooltip("low:Q", title="from", format=".1f"),
        alt.Tooltip("high:Q", title="to", format=".1f"),
        alt.Tooltip("text:N", title="images"),
        alt.Tooltip("looked:N", title="Looked at before"),
    ]
    names = base.mark_text(style="words", align="right", dx=-9).encode(x=alt.value(0), y=place, text="label:N")
    drawn = layered(
        alt.Chart(named(name, rows))
        .mark_text(style="strong", align="left", dx=12)
        .encode(x=alt.value("width"), y=place, text="text:N"),
        *([names] if metric == "right_to_wrong" else []),
        base.mark_rule(strokeWidth=2.2).encode(x=low, x2="high:Q", y=place, stroke=colour),
        base.mark_point(size=60, strokeWidth=1.8, opacity=1).encode(
            x=value, y=place, stroke=colour, fill=fill, shape=alt.Shape("shape:N", scale=None), tooltip=tips
        ),
    )
    return drawn.properties(width=width, height=alt.Step(ROW))
