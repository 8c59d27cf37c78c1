"""A tidy table in, an Altair chart out; knows no network."""

from __future__ import annotations

from . import quick_start  # before the first import of Altair
from .agreement import agreement
from .claims import claims
from .gc_net import gc_net
from .generalization_measures import generalization_measures
from .differences import differences
from .double_descent import double_descent
from .drop import drop
from .drop_curve import drop_curve
from .feature_shift import feature_shift, shift_by_ratio
from .compare import compare
from .experiment import experiment
from .find import find
from .flatness import flatness
from .flips import flips
from .pixels.images import images
from .instability import instability
from .layers import layers
from .leave_one_out import leave_one_out
from .size_and_cost import size_and_cost
from .mean_map import mean_map
from .pixels.overlays import overlays
from .predictor_scatter import predictor_scatter
from .predictors import predictors
from .prunability import prunability
from .sensitivity import sensitivity
from .stability import stability
from .sweep import sweep
from .tally import tally
from .trade_off import trade_off
from .treatments import treatments
from .training import training
from .after_finetuning import after_finetuning
from .theme import DomainStyle, domain_styles, svg
from .projector import present_theme, theme

__all__ = ["DomainStyle", "after_finetuning", "agreement", "claims", "compare", "differences", "domain_styles"]
__all__ += ["double_descent", "drop", "drop_curve", "experiment", "feature_shift", "find", "flatness", "flips"]
__all__ += ["gc_net", "generalization_measures", "images", "instability", "layers", "leave_one_out", "mean_map"]
__all__ += ["overlays", "predictor_scatter", "predictors", "prunability", "sensitivity", "shift_by_ratio"]
__all__ += ["size_and_cost", "stability", "svg", "sweep", "tally", "theme", "trade_off", "training", "treatments"]
