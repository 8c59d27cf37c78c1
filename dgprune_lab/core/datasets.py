"""Images and labels of data sets that are read item by item: torch, torchvision, Hugging Face or plain lists."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from .errors import DgpruneError, note
from .kept_images import KeptImages, Place
from .labels import listed_names
from .locks import Lock
from .pixels import ALPHA, check_shape, holds_alpha, pixels_of_item, stacked
from .random import preserved_rng

_IMAGE = ("image", "img", "images", "pixel_values", "pixels", "x", "input", "inputs", "data")
_LABEL = ("label", "labels", "fine_label", "target", "targets", "y", "class")
_PROBES, _REPEATS = 8, 40
_MISSING = object()


class DatasetImages:
    """Images (N, C, H, W) of a data set; indexing by row numbers gives a checked, stacked tensor.

    Each image is decoded when it is first read, and kept: see `KeptImages`.

    Attributes:
        dataset: any object with a length and items by position. An optional method `content` returns a text that is
            equal only for equal images and names the file of kept images.
        what: the first words of an error message, such as "domain 'mine'".
        shape, dtype: shape (N, C, H, W) and type of the images; float32 once any image is float.
    """

    def __init__(self, dataset: Any, *, what: str) -> None:
        self.dataset, self.what, self._alpha_is_noted = dataset, what, False
        first = self.read(0)
        self.shape, self.dtype = torch.Size((len(dataset), *first.shape)), first.dtype
        self._lock: Lock = Lock()
        self._kept: KeptImages | None = None
        self._place: Place | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a copy or a worker process, which reads the decoded images from a file."""
        with self._lock:
            self._kept = None if self._kept is None else self._kept.moved_to_file()
            place = self._place if self._kept is None else self._kept.place
            return {**vars(self), "_lock": None, "_kept": None, "_place": place}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())

    def read(self, position: int) -> Tensor:
        """Read one image (C, H, W), uint8 or float32 in [0, 1], from the data set, even if it is kept.

        Raises:
            DgpruneError: an item without an image, one that cannot be read, pixels outside [0, 1].
        """
        return self._pixels(position, self.item(position)[0])

    def label(self, position: int) -> Any:
        """Return the label of an item, or `_MISSING`; also keep its image, since reading the item decoded it."""
        image, label = self.item(position)
        with self._lock:
            self._keep(position, self._pixels(position, image))
        return label

    def item(self, position: int) -> tuple[Any, Any]:
        """Return the image and the label of an item as the data set gives them; `_MISSING` where it has no label."""
        try:
            item = self.dataset[position]
        except DgpruneError:
            raise
        except Exception as error:  # a data set can raise any error
            raise DgpruneError(
                f"{self.what}: item {position}{self._path_text(position)} could not be read ({type(error).__name__}: "
                f"{error}); repair or remove it."
            ) from error
        if isinstance(item, Mapping):
            keys = [next((key for key in names if key in item), None) for names in (_IMAGE, _LABEL)]
            if keys[0] is None:
                raise DgpruneError(
                    f"{self.what}: item {position} is a dict of {', '.join(map(repr, item))}; its image is looked for "
                    f"as {', '.join(map(repr, _IMAGE[:4]))}. Rename the column to 'image', the label's to 'label'."
                )
            return item[keys[0]], _MISSING if keys[1] is None else item[keys[1]]
        parts = item if isinstance(item, tuple | list) and len(item) else (item,)
        if isinstance(parts[0], Dataset):
            raise DgpruneError(
                f"{self.what}: item {position} is itself a data set, as in DomainBed's collections; make a domain of "
                "each, with a name of its own."
            )
        if not _is_image(parts[0]):
            raise DgpruneError(
                f"{self.what}: item {position} must be (image, label), a dict or an image, and an image a PIL image or "
                f"a tensor or array (C, H, W); the first entry is {type(parts[0]).__name__}. "
                "Open files with PIL.Image.open."
            )
        return parts[0], _MISSING if len(parts) == 1 or parts[1] is None else parts[1]

    def __getitem__(self, index: Tensor) -> Tensor:
        rows, unkept = index.cpu(), dict[int, Tensor]()
        with self._lock:
            while missing := [position for position in self._store().missing(rows) if position not in unkept]:
                for position in missing:
                    pixels = self.read(position)
                    if not self._keep(position, pixels):
                        unkept[position] = pixels
            if not unkept:
                return self._store()[rows]
            kept = {position: self._store()[torch.tensor([position])][0] for position in {*rows.tolist()} - {*unkept}}
        return stacked([(unkept | kept)[position] for position in rows.tolist()], what=self.what)

    def _pixels(self, position: int, image: Any) -> Tensor:
        if not self._alpha_is_noted and holds_alpha(image):
            self._alpha_is_noted = True
            note(f"{self.what}: images hold {ALPHA}.")
        return pixels_of_item(image, what=f"{self.what}: the image of item {position}{self._path_text(position)}")

    def _store(self) -> KeptImages:
        if self._kept is None:
            content = getattr(self.dataset, "content", None)
            self._kept = KeptImages(self.shape, self.dtype, content=content, what=self.what, place=self._place)
        return self._kept

    def _keep(self, position: int, pixels: Tensor) -> bool:
        """Keep an image if there is room; the first float image after uint8 ones makes all images float."""
        check_shape(pixels, tuple(self.shape[1:]), what=self.what, number=position)
        if pixels.dtype == torch.uint8 != self.dtype:
            pixels = pixels.to(torch.float32) / 255
        elif pixels.dtype != self.dtype:
            self.dtype, self._kept, self._place = pixels.dtype, None, None
        return self._store().keep(position, pixels)

    def _path_text(self, position: int) -> str:
        samples = getattr(self.dataset, "samples", None)
        return f" ({samples[position][0]})" if isinstance(samples, list) and position < len(samples) else ""


