"""The explorer, its panels, live runs, and the page's ES modules."""

from .panels.agreement import AgreementPanel
from .explorer.explorer import Explorer
from .panels.feature_shift import FeatureShiftPanel
from .panels.flips import FlipsPanel
from .panels.layers import LayersPanel
from .live.live import Live
from .panels.protocol import Panel, View
from .panels.prunability import PrunabilityPanel
from .single_panel import Agreement, FeatureShift, Flips, Layers, Prunability, Sensitivity
from .panels.sensitivity import SensitivityPanel
from .prediction import predict
from .page.chart import LiveChart
from .live.training import Training, Tuning

__all__ = ["Agreement", "AgreementPanel", "Explorer", "FeatureShift", "FeatureShiftPanel", "Flips", "FlipsPanel"]
__all__ += ["Layers", "LayersPanel", "Live", "LiveChart", "Panel", "Prunability", "PrunabilityPanel", "Sensitivity"]
__all__ += ["SensitivityPanel", "Training", "Tuning", "View", "predict"]
