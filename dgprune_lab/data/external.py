"""Data sets in a folder of the user's, named by the environment variable DGPRUNE_DATA. Nothing is ever downloaded."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core import DgpruneError, Domain, cut, cut_counts, unknown
from .blending import Bytes, centre_crop
from .digits import enlarged
from .formats import (
    CIFAR_BINARY,
    IDX,
    Arrays,
    existing,
    read_cifar_binary,
    read_idx,
    read_npz,
    read_png_lists,
    read_usps_text,
)

VARIABLE = "DGPRUNE_DATA"
_SEED = 2015
_SHARES = {"train": 0.8, "score": 0.1, "report": 0.1}
_BUILD = "python -c \"import os, torchvision; torchvision.datasets.{0}(os.environ['DGPRUNE_DATA'], download=True)\""


class Available(NamedTuple):
    """One line for `doctor`: a data set, whether it is there, and where, or else how to get it."""

    name: str
    found: bool
    where: str


@dataclass(frozen=True)
class _Layout:
    """One way a data set may lie on disk: the files that must be there, and the reader of their place."""

    place: str
    files: tuple[str, ...]
    read: Callable[[Path], Arrays]
    says: str
    beside: Path | None = None
    """A fixed place outside the folder of the user's."""

    def found(self, root: Path | None) -> Path | None:
        """The place, where all its files are there."""
        base = self.beside or root
        if base is None:
            return None
        whole = base / self.place
        return whole if all(existing(whole / name) for name in self.files) else None

    @property
    def words(self) -> str:
        """What is looked for, as a person would say it."""
        place = str(self.beside / self.place) if self.beside else self.place
        return f"{place}/{self.files[0]}" + (" ..." if len(self.files) > 1 else "") if self.files else place


class _Npz(_Layout):
    """A single npz file."""

    def found(self, root: Path | None) -> Path | None:
        path = None if root is None else root / self.place
        return path if path is not None and path.is_file() else None


@dataclass(frozen=True)
class _Set:
    """A data set: the layouts it may lie in, how its images become (N, 3, H, W) uint8, how to get it."""

    layouts: tuple[_Layout, ...]
    images: Callable[[Bytes], Tensor]
    get: str


def _grey(stored: Bytes) -> Tensor:
    """(N, 28, 28) to (N, 3, 28, 28), the three channels sharing their memory."""
    return torch.from_numpy(stored)[:, None].expand(-1, 3, -1, -1)


def _usps(stored: Bytes) -> Tensor:
    """(N, 16, 16) to (N, 3, 28, 28), bilinear, rounded to uint8."""
    large = enlarged(torch.from_numpy(stored)[:, None].to(torch.float32).div_(255))
    return large.mul_(255).round_().to(torch.uint8).expand(-1, 3, -1, -1)


def _blended(stored: Bytes) -> Tensor:
    """(N, 32, 32, 3) to (N, 3, 28, 28): the padding of the recipe is cropped."""
    return torch.from_numpy(centre_crop(stored))


def _colour(stored: Bytes) -> Tensor:
    """(N, 32, 32, 3) to (N, 3, 32, 32)."""
    return torch.from_numpy(np.ascontiguousarray(stored.transpose(0, 3, 1, 2)))


