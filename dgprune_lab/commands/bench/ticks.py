"""One tick of the slider: from cached scores to a smaller network."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ...core import full_precision
from ...pruning import allocate, prune
from . import peer
from .cases import Case, case, random_scores
from .timing import Row, race, require_same, seconds

_RATIO = 0.5


def tick_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time ticks on ResNet-18, ResNet-50 and VGG-16-bn at 224 pixels, with half of each layer's filters removed."""
    names = {"resnet18": 3} if quick else {"resnet18": 15, "resnet50": 9, "vgg16_bn": 5}
    for name, repeats in names.items():
        item = case(name, pixels=32 if quick else 224, device=device)
        yield from _rows(item, repeats=repeats, device=device)


def _rows(item: Case, *, repeats: int, device: torch.device) -> Iterator[Row]:
    scores = random_scores(item.graph)
    reused = peer.Reused(item.model, item.example)

    def ours() -> nn.Module:
        return prune(item.model, allocate(scores, ratio=_RATIO))

    def copied() -> nn.Module:
        return peer.prune_a_copy(item.model, item.example, peer.lowest(scores.values, _RATIO))

    def in_place() -> nn.Module:
        return reused(peer.lowest(scores.values, _RATIO))

    for other in (copied, in_place):
        with full_precision(device):
            check_same(ours(), other(), item.example)
    sides = {"ours": ours, "copied": copied, "in_place": in_place}
    times = race({name: lambda side=side: 1e3 * seconds(side, device) for name, side in sides.items()}, repeats=repeats)
    shared = {"ours": times["ours"], "unit": "ms", "repeats": repeats, "device": device.type}
    size = f"{item.example.shape[-1]} px, half of each layer, scores cached"
    note = f"peer: Torch-Pruning, a copy and its graph each time; {size}"
    name = f"tick, {item.name}: against"
    yield Row(name=f"{name} copy + graph + prune", peer=times["copied"], aim=">= 10", note=note, **shared)
    note = f"peer: Torch-Pruning in place, one graph, tensors restored; {size}"
    yield Row(name=f"{name} graph reused", peer=times["in_place"], note=note, **shared)


def check_same(ours: nn.Module, other: nn.Module, example: torch.Tensor) -> None:
    """Require that two pruned networks have the same shapes and give the same logits."""
    shapes = [{name: tuple(t.shape) for name, t in network.state_dict().items()} for network in (ours, other)]
    require_same(shapes[0] == shapes[1], "shapes")
    with torch.inference_mode():
        first, second = ours.eval()(example), other.eval()(example)
    spread = float((first.max() - first.min()).clamp_min(1e-12))
    require_same(float((first - second).abs().max()) <= 1e-4 * spread, "logits")
