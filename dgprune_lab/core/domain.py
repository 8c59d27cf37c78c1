"""A domain: images, labels and the splits they are cut into."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from .border import public
from .datasets import DatasetImages, check_repeatable, labels_of
from .errors import DgpruneError, checked_name
from .kinds import Count, Seed, Within
from .labels import settled_labels
from .pixels import pixels_of_arrays
from .random import preserved_rng
from .settled_dataset import settled_dataset
from .splits import settled_splits

Role = Literal["source", "target"]
Pixels = Annotated[int, Within("lie in 1 to 4,096", lambda value: 1 <= value <= 4096)]


class Batch(NamedTuple):
    """Images (B, C, H, W) float32 in [0, 1], labels (B,) or None, and their row numbers in the domain (B,)."""

    images: Tensor
    labels: Tensor | None
    index: Tensor


@public
@dataclass(frozen=True, eq=False, kw_only=True)
class Domain:
    """One distribution of images, cut into splits with different uses.

    `train` is for training and for recalibrating BatchNorm, `score` is for scorers, `report` is for reported numbers,
    and `test` exists only where a data set has its own. Splits that are cut by shares are in a seeded random order, so
    that their first n images are a fair sample; row numbers given by the user keep their order.

    Attributes:
        name: unique among the domains of a study.
        images: (N, C, H, W), uint8 or float in [0, 1]; read through `batches` and `take`.
        labels: (N,) int64 class indices, or None where unknown.
        splits: row numbers of each split.
        classes: number of classes; 0 where there are no labels.
        class_names: the name of each class, in the order of their indices; empty where unknown.
        role: "source" (the network is trained on it) or "target"; the Study sets it.
        origin: where the images come from, in one sentence.
    """

    name: str
    images: Any = field(repr=False)
    labels: Tensor | None = field(repr=False)
    splits: Mapping[str, Tensor] = field(repr=False)
    classes: int
    class_names: tuple[str, ...] = field(default=(), repr=False)
    role: Role | None = None
    origin: str = ""

    @classmethod
    def from_arrays(
        cls,
        name: str,
        *,
        images: Any,
        labels: Any = None,
        splits: Mapping[str, Any] | None = None,
        classes: Count | Sequence[str] | None = None,
        seed: Seed = 0,
        origin: str = "arrays of the user",
    ) -> Domain:
        """Make a domain from arrays or tensors in memory, which are copied.

        Args:
            name: name of the domain in tables and charts.
            images: (N, C, H, W), uint8, uint16 (divided by 65,535) or float in [0, 1]; or a list of images, each an
                array, a tensor or a PIL image, whose transparency is dropped, with a note.
            labels: (N,) integers from 0 or class names ("7" counts as 7); None for a target without labels.
            splits: row numbers, a slice or a bool vector for each split; or fractions that add up to 1, by which the
                rows are divided, stratified by label. None divides them 60 / 20 / 20 into train, score and report, with
                a note.
            classes: number of classes, or their names in the order of the network's outputs. None: the largest label
                plus one, or the names in sorted order, which a note lists.
            seed: random seed of the division into splits.
            origin: one sentence on where the images come from, for the card.

        Raises:
            DgpruneError: empty, non-finite or out-of-range images, images of several sizes, labels of another length or
                outside the classes, splits that overlap.
        """
        pixels = pixels_of_arrays(images, what=f"domain {name!r}")
        return _make_domain(name, pixels, labels, splits=splits, classes=classes, seed=seed, origin=origin)

    @classmethod
    def from_dataset(
        cls,
        name: str,
        dataset: Any,
        *,
        labels: Any = None,
        splits: Mapping[str, Any] | None = None,
        classes: Count | Sequence[str] | None = None,
        seed: Seed = 0,
        origin: str = "a data set",
    ) -> Domain:
        """Make a domain backed by a data set; an image is decoded when it is first needed, and kept.

        All kept images together take at most a quarter of the available memory. If those of a domain do not fit, they
        go into a file in the folder that the environment variable DGPRUNE_CACHE names ("off" for none; by default the
        user's cache folder); the files there take at most 8 GiB, and the least recently used are removed first.

        Args:
            name: name of the domain in tables and charts.
            dataset: a data set of torch, torchvision or Hugging Face, or a list. Its items are (image, label), dicts
                with an image and a label, or images. An image is a PIL image, or an array or tensor (C, H, W), uint8 or
                float in [0, 1], and the same each time it is read. For a DataLoader, its data set is used, or the
                part of it from which a SubsetRandomSampler draws.
            labels: as in `from_arrays`; None takes the data set's own labels, if its items have any.
            splits, classes, seed, origin: as in `from_arrays`; class names that the data set has are used.

        Raises:
            DgpruneError: a data set that can only be iterated over; an image that cannot be read, is of another size
                than the first or has pixels outside [0, 1] (checked when it is read); an image that differs when it is
                read again (checked at once for a few images); otherwise as `from_arrays`.
        """
        what = f"domain {name!r}"
        with preserved_rng():
            images = DatasetImages(settled_dataset(dataset, what=what), what=what)
            check_repeatable(images)
            if labels is None:
                labels, names = labels_of(images)
                classes = names or None if classes is None else classes
        return _make_domain(name, images, labels, splits=splits, classes=classes, seed=seed, origin=origin)

    def __len__(self) -> int:
        return int(self.images.shape[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.images.shape[1:]
        return int(channels), int(height), int(width)

    def class_label(self, index: int) -> str:
        """Return the name of a class, or its index as text where the classes have no names."""
        return self.class_names[index] if 0 <= index < len(self.class_names) else str(index)

    def rows(self, split: str, images: Count | None = None) -> Tensor:
        """Return the row numbers of a split, or of only its first `images` images.

        Raises:
            DgpruneError: the domain has no such split.
        """
        if split not in self.splits:
            known = f"{', '.join(self.splits)}. Name one of these, or cut the domain by splits= and not by hold_out="
            raise DgpruneError(f"domain {self.name!r} has no split {split!r}; it has: {known}.")
        return self.splits[split][:images]

    def batches(
        self,
        split: str,
        *,
        size: Count = 250,
        images: Count | None = None,
        device: torch.device | str | None = None,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> Iterator[Batch]:
        """Yield the split in its fixed order, `size` images at a time, float32 in [0, 1], in memory format `layout`."""
        numbers = self.rows(split, images)
        if not len(numbers):
            raise DgpruneError(f"domain {self.name!r} has no image in its split {split!r}.")
        for rows, index in zip(numbers.split(size), self._index(numbers).split(size), strict=True):
            yield self._batch(rows, index, device=device, layout=layout)

    def take(
        self,
        rows: Tensor,
        *,
        device: torch.device | str | None = None,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> Batch:
        """Return the images with these row numbers.

        Raises:
            DgpruneError: row numbers that are not whole, are negative, or are not below the number of images.
        """
        return self._batch(rows, self._index(rows), device=device, layout=layout)

    def _index(self, rows: Tensor) -> Tensor:
        """Return the row numbers, checked, on the device of the images."""
        are_integers = rows.ndim == 1 and not rows.is_floating_point() and rows.dtype != torch.bool
        if not are_integers or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self)):
            raise DgpruneError(f"domain {self.name!r}: rows must be whole numbers from 0 to {len(self) - 1}.")
        return rows if isinstance(self.images, DatasetImages) else rows.to(self.images.device, non_blocking=True)

    def _batch(
        self, rows: Tensor, index: Tensor, *, device: torch.device | str | None, layout: torch.memory_format
    ) -> Batch:
        x = self.images[index].to(device, non_blocking=True)
        x = x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x.to(torch.float32)
        y = None if self.labels is None else self.labels[index.to(self.labels.device)].to(device)
        return Batch(x.contiguous(memory_format=layout), y, rows)

    def to(self, device: torch.device | str) -> Domain:
        """Return the domain with its images and labels on a device (images of a Dataset stay where they are)."""
        if isinstance(self.images, DatasetImages):
            return self
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, images=self.images.to(device), labels=labels)

    def as_role(self, role: Role) -> Domain:
        """Return the domain with its role set to "source" or "target"."""
        return replace(self, role=role)

    def padded(self, size: Pixels) -> Domain:
        """Return the domain with images padded by zeros on all sides to `size` x `size` pixels."""
        _channels, height, width = self.shape
        if isinstance(self.images, DatasetImages):
            raise DgpruneError(
                f"domain {self.name!r} holds a Dataset, whose images cannot be padded here; do it in its transform."
            )
        if max(height, width) > size:
            raise DgpruneError(
                f"domain {self.name!r}: images of {height} x {width} cannot be padded to {size} x {size}."
            )
        top, left = (size - height) // 2, (size - width) // 2
        edges = (left, size - width - left, top, size - height - top)
        return replace(self, images=torch.nn.functional.pad(self.images, edges))

    @property
    def stamp(self) -> tuple[object, ...]:
        """A value, cheap to compute, that changes when images in memory, labels or splits are changed in place."""
        return (*sorted(self.splits), *(_stamp_tensor(tensor) for tensor in self._tensors()))

    @property
    def key(self) -> str:
        """Hash of name, pixels, labels and splits, computed again after pixels, labels or splits were changed in place.

        For a Dataset, its length and 32 images drawn with a fixed seed replace the pixels.
        """
        stamp = self.stamp
        cached = self.__dict__.get("_key")
        if cached is None or cached[0] != stamp:
            cached = self.__dict__["_key"] = stamp, self._hash()
        return cached[1]

    def _tensors(self) -> list[Tensor]:
        values = [self.images, self.labels, *(self.splits[name] for name in sorted(self.splits))]
        return [tensor for tensor in values if isinstance(tensor, Tensor)]

    def _hash(self) -> str:
        digest, tensors = hashlib.blake2b(self.name.encode(), digest_size=12), self._tensors()
        if isinstance(self.images, DatasetImages):
            sampled_rows = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:32]
            tensors = [torch.tensor(len(self)), self.images[sampled_rows], *tensors]
        for tensor in tensors:
            digest.update(tensor.cpu().contiguous().numpy().data)  # a view: bytes would copy the images once more
        digest.update(",".join(sorted(self.splits)).encode())
        return digest.hexdigest()


def _stamp_tensor(tensor: Tensor) -> tuple[object, ...]:
    """Return a cheap value that changes when a tensor is written to; on a CPU, mostly through numpy too."""
    version = None if tensor.is_inference() else tensor._version
    if tensor.device.type != "cpu":
        return tensor.data_ptr(), version
    sample = tensor[tuple(slice(None, None, 1 + size // 8) for size in tensor.shape)]
    return tensor.data_ptr(), version, float(sample.sum())


def _make_domain(
    name: str,
    images: Tensor | DatasetImages,
    labels: Any,
    *,
    splits: Mapping[str, Any] | None,
    classes: int | Sequence[str] | None,
    seed: int,
    origin: str,
) -> Domain:
    count = int(images.shape[0])
    name = checked_name("domain", name)
    if count == 0:
        raise DgpruneError(f"domain {name!r} is empty: it holds no image.")
    indices, number, names = settled_labels(name, labels, count=count, classes=classes)
    return Domain(
        name=name,
        images=images,
        labels=indices,
        splits=settled_splits(name, splits, labels=indices, count=count, seed=seed),
        classes=number,
        class_names=names,
        origin=origin,
    )
