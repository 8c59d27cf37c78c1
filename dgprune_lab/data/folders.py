"""Domains from folders of images in DomainBed's layout: domain/class/image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from ..core import Count, DgpruneError, Domain, Seed, listed_names, note, public
from .image_files import JPEG, SUFFIXES, kind_of_file, read_image

_TEXT = (".txt", ".md", ".csv", ".json", ".yaml", ".yml", ".xml", ".html", ".db", ".ini", ".pdf", ".py")
_LISTED = 4


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Image files that are read when needed: an item is the image (3, size, size) and its label; see `read_image`.

    Images are uint8; if any file holds more than 8 bits per channel, all images are float32 in [0, 1].

    Attributes:
        kinds: kind of file other than 8-bit grey or RGB, in words -> number of such files; read from their headers.
    """

    def __init__(self, files: Sequence[Path], labels: Sequence[int], *, size: int) -> None:
        self.files, self.targets, self.size = list(files), list(labels), size
        held = [kind_of_file(path) for path in self.files if path.suffix.lower() not in JPEG]
        self.deep = any(kind.deep for kind in held)
        self.kinds = Counter(kind.words for kind in held if kind.words)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return read_image(self.files[index], size=self.size, deep=self.deep), self.targets[index]


class _Found(NamedTuple):
    """The image files of a domain by class, and the other files in its folder."""

    groups: dict[str, list[Path]]
    left_out: list[Path]


@public
def from_folder(root: str | Path, *, size: Count = 224, seed: Seed = 0) -> dict[str, Domain]:
    """Make one domain from each subfolder of a folder laid out as PACS, OfficeHome and VLCS: `root/domain/class/image`.

    A label is the position of the class folder's name among the sorted names of all domains (`class_names`), so it
    means the same in every domain, even if a domain lacks a class (a note names such classes). Class folders may lie
    one level deeper, `root/domain/images/class/image`. Each domain is divided 60 / 20 / 20 into train, score and
    report. Notes report this division, files that were left out (except hidden and text files), and files with several
    pages or more than 8 bits per channel. Images are read when needed.

    Args:
        root: the folder that holds one folder per domain.
        size: height and width in pixels to which every image is resized.
        seed: random seed of the division into splits.

    Returns:
        Domains by the names of their folders, sorted; images are (N, 3, size, size), see `ImageFiles`.

    Raises:
        DgpruneError: no such folder, no domain with images in it, a domain whose class folders lie in several folders
            or deeper, a size below one, an image that cannot be read.

    Source: the layout of Gulrajani & Lopez-Paz, In Search of Lost Domain Generalization, ICLR 2021 (DomainBed).
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise DgpruneError(f"{base} is not a folder; from_folder needs one that holds domain/class/image.")
    try:
        every = {folder.name: _find(folder) for folder in _folders(base)}
    except OSError as error:
        raise DgpruneError(f"{error.filename} cannot be read: {error.strerror or error}.") from error
    by_domain = {name: found for name, found in every.items() if found.groups}
    if not by_domain:
        raise DgpruneError(
            f"{base} holds no images as domain/class/image (class folders inside domain folders, files ending in "
            f"{', '.join(SUFFIXES)}). A single domain needs its own folder around its class folders."
        )
    _note_left_out(base, [*_files(base), *(path for found in every.values() for path in found.left_out)])
    classes = sorted({name for found in by_domain.values() for name in found.groups})
    _note_classes({name: set(found.groups) for name, found in by_domain.items()}, classes)
    return {
        name: _domain(name, found.groups, classes=classes, size=size, seed=seed, base=base)
        for name, found in by_domain.items()
    }


def _domain(
    name: str, groups: dict[str, list[Path]], *, classes: list[str], size: int, seed: int, base: Path
) -> Domain:
    files = [path for group in groups.values() for path in group]
    labels = [classes.index(key) for key, group in groups.items() for _ in group]
    images = ImageFiles(files, labels, size=size)
    if images.kinds:
        listed = "; ".join(f"{count} of {len(files)} files hold {words}" for words, count in images.kinds.items())
        note(f"domain {name!r}: {listed}.")
    return Domain.from_dataset(
        name,
        images,
        classes=classes,
        seed=seed,
        origin=f"folder {base.name}/{name}, resized to {size} x {size}; classes: {', '.join(classes)}",
    )


def _find(folder: Path, *, deeper: bool = True) -> _Found:
    """Find the class folders of a domain: in its folder, or in the only subfolder of it.

    Raises:
        DgpruneError: images that lie deeper, or below several folders that are no class folders.
    """
    groups, folders = _by_class(folder), _folders(folder)
    others = [inner for inner in folders if inner.name not in groups and any(map(_is_image, inner.rglob("*")))]
    if not groups and deeper and len(others) == 1:
        inner = _find(others[0], deeper=False)
        return _Found(inner.groups, [*_files(folder), *inner.left_out])
    if not groups and others:
        names = [inner.name for inner in others]
        raise DgpruneError(
            f"{folder} holds images too deep for domain/class/image, below {_some(names)}. If these are the domains, "
            f"pass root={str(folder)!r}; if they are the splits of one domain, put their images into one class folder "
            "per class."
        )
    beside = [
        path for name, images in groups.items() for path in _files(folder / name, deep=True) if path not in set(images)
    ]
    return _Found(groups, [*_files(folder), *beside, *(path for inner in others for path in _files(inner, deep=True))])


def _note_left_out(base: Path, files: Sequence[Path]) -> None:
    if files:
        listed = _some([str(path.relative_to(base)) for path in files])
        note(f"from_folder left out {len(files)} files that do not lie as domain/class/image: {listed}.")


def _note_classes(held: dict[str, set[str]], classes: list[str]) -> None:
    lacking = {name: [word for word in classes if word not in words] for name, words in held.items()}
    if any(lacking.values()):
        listed = "; ".join(f"{name!r} has no image of {_some(words)}" for name, words in lacking.items() if words)
        note(f"the domains hold different classes: {listed}. Labels are numbered alike: {listed_names(classes)}.")


def _some(names: Sequence[str]) -> str:
    """The first few of many names, as text."""
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _folders(base: Path) -> list[Path]:
    """The folders inside a folder, sorted, without hidden ones."""
    return sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(base: Path, *, deep: bool = False) -> list[Path]:
    """The files inside a folder that are neither hidden nor text files, sorted."""
    paths: Iterable[Path] = base.rglob("*") if deep else base.iterdir()
    return sorted(
        path for path in paths if path.is_file() and not path.name.startswith(".") and path.suffix.lower() not in _TEXT
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _by_class(domain: Path) -> dict[str, list[Path]]:
    """Class folder -> its image files, sorted, for each class folder that has any."""
    groups = {folder.name: sorted(filter(_is_image, folder.iterdir())) for folder in _folders(domain)}
    return {name: files for name, files in groups.items() if files}
