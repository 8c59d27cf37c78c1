"""The gradient of a loss by the weights, refused where autograd does not see how the loss depends on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..core import DgpruneError, note


def check_differentiable(loss: Tensor) -> None:
    """Refuse a loss, or a logit, that autograd cannot follow back through the network."""
    if not loss.requires_grad:
        raise DgpruneError(
            "the forward of this network cuts gradients off (by torch.no_grad, inference_mode, detach or numbers of "
            "numpy), so no scorer and no measure that uses gradients can run; take that out of the forward, or use a "
            "scorer of weights or outputs, such as l1."
        )


def note_cut_off(names: Iterable[str]) -> None:
    """Note the layers whose tensors the loss has no gradient by, although it is read."""
    if layers := list(dict.fromkeys(name.rpartition(".")[0] or name for name in names)):
        more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
        note(
            f"no gradient reaches {', '.join(layers[:3])}{more}: the forward cuts it off (by detach or torch.no_grad) "
            "or does not use the layer; what a scorer reads from its gradient is 0."
        )


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
