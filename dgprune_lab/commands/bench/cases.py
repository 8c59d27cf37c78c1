"""The networks, images and scores on which this toolkit and its peers are timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...core import Domain, FilterGraph, Scores, generator, preserved_rng
from ...data import load
from ...models.networks import lenet
from ...pruning import read_groups

CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network with its filter groups, and an image of the size on which it is timed."""

    name: str
    model: nn.Module
    graph: FilterGraph
    example: Tensor

    @property
    def layers(self) -> dict[str, int]:
        """Name of each group -> its number of filters."""
        return {group.name: group.filters for group in self.graph.groups}


def network(name: str) -> nn.Module:
    """Return a network with random weights (seed 0) in eval mode: "lenet", or a model of torchvision by its name."""
    if name == "lenet":
        return lenet(classes=CLASSES).eval()
    import torchvision

    with preserved_rng():
        torch.manual_seed(0)
        return torchvision.models.get_model(name, weights=None, num_classes=CLASSES).eval()


def case(name: str, *, pixels: int, device: torch.device) -> Case:
    """Return a network on a device, with its filter groups, as read with one image of `pixels` x `pixels`."""
    example = torch.rand((1, 3, pixels, pixels), generator=generator("bench", name)).to(device)
    model = network(name).to(device)
    return Case(name=name, model=model, graph=read_groups(model, example), example=example)


def random_scores(graph: FilterGraph, *, seed: int = 0) -> Scores:
    """Return Scores of one random number per filter."""
    values = {
        group.name: torch.rand(group.filters, generator=generator("bench", seed, group.name), dtype=torch.float64)
        for group in graph.groups
    }
    return Scores("random", values, graph, options={"seed": seed})


def domains(pixels: int, names: Sequence[str] = ("mnist", "mnist_m")) -> tuple[Domain, ...]:
    """Return built-in domains with images padded to `pixels` x `pixels` and converted to float, for us and the peer."""
    padded = [load(name).padded(pixels) for name in names]
    return tuple(replace(d, images=d.images.float() / 255) if d.images.dtype == torch.uint8 else d for d in padded)
