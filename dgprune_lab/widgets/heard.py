"""A widget that the page can reach while a cell runs."""

from __future__ import annotations

import contextlib
from typing import Any

import anywidget


class HeardWidget(anywidget.AnyWidget):
    """An anywidget whose messages from the page are answered on whatever thread is free.

    The kernel otherwise hands the page's messages to the thread that last sent on this comm: after a cell has made the
    widget or set a value, a busy cell would make the slider deaf. The attribute it keeps this in is private to the
    kernel, so a browser test watches that it still works.
    """

    def open(self) -> None:
        super().open()
        self._answer_anywhere()

    def _send(self, msg: Any, buffers: Any = None) -> None:
        super()._send(msg, buffers)
        self._answer_anywhere()

    def _answer_anywhere(self) -> None:
        with contextlib.suppress(AttributeError, TypeError):  # without a kernel there is no comm
            vars(self.comm).pop("_reply_subshell_id", None)
