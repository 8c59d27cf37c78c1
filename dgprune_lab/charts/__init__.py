"""Charts: one function per question, each from a tidy table to an Altair chart."""

from __future__ import annotations

from .agreement import agreement
from .companion import companion
from .drop import drop
from .drops import drops
from .flips import flips
from .images import images
from .instability import instability
from .layers import layers
from .left import left
from .mean_map import mean_map
from .prunability import prunability
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
    "drops",
    "flips",
    "images",
    "instability",
    "layers",
    "left",
    "looks",
    "mean_map",
    "prunability",
    "stability",
    "svg",
    "sweep",
    "training",
    "tuned",
]
