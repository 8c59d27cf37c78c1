"""A thread that runs jobs one step at a time, the most urgent first."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

from ..core import Cancelled, cancelled_when, collect_notes, renew_after_fork, threads

EXACT, PANEL, CURVES, BACKGROUND = range(4)
_IDLE_SECONDS = 1.0

Job = Generator[Any, None, None]
_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


@dataclass(kw_only=True)
class _Task:
    priority: int
    start: Callable[[], Job]
    ready: float
    number: int
    for_page: bool
    job: Job | None = None


class Worker:
    """Run jobs (generators) in one thread. A job replaces any earlier one of its name and can be dropped between steps.

    A job dropped during a step ends within it only if its work is `core.interruptible`, at the next torch function.
    A job put with `for_page` rests until `seen` is true or a caller waits for it.

    The thread starts with the first job and ends by itself after one second without a job that may run, so that nothing
    keeps running after the widget is closed; the interpreter waits for the current step before it ends. A forked
    process has no such thread: there, all jobs start again in a new thread as soon as a caller waits for one.

    Args:
        failed: called in the thread with the name of a job and the exception that it raised; nothing is printed.
        noted: called in the thread with the text of each note, which would otherwise be a warning.

    Attributes:
        seen: whether a page shows the results; set by `show`.
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
        self._awaited: list[tuple[str, ...]] = []
        self._closed = self.seen = False
        self._before_fork: list[_Task] = []
        _workers.add(self)
        renew_after_fork(self)

    def put(
        self, name: str, start: Callable[[], Job], *, priority: int, after: float = 0.0, for_page: bool = False
    ) -> None:
        """Start a job in `after` seconds, unless another job of this name is put before that."""
        with self._changed:
            if self._closed:
                return
            self._stop(name)
            self._count += 1
            ready = time.monotonic() + after
            self._tasks[name] = _Task(
                priority=priority, start=start, ready=ready, number=self._count, for_page=for_page
            )
            self._start()
            self._changed.notify_all()

    def show(self, seen: bool) -> None:
        """Set whether a page shows the results; if not, jobs for the page rest."""
        with self._changed:
            self.seen = seen
            if seen and self._tasks:
                self._start()
            self._changed.notify_all()

    def drop(self, *names: str) -> None:
        """Cancel these jobs; a running one ends as soon as it can."""
        with self._changed:
            for name in names:
                self._stop(name)
            self._changed.notify_all()

    def has(self, name: str) -> bool:
        """Return whether a job of this name is waiting or running."""
        with self._changed:
            return name in self._tasks

    def wait(self, *names: str, timeout: float) -> bool:
        """Wait until none of these jobs is left (without names: no job at all); return False on a timeout."""
        with self._changed:
            self._awaited.append(names)
            if self._tasks:
                self._start()
            self._changed.notify_all()
            try:
                return self._changed.wait_for(
                    lambda: not any(name in self._tasks for name in names or self._tasks), timeout
                )
            finally:
                self._awaited.remove(names)

    def close(self, *, timeout: float | None = 5.0) -> None:
        """Drop all jobs and end the thread; wait for its current step, at most `timeout` seconds."""
        with self._changed:
            self._closed = True
            for name in list(self._tasks):
                self._stop(name)
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def after_fork(self) -> None:
        """Start all jobs again: a forked child has no thread, and a generator that was running cannot be resumed."""
        self._before_fork = list(self._tasks.values())  # kept, because a running generator cannot be closed either
        self._changed, self._thread, self._running, self._awaited = threading.Condition(), None, None, []
        self._tasks = {name: replace(task, job=None) for name, task in self._tasks.items()}

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._loop, name="dgprune-explorer", daemon=True)
            self._thread.start()

    def _stop(self, name: str) -> None:
        # A generator must not be closed while the thread runs it; the loop notices that its task was removed.
        task = self._tasks.pop(name, None)
        if task is not None and task.job is not None and self._running != name:
            task.job.close()

    def _loop(self) -> None:
        threads()
        while True:
            with self._changed:
                name = self._next_job()
                if name is None:
                    self._thread = None
                    return
                task, self._running = self._tasks[name], name
            with collect_notes(self._noted):
                self._run_step(name, task)

    def _next_job(self) -> str | None:
        """Wait for the most urgent job that is ready and return its name; None after a second without runnable jobs."""
        idle_since = time.monotonic()
        while not self._closed:
            now = time.monotonic()
            runnable = {name: task for name, task in self._tasks.items() if self._may_run(name, task)}
            ready = [(task.priority, task.number, name) for name, task in runnable.items() if task.ready <= now]
            if ready:
                return min(ready)[2]
            if not runnable and now - idle_since >= _IDLE_SECONDS:
                return None
            soonest = min((task.ready for task in runnable.values()), default=idle_since + _IDLE_SECONDS)
            self._changed.wait(max(soonest - now, 0.001))
        return None

    def _may_run(self, name: str, task: _Task) -> bool:
        return not task.for_page or self.seen or any(not names or name in names for names in self._awaited)

    def _run_step(self, name: str, task: _Task) -> None:
        error: Exception | None = None
        finished = False
        try:
            if task.job is None:
                task.job = task.start()
            with cancelled_when(lambda: self._tasks.get(name) is not task):
                next(task.job)
        except (StopIteration, Cancelled):
            finished = True
        except Exception as raised:
            error, finished = raised, True
        with self._changed:
            self._running = None
            dropped = self._tasks.get(name) is not task
            if finished and not dropped:
                del self._tasks[name]
            if dropped and not finished and task.job is not None:
                with contextlib.suppress(Exception):
                    task.job.close()
            self._changed.notify_all()
        if error is not None and not dropped:
            self._failed(name, error)


@atexit.register
def _close_all() -> None:
    """End every thread before the interpreter exits: a thread still computing in PyTorch would abort the process."""
    for worker in list(_workers):
        worker.close(timeout=None)
