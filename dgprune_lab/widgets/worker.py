"""One thread that runs jobs a step at a time, the most urgent first."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from ..core import hear, threads

EXACT, PANEL, CURVES, BACKGROUND = range(4)
_PARK = 1.0

Job = Generator[Any, None, None]


@dataclass
class _Task:
    priority: int
    start: Callable[[], Job]
    ready: float
    number: int
    job: Job | None = None


class Worker:
    """Runs generators; a job of a name replaces the one before it, and can be dropped between two steps.

    The thread starts with the first job and ends by itself one second after the last, so nothing is left behind when
    the widget goes away.

    Args:
        failed: called in the thread with the job's name and the exception; nothing is printed.
        noted: called in the thread with what would be a warning elsewhere.
    """

    def __init__(
        self, failed: Callable[[str, Exception], None], *, noted: Callable[[str], None] = lambda _: None
    ) -> None:
        self._failed, self._noted = failed, noted
        self._tasks: dict[str, _Task] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._count = 0
        self._running: str | None = None
        self._closed = False

    def put(self, name: str, start: Callable[[], Job], *, priority: int, after: float = 0.0) -> None:
        """Start a job after so many seconds, unless another of its name is put meanwhile."""
        with self._changed:
            if self._closed:
                return
            self._stop(name)
            self._count += 1
            self._tasks[name] = _Task(priority, start, time.monotonic() + after, self._count)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="dgprune-explorer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drop(self, *names: str) -> None:
        """Forget these jobs; a running one ends at its next step."""
        with self._changed:
            for name in names:
                self._stop(name)
            self._changed.notify_all()

    def has(self, name: str) -> bool:
        """Whether a job of this name waits or runs."""
        with self._changed:
            return name in self._tasks

    def wait(self, *names: str, timeout: float) -> bool:
        """Until none of these jobs waits or runs; False when the time is up."""
        with self._changed:
            return self._changed.wait_for(lambda: not any(name in self._tasks for name in names), timeout)

    def close(self, *, timeout: float = 5.0) -> None:
        """Drop everything and end the thread."""
        with self._changed:
            self._closed = True
            for name in list(self._tasks):
                self._stop(name)
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _stop(self, name: str) -> None:
        # A generator must not be closed while its thread is inside it; the loop sees that its task is gone.
        task = self._tasks.pop(name, None)
        if task is not None and task.job is not None and self._running != name:
            task.job.close()

    def _loop(self) -> None:
        threads()
        hear(self._noted)
        while True:
            with self._changed:
                found = self._next()
                if found is None:
                    self._thread = None
                    return
                name, task = found
                self._running = name
            self._step(name, task)

    def _next(self) -> tuple[str, _Task] | None:
        """The most urgent job that is ready; waits for one; None when there has been nothing to do for a second."""
        idle_since = time.monotonic()
        while not self._closed:
            now = time.monotonic()
            ready = [(task.priority, task.number, name) for name, task in self._tasks.items() if task.ready <= now]
            if ready:
                name = min(ready)[2]
                return name, self._tasks[name]
            if not self._tasks and now - idle_since >= _PARK:
                return None
            soonest = min((task.ready for task in self._tasks.values()), default=idle_since + _PARK)
            self._changed.wait(max(soonest - now, 0.001))
        return None

    def _step(self, name: str, task: _Task) -> None:
        error: Exception | None = None
        over = False
        try:
            if task.job is None:
                task.job = task.start()
            next(task.job)
        except StopIteration:
            over = True
        except Exception as raised:
            error, over = raised, True
        gone = False
        with self._changed:
            self._running = None
            gone = self._tasks.get(name) is not task
            if over and not gone:
                del self._tasks[name]
            if gone and not over and task.job is not None:
                with contextlib.suppress(Exception):
                    task.job.close()
            self._changed.notify_all()
        if error is not None and not gone:
            self._failed(name, error)
