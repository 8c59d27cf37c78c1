"""One file per question: a study in, a tidy table out."""

from .agreement import agreement
from .companion import companion
from .drop import drop
from .feature_shift import feature_shift
from .flips import flips
from .instability import instability
from .ledger import ledger
from .mean_map import mean_map
from .oracle import oracle
from .prunability import prunability
from .rivals import (
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
from .tuned import tuned

__all__ = [
    "agreement",
    "companion",
    "distance_from_initialisation",
    "drop",
    "feature_shift",
    "flips",
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
    "tuned",
]
