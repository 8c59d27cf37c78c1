"""Readable tables of training runs with pruning: the cost of each event, and the final accuracy of each run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from ..core import DgpruneError, public
from ..training import PruningRun

Epoch = Literal["last", "best"]


@public
def pruning_events(run: PruningRun) -> pd.DataFrame:
    """Return the share of accuracy lost at each event, in percent: a line per event, a column per domain.

    Empty where the network was not above chance before the event; negative where removal helped. The values are the
    metric `relative_drop` of `run.events`, in percent, rounded to 0.1.
    """
    rows = run.events[run.events["metric"] == "relative_drop"]
    if rows.empty:
        return pd.DataFrame(columns=["event", "epoch", "layers"])
    table = 100 * rows.pivot(index=["event", "epoch", "layers"], columns="domain", values="value")
    return table.round(1).rename_axis(columns=None).reset_index()


@public
def run_ends(runs: Mapping[str, PruningRun], *, epoch: Epoch = "last") -> pd.DataFrame:
    """Return mean stability and accuracy per domain at the end of runs and controls, in percent: a line per run.

    Args:
        runs: name -> run, including controls.
        epoch: "last", or "best" for the epoch that was best on the split on which events are measured.

    Raises:
        DgpruneError: no run, a run that has not ended, an unknown `epoch`.
    """
    lines = {}
    for name, run in runs.items():
        rows, stage = run.end, "last" if epoch == "last" else f"selected on {run.settings['split']}"
        rows = rows[
            (rows["stage"] == stage) & (rows["metric"] == "accuracy") & (rows["split"] == run.settings["report"])
        ]
        if rows.empty:
            raise DgpruneError(f"run {name!r} has not finished, it is at {run.reached}; resume it.")
        accuracy = dict(zip(rows["domain"], 100 * rows["value"], strict=True))
        lines[name] = {"mean stability": run.stability(), **accuracy}
    if not lines:
        raise DgpruneError("run_ends needs at least one run; got none.")
    return pd.DataFrame(lines).T.round(1)
