"""Experiments: the same rows in process and in workers, resumed after interruptions; what is wrong is said in words."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import experiment_runs as runs
import numpy as np
import pandas as pd
import pytest
import torch
from experiment_runs import drawn, experiment, same

import dgprune_lab as dg
from dgprune_lab.experiments import Experiment, Finding, Results, executors, grid, run, runner, store, worker

FAILED = "ignore:.* runs failed:dgprune_lab.core.errors.DgpruneNote"


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
    table: Any = undisturbed.table()
    listed: Any = undisturbed.runs()
    assert list(table["domain"]) == ["a", "b"] * 12 and list(table["scorer"][:4]) == ["s0", "s0", "s1", "s1"]
    assert set(table["training_seed"]) == {0, 1} and set(table["epochs"]) == {3}
    assert list(table["run"][::2]) == list(listed["key"]) == [drawn().key(k) for k in range(12)]
    first = listed.iloc[0]
    assert first["state"] == "done" and first["data"] == {"a": "hash"} and first["threads"] == torch.get_num_threads()
    assert first["code"] == dg.core.code_key() and set(first["versions"]) == {"python", "dgprune-lab", "torch"}
    assert listed["weights"].nunique() == 2  # one network per training seed
    assert listed["seconds"].gt(0).all() and str(listed["started"].dtype).startswith("datetime64[")


def test_a_second_start_does_what_is_open_and_nothing_else(tmp_path: Path, undisturbed: Results) -> None:
    stop_after(5, experiment=drawn(), folder=tmp_path)
    before: Any = Results(tmp_path).runs()
    assert list(before["place"]) == [0, 1, 2, 3, 4]
    steps = run.steps(drawn(), folder=tmp_path)
    assert next(steps)[:2] == (5, 12)
    assert [step[0] for step in steps] == [6, 7, 8, 9, 10, 11, 12]
    same(Results(tmp_path), undisturbed)
    pd.testing.assert_frame_equal(Results(tmp_path).runs().head(), before)
    version = Results(tmp_path).version()
    run(drawn(), folder=tmp_path)
    assert Results(tmp_path).version() == version == 12


def test_other_workers_give_the_same_rows(tmp_path: Path, undisturbed: Results) -> None:
    with ThreadPoolExecutor(3) as pool:
        same(run(drawn(), folder=tmp_path, executor=pool), undisturbed)


def test_a_forked_worker_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker.process_name().endswith(f":{os.getpid()}")
    monkeypatch.setattr(os, "getpid", lambda: 7)
    assert worker.process_name().endswith(":7")


@pytest.mark.filterwarnings(FAILED)
def test_a_failure_is_a_row_and_stops_nothing(tmp_path: Path) -> None:
    with pytest.warns(dg.DgpruneNote, match="2 of 4 runs failed, the first with DgpruneError: the loss of 1 is not"):
        results = run(experiment(runs.failing), folder=tmp_path)
    listed: Any = results.runs()
    assert list(listed["state"]) == ["done", "failed"] * 2 and list(results.table()["seed"]) == [0, 2]
    assert listed["error"][1] == "DgpruneError: the loss of 1 is not finite."
    assert 'raise dg.DgpruneError(f"the loss of' in listed["traceback"][1] and listed["error"].isna()[0]
    assert (results.progress().done, results.progress().failed, results.progress().left) == (2, 2, None)
    version = results.version()
    assert run(experiment(runs.failing), folder=tmp_path).version() == version
    again = run(experiment(runs.failing), folder=tmp_path, retry=True)
    assert again.version() == version + 2 and list(again.runs()["state"]) == ["done", "failed"] * 2


@pytest.fixture
def default_interrupt() -> Iterator[None]:
    """Ctrl-C as in a terminal; a shell that starts a process in the background lets it ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_interrupt")
