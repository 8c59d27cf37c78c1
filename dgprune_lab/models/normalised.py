"""A normalisation put before a network that expects normalised images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import nn

from ..core import DgpruneError, provenance_of, public, set_provenance
from .building import Normalise

Normalisation = Literal["imagenet"] | tuple[float | Sequence[float], float | Sequence[float]]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
    for within in model.modules():
        if isinstance(within, Normalise) and bool((within.mean != 0).any() or (within.std != 1).any()):
            raise DgpruneError(
                f"normalise: the network normalises its images already, by {within.extra_repr()}, and would do it "
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
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    network = nn.Sequential(OrderedDict(normalise=first if like is None else first.to(like), network=model))
    network.training = first.training = model.training
    set_provenance(network, provenance_of(model))
    return network
