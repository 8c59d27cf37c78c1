"""What a pruned network shows at the door of a layer: the pooled outputs of a group, filter by filter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..core.masks import Mask
from ..core.graph import FilterGraph


class Door:
    """The input of the last layer that reads a group, in the network that a mask leaves.

    Args:
        graph: of the full network.
        layer: the group's name.
        mask: what is removed; None for nothing.

    Raises:
        DgpruneError: an unknown layer.
    """

    def __init__(self, graph: FilterGraph, layer: str, mask: Mask | None) -> None:
        group = graph[layer]
        self.name, self._filters = group.consumers[-1], group.filters
        here = [(graph.offsets[g.name], *g.doors[self.name]) for g in graph.groups if self.name in g.doors]
        ids = torch.full((1 + max(int(where.max()) for _, where, _ in here),), graph.free)
        for offset, where, filters in here:
            ids[where] = filters + offset
        stays = torch.ones(len(ids), dtype=torch.bool) if mask is None else graph.vector(mask.keep)[ids]
        places, filters = group.doors[self.name]
        kept = stays[places]
        self._places, self._of = (stays.cumsum(0) - 1)[places[kept]], filters[kept]
        self._shares = torch.bincount(filters, minlength=group.filters).float()

    @contextmanager
    def open(self, model: nn.Module) -> Iterator[list[Tensor]]:
        """Within it, what passes the door of a network is pooled and appended: (B, C), removed filters zero."""
        found: list[Tensor] = []

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            found.append(self._pooled(inputs[0], last=isinstance(module, nn.Linear)))

        handle = model.get_submodule(self.name).register_forward_pre_hook(hook)
        try:
            yield found
        finally:
            handle.remove()

    def _pooled(self, y: Tensor, *, last: bool) -> Tensor:
        y = y.movedim(-1, 1) if last else y
        means = (y if y.ndim == 2 else y.flatten(2).mean(2)).float().cpu()
        pooled = means.new_zeros(len(means), self._filters)
        return pooled.index_add_(1, self._of, means[:, self._places]) / self._shares
