"""A pass over a folder of JPEG files: the first one decodes them, later ones take the cached images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, PILToTensor, Resize

from ...core import Domain
from ...data import from_folder
from .timing import Row, race_calls, require_same

_SIZE = 100


def folder_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time the first and a later pass over the images of a folder against torchvision, which decodes each time."""
    count, side, repeats = (12, 32, 1) if quick else (400, 224, 5)
    with tempfile.TemporaryDirectory() as root:
        _write_images(Path(root) / "noise", count=count, side=side)

        def load() -> Domain:
            return from_folder(root, size=side, splits={"report": 1.0})["noise"]

        cached, transform = load(), Compose([Resize((side, side)), PILToTensor()])
        peer = DataLoader(ImageFolder(str(Path(root) / "noise"), transform=transform), batch_size=_SIZE)

        def decoded() -> Iterator[Tensor]:
            return (images.to(torch.float32).div_(255) for images, _ in peer)

        require_same(all(map(torch.equal, _batches(cached), decoded())), "pixels")
        sides = {"first": lambda: _consume(_batches(load())), "later": lambda: _consume(_batches(cached))}
        sides["peer"] = lambda: _consume(decoded())
        times = race_calls(sides, device, repeats=repeats, unit="ms")
    shared = {"peer": times["peer"], "unit": "ms", "repeats": repeats}
    note = f"peer: torchvision's ImageFolder, decoded each time; {count} JPEG files, {side} px"
    yield Row(name="folder: first pass, with from_folder", ours=times["first"], note=note, **shared)
    yield Row(name="folder: a later pass", ours=times["later"], aim=">= 3", note=note, **shared)


def _batches(domain: Domain) -> Iterator[Tensor]:
    """Return batches of all images, float32, in the order of their files."""
    return (domain.take(rows).images for rows in torch.arange(len(domain)).split(_SIZE))


def _write_images(folder: Path, *, count: int, side: int) -> None:
    """Write JPEG files of blurred noise, somewhat larger than `side`, in two class folders."""
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class {number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side + side // 3, side + 8), Image.Resampling.BICUBIC).save(path, quality=90)


def _consume(batches: Iterator[Tensor]) -> None:
    for _ in batches:
        pass
