"""Image files: their kinds, and their pixels at a given size."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import PIL
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..core import DgpruneError, kind_of_picture, pixels_of_picture

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
"""File types that always have 8 bits and one page, so that their headers need not be read."""
SUFFIXES = (*JPEG, ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff")
Resize = Literal["stretch", "crop"]


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Image files that are read when needed: an item is the image (3, size, size) and its label; see `read_image`.

    Images are uint8; if any file holds more than 8 bits per channel, all images are float32 in [0, 1].

    Attributes:
        kinds: description of files other than 8-bit grey or RGB -> number of such files; read from their headers.
    """

    def __init__(self, files: Sequence[Path], labels: Sequence[int], *, size: int, resize: Resize = "stretch") -> None:
        self.files, self.targets, self.size = list(files), list(labels), size
        self.resize: Resize = resize
        kinds = [_kind_of_file(path) for path in self.files if path.suffix.lower() not in JPEG]
        self.deep = any(deep for _, deep in kinds)
        self.kinds = Counter(kind for kind, _ in kinds if kind)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = read_image(self.files[index], size=self.size, resize=self.resize, deep=self.deep)
        return image, self.targets[index]

    def content(self) -> str:
        """Return a hash of the bytes of all files and of how they are read."""
        settings = (self.size, self.resize, self.deep, PIL.__version__)
        digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
        for path in self.files:
            digest.update(hashlib.blake2b(path.read_bytes(), digest_size=16).digest())
        return digest.hexdigest()


def broken_file(path: Path, *, size: int, resize: Resize) -> str | None:
    """Return why an image file cannot be read, as text; None if it can."""
    try:
        read_image(path, size=size, resize=resize)
    except DgpruneError as error:
        return str(error.__cause__ or error)
    return None


def read_image(path: Path, *, size: int | None = None, resize: Resize = "stretch", deep: bool = False) -> Tensor:
    """Return the (first) image of a file as (3, H, W), uint8, or float32 in [0, 1] if `deep`.

    Images are turned upright by their EXIF tag and become RGB (grey is copied, transparency dropped); see
    `core.pixels_of_picture`. With `size` they are resized to `size` x `size`, bilinear with antialiasing: the whole
    image, whose aspect ratio is not kept, as in DomainBed ("stretch"), or its central square ("crop").

    Raises:
        DgpruneError: a file that is damaged or not an image, float pixels outside [0, 1].
    """
    with _opened(path) as picture:
        pixels = pixels_of_picture(picture, what=f"image {path}", size=size, crop=resize == "crop")
    if deep and pixels.dtype == torch.uint8:
        pixels = pixels.to(torch.float32) / 255
    return pixels.repeat(3, 1, 1) if len(pixels) == 1 else pixels


def _kind_of_file(path: Path) -> tuple[str, bool]:
    """Return the kind of an image file, read from its header; see `core.kind_of_picture`."""
    with _opened(path) as picture:
        return kind_of_picture(picture)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            yield picture
    except DgpruneError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DgpruneError(
            f"image {path} has more pixels than Pillow reads ({error}). Make it smaller, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS for files that you trust."
        ) from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and others on damaged files
        raise DgpruneError(
            f"image {path} could not be read ({error}); repair or remove it. from_folder(..., broken='skip') leaves "
            "such files out."
        ) from error
