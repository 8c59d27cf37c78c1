"""Distribution shifts: a domain changed in one known way, with the same labels and the same splits.

Every shift is f(domain, *, STRENGTH, seed=0) -> Domain. The domain itself stays unchanged; images of a Dataset are
shifted when they are read. The new name states the shift ("mnist rotated 30°"); labels, splits, role and the type of
the pixels stay the same. `seed` has no effect on shifts that draw no random numbers. A strength outside its range
raises a DgpruneError. How an image is changed depends only on the seed and its row, so an image of a subset is shifted
as in the whole domain. The transforms of torchvision are not used: the random ones draw from the global generator, and
rotation and blur fill the edges in another way (with a constant, by reflection). `halves` is no shift but a check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from ..core import DatasetImages, DgpruneError, Domain, Seed, public

Change = Callable[[Tensor, Tensor], Tensor]
"""Function of float images (B, C, H, W) in [0, 1] and their row numbers (B,) that returns images of the same shape."""

_CHUNK = 500


@public
def rotate(domain: Domain, *, degrees: float = 30.0, seed: Seed = 0) -> Domain:
    """Rotate every image counter-clockwise about its centre by the same angle, -180 to 180 degrees.

    Bilinear; corners are filled with the nearest edge pixel, so that an inverted domain gets no black corners. Quarter
    turns of square images are exact.

    Source: rotated MNIST of Ghifary et al., Domain Generalization for Object Recognition, ICCV 2015.
    """
    _check_range("rotate needs degrees", degrees, low=-180.0, high=180.0)
    return _shift_domain(domain, f"rotated {degrees:g}°", partial(_rotate, degrees=float(degrees)))


@public
def invert(domain: Domain, *, share: float = 1.0, seed: Seed = 0) -> Domain:
    """Replace a share of the images by their negatives, x -> 1 - x (uint8: 255 - x); the same shift again undoes it.

    Args:
        domain: the domain to shift; it stays unchanged.
        share: probability that an image is inverted, 0 to 1; drawn for each image independently.
        seed: random seed of the draws.

    Source: definition (the negative of a photograph).
    """
    _check_range("invert needs share", share, low=0.0, high=1.0)
    inverted = torch.rand(len(domain), generator=torch.Generator().manual_seed(seed)) < share
    name = "inverted" if share == 1 else f"{100 * share:g} % inverted"
    return _shift_domain(domain, name, partial(_invert, inverted=inverted))


@public
def colour(domain: Domain, *, strength: float = 1.0, seed: Seed = 0) -> Domain:
    """Blend each image between two random colours: (1 - s) * x + s * (x * f + (1 - x) * b), s = strength in [0, 1].

    The foreground f and the background b are uniform in [0, 1] per image and channel: bright strokes become f, the dark
    background b. Every image has its own colours, so that colour is independent of the label.

    Raises:
        DgpruneError: images with another number of channels than three.

    Source: ours; coloured MNIST (Arjovsky et al. 2019, arXiv:1907.02893) without its tie between colour and label.
    """
    _check_range("colour needs strength", strength, low=0.0, high=1.0)
    if domain.shape[0] != 3:
        raise DgpruneError(f"colour needs images of 3 channels; domain {domain.name!r} has {domain.shape[0]}.")
    tints = torch.rand(len(domain), 2, 3, generator=torch.Generator().manual_seed(seed))
    name = "coloured" if strength == 1 else f"coloured {100 * strength:g} %"
    return _shift_domain(domain, name, partial(_colour, tints=tints, strength=float(strength)))


@public
def blur(domain: Domain, *, sigma: float = 1.0, seed: Seed = 0) -> Domain:
    """Blur every image by a Gaussian of standard deviation `sigma`, 0 to 10 pixels.

    The Gaussian is cut off at three standard deviations; edge pixels are repeated outside.

    Source: definition; among the corruptions of Hendrycks & Dietterich, ICLR 2019 (arXiv:1903.12261).
    """
    _check_range("blur needs sigma", sigma, low=0.0, high=10.0)
    return _shift_domain(domain, f"blurred {sigma:g} px", partial(_blur, sigma=float(sigma)))


@public
def noise(domain: Domain, *, sigma: float = 0.2, seed: Seed = 0) -> Domain:
    """Add Gaussian noise n to each pixel and channel independently: clip(x + sigma * n, 0, 1), sigma in [0, 2].

    `sigma` is the standard deviation before clipping; clipping makes black pixels brighter on average.

    Source: definition; among the corruptions of Hendrycks & Dietterich, ICLR 2019 (arXiv:1903.12261).
    """
    _check_range("noise needs sigma", sigma, low=0.0, high=2.0)
    return _shift_domain(domain, f"noise {sigma:g}", partial(_noise, sigma=float(sigma), seed=seed))


@public
def contrast(domain: Domain, *, factor: float = 0.4, seed: Seed = 0) -> Domain:
    """Scale the deviation of each pixel from its image's mean m over all pixels: clip(m + factor * (x - m), 0, 1).

    `factor` is 0 (uniform grey) to 10; 1 changes nothing.

    Source: definition; among the corruptions of Hendrycks & Dietterich, ICLR 2019 (arXiv:1903.12261).
    """
    _check_range("contrast needs factor", factor, low=0.0, high=10.0)
    return _shift_domain(domain, f"contrast x {factor:g}", partial(_contrast, factor=float(factor)))


@public
def pixelate(domain: Domain, *, block: int = 4, seed: Seed = 0) -> Domain:
    """Replace every square of `block` x `block` pixels by the mean of its pixels.

    `block` is 1 to the image's smaller side; squares at the right and bottom edge may be smaller.

    Source: definition; among the corruptions of Hendrycks & Dietterich, ICLR 2019 (arXiv:1903.12261).
    """
    _check_range("pixelate needs block", block, low=1, high=min(domain.shape[1:]))
    return _shift_domain(domain, f"pixelated {block} px", partial(_pixelate, block=block))


SHIFTS: dict[str, Callable[..., Domain]] = {
    shift.__name__: shift for shift in (rotate, invert, colour, blur, noise, contrast, pixelate)
}
"""Every shift by name."""


@public
def halves(domain: Domain, *, split: str = "report") -> tuple[Domain, Domain]:
    """Return every other image of a domain's split as one domain, and the remaining ones as another.

    Both have the same distribution, so any shift found between them is false (5 in 100 of 95 % intervals exclude 0).
    Each half has only this split, under the same name.

    Raises:
        DgpruneError: a split of fewer than two images.

    >>> import dgprune_lab as dg
    >>> first, second = dg.data.halves(dg.data.mnist())
    >>> first.name, second.name, len(first), len(second)
    ('mnist, half 1', 'mnist, half 2', 500, 500)
    """
    rows = domain.rows(split)
    if len(rows) < 2:
        raise DgpruneError(f"domain {domain.name!r} has {len(rows)} images in its split {split!r}; two are needed.")
    domains = []
    for name, half in (("half 1", rows[::2]), ("half 2", rows[1::2])):
        batch = domain.take(half)
        domains.append(
            Domain.from_arrays(
                f"{domain.name}, {name}",
                images=batch.images,
                labels=batch.labels,
                classes=domain.class_names or domain.classes,
                splits={split: range(len(half))},
            )
        )
    return domains[0], domains[1]


class _ShiftedImages(Dataset[Any]):
    """A Dataset-backed domain's images, changed when they are read."""

    def __init__(self, images: Any, change: Change) -> None:
        self.images, self.change = images, change

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = torch.tensor([index])
        return _apply_change(self.change, self.images[row], row)[0], -1


