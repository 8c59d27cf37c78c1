"""Scorers that read only weights, and the random control."""

from __future__ import annotations

import torch
from torch import Tensor

from .contract import scorer
from .view import GroupView


@scorer("random", needs=(), draws=True, label="Random")
def random(view: GroupView, *, seed: int = 0) -> Tensor:
    """A uniform random number per filter; filters are removed in random order.

    Returns (C,) in [0, 1), different for each seed and layer. Source: the control that every comparison needs.
    """
    return torch.rand(view.filters, generator=view.generator(seed), dtype=torch.float64)


@scorer("l1", label="L1 norm (weights)")
def l1(view: GroupView) -> Tensor:
    """Sum of the absolute weights of a filter; small sums are removed first.

    sum |w| over every layer that produces the filter (a residual stream has several). Returns (C,) >= 0.
    Source: Li et al. 2017, Pruning Filters for Efficient ConvNets, ICLR, section 3.1; coupled layers are summed, which
    the paper does not define.
    """
    return view.weight.abs().sum(1)


@scorer("l2", label="L2 norm (weights)")
def l2(view: GroupView) -> Tensor:
    """Euclidean norm of the weights of a filter; small norms are removed first.

    sqrt(sum w^2) over every layer that produces the filter: the sum comes before the root. Returns (C,) >= 0.
    Source: He et al. 2018, Soft Filter Pruning, IJCAI, equation 2 with p = 2.
    """
    return view.weight.square().sum(1).sqrt()


def _without_norm(views: dict[str, GroupView]) -> str | None:
    """Read every group's BatchNorm scale, which raises an error for a group without BatchNorm."""
    for view in views.values():
        _ = view.scale
    return None


@scorer("bn_scale", label="BatchNorm scale", refuses=_without_norm)
def bn_scale(view: GroupView) -> Tensor:
    """Absolute BatchNorm scale of a filter; small scales are removed first.

    sum |gamma| over the BatchNorms of the group; refused where no BatchNorm follows. Returns (C,) >= 0.
    Source: Liu et al. 2017, Network Slimming, ICCV, section 3.
    """
    return view.scale.abs().sum(1)


def _without_relu(views: dict[str, GroupView]) -> str | None:
    """Return why the scorer cannot run if anything but a ReLU follows the BatchNorm of a layer, or None."""
    for name, view in views.items():
        _ = view.end_norms
        if not view.ends_in_relu:
            return f"no ReLU directly follows the BatchNorm of layer {name!r}, so the formula does not hold."
    return None


@scorer("expected_activation", label="Expected activation (BatchNorm)", refuses=_without_relu)
def expected_activation(view: GroupView) -> Tensor:
    """Expected output after BatchNorm and ReLU, from gamma and beta alone; small expectations are removed first.

    E[max(0, gamma z + beta)], z ~ N(0, 1), = beta Phi(beta/|gamma|) + |gamma| phi(beta/|gamma|); max(beta, 0) where
    gamma = 0; summed over the BatchNorms that produce the group's output. Refused where something other than a ReLU
    follows (a residual addition). Returns (C,) >= 0.
    Source: Bartoldson et al. 2020, The Generalization-Stability Tradeoff, NeurIPS, arXiv:1906.03728, E[BN].
    """
    gamma, beta = view.end_norms
    scale = gamma.abs()
    normal = torch.distributions.Normal(torch.zeros((), dtype=beta.dtype), 1.0, validate_args=False)
    ratio = beta / scale.clamp_min(torch.finfo(beta.dtype).tiny)
    expected = beta * normal.cdf(ratio) + scale * normal.log_prob(ratio).exp()
    return torch.where(scale > 0, expected, beta.clamp_min(0)).clamp_min(0).sum(1)


@scorer("fpgm", label="FPGM (geometric median)")
def fpgm(view: GroupView) -> Tensor:
    """Sum of the distances to all other filters of the layer; the most replaceable filters are removed first.

    sum_j |w_c - w_j|_2, from the Gram matrix of the filters. Returns (C,) >= 0.
    Source: He et al. 2019, Filter Pruning via Geometric Median, CVPR, equation 6.
    """
    rows = view.weight
    squares = rows.square().sum(1)
    gram = (squares[:, None] + squares[None, :] - 2 * rows @ rows.T).clamp_min(0)
    return gram.fill_diagonal_(0).sqrt().sum(1)


@scorer("lamp", label="LAMP")
def lamp(view: GroupView) -> Tensor:
    """Squared norm over the summed squared norms of all filters at least as large; small shares are removed first.

    |w_c|^2 / sum_{j: |w_j| >= |w_c|} |w_j|^2, j in the same layer; a layer's largest filter has 1, so scores are
    comparable between layers. Returns (C,) in [0, 1].
    Source: Lee et al. 2021, Layer-adaptive Sparsity, ICLR, equation 3, on filters instead of single weights; filters
    of equal norm get the same score.
    """
    squares = view.weight.square().sum(1)
    ordered = squares.sort().values
    # The sum over all filters at least as large; filters of equal norm all look up the first of them.
    above = ordered.flip(0).cumsum(0).flip(0)[torch.searchsorted(ordered, squares)]
    return squares / above.clamp_min(torch.finfo(torch.float64).tiny)
