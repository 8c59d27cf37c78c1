"""Widgets: the explorer and its panels."""

from .explorer import Explorer
from .panels import Panel, View

__all__ = ["Explorer", "Panel", "View"]
