"""Networks and tasks for the tests of the zoo, in a module that a child process can import quickly."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from torch import Tensor, nn


def good() -> nn.Module:
    """Two convolutions; the last BatchNorm starts at zero, so without random values nothing would reach the end."""
    norm = nn.BatchNorm2d(6)
    nn.init.zeros_(norm.weight)
    body = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), norm, nn.Sigmoid()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


class Normalised(nn.Module):
    """A convolution whose channels are divided by their mean, which ties them all: it cannot be pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.GroupNorm(1, 8), nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(images))).mean((2, 3))


class Slow(nn.Module):
    """Never ends."""

    def forward(self, images: Tensor) -> Tensor:
        while True:
            images = images + 1


def unbuildable() -> nn.Module:
    raise KeyError("no such weights")


def hang(argument: Any, stage: Any) -> dict[str, Any]:
    stage("read")
    time.sleep(3600)
    return {}


def spin(argument: Any, stage: Any) -> dict[str, Any]:
    stage("read")
    while True:
        pass


def spin_and_say(argument: Any, stage: Any) -> dict[str, Any]:
    print(os.getpid(), flush=True)
    return spin(argument, stage)


def grow(argument: Any, stage: Any) -> dict[str, Any]:
    stage("read")
    kept = []
    for _ in range(argument):
        kept.append(torch.ones(4 * 2**20 // 4))
        time.sleep(0.01)
    return {"blocks": len(kept)}


def die(argument: Any, stage: Any) -> dict[str, Any]:
    stage("read")
    os._exit(3)


def fail(argument: Any, stage: Any) -> dict[str, Any]:
    stage("read")
    raise KeyError(argument)
