"""Reference networks, safe checkpoints, and the recipes that make the built-in ones."""

from . import checkpoints, networks

__all__ = ["checkpoints", "networks"]
