"""A tidy table in, an Altair chart out; knows no network."""

from __future__ import annotations

from .agreement import agreement
from .gc_net import companion
from .drop import drop
from .drop_curve import drops
from .feature_shift import feature_shift
from .flips import flips
from .pixels.images import images
from .instability import instability
from .layers import layers
from .left import left
from .mean_map import mean_map
from .pixels.overlays import overlays
from .prunability import prunability
from .sensitivity import sensitivity
from .stability import stability
from .sweep import sweep
from .training import training
from .after_finetuning import tuned
from .theme import Look, looks, svg

__all__ = [
    "Look",
    "agreement",
    "companion",
    "drop",
    "drops",
    "feature_shift",
    "flips",
    "images",
    "instability",
    "layers",
    "left",
    "looks",
    "mean_map",
    "overlays",
    "prunability",
    "sensitivity",
    "stability",
    "svg",
    "sweep",
    "training",
    "tuned",
]
