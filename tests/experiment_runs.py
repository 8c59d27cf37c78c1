"""Small experiments for tests: functions that workers import by name, and the tables that they must give."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

import dgprune_lab as dg
from dgprune_lab.experiments import Experiment, Finding, Results, Scratch, Settings, grid

TIMINGS = ["seconds", "cpu_seconds", "started", "worker"]


def found(value: float, **columns: Any) -> Finding:
    return Finding(rows=[{"metric": "accuracy", "value": value, "domain": "a", **columns}], data={"a": "hash"})


def trivial(settings: Settings, scratch: Scratch) -> Finding:
    return found(float(settings["seed"]) / 7)


def drawing(settings: Settings, scratch: Scratch) -> Finding:
    """Draw without a seed, from a network that is made once; end a process in the middle where the folder says so."""

    def make() -> nn.Module:
        return dg.models.networks.digits_net(widths=(2, 2, 2, 2, 2), seed=int(torch.randint(1000, ())))

    network = scratch.network({"training_seed": settings["training_seed"]}, make)
    lethal = Path(scratch.folder) / "lethal"
    if settings["scorer"] == "s3" and lethal.exists():
        number = int(lethal.read_text()) or os.getpid()
        lethal.unlink()
        os.kill(number, signal.SIGKILL)
    weight = next(network.parameters()).detach().flatten()
    return Finding(
        rows=[{"metric": "accuracy", "value": float(weight[0] + torch.rand(())), "domain": d} for d in ("a", "b")],
        data={"a": "hash"},
        weights=dg.models.saving.network_key(network),
    )


def failing(settings: Settings, scratch: Scratch) -> Finding:
    if settings["seed"] % 2:
        raise dg.DgpruneError(f"the loss of {settings['seed']} is not finite.")
    return trivial(settings, scratch)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def odd(settings: Settings, scratch: Scratch) -> Finding:
    """Find what no table holds, fail with what no database holds, or change what the run was given."""
    kind: Any = settings["kind"]
    if kind == "exception":
        raise Unspeakable
    if kind == "surrogate":
        raise ValueError("\udcff")
    if kind == "settings":
        settings["kind"] = "another"  # type: ignore[index]
        torch.set_default_dtype(torch.float64)
    if kind == "rows":
        return Finding(rows=[], data={"a": "hash"})
    value: Any = {"tensor": torch.tensor(0.5), "text": "high", "NaN": float("nan")}.get(kind, 0.5)
    return found(value, split="\udcff" if kind == "row" else "report")


def interrupted(settings: Settings, scratch: Scratch) -> Finding:
    """Be interrupted in the run of seed 2, as by Ctrl-C, while the folder says so."""
    if settings["seed"] == 2 and (Path(scratch.folder) / "interrupt").exists():
        raise KeyboardInterrupt
    return trivial(settings, scratch)


def experiment(run: Any = trivial, *, count: int = 4, name: str = "small", **protocol: Any) -> Experiment:
    return Experiment(name=name, question="Does it run?", run=run, grid=grid(seed=range(count)), protocol=protocol)


def lethal(folder: Path, number: int = 0) -> None:
    """Let the run of scorer s3 end a process once: of this number, 0 for that of the run."""
    folder.mkdir(exist_ok=True)
    (folder / "lethal").write_text(str(number))


def drawn(*, count: int = 12) -> Experiment:
    runs = grid(training_seed=range(2), scorer=[f"s{k}" for k in range(count // 2)])
    return Experiment(name="drawn", question="Same rows?", run=drawing, grid=runs, protocol={"epochs": 3})


def whole(results: Results) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All that must not depend on how and where the runs were done."""
    return results.table(), results.runs().drop(columns=TIMINGS)


def same(first: Results, second: Results) -> None:
    for one, other in zip(whole(first), whole(second), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
