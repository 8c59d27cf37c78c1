"""Which thread sent last on a comm must not decide whether messages of the page are answered."""

from __future__ import annotations

import gc
import threading
from typing import Any

from ipykernel.comm.comm import BaseComm

from dgprune_lab.widgets.page.comm import weakly, without_reply_thread


def comm() -> Any:
    """A comm on which the main thread, where a cell runs, has sent."""
    comm: Any = BaseComm.__new__(BaseComm)
    comm._reply_subshell_lock, comm._reply_subshell_ids = threading.Lock(), {}
    comm._reply_subshell_id = None
    return comm


def test_the_page_is_answered_where_it_asks_whichever_thread_sent_last() -> None:
    assert comm()._reply_subshell_for({}, "the page's") is None, "the kernel no longer does this: CommWidget may go"
    free = comm()
    free.__class__ = without_reply_thread(type(free))
    assert free._reply_subshell_for({}, "the page's") == "the page's"
    free._reply_subshell_id = None  # at any moment, while a message is on its way
    assert free._reply_subshell_for({}, "the page's") == "the page's"
    assert isinstance(free, BaseComm) and type(free).__name__ == "BaseComm"


def test_a_weak_method_does_not_keep_its_object_alive() -> None:
    class Counter:
        def add(self, number: int) -> int:
            return number + 1

    counter = Counter()
    add = weakly(counter.add)
    assert add(2) == 3
    del counter
    gc.collect()
    assert add(2) is None
