"""Scorers of the gradient of the risk on source images and labels."""

from __future__ import annotations

from torch import Tensor

from .contract import scorer
from .view import GroupView


@scorer("taylor", needs=("gate",), reads={"source": "labels"}, label="Taylor (gate)")
def taylor(view: GroupView) -> Tensor:
    """First-order effect on the source risk of closing a gate on the output; small effects are removed first.

    |dR/dz| at z = 1 = |sum y dR/dy|, R = mean over sources (equal weight) of the mean cross-entropy on their score
    split; the gate comes after BatchNorm and a coupled group has one. Returns (C,) >= 0.
    Source: Molchanov et al. 2019, Importance Estimation for Neural Network Pruning, CVPR, equation 8 (gate form);
    theirs squares per batch, ours takes the whole split at once.
    """
    return view.over_sources(view.gate).abs()


@scorer("taylor_weight", needs=("weights", "weight_gradient"), reads={"source": "labels"}, label="Taylor (weights)")
def taylor_weight(view: GroupView) -> Tensor:
    """First-order effect on the source risk of zeroing each weight by itself, summed; small sums are removed first.

    sum |w dR/dw| over every layer that produces the filter, R as in `taylor`. Returns (C,) >= 0.
    Source: Molchanov et al. 2019, Importance Estimation for Neural Network Pruning, CVPR, section 3.1, with absolute
    values as Torch-Pruning's default Taylor importance.
    """
    return (view.weight * view.over_sources(view.weight_gradient)).abs().sum(1)
