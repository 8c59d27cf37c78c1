"""The explorer's worker, and the prediction before the answer."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

import dgprune_lab as dg
from dgprune_lab.widgets.worker import Worker


def test_the_most_urgent_job_runs_first_and_a_replaced_one_never_ends() -> None:
    said: list[str] = []

    def job(name: str, steps: float) -> Any:
        k = 0
        while k < steps:
            time.sleep(0.002)
            said.append(f"{name}{k}")
            k += 1
            yield

    worker = Worker(lambda name, error: said.append(f"{name}: {error}"))
    worker.put("slow", lambda: job("slow", math.inf), priority=2)
    while not said:
        time.sleep(0.001)
    worker.put("quick", lambda: job("quick", 3), priority=0)
    assert worker.wait("quick", timeout=60) and worker.has("slow")
    start = said.index("quick0")
    assert said[start : start + 3] == ["quick0", "quick1", "quick2"]
    worker.drop("slow")
    assert worker.wait("slow", timeout=60)

    def fails() -> Any:
        raise RuntimeError("no")
        yield

    worker.put("bad", fails, priority=0)
    assert worker.wait("bad", timeout=60)
    worker.close()
    assert said[-1] == "bad: no"


def test_a_prediction_locks_and_an_empty_one_blocks_nothing() -> None:
    guess = dg.predict("Which <b>one</b>?", ["left", "right"])
    assert "&lt;b&gt;" in guess.children[0].value
    guess.lock()
    assert not guess.locked
    guess.reveal("left", because="3 < 4")
    assert guess.locked and "No prediction" in guess.text and "3 &lt; 4" in guess.text
    other = dg.predict("Which?", ["left", "right"])
    other.guess = "right"
    other.lock()
    other.reveal("right")
    assert "Right." in other.text
    with pytest.raises(dg.DgpruneError, match="not an option"):
        other.reveal("up")
    with pytest.raises(dg.DgpruneError, match="two or more"):
        dg.predict("Which?", ["only"])
