"""Random augmentation of training images, by the name that a checkpoint's card records.

Each is f(images, generator) -> images: from (B, C, H, W) float in [0, 1] to a new tensor of the same shape, with random
numbers drawn per image on the generator's device. The transforms of torchvision draw once per batch from the
global generator, so a training run with them could not be repeated while other code draws too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

Augmentation = Callable[[Tensor, Generator], Tensor]


def none(images: Tensor, generator: Generator) -> Tensor:
    """Return the images unchanged; the generator is not advanced."""
    return images


def random_invert_colour(images: Tensor, generator: Generator) -> Tensor:
    """Invert each image with probability 1/2, then give it random colours with probability 1/2, independently.

    Inversion is 1 - x. Colours are a foreground f and a background b, uniform in [0, 1] per channel and image:
    x * f + (1 - x) * b. 2 + 2 * C numbers are drawn per image.

    Source: ours, for the demo network; colour jitter between two tints in the manner of coloured MNIST.
    """
    count, channels = images.shape[:2]
    uniform = torch.rand(count, 2 + 2 * channels, generator=generator, device=generator.device).to(images)
    inverted = uniform[:, 0, None, None, None] < 0.5
    coloured = uniform[:, 1, None, None, None] < 0.5
    front, back = uniform[:, 2:, None, None].split(channels, dim=1)
    images = torch.where(inverted, 1 - images, images)
    return torch.where(coloured, torch.lerp(back, front, images), images)


def random_crop_flip(images: Tensor, generator: Generator) -> Tensor:
    """Shift each image by up to 4 pixels (filling with black) and mirror it left to right with probability 1/2.

    Meant for photographs of 32 x 32; images must be at least 8 x 8. 3 numbers are drawn per image.

    Source: the usual training of CIFAR-10: He et al., Deep Residual Learning for Image Recognition, CVPR 2016,
    section 4.2.
    """
    edge = 4
    count, _, height, width = images.shape
    uniform = torch.rand(count, 3, generator=generator, device=generator.device).to(images.device)
    down, across = (uniform[:, :2] * (2 * edge + 1)).long().clamp_(max=2 * edge).unbind(1)
    columns = torch.arange(width, device=images.device).expand(count, width)
    columns = torch.where(uniform[:, 2, None] < 0.5, columns.flip(1), columns) + across[:, None]
    rows = torch.arange(height, device=images.device) + down[:, None]
    padded = torch.nn.functional.pad(images, (edge,) * 4)
    index = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": none,
    "invert_colour": random_invert_colour,
    "crop_flip": random_crop_flip,
}
