"""Any importance of Torch-Pruning as a scorer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..core import DgpruneError, preserved_rng, public
from .contract import Scorer, scorer
from .view import GroupView


@public
def from_torch_pruning(importance: Callable[..., Any], *, name: str | None = None, gradients: bool = False) -> Scorer:
    """Wrap a `torch_pruning` importance (`importance(group) -> one number per channel`) as a scorer.

    Args:
        importance: an instance of any `tp.importance` class.
        name: name of the scorer in tables; None for the class name.
        gradients: whether the importance reads `.grad`; it then holds the gradient of the mean source risk, and labels
            count as read.

    Raises:
        DgpruneError: when scoring, if the importance returns nothing for a group, or reads gradients without
            `gradients=True`.
    """

    @scorer(
        name or type(importance).__name__,
        needs=("model", "weight_gradient") if gradients else ("model",),
        level="network",
        reads={"source": "labels"} if gradients else {},
        cite="Torch-Pruning, Fang et al. 2023, CVPR",
    )
    def wrapped(views: dict[str, GroupView]) -> dict[str, Tensor]:
        """An importance of Torch-Pruning, evaluated on its own dependency graph. Source: Fang et al. 2023."""
        import torch_pruning as tp

        first = next(iter(views.values()))
        model = first.model.requires_grad_(True)
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = tp.DependencyGraph().build_dependency(model, example_inputs=(first.example,), verbose=False)
        if gradients:
            first.fill_gradients()
        with preserved_rng():
            torch.manual_seed(0)  # a random importance draws from the global generator
            return {key: _scores(view, importance, graph=graph, gradients=gradients) for key, view in views.items()}

    return wrapped


def _scores(view: GroupView, importance: Callable[..., Any], *, graph: Any, gradients: bool) -> Tensor:
    """Return the (C,) scores of a group's filters by an importance of Torch-Pruning."""
    name, root = type(importance).__name__, view.model.get_submodule(view.name)
    handler = graph.get_pruner_of_module(root).prune_out_channels
    try:
        value = importance(graph.get_pruning_group(root, handler, list(range(view.filters))))
    except (AttributeError, TypeError) as error:
        hint = "" if gradients else "; if it reads gradients, pass gradients=True"
        raise DgpruneError(f"{name} fails on layer {view.name!r} ({error}){hint}.") from error
    if value is None:
        raise DgpruneError(f"{name} gives no importance for layer {view.name!r}.")
    return value
