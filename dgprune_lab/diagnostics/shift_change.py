"""Which domains move apart, and which together, when filters are removed?"""

from __future__ import annotations

from typing import Annotated, Any

import pandas as pd

from ..core import Columns, DgpruneError, Ratio, public

Table = Annotated[
    pd.DataFrame, Columns(("metric", "value", "low", "high", "ratio_requested", "domain", "other", "group"))
]


@public
def shift_change(frame: Table, *, ratio: Ratio, metric: str = "mmd") -> pd.DataFrame:
    """Compare, for each pair of domains, their distance in the pruned network with that in the full one.

    Args:
        frame: a table of `diagnostics.feature_shift` of one layer, with the full network (ratio 0) and `ratio`.
        ratio: the ratio of the pruned network.
        metric: "mmd", "coral" or "proxy_a_distance"; for all of them larger is further apart.

    Returns:
        A table with a line per pair, the largest increase first: `pair` ("a and b"), `full` and `pruned` (the two
        values), `change`, `moves` ("apart", "together", or "intervals overlap": the two 95 % intervals share a value,
        a stricter rule than a test of the difference) and `text`, a summary in words.

    Raises:
        DgpruneError: a metric that is not a distance between domains; a ratio that the table lacks; several layers.
    """
    rows: Any = frame[(frame["metric"] == metric) & frame["other"].notna()]
    if rows.empty:
        raise DgpruneError(
            f"metric: the table has no {metric!r} between two domains; use 'mmd', 'coral' or 'proxy_a_distance'."
        )
    if rows["group"].nunique() > 1:
        raise DgpruneError(f"frame holds several layers, {', '.join(rows['group'].unique())}; choose the rows of one.")
    ratios = sorted(map(float, rows["ratio_requested"].unique()))
    if not {0.0, ratio} <= set(ratios) or ratio == 0:
        present = ", ".join(f"{value:g}" for value in ratios)
        raise DgpruneError(f"ratio {ratio:g} is compared with 0, and the table must hold both; it holds {present}.")
    lines: list[dict[str, Any]] = []
    for (other, domain), pair in rows.groupby(["other", "domain"], sort=False):
        full, pruned = (pair[pair["ratio_requested"] == value].iloc[0] for value in (0.0, ratio))
        moves = "apart" if pruned.low > full.high else "together" if pruned.high < full.low else "intervals overlap"
        name = f"{other} and {domain}"
        line = {"pair": name, "full": full.value, "pruned": pruned.value, "change": pruned.value - full.value}
        lines.append({**line, "moves": moves, "text": f"{name}: {full.value:.3f} → {pruned.value:.3f} ({moves})"})
    return pd.DataFrame(lines).sort_values("change", ascending=False, ignore_index=True)
