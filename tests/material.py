"""What the core's tests are made of: small networks, random weights, random domains, and a fingerprint of a network."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.domain import Domain
from dgprune_lab.core.graph import FilterGraph
from dgprune_lab.core.masks import Mask
from dgprune_lab.pruning import deep_copy

FLOOR = 0.5
Net = TypeVar("Net", bound=nn.Module)


def randomise(model: Net, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Net:
    """Random weights and random BatchNorm statistics, in place, eval mode: no scale is zero, no statistic is fresh."""
    generator = torch.Generator().manual_seed(seed)
    model.to(dtype).eval()
    with torch.no_grad():
        for module in model.modules():
            for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if not tensor.is_floating_point():
                    continue
                normal = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(dtype)
                if tensor.ndim > 1:
                    tensor.copy_(normal * (2 / max(1, tensor[0].numel())) ** 0.5)
                elif name == "running_var" or (name == "weight" and tensor.ndim == 1):
                    tensor.copy_(FLOOR + normal.abs())
                elif name in ("bias", "running_mean"):
                    tensor.copy_(0.3 * normal)
    return model


def images(count: int, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """(count, *shape) uniform in [0, 1]."""
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def domain(
    name: str,
    *,
    count: int = 60,
    shape: tuple[int, int, int] = (3, 12, 12),
    classes: int = 4,
    seed: int = 0,
    labelled: bool = True,
    splits: dict[str, Any] | None = None,
) -> Domain:
    """Random images with random labels; train, score and report are thirds in a fixed order."""
    labels = torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed + 1000))
    labels[:classes] = torch.arange(classes)
    third = count // 3
    parts = {"train": range(third), "score": range(third, 2 * third), "report": range(2 * third, count)}
    return Domain.from_arrays(
        name,
        images=images(count, *shape, seed=seed),
        labels=labels if labelled else None,
        splits=splits or {key: list(rows) for key, rows in parts.items()},
        classes=classes if labelled else None,
    )


def plain_net(classes: int = 4) -> nn.Sequential:
    """Two convolutions with bias, an in-place ReLU used twice, pooling, a flatten and two linear layers."""
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        relu,
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        relu,
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(72, 10),
        nn.ReLU(),
        nn.Linear(10, classes),
    )


def norm_net(classes: int = 4) -> nn.Sequential:
    """Two convolutions with BatchNorm and an in-place ReLU used twice."""
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        relu,
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        relu,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


class ResidualNet(nn.Module):
    """A stem, a block whose branch is added to the stream, and a projection added to one more convolution."""

    def __init__(self, classes: int = 4, *, shortcut_norm: bool = True) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.inner, self.inner_norm = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.outer, self.outer_norm = nn.Conv2d(5, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.last, self.last_norm = nn.Conv2d(6, 7, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(7)
        self.shortcut = nn.Conv2d(6, 7, 1, stride=2, bias=not shortcut_norm)
        self.shortcut_norm = nn.BatchNorm2d(7) if shortcut_norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(7, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem_norm(self.stem(x)))
        branch = self.outer_norm(self.outer(self.relu(self.inner_norm(self.inner(x)))))
        branch += x
        x = self.relu(branch)
        x = self.relu(self.last_norm(self.last(x)) + self.shortcut_norm(self.shortcut(x)))
        return self.head(x.mean((2, 3)))


class DepthwiseNet(nn.Module):
    """An expansion, a depthwise convolution and a projection, each with BatchNorm."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.expand, self.expand_norm = nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.depth, self.depth_norm = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6)
        self.project, self.project_norm = nn.Conv2d(6, 5, 1, bias=False), nn.BatchNorm2d(5)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(5, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.expand_norm(self.expand(x)))
        x = self.relu(self.depth_norm(self.depth(x)))
        x = self.relu(self.project_norm(self.project(x)))
        return self.head(x.mean((2, 3)))


def grouped_net(classes: int = 4) -> nn.Sequential:
    """A convolution read by one in two groups: its 8 filters are tied in pairs."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(12, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, classes),
    )


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything that must be as before: bytes, gradients, flags, hooks, types and the very tensors."""
    found: dict[str, Any] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        found[f"tensor {name}"] = (id(tensor), tensor.requires_grad, hashlib.blake2b(content).hexdigest(), tensor.dtype)
        grad = tensor.grad
        found[f"grad {name}"] = (
            None if grad is None else (id(grad), hashlib.blake2b(grad.numpy().tobytes()).hexdigest())
        )
    for name, module in model.named_modules():
        hooks = {key: tuple(held) for key, held in vars(module).items() if "hooks" in key and isinstance(held, dict)}
        found[f"module {name}"] = (id(module), type(module), module.training, repr(hooks), module.extra_repr())
    return found


def zeroed(model: nn.Module, mask: Mask) -> nn.Module:
    """A copy in which all entries of removed filters are zero, BatchNorm's variances aside."""
    twin, vector = deep_copy(model), mask.graph.vector(mask.keep)
    tensors = dict([*twin.named_parameters(), *twin.named_buffers()])
    with torch.no_grad():
        for name, axes in mask.graph.axes.items():
            for axis, ids in axes.items():
                if not name.endswith("running_var"):
                    tensors[name].index_fill_(axis, (~vector[ids]).nonzero().flatten(), 0)
    return twin


def random_mask(graph: FilterGraph, *, seed: int) -> Mask:
    """Between a tenth and nine tenths of each group's units, by chance."""
    generator = torch.Generator().manual_seed(seed)
    keep = {}
    for group in graph.groups:
        units = int(group.units.max()) + 1
        share = 0.1 + 0.8 * float(torch.rand((), generator=generator))
        gone = torch.randperm(units, generator=generator)[: int(share * units)]
        keep[group.name] = ~torch.isin(group.units, gone)
    return Mask(keep, 0.5, graph)


def few(study: dg.Study, *, images: int) -> dg.Study:
    """The study with the first images of each split."""
    parts = [
        [replace(d, splits={s: d.rows(s, images) for s in d.splits}) for d in p] for p in (study.sources, study.targets)
    ]
    return dg.Study(study.model, sources=parts[0], targets=parts[1], name=study.name)
