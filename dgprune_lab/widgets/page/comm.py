"""The base class of the widgets: messages of the page, its visibility, and the picture in a saved notebook.

A live page must not wait for a picture that it does not show, so a cell shows a widget with the picture of what is
ready. Where `DGPRUNE_PICTURES` is "whole", as `dgprune-lab notebooks` sets it, a cell waits for the whole picture and
shows nothing else; `DGPRUNE_PICTURES=whole jupyter nbconvert --execute --to html` then makes a page whose widgets need
no network. Without it nbconvert stores the state of the widgets, and its page takes their code from the web.
"""

from __future__ import annotations

import contextlib
import os
import re
import weakref
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import anywidget

from ...charts.renderer import image

PICTURES = "DGPRUNE_PICTURES"
_SVG = re.compile(r"<svg\b.*?</svg>", re.DOTALL)


class CommWidget(anywidget.AnyWidget):
    """A widget that handles messages of its page in any free thread.

    By default the kernel passes a page's messages to the thread that last sent on this comm. After a cell has created
    the widget or set a value, a busy cell would then block the slider, because the page waits for each answer before it
    sends more. The attribute that stores this thread is private to the kernel, so a browser test checks that the
    workaround still works.
    """

    def open(self) -> None:
        super().open()
        with contextlib.suppress(AttributeError, TypeError):  # without a kernel there is no such comm
            self.comm.__class__ = without_reply_thread(type(self.comm))

    def listen(self) -> None:
        """Start receiving messages from the page and changes of its visibility."""
        views, message = weakly(self.views_changed), weakly(self.handle_message)
        self.set_trait("_view_count", 0)
        self.observe(lambda event: views(event["old"] or 0, event["new"] or 0), "_view_count")
        self.on_msg(lambda _, content, __: message(content) if isinstance(content, dict) else None)

    def handle_message(self, content: Mapping[str, Any]) -> None:
        """Act on a message of the page; `content["type"]` names it, and an unknown one is ignored."""

    def views_changed(self, before: int, now: int) -> None:
        """Act on a change of the number of pages that show this widget."""

    def settle(self) -> None:
        """Wait until the widget has finished what it computes by itself."""

    def still(self) -> str:
        """Return the HTML of what is there now, which a notebook shows when no kernel runs."""
        return ""

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        if isinstance(data, dict):
            if os.environ.get(PICTURES) == "whole":
                data.pop("application/vnd.jupyter.widget-view+json", None)
                self.settle()
            data["text/html"] = _SVG.sub(lambda match: image(match[0]), self.still())
        return bundle


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls a method while its object exists, and returns None afterwards.

    A widget must not be kept alive by what it observes.
    """
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any, **named: Any) -> Any:
        alive = reference()
        return None if alive is None else alive(*arguments, **named)

    return call


@cache
def without_reply_thread(kind: type) -> type:
    """Return a subclass of a comm class on which the kernel cannot store the thread that sent last.

    Deleting the value afterwards would be too late: a message may already be on its way.
    """

    def ignore(_: Any, __: Any) -> None: ...

    # Without a getter the attribute is missing, as it is before anything was sent.
    return type(kind)(kind.__name__, (kind,), {"_reply_subshell_id": property(None, ignore)})
