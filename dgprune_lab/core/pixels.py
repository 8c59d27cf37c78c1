"""Pixels of every stored kind as uint8, or as float32 in [0, 1]; images of an unclear kind are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import DgpruneError, note

_GREY = ("1", "L", "LA", "La")
_ALPHA = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
_TRANSPARENT = (*_ALPHA, *_ALPHA.values())
ALPHA = "transparency, which is dropped (a transparent pixel gets the colour that is stored with it)"
"""Text of a note on pictures for which `holds_alpha` is true."""
_CHANNELS = (1, 3, 4)
_ROUNDING = 1e-5
_BLACK = 1 / 255
_BITS, _FORMAT, _SIGNED = 258, 339, 2  # tags of TIFF: bits per sample, sample format and its value "signed"


def pixels_of_arrays(images: Any, *, what: str) -> Tensor:
    """Return images in memory as a new tensor (N, C, H, W), uint8 or float32 in [0, 1], sharing no memory with them.

    Args:
        images: an array or a tensor, of any byte order, or a sequence of images, each an array, a tensor or a PIL
            image. uint8 stays; uint16 is divided by 65,535; True is white.
        what: the first words of an error message, such as "domain 'mine'".

    Raises:
        DgpruneError: another number or order of axes; images of several sizes; values that are not numbers, are not
            finite or lie outside [0, 1].
    """
    pixels = _read_arrays(images, what=what)
    brightest = float(pixels.max()) / (255 if pixels.dtype == torch.uint8 else 1) if pixels.numel() else 0.0
    if 0 < brightest <= _BLACK:
        note(
            f"{what}: the brightest pixel of all images is {brightest:.2g}, so all are almost black. uint8 images "
            "hold 0 to 255 and uint16 images 0 to 65,535: scale smaller numbers first."
        )
    return pixels


def _read_arrays(images: Any, *, what: str) -> Tensor:
    if isinstance(images, list | tuple) or (isinstance(images, np.ndarray) and images.dtype == object):
        items = [pixels_of_item(item, what=f"{what}: image {number}") for number, item in enumerate(images)]
        if transparent := sum(map(holds_alpha, images)):
            note(f"{what}: {transparent} of {len(items)} images hold {ALPHA}.")
        return stacked(items, what=what) if items else torch.empty(0, 3, 1, 1)
    pixels = _as_tensor(images, what=f"{what}: images")
    if pixels.ndim != 4:
        raise DgpruneError(
            f"{what}: images must have four axes (N, C, H, W); got shape {tuple(pixels.shape)}. "
            "Grey images need a channel axis: images[:, None]."
        )
    return _scaled(_check_layout(pixels, what=what), what=what, many=True)


def pixels_of_item(image: Any, *, what: str) -> Tensor:
    """Return one image as a new tensor (C, H, W), uint8 or float32 in [0, 1].

    Args:
        image: a PIL image (see `pixels_of_picture`), or an array, tensor or nested list (C, H, W).
        what: the first words of an error message.

    Raises:
        DgpruneError: as `pixels_of_arrays`.
    """
    if hasattr(image, "getbands"):
        return pixels_of_picture(image, what=what)
    pixels = _as_tensor(image, what=what)
    if pixels.ndim != 3:
        raise DgpruneError(f"{what} must have three axes (C, H, W); got shape {tuple(pixels.shape)}.")
    return _scaled(_check_layout(pixels, what=what), what=what)


def pixels_of_picture(picture: Any, *, what: str, size: int | None = None, crop: bool = False) -> Tensor:
    """Return a PIL image, turned upright by its EXIF tag, as (C, H, W): one channel if grey, else three (RGB).

    Pictures of up to 8 bits become uint8; palettes and CMYK become RGB, and transparency is dropped. Pixels of 12 to 32
    bits are divided by the largest value of their type; floats must lie in [0, 1].

    Args:
        picture: the PIL image; it stays unchanged.
        what: the first words of an error message.
        size: height and width to resize to, bilinear with antialiasing.
        crop: resize the central square; if False, the whole picture, whose aspect ratio is not kept.

    Raises:
        DgpruneError: negative values, floats outside [0, 1], a type whose range is not known.
    """
    from PIL import Image

    plain = _convert_picture(picture, what=what)
    if plain.mode == "F":
        _scaled(torch.from_numpy(np.array(plain))[None], what=what)
    if size is not None:
        if crop:
            side = min(plain.size)
            left, top = ((length - side) // 2 for length in plain.size)
            plain = plain.crop((left, top, left + side, top + side))
        plain = plain.resize((size, size), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(plain))
    return values.permute(2, 0, 1).contiguous() if values.ndim == 3 else values[None]


def _convert_picture(picture: Any, *, what: str) -> Any:
    """Return the PIL image, upright, in mode L, RGB or F."""
    from PIL import Image, ImageOps

    upright: Any = ImageOps.exif_transpose(picture)
    bits, signed = _depth(picture)
    if bits > 8 or signed:
        return Image.fromarray(_scale_integers(np.array(upright), bits, signed=signed, what=what))
    if upright.mode == "F":
        return upright
    if upright.mode == "I":
        raise DgpruneError(
            f"{what} is a PIL image of mode I without a file, so the range of its numbers is not known; convert it to "
            "uint8, or to floats in [0, 1]."
        )
    if upright.mode in _ALPHA or "transparency" in upright.info:
        upright = upright.convert(_ALPHA.get(upright.mode, "RGBA"))
    return upright.convert("L" if picture.mode in _GREY else "RGB")


def stacked(items: list[Tensor], *, what: str) -> Tensor:
    """Return images of one shape as one tensor; if some are uint8 and some float, all become float.

    Raises:
        DgpruneError: images of several shapes.
    """
    for number, item in enumerate(items):
        check_shape(item, tuple(items[0].shape), what=what, number=number)
    if len({item.dtype for item in items}) > 1:
        items = [item.to(torch.float32) / 255 if item.dtype == torch.uint8 else item for item in items]
    return torch.stack(items)


def check_shape(image: Tensor, shape: tuple[int, ...], *, what: str, number: int) -> None:
    """Refuse the image with this number in a domain if its shape differs from that of the first one.

    Raises:
        DgpruneError: it has another shape than `shape`.
    """
    if tuple(image.shape) != shape:
        needed, actual = (" x ".join(map(str, sizes)) for sizes in (shape, image.shape))
        raise DgpruneError(
            f"{what}: all images need one size; the first is {needed}, image {number} {actual}. Resize them, for "
            "example with transform=torchvision.transforms.Resize((224, 224)) in the data set; for channels "
            "image.convert('RGB')."
        )


def kind_of_picture(picture: Any) -> tuple[str, bool]:
    """Return how a picture file differs from 8-bit grey or RGB, as text, and whether it has more bits per channel.

    The text is "" if it does not differ, and for JPEG.
    """
    frames = getattr(picture, "n_frames", 1) if picture.format != "MPO" else 1
    bits, signed = _depth(picture)
    differences = [f"{frames} pages, of which the first is read"] if frames > 1 else []
    deep = bits > 8 or signed
    if deep:
        largest = f"{_largest(bits, signed=signed):,}"
        differences.append(f"{bits} bits, divided by {largest} (rescale files whose values use a smaller range)")
    elif picture.mode == "F":
        differences.append("floats, taken as they are")
    if holds_alpha(picture):
        differences.append(ALPHA)
    return " and ".join(differences), deep or picture.mode == "F"


def holds_alpha(image: Any) -> bool:
    """Return whether an image is a PIL image with an alpha channel or a transparent colour."""
    return hasattr(image, "getbands") and (image.mode in _TRANSPARENT or "transparency" in image.info)


def _depth(picture: Any) -> tuple[int, bool]:
    """Return the bits per pixel of a grey picture and whether they are signed; (8, False) for any other picture."""
    tags = getattr(picture, "tag_v2", {})
    stored, signed = tags.get(_BITS, (16,))[0], tags.get(_FORMAT, (1,))[0] == _SIGNED
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("TIFF", "PNG", "PPM")):
        return stored, signed  # Pillow scales PPM to 16 bits
    return 8, signed and picture.mode == "L"


def _largest(bits: int, *, signed: bool) -> int:
    return 2 ** (bits - 1) - 1 if signed else 2**bits - 1


def _scale_integers(values: NDArray[Any], bits: int, *, signed: bool, what: str) -> NDArray[np.float32]:
    """Return whole numbers divided by the largest value of their type."""
    if signed and bits == 8:
        values = values.view(np.int8)
    elif not signed and values.dtype == np.int32:  # Pillow keeps unsigned 32 bits in a signed type
        values = values.view(np.uint32)
    if values.size and values.min() < 0:
        raise DgpruneError(f"{what} holds negative numbers, down to {values.min()}; shift and scale it to [0, 1].")
    return (values / _largest(bits, signed=signed)).astype(np.float32)


def _as_tensor(images: Any, *, what: str) -> Tensor:
    """Return the images as a new tensor of numbers; channels that share their memory still share it."""
    if isinstance(images, Tensor):
        if images.is_complex() or images.is_meta or images.layout != torch.strided or images.is_quantized:
            raise DgpruneError(
                f"{what} must be dense real numbers; got {images.dtype}, {images.layout}"
                f"{' on the meta device' * images.is_meta}."
            )
        distinct = tuple(slice(0, 1) if step == 0 else slice(None) for step in images.stride())
        return images.detach()[distinct].clone().expand(images.shape)
    if isinstance(images, np.ma.MaskedArray) and np.ma.is_masked(images):
        raise DgpruneError(f"{what} must have no masked pixels; fill them: images.filled(0).")
    try:
        array = np.array(images)
        if array.dtype == object:
            array = array.astype(np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise DgpruneError(f"{what} must be numbers in an array of one shape ({error}).") from None
    if array.dtype.kind not in "buif":
        raise DgpruneError(f"{what} must be numbers; got {type(images).__name__} of {array.dtype}.")
    native = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    return torch.from_numpy(native.astype(np.float32) if native.dtype.itemsize > 8 else native)


def _check_layout(pixels: Tensor, *, what: str) -> Tensor:
    """Refuse images whose channels are the last axis, (H, W, C); return the others."""
    channels, height, width = pixels.shape[-3:]
    if width in _CHANNELS and channels not in _CHANNELS and min(channels, height) >= 8:
        order = (0, 3, 1, 2) if pixels.ndim == 4 else (2, 0, 1)
        names = "(N, C, H, W)" if pixels.ndim == 4 else "(C, H, W)"
        raise DgpruneError(
            f"{what}: images must be {names}; shape {tuple(pixels.shape)} has its channels at the end. Move them: "
            f"torch.as_tensor(images).permute{order}."
        )
    return pixels


def _scaled(pixels: Tensor, *, what: str, many: bool = False) -> Tensor:
    """Return the pixels: uint8 unchanged, other numbers as float32 in [0, 1]."""
    if pixels.dtype == torch.uint8:
        return pixels
    if pixels.dtype == torch.bool:
        return pixels.to(torch.uint8) * 255
    values = pixels.to(torch.float32)
    if pixels.dtype == torch.uint16:
        return values / _largest(16, signed=False)
    if not values.numel():
        return values
    low, high = (float(end) for end in torch.aminmax(values))  # NaN if any is
    if low >= 0 and high <= 1:
        return values
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return values.clamp(0, 1)
    finite = torch.isfinite(values)
    if not finite.all():
        bad = f"{int((~finite).flatten(1).any(1).sum())} images hold" if many else "it holds"
        raise DgpruneError(f"{what}: {bad} NaN or infinite pixels; remove or repair them.")
    extra = "" if pixels.is_floating_point() else f" and whole numbers be uint8 or uint16, not {pixels.dtype}"
    raise DgpruneError(
        f"{what}: float images must lie in [0, 1]{extra}; got {low:.6g} to {high:.6g}. Divide by 255, or pass uint8; "
        "leave normalisation to the network: dg.Study(normalise=(mean, std))."
    )
