"""Any importance of Torch-Pruning as a scorer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..core import DgpruneError, preserved_rng
from .contract import Scorer, scorer
from .view import GroupView


def from_torch_pruning(importance: Callable[..., Any], *, name: str | None = None, gradients: bool = False) -> Scorer:
    """Wrap a `torch_pruning` importance (`importance(group) -> one number per channel`) as a scorer.

    Args:
        importance: an instance of any `tp.importance` class.
        name: for tables; the class name where not given.
        gradients: whether it reads `.grad`; it then holds the gradient of the mean source risk, and labels were read.

    Raises:
        DgpruneError: when scoring, if the importance gives nothing for a group, or reads gradients undeclared.
    """
    title = name or type(importance).__name__

    @scorer(
        title,
        needs=("model", "weight_gradient") if gradients else ("model",),
        level="network",
        reads={"source": "labels"} if gradients else {},
        cite="Torch-Pruning, Fang et al. 2023, CVPR",
    )
    def wrapped(views: dict[str, GroupView]) -> dict[str, Tensor]:
        """An importance of Torch-Pruning, evaluated on its own dependency graph. Source: Fang et al. 2023."""
        import torch_pruning as tp

        first = next(iter(views.values()))
        model = first.model
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = tp.DependencyGraph().build_dependency(model, example_inputs=(first.example,), verbose=False)
        if gradients:
            first.fill_gradients()
        found = {}
        with preserved_rng():
            torch.manual_seed(0)  # an importance that draws does so from the global generator
            for key, view in views.items():
                found[key] = _of_group(importance, graph, view, hint=not gradients)
        return found

    return wrapped


def _of_group(importance: Callable[..., Any], graph: Any, view: GroupView, *, hint: bool) -> Tensor:
    """One number per filter of a group, by an importance of Torch-Pruning."""
    root = view.model.get_submodule(view.name)
    handler = graph.get_pruner_of_module(root).prune_out_channels
    try:
        value = importance(graph.get_pruning_group(root, handler, list(range(view.filters))))
    except (AttributeError, TypeError) as error:
        words = "; if it reads gradients, pass gradients=True" if hint else ""
        raise DgpruneError(f"{type(importance).__name__} fails on layer {view.name!r} ({error}){words}.") from error
    if value is None:
        raise DgpruneError(f"{type(importance).__name__} gives no importance for layer {view.name!r}.")
    return value
