"""At which positions of one image do a layer's strongest filters contribute?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core import Count, DgpruneError, Whole, public
from ..study import Study
from ._attributions import attributor, rows_of


class AttributionMaps(NamedTuple):
    """One image, repeated, with a map per filter; `charts.overlays(images, maps, words=labels)` draws them.

    Attributes:
        images: (K, C, H, W) in [0, 1].
        maps: (K, h, w), contribution to the logit of the true class: positive for the class, negative against it.
        labels: text under each map: the filter and the sum of its map.
    """

    images: Tensor
    maps: Tensor
    labels: list[str]


@public
def attribution_maps(
    study: Study, *, domain: str, layer: str, image: Whole = 0, filters: Count = 6, split: str = "score"
) -> AttributionMaps:
    """Return the maps of gradient x activation of the filters that contribute most to one image's true class.

    Args:
        study: the network and its domains.
        domain: name of a domain with labels.
        layer: name of a group of filters.
        image: index of the image in the split.
        filters: number of filters to show: those whose map has the sum of largest magnitude, largest first.
        split: the split that the image comes from.

    Raises:
        DgpruneError: an unknown domain, layer or split; a domain without labels; an image that does not exist.

    Source: Shrikumar et al. 2016, arXiv:1605.01713 (gradient times input, at a hidden layer), by Captum.
    """
    rows = rows_of(study.domain(domain), split)
    if not 0 <= image < len(rows):
        raise DgpruneError(f"image must be 0 to {len(rows) - 1} in {split!r} of {domain!r}; got {image}.")
    if study.domain(domain).labels is None:
        raise DgpruneError(f"domain {domain!r} has no labels; attributions are to the logit of the true class.")
    batch = study.domain(domain).take(rows[image : image + 1], device=study.device)
    captum, method = attributor(study), "gradient_x_activation"
    values = captum.values(batch, method=method, layers=[layer])[layer][0]
    strongest = values.abs().argsort(descending=True)[:filters].tolist()
    maps = torch.cat([captum.maps(batch, method=method, layer=layer, filter=k) for k in strongest])
    labels = [f"filter {k}: {values[k]:+.2f}" for k in strongest]
    return AttributionMaps(batch.images.cpu().repeat(len(strongest), 1, 1, 1), maps.cpu(), labels)
