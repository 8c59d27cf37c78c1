"""One task in a child process with limits of time and memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal

import psutil

from ...core import end_with_parent

_INTERVAL = 0.02  # seconds between two checks of the child

Stage = Callable[[str], None]
Task = Callable[[Any, Stage], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one child process.

    Attributes:
        seconds: limit of processor time, in seconds.
        waiting: limit of wall time, in seconds, since a child that waits forever uses no processor time.
        bytes: limit of resident memory above that at the first stage, when the network is built.
    """

    seconds: float = 40.0
    waiting: float = 600.0
    bytes: int = 3 * 2**30


@dataclass(kw_only=True)
class Ending:
    """How a child process ended.

    Attributes:
        kind: "done", "error" (an exception), "died" (without an answer), "timeout" or "memory" (a limit was hit).
        result: the result of the task.
        error: the last line of the exception, "KeyError: 'x'", or how the process ended.
        stage: the last stage that the task announced.
        peaks: stage -> peak resident memory during it, in bytes in excess of that at the first stage.
    """

    kind: Literal["done", "error", "died", "timeout", "memory"] = "died"
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    stage: str = "start"
    peaks: dict[str, int] = field(default_factory=dict)


def run_limited(task: Task, argument: Any, *, limits: Limits, preload: tuple[str, ...] = ()) -> Ending:
    """Run `task(argument, stage)` in a child process and return how it ended; the child has ended when this returns.

    The address space is not limited, because builds of torch may reserve much and use little; instead the resident
    memory is checked every 20 ms.

    Args:
        task: a function that can be pickled; it calls `stage(name)` when a new part of its work begins.
        argument: the task's argument, which can be pickled.
        limits: the limits of the child process.
        preload: modules that are imported once for all children, if the system can fork.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload([__name__, *preload])
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_run_child, args=(send, task), kwargs={"argument": argument}, daemon=True)
    process.start()
    send.close()
    try:
        return _watch_child(process, receive, limits=limits)
    finally:
        process.kill()
        process.join()
        receive.close()


def _run_child(send: Connection, task: Task, *, argument: Any) -> None:
    """Run the task in the child, and send its stages and its result."""
    import torch

    torch.set_num_threads(1)
    end_with_parent()
    memory = psutil.Process().memory_info

    def stage(name: str) -> None:
        send.send(("stage", name, memory().rss))

    try:
        send.send(("done", task(argument, stage), 0))
    except BaseException as error:
        lines = str(error).strip().splitlines() or [""]
        send.send(("error", f"{type(error).__name__}: {lines[-1]}", 0))


def _watch_child(process: Any, receive: Connection, *, limits: Limits) -> Ending:
    """Watch a child process until it answers, dies, or hits a limit."""
    ending, bases, started = Ending(), [], time.monotonic()
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        child = psutil.Process(process.pid)
        start = child.memory_info().rss
        while not _read_messages(receive, ending, bases=bases):
            above = child.memory_info().rss - [*bases, start][0]
            ending.peaks[ending.stage] = max(above, ending.peaks.get(ending.stage, 0))
            used = sum(child.cpu_times()[:2])
            if above > limits.bytes:
                ending.kind = "memory"
                return ending
            if used > limits.seconds or time.monotonic() - started > limits.waiting:
                ending.kind = "timeout"
                return ending
        return _with_exit_code(process, ending)
    _read_messages(receive, ending, bases=bases)  # what it sent before it ended between two checks
    return _with_exit_code(process, ending)


def _read_messages(receive: Connection, ending: Ending, *, bases: list[int]) -> bool:
    """Record what the child has sent, and its memory at each stage; return whether it has finished."""
    while receive.poll(_INTERVAL):
        try:
            kind, value, rss = receive.recv()
        except EOFError:
            return True
        if kind != "stage":
            ending.kind = kind
            ending.result, ending.error = (value, "") if kind == "done" else ({}, value)
            return True
        ending.stage = value
        bases.append(rss)
    return False


def _with_exit_code(process: Any, ending: Ending) -> Ending:
    """Return the ending of a child, with its exit code if it died without an answer."""
    if ending.kind == "died":
        process.join()
        ending.error = f"the process ended with code {process.exitcode}"
    return ending
