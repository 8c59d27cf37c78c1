"""A network whose connections are known by hand: 1 x 1 convolutions on images that are flat in every channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import dgprune_lab as dg


def flat(name: str, values: Tensor, *, labels: Tensor | None, **kinds: Any) -> dg.Domain:
    """A domain of 4 x 4 images with one value per channel; score, train and report are thirds."""
    count = len(values)
    third = count // 3
    parts = {"score": range(third), "train": range(third, 2 * third), "report": range(2 * third, count)}
    pixels = values.clamp(0, 1).float()[:, :, None, None].expand(-1, -1, 4, 4).contiguous()
    return dg.Domain.from_arrays(name, images=pixels, labels=labels, splits=parts, **kinds)


def values(count: int, *, seed: int = 0, shift: Tensor | None = None) -> Tensor:
    """(count, 3) independent numbers around .5; `shift` is added to every channel."""
    found = 0.5 + 0.1 * torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return found if shift is None else found + shift[:, None]


def linear_net(second: Sequence[Sequence[float]], *, outputs: int = 4) -> nn.Sequential:
    """Filter i of the first convolution is channel i; the second convolution's kernels are given."""
    rows = torch.tensor(second)
    net = nn.Sequential(
        nn.Conv2d(3, 3, 1, bias=False),
        nn.Conv2d(3, len(rows), 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(len(rows), outputs),
    )
    with torch.no_grad():
        first, second_layer, head = (net[k] for k in (0, 1, 4))
        for layer, weight in (
            (first, torch.eye(3)[:, :, None, None]),
            (second_layer, rows[:, :, None, None]),
            (head, torch.randn(outputs, len(rows), generator=torch.Generator().manual_seed(1))),
        ):
            layer.weight.copy_(weight)  # type: ignore[operator, union-attr]
            if layer.bias is not None:
                layer.bias.fill_(0.3)  # type: ignore[operator, union-attr]
    return net.eval()
