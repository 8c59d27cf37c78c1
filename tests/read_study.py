"""Small networks that classify their images, so that the cost of removal is not hidden by guessing."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from material import images, norm_net, randomise

import dgprune_lab as dg


def lively(net: Any, *, seed: int) -> torch.nn.Sequential:
    """A random network that predicts every class about equally often."""
    model = randomise(net(), dtype=torch.float32, seed=seed).eval()
    head = model[-1]
    with torch.no_grad():
        logits = model(images(500, 3, 12, 12, seed=9))
        head.weight /= logits.std(0)[:, None]
        head.bias.copy_((head.bias - logits.mean(0)) / logits.std(0))
    return model


def read_domain(model: torch.nn.Module, name: str, *, seed: int, count: int = 600, wrong: int = 0) -> dg.Domain:
    """Labels are the predictions of the network, except for the first `wrong` images of the report split."""
    x = images(count, 3, 12, 12, seed=seed)
    with torch.no_grad():
        labels = model.eval()(x).argmax(1)
    parts = {"train": range(count // 3), "score": range(count // 3, count // 2), "report": range(count // 2, count)}
    labels[count // 2 : count // 2 + wrong] = (labels[count // 2 : count // 2 + wrong] + 1) % 4
    splits = {key: list(rows) for key, rows in parts.items()}
    return dg.Domain.from_arrays(name, images=x, labels=labels, splits=splits, classes=4)


def read_study(name: str = "study", *, seed: int = 3, net: Any = norm_net) -> dg.Study:
    model = lively(net, seed=seed)
    first, second = read_domain(model, "a", seed=1), read_domain(model, "t", seed=2, wrong=60)
    return dg.Study(model, sources=[first], targets=[second], name=name)


def only_row(frame: pd.DataFrame, **cells: Any) -> Any:
    for name, value in cells.items():
        frame = frame.loc[frame[name] == value]
    assert len(frame) == 1, frame
    return frame.iloc[0]
