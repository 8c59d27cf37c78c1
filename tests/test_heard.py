"""What the kernel notes about who sent last on a comm must not decide who hears the page."""

from __future__ import annotations

import threading
from typing import Any

from ipykernel.comm.comm import BaseComm

from dgprune_lab.widgets.page.comm import _unbound


def comm() -> Any:
    made: Any = BaseComm.__new__(BaseComm)
    made._reply_subshell_lock, made._reply_subshell_ids = threading.Lock(), {}
    made._reply_subshell_id = None  # the main thread, where a cell runs, has sent
    return made


def test_the_page_is_answered_where_it_asks_whoever_sent_last() -> None:
    assert comm()._reply_subshell_for({}, "the page's") is None, "the kernel keeps this no more: CommWidget may go"
    heard = comm()
    heard.__class__ = _unbound(type(heard))
    assert heard._reply_subshell_for({}, "the page's") == "the page's"
    heard._reply_subshell_id = None  # at any moment, while a message is on its way
    assert heard._reply_subshell_for({}, "the page's") == "the page's"
    assert isinstance(heard, BaseComm) and type(heard).__name__ == "BaseComm"