@pytest.mark.parametrize("answer", ["returns", "raises"])
def test_a_run_that_answers_an_interrupt_by_ending_early_stays_open(tmp_path: Path, answer: str) -> None:
    pressed: list[int] = []

    def ends_early(settings: Any, scratch: Any) -> Finding:
        if settings["seed"] == 2 and not pressed:
            with suppress(KeyboardInterrupt):
                pressed.append(1)
                signal.raise_signal(signal.SIGINT)
            if answer == "raises":
                raise dg.DgpruneError("training diverged")
        return runs.trivial(settings, scratch)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(experiment(ends_early), folder=tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert Results(tmp_path).runs()["state"].tolist() == ["done", "done"]
    again = run(experiment(ends_early), folder=tmp_path)
    assert again.runs()["state"].tolist() == ["done"] * 4


def test_what_is_missing_is_said_before_the_first_run_and_not_by_each(tmp_path: Path) -> None:
    missing = dg.DgpruneError("data set 'x' is not there.")

    def ready() -> None:
        raise missing

    few = dataclasses.replace(experiment(), ready=ready)
    with pytest.raises(dg.DgpruneError, match="data set 'x' is not there"):
        run(few, folder=tmp_path)
    assert run(experiment(), folder=tmp_path).progress().failed == 0, "nothing was a failed run"
    run(few, folder=tmp_path)  # everything is done, so nothing is needed


@pytest.mark.filterwarnings(FAILED)
def test_what_cannot_be_kept_is_a_failed_run_and_stops_nothing(tmp_path: Path) -> None:
    kinds = ["exception", "surrogate", "tensor", "text", "row", "NaN", "rows", "settings", "none"]
    experiment = Experiment(name="odd", question="?", run=runs.odd, grid=grid(kind=kinds))
    results = run(experiment, folder=tmp_path)
    listed: Any = results.runs().set_index("kind")
    assert listed.index.tolist() == kinds, "a run cannot change its settings"
    assert listed["state"].tolist() == ["failed"] * 7 + ["done"] * 2 and len(results.table()) == 2
    assert all("the run found no value" in listed["error"][kind] for kind in ("NaN", "rows"))
    assert "must hold a number; got Tensor" in listed["error"]["tensor"] and "str 'high'" in listed["error"]["text"]
    assert listed["error"]["exception"] == "Unspeakable: its text cannot be made (ValueError)"
    assert torch.get_default_dtype() == torch.float32


def test_few_runs_are_handed_over_at_a_time(tmp_path: Path) -> None:
    executor = Inline(2)
    assert len(run(experiment(count=200), folder=tmp_path, executor=executor).table()) == 200
    assert executor.submitted == 200 and executor.most <= 2 * 2 + 32


def test_the_callers_state_stays(tmp_path: Path) -> None:
    torch.manual_seed(3)
    numpy: Any = np.random.get_state()
    states = torch.get_rng_state(), numpy[1].tolist(), random.getstate()
    run(drawn(count=2), folder=tmp_path)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[2]
    numpy = np.random.get_state()
    assert numpy[1].tolist() == states[1]


class Stuck(Inline):
    """Workers that take runs and never finish them."""

    def __init__(self) -> None:
        super().__init__()
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


def test_ctrl_c_keeps_what_is_done_and_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        run(experiment(runs.interrupted), folder=tmp_path)
    assert list(Results(tmp_path).runs()["state"]) == ["done", "done"] and not Results(tmp_path).progress().running
    (tmp_path / "interrupt").unlink()
    assert list(run(experiment(runs.interrupted), folder=tmp_path).table()["seed"]) == [0, 1, 2, 3]


def test_ctrl_c_cancels_what_workers_have_not_begun(tmp_path: Path) -> None:
    executor = Stuck()
    steps = run.steps(experiment(count=90), folder=tmp_path, executor=executor)
    assert [next(steps)[0], next(steps)[0]] == [0, 0] and Results(tmp_path).progress().running
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)
    assert len(executor.futures) < 90 and all(future.cancelled() for future in executor.futures)


