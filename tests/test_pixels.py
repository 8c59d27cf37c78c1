"""Images of every stored kind: scaled by the range of their type, turned upright, copied, or refused in words."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features

import dgprune_lab as dg

SIDE = 16
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)


def folder_of(root: Path, **files: Any) -> dg.Domain:
    """One domain of one class that holds these pictures: PIL images, or bytes."""
    folder = root / "photo" / "dog"
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content) if isinstance(content, bytes) else content.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.DgpruneNote)
        return dg.data.from_folder(root, size=SIDE)["photo"]


def only(domain: dg.Domain) -> torch.Tensor:
    """(3, H, W) the first image as networks get it, float in [0, 1]."""
    return domain.take(torch.tensor([0])).images[0]


def png(values: np.ndarray) -> bytes:
    """A PNG of 16-bit RGB, which Pillow does not write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, content) for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def tiff(values: np.ndarray, *, bits: int, sample_format: int) -> bytes:
    """A grey TIFF of whole numbers or floats, written by hand."""
    height, width = values.shape
    content = values.tobytes()
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, len(content)), (339, 3, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    offset = struct.pack("<I", 8 + len(content))
    return b"II*\0" + offset + content + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def two_pages() -> bytes:
    """A TIFF of two pages, black and white."""
    import io

    stream = io.BytesIO()
    pages = [Image.new("L", (SIDE, SIDE), value) for value in (0, 255)]
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
    return stream.getvalue()


DEEP: dict[str, tuple[str, Any]] = {
    "16-bit PNG": ("a_png", Image.fromarray((RAMP * 65535).astype(np.uint16))),
    "16-bit TIFF": ("a_tif", Image.fromarray((RAMP * 65535).astype(np.uint16))),
    "16-bit big-endian PGM": ("a_pgm", b"P5 16 16 65535\n" + (RAMP * 65535).astype(">u2").tobytes()),
    "10-bit PGM": ("a_pgm", b"P5 16 16 1023\n" + (RAMP * 1023).astype(">u2").tobytes()),
    "32-bit signed TIFF": ("a_tif", Image.fromarray((RAMP * (2**31 - 1)).astype(np.int32))),
    "32-bit unsigned TIFF": ("a_tiff", tiff((RAMP * (2**32 - 1)).astype("<u4"), bits=32, sample_format=1)),
    "16-bit signed TIFF": ("a_tif", tiff((RAMP * 32767).astype("<i2"), bits=16, sample_format=2)),
    "8-bit signed TIFF": ("a_tif", tiff((RAMP * 127).astype("i1"), bits=8, sample_format=2)),
    "float TIFF": ("a_tif", Image.fromarray(RAMP.astype(np.float32))),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_image_files_are_scaled_by_the_range_of_their_type(kind: str, tmp_path: Path) -> None:
    name, content = DEEP[kind]
    image = only(folder_of(tmp_path, **{name: content}))
    tolerance = 1 / 127 if "8-bit" in kind else 1 / 1000
    assert image.dtype == torch.float32 and image.shape == (3, SIDE, SIDE)
    np.testing.assert_allclose(image.numpy(), np.broadcast_to(RAMP, (3, SIDE, SIDE)), atol=tolerance)


def test_a_16_bit_colour_png_keeps_its_colours(tmp_path: Path) -> None:
    values = np.full((SIDE, SIDE, 3), (65535, 32896, 0), np.uint16)
    image = only(folder_of(tmp_path, a_png=png(values)))
    torch.testing.assert_close(image[:, 0, 0], torch.tensor([1, 128 / 255, 0]), atol=1e-3, rtol=0)


def test_one_deep_file_makes_all_images_of_its_domain_float_with_nothing_lost(tmp_path: Path) -> None:
    faint = (RAMP * 400).astype(np.uint16)
    domain = folder_of(
        tmp_path,
        a_png=Image.fromarray(faint),
        b_png=Image.new("L", (SIDE, SIDE), 51),
        c_jpg=Image.new("L", (9, 9), 255),
    )
    images = domain.take(torch.arange(3)).images
    np.testing.assert_allclose(images[0, 0].numpy(), faint / 65535, atol=1e-7)
    torch.testing.assert_close(images[1:, 0, 0, 0], torch.tensor([0.2, 1.0]))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a_tif", Image.fromarray(RAMP.astype(np.float32) * 255), r"a\.tif.*must lie in \[0, 1\].*got 0 to 255"),
        ("a_tif", Image.fromarray(RAMP.astype(np.float32) * np.nan), r"a\.tif.*NaN"),
        ("a_tif", tiff(-(RAMP * 99).astype("<i2"), bits=16, sample_format=2), r"a\.tif.*negative numbers, down to -99"),
    ],
)
def test_files_whose_range_is_wrong_are_refused_by_name(name: str, content: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(dg.DgpruneError, match=words):
        only(folder_of(tmp_path, **{name: content}))


def test_palettes_cmyk_and_transparency_become_rgb(tmp_path: Path) -> None:
    orange = (255, 136, 0)
    palette = Image.new("RGB", (SIDE, SIDE), orange).quantize(4)
    palette.info["transparency"] = b"\x80" * 4
    pictures = {
        "a_png": palette,
        "b_gif": Image.new("RGB", (SIDE, SIDE), orange).quantize(4),
        "c_tif": Image.new("CMYK", (SIDE, SIDE), (0, 119, 255, 0)),
        "d_png": Image.new("RGBA", (SIDE, SIDE), (*orange, 7)),
        "e_png": Image.new("1", (SIDE, SIDE), 1),
        "f_png": Image.new("LA", (SIDE, SIDE), (102, 3)),
    }
    images = folder_of(tmp_path, **pictures).take(torch.arange(6)).images[:, :, 5, 5] * 255
    want = torch.tensor([orange] * 4 + [(255,) * 3, (102,) * 3], dtype=torch.float32)
    torch.testing.assert_close(images, want, atol=1.01, rtol=0)
    with pytest.warns(dg.DgpruneNote) as caught:
        dg.data.from_folder(tmp_path, size=SIDE)
    assert any("3 of 6 files hold transparency, which is dropped" in str(one.message) for one in caught)


def test_photographs_are_turned_upright_by_their_exif_tag(tmp_path: Path) -> None:
    values = np.zeros((8, 16, 3), np.uint8)
    values[:, :8] = 255  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise: the left becomes the top
    (tmp_path / "photo" / "dog").mkdir(parents=True)
    Image.fromarray(values).save(tmp_path / "photo" / "dog" / "a.png", exif=exif)
    image = only(folder_of_existing(tmp_path))
    assert image[:, :7].min() > 0.99 and image[:, 9:].max() < 0.01
    said = " ".join((dg.data.from_folder.__doc__ or "").split())
    assert "EXIF orientation tag, which DomainBed's loader does not do" in said


def test_several_pages_and_depths_are_said_once_per_domain(tmp_path: Path) -> None:
    folder = tmp_path / "photo" / "dog"
    folder.mkdir(parents=True)
    (folder / "a.tif").write_bytes(two_pages())
    for name in "bc":
        Image.fromarray((RAMP * 65535).astype(np.uint16)).save(folder / f"{name}.png")
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        domain = dg.data.from_folder(tmp_path, size=SIDE)["photo"]
        assert only(domain).max() == 0  # the first page
    said = [str(warning.message) for warning in raised if "files hold" in str(warning.message)]
    assert said == [
        "domain 'photo': 1 of 3 files hold 2 pages, of which the first is read; 2 of 3 files hold 16 bits, divided by "
        "65,535 (rescale files whose values use a smaller range)."
    ]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", *(["a.webp"] if features.check("webp") else [])])
def test_damaged_files_are_named(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "photo" / "dog"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / name)
    whole = (folder / name).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>", whole[:20]):
        (folder / name).write_bytes(content)
        with pytest.raises(dg.DgpruneError, match=rf"image .*{name} could not be read .*repair or remove it"):
            only(folder_of_existing(tmp_path))


def folder_of_existing(root: Path) -> dg.Domain:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.DgpruneNote)
        return dg.data.from_folder(root, size=SIDE)["photo"]


