"""Data sets in the folder that the environment variable DGPRUNE_DATA names. Nothing is ever downloaded."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core import DgpruneError, Domain, at_home, cut, cut_counts, public, unknown
from . import formats
from .blending import Bytes, centre_crop, channels_first
from .digits import enlarged

VARIABLE = "DGPRUNE_DATA"
_DEBIAN = Path("/usr/share/datasets")
_SEED = 2015
_SHARES = {"train": 0.8, "score": 0.1, "report": 0.1}
_BUILD = "python -c \"import os, torchvision; torchvision.datasets.{0}(os.environ['DGPRUNE_DATA'], download=True)\""


class Available(NamedTuple):
    """Name of a data set, whether it was found, and where it is or how to get it; a line of `doctor`."""

    name: str
    found: bool
    where: str


@dataclass(frozen=True)
class _Layout:
    """One layout of a data set on disk.

    Attributes:
        place: a file, or the folder that holds `files`, relative to the root folder.
        origin: name and source of the data set, as text.
        read: function that reads the file or folder.
        files: names of the files that must be in the folder.
        root: a fixed root folder instead of the user's.
    """

    place: str
    origin: str
    read: Callable[[Path], formats.Arrays]
    _: KW_ONLY
    files: tuple[str, ...] = ()
    root: Path | None = None

    def find(self, root: Path | None) -> Path | None:
        """Return the path of `place`, or None if a file is missing."""
        base = self.root or root
        if base is None:
            return None
        path = base / self.place
        complete = all(formats.existing(path / name) for name in self.files) if self.files else path.is_file()
        return path if complete else None

    @property
    def searched(self) -> str:
        """The file or folder that is searched for, as text."""
        place = str(self.root / self.place) if self.root else self.place
        return f"{place}/{self.files[0]}" + (" ..." if len(self.files) > 1 else "") if self.files else place


@dataclass(frozen=True)
class _DataSet:
    """A data set: the layouts it may have on disk, how its images become (N, 3, H, W) uint8, and how to get it."""

    layouts: tuple[_Layout, ...]
    images: Callable[[Bytes], Bytes | Tensor]
    get: str

    def find(self) -> tuple[_Layout, Path] | None:
        """Return the first layout that is found on disk, and its path."""
        places = ((layout, layout.find(_root())) for layout in self.layouts)
        return next(((layout, path) for layout, path in places if path is not None), None)


def _grey(stored: Bytes) -> Tensor:
    """Turn (N, 28, 28) into (N, 3, 28, 28); the three channels share their memory."""
    return torch.from_numpy(stored)[:, None].expand(-1, 3, -1, -1)


def _usps(stored: Bytes) -> Tensor:
    """Resize (N, 16, 16) to (N, 3, 28, 28), bilinear, rounded to uint8."""
    large = enlarged(torch.from_numpy(stored)[:, None].to(torch.float32).div_(255))
    return large.mul_(255).round_().to(torch.uint8).expand(-1, 3, -1, -1)


_MNIST_M = "the published MNIST-M (Ganin & Lempitsky 2015), "
_USPS = "USPS digits (Hull 1994), {}16 x 16 enlarged to 28 x 28"
_FASHION = "Fashion-MNIST (Xiao, Rasul & Vollgraf 2017{}"
_CIFAR = "CIFAR-10 (Krizhevsky 2009)"
_LAYOUTS: dict[str, tuple[_Layout, ...]] = {
    "mnist_full": (
        _Layout(
            "MNIST/raw", "MNIST (LeCun, Cortes & Burges), 60,000 + 10,000 digits", formats.read_idx, files=formats.IDX
        ),
    ),
    "mnist_m_published": (
        _Layout("mnist_m.npz", _MNIST_M + "npz", formats.read_npz),
        _Layout("mnist_m", _MNIST_M + "the authors' archive of PNG", formats.read_png_lists, files=formats.PNG_LISTS),
    ),
    "usps": (
        _Layout("usps.npz", _USPS.format("npz, "), formats.read_npz),
        _Layout(".", _USPS.format(""), formats.read_usps_text, files=("usps.bz2", "usps.t.bz2")),
    ),
    "fashion_mnist": (
        _Layout("FashionMNIST/raw", _FASHION.format(", MIT licence)"), formats.read_idx, files=formats.IDX),
        _Layout(
            "fashion-mnist", _FASHION.format("), Debian's package"), formats.read_idx, files=formats.IDX, root=_DEBIAN
        ),
    ),
    "cifar10": (
        _Layout("cifar10_25k.npz", f"{_CIFAR}, its first 20,000 + 5,000 images", formats.read_npz),
        _Layout("cifar-10-batches-bin", _CIFAR, formats.read_cifar_binary, files=formats.CIFAR_BINARY),
    ),
}
_SETS = {
    name: _DataSet(_LAYOUTS[name], images, get)
    for name, images, get in (
        ("mnist_full", _grey, _BUILD.format("MNIST")),
        (
            "mnist_m_published",
            centre_crop,
            f"unpack the authors' mnist_m.tar.gz, linked from yaroslav.ganin.net, in ${VARIABLE}",
        ),
        ("usps", _usps, _BUILD.format("USPS")),
        ("fashion_mnist", _grey, f"apt install dataset-fashion-mnist, or {_BUILD.format('FashionMNIST')}"),
        (
            "cifar10",
            channels_first,
            f"curl https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz | tar xz -C ${VARIABLE} "
            "(torchvision's cifar-10-batches-py holds pickles, which run code when read, so it is not read)",
        ),
    )
}

NAMES = tuple(_SETS)
"""Names of the data sets that `load` reads."""


@public
def load(name: str) -> Domain:
    """Load a data set from the folder that DGPRUNE_DATA names, in this toolkit's layout or torchvision's.

    The authors' test split becomes `test`; their training split is divided 80 / 10 / 10 into train, score and report,
    stratified, always in the same way. Digits and Fashion-MNIST are (N, 3, 28, 28) uint8 (USPS resized from 16 to 28,
    bilinear; published MNIST-M centre-cropped), CIFAR-10 is (N, 3, 32, 32) uint8. `origin` names the files read.

    Args:
        name: one of `NAMES`: mnist_full, mnist_m_published, usps, fashion_mnist (also Debian's package), cifar10.

    Raises:
        DgpruneError: an unknown name; a data set that is not there (the message says what was looked for, where, and
            how to get it); files that cannot be read. Nothing is downloaded, nothing is unpickled.
    """
    if name not in _SETS:
        raise unknown("data set", name, NAMES)
    data_set = _SETS[name]
    if (location := data_set.find()) is not None:
        return _make_domain(name, data_set, *location)
    root = _root()
    where = f"the environment variable {VARIABLE} is not set" if root is None else f"the folder {root} has none of them"
    searched = " or ".join(layout.searched for layout in data_set.layouts)
    raise DgpruneError(f"data set {name!r} is not there: looked for {searched}; {where}. Get it: {data_set.get}")


@public
def available() -> list[Available]:
    """Return for each data set where it is, or how to get it; no file is read."""
    places = {name: data_set.find() for name, data_set in _SETS.items()}
    return [
        Available(name, place is not None, _SETS[name].get if place is None else str(place[1]))
        for name, place in places.items()
    ]


def _root() -> Path | None:
    """Return the folder that DGPRUNE_DATA names, or None."""
    value = os.environ.get(VARIABLE, "")
    return at_home(value) if value else None


def _make_domain(name: str, data_set: _DataSet, layout: _Layout, path: Path) -> Domain:
    """Read a data set, divide it into splits and check it."""
    try:
        arrays = layout.read(path)
        images = data_set.images(np.concatenate([arrays.x_train, arrays.x_test]))
    except (DgpruneError, ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DgpruneError(
            f"data set {name!r}: {path} could not be read ({error}). Remove it and get it again: {data_set.get}"
        ) from error
    labels = torch.from_numpy(np.concatenate([arrays.y_train, arrays.y_test]))
    train, test = len(arrays.y_train), len(arrays.y_test)
    splits = cut(train, labels[:train], _SHARES, seed=_SEED)
    splits["test"] = cut_counts(test, labels[train:], {"test": test}, seed=_SEED)["test"] + train
    return Domain.from_arrays(name, images=images, labels=labels, splits=splits, classes=10, origin=layout.origin)
