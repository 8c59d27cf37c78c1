"""A run in the background: stop, resume, watch, and take the result so far; nothing is lost or left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import torch
from tuned_study import QUICK, same, study, tuned

import dgprune_lab as dg
from dgprune_lab.core import interruptible
from dgprune_lab.training.events import BatchEvent, PruneEvent, StageEvent
from dgprune_lab.training.loop import train
from dgprune_lab.widgets import Live, Tuning

ROW = {
    "scorer": "l1",
    "metric": "accuracy",
    "domain": "a",
    "role": "source",
    "value": 0.5,
    "unit": "share",
    "ratio_achieved": 0.25,
    "budget": "filters",
    "round": 1,
    "stage": "cut",
}


def stage(number: int) -> StageEvent:
    rows = ({**ROW, "epoch": number, "stage": "tuned"},)
    after = f"after {number}"
    return StageEvent(stage="tuned", round=1, rounds=1, epoch=number, epochs=5, rows=rows, so_far=after)


class Gate:
    """A run of five stages that takes a step when it is let through, and says which thread it ran in."""

    def __init__(self, *, fails_at: int = 99) -> None:
        self.open, self.fails_at = threading.Semaphore(0), fails_at
        self.threads: set[str] = set()
        self.closed = False

    def __call__(self) -> Generator[Any, None, str]:
        try:
            for number in range(1, 6):
                while not self.open.acquire(timeout=0.005):
                    yield None
                self.threads.add(threading.current_thread().name)
                if number == self.fails_at:
                    raise RuntimeError("<b>half-way</b>")
                yield stage(number)
        finally:
            self.closed = True
        return "the end"

    def step(self, live: Live, *, stages: int = 1) -> None:
        """Let it through so many times, and wait until that is taken down."""
        wanted = len(live.data["curves"]) + stages
        for _ in range(stages):
            self.open.release()
        until(lambda: len(live.data["curves"]) >= wanted)


def until(test: Callable[[], bool], *, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def opened() -> Iterator[list[Live]]:
    made: list[Live] = []
    yield made
    for one in made:
        one.close()


def test_it_runs_beside_the_cell_and_gives_what_the_function_gives(opened: list[Live]) -> None:
    given = study()
    live = Tuning(given, "taylor", ratio=0.5, epochs=2, options=QUICK)
    opened.append(live)
    found = live.result
    assert live.state == "finished" and found.finished
    said = tuned(given, "taylor", measure="epochs")
    assert same(found.network, said.network) and found.table.equals(said.table) and live.table.equals(said.table)
    points = [(row["domain"], row["epoch"]) for row in live.data["curves"]]
    assert len(points) == 3 * (1 + 2 * (1 + 2)) and max(points)[1] == 4
    assert [row["epoch"] for row in live.data["cuts"]] == [0, 2] and live.data["ends"][1] == {"epoch": 4}
    assert live.static["title"] == f"{dg.SCORERS['taylor'].label}, 50 % of the filters, in 2 rounds of 2 epochs"


def test_a_run_that_was_stopped_and_continued_comes_to_the_same(opened: list[Live]) -> None:
    given = study()
    live = Tuning(given, "l1", ratio=0.5, epochs=6, measure="rounds")
    opened.append(live)
    for _ in range(8):
        live.stop()
        assert live.state in ("stopped", "finished")
        live.resume()
    assert same(live.result.network, dg.prune_and_tune(given, "l1", ratio=0.5, epochs=6).network)


def test_stop_pauses_resume_continues_and_the_result_is_the_one_so_far(opened: list[Live]) -> None:
    gate = Gate()
    live = Live(gate, title="a run")
    opened.append(live)
    gate.step(live)
    live.stop()
    assert live.state == "stopped" and live.result == "after 1"
    gate.open.release()
    time.sleep(0.2)
    assert len(live.data["curves"]) == 1 and live.result == "after 1", "it rests"
    live.resume()
    until(lambda: len(live.data["curves"]) == 2)
    gate.step(live, stages=2)
    live.stop()
    gate.open.release()
    live.resume()
    assert live.result == "the end" and live.state == "finished" and live.table.shape[0] == 5
    live.stop()
    live.resume()
    assert live.state == "finished"


def test_a_step_that_evaluates_is_not_cancelled_by_stopping(opened: list[Live]) -> None:
    inside, leave = threading.Event(), threading.Event()

    def run() -> Generator[Any, None, str]:
        with interruptible():
            inside.set()
            leave.wait()
            torch.zeros(1).add_(1)
        yield stage(1)
        return "the end"

    live = Live(run)
    opened.append(live)
    assert inside.wait(20)
    live.stop()
    leave.set()
    live.resume()
    assert live.result == "the end" and live.state == "finished"


def test_a_step_that_was_under_way_belongs_to_the_result(opened: list[Live]) -> None:
    inside, leave = threading.Event(), threading.Event()

    def run() -> Generator[Any, None, str]:
        yield stage(1)
        inside.set()
        leave.wait()
        yield stage(2)
        return "the end"

    live = Live(run)
    opened.append(live)
    assert inside.wait(20)
    live.stop()
    threading.Timer(0.1, leave.set).start()
    assert live.state == "stopped" and live.result == "after 2"


def test_before_the_first_stage_there_is_nothing_to_give(opened: list[Live]) -> None:
    def slow() -> Generator[Any, None, None]:
        while True:
            time.sleep(0.001)
            yield None

    live = Live(slow)
    opened.append(live)
    live.stop()
    with pytest.raises(dg.DgpruneError, match=r"before its first stage.*resume it"):
        _ = live.result


def test_an_error_is_said_in_words_and_raised_where_the_result_is_asked_for(opened: list[Live]) -> None:
    gate = Gate(fails_at=2)
    live = Live(gate)
    opened.append(live)
    gate.open.release(2)
    with pytest.raises(dg.DgpruneError, match="the run failed: RuntimeError: <b>half-way</b>"):
        _ = live.result
    assert live.state == "failed" and live.status["error"] == "RuntimeError: <b>half-way</b>"
    assert len(live.data["curves"]) == 1 and live.table.value.tolist() == [0.5]
    live.resume()
    assert live.state == "failed"


def test_closing_ends_the_thread_and_keeps_what_was_done() -> None:
    gate = Gate()
    live = Live(gate)
    gate.step(live, stages=2)
    gate.open.release()
    live.close()
    until(lambda: not any(t.name in gate.threads for t in threading.enumerate()))
    assert gate.closed and live.result in ("after 2", "after 3") and live.state == "closed"
    live.resume()
    assert live.state == "closed" and "MainThread" not in gate.threads


def test_what_is_refused_is_refused_at_once() -> None:
    with pytest.raises(dg.DgpruneError, match="rounds must lie in 1 to 1,000"):
        Tuning(study(), "l1", ratio=0.5, rounds=0)
    with pytest.raises(dg.DgpruneError, match="unknown scorer 'l11'"):
        Tuning(study(), "l11", ratio=0.5)


def test_a_run_without_a_page_is_paused_until_it_is_shown_or_its_result_is_asked_for(opened: list[Live]) -> None:
    gate = Gate()
    live = Live(gate)
    opened.append(live)
    live._view_count = 1
    gate.step(live)
    live._view_count = 0
    assert live.state == "stopped"
    live._view_count = 1
    assert live.state == "running"
    live._view_count = 0
    gate.open.release(5)
    assert live.result == "the end", "whoever asks for the result wants it all"
    other = Live(Gate())
    opened.append(other)
    other._view_count = 1
    other.stop()
    other._view_count = 0
    other._view_count = 1
    assert other.state == "stopped", "what the user stopped stays so"


def test_progress_in_words(opened: list[Live]) -> None:
    go = threading.Event()

    def run() -> Generator[Any, None, str]:
        yield BatchEvent(epoch=1, epochs=20, batch=1, batches=2, images=10, loss=9.0, lr=0.1)
        yield PruneEvent(round=1, rounds=2, removed={"conv": [3, 4]}, rows=({**ROW, "epoch": 0},), so_far="cut")
        go.wait()
        yield BatchEvent(epoch=3, epochs=20, batch=1, batches=2, images=30, loss=0.1, lr=0.1)
        yield BatchEvent(epoch=3, epochs=20, batch=2, batches=2, images=10, loss=0.18, lr=0.1)
        go.clear()
        go.wait()
        return "the end"

    live = Live(run, epochs=40)
    opened.append(live)
    until(lambda: live.status["progress"] == "round 1 of 2, 2 filters removed")
    until(lambda: [cut["label"] for cut in live.data["cuts"]] == ["25 % of filters removed"])
    go.set()
    until(lambda: live.status["progress"] == "round 1 of 2, epoch 3 of 20, loss 0.12")
    until(lambda: not go.is_set())
    go.set()
    assert live.result == "the end" and live.status["progress"] == "round 1 of 2 is finished"


def test_any_training_can_be_watched(opened: list[Live]) -> None:
    given = study()
    live = Live(lambda: train(given.model, sources=given.sources, options=QUICK), title="training", epochs=2)
    opened.append(live)
    assert same(live.result, live.result) and live.status["progress"] == "the run is finished"
    assert live.data["curves"] == [] and list(live.table.columns)[-4:] == ["round", "epoch", "stage", "score_split"]


def test_a_notebook_read_without_a_kernel_shows_a_sentence_and_the_picture(opened: list[Live]) -> None:
    gate = Gate()
    live = Live(gate, title="<i>mine</i>")
    opened.append(live)
    first: Any = live._repr_mimebundle_()
    first = first[0] if isinstance(first, tuple) else first
    assert "&lt;i&gt;mine&lt;/i&gt;" in first["text/html"] and "Run this cell for the live chart." in first["text/html"]
    gate.step(live)
    second: Any = live._repr_mimebundle_()
    second = second[0] if isinstance(second, tuple) else second
    assert "data:image/svg+xml" in second["text/html"] and "application/vnd.jupyter.widget-view+json" in second
