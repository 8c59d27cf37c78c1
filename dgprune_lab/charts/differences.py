"""Differences in accuracy, paired by image: a panel per domain, a row per scorer and ratio, or per network.

Named data, per panel k: `gaps_k` (label, change, low, high in percentage points; text and ends as text;
colour, fill, shape, looked).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from ..core import (
    DgpruneError,
    Exposure,
    Side,
    Tidy,
    exposure_label,
    exposure_of,
    is_missing,
    public,
    scorer_exposure,
    strongest_exposure,
)
from .drop import change_of, ends_text
from .marks import (
    RIGHT,
    ZERO,
    check_alike,
    check_table,
    fitted,
    interval_marks,
    layered,
    row_numbers,
    rows_of,
    signed_axis,
    step_above,
    ticks_around_zero,
    tooltip,
)
from .theme import (
    DomainStyle,
    Rows,
    beside,
    domain_styles_of,
    grouped,
    point_of,
    records,
    role_label,
    shortened,
    titled,
)

ROW = 30
_SPANS = (1, 2, 5, *range(10, 101, 10))


@public
def differences(frame: Tidy, *, width: Side = 170) -> alt.HConcatChart:
    """Draw how much more accurate each scorer or network is than the reference, a panel per domain.

    In percentage points; right of 0 is better than the reference, which the axis names. Intervals: the table's, 95 %.
    A scorer or network that looked at a target is a hollow diamond, marked after its name. All panels share one axis.

    Args:
        frame: a table of `diagnostics.compare_scorers` or `diagnostics.compare_networks`.
        width: width of one panel, in pixels.

    Raises:
        DgpruneError: a table without differences, or with several references; rows that would be drawn as one; a
            difference that is not finite, or not a share.
    """
    maker = "diagnostics.compare_scorers(study, ...) or compare_networks(studies)"
    check_table(frame, maker, columns=("against", "draws"), metrics=("difference",))
    used = records(frame, metric="difference")
    if not used:
        raise DgpruneError(f"frame has no differences to draw; make it with {maker}.")
    _check_numbers(used)
    references = list(dict.fromkeys(str(row["against"]) for row in used))
    if len(references) > 1:
        raise DgpruneError(
            f"frame compares with several references, {', '.join(references)}; draw one: "
            f"frame[frame.against == {references[0]!r}]."
        )
    styles, by_domain = domain_styles_of(frame), grouped(used, lambda row: str(row["domain"]))
    rows = {name: _panel_rows(by_domain[name], style) for name, style in styles.items() if name in by_domain}
    reach = _axis_ends([row for points in rows.values() for row in points])
    title, panels = ["Points of accuracy against", shortened(references[0], most=36)], []
    for k, (name, points) in enumerate(rows.items()):
        panel = difference_panel(points, place=k, title=title, width=width, reach=reach, fields={"label": "Compared"})
        about = role_label(styles[name].role) + _panel_mark(by_domain[name])
        head = alt.Title(text=fitted(name, about), color=styles[name].colour)
        panels.append(panel.properties(title=head))
    text = "Difference in accuracy, right of 0: better"
    return beside(*panels, title=titled(text, frame, change=True) or alt.Title(text=text, offset=12))


def _panel_mark(rows: Rows) -> str:
    """Return the exposure mark of a whole panel; "" if only some scorers looked, whose rows are then marked instead."""
    seen: list[Exposure] = [exposure_of(row) for row in rows]
    of_rows = not all(seen) and not any(is_missing(row["scorer"]) for row in rows)
    return "" if of_rows else exposure_label(strongest_exposure(seen))


def _check_numbers(rows: Rows) -> None:
    for row in rows:
        ends = [row["value"], *(row[name] for name in ("low", "high") if not is_missing(row[name]))]
        if row["unit"] != "share" or is_missing(row["value"]) or not all(map(math.isfinite, ends)):
            raise DgpruneError(
                f"frame must hold finite differences of the unit 'share'; got {row['value']} "
                f"({row['low']} to {row['high']}) of the unit {row['unit']!r} on {row['domain']}. Leave such rows out."
            )


def _axis_ends(rows: Rows) -> tuple[float, float]:
    """Return both ends of the axis, in percentage points: around all rows, and a little past 0 on each side."""
    low, high = (end(0.0, *(row[key] for row in rows for key in ("change", "low", "high"))) for end in (min, max))
    below, above = (step_above(end, _SPANS) if end else 0.0 for end in (-low, high))
    least = max(below, above, _SPANS[0]) / 10
    return -max(below, least), max(above, least)


def _panel_rows(used: Rows, style: DomainStyle) -> Rows:
    """Return the rows of one domain's panel, grouped by scorer or network, in the order of the table."""
    several = len({row["ratio_requested"] for row in used if not is_missing(row["ratio_requested"])}) > 1
    by_name = grouped(used, lambda row: str(row["network"] if is_missing(row["scorer"]) else row["scorer"]))
    rows: Rows = []
    for name, group in by_name.items():
        by_ratio = grouped(group, lambda row: None if is_missing(row["ratio_requested"]) else row["ratio_requested"])
        for ratio, alike in by_ratio.items():
            check_alike(alike)
            share = f", {100 * ratio:g} %" if several and ratio is not None else ""
            label = fitted(name, share + exposure_label(scorer_exposure(alike)))
            rows.append({"label": label, **change_of(alike[0]), **point_of(style, exposure=exposure_of(alike[0]))})
    return rows


def difference_panel(
    rows: Rows, *, place: int, title: Sequence[str], width: int, fields: Mapping[str, Any], reach: Sequence[float] = ()
) -> alt.LayerChart:
    """Draw the panel of one domain: zero line, intervals, dots, numbers; only the first panel has names.

    `reach` holds both ends of the axis, in points; without it they are the nearest steps around all rows.
    """
    low, high = reach or _axis_ends(rows)
    scale = alt.Scale(domain=[low, high], nice=False, clamp=True)
    ticks = ticks_around_zero(low, high, width=width)
    axis = signed_axis(values=ticks, tickCount=len(ticks))  # Vega leaves out values beyond the count
    change = alt.X("change:Q", scale=scale, title=list(title), axis=axis)
    names = alt.Axis(title=None, labelLimit=240, ticks=False, domain=False) if not place else None
    label = alt.Y("label:N", sort=None, axis=names)
    texts = [{**row, "ends": "" if row["low"] == row["high"] == row["change"] else ends_text(row)} for row in rows]
    base = rows_of(f"gaps_{place}", texts)
    tips = tooltip({**fields, "change": ("Difference, points", "+.2f")}, ends="+.2f", looked=True)
    return layered(
        base.mark_rule(**ZERO).encode(x=alt.XDatum(0, scale=scale)),
        *interval_marks(base, change, at={"y": label}, tips=tips, size=44),
        row_numbers(base, y=label, dx=8, dy=-6, fontWeight=600),
        base.mark_text(align="left", dx=8, dy=7, fontSize=10.7).encode(x=RIGHT, y=label, text=alt.Text("ends:N")),
    ).properties(width=width, height=alt.Step(ROW))
