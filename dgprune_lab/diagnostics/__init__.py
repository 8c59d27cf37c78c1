"""One file per question: a study in, a tidy table out."""

from ._contract import Diagnostic, diagnostic
from .sweep import grid, sweep
from .trade_off import trade_off
from .find import Found, find
from .against_scorers import against_scorers
from .agreement import agreement
from .attribution_maps import AttributionMaps, attribution_maps
from .compare import compare
from .compare_scorers import compare_networks, compare_scorers
from .map_agreement import map_agreement
from .predicted_order import predicted_order
from .runs import pruning_events, run_ends
from .gc_net import gc_net
from .drop import drop
from .feature_shift import feature_shift
from .flatness import flatness
from .flips import flips
from .instability import instability
from .data_access import data_access
from .mean_map import mean_map
from .gradients_against_removal import gradients_against_removal
from .prunability import prunability
from .generalization_measures import generalization_measures, parameter_count, l2_norm, distance_from_initialisation
from .curvature_measures import hessian_trace, sam_sharpness
from .generalization_measures import margin, sharpness, random_perturbation
from .sensitivity import sensitivity
from .shift_change import shift_change
from .stability import stability
from .after_finetuning import after_finetuning

__all__ = ["AttributionMaps", "Diagnostic", "Found", "after_finetuning", "against_scorers", "agreement"]
__all__ += ["attribution_maps", "compare", "compare_networks", "compare_scorers", "data_access", "diagnostic"]
__all__ += ["distance_from_initialisation", "drop", "feature_shift", "find", "flatness", "flips", "gc_net"]
__all__ += ["generalization_measures", "gradients_against_removal", "grid", "hessian_trace", "instability", "l2_norm"]
__all__ += ["map_agreement", "margin", "mean_map", "parameter_count", "predicted_order", "prunability"]
__all__ += ["pruning_events", "random_perturbation", "run_ends", "sam_sharpness", "sensitivity", "sharpness"]
__all__ += ["shift_change", "stability", "sweep", "trade_off"]
