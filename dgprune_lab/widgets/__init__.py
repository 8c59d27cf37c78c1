"""Widgets: the explorer and its panels, and runs that one watches."""

from .agreement import AgreementPanel
from .explorer import Explorer
from .live import Live, Tuning
from .panels import Panel, View
from .questions import Agreement

__all__ = ["Agreement", "AgreementPanel", "Explorer", "Live", "Panel", "Tuning", "View"]
