"""Attributions of all layers in one call against a call per layer; a tick of the two panels made of features."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle

import torch
from captum.attr import LayerGradientXActivation
from torch import Tensor

from ...core import Domain
from ...measurement import Attributor, separated
from ...pruning import allocate, read_groups
from ...study import Study, demo
from ...widgets import FeatureShiftPanel, Panel, SensitivityPanel, View
from .cases import domains, network
from .timing import Row, race, seconds

_RATIOS = (0.12, 0.33, 0.47, 0.58, 0.66, 0.71, 0.83, 0.9, 0.21)


def panel_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """ResNet-18, 2 x 500 images of 32 pixels; the ticks on the demo."""
    name, pixels, images = ("lenet", 28, 40) if quick else ("resnet18", 32, 500)
    yield _attributions(name, pixels=pixels, images=images, repeats=1 if quick else 5, device=device)
    if device.type == "cpu" and not quick:
        yield _first_map(1000)
    study = demo()
    study = study if device.type == "cpu" else study.on(device)
    for panel, words in ((SensitivityPanel(), "Which filters notice"), (FeatureShiftPanel(), "Where features go")):
        yield _tick(panel, words, study, repeats=1 if quick else 9, device=device, later=not quick)


def _first_map(rows: int) -> Row:
    """A map where UMAP was never compiled: both sides in a fresh process with an empty cache of compiled code."""
    data = f"numpy.random.default_rng(0).normal(size=({rows}, 64))"
    ours = f"import numpy; from dgprune_lab.stats.umap_process import embed; embed({data})"
    plain = f"import numpy, umap; umap.UMAP(random_state=0).fit_transform({data})"
    times = {side: _fresh(code) for side, code in (("ours", ours), ("peer", plain))}
    note = f"peer: umap-learn as it comes, seeded; {rows:,} x 64 numbers, nothing compiled before, one process each"
    return Row(f"first map of {rows:,} rows, cold", times["ours"], times["peer"], "s", 1, "cpu", "<= 20 s", note)


def _fresh(code: str) -> float:
    """Seconds that a fresh Python takes for this code, Numba's cache of compiled code being empty."""
    with tempfile.TemporaryDirectory(prefix="dgprune-bench-") as cache:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], check=True, env={**os.environ, "NUMBA_CACHE_DIR": cache}
        )
        return time.perf_counter() - start


def _attributions(name: str, *, pixels: int, images: int, repeats: int, device: torch.device) -> Row:
    model = network(name).to(device)
    held = [replace(d.to(device), splits={"score": d.rows("score", images)}) for d in domains(pixels)]
    example = held[0].take(torch.arange(2), device=device).images
    graph = read_groups(model, example)
    by = Attributor(model, graph, example=example)
    size = by.batch_size("gradient_x_activation")
    apart = separated(model, example)
    ends = [end for group in graph.groups for end in group.ends]
    found: dict[str, list[Tensor]] = {}

    def together() -> None:
        batches = (batch for domain in held for batch in domain.batches("score", size=size, device=device))
        parts = [by.values(batch, method="gradient_x_activation", layers=graph.names) for batch in batches]
        found["ours"] = [torch.cat([part[name] for part in parts]) for name in graph.names]

    def one_by_one() -> None:
        found["peer"] = [_loop(apart, end, held, size=size, device=device) for end in ends]

    sides = {"ours": together, "peer": one_by_one}
    times = race({side: lambda side=side: seconds(sides[side], device) for side in sides}, repeats=repeats)
    check_totals(sum(float(part.sum()) for part in found["ours"]), sum(float(part.sum()) for part in found["peer"]))
    return Row(
        f"sensitivity, {name}: attributions against a call per layer",
        times["ours"],
        times["peer"],
        "s",
        repeats,
        device.type,
        ">= 5",
        f"peer: Captum's gradient x activation in a loop over {len(ends)} layers; {len(held)} x {images} images of "
        f"{pixels} px, batches of {size}",
    )


def _loop(model: torch.nn.Module, layer: str, held: list[Domain], *, size: int, device: torch.device) -> Tensor:
    """(N, channels) of one layer, over all images."""
    parts = []
    for domain in held:
        for batch in domain.batches("score", size=size, device=device):
            asked = LayerGradientXActivation(model, model.get_submodule(layer))
            given = asked.attribute(batch.images.requires_grad_(), target=batch.labels)
            assert isinstance(given, Tensor)
            parts.append(given.detach().flatten(2).sum(2).cpu())
    return torch.cat(parts)


def _tick(panel: Panel, words: str, study: Study, *, repeats: int, device: torch.device, later: bool) -> Row:
    """Ticks at ratios that were not shown before; `later`: after the panel has what it computes in the background."""
    scores = study.score("l1")
    ratios = cycle(_RATIOS)

    def view(ratio: float) -> View:
        return View(study, allocate(scores, ratio=ratio), batchnorm="recalibrate", selected=panel.selected)

    def tick(shown: View) -> None:
        found = panel.tick(shown)
        for _ in [found] if isinstance(found, dict) else found:
            pass

    first = seconds(lambda: tick(view(0.5)), device)
    for _ in panel.background(view(0.5)) if later else ():
        pass
    taken = []
    for _ in range(repeats):
        shown = view(next(ratios))
        for domain in study.domains:  # the explorer has measured this network by then
            study.outcomes(shown.mask, domain=domain.name, batchnorm="recalibrate")
        taken.append(seconds(lambda shown=shown: tick(shown), device))
    close = getattr(panel, "close", None)
    if close is not None:
        close()
    note = f"demo, ratios not shown before, accuracies measured already; the very first one {1e3 * first:,.0f} ms"
    return Row(f"tick, panel “{words}”", 1e3 * statistics.median(taken), None, "ms", repeats, device.type, "", note)


def check_totals(ours: float, other: float) -> None:
    """Both sides found the same sum of all attributions.

    Raises:
        RuntimeError: they did not, so their times mean nothing.
    """
    if abs(ours - other) > 1e-3 * max(abs(other), 1.0):
        raise RuntimeError("one call and a call per layer gave different attributions; their times cannot be compared.")
