"""`dgprune-lab gradients-against-removal`: compare risk variance with the effect of removing each filter alone."""

from __future__ import annotations

from typing import Any, cast

import pandas as pd

from ..diagnostics import gradients_against_removal
from ..study import demo


def report() -> list[str]:
    """Return the result for the demo as lines of Markdown."""
    return lines(gradients_against_removal(demo()))


def lines(frame: pd.DataFrame) -> list[str]:
    """Return the table of `diagnostics.gradients_against_removal` as Markdown, a row per form and reference."""
    rows = cast("list[dict[str, Any]]", frame.to_dict("records"))
    cells: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["metric"] == "rank_correlation":
            text = f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f}), {row['count']:.0f}"
            cells.setdefault((row["scorer"], row["against"]), []).append(text)
    share = next(row["value"] for row in rows if row["metric"] == "variance_share")
    return [
        "| form | compared with | all filters | filters with an effect |",
        "|---|---|---|---|",
        *(f"| {scorer} | {against} | {' | '.join(columns)} |" for (scorer, against), columns in cells.items()),
        f"Median share of the variance term in the additive score, filters with an effect: {100 * share:.2g} %.",
    ]
