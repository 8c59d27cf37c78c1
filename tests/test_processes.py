"""Ends, forks and copies of processes while an explorer works: none aborts, hangs or computes something else."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import torch
from material import domain, norm_net, randomise

import dgprune_lab as dg
from dgprune_lab.core import Lock
from dgprune_lab.widgets.worker import Worker

_BUSY = """
import threading, torch
from dgprune_lab.widgets.worker import Worker

torch.set_num_threads(1)
started = threading.Event()
def busy():
    matrix = torch.rand(700, 700)
    while True:
        started.set()
        for _ in range(60):
            matrix = (matrix @ matrix).clamp(0, 1)
        yield

worker = Worker(lambda *_: None)
worker.put("busy", busy, priority=0)
started.wait()
"""
_EXPLORER = """
import dgprune_lab as dg
explorer = dg.Explorer(dg.demo(), scorer="dss")
explorer.ratio = 0.3
"""
_ENDS = {"worker.close(timeout=0.01)": 0, "raise SystemExit(7)": 7}


def run(script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False, timeout=300
    )


@pytest.mark.parametrize(
    "end", ["worker.close(timeout=0.01)", pytest.param("raise SystemExit(7)", marks=pytest.mark.slow)]
)
def test_a_script_that_ends_while_a_worker_computes_ends_in_order(end: str) -> None:
    done = run(_BUSY + end)
    assert done.returncode == _ENDS[end], done.stderr
    assert done.stderr == ""


def test_a_script_that_ends_while_an_explorer_computes_ends_in_order() -> None:
    done = run(_EXPLORER)
    assert done.returncode == 0 and "terminate" not in done.stderr, done.stderr


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_child(work: Any, *, seconds: float = 120.0) -> Any:
    """What a function returns in a forked child; fails where it hangs."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = work()
        except BaseException as error:
            answer = error
        with os.fdopen(writer, "wb") as stream:
            stream.write(pickle.dumps(answer))
        os._exit(0)
    os.close(writer)
    killer = threading.Timer(seconds, os.kill, (child, 9))
    killer.start()
    with os.fdopen(reader, "rb") as stream:
        content = stream.read()
    os.waitpid(child, 0)
    killer.cancel()
    assert content, "the child hung"
    return pickle.loads(content)


def small_study() -> dg.Study:
    return dg.Study(randomise(norm_net(), dtype=torch.float32), sources=[domain("a")], targets=[domain("b", seed=3)])


@forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_lock_that_another_thread_holds_is_open_in_a_forked_child() -> None:
    held, own, release = Lock(), Lock(), threading.Event()
    inside = threading.Event()

    def hold() -> None:
        with held:
            inside.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()

    def work() -> list[bool]:
        with held:
            pass
        return [held.abandoned, own.abandoned]

    with own:
        assert in_child(work) == [True, False]
        with own:
            pass
    release.set()
    thread.join()
    assert not held.abandoned


@forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_study_answers_in_a_child_that_was_forked_while_another_thread_used_it() -> None:
    study = small_study()
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    expected = study.outcomes(mask, domain="b").predicted.tolist()
    study.outcomes(mask, domain="a")
    evaluator, cache = study._current().evaluator, study._cache
    inside, release = threading.Event(), threading.Event()

    def hold() -> None:
        with evaluator._lock, cache.lock:
            inside.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    other = dg.allocate(study_scores(), ratio=0.25)

    def work() -> list[Any]:
        fresh = study.outcomes(mask, domain="b", images=10).predicted.tolist()
        return [study.outcomes(mask, domain="b").predicted.tolist(), fresh, len(study.outcomes(other, domain="a"))]

    again, fresh, count = in_child(work)
    release.set()
    thread.join()
    assert again == expected and fresh == expected[:10] and count == 20


def study_scores() -> dg.Scores:
    return small_study().score("l1")


@forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_worker_begins_its_jobs_anew_in_a_forked_child() -> None:
    inside, release, answers = threading.Event(), threading.Event(), []

    def job() -> Any:
        inside.set()
        release.wait()
        yield
        answers.append(6 * 7)

    worker = Worker(lambda *_: None)
    worker.put("job", job, priority=0)
    inside.wait()

    def work() -> Any:
        release.set()
        ended = worker.wait("job", timeout=60)
        worker.close()
        return ended, answers

    assert in_child(work) == (True, [42])
    assert not answers and worker.has("job")
    release.set()
    assert worker.wait("job", timeout=60) and answers == [42]
    worker.close()


@forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_live_run_says_in_a_forked_child_that_it_runs_elsewhere() -> None:
    inside, release = threading.Event(), threading.Event()

    def steps() -> Any:
        inside.set()
        release.wait()
        yield None
        return "done"

    from dgprune_lab.widgets.live.live import Live

    live = Live(steps)
    inside.wait()

    def work() -> Any:
        with pytest.raises(dg.DgpruneError, match="forked from the one that runs it"):
            return live.result

    assert in_child(work) is None
    release.set()
    assert live.result == "done"
    live.close()


def test_a_study_can_be_pickled_and_copied() -> None:
    import copy

    study = small_study()
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    expected = study.outcomes(mask, domain="b")
    for again in (pickle.loads(pickle.dumps(study)), copy.deepcopy(study)):
        assert again is not study and again.model is not study.model
        assert [d.name for d in again.domains] == ["a", "b"] and again.domain("b").role == "target"
        assert again.content == study.content and again.key == study.key and repr(again) == repr(study)
        assert again.provenance == study.provenance
        assert torch.equal(again.outcomes(mask, domain="b").predicted, expected.predicted)


def test_the_demo_keeps_its_provenance_in_a_pickle() -> None:
    study = dg.demo()
    again = pickle.loads(pickle.dumps(study))
    assert again.provenance == study.provenance and again.origin == study.origin and again.name == study.name


def test_a_study_that_cannot_be_pickled_says_why() -> None:
    model = randomise(norm_net(), dtype=torch.float32)
    model.extra = lambda x: x  # type: ignore[assignment]
    study = dg.Study(model, sources=[domain("a")])
    with pytest.raises(
        dg.DgpruneError, match=r"study 'study' can be neither pickled nor copied: its network cannot .*lambda"
    ):
        pickle.dumps(study)


def test_nothing_is_left_running() -> None:
    time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if thread.name == "dgprune-explorer" and thread.is_alive()]
