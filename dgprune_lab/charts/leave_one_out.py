"""Accuracy on each held-out domain: a dot with its interval per domain, and below them the mean and the worst domain.

Named data: `held_out`, one row per dot: place, label, value, low, high (percent), text, images, looked, colour, shape,
fill.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from ..core import Side, Tidy, exposure_of, public, rounded
from .marks import check_table, interval_marks, layered, row_labels, row_numbers, rows_of, tooltip
from .theme import SOLID, DomainStyle, Rows, domain_styles_of, finish, interval_of, point_of, records, shortened

PADDING = {"left": 150, "right": 64, "top": 10, "bottom": 38}
ROW = 26
_MEAN, _WORST = "mean_accuracy", "worst_domain_accuracy"
_ALL = DomainStyle(colour="#4C5B6B", dash=SOLID, shape="square")
_INTERVALS = {"images": "over the images, one training each", "seeds": "over training seeds"}


@public
def leave_one_out(frame: Tidy, *, width: Side = 320) -> alt.LayerChart:
    """Draw the accuracy on each held-out domain with its 95 % interval, and below the mean and the worst domain.

    Args:
        frame: the table of `dg.leave_one_out`.
        width: width of the plot, in pixels.
    """
    check_table(frame, "leave_one_out(domains, train=...)", metrics=[_MEAN])
    rows = held_out_rows(frame)
    base, place = rows_of("held_out", rows), alt.Y("place:O", sort=None, axis=None)
    value = alt.X("value:Q", scale=alt.Scale(domain=[0, 100], nice=False), title="Accuracy on the held-out domain (%)")
    fields = {"label": "Held out", "value": ("Accuracy (%)", ".1f"), "images": ("Images", ",")}
    dots = interval_marks(base, value, at={"y": place}, tips=tooltip(fields, ends=".1f", looked=True))
    bases = [_INTERVALS.get(kind, "") for kind in frame["interval"].dropna().unique()[:1]]
    title = alt.Title(
        text="Each domain by networks trained on the others",
        subtitle=[f"95 % interval {basis}".rstrip() for basis in bases],
        offset=10,
    )
    chart = layered(*dots, row_labels(base, y=place), row_numbers(base, y=place))
    return finish(chart, width=width, height=ROW * max(1, len(rows)), padding=PADDING, title=title)


def held_out_rows(frame: pd.DataFrame) -> Rows:
    """Return the chart's rows: the held-out domains in the order of the table, their mean and the worst domain."""
    styles, rows = domain_styles_of(frame), list[dict[str, Any]]()
    for metric in ("accuracy", _MEAN, _WORST):
        for row in records(frame, metric=metric):
            name = str(row["domain"])
            style = _ALL if metric == _MEAN else styles[name]
            label = {"accuracy": name, _MEAN: "Mean", _WORST: f"Worst: {name}"}[metric]
            ends = interval_of(row)
            about = {"place": len(rows), "label": shortened(label, most=22), "images": int(row["images"])}
            text = f"{rounded(ends['value'], 1):.1f} %"
            rows.append({**about, **ends, "text": text, **point_of(style, exposure=exposure_of(row))})
    return rows
