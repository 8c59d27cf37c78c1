"""Which of two networks does each measure predict to generalise better?"""

from __future__ import annotations

from typing import Any, cast

import pandas as pd

from ..core import DgpruneError, public
from ..stats import alike


@public
def predicted_order(frame: pd.DataFrame, *, measured: str | None = None) -> pd.DataFrame:
    """Return for each measure which of two networks it predicts to generalise better.

    A measure predicts the network with the better value (column `better_direction`; prunability: the lower). One right
    prediction says little about a measure: with two networks a coin toss is right half of the time.

    Args:
        frame: table of `diagnostics.prunability` (a line per tolerance) or `diagnostics.generalization_measures` for
            two networks.
        measured: name of the network that was measured to be better, which adds a column `verdict`; None if that is not
            known or not significant.

    Returns:
        A table with a line per measure (and tolerance): the value of each network, `predicts` (a name, or "neither" if
        a value is missing or both are equal; training losses: within 3 %), `intervals` ("overlap" or "apart"; empty
        if there are none) and, with `measured`, `verdict`: "right", "wrong" or "none".

    Raises:
        DgpruneError: not exactly two networks; a `measured` that names neither; a measure without one row per network.
    """
    if "network" not in frame.columns:
        raise DgpruneError("the table has no column network; give one of prunability or generalization_measures.")
    missing = pd.Series(None, index=frame.index, dtype=object)
    better = frame["better_direction"] if "better_direction" in frame.columns else missing
    frame = frame.assign(better_direction=better.mask(frame["metric"] == "prunability", "lower"))
    frame = frame.dropna(subset="better_direction")
    names = list(dict.fromkeys(frame["network"].dropna()))
    if len(names) != 2:
        raise DgpruneError(f"an order is predicted for two networks; the table holds {len(names)}: {names}.")
    if measured is not None and measured not in names:
        raise DgpruneError(f"measured must be one of {names}; got {measured!r}.")
    keys = ["metric", *(["tolerance"] if "tolerance" in frame.columns else [])]
    lines = []
    for key, rows in frame.groupby(keys, sort=False, dropna=False):
        counts = [int((rows["network"] == name).sum()) for name in names]
        if counts != [1, 1]:
            measure = rows["metric"].iloc[0]
            raise DgpruneError(
                f"an order is predicted from one row per network and measure; {measure!r} has {counts[0]} of "
                f"{names[0]!r} and {counts[1]} of {names[1]!r}."
            )
        pair = [rows[rows["network"] == name].iloc[0].to_dict() for name in names]
        line = dict(zip(keys, cast("tuple[Any, ...]", key), strict=True))
        line |= {row["network"]: row["value"] for row in pair} | _prediction(*pair)
        if measured is not None:
            neither = line["predicts"] == "neither"
            line["verdict"] = "none" if neither else "right" if line["predicts"] == measured else "wrong"
        lines.append(line)
    return pd.DataFrame(lines)


def _prediction(first: dict[str, Any], second: dict[str, Any]) -> dict[str, str]:
    """Return the columns `predicts`, the network of the row with the better value, and `intervals`."""
    better = min if first["better_direction"] == "lower" else max
    values = first["value"], second["value"]
    equal = alike(values) if first["metric"] == "training_loss" else values[0] == values[1]
    if any(map(pd.isna, values)) or equal:
        predicts = "neither"
    else:
        predicts = (first if values[0] == better(values) else second)["network"]
    if any(row["low"] != row["low"] or row["low"] is None for row in (first, second)):
        return {"predicts": predicts, "intervals": ""}
    apart = first["high"] < second["low"] or second["high"] < first["low"]
    return {"predicts": predicts, "intervals": "apart" if apart else "overlap"}
