"""Reference networks, plain PyTorch: every step between two layers is a separate module.

Every builder takes `classes` (number of outputs), `mean` and `std` of the source images (one number or one per
channel), `widths` (filters of each convolution, or of each stage) and `seed` (random seed of the initial weights), and
raises a DgpruneError if the number of widths does not fit its network.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..core import Probability, Seed, public, unknown
from .building import (
    Builder,
    Classes,
    Layers,
    Normalise,
    PerChannel,
    Widths,
    add_head,
    builder,
    check_count,
    mark_untrained,
    seeded,
)
from .nin import nin

VGG11 = (64, 128, 256, 256, 512, 512, 512, 512)
RESNET18 = (64, 128, 256, 512)


@public
class Residual(nn.Module):
    """relu2(bn2(conv2(relu1(bn1(conv1(x))))) + shortcut(x)): the basic block of He et al. 2016, section 3.

    The shortcut is the identity, or a 1 x 1 convolution with BatchNorm where size or width change (their option B).
    """

    def __init__(self, entering: int, leaving: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(leaving)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(leaving, leaving, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(leaving)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or entering != leaving:
            self.shortcut = nn.Sequential(
                OrderedDict(conv=nn.Conv2d(entering, leaving, 1, stride=stride, bias=False), bn=nn.BatchNorm2d(leaving))
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, entering, H, W) to (B, leaving, H / stride, W / stride)."""
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(inner + self.shortcut(x))


@public
@builder
def digits_net(
    *,
    classes: Classes = 10,
    mean: PerChannel = 0.0,
    std: PerChannel = 1.0,
    widths: Widths = (24, 32, 48, 64, 64),
    gamma: float = 0.5,
    seed: Seed = 0,
) -> nn.Sequential:
    """Build five convolutions with BatchNorm for 3 x 28 x 28 images, as in `dg.demo()` and `dg.demo("fashion")`.

    5 x 5 stride 2, pool, 3 x 3, 3 x 3, pool, 3 x 3, 3 x 3, mean over the map, one linear layer: 28, 14, 7, 3 pixels.
    Every convolution is followed by BatchNorm and ReLU; the stride in the first layer keeps the cost below 5 million
    MACs per image. The BatchNorm scales start from `gamma`: 0.5 as in network slimming (Liu et al. 2017,
    arXiv:1708.06519, section 4.2), so that they reach 0 sooner.
    """
    check_count("digits_net", widths, 5)
    layers: Layers = OrderedDict(normalise=Normalise(mean=mean, std=std))
    with seeded(seed):
        _add_convolutions(layers, widths, pools=(1, 3), first=(5, 2))
        for layer in layers.values():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.constant_(layer.weight, gamma)
        return add_head(layers, widths[-1], classes)


