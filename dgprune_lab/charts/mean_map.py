"""A filter's mean maps on each domain, side by side, with their cosines.

Named data: `places` (x, x2, y, y2 in pixels; shade, value, domain, filter) and `words` (x, y, text).
"""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt

from ..core import DIAMOND, Count, DgpruneError, Tidy, is_target_aware, public
from .marks import canvas, check_table, layered, rows_of, tooltip
from .theme import Rows, finish, records, role_label, titled, with_minus

PADDING = {"left": 8, "right": 8, "top": 6, "bottom": 6}
_TOP, _SIDE, _GAP, _LINE = 22, 76, 70, 15


@public
def mean_map(frame: Tidy, *, size: Count = 104) -> alt.LayerChart:
    """Draw the maps of `diagnostics.mean_map`: a row per filter, a column per domain.

    Dark = strong, relative to the filter's strongest position on any domain. Under a map stand its cosines with
    the maps of the domains to its left; a cosine with a target is marked target-aware.

    Args:
        frame: a table of `diagnostics.mean_map`.
        size: side of one map on the screen, in pixels.
    """
    check_table(frame, "diagnostics.mean_map(study, layer=..., filters=[...])", metrics=("mean_map",))
    if frame.empty:
        raise DgpruneError("frame has no row to draw; pass the table of diagnostics.mean_map.")
    maps, cosines = records(frame, metric="mean_map"), records(frame, metric="cosine")
    roles = {str(row["domain"]): row["role"] for row in maps}
    filters = list(dict.fromkeys(int(row["filter"]) for row in maps))
    step = size + 12 + _LINE * max(1, len(roles) - 1)
    corners = {
        (number, name): (_SIDE + k * (size + _GAP), _TOP + line * step)
        for line, number in enumerate(filters)
        for k, name in enumerate(roles)
    }
    texts: Rows = [
        {"x": corners[filters[0], name][0], "y": _TOP - 12, "text": name + role_label(role)}
        for name, role in roles.items()
    ]
    texts += [{"x": 0, "y": _TOP + k * step + size / 2, "text": f"filter {n}"} for k, n in enumerate(filters)]
    below = dict.fromkeys(corners, 0)
    for row in cosines:
        key = int(row["filter"]), str(row["domain"])
        x, y = corners[key]
        mark = f" {DIAMOND}" if is_target_aware(row) else ""
        cosine = with_minus(f"{row['value']:.3f}")
        text = f"cosine {cosine} with {row['other']}{mark}"
        texts.append({"x": x, "y": y + size + 10 + _LINE * below[key], "text": text})
        below[key] += 1
    width, height = _SIDE + len(roles) * (size + _GAP), _TOP + len(filters) * step
    x, y = canvas(width, height)
    shade = alt.Fill("shade:Q", scale=alt.Scale(domain=[0, 1], range=["#F1F3F5", "#16324F"]), legend=None)
    tips = tooltip({"domain": "Domain", "filter": "Filter", "value": ("mean", ".3g")})
    places = rows_of("places", _map_rows(maps, corners, size=size)).mark_rect()
    chart = layered(
        places.encode(x=x, x2=alt.X2("x2:Q"), y=y, y2=alt.Y2("y2:Q"), fill=shade, tooltip=tips),
        rows_of("words", texts).mark_text(align="left", style="strong").encode(x=x, y=y, text=alt.Text("text:N")),
    )
    return finish(chart, width=width, height=height, padding=PADDING, title=titled("Mean maps", frame))


def _map_rows(maps: Rows, corners: Mapping[tuple[int, str], tuple[float, float]], *, size: int) -> Rows:
    """Return the rows of `places`: every position of every map as a rectangle in pixels."""
    strongest = {number: 0.0 for number, _ in corners}
    for row in maps:
        strongest[row["filter"]] = max(strongest[row["filter"]], abs(row["value"]))
    height, width = (size / (1 + max(int(row[name]) for row in maps)) for name in ("row", "column"))
    rows: Rows = []
    for row in maps:
        x, y = corners[int(row["filter"]), str(row["domain"])]
        left, top = x + row["column"] * width, y + row["row"] * height
        shade = abs(row["value"]) / (strongest[row["filter"]] or 1)
        fields = {name: row[name] for name in ("domain", "filter", "value")}
        rows.append({"x": left, "x2": left + width, "y": top, "y2": top + height, **fields, "shade": shade})
    return rows
