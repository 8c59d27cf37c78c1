"""Reference networks, checkpoints, save and load."""

from . import checkpoints, networks
from .checkpoints import pair
from .saving import load, save

__all__ = ["checkpoints", "load", "networks", "pair", "save"]