def _shift_domain(domain: Domain, suffix: str, change: Change) -> Domain:
    """Return the domain with `change` applied to its images; `suffix` is appended to its name and origin."""
    if isinstance(domain.images, Tensor):
        images = torch.empty_like(domain.images, memory_format=torch.contiguous_format)
        for rows in torch.arange(len(domain)).split(_CHUNK):
            chunk = slice(int(rows[0]), int(rows[-1]) + 1)
            images[chunk] = _apply_change(change, domain.images[chunk], rows)
    else:
        images = DatasetImages(_ShiftedImages(domain.images, change), what=f"domain {domain.name!r} {suffix}")
    return replace(domain, name=f"{domain.name} {suffix}", images=images, origin=f"{domain.origin}; {suffix}")


def _apply_change(change: Change, images: Tensor, rows: Tensor) -> Tensor:
    """Return the changed images; uint8 images are converted to float and back, rounded to the nearest."""
    if images.dtype != torch.uint8:
        return change(images, rows).clamp(0, 1)
    return change(images.to(torch.float32) / 255, rows).mul(255).round_().clamp_(0, 255).to(torch.uint8)


def _rotate(x: Tensor, rows: Tensor, *, degrees: float) -> Tensor:
    height, width = x.shape[2:]
    if degrees % 180 == 0 or (degrees % 90 == 0 and height == width):
        return x.rot90(int(degrees // 90), (2, 3))
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    sine, cosine = float(angle.sin()), float(angle.cos())
    # grid_sample looks up where each output pixel comes from, in units of half an image, y downwards.
    back = torch.tensor([[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]])
    grid = functional.affine_grid(back[None].to(x), [1, 1, height, width], align_corners=False)
    flat = x.flatten(0, 1)[None]  # all images and channels as channels of one image, so that they share a grid
    return functional.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False).view_as(x)


def _invert(x: Tensor, rows: Tensor, *, inverted: Tensor) -> Tensor:
    return torch.where(inverted[rows].to(x.device)[:, None, None, None], 1 - x, x)


def _colour(x: Tensor, rows: Tensor, *, tints: Tensor, strength: float) -> Tensor:
    front, back = tints[rows].to(x)[..., None, None].unbind(1)
    return torch.lerp(x, torch.lerp(back, front, x), strength)


def _blur(x: Tensor, rows: Tensor, *, sigma: float) -> Tensor:
    reach = int(3 * sigma + 0.5)
    if reach == 0:
        return x
    kernel = (-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum()).to(x)
    flat = x.flatten(0, 1)[:, None]
    flat = functional.conv2d(functional.pad(flat, (reach, reach, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    flat = functional.conv2d(functional.pad(flat, (0, 0, reach, reach), mode="replicate"), kernel.view(1, 1, -1, 1))
    return flat.view_as(x)


def _noise(x: Tensor, rows: Tensor, *, sigma: float, seed: int) -> Tensor:
    generator, normal = torch.Generator(), torch.empty(x.shape)
    for place, row in enumerate(rows.tolist()):  # one stream per image
        torch.randn(x.shape[1:], generator=generator.manual_seed((seed * 1_000_003 + row) % 2**63), out=normal[place])
    return x + sigma * normal.to(x)


def _contrast(x: Tensor, rows: Tensor, *, factor: float) -> Tensor:
    return torch.lerp(x.mean(dim=(1, 2, 3), keepdim=True), x, factor)


def _pixelate(x: Tensor, rows: Tensor, *, block: int) -> Tensor:
    height, width = x.shape[2:]
    coarse = functional.avg_pool2d(x, block, ceil_mode=True, count_include_pad=False)
    return coarse.repeat_interleave(block, 2).repeat_interleave(block, 3)[..., :height, :width]


def _check_range(start: str, value: float, *, low: float, high: float) -> None:
    """Refuse a strength that is outside its range, or NaN."""
    if not low <= value <= high:
        raise DgpruneError(f"{start} between {low:g} and {high:g}; got {value:g}.")
