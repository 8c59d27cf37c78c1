"""A widget that the page can reach while a cell runs."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

import anywidget


class CommWidget(anywidget.AnyWidget):
    """An anywidget whose messages from the page are answered on whatever thread is free.

    The kernel otherwise hands the page's messages to the thread that last sent on this comm: after a cell has made the
    widget or set a value, a busy cell would make the slider deaf, as the page waits for each answer before it sends
    more. The attribute it keeps this in is private to the kernel, so a browser test watches that it still works.
    """

    def open(self) -> None:
        super().open()
        with contextlib.suppress(AttributeError, TypeError):  # without a kernel there is no such comm
            self.comm.__class__ = _unbound(type(self.comm))


@cache
def _unbound(kind: type) -> type:
    """The same comm, on which the kernel cannot note who sent last: to take the note away later would be too late."""

    def ignore(_: Any, __: Any) -> None: ...

    # Without a getter the attribute is missing, as it is where nobody has sent yet.
    return type(kind)(kind.__name__, (kind,), {"_reply_subshell_id": property(None, ignore)})
