"""Reference networks, safe checkpoints, and the recipes that make the built-in ones."""

from . import checkpoints, networks
from .checkpoints import pair

__all__ = ["checkpoints", "networks", "pair"]
