"""Scorers that read the gradient of the risk on source images and labels."""

from __future__ import annotations

from torch import Tensor

from .contract import scorer
from .view import GroupView


@scorer(
    "taylor",
    needs=("gate",),
    reads={"source": "labels"},
    label="Least effect on the loss",
    cite="Molchanov et al. 2019, Importance Estimation for Neural Network Pruning, CVPR, equation 8 (gate form)",
)
def taylor(view: GroupView) -> Tensor:
    """First-order effect on the risk of closing a gate on the filter's output.

    |dR/dz| at z = 1 = |sum y dR/dy|, R = mean over sources (equal weight) of the mean cross-entropy on their score
    part; the gate sits after BatchNorm and a coupled group has one. Returns (C,) >= 0.
    Source: Molchanov et al. 2019, equation 8; theirs squares per batch, ours takes the whole part at once.
    """
    return view.over_sources(view.gate).abs()


@scorer(
    "taylor_weight",
    needs=("weights", "weight_gradient"),
    reads={"source": "labels"},
    label="Least effect on the loss (weight by weight)",
    cite="Molchanov et al. 2019, CVPR, section 3.1, as Torch-Pruning's default Taylor importance",
)
def taylor_weight(view: GroupView) -> Tensor:
    """First-order effect of zeroing each weight of the filter by itself, summed.

    sum |w dR/dw| over every layer that writes the filter, R as in `taylor`. Returns (C,) >= 0.
    Source: Molchanov et al. 2019, section 3.1, with absolute values as in Torch-Pruning.
    """
    return (view.weight * view.over_sources(view.weight_gradient)).abs().sum(1)
