"""Prunability against the loop one would write: copy the network, mask it, evaluate it, at every share of the grid."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data import load
from ...diagnostics import prunability
from ...diagnostics._loss_curve import grid_of
from ...measurement import layout_of
from ...models.checkpoints import shipped
from ...study import Study
from .timing import Row, race, seconds

NETWORKS = {"lenet": "lenet_two_sources_0", "demo": "digits"}
TOLERANCE = 0.1
_SIZE = 250


def prunability_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """The LeNet and the demo's network on all their training images, by the quick search and by the whole grid."""
    for name, checkpoint in NETWORKS.items():
        yield from _rows(name, checkpoint, device, quick)
        if quick:
            return


def naive(model: nn.Module, batches: list[tuple[Tensor, Tensor]], shares: tuple[float, ...]) -> list[float]:
    """Mean loss at each share: the threshold from a sort, a copy of the network, zeros, every image."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    found = []
    for share in shares:
        twin = copy.deepcopy(model).eval()
        weights = [twin.get_submodule(name).get_parameter("weight") for name in layers]
        flat = torch.cat([weight.detach().abs().flatten() for weight in weights]).sort().values
        gone = int((1 - share) * len(flat) + 1e-9)
        with torch.inference_mode():
            for weight in weights:
                if gone:
                    weight.mul_(weight.abs() > flat[gone - 1])
            losses = [F.cross_entropy(twin(images), labels, reduction="none") for images, labels in batches]
        found.append(float(torch.cat(losses).double().mean()))
    return found


def check_losses(ours: list[float], other: list[float]) -> None:
    """Both sides found the same curve.

    Raises:
        RuntimeError: they did not, so their times mean nothing.
    """
    if len(ours) != len(other) or any(abs(a - b) > 1e-3 * max(1, abs(b)) for a, b in zip(ours, other, strict=True)):
        raise RuntimeError("prunability and the loop found different losses; their times cannot be compared.")


def _rows(name: str, checkpoint: str, device: torch.device, quick: bool) -> Iterator[Row]:
    sources = [load("mnist"), load("uci_digits")]
    model = shipped(checkpoint).to(device)
    images = 200 if quick else None
    layout = layout_of(model, sources[0])  # the loop reads images in the layout that is faster, as we do
    batches = [
        (batch.images, batch.labels)
        for source in sources
        for batch in source.batches("train", size=_SIZE, images=images, device=device, layout=layout)
        if batch.labels is not None
    ]
    step = 0.1 if quick else 0.01
    curves: dict[str, list[float]] = {}

    def ours(search: str) -> None:
        study = Study(model, sources=sources)
        frame = prunability(study, search=search, tolerance=TOLERANCE, step=step, images=images)  # type: ignore[arg-type]
        curves[search] = frame.loc[frame["metric"] == "loss", "value"].tolist()

    def loop() -> None:
        curves["loop"] = naive(model, batches, grid_of(step))

    repeats = 1
    prunability(Study(model, sources=sources), step=0.5, images=50)  # what is imported once is not counted
    found = race(
        {
            "fast": lambda: seconds(lambda: ours("fast"), device),
            "grid": lambda: seconds(lambda: ours("grid"), device),
            "loop": lambda: seconds(loop, device),
        },
        repeats=repeats,
        warm_up=False,
    )
    check_losses(curves["grid"], curves["loop"])
    counts = {key: len(curve) for key, curve in curves.items()}
    about = f"{sum(len(labels) for _, labels in batches)} training images, tolerance {TOLERANCE:g}, a new study each"
    for key, words, aim in (("fast", "quick search", ">= 5"), ("grid", "whole grid, with intervals", "")):
        note = f"peer: copy, mask, evaluate at {counts['loop']} shares; ours evaluates {counts[key]}; {about}"
        yield Row(f"prunability, {name}, {words}", found[key], found["loop"], "s", repeats, device.type, aim, note)
