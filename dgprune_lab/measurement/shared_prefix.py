"""The layers of a network that no mask changes, run once per domain and reused for every ratio and scorer."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core import BATCHNORM, FilterGraph, Mask
from ..pruning import pruned_view, run_order
from .hooks import input_ids


@dataclass(frozen=True)
class SharedPrefix:
    """The leaf layers before the first layer whose input channels a mask can remove.

    The output of the `last` of them is stored, so that the others can be `skipped`; `ids` are the global filter ids
    (channels,) along this output.
    """

    skipped: tuple[str, ...]
    last: str
    ids: Tensor


def find_shared_prefix(model: nn.Module, graph: FilterGraph, example: Tensor) -> SharedPrefix | None:
    """Return a network's shared prefix, verified to keep the logits of a few images; None if there is none."""
    order = list(run_order(model, example))
    consumers = {name for group in graph.groups for name in group.consumer_inputs}
    first = next((k for k, name in enumerate(order) if name in consumers), 0)
    norms = [m for _, m in model.named_modules(remove_duplicate=False) if isinstance(m, BATCHNORM)]
    if first == 0 or len(norms) > len(set(norms)):  # a shared BatchNorm is re-estimated from all its runs
        return None
    prefix = SharedPrefix(tuple(order[: first - 1]), order[first - 1], input_ids(graph, order[first]))
    return prefix if _keeps_logits(model, graph, prefix=prefix, example=example) else None


def _keeps_logits(model: nn.Module, graph: FilterGraph, *, prefix: SharedPrefix, example: Tensor) -> bool:
    """Return whether the network, minus every second filter, gives the same logits with and without the prefix."""
    keep = {
        g.name: (g.units % 2 == 0) if int(g.units.max()) else torch.ones(g.filters, dtype=torch.bool)
        for g in graph.groups
    }
    mask = replace(Mask.by_hand(graph), keep=keep)
    try:
        with torch.inference_mode():
            output = prefix_output(model, prefix, example)
            pruned = pruned_view(model, mask)
            expected = pruned(example)
            return torch.equal(expected, AfterPrefix(pruned, prefix, mask=mask)(output))
    except Exception:
        return False


class _Reached(Exception):
    """Raised at the end of the prefix to skip the layers after it."""


def prefix_output(model: nn.Module, prefix: SharedPrefix, images: Tensor) -> Tensor:
    """Return the prefix's output without running the layers after it. The model has a hook during the call."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.ndim < 2 or output.shape[1] != len(prefix.ids):
            raise ValueError("the output of the shared prefix has other channels than its consumer's input")
        outputs.append(output.detach().clone())
        raise _Reached

    with model.get_submodule(prefix.last).register_forward_hook(keep), contextlib.suppress(_Reached):
        model(images)
    return outputs[0]


class AfterPrefix(nn.Module):
    """A pruned network whose input is the dense network's prefix output; it selects the channels that the mask keeps.

    The prefix layers of `network`, a private copy, are replaced.
    """

    def __init__(self, network: nn.Module, prefix: SharedPrefix, *, mask: Mask) -> None:
        super().__init__()
        self._index = mask.graph.vector(mask.keep)[prefix.ids].nonzero().flatten()
        self._complete = len(self._index) == len(prefix.ids)
        self._input_shape = mask.graph.input_shape
        self._stored: list[Tensor] = []
        for name in (*prefix.skipped, prefix.last):
            layer = network.get_submodule(name)
            network.set_submodule(name, _Replacement(layer, self._stored, last=name == prefix.last))
        self.network = network

    def forward(self, output: Tensor) -> Tensor:
        """Return the logits for an output of the dense prefix, (B, channels, H, W)."""
        self._stored[:] = [output.clone() if self._complete else _select_channels(output, self._index)]
        try:
            return self.network(output.new_zeros(1).expand(len(output), *self._input_shape))
        finally:
            self._stored.clear()


def _select_channels(output: Tensor, index: Tensor) -> Tensor:
    """Return the selected channels of a map, in the map's memory format."""
    index = index.to(output.device)
    if output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last):
        return output.permute(0, 2, 3, 1).index_select(3, index).permute(0, 3, 1, 2)
    return output.index_select(1, index)


class _Replacement(nn.Module):
    """Skips a layer of the prefix until the `last` one has returned the stored output; later calls run the layer."""

    def __init__(self, layer: nn.Module, stored: list[Tensor], *, last: bool) -> None:
        super().__init__()
        self._layer, self._stored, self._last = layer, stored, last

    def forward(self, images: Tensor) -> Tensor:
        if self._stored:
            return self._stored.pop() if self._last else images
        if isinstance(self._layer, BATCHNORM):
            raise ValueError("a BatchNorm that runs again is re-estimated from all its runs, so none may be left out")
        return self._layer(images)
