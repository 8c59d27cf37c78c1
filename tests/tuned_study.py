"""A small study and a quick tuning, for tests."""

from __future__ import annotations

from typing import Any

import torch
from material import domain, plain_net, randomise
from torch import nn

import dgprune_lab as dg

QUICK = dg.TrainingOptions(epochs=2, batch_size=8, lr=0.05, momentum=0.9, weight_decay=0.05, schedule="constant")


def study(net: nn.Module | None = None, **changed: Any) -> dg.Study:
    sources = [domain("a", count=60), domain("b", count=48, seed=1)]
    given = net or randomise(plain_net(), dtype=torch.float32)
    return dg.Study(given, **{"sources": sources, "targets": [domain("t", count=60, seed=2)], **changed})


def tuned(given: dg.Study, scorer: Any = "l1", **changed: Any) -> dg.Tuned:
    return dg.prune_and_tune(given, scorer, **{"ratio": 0.5, "epochs": 2, "options": QUICK, **changed})


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())
