"""What a scorer's view reads: the interface, which `study.ScorerInputs` implements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from ..core import Domain, FilterGraph, Need, Seen, Statistics
from ..measurement import MapShapes, Site

MAP_NEEDS: dict[tuple[Site, bool], Need] = {
    ("activation", False): "activation_map",
    ("activation", True): "activation_unit_map",
    ("consumer_input", False): "mean_map",
    ("consumer_input", True): "unit_map",
    ("conv_output", False): "conv_map",
    ("conv_output", True): "conv_unit_map",
}
"""(site, whether each image's map is normalised) -> the need that holds the mean maps."""


class Inputs(Protocol):
    """What views read, measured on demand; `study.ScorerInputs` is one.

    Attributes:
        model: the network; a private copy where the scorer may read it.
        graph: its groups.
        domains: name -> domain, with its role.
        split: the split that scorers read.
        example: (1, C, H, W) zeros of the size the network takes.
        touched: filled while scorers read: domain -> images or labels.
        shapes: group -> the shapes of its maps at each site.
        ending_in_relu: names of the layers whose output goes straight into ReLUs.
    """

    model: nn.Module
    graph: FilterGraph
    domains: Mapping[str, Domain]
    split: str
    example: Tensor
    touched: dict[str, Seen]

    @property
    def shapes(self) -> Mapping[str, MapShapes]: ...
    @property
    def ending_in_relu(self) -> frozenset[str]: ...

    def statistics(self, domain: str, need: Need, *, shift: str | None = None) -> Statistics:
        """Return the statistics of one pass over a domain, or over a shifted copy of it."""
        ...

    def paired(self, first: str, second: str, *, site: Site) -> Mapping[str, Tensor]:
        """Return group -> (C,) mean cosine of the i-th images' maps."""
        ...

    def removal(self, domain: str) -> Mapping[str, Tensor]:
        """Return group -> (C,) change of the mean risk when a filter (its unit) is removed."""
        ...
