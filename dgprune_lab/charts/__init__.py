"""Charts: one function per question, each from a tidy table to an Altair chart."""

from __future__ import annotations

from .drop import drop
from .images import images
from .left import left
from .sweep import sweep
from .theme import Look, looks, svg

__all__ = ["Look", "drop", "images", "left", "looks", "svg", "sweep"]
