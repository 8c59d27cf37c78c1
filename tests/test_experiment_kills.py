"""Experiments in processes that are killed within a run: once resumed, the rows are those of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import experiment_runs as runs
import psutil
import pytest
from experiment_runs import drawn, experiment, same

import dgprune_lab as dg
from dgprune_lab.experiments import Results, executors, run

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
_PATIENCE = 900  # seconds, on a machine however busy
# A driver that is killed from the middle of a run; argument 1 is the folder, 2 the address of a scheduler, if any.
DRIVER = """
import os, sys
from pathlib import Path
import experiment_runs as runs
from dgprune_lab.experiments import executors, run

if __name__ == "__main__":
    folder, address = Path(sys.argv[1]), sys.argv[2:]
    runs.lethal(folder, os.getpid())
    with executors.dask(address[0]) if address else executors.local(2) as pool:
        run(runs.drawn(), folder=folder, executor=pool)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(drawn(), folder=tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options, silence_logs=50) as started:
        yield started


@pytest.fixture
def dask(cluster: Any) -> Iterator[Executor]:
    with executors.dask(cluster.scheduler_address, timeout=_PATIENCE) as pool:
        yield pool


def killed_driver(folder: Path, *address: str) -> None:
    """Run a driver in a process of its own until a run kills it."""
    script = folder.with_suffix(".py")
    script.write_text(DRIVER)
    inside = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    done = subprocess.run([sys.executable, script, folder, *address], env=inside, timeout=_PATIENCE, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_dask_worker_that_is_killed(dask: Executor, tmp_path: Path, undisturbed: Results) -> None:
    runs.lethal(tmp_path)  # the process of the run itself
    results = run(drawn(), folder=tmp_path, executor=dask)
    assert not (tmp_path / "lethal").exists()
    same(results, undisturbed)
    assert os.getpid() not in {int(worker.rpartition(":")[2]) for worker in results.runs()["worker"]}


def test_a_driver_that_is_killed_while_dask_works(
    cluster: Any, dask: Executor, tmp_path: Path, undisturbed: Results
) -> None:
    folder = tmp_path / "results"
    killed_driver(folder, cluster.scheduler_address)
    done = len(Results(folder).runs())
    assert done < 12 and not Results(folder).progress().running
    steps = run.steps(drawn(), folder=folder, executor=dask)
    assert next(steps)[0] == done
    for _ in steps:
        pass
    same(Results(folder), undisturbed)


def test_worker_processes_give_the_same_rows(tmp_path: Path, undisturbed: Results) -> None:
    with executors.local(2) as pool:
        same(run(drawn(), folder=tmp_path, executor=pool), undisturbed)


def test_ctrl_c_ends_worker_processes(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), executors.local(2) as pool:
        steps = run.steps(experiment(count=400), folder=tmp_path, executor=pool)
        while next(steps)[0] < 1:
            pass
        steps.throw(KeyboardInterrupt)
    assert 1 <= len(Results(tmp_path).runs()) < 400


def test_a_killed_worker_process_leaves_its_run_open(tmp_path: Path, undisturbed: Results) -> None:
    runs.lethal(tmp_path)
    with pytest.raises(dg.DgpruneError, match="executor: workers ended"), executors.local(2) as pool:
        run(drawn(), folder=tmp_path, executor=pool)
    left = Results(tmp_path).progress()
    assert left.done < 12 and not left.failed
    same(run(drawn(), folder=tmp_path), undisturbed)


def test_a_driver_that_is_killed_takes_its_workers_with_it(tmp_path: Path, undisturbed: Results) -> None:
    folder = tmp_path / "results"
    killed_driver(folder)
    workers = [int(worker.rpartition(":")[2]) for worker in Results(folder).runs()["worker"].unique()]
    left = [psutil.Process(number) for number in workers if psutil.pid_exists(number)]
    assert psutil.wait_procs(left, timeout=_PATIENCE)[1] == []
    same(run(drawn(), folder=folder), undisturbed)
