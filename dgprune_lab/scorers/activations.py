"""Scorers that measure a filter's output on source images."""

from __future__ import annotations

from torch import Tensor

from .contract import scorer
from .view import GroupView


@scorer("activation_l1", needs=("moments",), reads={"source": "images"}, label="Mean activation")
def activation_l1(view: GroupView) -> Tensor:
    """Mean absolute output on source images; filters that respond weakly are removed first.

    mean over images and positions of |y|, at the input of the layer that consumes the filter; equal weight per source.
    Returns (C,) >= 0. Source: Molchanov et al. 2017, Pruning CNNs for Resource Efficient Inference, ICLR, section 2.2.
    """
    return view.over_sources(lambda domain: view.moments(domain).mean_abs)


@scorer("apoz", needs=("moments",), reads={"source": "images"}, label="APoZ")
def apoz(view: GroupView) -> Tensor:
    """Share of non-zero outputs on source images (1 - APoZ); filters that are most often zero are removed first.

    1 - mean of [y = 0], at the input of the layer that consumes the filter (after a pooling layer there are fewer
    zeros than right after the ReLU, where the paper counts them); equal weight per source. Returns (C,) in [0, 1].
    Source: Hu et al. 2016, Network Trimming, arXiv:1607.03250, equation 1.
    """
    return view.over_sources(lambda domain: 1 - view.moments(domain).zero_share)
