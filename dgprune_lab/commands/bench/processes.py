"""A sweep in two processes against the same sweep in one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

import pandas as pd
import torch

from ...core import threads
from ...diagnostics import grid, sweep
from ...study import Study
from .cases import domains, network
from .timing import Row, race, require_same, seconds

_WORKERS = 2


def process_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time a sweep of LeNet or ResNet-18, scores ready, in two new processes and in this one."""
    if device.type != "cpu":
        return
    name, pixels, images, ratios = ("lenet", 28, 16, 2) if quick else ("resnet18", 32, 250, 20)
    model, held, frames = network(name), domains(pixels), dict[str, pd.DataFrame]()
    scores = Study(model, sources=held[:1], targets=held[1:]).score("l1")

    def run(side: str, executor: Executor | None) -> None:
        study = Study(model, sources=held[:1], targets=held[1:])  # a new one, with an empty cache
        frames[side] = sweep(study, scorers=[scores], ratios=grid(0, 0.9, ratios), images=images, executor=executor)

    def two() -> None:
        with ProcessPoolExecutor(_WORKERS) as executor:
            run("two", executor)

    repeats = 1 if quick else 3
    sides = {"two": two, "one": lambda: run("one", None)}
    times = race({key: lambda side=side: seconds(side, device) for key, side in sides.items()}, repeats=repeats)
    require_same(frames["one"].equals(frames["two"]), "rows")
    note = (
        f"peer: the same sweep in this process, {threads().count} thread(s); ours: {_WORKERS} new processes with one "
        f"thread each; {ratios} ratios, 2 domains of {images} images"
    )
    shared = {"ours": times["two"], "peer": times["one"], "repeats": repeats, "note": note}
    yield Row(name=f"sweep in two processes, {name}, {pixels} px", aim=">= 1.7", **shared)