@pytest.mark.parametrize("error", [BrokenExecutor("a process was killed"), CancelledError(), OSError("lost")])
def test_a_worker_that_ends_leaves_its_run_open(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(dg.DgpruneError, match=r"workers ended .*2 of 5 runs are open.*start again"):
        run(experiment(count=5), folder=tmp_path, executor=Inline(error=error, at=3))
    assert list(Results(tmp_path).runs()["state"]) == ["done"] * 3
    assert len(run(experiment(count=5), folder=tmp_path, executor=Inline()).table()) == 5


def test_a_worker_that_would_compute_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ModuleNotFoundError("No module named 'dgprune_lab'")
    with pytest.raises(dg.DgpruneError, match=r"cannot import this package .*No run was lost"):
        run(experiment(), folder=tmp_path, executor=Inline(error=missing))
    for name, value, words in [
        ("code_key", lambda: "other", "its code of dgprune-lab .* differs"),
        ("versions", lambda: {"dgprune-lab": "9"}, "it has dgprune-lab .*, this process 9. Install the same"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(runner, name, value)
            with pytest.raises(dg.DgpruneError, match=f"executor: worker .*{words}"):
                run(experiment(), folder=tmp_path, executor=Inline())
    with monkeypatch.context() as patch, pytest.raises(dg.DgpruneError, match=r"it cannot import nowhere:run \("):
        patch.setattr(runner, "name_of", lambda function: "nowhere:run")
        run(experiment(), folder=tmp_path, executor=Inline())
    with pytest.raises(dg.DgpruneError, match="device"):
        run(experiment(), folder=tmp_path, executor=Inline(), device="tpu")
    assert len(Results(tmp_path).runs()) == 0


def test_a_function_that_workers_cannot_import_is_refused(tmp_path: Path) -> None:
    def local(settings: Any, scratch: Any) -> Finding:
        return runs.trivial(settings, scratch)

    with pytest.raises(dg.DgpruneError, match=r"workers import its function by name.*top level"):
        run(experiment(local), folder=tmp_path / "no", executor=Inline())
    assert not (tmp_path / "no").exists() and len(run(experiment(local), folder=tmp_path / "here").table()) == 4


def edited(folder: Path, **card: Any) -> None:
    with closing(sqlite3.connect(folder / store.FILE)) as connection, connection:
        about = json.loads(connection.execute("SELECT card FROM about").fetchone()[0])
        connection.execute("UPDATE about SET card = ?", (json.dumps({**about, **card}),))


def test_a_folder_takes_a_larger_grid_and_computes_the_new_runs_alone(tmp_path: Path) -> None:
    first = run(experiment(), folder=tmp_path)
    before, larger = first.runs(), experiment(count=6)
    turned = dataclasses.replace(larger, grid=larger.grid[::-1])
    after = run(turned, folder=tmp_path).runs()
    assert first.progress().total == Results(tmp_path).total == len(after) == 6 > len(before)
    assert list(after["key"]) == [turned.key(place) for place in range(6)] and list(after["place"]) == list(range(6))
    kept = after[after["key"].isin(before["key"])].iloc[::-1].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept.drop(columns="place"), before.drop(columns="place"))
    fewer = dataclasses.replace(larger, grid=larger.grid[:5])
    with pytest.raises(dg.DgpruneError, match="1 of the 6 runs there are not in this grid of 5"):
        run(fewer, folder=tmp_path)


def test_a_folder_of_something_else_is_refused_and_stays(tmp_path: Path) -> None:
    run(experiment(epochs=3), folder=tmp_path)
    before = Results(tmp_path).runs()
    for other, words in [
        (experiment(epochs=3, name="large"), "the experiment is 'small' there, 'large' here"),
        (experiment(epochs=5), "epochs of the protocol is 3 there, 5 here"),
        (experiment(epochs=3, count=3), "1 of the 4 runs there are not in this grid of 3"),
    ]:
        with pytest.raises(dg.DgpruneError, match=f"folder: .*{words}.*another folder"):
            run(other, folder=tmp_path)
    pd.testing.assert_frame_equal(Results(tmp_path).runs(), before)
    edited(tmp_path, versions={"dgprune-lab": "0.0.1"})
    with pytest.raises(dg.DgpruneError, match=r"version of dgprune-lab is '0.0.1' there"):
        run(experiment(epochs=3), folder=tmp_path)
    assert len(Results(tmp_path).runs()) == 4  # a reader may look
    edited(tmp_path, format=99)
    for attempt in (lambda: run(experiment(epochs=3), folder=tmp_path), lambda: Results(tmp_path)):
        with pytest.raises(dg.DgpruneError, match="format 99"):
            attempt()


def test_files_that_are_no_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / store.FILE).write_text("Not a database at all, and longer than its header. " * 40)
    (tmp_path / "other").mkdir()
    with closing(sqlite3.connect(tmp_path / "other" / store.FILE)) as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
    for name, words in [("text", "not an SQLite database"), ("other", "a database of something else")]:
        for attempt in (lambda f: run(experiment(), folder=f), Results):
            with pytest.raises(dg.DgpruneError, match=words):
                attempt(tmp_path / name)
    with pytest.raises(dg.DgpruneError, match="there are no results in"):
        Results(tmp_path)
    assert not (tmp_path / store.FILE).exists()
    with pytest.raises(dg.DgpruneError, match=r"folder must be a folder, and .* is a file"):
        run(experiment(), folder=tmp_path / "text" / store.FILE)
    with pytest.raises(dg.DgpruneError, match="folder must lie in a folder"):
        run(experiment(), folder=tmp_path / "text" / store.FILE / "inside")


def test_another_process_reads_whole_rows_while_this_one_writes(tmp_path: Path) -> None:
    steps = run.steps(experiment(), folder=tmp_path)
    while next(steps)[0] < 3:
        pass
    code = (
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1], uri=True).execute('SELECT rows FROM runs').fetchall())"
    )
    address = f"{(tmp_path / store.FILE).as_uri()}?mode=ro"
    seen = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, check=True)
    assert seen.stdout.count('"accuracy"') == 3
    now, taken = Results(tmp_path).progress(), Results(tmp_path).runs()["seconds"].mean()
    assert now.running and now.left == pytest.approx(taken) and (now.done, now.total, now.workers) == (3, 4, 1)
    steps.close()
    assert not (tmp_path / f"{store.FILE}-wal").exists() and not Results(tmp_path).progress().running


