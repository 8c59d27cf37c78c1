"""Reference networks, checkpoints, save and load."""

from . import checkpoints, networks
from .building import Normalisation, normalised
from .checkpoints import SHIPPED, pair, shipped, shipped_card
from .container import tensors_from_bytes, tensors_to_bytes
from .efficientnet_lite import efficientnet_lite0
from .saving import fill, load, network_key, save
from .weights import load_weights

__all__ = [
    "checkpoints",
    "efficientnet_lite0",
    "load",
    "load_weights",
    "networks",
    "normalised",
    "pair",
    "save",
    "shipped",
    "shipped_card",
]
