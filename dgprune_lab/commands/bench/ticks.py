"""One tick of the slider: cached scores to a smaller network."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ...pruning import allocate, prune
from . import peer
from .cases import Case, case, drawn_scores
from .timing import Row, race, seconds

_RATIO = 0.5


def tick_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """ResNet-18, ResNet-50 and VGG-16-bn at 224 pixels, half of the filters of each layer removed."""
    names = {"resnet18": 15} if quick else {"resnet18": 15, "resnet50": 9, "vgg16_bn": 5}
    for name, repeats in names.items():
        item = case(name, pixels=32 if quick else 224, device=device)
        yield from _rows(item, repeats=3 if quick else repeats, device=device)


def _rows(item: Case, *, repeats: int, device: torch.device) -> Iterator[Row]:
    scores = drawn_scores(item.graph)
    reused = peer.Reused(item.model, item.example)

    def ours() -> nn.Module:
        return prune(item.model, allocate(scores, ratio=_RATIO))

    def copied() -> nn.Module:
        return peer.cut_a_copy(item.model, item.example, peer.lowest(scores.values, _RATIO))

    def in_place() -> nn.Module:
        return reused(peer.lowest(scores.values, _RATIO))

    check_same(ours(), copied(), item.example)
    check_same(ours(), in_place(), item.example)
    sides = {"ours": ours, "copied": copied, "in_place": in_place}
    found = race({name: lambda side=side: seconds(side, device) for name, side in sides.items()}, repeats=repeats)
    size = f"{item.example.shape[-1]} px, half of each layer, scores cached"
    notes = {
        "copied": ("copy + graph + prune", ">= 10", f"peer: Torch-Pruning, a copy and its graph each time; {size}"),
        "in_place": ("graph reused", "", f"peer: Torch-Pruning in place, one graph, tensors put back; {size}"),
    }
    for key, (words, aim, note) in notes.items():
        name = f"tick, {item.name}: against {words}"
        yield Row(name, found["ours"] * 1e3, found[key] * 1e3, "ms", repeats, device.type, aim, note)


def check_same(ours: nn.Module, other: nn.Module, example: torch.Tensor) -> None:
    """Two pruned networks have the same shapes and give the same logits.

    Raises:
        RuntimeError: they do not, so their times mean nothing.
    """
    widths = [{name: tuple(t.shape) for name, t in net.state_dict().items()} for net in (ours, other)]
    if widths[0] != widths[1]:
        raise RuntimeError("the two pruned networks have different shapes; their times cannot be compared.")
    with torch.inference_mode():
        first, second = ours.eval()(example), other.eval()(example)
    spread = float((first.max() - first.min()).clamp_min(1e-12))
    if float((first - second).abs().max()) > 1e-4 * spread:
        raise RuntimeError("the two pruned networks give different logits; their times cannot be compared.")
