"""Readers for the published files of data sets. None of them unpickles: a pickle can run any code."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core import DgpruneError
from .blending import Bytes
from .image_files import read_image

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CIFAR_BINARY = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
PNG_LISTS = ("mnist_m_train_labels.txt", "mnist_m_test_labels.txt")


class Arrays(NamedTuple):
    """A data set in its authors' splits: images as stored, uint8, and integer labels from 0."""

    x_train: Bytes
    y_train: NDArray[np.int64]
    x_test: Bytes
    y_test: NDArray[np.int64]


def _arrays(columns: Iterable[NDArray[Any]]) -> Arrays:
    x_train, y_train, x_test, y_test = columns
    return Arrays(x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64))


def existing(path: Path) -> Path | None:
    """Return the path of the file, or of its gzip version (.gz), whichever exists; None if neither does."""
    packed = path.with_name(path.name + ".gz")
    return path if path.is_file() else packed if packed.is_file() else None


def read_npz(path: Path) -> Arrays:
    """Read x_train, y_train, x_test and y_test of an npz file, with `allow_pickle=False`."""
    # Opened here, because np.load leaves the file open where the archive is damaged.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        missing = [name for name in Arrays._fields if name not in file]
        if missing:
            raise DgpruneError(f"it has no array {', '.join(missing)}; it has {', '.join(file.files)}")
        return _arrays(file[name] for name in Arrays._fields)


def read_idx(folder: Path) -> Arrays:
    """Read the four idx files of MNIST and data sets in its format, plain or gzipped: images (N, H, W).

    Source: the format's description at yann.lecun.com/exdb/mnist: two zero bytes, the type (8 = unsigned byte), the
    number of axes, each axis as a big-endian 32-bit integer, then the bytes.
    """
    return _arrays(_idx(folder / name) for name in IDX)


def _idx(path: Path) -> Bytes:
    path = existing(path) or path
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise DgpruneError(f"{path.name} is not an idx file of bytes")
    axes = data[3]
    shape = np.frombuffer(data, ">u4", count=axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape.tolist()).copy()


def read_usps_text(folder: Path) -> Arrays:
    """Read USPS from the files of torchvision and the LIBSVM page, usps.bz2 and usps.t.bz2: images (N, 16, 16).

    Each line is a label from 1 to 10 and 256 pairs index:value with values in [-1, 1], which become uint8 by
    (value + 1) / 2 * 255, rounded down as in torchvision.
    """
    return Arrays(*_usps(folder / "usps.bz2"), *_usps(folder / "usps.t.bz2"))


def _usps(path: Path) -> tuple[Bytes, NDArray[np.int64]]:
    lines = [line.split() for line in bz2.decompress(path.read_bytes()).decode().splitlines()]
    values = np.array([[cell.partition(":")[2] for cell in line[1:]] for line in lines], dtype=np.float32)
    images = ((values.reshape(-1, 16, 16) + 1) / 2 * 255).astype(np.uint8)
    return images, np.array([int(line[0]) - 1 for line in lines], dtype=np.int64)


def read_cifar_binary(folder: Path) -> Arrays:
    """Read CIFAR-10's binary version, one label byte and 3,072 pixel bytes per image: images (N, 32, 32, 3).

    The "python" version that torchvision downloads holds pickles and is not read.

    Source: cs.toronto.edu/~kriz/cifar.html, "Binary version".
    """
    content = [(folder / name).read_bytes() for name in CIFAR_BINARY]
    records = (np.frombuffer(data, np.uint8).reshape(-1, 3073) for data in (b"".join(content[:-1]), content[-1]))
    train, test = (
        (rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0].astype(np.int64)) for rows in records
    )
    return Arrays(*train, *test)


def read_png_lists(folder: Path) -> Arrays:
    """Read the authors' MNIST-M archive.

    It holds two folders of PNG files, mnist_m_train/ and mnist_m_test/, and for each a text file with a line
    "name label" per image.
    """
    train, test = (_png_list(folder, f"mnist_m_{split}") for split in ("train", "test"))
    return Arrays(*train, *test)


def _png_list(folder: Path, split: str) -> tuple[Bytes, NDArray[np.int64]]:
    lines = [line.split() for line in (folder / f"{split}_labels.txt").read_text().splitlines() if line.strip()]
    images = np.empty((len(lines), 32, 32, 3), np.uint8)
    for row, (name, _) in enumerate(lines):
        images[row] = read_image(folder / split / name).permute(1, 2, 0).numpy()
    return images, np.array([int(label) for _, label in lines], dtype=np.int64)
