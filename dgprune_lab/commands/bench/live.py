"""A move of the slider, from cached scores to outcomes on all images or to the explorer's estimate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core import BatchNorm, Domain, Outcomes, Scores, collect_notes, full_precision
from ...diagnostics import grid
from ...measurement import layout_of
from ...pruning import allocate, prune
from ...study import Study, demo
from ...widgets import Explorer
from .cases import CLASSES, domains, network
from .timing import Row, race, seconds

_SETTINGS: dict[BatchNorm, str] = {"as_is": "BatchNorm as is", "recalibrate": "BatchNorm recalibrated"}
_POLL = 0.002  # seconds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A torchvision network, image size and count for each of two domains, the number of repeats, and the aim."""

    name: str
    pixels: int
    images: int
    repeats: int
    aim: str = ""


FULL = (
    Plan(name="resnet18", pixels=32, images=500, repeats=9),
    Plan(name="resnet50", pixels=224, images=1000, repeats=3, aim="<= 1 s"),
)
QUICK = (Plan(name="resnet18", pixels=32, images=20, repeats=1),)


def live_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time a move of the slider: the demo on all images, ResNet-18, and on a GPU ResNet-50 on 2,000 images."""
    yield from _rows(demo(device=device), name="demo", repeats=1 if quick else 9, images=60 if quick else None, aim="")
    for plan in QUICK if quick else FULL:
        if plan.pixels < 100 or device.type != "cpu":  # a ResNet-50 takes minutes on a CPU
            study = study_of(plan, device)
            yield from _rows(study, name=plan.name, repeats=plan.repeats, images=plan.images, aim=plan.aim)


def study_of(plan: Plan, device: torch.device) -> Study:
    """Return a study of a plan's network on two domains, with random weights."""
    model = network(plan.name).to(device)
    with collect_notes(lambda _: None):  # networks with random weights are at chance
        if plan.pixels < 100:
            first, second = domains(plan.pixels)
        else:
            first, second = (_noise_domain(name, plan, seed=seed) for seed, name in enumerate(("noise", "more noise")))
        return Study(model, sources=[first], targets=[second], name=plan.name)


def _noise_domain(name: str, plan: Plan, *, seed: int) -> Domain:
    generator, train = torch.Generator().manual_seed(seed), 500
    size = (train + plan.images, 3, plan.pixels, plan.pixels)
    images = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    rows = {"train": range(16, train), "score": range(16), "report": range(train, len(images))}
    labels = torch.randint(0, CLASSES, (len(images),), generator=generator)
    return Domain.from_arrays(name, images=images, labels=labels, splits=rows, classes=CLASSES)


def _rows(study: Study, *, name: str, repeats: int, images: int | None, aim: str) -> Iterator[Row]:
    count = sum(len(domain.rows("report", images)) for domain in study.domains)
    note = f"peer: forward passes of a ready network with as many filters, in float32; {count:,} images"
    shared: dict[str, Any] = {"unit": "ms", "repeats": repeats, "device": study.device.type, "aim": aim, "note": note}
    with collect_notes(lambda _: None):
        scores = study.score("l1")
        for setting, label in _SETTINGS.items():
            # No ratio twice: results are cached, and a GPU's libraries search for the fastest kernel of each new shape.
            ratios = iter(grid(0.45, 0.55, 2 * repeats + 2))

            def ours(setting: BatchNorm = setting, ratios: Iterator[float] = ratios) -> float:
                options: Any = {"batchnorm": setting, "images": images}
                return 1e3 * seconds(lambda: _move(study, scores, next(ratios), **options), study.device)

            def bare(ratios: Iterator[float] = ratios) -> float:
                return 1e3 * _time_forward(study, scores, next(ratios), images=images)

            times = race({"ours": ours, "bare": bare}, repeats=repeats)
            yield Row(name=f"slider, {name}, {label}", ours=times["ours"], peer=times["bare"], **shared)


def _move(study: Study, scores: Scores, ratio: float, *, batchnorm: BatchNorm, images: int | None) -> list[Outcomes]:
    mask = allocate(scores, ratio=ratio)
    return [study.outcomes(mask, domain=d.name, batchnorm=batchnorm, images=images) for d in study.domains]


