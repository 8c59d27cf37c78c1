"""The networks that ship with the package, each with a card on how it was trained."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from torch import Tensor, nn

from ..core import public, unknown
from .container import unpack
from .saving import network_of

SHIPPED = (
    "digits",
    "lenet_paper",
    "lenet_two_sources_0",
    "lenet_two_sources_1",
    "lenet_two_sources_2",
    "digits_pair_a",
    "digits_pair_b",
    "fashion",
    "fashion_lenet_0",
    "fashion_lenet_1",
    "fashion_lenet_2",
    "fashion_pair_a",
    "fashion_pair_b",
)
"""Names of the shipped networks; `dgprune_lab.commands.recipes.RECIPES` holds how each was trained."""


@public
def shipped(name: str) -> nn.Module:
    """Load a shipped network by its name in `SHIPPED`, in eval mode, with its provenance.

    Raises:
        DgpruneError: an unknown name.

    >>> from dgprune_lab import provenance_of
    >>> provenance_of(shipped("digits")).seen("training", "mnist", "train")
    'labels'
    """
    return network_of(*_read_shipped(name), name=f"{name}.safetensors")


@public
def pair(name: str = "digits") -> tuple[nn.Module, nn.Module]:
    """Load two networks with the same architecture and training loss that generalise differently; see their cards.

    "digits": two small LeNets trained on `mnist` and `uci_digits` to a cross-entropy of 0.02; "fashion": the same on
    `fashion` and `fashion_colour`, to 0.2.

    Raises:
        DgpruneError: an unknown name.

    >>> first, second = pair("digits")
    >>> [sum(p.numel() for p in network.parameters()) for network in (first, second)]
    [56474, 56474]
    """
    pairs = sorted({known[: -len("_pair_a")] for known in SHIPPED if known.endswith("_pair_a")})
    if name not in pairs:
        raise unknown("pair", name, pairs)
    return shipped(f"{name}_pair_a"), shipped(f"{name}_pair_b")


@public
def shipped_card(name: str) -> dict[str, Any]:
    """Return the card of a shipped network: data, seed, epochs, accuracy per domain and split, and design reasons."""
    return _read_shipped(name)[1]


def _read_shipped(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the card of a shipped network."""
    if name not in SHIPPED:
        raise unknown("built-in checkpoint", name, SHIPPED)
    file = files("dgprune_lab.models") / "shipped" / f"{name}.safetensors"
    return unpack(file.read_bytes(), file.name)