@public
@builder
def lenet(
    *,
    classes: Classes = 10,
    mean: PerChannel = 0.0,
    std: PerChannel = 1.0,
    widths: Widths = (32, 48),
    hidden: Widths = (100, 100),
    seed: Seed = 0,
) -> nn.Sequential:
    """Build the network of the DSS paper for 3 x 28 x 28 digits: two convolutions, three linear layers, no BatchNorm.

    Twice 5 x 5 convolution padded by 2, ReLU, pool; then linear layers 2352 - 100 - 100 - 10 (`hidden` sets the inner
    two) with ReLU. The convolutions hold 40,880 parameters.

    Source: Sun 2023, arXiv:2306.13237, MNIST experiments.
    """
    check_count("lenet", widths, 2)
    check_count("lenet (hidden)", hidden, 2)
    with seeded(seed):
        layers: Layers = OrderedDict(
            normalise=Normalise(mean=mean, std=std),
            conv1=nn.Conv2d(3, widths[0], 5, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(widths[0], widths[1], 5, padding=2),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(widths[1] * 49, hidden[0]),
            relu3=nn.ReLU(),
            fc2=nn.Linear(hidden[0], hidden[1]),
            relu4=nn.ReLU(),
            head=nn.Linear(hidden[1], classes),
        )
    return mark_untrained(nn.Sequential(layers))


@public
@builder
def one_hidden_layer(
    *, classes: Classes = 10, mean: PerChannel = 0.0, std: PerChannel = 1.0, widths: Widths = (100,), seed: Seed = 0
) -> nn.Sequential:
    """Build one hidden layer with ReLU for 3 x 28 x 28 images: linear layers 2352 - 100 - 10, no BatchNorm."""
    check_count("one_hidden_layer", widths, 1)
    with seeded(seed):
        layers: Layers = OrderedDict(
            normalise=Normalise(mean=mean, std=std),
            flatten=nn.Flatten(),
            hidden=nn.Linear(3 * 28 * 28, widths[0]),
            relu=nn.ReLU(),
            head=nn.Linear(widths[0], classes),
        )
    return mark_untrained(nn.Sequential(layers))


@public
@builder
def vgg_small(
    *,
    classes: Classes = 10,
    mean: PerChannel = 0.0,
    std: PerChannel = 1.0,
    widths: Widths = (16, 32, 64, 64),
    dropout: Probability = 0.0,
    seed: Seed = 0,
) -> nn.Sequential:
    """Build four 3 x 3 convolutions with BatchNorm and ReLU, like a VGG, small enough to train often on a CPU.

    The first has stride 2, which cuts the time to a third; the first three are followed by a pool. Then the mean over
    the map, dropout and one linear layer. For 3 x 28 x 28 or 3 x 32 x 32 images: 0.9 million MACs per image of 32.
    """
    check_count("vgg_small", widths, 4)
    layers: Layers = OrderedDict(normalise=Normalise(mean=mean, std=std))
    with seeded(seed):
        _add_convolutions(layers, widths, pools=(1, 2, 3), first=(3, 2))
        layers["dropout"] = nn.Dropout(dropout)
        return add_head(layers, widths[-1], classes)


@public
@builder
def vgg11_bn_32(
    *, classes: Classes = 10, mean: PerChannel = 0.0, std: PerChannel = 1.0, widths: Widths = VGG11, seed: Seed = 0
) -> nn.Sequential:
    """Build VGG-11 with BatchNorm and one linear layer for 3 x 32 x 32 images (Simonyan & Zisserman 2015, net A)."""
    check_count("vgg11_bn_32", widths, 8)
    layers: Layers = OrderedDict(normalise=Normalise(mean=mean, std=std))
    with seeded(seed):
        _add_convolutions(layers, widths, pools=(1, 2, 4, 6, 8))
        return add_head(layers, widths[-1], classes, average=False)


@public
@builder
def resnet18_32(
    *, classes: Classes = 10, mean: PerChannel = 0.0, std: PerChannel = 1.0, widths: Widths = RESNET18, seed: Seed = 0
) -> nn.Sequential:
    """Build ResNet-18 for 3 x 32 x 32 images: a first 3 x 3 convolution and no first pool (He et al. 2016, table 1)."""
    check_count("resnet18_32", widths, 4)
    return _resnet(widths, blocks=2, classes=classes, normalise=Normalise(mean=mean, std=std), seed=seed)


@public
@builder
def resnet20(
    *,
    classes: Classes = 10,
    mean: PerChannel = 0.0,
    std: PerChannel = 1.0,
    widths: Widths = (16, 32, 64),
    seed: Seed = 0,
) -> nn.Sequential:
    """Build ResNet-20 for 3 x 32 x 32 images: 3 stages of 3 blocks, shortcut option B (He et al. 2016, section 4.2)."""
    check_count("resnet20", widths, 3)
    return _resnet(widths, blocks=3, classes=classes, normalise=Normalise(mean=mean, std=std), seed=seed)


BUILDERS: Mapping[str, Builder] = {
    network.__name__: network
    for network in (digits_net, lenet, nin, one_hidden_layer, vgg_small, vgg11_bn_32, resnet18_32, resnet20)
}


@public
def build(name: str, **options: Any) -> nn.Module:
    """Build a new network by its name in `BUILDERS`; the options are the builder's own keywords.

    The initial weights depend on `seed` alone, and the global random state is left as it was.

    Raises:
        DgpruneError: an unknown name, or an option the builder does not have.

    >>> build("lenet", seed=3).head
    Linear(in_features=100, out_features=10, bias=True)
    """
    if name not in BUILDERS:
        raise unknown("network", name, BUILDERS)
    known = inspect.signature(BUILDERS[name]).parameters
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    return BUILDERS[name](**options)


def _add_convolutions(layers: Layers, widths: Widths, *, pools: Sequence[int], first: tuple[int, int] = (3, 1)) -> None:
    """Add convolutions with BatchNorm and ReLU, 3 x 3 except the `first` (size, stride), some followed by a pool."""
    channels = 3
    for number, width in enumerate(widths, start=1):
        size, stride = first if number == 1 else (3, 1)
        layers[f"conv{number}"] = nn.Conv2d(channels, width, size, stride=stride, padding=size // 2, bias=False)
        layers[f"bn{number}"] = nn.BatchNorm2d(width)
        layers[f"relu{number}"] = nn.ReLU()
        if number in pools:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        channels = width


def _resnet(widths: Widths, *, blocks: int, classes: int, normalise: Normalise, seed: int) -> nn.Sequential:
    """Build a first convolution and stages of residual blocks; from stage 2 on, the first block has stride 2."""
    layers: Layers = OrderedDict(normalise=normalise)
    with seeded(seed):
        _add_convolutions(layers, widths[:1], pools=())
        channels = widths[0]
        for stage, width in enumerate(widths, start=1):
            strides = [1 if stage == 1 else 2] + [1] * (blocks - 1)
            inputs = [channels] + [width] * (blocks - 1)
            layers[f"layer{stage}"] = nn.Sequential(
                *(Residual(size, width, stride=stride) for size, stride in zip(inputs, strides, strict=True))
            )
            channels = width
        return add_head(layers, channels, classes)
