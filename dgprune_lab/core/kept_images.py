"""Decoded images of a data set, kept in memory or in a file, so that none is decoded twice."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import numpy as np
import platformdirs
import torch
from torch import Tensor

from .errors import DgpruneError, note
from .files import at_home
from .locks import Lock
from .memory import memory

SHARE = 0.25
"""Share of the available memory that all kept images of this process may take together."""
DISK = 8 * 2**30
"""Bytes that all files of kept images may take together, but never more than half of the free disk space."""
_CHUNK = 32 * 2**20
_ADVICE = "Lower size=, or set DGPRUNE_CACHE to a folder on a larger disk."

Place = tuple[str, int]
_lock = Lock()
_reserved = 0


class KeptImages:
    """Decoded images of one data set by their position, all of one shape and type.

    They stay in memory if all images of the data set fit into `SHARE` of it; otherwise in a file in the cache folder
    (see `cache_folder`), which later processes reuse if the data set has a `content`; without a file, as many as fit
    stay in memory, with a note. Two processes may fill one file: both write the same pixels, each image is written
    before its checksum, and an image whose checksum differs counts as not kept.

    Args:
        shape: (N, C, H, W).
        dtype: uint8 or float32.
        content: function that returns a name for the pixels (equal only for equal pixels), called only if a file is
            needed; None if the data set has none.
        what: the first words of a note, such as "domain 'mine'".
        place: the `place` where another process keeps these images; if it is gone, they are decoded again.
        in_file: whether to keep them in a file even if they fit into memory.
    """

    def __init__(
        self,
        shape: torch.Size,
        dtype: torch.dtype,
        *,
        content: Callable[[], str] | None,
        what: str,
        place: Place | None = None,
        in_file: bool = False,
    ) -> None:
        self.dtype, self._image, self._what, self._content = dtype, shape[1:], what, content
        self._bytes = self._image.numel() * dtype.itemsize
        self._slots = torch.full((shape[0],), -1, dtype=torch.int64)  # position -> place in the chunks
        self._chunks: list[Tensor] = []
        self._size = min(shape[0], max(1, _CHUNK // self._bytes))  # images of a chunk
        self._used, self._full, self._file = 0, False, None
        self._fits_memory = False  # all images together
        if place is not None and self._open(shape, place=place):
            return
        self._fits_memory = not in_file and self._reserve(shape[0] * self._bytes)
        if not self._fits_memory and self._open(shape) and not in_file:
            size = shape[0] * self._bytes / 1e9
            note(
                f"{what}: {shape[0]:,} decoded images take {size:.2g} GB, more than {100 * SHARE:.0f} % of the "
                f"available memory; they are kept in {cache_folder()}. Set DGPRUNE_CACHE to another folder or to 'off'."
            )

    @property
    def place(self) -> Place | None:
        """Path and inode of the file of images, which other processes can open as long as this object exists."""
        if self._file is None:
            return None
        name = self._file.name  # a number, where the file has no name
        path = name if isinstance(name, str) else f"/proc/{os.getpid()}/fd/{name}"
        return path, os.fstat(self._file.fileno()).st_ino

    def moved_to_file(self) -> KeptImages:
        """Return the same images kept in a file, for other processes; self if no file can be made."""
        shape = torch.Size((len(self._slots), *self._image))
        if self._file is not None or not self._used:
            return self
        moved = KeptImages(shape, self.dtype, content=self._content, what=self._what, in_file=True)
        for position in [] if moved._file is None else moved.missing((self._slots >= 0).nonzero().flatten()):
            moved.keep(position, self[torch.tensor([position])][0])
        return self if moved._file is None else moved

    def missing(self, rows: Tensor) -> list[int]:
        """Return those row numbers among `rows` whose images are not kept yet, without repeats."""
        absent = rows[self._slots[rows] < 0].unique()
        if self._file is not None:
            for position in absent[torch.from_numpy(self._sums[absent.numpy()] != 0)].tolist():
                if int(self._sums[position]) == _checksum(self._chunks[0][position]):
                    self._slots[position] = position  # another process has decoded it
            absent = absent[self._slots[absent] < 0]
        return absent.tolist()

    def keep(self, position: int, pixels: Tensor) -> bool:
        """Keep an image; return whether there was room for it."""
        if self._file is not None:
            return self._write(position, pixels)
        if not self._full and self._used == len(self._chunks) * self._size:
            self._grow()
        if self._full:
            return False
        self._chunks[-1][self._used % self._size] = pixels
        self._slots[position] = self._used
        self._used += 1
        return True

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the images at these positions (B, C, H, W); all of them must be kept.

        uint8 images that are adjacent in memory, as after a first pass in the same order, are not copied: never write
        to the result.
        """
        slots = self._slots[rows]
        numbers = slots // self._size
        first = int(slots[0]) if len(slots) else 0
        if len(slots) and (numbers == numbers[0]).all():
            chunk, start = self._chunks[int(numbers[0])], first % self._size
            if self.dtype == torch.uint8 and torch.equal(slots, torch.arange(first, first + len(slots))):
                return chunk[start : start + len(slots)]
            return chunk.index_select(0, slots % self._size)
        images = torch.empty((len(rows), *self._image), dtype=self.dtype)
        for number in numbers.unique().tolist():
            in_chunk = numbers == number
            images[in_chunk] = self._chunks[number].index_select(0, slots[in_chunk] % self._size)
        return images

    def _grow(self) -> None:
        """Add a chunk of memory, or note that there is no room for one."""
        if not self._fits_memory and not self._reserve(self._size * self._bytes):
            self._full = True
            note(
                f"{self._what}: {self._used:,} of {len(self._slots):,} decoded images are kept, which is all that fits "
                f"into {100 * SHARE:.0f} % of the available memory; the others are decoded each time. {_ADVICE}"
            )
            return
        self._chunks.append(torch.empty((self._size, *self._image), dtype=self.dtype))

    def _reserve(self, size: int) -> bool:
        """Reserve memory until this object is gone; return whether there was room for it."""
        global _reserved
        with _lock:
            fits = _reserved + size <= SHARE * (memory().available + _reserved)
            _reserved += size * fits
        if fits:
            weakref.finalize(self, _release, size)
        return fits

    def _open(self, shape: torch.Size, *, place: Place | None = None) -> bool:
        """Open a new file for the images, or another process's file at `place`; return whether it could be opened."""
        folder, pixels = cache_folder(), shape[0] * self._bytes
        if folder is None and place is None:
            return False
        padded = -(-pixels // 8) * 8  # the checksums follow, 8 bytes each
        try:
            if place is None:
                assert folder is not None
                name = None if self._content is None else f"{self._content()} {tuple(shape)} {self.dtype}"
                file = _open_file(folder / "images", padded + 8 * shape[0], name=name)
            else:
                status = os.stat(place[0])
                if (status.st_ino, status.st_size) != (place[1], padded + 8 * shape[0]):
                    return False
                file = Path(place[0]).open("r+b", buffering=0)  # noqa: SIM115 - open as long as the images are kept
            weakref.finalize(self, file.close)
            numbers = np.uint8 if self.dtype == torch.uint8 else np.float32
            mapped = np.memmap(file, dtype=numbers, mode="r+", shape=tuple(shape))
            self._sums = np.asarray(np.memmap(file, dtype=np.int64, mode="r+", offset=padded, shape=(shape[0],)))
        except (OSError, ValueError) as error:  # a full disk, a folder that cannot be written, a limit on memory
            if place is None:
                why = str(error).rstrip(".")
                note(f"{self._what}: decoded images cannot be kept in {folder} ({why}). {_ADVICE}")
            return False
        self._file, self._padded = file, padded
        self._chunks, self._size = [torch.from_numpy(np.asarray(mapped))], shape[0]
        return True

    def _write(self, position: int, pixels: Tensor) -> bool:
        """Write an image, then its checksum, into the file."""
        data = pixels.to(self.dtype).contiguous()
        try:
            for offset, part in (
                (position * self._bytes, data.numpy().tobytes()),
                (self._padded + 8 * position, np.int64(_checksum(data)).tobytes()),
            ):
                _write_at(self._file, part, offset)
        except OSError as error:  # the disk is full
            if not self._full:
                self._full = True
                note(f"{self._what}: further decoded images cannot be kept ({error.strerror}). {_ADVICE}")
            return False
        self._slots[position] = position
        return True


def cache_folder() -> Path | None:
    """Return the folder for cached files: DGPRUNE_CACHE, or the user's cache folder; None if the variable is "off"."""
    setting = os.environ.get("DGPRUNE_CACHE", "").strip()
    if setting.lower() == "off":
        return None
    return at_home(setting) if setting else Path(platformdirs.user_cache_dir("dgprune-lab"))


def _release(size: int) -> None:
    global _reserved
    with _lock:
        _reserved -= size


def _open_file(folder: Path, size: int, *, name: str | None) -> BinaryIO:
    """Open a file of `size` bytes, zero where unwritten; it is shared under a hash of `name`, or unnamed if None.

    Raises:
        DgpruneError, OSError: no room, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{hashlib.blake2b((name or '').encode(), digest_size=16).hexdigest()}.pixels"
    if name is not None and path.is_file() and path.stat().st_size == size:
        os.utime(path)  # the files used last are removed last
        return path.open("r+b", buffering=0)
    _make_room(folder, size)
    if name is None:
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - open as long as the images are kept
        file.truncate(size)
        return file  # type: ignore[return-value]
    new = path.with_name(f"{uuid4().hex}.pixels")
    with new.open("xb") as file:
        file.truncate(size)
    os.replace(new, path)
    return path.open("r+b", buffering=0)


def _make_room(folder: Path, size: int) -> None:
    """Remove the least recently used files until a new file fits; refuse a file that is too large even then."""
    files = sorted(((path.stat().st_mtime, path) for path in folder.glob("*.pixels")), reverse=True)
    sizes = [(_disk_usage(path), path) for _, path in files]
    limit = min(DISK, shutil.disk_usage(folder).free // 2 + sum(used for used, _ in sizes))
    if size > limit:
        raise DgpruneError(f"{size / 1e9:.2g} GB are needed, {limit / 1e9:.2g} GB may be used.")
    while sizes and size + sum(used for used, _ in sizes) > limit:
        sizes.pop()[1].unlink(missing_ok=True)


def _disk_usage(path: Path) -> int:
    status = path.stat()
    return getattr(status, "st_blocks", -(-status.st_size // 512)) * 512


def _write_at(file: BinaryIO | None, data: bytes, offset: int) -> None:
    """Write all bytes at an offset of a file; with `pwrite`, processes that share the file do not interfere."""
    assert file is not None
    if not hasattr(os, "pwrite"):
        file.seek(offset)
        file.write(data)
        return
    while data:
        written = os.pwrite(file.fileno(), data, offset)
        data, offset = data[written:], offset + written


def _checksum(pixels: Tensor) -> int:
    """Return the checksum of an image, always above 0, because 0 marks an image that is not kept."""
    return zlib.crc32(pixels.numpy().data) + 1
