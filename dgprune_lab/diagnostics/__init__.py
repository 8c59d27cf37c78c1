"""One file per question: a study in, a tidy table out."""

from ._contract import Diagnostic, diagnostic
from .sweep import grid, sweep
from .agreement import agreement
from .gc_net import gc_net
from .drop import drop
from .feature_shift import feature_shift
from .flips import flips
from .instability import instability
from .data_access import data_access
from .mean_map import mean_map
from .gradients_against_removal import gradients_against_removal
from .prunability import prunability
from .generalization_measures import (
    distance_from_initialisation,
    l2_norm,
    margin,
    parameter_count,
    random_perturbation,
    generalization_measures,
    sharpness,
)
from .sensitivity import sensitivity
from .stability import stability
from .after_finetuning import after_finetuning

__all__ = [
    "Diagnostic",
    "after_finetuning",
    "agreement",
    "data_access",
    "diagnostic",
    "distance_from_initialisation",
    "drop",
    "feature_shift",
    "flips",
    "gc_net",
    "generalization_measures",
    "gradients_against_removal",
    "grid",
    "instability",
    "l2_norm",
    "margin",
    "mean_map",
    "parameter_count",
    "prunability",
    "random_perturbation",
    "sensitivity",
    "sharpness",
    "stability",
    "sweep",
]
