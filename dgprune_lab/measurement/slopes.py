"""The gradient of a loss by the weights, refused where autograd does not see how the loss depends on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core import DgpruneError


def slopes_of(loss: Tensor, tensors: Sequence[Tensor], *, twice: bool = False) -> tuple[Tensor, ...]:
    """Return the gradient of a loss by each tensor, 0 for one that is not used.

    Args:
        twice: whether the gradient is differentiated again.

    Raises:
        DgpruneError: a loss above 0 of which autograd sees no gradient at all: the network is not flat, but cut off.
    """
    if not loss.requires_grad:
        reason = "is cut off (by torch.no_grad, detach or numbers of numpy)"
    else:
        slopes = torch.autograd.grad(loss, tensors, create_graph=twice, allow_unused=True, materialize_grads=True)
        if not loss > 0 or any(bool(slope.any()) for slope in slopes):
            return slopes
        reason = "is 0 (as that of rounding)"
    raise DgpruneError(
        f"the gradient of the loss by the weights {reason}, although the loss is {loss.item():.3g}, so nothing "
        "can be said of its curvature; take a network whose forward pass can be differentiated."
    )
