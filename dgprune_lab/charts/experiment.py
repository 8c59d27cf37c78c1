"""A study over training seeds: a row per scorer, a column per domain, the ratio along the axis.

Named data `cells`, which a page may replace, one row per point: row, column, row_place, column_place, at, value, low,
high, least and most (ends of the grey bar: minus and plus the minimum detectable effect), smallest, p, seeds; style.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from ..core import COLUMNS, DgpruneError, Side, Tidy, exposure_of, is_missing, public
from .marks import (
    COLOUR,
    DASH,
    OPAQUE,
    SHAPE,
    ZERO_LINE,
    check_table,
    for_field,
    interval_marks,
    layered,
    signed_axis,
    tooltip,
)
from .theme import (
    FONT,
    Rows,
    beside,
    domain_styles_of,
    grouped,
    interval_of,
    mark_of,
    marked,
    percent,
    plain,
    records,
    role_label,
    shortened,
)

RESULTS = ("seeds", "pairs", "minimum_detectable_effect", "p_value", "p_holm", "missing", "baseline", "run")
MOST_COLUMNS = 8
SIGNIFICANT = 0.05
LINES = "split(datum.label, '\\n')"
_SETUP = ("scope", "budget", "batchnorm", "split")
_BAR, _SIZE, _LETTERS = 15, 24, 22
_LETTER = 6.4
"""Width of a letter in a heading, in pixels."""


@public
def experiment(
    frame: Tidy, *, of: str = "scorer", over: str = "ratio_requested", width: Side = 150, height: Side = 58
) -> alt.HConcatChart:
    """Draw a table of `experiments.compare` or `experiments.averages`: a row per scorer, a column per domain.

    Each dot is a mean over training seeds with its 95 % t interval. Differences stand around a line at 0, in front of a
    grey bar that reaches from minus to plus the minimum detectable effect: a dot outside it has an interval that does
    not reach 0. A dot is filled if its p-value, adjusted by Holm's method for the number of ratios, is also below
    0.05. A scorer that looked at a target is marked ◇.

    Args:
        frame: the table. Settings that differ between rows of one scorer, domain and ratio add columns to the chart,
            or rows if some scorers lack the setting.
        of: column of what is compared.
        over: column along the horizontal axis.
        width, height: size of one panel, in pixels.

    Raises:
        DgpruneError: a table of another kind, or one that needs more than eight columns.
    """
    check_table(frame, "experiments.compare(frame, baseline=...)", columns=(of, over, "seeds"))
    rows = cells(frame, of=of, over=over)
    columns = list(dict.fromkeys(row["column"] for row in rows))
    if len(columns) > MOST_COLUMNS:
        raise DgpruneError(
            f"the table needs {len(columns)} columns of panels (at most {MOST_COLUMNS}): {columns[0]!r}, "
            f"{columns[1]!r}, ...; draw a part of it, such as frame[frame.domain == {frame['domain'].iloc[0]!r}]."
        )
    signed = any(map(is_difference, records(frame)))
    return study_chart(rows, title=study_title(frame), over=over, signed=signed, size=(width, height))


def study_chart(
    rows: Rows, *, title: alt.Title, over: str, signed: bool, size: tuple[int, int] = (150, 58)
) -> alt.HConcatChart:
    """Return the chart of these cells, which are differences if `signed`; a page may replace them later."""
    name = "Removed (%)" if over == "ratio_requested" else plain(over)
    x = alt.X("at:O", title=name, axis=alt.Axis(labelAngle=0, labelOverlap="greedy", grid=False, format="~g"))
    grid = ZERO_LINE if signed else {}
    axis = (signed_axis if signed else alt.Axis)(tickCount=max(3, size[1] // 25), **grid)
    y = alt.Y("value:Q", title=None, axis=axis, scale=alt.Scale(zero=signed))
    base = alt.Chart()
    fields = {
        "row": "Scorer",
        "column": "Domain",
        "at": name,
        "value": ("Points" if signed else "%", "+.2f" if signed else ".2f"),
        "smallest": ("minimum detectable effect", ".2f"),
        "p": ("p (Holm)", ".3f"),
        "seeds": "Training seeds",
    }
    bar = base.mark_bar(style="track", width=_BAR).encode(x=x, y=for_field(y, "least"), y2=alt.Y2("most:Q"))
    line = base.mark_line(strokeWidth=1.2, opacity=0.5).encode(x=x, y=y, stroke=COLOUR, strokeDash=DASH)
    *below, point = interval_marks(base, y, at={"x": x}, tips=tooltip(fields, ends="+.2f", looked=True), size=_SIZE)
    hole = base.mark_point(style="halo", filled=True, size=_SIZE).encode(x=x, y=y, shape=SHAPE, opacity=OPAQUE)
    marks = [bar, *below, hole, point] if signed else [line, *below, point]
    chart = layered(*marks).properties(width=size[0], height=size[1])
    letters = max((len(line) for row in rows for line in row["column"].split("\n")), default=_LETTERS)
    gap = max(12, math.ceil(_LETTER * letters) + 8 - size[0])  # headings begin at the left of their panels
    label: dict[str, Any] = {"title": None, "labelFontSize": 11, "labelFont": FONT, "labelExpr": LINES}
    lines = alt.Header(**label, labelAnchor="start", labelFontWeight=600, labelLimit=size[0] + gap - 6)
    names = alt.Header(**label, labelAngle=0, labelAlign="left", labelPadding=34, labelLimit=190)
    panels = chart.facet(
        data=alt.InlineData(values=rows, name="cells"),
        row=alt.Row("row:N", sort=alt.EncodingSortField("row_place", op="min"), header=names),
        column=alt.Column("column:N", sort=alt.EncodingSortField("column_place", op="min"), header=lines),
        spacing={"row": 18, "column": gap},
    )
    return beside(panels, title=title, padding=(36, 64, 6, 6))


def cells(frame: pd.DataFrame, *, of: str, over: str) -> Rows:
    """Return the chart's rows: values in percent, or differences in percentage points."""
    used, styles = [row for row in records(frame) if not is_missing(row[over])], domain_styles_of(frame)
    differing = _find_differing(used, of=of, over=over)
    own = [name for name in differing if any(is_missing(row[name]) for row in used)]  # settings of some scorers only
    shared = [name for name in differing if name not in own]
    texts = {(row[of], name, _setting_text(row, name)) for row in used for name in own}
    several = {
        value: [n for n in own if sum(text[:2] == (value, n) for text in texts) > 1] for value in {t[0] for t in texts}
    }
    rows: Rows = []
    for row in used:
        name, exposure = str(row["domain"]), exposure_of(row)
        smallest: Any = row.get("minimum_detectable_effect")
        half = None if is_missing(smallest) or not is_difference(row) else percent(smallest, row["unit"])
        style = mark_of(styles[name], exposure=exposure)
        p = math.nan if is_missing(row.get("p_holm")) else float(row["p_holm"])
        hollow = is_difference(row) and not p < SIGNIFICANT
        label = marked(str(row[of]), _read_awareness(used, of=of, name=row[of]))
        settings = [line for setting in _setting_lines(row, shared) for line in textwrap.wrap(setting, _LETTERS)]
        about = {
            "row": "\n".join([label, *_setting_lines(row, several.get(row[of], ()))]),
            "column": "\n".join([*_heading_lines(name, role_label(styles[name].role)), *settings]),
            "at": 100.0 * row[over] if over == "ratio_requested" else row[over],
            "least": None if half is None else -half,
            "most": half,
            "smallest": half,
            "p": None if math.isnan(p) else p,
            "seeds": str(row["seeds"]),
        }
        rows.append({**about, **interval_of(row), **style, **({"fill": "transparent"} if hollow else {})})
    return _place_panels(rows)


