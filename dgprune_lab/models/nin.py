"""Network in network: the small networks on which measures of generalisation are usually compared."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from ..core import DgpruneError, Probability, Seed, public
from .building import Classes, Layers, Normalise, PerChannel, Widths, add_head, builder, seeded


@public
@builder
def nin(
    *,
    classes: Classes = 10,
    mean: PerChannel = 0.0,
    std: PerChannel = 1.0,
    widths: Widths = (32, 32),
    dropout: Probability = 0.0,
    seed: Seed = 0,
) -> nn.Sequential:
    """Build a network in network for images of any size: blocks of a 3 x 3 and two 1 x 1 convolutions, then the mean.

    `widths` holds the filters of each block's three convolutions, so its length is the number of blocks. The first
    convolution of a block has stride 2, a ReLU follows every convolution, and dropout ends the block. There is no
    BatchNorm, so the size of a weight means the same in every layer. The last linear layer takes the mean over the map,
    which equals a 1 x 1 convolution followed by the mean. Initial weights: normal, scaled for ReLU (He et al. 2015).

    Source: blocks after Lin et al. 2013, Network In Network, arXiv:1312.4400, in the form of Jiang et al. 2019,
    Fantastic Generalization Measures, arXiv:1912.02178, whose networks normalise and have other widths.
    """
    if not widths:
        raise DgpruneError("nin needs at least one width, that of its first block; got ().")
    layers: Layers = OrderedDict(normalise=Normalise(mean=mean, std=std))
    with seeded(seed):
        for number, (channels, width) in enumerate(pairwise((3, *widths)), start=1):
            for position, (inputs, size) in enumerate(((channels, 3), (width, 1), (width, 1)), start=1):
                conv = nn.Conv2d(inputs, width, size, stride=2 if size == 3 else 1, padding=size // 2)
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
                layers[f"conv{number}_{position}"], layers[f"relu{number}_{position}"] = conv, nn.ReLU()
            layers[f"dropout{number}"] = nn.Dropout(dropout)
        return add_head(layers, widths[-1], classes)
