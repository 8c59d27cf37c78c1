"""Experiments: the same rows in process and in workers, resumed after any interruption; what is wrong is said in words."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import experiment_runs as runs
import numpy as np
import pandas as pd
import pytest
import torch
from experiment_runs import drawn, experiment, same
from torch import nn

import dgprune_lab as dg
from dgprune_lab.experiments import Experiment, Finding, Results, Scratch, executors, grid, run, store, worker
from dgprune_lab.experiments.settings import key_of


class Inline(Executor):
    """Workers in this process; keeps the largest number of runs that were handed over at a time."""

    def __init__(self, workers: int = 2, *, error: BaseException | None = None, at: int = 0) -> None:
        self._max_workers, self.error, self.at = workers, error, at
        self.submitted, self.pending, self.most = 0, 0, 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        outer = self
        self.submitted, self.pending = self.submitted + 1, self.pending + 1
        self.most = max(self.most, self.pending)

        class Taken(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                outer.pending -= 1
                return super().result(timeout)

        future = Taken()
        if self.error is not None and self.submitted > self.at:
            future.set_exception(self.error)
        else:
            future.set_result(fn(*args, **kwargs))
        return future


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(drawn(), folder=tmp_path_factory.mktemp("undisturbed"))


def stop_after(count: int, *, folder: Path, **options: Any) -> None:
    """Start an experiment and abandon it after some runs, as Ctrl-C does."""
    steps = run.steps(folder=folder, **options)
    with closing(steps):
        while next(steps)[0] < count:
            pass


def test_every_run_is_a_row_with_what_it_was_made_from(undisturbed: Results) -> None:
    table, listed = undisturbed.table(), undisturbed.runs()
    assert list(table["domain"]) == ["a", "b"] * 12 and list(table["scorer"][:4]) == ["s0", "s0", "s1", "s1"]
    assert set(table["training_seed"]) == {0, 1} and set(table["pause"]) == {0.0}
    assert list(table["run"][::2]) == list(listed["key"]) == [drawn().key(k) for k in range(12)]
    first = listed.iloc[0]
    assert first["state"] == "done" and first["data"] == {"a": "hash"} and first["threads"] == torch.get_num_threads()
    assert first["code"] == dg.core.code_key() and set(first["versions"]) == {"python", "dgprune-lab", "torch"}
    assert listed["weights"].nunique() == 2  # one network per training seed
    assert listed["seconds"].gt(0).all() and str(listed["started"].dtype).startswith("datetime64[")


def test_a_second_start_does_what_is_open_and_nothing_else(tmp_path: Path, undisturbed: Results) -> None:
    stop_after(5, experiment=drawn(), folder=tmp_path)
    before = Results(tmp_path).runs()
    assert list(before["place"]) == [0, 1, 2, 3, 4]
    steps = run.steps(drawn(), folder=tmp_path)
    assert next(steps)[:2] == (5, 12)
    assert [step[0] for step in steps] == [6, 7, 8, 9, 10, 11, 12]
    same(Results(tmp_path), undisturbed)
    pd.testing.assert_frame_equal(Results(tmp_path).runs()[:5], before)
    version = Results(tmp_path).version()
    run(drawn(), folder=tmp_path)
    assert Results(tmp_path).version() == version == 12


def test_other_workers_give_the_same_rows(tmp_path: Path, undisturbed: Results) -> None:
    with ThreadPoolExecutor(3) as pool:
        same(run(drawn(), folder=tmp_path, executor=pool), undisturbed)


def test_worker_processes_give_the_same_rows(tmp_path: Path, undisturbed: Results) -> None:
    with executors.local(2) as pool:
        stop_after(3, experiment=drawn(), folder=tmp_path, executor=pool)
        same(run(drawn(), folder=tmp_path, executor=pool), undisturbed)


def test_a_failure_is_a_row_and_stops_nothing(tmp_path: Path) -> None:
    results = run(experiment(runs.failing), folder=tmp_path)
    listed = results.runs()
    assert list(listed["state"]) == ["done", "failed"] * 2 and list(results.table()["seed"]) == [0, 2]
    assert listed["error"][1] == "DgpruneError: the loss of 1 is not finite."
    assert 'raise dg.DgpruneError(f"the loss of' in listed["traceback"][1] and listed["error"].isna()[0]
    assert (results.progress().done, results.progress().failed, results.progress().left) == (2, 2, None)
    version = results.version()
    assert run(experiment(runs.failing), folder=tmp_path).version() == version
    again = run(experiment(runs.failing), folder=tmp_path, retry=True)
    assert again.version() == version + 2 and list(again.runs()["state"]) == ["done", "failed"] * 2


def test_few_runs_are_handed_over_at_a_time(tmp_path: Path) -> None:
    executor = Inline(2)
    assert len(run(experiment(count=200), folder=tmp_path, executor=executor).table()) == 200
    assert executor.submitted == 200 and executor.most <= 12


def test_the_callers_state_stays(tmp_path: Path) -> None:
    torch.manual_seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    run(drawn(count=2), folder=tmp_path)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[2]
    assert (np.random.get_state()[1] == states[1]).all()