def _place_panels(rows: Rows) -> Rows:
    """Number the rows and columns of panels, and add a point without a value to an empty panel.

    Otherwise Vega would draw the panels after it in the wrong place.
    """
    names, columns = (list(dict.fromkeys(row[key] for row in rows)) for key in ("row", "column"))
    filled, blank = {(row["row"], row["column"]) for row in rows}, dict.fromkeys(rows[0] if rows else ())
    empty = [(name, column) for name in names for column in columns if (name, column) not in filled]
    rows = rows + [{**blank, "row": name, "column": column, "at": rows[0]["at"]} for name, column in empty]
    places = ((names.index(row["row"]), columns.index(row["column"])) for row in rows)
    return [
        {**row, "row_place": name, "column_place": column} for row, (name, column) in zip(rows, places, strict=True)
    ]


def study_title(frame: pd.DataFrame) -> alt.Title:
    """Return the title of the chart of a table: what is drawn, and how to read it."""
    below = ["Mean over training seeds, 95 % t interval."]
    if not any(map(is_difference, records(frame))):
        metric = str(frame["metric"].iloc[0]) if len(frame) else "accuracy"
        return alt.Title(text=f"{plain(metric).capitalize()} (%)", subtitle=below, offset=12)
    below = [
        "Mean over pairs of training seeds, 95 % t interval.",
        "Dot outside the grey bar: its interval, by itself, does not reach 0.",
        f"Filled: also p, corrected for the number of ratios (Holm), is below {SIGNIFICANT:g}.",
    ]
    return alt.Title(text=f"Accuracy minus that of {_find_baseline(frame)} (points)", subtitle=below, offset=12)


def is_difference(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a difference between two choices rather than a level."""
    return row["metric"] == "difference"


def _find_baseline(frame: pd.DataFrame) -> str:
    names = list(dict.fromkeys(str(row["baseline"]) for row in records(frame) if not is_missing(row.get("baseline"))))
    return shortened(names[0], most=24) if len(names) == 1 else "the baseline"


def _read_awareness(rows: Rows, *, of: str, name: object) -> object:
    """Return whether any row with this value of `of` is target-aware; None if no such row records it."""
    known = [row["target_aware"] for row in rows if row[of] == name and not is_missing(row["target_aware"])]
    return any(known) if known else None


def _find_differing(rows: Rows, *, of: str, over: str) -> list[str]:
    """Return the settings that distinguish rows that would otherwise be drawn as one, in the order of the columns."""
    names = [name for name in (rows[0] if rows else {}) if name in _SETUP or name not in (*COLUMNS, *RESULTS, of, over)]
    groups = grouped(rows, lambda row: (row[of], row["domain"], row[over])).values()
    return [name for name in names if any(len({_setting_text(row, name) for row in alike}) > 1 for alike in groups)]


def _heading_lines(name: str, role: str) -> list[str]:
    """Return a domain's name with its role, in one line, or in two if one would be wider than a panel."""
    short = shortened(name, most=_LETTERS)
    return [short + role] if len(short + role) <= _LETTERS else [short, role.strip()]


def _setting_lines(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return each setting as a line of text, such as "target mnist"."""
    return [f"{plain(name)} {_setting_text(row, name)}" for name in names if not is_missing(row[name])]


def _setting_text(row: Mapping[str, Any], name: str) -> str:
    return "none" if is_missing(row[name]) else shortened(str(row[name]), most=22)
