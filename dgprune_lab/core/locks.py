"""Locks that do not block a forked process for ever, and other state that a forked process must renew.

A fork copies only the thread that calls it, but every lock as it is: a lock that another thread held stays locked for
ever in the child. DataLoader workers and joblib fork, and an explorer works in a thread of its own.
"""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType
from typing import Protocol


class Renewed(Protocol):
    """An object with state that a forked child process must renew."""

    def after_fork(self) -> None: ...


_renewed: weakref.WeakSet[Renewed] = weakref.WeakSet()


def renew_after_fork(thing: Renewed) -> None:
    """Call `thing.after_fork()` in every forked child process, as long as `thing` exists."""
    _renewed.add(thing)


class Lock:
    """A re-entrant lock, for a `with` block; a forked child finds it open even if another thread held it at the fork.

    Attributes:
        abandoned: True in a child if another thread held the lock at the fork: what it guards may be half-changed.
    """

    def __init__(self) -> None:
        self._lock, self._owner, self._depth = threading.RLock(), 0, 0
        self.abandoned = False
        renew_after_fork(self)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner, self._depth = threading.get_ident(), self._depth + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = 0
        self._lock.release()

    def after_fork(self) -> None:
        """Open the lock in the child, unless the thread that forked holds it."""
        if self._owner == threading.get_ident():
            return
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock, self.abandoned = threading.RLock(), True
        self._owner = self._depth = 0


def _renew() -> None:
    for thing in list(_renewed):
        thing.after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_renew)
