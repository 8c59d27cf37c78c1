"""One tick of the slider, from cached scores to a mask and to a smaller network; FPGM scores on a VGG-16."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ...core import Domain, full_precision
from ...pruning import allocate, prune
from ...study import Study
from . import peer
from .cases import Case, case, random_scores
from .timing import Row, race, race_calls, require_same, seconds

_RATIO = 0.5


def mask_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time a mask from scores on ResNet-18: 2,880 filters in groups that comprise 4,800 convolution channels."""
    item = case("resnet18", pixels=32, device=device)
    scores, repeats = random_scores(item.graph), 5 if quick else 31
    rank = peer.ranker(item.model, item.example, scores=scores.values, ratio=0.5)

    def first() -> float:
        fresh = replace(scores)  # new scores, so their order of removal is not cached
        return seconds(lambda: allocate(fresh, ratio=0.5), device)

    sides = {
        "first": first,
        "next": lambda: seconds(lambda: allocate(scores, ratio=0.5), device),
        "peer": lambda: seconds(rank, device),
        "macs": lambda: seconds(lambda: allocate(scores, ratio=0.5, scope="global", budget="macs"), device),
    }
    times = {name: 1e3 * elapsed for name, elapsed in race(sides, repeats=repeats).items()}
    shared: dict[str, Any] = {"unit": "ms", "repeats": repeats, "aim": "<= 5 ms"}
    name = "scores to mask, resnet18,"
    note = "peer: Torch-Pruning's pruner with the same scores, step(interactive=True), walks its graph again"
    for key in ("first", "next"):
        row = {"name": f"{name} per layer, {key} ratio", "ours": times[key], "peer": times["peer"]}
        yield Row(**row, note=note, **shared)
    note = "peer: none, Torch-Pruning does not count MACs when it allocates"
    yield Row(name=f"{name} global, by MACs", ours=times["macs"], note=note, **shared)


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
    times = race_calls(sides, device, repeats=repeats, unit="ms")
    shared = {"ours": times["ours"], "unit": "ms", "repeats": repeats, "device": device.type}
    size = f"{item.example.shape[-1]} px, half of each layer, scores cached"
    note = f"peer: Torch-Pruning, a copy and its graph each time; {size}"
    name = f"tick, {item.name}: against"
    yield Row(name=f"{name} copy + graph + prune", peer=times["copied"], aim=">= 10", note=note, **shared)
    note = f"peer: Torch-Pruning in place, one graph, tensors restored; {size}"
    yield Row(name=f"{name} graph reused", peer=times["in_place"], note=note, **shared)


def fpgm_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time the FPGM scores of every layer of a VGG-16-bn."""
    item = case("lenet", pixels=28, device=device) if quick else case("vgg16_bn", pixels=32, device=device)
    domain = Domain.from_arrays("noise", images=item.example.expand(4, -1, -1, -1).cpu(), splits={"report": range(4)})

    def ours() -> float:
        study = Study(item.model, sources=[domain])  # a fresh one with an empty cache
        return seconds(lambda: study.score("fpgm"), device)

    narrow, documented = (peer.fpgm(item, only_convolutions=only) for only in (True, False))
    repeats = 1 if quick else 3
    times = race({"ours": ours, "narrow": lambda: seconds(narrow, device)}, repeats=repeats)
    shared = {"ours": times["ours"], "repeats": repeats, "device": device.type}
    note = "peer: Torch-Pruning's FPGMImportance as documented, also on columns of the linear layer (ran once)"
    name = f"fpgm scores, {item.name}"
    yield Row(name=name, peer=seconds(documented, device), aim="< 1 s", note=note, **shared)
    note = "peer: FPGMImportance with target_types set to convolutions by hand"
    yield Row(name=f"{name}: peer on convolutions only", peer=times["narrow"], note=note, **shared)


def check_same(ours: nn.Module, other: nn.Module, example: torch.Tensor) -> None:
    """Require that two pruned networks have the same shapes and give the same logits."""
    shapes = [{name: tuple(t.shape) for name, t in network.state_dict().items()} for network in (ours, other)]
    require_same(shapes[0] == shapes[1], "shapes")
    with torch.inference_mode():
        first, second = ours.eval()(example), other.eval()(example)
    spread = float((first.max() - first.min()).clamp_min(1e-12))
    require_same(float((first - second).abs().max()) <= 1e-4 * spread, "logits")
