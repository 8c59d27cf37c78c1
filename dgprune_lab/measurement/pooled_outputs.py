"""A group's pooled output under a mask, for each image: the spatial mean at the input of its last consumer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core import FilterGraph, Mask, full_precision
from .hooks import input_ids, on_input
from .shared_prefix import AfterPrefix


class PooledOutputs:
    """Reads the pooled output of the group `layer` in the network under a mask (None removes no filter)."""

    def __init__(self, graph: FilterGraph, layer: str, *, mask: Mask | None) -> None:
        group = graph[layer]
        self._consumer = group.consumers[-1]
        ids = input_ids(graph, self._consumer)
        stays = torch.ones(len(ids), dtype=torch.bool) if mask is None else graph.vector(mask.keep)[ids]
        positions, filters = group.consumer_inputs[self._consumer]
        kept = stays[positions]
        self._positions, self._filters = (stays.cumsum(0) - 1)[positions[kept]], filters[kept]
        self._sizes = torch.bincount(filters, minlength=group.filters).float()

    def of(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the pooled outputs (B, C), float32, 0 for removed filters; mean over a consumer's calls."""
        pooled: list[Tensor] = []
        network = model.network if isinstance(model, AfterPrefix) else model
        if self._sizes.device != images.device:
            parts = self._positions, self._filters, self._sizes
            self._positions, self._filters, self._sizes = (part.to(images.device) for part in parts)
        with (
            torch.inference_mode(),
            full_precision(images.device),
            on_input(network, self._consumer, lambda y: pooled.append(self._pooled(y))),
        ):
            model(images)
        return torch.stack(pooled).mean(0)

    def _pooled(self, y: Tensor) -> Tensor:
        means = (y if y.ndim == 2 else y.flatten(2).mean(2)).float()
        pooled = means.new_zeros(len(means), len(self._sizes))
        return pooled.index_add_(1, self._filters, means[:, self._positions]) / self._sizes
