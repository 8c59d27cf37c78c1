"""What training does to its images at random, so that a network learns to look past it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

Augmentation = Callable[[Tensor, Generator], Tensor]


def none(images: Tensor, generator: Generator) -> Tensor:
    """The images as they are; the generator is not advanced."""
    return images


def random_invert_colour(images: Tensor, generator: Generator) -> Tensor:
    """Each image inverted with probability 1/2, then given random colours with probability 1/2, independently.

    Inversion is 1 - x. Colours are a foreground f and a background b, uniform in [0, 1] per channel and image:
    x * f + (1 - x) * b. Both are made per image, not per batch.

    Args:
        images: (B, C, H, W) float in [0, 1].
        generator: the only source of chance; draws are made on its device, 2 + 2 * C numbers an image.

    Returns:
        (B, C, H, W) in [0, 1], a new tensor.

    Source: ours, for the demo network; colour jitter between two tints in the manner of coloured MNIST.
    """
    count, channels = images.shape[:2]
    chance = torch.rand(count, 2 + 2 * channels, generator=generator, device=generator.device).to(images)
    invert = chance[:, 0, None, None, None] < 0.5
    colour = chance[:, 1, None, None, None] < 0.5
    front, back = chance[:, 2:, None, None].split(channels, dim=1)
    turned = torch.where(invert, 1 - images, images)
    return torch.where(colour, torch.lerp(back, front, turned), turned)


def random_crop_flip(images: Tensor, generator: Generator) -> Tensor:
    """Each image shifted by up to 4 pixels (black comes in) and mirrored left to right with probability 1/2.

    Args:
        images: (B, C, H, W) float in [0, 1], of at least 8 pixels a side; meant for photographs of 32 x 32.
        generator: the only source of chance; draws are made on its device, 3 numbers an image.

    Returns:
        (B, C, H, W), a new tensor.

    Source: the usual training of CIFAR-10: He et al., Deep Residual Learning for Image Recognition, CVPR 2016,
    section 4.2.
    """
    edge = 4
    count, _, height, width = images.shape
    chance = torch.rand(count, 3, generator=generator, device=generator.device).to(images.device)
    down, across = (chance[:, :2] * (2 * edge + 1)).long().clamp_(max=2 * edge).unbind(1)
    columns = torch.arange(width, device=images.device).expand(count, width)
    columns = torch.where(chance[:, 2, None] < 0.5, columns.flip(1), columns) + across[:, None]
    rows = torch.arange(height, device=images.device) + down[:, None]
    padded = torch.nn.functional.pad(images, (edge,) * 4)
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": none,
    "invert_colour": random_invert_colour,
    "crop_flip": random_crop_flip,
}
"""By the name a checkpoint's card records."""
