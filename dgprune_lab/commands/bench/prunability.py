"""Prunability against a plain loop that copies, masks and evaluates the network at every share of the grid."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core import Domain
from ...data import load
from ...diagnostics import prunability
from ...diagnostics._loss_curve import grid_of
from ...measurement import layout_of
from ...models import shipped
from ...models.networks import nin
from ...study import Study
from ...training import TrainingOptions, finish, train
from .timing import Row, race, require_same, seconds

NETWORKS = {"lenet": "lenet_two_sources_0", "demo": "digits", "network in network": ""}
"""Name in a row -> shipped checkpoint; "" for a network that this benchmark trains, for three epochs on garments."""
TOLERANCE = 0.1
_SIZE = 250


def prunability_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time prunability of three networks on all training images: fast search, with and without intervals, and grid."""
    for name, checkpoint in list(NETWORKS.items())[: 1 if quick else None]:
        yield from _rows(name, checkpoint, device=device, quick=quick)


def naive(model: nn.Module, batches: list[tuple[Tensor, Tensor]], *, shares: tuple[float, ...]) -> list[float]:
    """Return the mean loss on all images at each share; every share sorts anew and masks a new copy of the network."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    losses = []
    for share in shares:
        twin = copy.deepcopy(model).eval()
        weights = [twin.get_submodule(name).get_parameter("weight") for name in layers]
        flat = torch.cat([weight.detach().abs().flatten() for weight in weights]).sort().values
        removed = int((1 - share) * len(flat) + 1e-9)
        with torch.inference_mode():
            for weight in weights if removed else ():
                weight.mul_(weight.abs() > flat[removed - 1])
            each = [F.cross_entropy(twin(images), labels, reduction="none") for images, labels in batches]
        losses.append(float(torch.cat(each).double().mean()))
    return losses


def check_losses(ours: list[float], other: list[float]) -> None:
    """Require that both sides computed the same losses."""
    same = len(ours) == len(other)
    same = same and all(abs(a - b) <= 1e-3 * max(1, abs(b)) for a, b in zip(ours, other, strict=True))
    require_same(same, "losses")


def _rows(name: str, checkpoint: str, *, device: torch.device, quick: bool) -> Iterator[Row]:
    sources = [load(source) for source in (("mnist", "uci_digits") if checkpoint else ("fashion", "fashion_colour"))]
    model = (shipped(checkpoint) if checkpoint else _train_network(sources)).to(device)
    images, step = (200, 0.1) if quick else (None, 0.01)
    layout = layout_of(model, sources[0])  # the loop reads images in the faster layout, as we do
    batches = [
        (batch.images, batch.labels)
        for source in sources
        for batch in source.batches("train", size=_SIZE, images=images, device=device, layout=layout)
        if batch.labels is not None
    ]
    curves: dict[str, list[float]] = {}
    values: dict[tuple[str, bool], float] = {}
    counts: dict[tuple[str, bool], int] = {}

    def ours(search: str, intervals: bool = True) -> float:
        def run() -> None:
            study = Study(model, sources=sources)
            options: Any = {"search": search, "tolerance": TOLERANCE, "step": step, "images": images}
            frame = prunability(study, intervals=intervals, **options)
            values[search, intervals], counts[search, intervals] = frame[["value", "evaluations"]].iloc[-1]
            curves[search] = frame.loc[frame["metric"] == "loss", "value"].tolist()

        return seconds(run, device)

    def loop() -> float:
        return seconds(lambda: curves.update(loop=naive(model, batches, shares=grid_of(step))), device)

    prunability(Study(model, sources=sources), step=0.5, images=50)  # so that imports are not timed
    sides = {
        "alone": lambda: ours("fast", intervals=False),
        "fast": lambda: ours("fast"),
        "grid": lambda: ours("grid"),
        "loop": loop,
    }
    times = race(sides, repeats=1, warm_up=False)
    check_losses(curves["grid"], curves["loop"])
    require_same(values["fast", True] == values["fast", False], "prunabilities")
    size = f"{sum(len(labels) for _, labels in batches)} training images, tolerance {TOLERANCE:g}, a new study each"
    rows = (
        ("alone", ("fast", False), "quick search, without intervals", ">= 5"),
        ("fast", ("fast", True), "quick search", ">= 5"),
        ("grid", ("grid", True), "whole grid, with intervals", ""),
    )
    for key, search, text, aim in rows:
        count = f"{counts[search]:.0f}" if search[1] else f"{counts[search]:.0f}, those refused on part of the images"
        note = f"peer: copy, mask, evaluate at {len(curves['loop'])} shares; ours evaluates {count}; {size}"
        row = {"name": f"prunability, {name}, {text}", "ours": times[key], "peer": times["loop"]}
        yield Row(**row, device=device.type, aim=aim, note=note)


def _train_network(sources: Sequence[Domain]) -> nn.Module:
    options = TrainingOptions(epochs=3, batch_size=32, optimiser="adam", lr=0.005, schedule="constant")
    return finish(train(nin(mean=0.3, std=0.35, widths=(24, 48, 48)), sources=sources, options=options))
