"""Widgets: the explorer and its panels, and runs that one watches."""

from .agreement import AgreementPanel
from .explorer import Explorer
from .feature_shift import FeatureShiftPanel
from .flips import FlipsPanel
from .layers import LayersPanel
from .live import Live, Tuning
from .panels import Panel, View
from .prunability import PrunabilityPanel
from .questions import Agreement, FeatureShift, Flips, Layers, Prunability, Sensitivity
from .sensitivity import SensitivityPanel
from .shown import Shown
from .training import Training

__all__ = [
    "Agreement",
    "AgreementPanel",
    "Explorer",
    "FeatureShift",
    "FeatureShiftPanel",
    "Flips",
    "FlipsPanel",
    "Layers",
    "LayersPanel",
    "Live",
    "Panel",
    "Prunability",
    "PrunabilityPanel",
    "Sensitivity",
    "SensitivityPanel",
    "Shown",
    "Training",
    "Tuning",
    "View",
]
