"""Domains from folders of images, laid out as DomainBed lays them out: domain/class/image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..core import DgpruneError, Domain, public

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Image files that are read when needed: (3, size, size) uint8 and the label.

    Images become RGB (grey is copied, transparency dropped) and are resized to `size` x `size`, bilinear with
    antialiasing; the aspect ratio is not kept, as in DomainBed.
    """

    def __init__(self, files: Sequence[Path], labels: Sequence[int], *, size: int) -> None:
        self.files, self.targets, self.size = list(files), list(labels), size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        path = self.files[index]
        try:
            with Image.open(path) as image:
                resized = image.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        except OSError as error:  # Pillow's own errors are OSErrors too
            raise DgpruneError(f"image {path} could not be read ({error}); repair or remove it.") from error
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous(), self.targets[index]


@public
def from_folder(root: str | Path, *, size: int = 224, seed: int = 0) -> dict[str, Domain]:
    """Make the domains of a folder `root/domain/class/image`, the layout of PACS, OfficeHome and VLCS.

    Labels are positions in the sorted union of the class folders' names over all domains, so they mean the same
    everywhere, also where a domain lacks a class; `origin` lists them. Each domain is cut 60 / 20 / 20 into train,
    score and report, and a note says so. Hidden files and other files are skipped; images are read when needed.

    Args:
        root: the folder that holds one folder per domain.
        size: height and width in pixels of every image.
        seed: of the cut.

    Returns:
        Domains by the names of their folders, sorted; images (N, 3, size, size) uint8.

    Raises:
        DgpruneError: no such folder, no domain with images in it, a size below one; an image that cannot be read.

    Source: the layout of Gulrajani & Lopez-Paz, In Search of Lost Domain Generalization, ICLR 2021 (DomainBed).
    """
    base = Path(root).expanduser()
    if size < 1:
        raise DgpruneError(f"size must be at least 1 pixel; got {size}.")
    if not base.is_dir():
        raise DgpruneError(f"{base} is not a folder; from_folder needs one that holds domain/class/image.")
    by_domain = {folder.name: groups for folder in _folders(base) if (groups := _by_class(folder))}
    if not by_domain:
        raise DgpruneError(
            f"{base} holds no images as domain/class/image (class folders inside domain folders, files ending in "
            f"{', '.join(SUFFIXES)}). A single domain needs its own folder around its class folders."
        )
    classes = sorted({name for groups in by_domain.values() for name in groups})
    domains = {}
    for name, groups in by_domain.items():
        files = [path for group in groups.values() for path in group]
        labels = [classes.index(key) for key, group in groups.items() for _ in group]
        domains[name] = Domain.from_dataset(
            name,
            ImageFiles(files, labels, size=size),
            classes=len(classes),
            seed=seed,
            origin=f"folder {base.name}/{name}, resized to {size} x {size}; classes: {', '.join(classes)}",
        )
    return domains


def _folders(base: Path) -> list[Path]:
    """Sorted folders inside a folder, hidden ones left out."""
    return sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))


def _by_class(domain: Path) -> dict[str, list[Path]]:
    """Image files of each class folder that has any, sorted."""
    groups = {
        folder.name: sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
        for folder in _folders(domain)
    }
    return {name: files for name, files in groups.items() if files}
