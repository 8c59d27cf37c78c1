"""Charts: one function per question, each from a tidy table to an Altair chart."""

from __future__ import annotations

from .agreement import agreement
from .companion import companion
from .drop import drop
from .images import images
from .left import left
from .mean_map import mean_map
from .stability import stability
from .sweep import sweep
from .training import training
from .tuned import tuned
from .theme import Look, looks, svg

__all__ = [
    "Look",
    "agreement",
    "companion",
    "drop",
    "images",
    "left",
    "looks",
    "mean_map",
    "stability",
    "svg",
    "sweep",
    "training",
    "tuned",
]
