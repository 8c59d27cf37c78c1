"""Number of guesses for each option of a question, with the measured answer marked.

Named data: `options`, one row per option: place, option (with a mark on the measured one), count, text, measured.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Annotated, Any

import altair as alt
import pandas as pd

from ..core import Columns, Side, public
from .marks import LEFT, layered, rows_of
from .theme import finish, records, shortened

PADDING = {"left": 4, "right": 90, "top": 8, "bottom": 6}
_ROW, _TITLE_LINE = 46, 16
_LETTERS, _WIDE = 60, 80


@public
def tally(
    frame: Annotated[pd.DataFrame, Columns(("option", "guesses", "measured"))],
    *,
    question: str = "",
    below: Sequence[str] = (),
    width: Side = 480,
) -> alt.LayerChart:
    """Draw the number of guesses for each option as bars; the measured answer is named and outlined.

    Args:
        frame: the table of `dg.tally(lines)`.
        question: title.
        below: sentences below the title.
        width: width of the plot, in pixels.
    """
    table, rows = records(frame), []
    total = sum(row["guesses"] for row in table)
    for place, row in enumerate(table):
        name = shortened(str(row["option"]), most=_LETTERS) + ("  ← measured" if row["measured"] else "")
        text, measured = f"{row['guesses']} of {total}", bool(row["measured"])
        rows.append({"place": place, "option": name, "count": row["guesses"], "text": text, "measured": measured})
    most = max([1, *(row["count"] for row in rows)])
    base = rows_of("options", rows)
    x = alt.X("count:Q", axis=None, scale=alt.Scale(domain=[0, most], nice=False))
    y = alt.Y("place:O", axis=None, scale=alt.Scale(paddingInner=0, paddingOuter=0))
    bar: dict[str, Any] = {"size": 16, "yOffset": 10}
    name = {"align": "left", "baseline": "middle", "dy": -10, "fontSize": 12}
    answered = base.transform_filter("datum.measured")
    others = base.transform_filter("!datum.measured")
    chart = layered(
        base.mark_bar(style="kept", **bar).encode(x=x, y=y),
        answered.mark_bar(style="ink", filled=False, strokeWidth=2.5, **bar).encode(x=x, y=y),
        others.mark_text(style="words", **name).encode(x=LEFT, y=y, text=alt.Text("option:N")),
        answered.mark_text(style="strong", fontWeight=600, **name).encode(x=LEFT, y=y, text=alt.Text("option:N")),
        base.mark_text(style="strong", align="left", dx=8, dy=10, baseline="middle").encode(
            x=x, y=y, text=alt.Text("text:N")
        ),
    )
    lines = [part for sentence in below for part in textwrap.wrap(sentence, _WIDE)]
    heading = textwrap.wrap(question, _LETTERS) or ["Guesses"]
    title = alt.Title(heading, subtitle=lines or alt.Undefined, offset=10)
    padding = {**PADDING, "top": PADDING["top"] + _TITLE_LINE * (len(heading) - 1)}
    return finish(chart, width=width, height=_ROW * len(rows), padding=padding, title=title)