_SETS: dict[str, _Set] = {
    "mnist_full": _Set(
        (_Layout("MNIST/raw", IDX, read_idx, "MNIST (LeCun, Cortes & Burges), 60,000 + 10,000 digits"),),
        _grey,
        _BUILD.format("MNIST"),
    ),
    "mnist_m_published": _Set(
        (
            _Npz("mnist_m.npz", (), read_npz, "the published MNIST-M (Ganin & Lempitsky 2015), npz"),
            _Layout(
                "mnist_m",
                ("mnist_m_train_labels.txt", "mnist_m_test_labels.txt"),
                read_png_lists,
                "the published MNIST-M (Ganin & Lempitsky 2015), the authors' archive of PNG",
            ),
        ),
        _blended,
        f"unpack the authors' mnist_m.tar.gz, linked from yaroslav.ganin.net, in ${VARIABLE}",
    ),
    "usps": _Set(
        (
            _Npz("usps.npz", (), read_npz, "USPS digits (Hull 1994), npz, 16 x 16 enlarged to 28 x 28"),
            _Layout(
                ".", ("usps.bz2", "usps.t.bz2"), read_usps_text, "USPS digits (Hull 1994), 16 x 16 enlarged to 28 x 28"
            ),
        ),
        _usps,
        _BUILD.format("USPS"),
    ),
    "fashion_mnist": _Set(
        (
            _Layout("FashionMNIST/raw", IDX, read_idx, "Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, MIT licence)"),
            _Layout(
                "fashion-mnist",
                IDX,
                read_idx,
                "Fashion-MNIST (Xiao, Rasul & Vollgraf 2017), Debian's package",
                beside=Path("/usr/share/datasets"),
            ),
        ),
        _grey,
        f"apt install dataset-fashion-mnist, or {_BUILD.format('FashionMNIST')}",
    ),
    "cifar10": _Set(
        (
            _Npz("cifar10_25k.npz", (), read_npz, "CIFAR-10 (Krizhevsky 2009), its first 20,000 + 5,000 images"),
            _Layout("cifar-10-batches-bin", CIFAR_BINARY, read_cifar_binary, "CIFAR-10 (Krizhevsky 2009)"),
        ),
        _colour,
        f"curl https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz | tar xz -C ${VARIABLE} "
        "(torchvision's cifar-10-batches-py holds pickles, which run code when read, so it is not read)",
    ),
}

NAMES = tuple(_SETS)
"""Data sets that `load` knows."""


def load(name: str) -> Domain:
    """A data set from the folder that DGPRUNE_DATA names: this toolkit's layout, or a torchvision root.

    The part its authors keep for testing becomes `test`; their train part is cut 80 / 10 / 10 into train, score and
    report, stratified, always the same way. Digits and Fashion-MNIST are (N, 3, 28, 28) uint8 (USPS 16 to 28
    bilinear; published MNIST-M centre-cropped), CIFAR-10 (N, 3, 32, 32) uint8. `origin` says which build was read.

    Args:
        name: one of `NAMES`: mnist_full, mnist_m_published, usps, fashion_mnist (also Debian's package), cifar10.

    Raises:
        DgpruneError: an unknown name; a set that is not there (what was looked for, where, and how to get it); files
            that cannot be read. Nothing is downloaded, nothing is unpickled.
    """
    if name not in _SETS:
        raise unknown("data set", name, NAMES)
    chosen = _SETS[name]
    root = _root()
    for layout in chosen.layouts:
        path = layout.found(root)
        if path is not None:
            return _domain(name, chosen, layout, path)
    where = f"the environment variable {VARIABLE} is not set" if root is None else f"the folder {root} has none of them"
    looked = " or ".join(layout.words for layout in chosen.layouts)
    raise DgpruneError(f"data set {name!r} is not there: looked for {looked}; {where}. Get it: {chosen.get}")


def available() -> list[Available]:
    """Which of the data sets are there, and where, or how to get those that are not; looks, reads nothing."""
    root = _root()
    lines = []
    for name, chosen in _SETS.items():
        path = next((path for layout in chosen.layouts if (path := layout.found(root)) is not None), None)
        lines.append(Available(name, path is not None, chosen.get if path is None else str(path)))
    return lines


def _root() -> Path | None:
    """The folder of the user's, where the variable names one."""
    value = os.environ.get(VARIABLE, "")
    return Path(value).expanduser() if value else None


def _domain(name: str, chosen: _Set, layout: _Layout, path: Path) -> Domain:
    """A data set read, cut and checked."""
    try:
        arrays = layout.read(path)
        images = chosen.images(np.concatenate([arrays.x_train, arrays.x_test]))
    except (DgpruneError, ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DgpruneError(
            f"data set {name!r}: {path} could not be read ({error}). Remove it and get it again: {chosen.get}"
        ) from error
    labels = torch.from_numpy(np.concatenate([arrays.y_train, arrays.y_test]))
    train, test = len(arrays.y_train), len(arrays.y_test)
    splits = cut(train, labels[:train], _SHARES, seed=_SEED)
    splits["test"] = cut_counts(test, labels[train:], {"test": test}, seed=_SEED)["test"] + train
    return Domain.from_arrays(name, images=images, labels=labels, splits=splits, classes=10, origin=layout.says)
