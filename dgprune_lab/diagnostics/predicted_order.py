"""Which of two networks does each measure predict to generalise better?"""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..core import DgpruneError

_LOWER_IS_BETTER = ("prunability",)


def predicted_order(frame: pd.DataFrame, *, measured: str | None = None) -> pd.DataFrame:
    """Return, per measure, which of two networks it predicts to generalise better.

    A measure predicts the network with the better value (column `better_direction`; prunability: the lower). Whether
    it is right says little about the measure: with two networks a coin is right half of the time.

    Args:
        frame: of `diagnostics.prunability` (a line per tolerance) or `diagnostics.generalization_measures`, of two
            networks.
        measured: name of the network that really is better, to add a column `verdict`; None where that is not known
            or not significant.

    Returns:
        A line per measure (and tolerance): the value of each network, `predicts` (a name, or "neither"), `intervals`
        ("overlap" or "apart"; empty where there are none) and, with `measured`, `verdict`: "right", "wrong" or "none".

    Raises:
        DgpruneError: not two networks; a measured name that is neither.
    """
    frame = frame[frame["metric"].isin(_LOWER_IS_BETTER) | frame.get("better_direction", pd.Series()).notna()]
    names = list(dict.fromkeys(frame["network"].dropna()))
    if len(names) != 2:
        raise DgpruneError(f"an order is predicted for two networks; the table holds {len(names)}: {names}.")
    if measured is not None and measured not in names:
        raise DgpruneError(f"measured must be one of {names}; got {measured!r}.")
    keys = ["metric", *(["tolerance"] if "tolerance" in frame.columns else [])]
    lines = []
    for key, rows in frame.groupby(keys, sort=False):
        first, second = (rows[rows["network"] == name].iloc[0] for name in names)
        lower = key[0] in _LOWER_IS_BETTER or first.get("better_direction") == "lower"
        lines.append({**dict(zip(keys, key, strict=True)), **_line(names, first, second, lower, measured)})
    return pd.DataFrame(lines)


def _line(names: list[str], first: Any, second: Any, lower: bool, measured: str | None) -> dict[str, Any]:
    better = (first["value"] < second["value"]) if lower else (first["value"] > second["value"])
    equal = first["value"] == second["value"]
    predicts = "neither" if equal else names[0] if better else names[1]
    apart = first["high"] < second["low"] or second["high"] < first["low"]
    known = all(value == value and value is not None for value in (first["low"], second["low"]))
    line = {names[0]: first["value"], names[1]: second["value"], "predicts": predicts}
    line["intervals"] = ("apart" if apart else "overlap") if known else ""
    if measured is not None:
        line["verdict"] = "none" if equal else "right" if predicts == measured else "wrong"
    return line
