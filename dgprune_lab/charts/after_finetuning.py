"""Accuracy of each scorer minus that of the baseline, after pruning and fine-tuning: a panel per domain.

Named data, per panel k: `gaps_k` (label, scorer, change, low, high in percentage points; text, smallest, p, seeds,
colour, fill, shape, looked).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from ..core import (
    DgpruneError,
    Side,
    Tidy,
    exposure_label,
    exposure_of,
    is_missing,
    public,
    scorer_exposure,
    with_scorer_exposure,
)
from .differences import difference_panel
from .drop import change_of
from .marks import check_table, fitted
from .theme import Rows, beside, domain_styles_of, percent, point_of, records, role_label, shortened, titled

DIFFERENCE = "difference"


@public
def after_finetuning(frame: Tidy, *, width: Side = 210) -> alt.HConcatChart:
    """Draw each scorer's accuracy minus the baseline's, as dots with intervals over training seeds, a panel per domain.

    Differences are in percentage points; scorers right of 0 beat the baseline. The minimum detectable effect is below
    each panel. A scorer that looked at a target is a hollow diamond, and is marked after its name.

    Args:
        frame: a table of `diagnostics.after_finetuning`.
        width: width of one panel, in pixels.

    Raises:
        DgpruneError: a table without differences.
    """
    check_table(frame, "diagnostics.after_finetuning(studies)", columns=("p_holm",))
    used = records(frame, metric=DIFFERENCE)
    if not used:
        raise DgpruneError(
            "the table has no differences between scorers to draw; they need two or more studies and a scorer beside "
            "the baseline: diagnostics.after_finetuning(dg.training_seeds(), scorers=[...])."
        )
    baseline, styles = _find_baseline(frame, used), domain_styles_of(frame)
    panels = []
    fields = {
        "label": "Scorer",
        "seeds": "Training seeds",
        "smallest": ("minimum detectable effect", ".2f"),
        "p": ("p (Holm)", ".3f"),
    }
    for k, name in enumerate(dict.fromkeys(str(row["domain"]) for row in used)):
        rows = difference_rows(frame, domain=name)
        below = [f"Points of accuracy against {baseline}", *detectable_lines(rows)]
        panel = difference_panel(rows, place=k, title=below, width=width, fields=fields)
        role = role_label(styles[name].role)
        title = alt.Title(text=shortened(name, most=20 if role else 30) + role, color=styles[name].colour)
        panels.append(panel.properties(title=title))
    return beside(*panels, title=titled("Accuracy after fine-tuning", frame))


def difference_rows(frame: pd.DataFrame, *, domain: str) -> Rows:
    """Return the rows of one domain's panel: differences in accuracy, in percentage points, in the order of `frame`."""
    used = [row for row in records(frame, metric=DIFFERENCE) if str(row["domain"]) == domain]
    style = domain_styles_of(frame)[domain]
    several = len({row["ratio_requested"] for row in used}) > 1
    rows: Rows = []
    for row in used:
        exposure = exposure_of(row)
        mark = exposure_label(with_scorer_exposure(exposure, scorer_exposure([row])))
        ratio = f", {100 * row['ratio_requested']:g} %" if several else ""
        name, p = str(row["scorer"]), None if is_missing(row["p_holm"]) else row["p_holm"]
        label = fitted(name, ratio + mark)
        smallest = percent(row["minimum_detectable_effect"], row["unit"])
        about = {"label": label, "scorer": name, "smallest": smallest, "p": p, "seeds": str(row["seeds"])}
        rows.append({**about, **change_of(row), **point_of(style, exposure=exposure)})
    return rows


def detectable_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the minimum detectable effect of a panel's scorers as two short lines of text.

    >>> detectable_lines([{"scorer": "l2", "smallest": 0.61, "seeds": "0, 1, 2"}])
    ['Minimum detectable effect, 3 training seeds:', '0.6 points']
    """
    ordered = sorted(rows, key=lambda row: row["smallest"])
    counts = sorted({len(row["seeds"].split(", ")) for row in rows})
    seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    start = f"Minimum detectable effect, {seeds} training seeds:"
    first, last = (f"{row['smallest']:.1f}" for row in (ordered[0], ordered[-1]))
    if first == last:
        return [start, f"{first} points"]
    names = [shortened(row["scorer"], most=14) for row in (ordered[0], ordered[-1])]
    return [start, f"{first} ({names[0]}) to {last} points ({names[1]})"]


def _find_baseline(frame: pd.DataFrame, used: Rows) -> str:
    """Return the name of the baseline: the scorer that was run but has no difference."""
    compared = {str(row["scorer"]) for row in used}
    rest = [str(row["scorer"]) for row in records(frame) if str(row["scorer"]) not in compared]
    return shortened(rest[0], most=18) if rest else "the baseline"
