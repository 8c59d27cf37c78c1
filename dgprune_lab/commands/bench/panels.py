"""Time attributions of all layers in one call against one call per layer, and updates (ticks) of panels."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import torch
from captum.attr import LayerGradientXActivation
from torch import Tensor, nn

from ...core import Domain
from ...measurement import Attributor, separated
from ...pruning import allocate, read_groups
from ...scorers import SCORERS
from ...study import Study, demo
from ...widgets import FeatureShiftPanel, SensitivityPanel, View
from .cases import domains, network
from .timing import Row, race_calls, require_same, seconds

_RATIOS = (0.12, 0.33, 0.47, 0.58, 0.66, 0.71, 0.83, 0.9, 0.21)


def panel_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time attributions on ResNet-18 with 2 x 500 images of 32 x 32 pixels, and ticks of panels on the demo."""
    name, pixels, images = ("lenet", 28, 40) if quick else ("resnet18", 32, 500)
    yield _attribution_row(name, pixels=pixels, images=images, repeats=1 if quick else 5, device=device)
    if device.type == "cpu" and not quick:
        yield _first_map_row(1000)
    study = demo(device=device)
    for panel in (SensitivityPanel(), FeatureShiftPanel()):
        yield _tick_row(panel, study, repeats=1 if quick else 9, device=device, background=not quick)


def _first_map_row(rows: int) -> Row:
    """Time a map for which UMAP must be compiled: in new processes with torch loaded and Numba's cache empty."""
    data = f"numpy.random.default_rng(0).normal(size=({rows}, 64))"
    ours = f"from dgprune_lab.stats.umap_process import embed; embed({data})"
    plain = f"import umap; umap.UMAP(random_state=0).fit_transform({data})"
    note = f"peer: umap-learn as it comes, seeded; {rows:,} x 64 numbers, nothing compiled before, torch loaded"
    name = f"first map of {rows:,} rows, cold"
    return Row(name=name, ours=_time_fresh(ours), peer=_time_fresh(plain), aim="<= 20 s", note=note)


def _time_fresh(code: str) -> float:
    """Return the seconds that code takes in a new Python process with torch loaded and Numba's cache empty."""
    timed = f"import time, numpy, torch; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
    with tempfile.TemporaryDirectory(prefix="dgprune-bench-") as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        command = [sys.executable, "-W", "ignore", "-c", timed]
        done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _attribution_row(name: str, *, pixels: int, images: int, repeats: int, device: torch.device) -> Row:
    model = network(name).to(device)
    used = [replace(d.to(device), splits={"score": d.rows("score", images)}) for d in domains(pixels)]
    example = used[0].take(torch.arange(2), device=device).images
    graph = read_groups(model, example)
    attributor = Attributor(model, graph, example=example)
    size = attributor.batch_size("gradient_x_activation")
    twin = separated(model, example)
    ends = [end for group in graph.groups for end in group.ends]
    totals: dict[str, float] = {}

    def ours() -> None:
        batches = (batch for domain in used for batch in domain.batches("score", size=size, device=device))
        parts = [attributor.values(batch, method="gradient_x_activation", layers=graph.names) for batch in batches]
        totals["ours"] = sum(float(torch.cat([part[name] for part in parts]).sum()) for name in graph.names)

    def one_by_one() -> None:
        values = [_attribute_layer(twin, end, domains=used, size=size, device=device) for end in ends]
        totals["peer"] = sum(float(part.sum()) for part in values)

    sides = {"ours": ours, "peer": one_by_one}
    times = race_calls(sides, device, repeats=repeats)
    check_totals(totals["ours"], totals["peer"])
    note = (
        f"peer: Captum's gradient x activation in a loop over {len(ends)} layers; {len(used)} x {images} images of "
        f"{pixels} px, batches of {size}"
    )
    name = f"sensitivity, {name}: attributions against a call per layer"
    row = {"name": name, "ours": times["ours"], "peer": times["peer"]}
    return Row(**row, repeats=repeats, device=device.type, aim=">= 5", note=note)


def _attribute_layer(model: nn.Module, layer: str, *, domains: list[Domain], size: int, device: torch.device) -> Tensor:
    """Return the attributions of one layer, (N, channels), over all images."""
    parts = []
    for domain in domains:
        for batch in domain.batches("score", size=size, device=device):
            method = LayerGradientXActivation(model, model.get_submodule(layer))
            values = method.attribute(batch.images.requires_grad_(), target=batch.labels)
            assert isinstance(values, Tensor)
            parts.append(values.detach().flatten(2).sum(2).cpu())
    return torch.cat(parts)


def _tick_row(panel: Any, study: Study, *, repeats: int, device: torch.device, background: bool) -> Row:
    """Time ticks of a panel at new ratios; if `background`, after its background work is done."""
    scores = study.score("l1")
    ratios = cycle(_RATIOS)

    def view_at(ratio: float) -> View:
        mask, scorer = allocate(scores, ratio=ratio), SCORERS["l1"]
        return View(study=study, mask=mask, scorer=scorer, batchnorm="recalibrate", selected=panel.selected)

    def tick(view: View) -> None:
        frames = panel.tick(view)
        for _ in [frames] if isinstance(frames, dict) else frames:
            pass

    first = seconds(lambda: tick(view_at(0.5)), device)
    for _ in panel.background(view_at(0.5)) if background else ():
        pass
    times = []
    for _ in range(repeats):
        view = view_at(next(ratios))
        for domain in study.domains:  # the explorer has measured this network by then
            study.outcomes(view.mask, domain=domain.name, batchnorm="recalibrate")
        times.append(1e3 * seconds(lambda view=view: tick(view), device))
    if hasattr(panel, "close"):
        panel.close()
    note = f"demo, ratios not shown before, accuracies measured already; the very first one {1e3 * first:,.0f} ms"
    name = f"tick, panel “{panel.label}”"
    return Row(name=name, ours=statistics.median(times), unit="ms", repeats=repeats, device=device.type, note=note)


def check_totals(ours: float, other: float) -> None:
    """Require that both sides computed the same sum of all attributions."""
    require_same(abs(ours - other) <= 1e-3 * max(abs(other), 1.0), "attributions")
