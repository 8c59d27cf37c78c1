"""The time from a slider move to the explorer's estimate, for a network too slow for exact numbers at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from ...core import collect_notes
from ...diagnostics import grid
from ...measurement import layout_of
from ...study import Study
from ...widgets import Explorer
from .live import Plan, study_of
from .timing import Row, race, seconds

_POLL = 0.002  # seconds


def estimate_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time from a slider move to the estimate (ResNet-50, 224 px), against one forward pass over the same images."""
    if device.type != "cpu":
        return
    plan = Plan(name="resnet50", pixels=224, images=500, repeats=5)
    if quick:
        plan = Plan(name="resnet18", pixels=32, images=20, repeats=1)
    study = study_of(plan, device)
    explorer = Explorer(study, panels=[])
    shown: dict[str, Any] = {}
    ratios = iter(grid(0.4, 0.6, plan.repeats + 1))

    def move() -> float:
        start = time.perf_counter()
        explorer.choose(ratio=next(ratios))
        shown.update(_first(explorer))
        return 1e3 * (time.perf_counter() - start)

    with collect_notes(lambda _: None):
        _first(explorer)
        ours = race({"move": move}, repeats=plan.repeats)["move"]
    explorer.close()  # else it would go on with the exact numbers beside the peer
    kind = "estimate" if shown["estimate"] else "exact numbers"
    note = (
        f"peer: one pass of the full network over the same images; {shown['images']} images of each of "
        f"{len(study.domains)} domains, BatchNorm re-estimated on as many"
    )
    peer = race({"pass": lambda: _pass(study, shown["images"])}, repeats=plan.repeats)["pass"]
    name = f"{kind} after a move, {plan.name}, {plan.pixels} px"
    yield Row(name=name, ours=ours, peer=peer, unit="ms", repeats=plan.repeats, note=note)


def _pass(study: Study, images: int) -> float:
    options: Any = {"size": 8, "images": images, "layout": layout_of(study.model, study.domains[0])}
    batches = [batch.images for domain in study.domains for batch in domain.batches("report", **options)]
    with torch.inference_mode():
        return 1e3 * seconds(lambda: [study.model(batch) for batch in batches], study.device)


def _first(explorer: Explorer) -> dict[str, Any]:
    """Wait for the first numbers of the view, and return them."""
    while True:
        rows = [row for row in explorer.frames.get("rows", []) if row["ratio"] == explorer.ratio]
        if rows:
            return rows[0]
        time.sleep(_POLL)
