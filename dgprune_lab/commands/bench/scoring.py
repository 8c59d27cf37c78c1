"""Cached scores to a mask, and FPGM on a VGG-16."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from ...core import Domain
from ...pruning import allocate
from ...study import Study
from . import peer
from .cases import case, drawn_scores
from .timing import Row, race, seconds


def mask_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Scores to mask for the groups of ResNet-18: 2,880 filters, which stand for 4,800 channels of convolutions."""
    if device.type != "cpu":
        return
    item = case("resnet18", pixels=32, device=device)
    scores, repeats = drawn_scores(item.graph), 5 if quick else 31
    rank = peer.ranker(item.model, item.example, scores.values, 0.5)

    def first() -> float:
        fresh = replace(scores)  # new scores, so their order of removal is not known yet
        return seconds(lambda: allocate(fresh, ratio=0.5), device)

    found = race(
        {
            "first": first,
            "next": lambda: seconds(lambda: allocate(scores, ratio=0.5), device),
            "peer": lambda: seconds(rank, device),
            "macs": lambda: seconds(lambda: allocate(scores, ratio=0.5, scope="global", budget="macs"), device),
        },
        repeats=repeats,
    )
    note = "peer: Torch-Pruning's pruner with the same scores, step(interactive=True), walks its graph again"
    for key, words in (("first", "first ratio"), ("next", "next ratio")):
        name = f"scores to mask, resnet18, same per layer, {words}"
        yield Row(name, found[key] * 1e3, found["peer"] * 1e3, "ms", repeats, "cpu", "<= 5 ms", note)
    yield Row(
        "scores to mask, resnet18, weakest anywhere, by MACs",
        found["macs"] * 1e3,
        None,
        "ms",
        repeats,
        "cpu",
        "<= 5 ms",
        "Torch-Pruning does not count MACs when it allocates",
    )


def fpgm_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """FPGM scores of every layer of a VGG-16-bn."""
    item = case("resnet18" if quick else "vgg16_bn", pixels=32, device=device)
    domain = Domain.from_arrays("noise", images=item.example.expand(4, -1, -1, -1).cpu(), splits={"report": range(4)})

    def ours() -> float:
        study = Study(item.model, sources=[domain])  # a fresh one, which has nothing in its cache
        return seconds(lambda: study.score("fpgm"), device)

    narrow = peer.fpgm(item.model, item.example, item.layers, only_convolutions=True)
    repeats = 1 if quick else 3
    found = race({"ours": ours, "narrow": lambda: seconds(narrow, device)}, repeats=repeats)
    whole = seconds(peer.fpgm(item.model, item.example, item.layers, only_convolutions=False), device)
    yield Row(
        f"fpgm scores, {item.name}",
        found["ours"],
        whole,
        "s",
        repeats,
        device.type,
        "< 1 s",
        "peer: Torch-Pruning's FPGMImportance as documented, also on columns of the linear layer (ran once)",
    )
    yield Row(
        f"fpgm scores, {item.name}: peer on convolutions only",
        found["ours"],
        found["narrow"],
        "s",
        repeats,
        device.type,
        "",
        "peer: FPGMImportance with target_types set to convolutions by hand",
    )
