"""Scorers that use the gradient of the risk on source images and labels."""

from __future__ import annotations

from torch import Tensor

from .contract import scorer
from .view import GroupView


@scorer("taylor", needs=("gate",), reads={"source": "labels"}, label="Taylor (gate)")
def taylor(view: GroupView) -> Tensor:
    """First-order effect on the source risk of closing a gate on the output; small effects are removed first.

    |dR/dz| at z = 1 = |sum y dR/dy|, R = mean over sources (equal weight) of the mean cross-entropy on their score
    split; the gate comes after BatchNorm, and coupled layers share one gate. Returns (C,) >= 0.
    Source: Molchanov et al. 2019, Importance Estimation for Neural Network Pruning, CVPR, equation 8 (gate form);
    they average squares over batches, here the gradient is over the whole split.
    """
    return view.over_sources(view.gate).abs()


@scorer("taylor_weight", needs=("weights", "weight_gradient"), reads={"source": "labels"}, label="Taylor (weights)")
def taylor_weight(view: GroupView) -> Tensor:
    """First-order effect on the source risk of zeroing each weight by itself, summed; small sums are removed first.

    sum |w dR/dw| over every layer that produces the filter, R as in `taylor`. Returns (C,) >= 0.
    Source: Molchanov et al. 2019, Importance Estimation for Neural Network Pruning, CVPR, section 3.1, with absolute
    values as in Torch-Pruning's default Taylor importance.
    """
    return (view.weight * view.over_sources(view.weight_gradient)).abs().sum(1)