def test_other_code_between_two_starts_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(2, experiment=experiment(), folder=tmp_path)
    for module in (store, worker):
        monkeypatch.setattr(module, "code_key", lambda: "edited")
    with pytest.warns(dg.DgpruneNote, match=r"2 of the 2 runs that .* holds were computed by other code"):
        results = run(experiment(), folder=tmp_path)
    codes: Any = results.runs()["code"]
    assert codes.nunique() == 2


def test_two_drivers_never_share_a_folder(tmp_path: Path) -> None:
    steps = run.steps(experiment(), folder=tmp_path)
    next(steps)
    with pytest.raises(dg.DgpruneError, match=rf"another process writes to .*{os.getpid()}\)"):
        run(experiment(), folder=tmp_path)
    assert len(dg.core.drain(steps).table()) == 4 and len(run(experiment(), folder=tmp_path).table()) == 4


def test_a_full_disk_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = store._connected

    def small(address: str, **options: Any) -> sqlite3.Connection:
        connection = plain(address, **options)
        if address.endswith(store.FILE):
            connection.execute("PRAGMA max_page_count = 20")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(store, "_connected", small)
        with pytest.raises(dg.DgpruneError, match=r"the disk is full. Finished runs are kept"):
            run(experiment(count=400), folder=tmp_path)
    done = len(Results(tmp_path).runs())
    assert 0 < done < 400
    steps = run.steps(experiment(count=400), folder=tmp_path)
    assert next(steps)[0] == done and len(dg.core.drain(steps).table()) == 400


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((), "its grid has no run"),
        (({"seed": 1}, {"seed": 2}, {"seed": 1}), "runs 0 and 2 of its grid have the same settings"),
        (({"seed": np.int64(1)},), "plain values"),
        (3, "grid must be"),
        (({"seed": float("nan")},), "plain values"),
        (({"seed": "\udcff"},), "plain values"),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused(settings: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(dg.DgpruneError, match=words):
        run(Experiment(name="wrong", question="?", run=runs.trivial, grid=settings), folder=tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_an_axis_must_be_a_list() -> None:
    for values in ("l1", [], 3):
        with pytest.raises(dg.DgpruneError, match="scorer must be"):
            grid(scorer=values)  # type: ignore[arg-type]


@pytest.mark.filterwarnings(FAILED)
def test_what_a_run_returns_is_checked(tmp_path: Path) -> None:
    def nothing(settings: Any, scratch: Any) -> Any:
        pair = [{"metric": "loss", "value": value, "images": np.int64(7)} for value in (1.0, float("nan"))]
        return [{"value": 1.0}, runs.found(1.0, colour="red"), Finding(rows=pair, data={})][settings["seed"]]

    results = run(experiment(nothing, count=3), folder=tmp_path)
    errors = list(results.runs()["error"])
    assert "must return a Finding; it returned dict" in errors[0] and "the column 'colour'" in errors[1]
    assert list(results.table()["images"]) == [7, 7] and list(results.table()["value"].isna()) == [False, True]


def test_dask_that_is_missing_or_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    from dask.config import set as configured

    with pytest.raises(dg.DgpruneError, match="no Dask scheduler answers at"):
        executors.dask("tcp://127.0.0.1:1", timeout=0.2).__enter__()
    failing = {"distributed.client.security-loader": "operator.neg"}  # before the client has a loop
    with configured(failing), pytest.raises(dg.DgpruneError, match="no Dask scheduler answers at"):
        executors.dask("tcp://127.0.0.1:1").__enter__()
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(dg.DgpruneError, match=r"dgprune-lab\[dask\]"), executors.dask("tcp://127.0.0.1:1"):
        pass


def test_a_wrong_address_of_a_scheduler_leaves_one_sentence_on_stderr(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    words = ["experiment", "mnist_m", "--quick", "--scheduler", "nonsense"]
    command = [sys.executable, "-m", "dgprune_lab.commands.cli", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("dgprune-lab: address: no Dask scheduler answers at 'nonsense'")
