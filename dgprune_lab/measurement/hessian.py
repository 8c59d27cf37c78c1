"""The Hessian of a network's mean loss as a linear operator of curvlinops; imported only where it is needed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..core import DgpruneError
from ..pruning import autograd_nodes
from .gradients import gradients_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # one of its imports uses torch.jit, which is deprecated
    from curvlinops import HessianLinearOperator


class Hessian(HessianLinearOperator):
    """curvlinops' Hessian of a mean loss, whose product with a vector takes two backward passes.

    curvlinops itself differentiates the backward pass in forward mode, which PyTorch cannot do for SiLU, Mish and
    GroupNorm, and which takes 1.5 to 3 times as long on a CPU.
    """

    def _matmat_batch(self, X: Any, y: Tensor, M: list[Tensor]) -> list[Tensor]:
        """Multiply the Hessian of one batch by K vectors, given as one tensor (*shape, K) per parameter."""
        tensors: Any = self._params
        loss_of: Any = self._loss_func
        unused: Any = {"allow_unused": True, "materialize_grads": True}
        with torch.enable_grad():
            gradients = gradients_of(loss_of(self._model_func(X), y), tensors, twice=True)
            _refuse_once_differentiable(gradients)
            products = []
            for vectors in zip(*(part.unbind(-1) for part in M), strict=True):
                dots = [(gradient * part).sum() for gradient, part in zip(gradients, vectors, strict=True)]
                try:
                    products.append(torch.autograd.grad(torch.stack(dots).sum(), tensors, retain_graph=True, **unused))
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError as error:
                    reason = f"{error}".partition("\n")[0].rstrip(".")
                    raise DgpruneError(_UNDIFFERENTIABLE.format(reason=reason)) from error
        return [torch.stack(columns, dim=-1) for columns in zip(*products, strict=True)]


def _refuse_once_differentiable(gradients: Iterable[Tensor]) -> None:
    """Refuse gradients of functions marked as once differentiable, which PyTorch would treat as constants."""
    for node in autograd_nodes(gradient.grad_fn for gradient in gradients):
        if node.name() == "torch::autograd::Error":
            raise DgpruneError(_UNDIFFERENTIABLE.format(reason="its backward pass is marked as once_differentiable"))


_UNDIFFERENTIABLE = (
    "curvature needs the second derivative of the loss, and PyTorch has none for an operation of this network: "
    "{reason}. Replace it, or use `sharpness` or `sam_sharpness`, which need no second derivative. (ReLU and max "
    "pooling are no obstacle: they count as linear on each side of their kinks.)"
)
