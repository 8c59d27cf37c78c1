"""Shared parts of the network builders: the normalising first module, last layers, seeds, recorded options."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..core import Count, DgpruneError, Provenance, Within, provenance_of, public, set_provenance

PerChannel = float | Sequence[float]
Widths = Sequence[Count]
Classes = Annotated[int, Within("lie in 1 to 100,000", lambda value: 1 <= value <= 100_000)]
Layers = OrderedDict[str, nn.Module]
Builder = Callable[..., nn.Module]
Built = TypeVar("Built", bound=Builder)
Normalisation = Literal["imagenet"] | tuple[PerChannel, PerChannel]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def builder(function: Built) -> Built:
    """Wrap a builder to build on the CPU, whatever the default device, and to record its options for `dg.load`."""

    @functools.wraps(function)
    def built(**options: Any) -> nn.Module:
        with torch.device("cpu"):
            model = function(**options)
        arrays = {k: v.cpu() if isinstance(v, Tensor) else np.asarray(v) for k, v in options.items()}
        plain = {name: array.tolist() for name, array in arrays.items()}
        model.dgprune_builder = (function.__name__, plain)  # type: ignore[assignment]
        return model

    return cast(Built, built)


@public
class Normalise(nn.Module):
    """The first module of every network: (x - mean) / std per channel, with statistics of the source images.

    Attributes:
        mean: buffer (channels,), in the units of the images, [0, 1].
        std: buffer (channels,), the same units, positive.

    Raises:
        DgpruneError: neither one value nor one per channel; a std that is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, mean: PerChannel = 0.0, std: PerChannel = 1.0, channels: Count = 3) -> None:
        super().__init__()
        self.register_buffer("mean", _per_channel("mean", mean, channels))
        self.register_buffer("std", _per_channel("std", std, channels))
        if not bool((self.std > 0).all()):
            raise DgpruneError(f"std must be positive in every channel; got {self.std.tolist()}.")

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (B, C, H, W) in [0, 1]: on the sources, mean about 0 and variance about 1."""
        return (images - self.mean[:, None, None]) / self.std[:, None, None]

    def extra_repr(self) -> str:
        return f"mean={[round(v, 4) for v in self.mean.tolist()]}, std={[round(v, 4) for v in self.std.tolist()]}"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's CPU generator with `seed` within the block, and restore its state afterwards.

    A GPU's generator is not used: initial weights are drawn on the CPU, so they are the same on every machine.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def add_head(layers: Layers, width: int, classes: int, *, average: bool = True) -> nn.Sequential:
    """Add the mean over the map (if `average`) and the linear head, and return the network."""
    if average:
        layers["mean"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(width, classes)
    return mark_untrained(nn.Sequential(layers))


def mark_untrained(network: nn.Sequential) -> nn.Sequential:
    """Set a provenance without any training data, and return the network."""
    set_provenance(network, Provenance(training={}))
    return network


def check_count(name: str, values: Widths, count: int) -> None:
    if len(values) != count or min(values) < 1:
        raise DgpruneError(f"{name} takes {count} widths of at least 1; got {tuple(values)}.")


def _per_channel(name: str, value: PerChannel, channels: int) -> Tensor:
    values = torch.as_tensor(value, dtype=torch.float32, device="cpu").flatten()
    if len(values) not in (1, channels):
        raise DgpruneError(f"{name} takes one number or {channels}, one per channel; got {len(values)}.")
    return values.expand(channels).clone()


@public
def normalised(model: nn.Module, normalise: Normalisation, *, channels: int = 3) -> nn.Sequential:
    """Return a network that takes images in [0, 1], normalises them and passes them to `model`.

    The first module is a `Normalise`, (x - mean) / std per channel; the second is `model` itself, shared and unchanged.
    It is saved and loaded like any network: `dg.load(path, model=dg.models.normalised(fresh, "imagenet"))`.

    Args:
        model: a network that expects normalised images, as those of torchvision, timm and DomainBed do.
        normalise: (mean, std), each a number or one per channel, in the units of the images; or "imagenet", mean
            (.485, .456, .406) and standard deviation (.229, .224, .225).
        channels: number of channels of the images.

    Raises:
        DgpruneError: another number of means than channels, a mean or standard deviation above 1, a standard deviation
            that is not positive; a network that normalises its images already.
    """
    for module in model.modules():
        if isinstance(module, Normalise) and bool((module.mean != 0).any() or (module.std != 1).any()):
            raise DgpruneError(
                f"normalise: the network normalises its images already, by {module.extra_repr()}, and would do it "
                "twice. Leave normalise out."
            )
    mean, std = IMAGENET if normalise == "imagenet" else normalise
    for name, values in (("mean", mean), ("std", std)):
        if not isinstance(values, int | float) and len(values) not in (1, channels):
            raise DgpruneError(
                f"normalise: the images have {channels} channels, so {name} needs one number or {channels}; "
                f"got {len(values)}."
            )
        largest = max([values] if isinstance(values, int | float) else values)
        if largest > 1:
            raise DgpruneError(
                f"normalise: images lie in [0, 1], so {name} lies there too; got {largest:g}. Divide values that are "
                "meant for pixels of 0 to 255 by 255."
            )
    first = Normalise(mean=mean, std=std, channels=channels)
    reference = next((p for p in model.parameters() if p.is_floating_point()), None)
    network = nn.Sequential(OrderedDict(normalise=first if reference is None else first.to(reference), network=model))
    network.training = first.training = model.training
    set_provenance(network, provenance_of(model))
    return network
