"""Reference networks, checkpoints, save and load."""

from . import checkpoints, networks
from .checkpoints import SHIPPED, pair, shipped, shipped_card
from .saving import load, save, tensors_from_bytes, tensors_to_bytes

__all__ = ["checkpoints", "load", "networks", "pair", "save", "shipped", "shipped_card"]
