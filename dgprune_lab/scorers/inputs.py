"""The interface through which a scorer's view reads data; `study.ScorerInputs` implements it."""

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
"""(site, whether each image's map is normalised first) -> the need under which the mean maps are measured."""


class Inputs(Protocol):
    """The data that views read, measured on demand.

    Attributes:
        model: the network; a private copy if the scorer may read it.
        graph: the filter groups of the network.
        domains: name -> domain, with its role.
        split: the split that scorers read.
        example: (1, C, H, W) zeros of the network's input size.
        touched: domain -> "images" or "labels", recorded while scorers read.
        shapes: group -> the shapes of its maps at each site.
        ending_in_relu: names of the layers whose output goes only into ReLUs.
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
        """Return group -> (C,) mean over i of the cosine between a filter's maps on the i-th images of two domains."""
        ...

    def removal(self, domain: str) -> Mapping[str, Tensor]:
        """Return group -> (C,) change of the domain's mean risk when the filter's unit is removed."""
        ...
