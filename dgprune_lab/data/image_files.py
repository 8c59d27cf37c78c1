"""Single image files: their kinds, and their pixels at a given size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..core import DgpruneError, depth_words, is_deep, pixels_of_picture

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
"""File types that always have 8 bits and one page, so that their headers need not be read."""
SUFFIXES = (*JPEG, ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff")
Resize = Literal["stretch", "crop"]


class FileKind(NamedTuple):
    """How a file differs from 8-bit grey or RGB, in words, and whether it has more than 8 bits per channel."""

    words: str
    deep: bool


def kind_of_file(path: Path) -> FileKind:
    """Return the kind of an image file, read from its header.

    Raises:
        DgpruneError: a file that is no image.
    """
    with _opened(path) as picture:
        return FileKind(depth_words(picture), is_deep(picture))


def broken_file(path: Path, *, size: int, resize: Resize) -> str | None:
    """Return in words why an image file cannot be read; None if it can."""
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
        DgpruneError: a file that is damaged or no image, float pixels outside [0, 1].
    """
    with _opened(path) as picture:
        pixels = pixels_of_picture(picture, what=f"image {path}", size=size, crop=resize == "crop")
    if deep and pixels.dtype == torch.uint8:
        pixels = pixels.to(torch.float32) / 255
    return pixels.repeat(3, 1, 1) if len(pixels) == 1 else pixels


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