SPLITS = {"train": [0], "score": [1], "report": [2]}
FLOATS = np.random.default_rng(1).random((3, 3, 8, 8))
BYTES = np.arange(3 * 3 * 8 * 8, dtype=np.uint8).reshape(3, 3, 8, 8)


def pixels(images: Any) -> torch.Tensor:
    return dg.Domain.from_arrays("a", images=images, splits=SPLITS).take(torch.arange(3)).images


ARRAYS: dict[str, tuple[Any, np.ndarray]] = {
    "big-endian floats": (FLOATS.astype(">f4"), FLOATS),
    "big-endian bytes": (BYTES.astype(">u1"), BYTES / 255),
    "16 bits": ((FLOATS * 65535).astype(np.uint16), FLOATS),
    "big-endian 16 bits": ((FLOATS * 65535).astype(">u2"), FLOATS),
    "tensor of 16 bits": (torch.from_numpy((FLOATS * 65535).astype(np.uint16)), FLOATS),
    "object array of numbers": (FLOATS.astype(object), FLOATS),
    "object array of images": (np.array([*FLOATS, None], dtype=object)[:3], FLOATS),
    "list of tensors": ([torch.from_numpy(image) for image in BYTES], BYTES / 255),
    "list of PIL images": ([Image.fromarray(image.transpose(1, 2, 0).copy()) for image in BYTES], BYTES / 255),
    "half": (torch.from_numpy(FLOATS).half(), FLOATS),
    "bfloat16": (torch.from_numpy(FLOATS).bfloat16(), FLOATS),
    "long double": (FLOATS.astype(np.longdouble), FLOATS),
    "bool": (FLOATS > 0.5, (FLOATS > 0.5).astype(float)),
    "reversed view": (FLOATS[::-1, :, ::-1], FLOATS[::-1, :, ::-1]),
    "with a gradient": (torch.from_numpy(FLOATS).requires_grad_(), FLOATS),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_any_type_and_byte_order(kind: str) -> None:
    given, want = ARRAYS[kind]
    np.testing.assert_allclose(pixels(given).numpy(), want, atol=1 / 250 if kind == "bfloat16" else 1 / 2000)


@pytest.mark.parametrize("made", ["arrays", "dataset"])
def test_dropped_transparency_of_pictures_in_memory_is_said_once(made: str) -> None:
    keyed = Image.new("RGB", (8, 8))
    keyed.info["transparency"] = (0, 0, 0)
    pictures = [Image.new("RGBA", (8, 8), (255, 136, 0, 7)), Image.new("RGB", (8, 8), (255, 136, 0)), keyed]
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        if made == "arrays":
            domain = dg.Domain.from_arrays("a", images=pictures, splits=SPLITS)
        else:
            domain = dg.Domain.from_dataset("a", [(picture, 0) for picture in pictures], splits=SPLITS)
        images = domain.take(torch.arange(3)).images
    assert (images[0] == images[1]).all() and images.shape == (3, 3, 8, 8)
    count = "2 of 3 images" if made == "arrays" else "images"
    assert [str(warning.message) for warning in raised] == [
        f"domain 'a': {count} hold transparency, which is dropped (a transparent pixel gets the colour that is stored "
        "with it)."
    ]


def test_numbers_that_leave_the_range_by_rounding_are_taken() -> None:
    taken = pixels(np.float32(FLOATS / FLOATS.max() * (1 + 1e-6)))
    assert taken.max() == 1 and taken.min() >= 0


def test_an_object_array_holds_its_images_apart() -> None:
    held = np.empty(3, dtype=object)
    held[:] = list(BYTES)
    np.testing.assert_allclose(pixels(held).numpy(), BYTES / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (BYTES.astype(np.int64), r"whole numbers be uint8 or uint16, not torch\.int64; got 0 to 255"),
        (FLOATS * 0.5 + 0.501, r"got 0\.50[0-9]* to 1\.00"),
        (FLOATS * 2 - 1, r"must lie in \[0, 1\]; got -.* dg.Study\(normalise=\(mean, std\)\)"),
        (FLOATS.transpose(0, 2, 3, 1), r"has its channels at the end.*permute\(0, 3, 1, 2\)"),
        (np.array(["a"]), r"must be numbers; got ndarray of <U1"),
        (FLOATS + 1j, r"must be numbers"),
        (torch.zeros(3, 3, 8, 8, dtype=torch.complex64), r"must be dense real numbers"),
        ([torch.zeros(3, 8, 8), torch.zeros(3, 9, 8)], r"one size; the first is 3 x 8 x 8, image 1 3 x 9 x 8"),
        (np.ma.masked_greater(FLOATS, 0.5), r"images must have no masked pixels.*filled"),
        (["a.png", "b.png"], r"image 0 must be numbers"),
        ([Image.fromarray(np.zeros((8, 8), np.int32))], r"mode I without a file"),
    ],
)
def test_arrays_that_are_no_images_are_refused(images: Any, words: str) -> None:
    with pytest.raises(dg.DgpruneError, match=words):
        pixels(images)


