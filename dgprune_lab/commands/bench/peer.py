"""The peer: Torch-Pruning (Fang et al. 2023), as documented, and in the fastest use that we found.

Every function gets the same input as ours: the scores and the names of the layers to prune. Three ways to prune:

- `prune_a_copy`: copy the network, build the graph of the copy, prune every group. A new network each time.
- `Reused`: one copy and one graph; each call restores the full tensors by reference and prunes in place. Not
  documented, but nothing in the library is faster for a single ratio; each call overwrites the previous network.
- `Stepwise`: one copy and one graph per scorer, pruned further at every ratio, as in the library's iterative pruning.
  Only for ascending ratios; each call overwrites the previous network.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from .cases import Case

Scored = Mapping[str, Tensor]
Batches = Sequence[tuple[Tensor, Tensor]]
Accuracies = dict[tuple[int, float, int], float]


def lowest(scores: Scored, ratio: float) -> dict[str, list[int]]:
    """Return layer -> its filters with the lowest scores: the same share of every layer, but never all filters."""
    counts = {name: min(math.floor(ratio * len(v) + 1e-9), len(v) - 1) for name, v in scores.items()}
    return {name: values.argsort(stable=True)[: counts[name]].tolist() for name, values in scores.items()}


def build_graph(model: nn.Module, example: Tensor) -> Any:
    """Trace a network and return its dependency graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tp.DependencyGraph().build_dependency(model, example_inputs=(example,), verbose=False)


def prune_groups(model: nn.Module, graph: Any, removed: Mapping[str, Sequence[int]]) -> None:
    """Remove the given filters of each layer, and everything coupled to them, in place."""
    for name, filters in removed.items():
        if filters:
            graph.get_pruning_group(model.get_submodule(name), tp.prune_conv_out_channels, list(filters)).prune()


def prune_a_copy(model: nn.Module, example: Tensor, removed: Mapping[str, Sequence[int]]) -> nn.Module:
    """Return a smaller network: copy it, build the copy's graph, prune."""
    twin = copy.deepcopy(model)
    prune_groups(twin, build_graph(twin, example), removed)
    return twin.eval()


class Reused:
    """One copy and one graph; each call restores the full tensors by reference and prunes in place."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.model = copy.deepcopy(model)
        self.graph = build_graph(self.model, example)
        self._full = [(module, self._state(module)) for module in self.model.modules()]

    def __call__(self, removed: Mapping[str, Sequence[int]]) -> nn.Module:
        for module, state in self._full:
            module.__dict__.update(state)
            module._parameters = dict(state["_parameters"])
            module._buffers = dict(state["_buffers"])
        prune_groups(self.model, self.graph, removed)
        return self.model.eval()

    @staticmethod
    def _state(module: nn.Module) -> dict[str, Any]:
        sizes = {key: value for key, value in module.__dict__.items() if type(value) is int}
        return sizes | {"_parameters": dict(module._parameters), "_buffers": dict(module._buffers)}


class Stepwise:
    """One copy and one graph, pruned further at each call; filters are named by their original indices."""

    def __init__(self, model: nn.Module, example: Tensor, *, layers: Mapping[str, int]) -> None:
        self.model = copy.deepcopy(model)
        self.graph = build_graph(self.model, example)
        self._left = {name: list(range(filters)) for name, filters in layers.items()}

    def __call__(self, removed: Mapping[str, Sequence[int]]) -> nn.Module:
        current: dict[str, list[int]] = {}
        for name, filters in removed.items():
            current[name] = [place for place, original in enumerate(self._left[name]) if original in set(filters)]
            self._left[name] = [original for original in self._left[name] if original not in set(filters)]
        prune_groups(self.model, self.graph, current)
        return self.model.eval()


def accuracy(model: nn.Module, batches: Batches) -> float:
    """Return the share of images classified correctly."""
    right = total = 0
    with torch.inference_mode():
        for images, labels in batches:
            right += int((model(images).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


def sweep(
    pruner: Callable[[], Callable[[Mapping[str, Sequence[int]]], nn.Module]],
    scores: Sequence[Scored],
    *,
    ratios: Sequence[float],
    domains: Sequence[Batches],
) -> Accuracies:
    """Run the loop that a user would write; return (scorer, ratio, domain) -> accuracy.

    Args:
        pruner: called once per scorer; returns a function from removed filters to a network.
        scores: the scores of each scorer.
        ratios: ratios in ascending order.
        domains: the batches of each domain.
    """
    accuracies: Accuracies = {}
    for number, values in enumerate(scores):
        prune = pruner()
        for ratio in ratios:
            small = prune(lowest(values, ratio))
            for place, batches in enumerate(domains):
                accuracies[number, ratio, place] = accuracy(small, batches)
    return accuracies


def ranker(model: nn.Module, example: Tensor, *, scores: Scored, ratio: float) -> Callable[[], Iterator[Any]]:
    """Return a function that lists the groups that Torch-Pruning's high-level pruner selects by cached scores."""
    names = {module: name for name, module in model.named_modules()}
    ready = {name: values.float() for name, values in scores.items()}

    def importance(group: Any) -> Tensor:
        producers = [names.get(dep.target.module) for dep, _ in group if dep.handler == tp.prune_conv_out_channels]
        return next(ready[name] for name in producers if name in ready)

    skip: list[nn.Module] = [module for module in model.modules() if isinstance(module, nn.Linear)]
    example_inputs: Any = (example,)  # a bare tensor would first be tried without its batch axis
    pruner = tp.pruner.BasePruner(
        model, example_inputs, importance=importance, pruning_ratio=ratio, ignored_layers=skip
    )

    def run() -> Iterator[Any]:
        pruner.reset()
        return iter(list(pruner.step(interactive=True)))  # type: ignore[arg-type]

    return run


def fpgm(item: Case, *, only_convolutions: bool) -> Callable[[], Mapping[str, Tensor | None]]:
    """Return a function that computes Torch-Pruning's FPGM importance of every group from a ready graph and groups.

    `only_convolutions` leaves out the linear layer that consumes the last group; this sets an attribute that is not an
    argument of the importance's constructor.
    """
    graph = build_graph(item.model, item.example)
    groups = {
        name: graph.get_pruning_group(item.model.get_submodule(name), tp.prune_conv_out_channels, list(range(filters)))
        for name, filters in item.layers.items()
    }
    importance = tp.importance.FPGMImportance()
    if only_convolutions:
        importance.target_types = [nn.Conv2d]
    return lambda: {name: importance(group) for name, group in groups.items()}
