"""One file per question: a study in, a tidy table out."""

from ._contract import Diagnostic, diagnostic
from .sweep import grid, sweep
from .agreement import agreement
from .gc_net import companion
from .drop import drop
from .feature_shift import feature_shift
from .flips import flips
from .instability import instability
from .data_access import ledger
from .mean_map import mean_map
from .gradients_against_removal import oracle
from .prunability import prunability
from .generalization_measures import (
    distance_from_initialisation,
    l2_norm,
    margin,
    parameter_count,
    random_perturbation,
    rivals,
    sharpness,
)
from .sensitivity import sensitivity
from .stability import stability
from .after_finetuning import tuned

__all__ = [
    "Diagnostic",
    "agreement",
    "companion",
    "diagnostic",
    "distance_from_initialisation",
    "drop",
    "feature_shift",
    "flips",
    "grid",
    "instability",
    "l2_norm",
    "ledger",
    "margin",
    "mean_map",
    "oracle",
    "parameter_count",
    "prunability",
    "random_perturbation",
    "rivals",
    "sensitivity",
    "sharpness",
    "stability",
    "sweep",
    "tuned",
]
