"""Claims beside our results: for each claim, an estimate with its interval, and the verdict as text.

Named data `claims_k` for the k-th unit, one row per claim: place, lines, estimate, low, high, least and most (minus and
plus the minimum detectable effect), bound (of the tick), verdict, paper, published, seeds, note.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ..core import DgpruneError, Side, claimed_by, is_missing, public
from .marks import LEFT, RIGHT, ZERO_LINE, for_field, layered, rows_of, signed_axis, tooltip
from .theme import Rows, beside, percent

COLUMNS = ("claim", "paper", "estimate", "low", "high", "minimum_detectable_effect", "unit", "seeds", "verdict")
_TEXT_FIELDS = ("claim", "paper", "published", "verdict", "seeds", "note")
_LETTERS, _LINE = 62, 14
_UNIT_NAMES = {"share": "points", "%": "points", "percent": "points"}
HOW = [
    "Dot: our estimate, 95 % interval over training seeds. Grey: minimum detectable effect, half of that interval.",
    "Tick: the published gain, or the largest loss that counts as kept. “Ours”: a control, not claimed by the paper.",
]


@public
def claims(table: pd.DataFrame, *, width: Side = 300) -> alt.HConcatChart:
    """Draw a table of `experiments.claims_table`: a row per claim, above 0 in favour of it, and the verdict beside it.

    Args:
        table: the claims; those of one unit share an axis.
        width: width of the plot, in pixels.

    Raises:
        DgpruneError: a table that lacks columns, or has no claims.
    """
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise DgpruneError(f"table must be one of experiments.claims_table; it has no column {missing[0]!r}.")
    if table.empty:
        raise DgpruneError("the table has no claims to draw.")
    units = list(dict.fromkeys(_UNIT_NAMES.get(str(unit), str(unit)) for unit in table["unit"]))
    rows = claim_rows(table)
    panels = [_draw_panel(k, [row for row in rows if row["unit"] == unit], unit=unit) for k, unit in enumerate(units)]
    sized = [panel.properties(width=width) for panel in panels]
    title = alt.Title(text="Claims, and what was found here", subtitle=HOW, offset=14)
    stacked: Any = alt.vconcat(*sized, spacing=26)
    return beside(stacked, title=title, padding=(48, 56, 6, 6))


def claim_rows(table: pd.DataFrame) -> Rows:
    """Return the chart's rows: shares as percentage points, other units unchanged."""
    rows: Rows = []
    for place, row in enumerate(table.to_dict("records")):
        sizes = {key: _number(row, key) for key in ("estimate", "low", "high", "minimum_detectable_effect", "claimed")}
        margin = _number(row, "margin")
        bound = sizes.pop("claimed") or (-margin if margin else None)
        smallest = sizes["minimum_detectable_effect"]
        text = f"{row['claim']} ({claimed_by(row)})"
        about = {name: "" if is_missing(row.get(name)) else str(row[name]) for name in _TEXT_FIELDS}
        about |= {"place": place, "unit": _UNIT_NAMES.get(str(row["unit"]), str(row["unit"]))}
        about |= {"lines": "\n".join(textwrap.wrap(text, _LETTERS, max_lines=3, placeholder=" …"))}
        bar = {"least": None if smallest is None else -smallest, "most": smallest, "bound": bound}
        rows.append({**about, **sizes, **bar})
    return rows


def _number(row: Mapping[Any, Any], name: str) -> float | None:
    value: Any = row.get(name)
    if is_missing(value):
        return None
    return percent(float(value), row["unit"]) if str(row["unit"]) in _UNIT_NAMES else float(value)


def _draw_panel(k: int, rows: Rows, *, unit: str) -> alt.LayerChart:
    x = alt.X("estimate:Q", scale=alt.Scale(zero=True), title=unit, axis=signed_axis(tickCount=6, **ZERO_LINE))
    y = alt.Y("place:O", axis=None)
    base = rows_of(f"claims_{k}", rows)
    fields = {
        "claim": "Claim",
        "paper": "Paper",
        "published": "Published",
        "estimate": (f"Estimate, {unit}", "+.2f"),
        "minimum_detectable_effect": ("minimum detectable effect", ".2f"),
        "seeds": "Training seeds",
        "verdict": "Holds here?",
        "note": "Note",
    }
    tips = tooltip(fields, ends="+.2f")
    at: dict[str, Any] = {"y": y}
    up = alt.ExprRef(f"{-_LINE / 2} * (length(split(datum.lines, '\\n')) - 1)")  # the middle of the lines at the dot
    claim_text = base.mark_text(
        style="words", align="right", dx=-9, dy=up, lineBreak="\n", lineHeight=_LINE, baseline="middle"
    )
    return layered(
        base.mark_bar(style="track", height=12).encode(**at, x=for_field(x, "least"), x2=alt.X2("most:Q")),
        base.mark_rule(strokeWidth=2.2, style="kept").encode(**at, x=for_field(x, "low"), x2=alt.X2("high:Q")),
        base.mark_point(filled=True, size=62, style="kept", opacity=1).encode(**at, x=x, tooltip=tips),
        base.mark_tick(style="ink", thickness=2.4, size=18).encode(**at, x=for_field(x, "bound")),
        claim_text.encode(**at, x=LEFT, text=alt.Text("lines:N")),
        base.mark_text(style="strong", align="left", dx=10, fontWeight=600).encode(
            **at, x=RIGHT, text=alt.Text("verdict:N")
        ),
    ).properties(height=alt.Step(3 * _LINE + 10))