def _time_forward(study: Study, scores: Scores, ratio: float, *, images: int | None) -> float:
    small = prune(study.model, allocate(scores, ratio=ratio)).eval().to(study.device)
    batches = [b.images for d in study.domains for b in d.batches("report", images=images, device=study.device)]
    with torch.inference_mode(), full_precision(study.device):
        return seconds(lambda: torch.cat([small(part).argmax(1) for part in batches]).cpu(), study.device)


def estimate_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time from a slider move to the estimate (ResNet-50, 224 px), against one forward pass over the same images."""
    plan = Plan(name="resnet50", pixels=224, images=500, repeats=5)
    if quick:
        plan = Plan(name="resnet18", pixels=32, images=20, repeats=1)
    study = study_of(plan, device)
    explorer = Explorer(study, panels=[])
    first_row: dict[str, Any] = {}
    ratios = iter(grid(0.4, 0.6, plan.repeats + 1))

    def move() -> float:
        start = time.perf_counter()
        explorer.choose(ratio=next(ratios))
        first_row.update(_wait_for_row(explorer))
        return 1e3 * (time.perf_counter() - start)

    with collect_notes(lambda _: None):
        _wait_for_row(explorer)
        ours = race({"move": move}, repeats=plan.repeats)["move"]
    explorer.close()  # else it would compute the exact numbers beside the peer
    kind = "estimate" if first_row["estimate"] else "exact numbers"
    note = (
        f"peer: one pass of the full network over the same images; {first_row['images']} images of each of "
        f"{len(study.domains)} domains, BatchNorm re-estimated on as many"
    )
    peer = race({"pass": lambda: _full_pass(study, first_row["images"])}, repeats=plan.repeats)["pass"]
    name = f"{kind} after a move, {plan.name}, {plan.pixels} px"
    yield Row(name=name, ours=ours, peer=peer, unit="ms", repeats=plan.repeats, note=note)


def _full_pass(study: Study, images: int) -> float:
    options: Any = {"size": 8, "images": images, "layout": layout_of(study.model, study.domains[0])}
    batches = [batch.images for domain in study.domains for batch in domain.batches("report", **options)]
    with torch.inference_mode():
        return 1e3 * seconds(lambda: [study.model(batch) for batch in batches], study.device)


def _wait_for_row(explorer: Explorer) -> dict[str, Any]:
    """Wait for the explorer's first numbers at its current ratio, and return them."""
    while True:
        rows = [row for row in explorer.frames.get("rows", []) if row["ratio"] == explorer.ratio]
        if rows:
            return rows[0]
        time.sleep(_POLL)


def equality_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Compare the demo's numbers on a GPU with those on the CPU: outcomes, and the sums of one pass for scorers."""
    if device.type == "cpu":
        return
    on_cpu, on_gpu = (_numbers(demo(device=place), quick=quick) for place in ("cpu", device))
    for name, (value, size) in on_cpu.items():
        difference = float(((value - on_gpu[name][0]).abs() / size).max())
        note = f"largest difference of {value.numel():,} numbers from those on the CPU"
        yield Row(name=f"demo, {name}", ours=difference, unit="", device=device.type, aim="<= 1e-4", note=note)


def _numbers(study: Study, *, quick: bool) -> dict[str, tuple[Tensor, Tensor]]:
    """Return label -> (the numbers to compare, what to divide their differences by)."""
    images, ratios = (60, [0.5]) if quick else (None, grid(0, 0.8, 5))
    with collect_notes(lambda _: None):
        scores = study.score("l1")
        moves = [_move(study, scores, r, batchnorm=setting, images=images) for r in ratios for setting in _SETTINGS]
        passes = study.statistics("mnist", needs=("moments", "gate", "mean_map", "class_co_moments"))
    outcomes = [outcome for move in moves for outcome in move]
    accuracies = torch.tensor([outcome.accuracy for outcome in outcomes], dtype=torch.float64)
    losses = torch.stack([outcome.loss.mean() for outcome in outcomes])
    sums = [*passes.gate.values(), *passes.mean_map.values(), *(m.mean_square for m in passes.moments.values())]
    sums += [pair.cross for pair in passes.class_co_moments.values()]
    largest = torch.cat([part.abs().max().expand(part.numel()) for part in sums])
    unit = torch.ones(())
    return {
        "accuracies": (accuracies, unit),
        "mean losses": (losses, unit),
        "sums of a pass, relative": (torch.cat([part.flatten() for part in sums]), largest),
    }
