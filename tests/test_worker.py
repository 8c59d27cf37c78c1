"""The explorer's worker."""

from __future__ import annotations

import math
import time
from typing import Any

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
