"""The explorer, its panels, live runs, and the page's ES modules."""

from .panels.agreement import AgreementPanel
from .panels.compare import ComparePanel
from .experiment import Experiment
from .explorer.explorer import Explorer
from .panels.feature_shift import FeatureShiftPanel
from .panels.find import FindPanel
from .panels.flatness import FlatnessPanel
from .panels.flips import FlipsPanel
from .glossary.glossary import glossary
from .panels.layers import LayersPanel
from .live.live import Live
from .panels.protocol import Panel, Tried, View
from .panels.prunability import PrunabilityPanel
from .single_panel import Agreement, Compare, FeatureShift, Find, Flatness, Flips, Layers, Prunability, Sensitivity
from .single_panel import TradeOff
from .panels.sensitivity import SensitivityPanel
from .panels.trade_off import TradeOffPanel
from .prediction import predict
from .study_report import report
from .tally import tally
from .page.chart import LiveChart
from .live.training import Training, Tuning

__all__ = ["Agreement", "AgreementPanel", "Compare", "ComparePanel", "Experiment", "Explorer", "FeatureShift"]
__all__ += ["FeatureShiftPanel", "Find", "FindPanel", "Flatness", "FlatnessPanel", "Flips", "FlipsPanel", "Layers"]
__all__ += ["LayersPanel", "Live", "LiveChart", "Panel", "Prunability", "PrunabilityPanel", "Sensitivity"]
__all__ += ["SensitivityPanel", "TradeOff", "TradeOffPanel", "Training", "Tried", "Tuning", "View", "glossary"]
__all__ += ["predict", "report", "tally"]
