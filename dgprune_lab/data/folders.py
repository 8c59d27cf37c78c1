"""Domains from folders of images in DomainBed's layout, domain/class/image, and a domain written as such a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..core import Count, DgpruneError, Domain, Pixels, Seed, at_home, late_bar, listed_names, note, public, unknown
from .image_files import SUFFIXES, ImageFiles, Resize, broken_file

_TEXT = (".txt", ".md", ".csv", ".json", ".yaml", ".yml", ".xml", ".html", ".db", ".ini", ".pdf", ".py")
_DOMAINBED = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision IMG_EXTENSIONS
_FIRST = 4
_HELD_OUT = 0.2  # DomainBed's --holdout_fraction, as it is by default

Splits = Mapping[str, float] | Literal["domainbed"] | None


class _DomainFiles(NamedTuple):
    """The image files of a domain by class, the other files in its folder, and the folders without any image."""

    groups: dict[str, list[Path]]
    left_out: list[Path]
    empty: list[Path]


@public
def from_folder(
    root: str | Path,
    *,
    size: Pixels = 224,
    resize: Resize = "stretch",
    splits: Splits = None,
    hold_out: str | Sequence[str] = (),
    broken: Literal["raise", "skip"] = "raise",
    seed: Seed = 0,
) -> dict[str, Domain]:
    """Make one domain from each subfolder of a folder laid out as PACS, OfficeHome and VLCS: `root/domain/class/image`.

    A label is the position of the class folder's name among the sorted names of all domains (`class_names`), so it
    means the same in every domain, even if a domain lacks a class (a note names such classes). Class folders may lie
    one level deeper, `root/domain/images/class/image`. Notes report files that were left out (except hidden and text
    files), folders without images, and files with several pages, transparency or more than 8 bits per channel. A broken
    link counts as an image that cannot be read. An image is decoded when it is first needed, and kept: in memory, or in
    a file of the cache folder (environment variable DGPRUNE_CACHE, "off" for none; by default the user's cache folder)
    if all images of the domain take more than a quarter of the memory.

    Args:
        root: the folder that holds one folder per domain.
        size: height and width in pixels to which every image is resized.
        resize: "stretch" resizes the whole image, without keeping its aspect ratio, as DomainBed does; "crop" resizes
            its central square. Before that, images are turned upright by their EXIF orientation tag, which DomainBed's
            loader does not do: photographs with such a tag have different pixels there.
        splits: shares of each domain that add up to 1, stratified by class, as in {"train": 0.8, "score": 0.1,
            "report": 0.1}; None: 60 / 20 / 20, with a note. "domainbed" repeats DomainBed's own division, if
            root holds the same domains, with `seed` as its trial_seed: the 80 % it trains on are `train`, the other
            20 % are halved into `score` and `report`.
        hold_out: names of domains that the network has not been trained on. All their images are in `report`, so a
            target-aware scorer has nothing to read there unless it reads `report` too (split="report"), which the table
            then states.
        broken: "raise" refuses an image that cannot be read, when it is read; "skip" reads all images at once, which
            takes as long as decoding them, leaves out those that cannot be read, and lists them in a note.
        seed: random seed of the division into splits.

    Returns:
        Domains by the names of their folders, sorted; images are (N, 3, size, size), see `ImageFiles`.

    Raises:
        DgpruneError: no such folder, no domain with images in it, a domain whose class folders lie in several folders
            or deeper, an image that cannot be read, shares that do not add up to 1, no domain of a name in `hold_out`;
            "domainbed" for folders in which DomainBed reads other files.

    Source: the layout, and the division `splits="domainbed"`, of Gulrajani & Lopez-Paz, In Search of Lost Domain
    Generalization, ICLR 2021 (DomainBed; `split_dataset` in domainbed/lib/misc.py with --holdout_fraction 0.2).
    """
    base = at_home(root)
    by_domain = _read_domains(base)
    held_out = [hold_out] if isinstance(hold_out, str) else list(hold_out)
    for name in held_out:
        if name not in by_domain:
            raise unknown("domain in hold_out", name, by_domain)
    if splits == "domainbed":
        _refuse_other_files(base, [content for name, content in by_domain.items() if name not in held_out])
    classes = sorted({name for content in by_domain.values() for name in content.groups})
    domains, present = {}, dict[str, set[str]]()
    for environment, (name, content) in enumerate(by_domain.items()):
        files = [path for group in content.groups.values() for path in group]
        labels = [classes.index(key) for key, group in content.groups.items() for _ in group]
        readable = _find_readable(name, files, size=size, resize=resize) if broken == "skip" else [*range(len(files))]
        present[name] = {classes[labels[k]] for k in readable}
        images = ImageFiles([files[k] for k in readable], [labels[k] for k in readable], size=size, resize=resize)
        _note_kinds(name, images)
        rows: Mapping[str, float | list[int]] | None = None
        if name in held_out:
            rows = {"report": 1.0}
        elif splits == "domainbed":
            place = {file: row for row, file in enumerate(readable)}
            divided = _domainbed_splits(len(files), environment=environment, trial_seed=seed)
            rows = {key: [place[k] for k in numbers if k in place] for key, numbers in divided.items()}
        elif isinstance(splits, Mapping):
            rows = {key: float(share) for key, share in splits.items()}
        resizing = f"resized to {size} x {size}" + (", central square" if resize == "crop" else "")
        domains[name] = Domain.from_dataset(
            name,
            images,
            classes=classes,
            splits=rows,
            seed=seed,
            origin=f"folder {base.resolve().name}/{name}, {resizing}; classes: {', '.join(classes)}",
        )
    _note_classes(present, classes)
    return domains


@public
def to_folder(domain: Domain, folder: str | Path, *, split: str = "train", images: Count | None = None) -> None:
    """Write images of a domain as PNG files `folder/class/row.png`, which `from_folder` reads as one domain.

    Channels of more than 8 bits are rounded to 8.

    Args:
        domain: a domain with labels.
        folder: a new or empty folder; to write several domains, put their folders side by side in one folder.
        split: the split whose images are written.
        images: only the first `images` images of the split; None for all.

    Raises:
        DgpruneError: no labels, no such split, a class whose name cannot be that of a folder, or a folder that is
            not empty.
    """
    from torchvision.utils import save_image

    path = at_home(folder)
    if domain.labels is None:
        raise DgpruneError(f"domain {domain.name!r} has no labels, so no class folder for its images.")
    rows = domain.rows(split, images)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DgpruneError(f"folder {str(path)!r} is not empty; give a new one.")
    names = {domain.class_label(int(label)) for label in domain.labels[rows]}
    if invalid := [name for name in names if name.startswith(".") or Path(name).name != name or "\\" in name]:
        raise DgpruneError(f"the class {invalid[0]!r} cannot be the name of a folder; rename the class.")
    for image, row in zip(domain.take(rows).images, rows.tolist(), strict=True):
        kind = path / domain.class_label(int(domain.labels[row]))
        kind.mkdir(parents=True, exist_ok=True)
        save_image(image, kind / f"{row}.png")


def _read_domains(base: Path) -> dict[str, _DomainFiles]:
    """Return domain -> its image files, sorted by name; a note reports the files that belong to no domain."""
    if not base.is_dir():
        raise DgpruneError(f"{base} is not a folder; from_folder needs one that holds domain/class/image.")
    try:
        contents = {folder.name: _find_files(folder) for folder in _folders(base)}
    except OSError as error:
        raise DgpruneError(f"{error.filename} cannot be read: {error.strerror or error}.") from error
    by_domain = {name: content for name, content in contents.items() if content.groups}
    if not by_domain:
        raise DgpruneError(
            f"{base} holds no images as domain/class/image (class folders inside domain folders, files ending in "
            f"{', '.join(SUFFIXES)}). A single domain needs its own folder around its class folders."
        )
    if left_out := [*_files(base), *(path for content in contents.values() for path in content.left_out)]:
        paths = _list_first([str(path.relative_to(base)) for path in left_out])
        note(f"from_folder left out {len(left_out)} files that do not lie as domain/class/image: {paths}.")
    classes = {name for content in by_domain.values() for name in content.groups}
    if empty := [path for content in contents.values() for path in content.empty if path.name not in classes]:
        paths = _list_first([str(path.relative_to(base)) for path in empty])
        note(f"from_folder: folders without an image are neither domains nor classes: {paths}.")
    return by_domain


def _refuse_other_files(base: Path, domains: Sequence[_DomainFiles]) -> None:
    """Refuse folders in which DomainBed (torchvision's ImageFolder) reads other files, since its division would differ.

    DomainBed reads all images below a class folder, hidden ones too, and fails at a class folder without images.
    """
    ours = {path for content in domains for group in content.groups.values() for path in group}
    folders = {path.parent for path in ours}
    theirs = {path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in _DOMAINBED}
    if differ := sorted(str(path.relative_to(base)) for path in ours ^ theirs):
        raise DgpruneError(
            f"splits='domainbed' repeats DomainBed's division only where both read the same files, and {len(differ)} "
            f"are read by one alone: {_list_first(differ)}. DomainBed reads {', '.join(_DOMAINBED)}, also deeper in "
            "class folders, and hidden files. Move these files away if DomainBed did not have them, or give shares."
        )


def _find_readable(name: str, files: Sequence[Path], *, size: int, resize: Resize) -> list[int]:
    """Return the positions of the files that can be read; a note lists the others."""
    with ThreadPoolExecutor() as pool:  # Pillow decodes without holding the interpreter's lock
        results = pool.map(lambda path: broken_file(path, size=size, resize=resize), files)
        problems = list(late_bar(results, label=f"domain {name!r}: images read", total=len(files)))
    bad = [f"{path.parent.name}/{path.name} ({why})" for path, why in zip(files, problems, strict=True) if why]
    if len(bad) == len(files):
        raise DgpruneError(f"domain {name!r}: none of its {len(files)} image files can be read: {_list_first(bad)}.")
    if bad:
        note(f"domain {name!r}: {len(bad)} of {len(files)} files cannot be read and are left out: {_list_first(bad)}.")
    return [k for k, why in enumerate(problems) if why is None]


def _domainbed_splits(count: int, *, environment: int, trial_seed: int) -> dict[str, list[int]]:
    """Return DomainBed's division of the domain with this number; its held-out part is halved in order."""
    text = str((trial_seed, environment))
    number = int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), 16) % 2**31
    order = np.random.RandomState(number).permutation(count).tolist()
    held_out = int(count * _HELD_OUT)
    return {"train": order[held_out:], "score": order[: held_out // 2], "report": order[held_out // 2 : held_out]}


def _note_kinds(name: str, images: ImageFiles) -> None:
    if images.kinds:
        text = "; ".join(f"{count} of {len(images)} files hold {kind}" for kind, count in images.kinds.items())
        note(f"domain {name!r}: {text}.")


def _find_files(folder: Path, *, deeper: bool = True) -> _DomainFiles:
    """Find the class folders of a domain in its folder or that folder's only subfolder; refuse images elsewhere."""
    folders = _folders(folder)
    by_name = {inner.name: sorted(filter(_is_image, inner.iterdir())) for inner in folders}
    groups = {name: files for name, files in by_name.items() if files}
    others = [inner for inner in folders if inner.name not in groups and any(map(_is_image, inner.rglob("*")))]
    empty = [inner for inner in folders if inner.name not in groups and inner not in others]
    if not groups and deeper and len(others) == 1:
        inner = _find_files(others[0], deeper=False)
        return _DomainFiles(inner.groups, [*_files(folder), *inner.left_out], [*empty, *inner.empty])
    if not groups and others:
        names = [inner.name for inner in others]
        raise DgpruneError(
            f"{folder} holds images too deep for domain/class/image, below {_list_first(names)}. If these are domains, "
            f"pass root={str(folder)!r}; if they are the splits of one domain, put their images into one class folder "
            "per class."
        )
    known = {path for images in groups.values() for path in images}
    beside = [path for name in groups for path in _files(folder / name, deep=True) if path not in known]
    left_out = [*_files(folder), *beside, *(path for inner in others for path in _files(inner, deep=True))]
    return _DomainFiles(groups, left_out, empty if groups else [folder] * (not left_out))


def _note_classes(present: dict[str, set[str]], classes: list[str]) -> None:
    lacking = {name: [label for label in classes if label not in names] for name, names in present.items()}
    if any(lacking.values()):
        text = "; ".join(f"{name!r} has no image of {_list_first(names)}" for name, names in lacking.items() if names)
        note(f"the domains hold different classes: {text}. Labels are numbered alike: {listed_names(classes)}.")


def _list_first(names: Sequence[str]) -> str:
    """Return the first few of many names, as text."""
    return ", ".join(names[:_FIRST]) + (f" and {len(names) - _FIRST} more" if len(names) > _FIRST else "")


def _folders(base: Path) -> list[Path]:
    """Return the folders inside a folder, sorted, without hidden ones."""
    return sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(base: Path, *, deep: bool = False) -> list[Path]:
    """Return the files inside a folder that are neither hidden nor text files, sorted."""
    paths: Iterable[Path] = base.rglob("*") if deep else base.iterdir()
    return sorted(
        path
        for path in paths
        if not path.is_dir() and not path.name.startswith(".") and path.suffix.lower() not in _TEXT
    )


def _is_image(path: Path) -> bool:
    """Return whether a path is named like an image and is a file or a broken link."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and (path.is_file() or not path.exists())
