"""The built-in fashion domains: 5,000 images of Fashion-MNIST, which come with this package (MIT licence)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..core import Domain, cut_counts, public
from .blending import channels_first, random_patches
from .digits import loaded_once, photographs
from .formats import read_idx
from .shifts import colour

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
"""Names of the classes, in the order of their labels."""

_FOLDER = Path(__file__).with_name("fashion_mnist")
_TRAINING = {"fashion train": 1600, "fashion score": 400, "fashion_colour train": 1500, "fashion_colour score": 300}
_TESTS = {"fashion report": 600, "fashion_colour report": 600}
_SPLITS = ("train", "score", "report")
_SEED = 2017  # of the splits and of the tints
_PATCHES = 2026  # seed of the photographs' patches
_ORIGIN = "Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, MIT licence), "


@loaded_once
@public
def fashion() -> Domain:
    """Load 2,600 garments of Fashion-MNIST in fixed stratified splits: 1,600 train, 400 score, 600 report.

    Images are (2600, 3, 28, 28) uint8, the grey value copied to three channels, garments bright on black. The report
    split comes from the official test file, the others from the official training file.

    Origin: Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747 (MIT licence). Its first images of each class, 380 for
    training and 120 for tests, come with this package; `load("fashion_mnist")` reads all 70,000 if they are there.

    >>> fashion().class_names[:2]
    ('T-shirt/top', 'Trouser')
    """
    return _garments("fashion", origin=f"{_ORIGIN}2,600 garments")


@loaded_once
@public
def fashion_colour() -> Domain:
    """Make 2,600 tinted garments, different from those of `fashion`: 1,500 train, 300 score, 600 report.

    Images are (2600, 3, 28, 28) uint8: the shift `colour` at strength 0.5, (x + x * f + (1 - x) * b) / 2, with a random
    foreground f and background b for each image.

    Origin: as `fashion`.
    """
    tinted = colour(_garments("fashion_colour", origin=""), strength=0.5, seed=_SEED)
    return replace(tinted, name="fashion_colour", origin=f"{_ORIGIN}2,600 other garments, tinted at random")


@loaded_once
@public
def fashion_photo() -> Domain:
    """Put the garments of `fashion` (400 score, 600 report) in front of patches of bundled photographs.

    Images are (1000, 3, 28, 28) uint8: the grey garment where it is brighter than 16 of 255, the photograph elsewhere.
    Image i of a split shows the same garment as image i of that split of `fashion`. There is no train split: this
    domain is meant as a target.

    Origin: garments as `fashion`, photographs as `mnist_m`.

    Raises:
        DgpruneError: no photograph is found.
    """
    source = fashion()
    assert source.labels is not None
    rows = torch.cat([source.splits["score"], source.splits["report"]])
    garments, score = source.images[rows, 0].numpy(), len(source.splits["score"])
    background = random_patches(photographs(), count=len(rows), size=garments.shape[1], seed=_PATCHES)
    return Domain.from_arrays(
        "fashion_photo",
        images=channels_first(np.where(garments[..., None] > 16, garments[..., None], background)),
        labels=source.labels[rows],
        classes=CLASSES,
        splits={"score": torch.arange(score), "report": torch.arange(score, len(rows))},
        origin=f"{_ORIGIN}the garments of fashion's score and report splits in front of bundled photographs",
    )


def _garments(name: str, *, origin: str) -> Domain:
    """Return the grey garments set aside for the domain of this name; no garment is set aside for two domains."""
    x_train, y_train, x_test, y_test = read_idx(_FOLDER)
    rows = cut_counts(len(y_train), torch.from_numpy(y_train), _TRAINING, seed=_SEED)
    tests = cut_counts(len(y_test), torch.from_numpy(y_test), _TESTS, seed=_SEED)
    rows |= {split: numbers + len(y_train) for split, numbers in tests.items()}
    splits = [rows[f"{name} {split}"] for split in _SPLITS]
    images, chosen = torch.from_numpy(np.concatenate([x_train, x_test])), torch.cat(splits)
    places = torch.arange(len(chosen)).split([len(split) for split in splits])
    return Domain.from_arrays(
        name,
        images=images[chosen, None].repeat(1, 3, 1, 1),
        labels=torch.from_numpy(np.concatenate([y_train, y_test]))[chosen],
        classes=CLASSES,
        splits=dict(zip(_SPLITS, places, strict=True)),
        origin=origin,
    )
