"""The main public calls leave the user's networks, domains and settings as they were."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from material import ResidualNet, domain, norm_net, randomise
from state import unchanged
from torch import nn

import dgprune_lab as dg


def lived_in(model: nn.Module) -> nn.Module:
    """A network as people have them: some layers in train mode, gradients, a frozen weight, hooks, attributes."""
    randomise(model, dtype=torch.float32).train()
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, number)
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.weight.requires_grad_(False)
    first.eval()
    first.register_forward_hook(lambda _module, _inputs, _output: None)
    model.note = "mine"  # type: ignore[assignment]
    return model


MODEL = lived_in(norm_net())
STREAM = lived_in(ResidualNet())
A, B, T = domain("a"), domain("b", seed=1), domain("t", seed=2)
THINGS = (MODEL, STREAM, A, B, T)
ARRAY = np.random.default_rng(0).random((12, 3, 12, 12)).astype(np.float32)
SPLITS = {"train": range(4), "score": range(4, 8), "report": range(8, 12)}


def study() -> dg.Study:
    return dg.Study(MODEL, sources=[A, B], targets=[T])


def mask(of: dg.Study | None = None) -> dg.Mask:
    return dg.allocate((of or study()).score("l1"), ratio=0.5)


def explored() -> None:
    explorer = dg.Explorer(study(), scorer="l1")
    explorer.ratio = 0.5
    assert len(explorer.table)
    explorer.close()


OPTIONS = dg.TrainingOptions(epochs=1, batch_size=8)
CALLS: dict[str, Callable[[Path], Any]] = {
    "Study": lambda _: (study(), dg.Study(STREAM, sources=[A])),
    "Study, all layers": lambda _: dg.Study(MODEL, sources=[A], layers="all"),
    "score": lambda _: study().score_all(["l1", "bn_scale", "taylor", "dss", "random", "risk_variance", "fpgm"]),
    "score by gradients": lambda _: study().score_all(["sensitivity", "gradient_snr", "taylor_weight", "gc_net"]),
    "outcomes": lambda _: study().outcomes(mask(), domain="t"),
    "statistics": lambda _: study().statistics("a", needs=["mean_map", "moments", "gate"]),
    "prune": lambda _: dg.prune(MODEL, mask()),
    "masked": lambda _: dg.masked(MODEL, mask())(A.images[:2]),
    "measure": lambda _: dg.measure(MODEL, [A, T]),
    "evaluate": lambda _: dg.evaluate(STREAM, A),
    "recalibrate": lambda _: dg.recalibrate(STREAM, [A]),
    "sweep": lambda _: dg.sweep(study(), scorers=["l1", "random"], ratios=[0.5], seeds=2),
    "drop": lambda _: dg.diagnostics.drop(study(), scorers=["l1"], ratios=[0.5]),
    "stability": lambda _: dg.diagnostics.stability(study(), scorers=["taylor"]),
    "flips": lambda _: dg.diagnostics.flips(study(), scorers=["l1"], ratios=[0.5]),
    "prunability": lambda _: dg.diagnostics.prunability(study(), step=0.25),
    "flatness": lambda _: dg.diagnostics.flatness(study(), images=4, steps=(), draws=2),
    "feature_shift": lambda _: dg.diagnostics.feature_shift(study(), embedding="linear", ratios=[0.5]),
    "attributions": lambda _: dg.diagnostics.attribution_maps(study(), domain="a", layer="0"),
    "generalization": lambda _: dg.diagnostics.generalization_measures(study()),
    "train": lambda _: dg.train_with_pruning(MODEL, sources=[A], schedule=None, options=OPTIONS),
    "prune_and_tune": lambda _: dg.prune_and_tune(study(), "l1", ratio=0.5, epochs=1, options=OPTIONS),
    "save": lambda folder: dg.save(dg.prune(MODEL, mask()), folder / "net"),
    "gc_net": lambda _: dg.gc_net(study()),
    "chart": lambda _: dg.charts.svg(dg.charts.sweep(dg.sweep(study(), scorers=["l1"], ratios=[0.0, 0.5]))),
    "explorer": lambda _: explored(),
    "from_arrays": lambda _: dg.Domain.from_arrays("x", images=ARRAY, splits=SPLITS),
    "shifts": lambda _: [shift(A) for shift in dg.data.SHIFTS.values()],
    "digits": lambda _: (dg.data.mnist.__wrapped__(), dg.data.mnist_m.__wrapped__()),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_changes_nothing(call: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    with unchanged(*THINGS, ARRAY), warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.DgpruneNote)
        CALLS[call](tmp_path)


def change_generator() -> None:
    random.random()


CHANGES: dict[str, Callable[[], Any]] = {
    "generator of torch": lambda: torch.rand(1),
    "generator of numpy": lambda: np.random.rand(1),
    "generator of Python": change_generator,
    "warnings": lambda: warnings.simplefilter("ignore"),
    "gradients": lambda: torch.set_grad_enabled(False),
    "tensor 0.weight": lambda: MODEL[0].weight.data.add_(1),  # type: ignore[index]
    "grad 0.weight": lambda: MODEL[0].weight.grad.add_(1),  # type: ignore[index]
    "module 1": lambda: MODEL[1].eval(),  # type: ignore[index]
    "images": lambda: A.images.add_(0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_would_be_noticed(name: str) -> None:
    grad = torch.is_grad_enabled()
    saved = {key: value.clone() for key, value in MODEL.state_dict().items()}
    before, with_grad = random.getstate(), MODEL[0].weight.grad.clone()  # type: ignore[index]
    try:
        with warnings.catch_warnings(), pytest.raises(AssertionError, match=f"changed: .*{name}"), unchanged(MODEL, A):
            CHANGES[name]()
    finally:
        torch.set_grad_enabled(grad)
        MODEL.load_state_dict(saved)
        MODEL[0].weight.grad.copy_(with_grad)  # type: ignore[index]
        MODEL[1].train()  # type: ignore[index]
        random.setstate(before)
