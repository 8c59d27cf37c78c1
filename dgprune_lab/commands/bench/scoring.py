"""Time from cached scores to a mask, and FPGM scores on a VGG-16."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from ...core import Domain
from ...pruning import allocate
from ...study import Study
from . import peer
from .cases import case, random_scores
from .timing import Row, race, seconds


def mask_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time a mask from scores on ResNet-18: 2,880 filters in groups, which hold 4,800 channels of convolutions."""
    if device.type != "cpu":
        return
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
    times = {name: 1e3 * taken for name, taken in race(sides, repeats=repeats).items()}
    shared: dict[str, Any] = {"unit": "ms", "repeats": repeats, "aim": "<= 5 ms"}
    name = "scores to mask, resnet18,"
    note = "peer: Torch-Pruning's pruner with the same scores, step(interactive=True), walks its graph again"
    for key in ("first", "next"):
        row = {"name": f"{name} per layer, {key} ratio", "ours": times[key], "peer": times["peer"]}
        yield Row(**row, note=note, **shared)
    note = "peer: none, Torch-Pruning does not count MACs when it allocates"
    yield Row(name=f"{name} global, by MACs", ours=times["macs"], note=note, **shared)


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
