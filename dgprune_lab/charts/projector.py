"""The size of text and lines in charts and widgets: for a screen, or for a projector in a classroom."""

from __future__ import annotations

import re
from typing import Literal

from ..core import public

Theme = Literal["screen", "projector"]

FACTOR = 1.5  # the smallest type in a chart or widget has 10.7 pixels or more, and so 16 or more on a projector
_present: list[Theme] = ["screen"]


@public
def theme(name: Theme) -> None:
    """Choose how large charts and widgets are shown from now on; those already shown stay as they are.

    On a projector, text and lines are 1.5 times as large, so that the smallest text has 16 pixels or more, and an
    explorer begins with its slider, its sentence and chart A. A button in each explorer changes that explorer alone.
    No setting of Altair is changed.

    Args:
        name: "projector" or "screen".

    >>> theme("projector")
    >>> theme("screen")
    """
    _present[0] = name


def present_theme() -> Theme:
    """Return the theme that was chosen last; "screen" at first."""
    return _present[0]


def in_theme(picture: str) -> str:
    """Return an SVG in the size of the present theme: only its width and height change, not the drawing.

    >>> in_theme('<svg width="20" height="10.5">')
    '<svg width="20" height="10.5">'
    """
    if _present[0] == "screen":
        return picture
    head, end, rest = picture.partition(">")
    larger = re.sub(r'\b(width|height)="([\d.]+)"', lambda size: f'{size[1]}="{FACTOR * float(size[2]):g}"', head)
    return larger + end + rest