def labels_of(images: DatasetImages) -> tuple[Any, tuple[str, ...]]:
    """Return the labels of all items (None where they have none), and the class names if the data set has some.

    The list of labels that a data set stores is used if it agrees with a few items; otherwise all items are read one by
    one.
    """
    dataset = images.dataset
    names = _class_names(dataset)
    probes = _probes(len(dataset))
    read = [images.item(position)[1] for position in probes]
    if any(label is _MISSING for label in read):
        return None, names
    stored = _read_labels(dataset)
    if stored is not None and len(stored) == len(dataset):
        if all(_are_equal(stored[position], label) for position, label in zip(probes, read, strict=True)):
            return stored, _select_names(names, stored)
        names = ()  # a target_transform has renumbered the classes
    values = [images.label(position) for position in range(len(dataset))]
    return values, _select_names(names, values)


def check_repeatable(images: DatasetImages) -> None:
    """Refuse a data set whose items change when they are read again; the global random generators are restored.

    Raises:
        DgpruneError: an item differs; the message names the first one.
    """
    with preserved_rng():
        probes = _probes(len(images.dataset))
        before = _get_random_states()
        for position in probes:
            _check_rereading(images, position, times=1)
        if before != _get_random_states():  # it draws random numbers, which may rarely change an image
            _check_rereading(images, probes[0], times=_REPEATS)


def _check_rereading(images: DatasetImages, position: int, *, times: int) -> None:
    first = images.read(position)
    for _ in range(times):
        second = images.read(position)
        if first.shape != second.shape or not torch.equal(first, second):
            raise DgpruneError(
                f"{images.what}: item {position} of the data set changes when it is read again, as with random "
                "augmentation, so results on it could not be reproduced. Use the transform for evaluation; "
                "dg.TrainingOptions(augmentation=...) augments in training."
            )


def _get_random_states() -> tuple[Any, ...]:
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state()), random.getstate()


def _probes(count: int) -> list[int]:
    """Return a few positions, spread evenly over all items."""
    return sorted({round(k * (count - 1) / (_PROBES - 1)) for k in range(_PROBES)})


def _is_image(value: Any) -> bool:
    """Return whether the value is a PIL image, an array or tensor of two axes or more, or a nested list."""
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim >= 2
    return hasattr(value, "getbands") or (isinstance(value, list) and len(value) > 0 and isinstance(value[0], list))


def _select_names(names: tuple[str, ...], labels: Any) -> tuple[str, ...]:
    """Return the class names if there is one for each class index that occurs, otherwise ()."""
    numbers = [label for label in labels if not isinstance(label, str | bytes)] if names else []
    try:
        return names if not numbers or int(max(numbers)) < len(names) else ()
    except (RuntimeError, TypeError, ValueError):  # labels of several numbers, which `settled_labels` refuses
        return ()


def _are_equal(*labels: Any) -> bool:
    return len({str(label.item() if hasattr(label, "item") else label) for label in labels}) == 1


def _read_labels(dataset: Any) -> Any:
    """Return the labels that a data set stores as a list, without reading images; None if it stores none."""
    if isinstance(dataset, Subset):
        inner = _read_labels(dataset.dataset)
        return None if inner is None else [inner[int(position)] for position in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [_read_labels(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else [label for part in parts for label in part]
    columns = getattr(dataset, "column_names", None)
    if isinstance(columns, list):  # Hugging Face
        key = next((key for key in _LABEL if key in columns), None)
        return None if key is None else list(dataset[key])
    return next((labels for key in ("targets", "labels") if (labels := getattr(dataset, key, None)) is not None), None)


def _class_names(dataset: Any) -> tuple[str, ...]:
    if isinstance(dataset, Subset):
        return _class_names(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        first, *others = [_class_names(part) for part in dataset.datasets]
        for names in others:
            if names and first and names != first:
                raise DgpruneError(
                    f"dataset joins parts that number their classes differently, {listed_names(first)} and "
                    f"{listed_names(names)}, so one label means several classes. Make a domain of each part, with "
                    "classes=[...], the names of all classes, and the labels as names."
                )
        return first if all(names == first for names in others) else ()
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        key = next((key for key in _LABEL if key in features), None)
        names = getattr(features.get(key), "names", None)
    else:
        names = getattr(dataset, "classes", None)
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()
