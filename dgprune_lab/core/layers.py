"""Kinds of layers that several modules distinguish."""

from __future__ import annotations

from torch import nn

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
BATCHNORM = nn.modules.batchnorm._BatchNorm


def is_depthwise(layer: nn.Module) -> bool:
    """Return whether a layer is a convolution with one filter per input channel."""
    return isinstance(layer, CONV) and layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels
