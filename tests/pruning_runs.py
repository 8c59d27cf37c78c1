"""A small training with pruning, for tests: a network that learns to read four plain shades, in a second."""

from __future__ import annotations

from typing import Any

import torch
from material import ResidualNet, norm_net
from torch import nn

import dgprune_lab as dg
from dgprune_lab.core.domain import Domain

QUICK = dg.TrainingOptions(epochs=4, batch_size=16, lr=0.05, momentum=0.9, weight_decay=0.01, schedule="constant")
EVERY = dg.PruneSchedule.everywhere(start=1, end=3, every=1, ratio=0.5)


def shades(name: str, *, count: int = 120, noise: float = 0.2, seed: int = 0, classes: int = 4) -> Domain:
    """Images of one grey value each; the class is the grey value, so a few epochs are enough to read them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    pixels = labels[:, None, None, None] / classes + noise * torch.rand(count, 3, 12, 12, generator=generator)
    third = count // 3
    parts = {"train": range(third), "score": range(third, 2 * third), "report": range(2 * third, count)}
    splits = {key: list(rows) for key, rows in parts.items()}
    return Domain.from_arrays(name, images=pixels.clamp(0, 1), labels=labels, splits=splits, classes=classes)


def fresh(kind: type[nn.Module] | Any = norm_net, *, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind()


def trained(network: nn.Module | None = None, **changed: Any) -> dg.PruningRun:
    given = {"sources": [shades("a")], "targets": [shades("t", noise=0.4, seed=1)], "schedule": EVERY, "options": QUICK}
    return dg.train_with_pruning(fresh() if network is None else network, **{**given, **changed})


def steps(network: nn.Module | None = None, **changed: Any) -> Any:
    given = {"sources": [shades("a")], "targets": [shades("t", noise=0.4, seed=1)], "schedule": EVERY, "options": QUICK}
    return dg.train_with_pruning.steps(fresh() if network is None else network, **{**given, **changed})


def same_runs(one: dg.PruningRun, other: dg.PruningRun) -> bool:
    """Whether two runs are the same to the bit: network, tables, masks."""
    first, second = one.network.state_dict(), other.network.state_dict()
    tensors = first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())
    tables = all(getattr(one, name).equals(getattr(other, name)) for name in ("table", "events", "end"))
    return tensors and tables and one.filters.key == other.filters.key


__all__ = ["EVERY", "QUICK", "ResidualNet", "fresh", "same_runs", "shades", "steps", "trained"]
