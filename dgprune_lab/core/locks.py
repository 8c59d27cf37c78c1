"""Locks that never block a forked process, state that is renewed after a fork, and children that end with their parent.

A fork copies only the calling thread, but every lock as it is: a lock that another thread held stays locked in the
child. DataLoader workers and joblib fork, and an explorer works in its own thread.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import weakref
from typing import Any, Protocol


class Renewed(Protocol):
    """An object with state, such as a lock or thread, that a child process must renew after a fork."""

    def after_fork(self) -> None: ...


_renewed: weakref.WeakSet[Renewed] = weakref.WeakSet()


def renew_after_fork(thing: Renewed) -> None:
    """Call `thing.after_fork()` in every forked child process, as long as `thing` exists."""
    _renewed.add(thing)


_RLock: Any = type(threading.RLock())


class Lock(_RLock):
    """A re-entrant lock that is open in a forked child even if another thread held it during the fork.

    Attributes:
        abandoned: in a child, whether another thread held it during the fork; the guarded state may be incomplete.
    """

    def __init__(self) -> None:
        super().__init__()
        self.abandoned = False
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Open the lock, unless the forking thread holds it."""
        if self.acquire(blocking=False):
            self.release()
        else:
            self._at_fork_reinit()  # as the standard library does with its own locks
            self.abandoned = True


def end_with_parent() -> None:
    """End this process as soon as its parent process has ended, for whatever reason."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _renew() -> None:
    for thing in list(_renewed):
        thing.after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_renew)
