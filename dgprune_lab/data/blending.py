"""The recipe of MNIST-M: digits blended with patches of colour photographs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..core import DgpruneError

SIZE = 32
"""Height and width of a published MNIST-M image; the digit inside is 28 x 28."""
_EDGE = (SIZE - 28) // 2

Bytes = NDArray[np.uint8]


def blend_patch(digit: Bytes, patch: Bytes) -> Bytes:
    """Make one MNIST-M image from one digit and one patch of a photograph.

    The digit is padded by two zeros on each side and made binary (1 where it is above 0); then, per pixel and channel,
    image = |patch - 255 * digit|: the patch outside the strokes, its negative (255 - patch) inside.

    Args:
        digit: (28, 28) uint8.
        patch: (32, 32, 3) uint8.

    Returns:
        (32, 32, 3) uint8, a new array.

    Raises:
        DgpruneError: an array of another shape or type.

    Source: Ganin & Lempitsky, Unsupervised Domain Adaptation by Backpropagation, ICML 2015, section 4.1, and
    Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 17(59), 2016, section 5.2.4. Padding and
    threshold are not in the papers; they are what reproduces the published images byte for byte (tested).

    >>> digit, patch = np.zeros((28, 28), np.uint8), np.full((32, 32, 3), 200, np.uint8)
    >>> digit[0, 0] = 1
    >>> blend_patch(digit, patch)[2, 1:4, 0].tolist()
    [200, 55, 200]
    """
    if digit.shape != (28, 28) or patch.shape != (SIZE, SIZE, 3) or digit.dtype != np.uint8 or patch.dtype != np.uint8:
        raise DgpruneError(
            "blend_patch needs a uint8 digit of (28, 28) and a uint8 patch of (32, 32, 3); "
            f"got {digit.dtype} {digit.shape} and {patch.dtype} {patch.shape}."
        )
    return _difference(digit[None], patch[None])[0]


def blend(digits: Bytes, photographs: Sequence[Bytes], *, seed: int) -> Bytes:
    """Make MNIST-M images: each digit on a patch of a photograph drawn at random.

    Photograph and position are drawn uniformly from a private generator; the draw for digit i depends on `seed` and
    i alone.

    Args:
        digits: (N, 28, 28) uint8.
        photographs: colour photographs, (H, W, 3) uint8, at least 32 x 32; sizes may differ.
        seed: random seed of the draws.

    Returns:
        (N, 32, 32, 3) uint8, the layout of the published files.

    Raises:
        DgpruneError: an array of another shape or type, no photograph, a photograph that is too small.

    Source: as `blend_patch`. The published set draws from the 200 BSDS500 training photographs.
    """
    if digits.ndim != 3 or digits.shape[1:] != (28, 28) or digits.dtype != np.uint8:
        raise DgpruneError(f"blend needs uint8 digits of (N, 28, 28); got {digits.dtype} {digits.shape}.")
    return _difference(digits, random_patches(photographs, count=len(digits), size=SIZE, seed=seed))


def random_patches(photographs: Sequence[Bytes], *, count: int, size: int, seed: int) -> Bytes:
    """Cut `count` patches (count, size, size, 3) out of photographs, each photograph and position drawn uniformly.

    Raises:
        DgpruneError: no photograph, an array of another shape or type, a photograph that is too small.
    """
    if not photographs:
        raise DgpruneError("photographs must hold at least one photograph; got none.")
    for number, photograph in enumerate(photographs):
        shape = photograph.shape
        if len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < size or photograph.dtype != np.uint8:
            raise DgpruneError(
                f"photographs must be uint8 colour photographs of (H, W, 3), at least {size} x {size}; "
                f"photograph {number} is {photograph.dtype} {shape}."
            )
    draws = torch.rand(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).tolist()
    patches = np.empty((count, size, size, 3), np.uint8)
    for row, (choice, down, across) in enumerate(draws):
        photograph = photographs[int(choice * len(photographs))]
        top = int(down * (photograph.shape[0] - size + 1))
        left = int(across * (photograph.shape[1] - size + 1))
        patches[row] = photograph[top : top + size, left : left + size]
    return patches


def _difference(digits: Bytes, patches: Bytes) -> Bytes:
    """Return |patch - 255 * digit| as uint8: the patch outside the strokes, its negative inside."""
    stroke = np.pad(digits > 0, ((0, 0), (_EDGE, _EDGE), (_EDGE, _EDGE)))
    return np.where(stroke[..., None], 255 - patches, patches)


def centre_crop(images: Bytes) -> Bytes:
    """Crop the recipe's padding off MNIST-M images and put the channels first: (N, 32, 32, 3) to (N, 3, 28, 28)."""
    return channels_first(images[:, _EDGE:-_EDGE, _EDGE:-_EDGE])


def channels_first(images: Bytes) -> Bytes:
    """Return images (N, H, W, C) as (N, C, H, W)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