@pytest.mark.parametrize("images", [FLOATS.astype(np.uint8) + BYTES // 255, BYTES.astype(np.uint16)], ids=str)
def test_numbers_of_a_smaller_range_than_their_type_are_said(images: Any) -> None:
    with pytest.warns(dg.DgpruneNote, match=r"brightest pixel of all images is 0\.003\d*, so.*almost black"):
        pixels(images)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.float64, np.uint16])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_one_buffer_filled_for_each_domain_makes_different_domains(dtype: Any, as_tensor: bool) -> None:
    buffer, labels, rows = np.zeros((3, 3, 8, 8), dtype), np.zeros(3, np.int64), np.zeros(1, np.int64)
    domains = []
    for number in range(3):
        buffer[:] = number * (100 if dtype == np.uint8 else 20_000 if dtype == np.uint16 else 0.25)
        labels[:], rows[:] = number, number
        given = [torch.from_numpy(part) if as_tensor else part for part in (buffer, labels, rows)]
        domains.append(
            dg.Domain.from_arrays(str(number), images=given[0], labels=given[1], splits={"report": given[2]})
        )
    if np.issubdtype(dtype, np.floating):
        buffer[:] = np.nan
    first = [float(domain.take(torch.tensor([0])).images.max()) for domain in domains]
    assert len(set(first)) == 3 and not any(np.isnan(first))
    assert [int(domain.labels[0]) for domain in domains] == [0, 1, 2]  # type: ignore[index]
    assert [int(domain.rows("report")[0]) for domain in domains] == [0, 1, 2]


def test_channels_that_share_their_memory_still_do() -> None:
    grey = torch.rand(3, 1, 8, 8)
    domain = dg.Domain.from_arrays("a", images=grey.expand(-1, 3, -1, -1), splits=SPLITS)
    assert domain.images.untyped_storage().nbytes() == grey.nbytes
    assert torch.equal(domain.take(torch.arange(3)).images[:, 2], grey[:, 0])
