"""The part of a network that no mask changes, run once per domain and replayed for every ratio and scorer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core import FilterGraph, Mask
from ..pruning import prune, run_order


@dataclass(frozen=True)
class Stem:
    """The leaf layers before the first one whose input a mask cuts.

    Attributes:
        skipped: names of all of them but the last.
        last: the last; its output is kept.
        ids: (channels,) global filter ids along the channels of that output.
    """

    skipped: tuple[str, ...]
    last: str
    ids: Tensor


def find_shared_prefix(model: nn.Module, graph: FilterGraph, example: Tensor) -> Stem | None:
    """The stem of a network, proven on one batch to give the very same logits; None where there is none to share.

    Args:
        model: a private copy in eval mode.
        graph: its groups.
        example: a few images.
    """
    order = list(run_order(model, example).order)
    consumer_inputs = {name: group for group in graph.groups for name in group.consumer_inputs}
    first = next((k for k, name in enumerate(order) if name in consumer_inputs), 0)
    if first == 0:
        return None
    last = order[first - 1]
    places = [
        (graph.offsets[g.name], *g.consumer_inputs[order[first]])
        for g in graph.groups
        if order[first] in g.consumer_inputs
    ]
    width = 1 + max(int(where.max()) for _, where, _ in places)
    ids = torch.full((width,), graph.free)
    for offset, where, filters in places:
        ids[where] = filters + offset
    stem = Stem(tuple(order[: first - 1]), last, ids)
    return stem if _same(model, graph, stem, example) else None


def _same(model: nn.Module, graph: FilterGraph, stem: Stem, example: Tensor) -> bool:
    keep = {
        g.name: (g.units % 2 == 0) if int(g.units.max()) else torch.ones(g.filters, dtype=torch.bool)
        for g in graph.groups
    }
    mask = replace(Mask.by_hand(graph), keep=keep)
    try:
        with torch.inference_mode():
            held = record(model, stem, [example])[0]
            small = prune(model, mask)
            expected = small(example)
            return torch.equal(expected, Replayed(small, stem, mask)(held))
    except Exception:
        return False


class _Enough(Exception):
    """The stem's end is reached; the layers behind it need not run."""


def record(model: nn.Module, stem: Stem, batches: Iterable[Tensor]) -> list[Tensor]:
    """The stem's output of each batch; the layers behind it do not run.

    Args:
        model: a private copy; a hook is added while it runs.
        stem: what to run.
        batches: images.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.ndim < 2 or output.shape[1] != len(stem.ids):
            raise ValueError("the stem's output has other channels than its reader's input")
        kept.append(output.detach().clone())
        raise _Enough

    handle = model.get_submodule(stem.last).register_forward_hook(keep)
    try:
        for images in batches:
            with contextlib.suppress(_Enough):
                model(images)
    finally:
        handle.remove()
    return kept


class Replayed(nn.Module):
    """A pruned network whose stem is not run: it takes the stem's dense output and selects the channels that stayed.

    Args:
        small: the pruned network, a private copy; its stem is replaced.
        stem: of the dense network.
        mask: what was pruned.
    """

    def __init__(self, small: nn.Module, stem: Stem, mask: Mask) -> None:
        super().__init__()
        self._kept = mask.graph.vector(mask.keep)[stem.ids].nonzero().flatten()
        self._whole = len(self._kept) == len(stem.ids)
        self._shape = mask.graph.input_shape
        self._given = _Given()
        for name in stem.skipped:
            _swap(small, name, nn.Identity())
        _swap(small, stem.last, self._given)
        self.small = small

    def forward(self, held: Tensor) -> Tensor:
        """(B, channels, H, W) output of the dense stem to logits."""
        self._given.value = held.clone() if self._whole else _channels(held, self._kept)
        try:
            return self.small(held.new_zeros(1).expand(len(held), *self._shape))
        finally:
            self._given.value = None


def _channels(held: Tensor, kept: Tensor) -> Tensor:
    """These channels of a map, in the layout it has."""
    index = kept.to(held.device)
    if held.ndim == 4 and held.is_contiguous(memory_format=torch.channels_last):
        return held.permute(0, 2, 3, 1).index_select(3, index).permute(0, 3, 1, 2)
    return held.index_select(1, index)


class _Given(nn.Module):
    """Stands in for the last layer of the stem and gives what was kept of it."""

    value: Tensor | None = None

    def forward(self, ignored: Tensor) -> Tensor:
        assert self.value is not None
        return self.value


def _swap(model: nn.Module, name: str, layer: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, layer)
