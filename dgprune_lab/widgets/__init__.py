"""Widgets: the explorer and its panels, and runs that one watches."""

from .agreement import AgreementPanel
from .explorer import Explorer
from .flips import FlipsPanel
from .layers import LayersPanel
from .live import Live, Tuning
from .panels import Panel, View
from .prunability import PrunabilityPanel
from .questions import Agreement, Flips, Layers, Prunability
from .shown import Shown
from .training import Training

__all__ = [
    "Agreement",
    "AgreementPanel",
    "Explorer",
    "Flips",
    "FlipsPanel",
    "Layers",
    "LayersPanel",
    "Live",
    "Panel",
    "Prunability",
    "PrunabilityPanel",
    "Shown",
    "Training",
    "Tuning",
    "View",
]
