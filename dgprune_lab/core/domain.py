"""A domain: images, labels and the splits they are cut into."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .border import public
from .errors import DgpruneError, note

Role = Literal["source", "target"]


class Batch(NamedTuple):
    """Images (B, C, H, W) float32 in [0, 1], labels (B,) or None, and their row numbers in the domain (B,)."""

    images: Tensor
    labels: Tensor | None
    index: Tensor


class _Lazy:
    """Images that a torch Dataset makes on demand: indexing gives a stacked tensor."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset
        first = torch.as_tensor(dataset[0][0])
        self.shape = torch.Size((len(dataset), *first.shape))  # type: ignore[arg-type]
        self.dtype = first.dtype

    def __getitem__(self, index: Tensor) -> Tensor:
        return torch.stack([torch.as_tensor(self.dataset[int(i)][0]) for i in index.tolist()])


@public
@dataclass(frozen=True, eq=False, kw_only=True)
class Domain:
    """One distribution of images, cut into splits with different uses.

    `train` is for training and for re-estimating BatchNorm, `score` is what scorers may read, `report` is what is
    shown, and `test` exists only where a data set brings its own. The rows of a split are in a seeded random order,
    so its first n images are a fair sample of it.

    Attributes:
        name: unique among the domains of a study.
        images: (N, C, H, W), uint8 or float in [0, 1]; only ever read through `batches`.
        labels: (N,) int64 class indices, or None where unknown.
        splits: row numbers of each split.
        classes: number of classes; 0 where there are no labels.
        role: "source" (trained on) or "target"; the Study sets it.
        origin: where the images come from, in one sentence.
    """

    name: str
    images: Any = field(repr=False)
    labels: Tensor | None = field(repr=False)
    splits: Mapping[str, Tensor] = field(repr=False)
    classes: int
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
        classes: int | None = None,
        seed: int = 0,
        origin: str = "arrays of the user",
    ) -> Domain:
        """Make a domain from arrays or tensors in memory.

        Args:
            name: what tables and charts call it.
            images: (N, C, H, W), uint8 or float in [0, 1].
            labels: (N,) integers from 0, or None for a target without labels.
            splits: row numbers per split; without them the rows are cut 60 / 20 / 20 into train, score and report,
                stratified by label, and a note says so.
            classes: number of classes; the largest label plus one where None.
            seed: of the cut.
            origin: one sentence for the card.

        Raises:
            DgpruneError: empty, non-finite or out-of-range images, labels of another length or outside the classes.
        """
        pixels = torch.as_tensor(np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images)
        if pixels.ndim != 4:
            raise DgpruneError(
                f"domain {name!r}: images must have four axes (N, C, H, W); got shape {tuple(pixels.shape)}. "
                "Grey images need a channel axis: images[:, None]."
            )
        if pixels.dtype != torch.uint8:
            pixels = pixels.to(torch.float32)
            finite = torch.isfinite(pixels)
            if not finite.all():
                bad = int((~finite).flatten(1).any(1).sum())
                raise DgpruneError(f"domain {name!r}: {bad} images hold NaN or infinite pixels; remove or repair them.")
            if pixels.numel() and (pixels.min() < 0 or pixels.max() > 1):
                raise DgpruneError(
                    f"domain {name!r}: float images must lie in [0, 1]; got {pixels.min():.3g} to {pixels.max():.3g}. "
                    "Divide by 255, or pass uint8; normalisation belongs into the network."
                )
        return _checked(name, pixels, labels, splits=splits, classes=classes, seed=seed, origin=origin)

    @classmethod
    def from_dataset(
        cls,
        name: str,
        dataset: Dataset[Any],
        *,
        labels: Any = None,
        splits: Mapping[str, Any] | None = None,
        classes: int | None = None,
        seed: int = 0,
        origin: str = "a torch Dataset",
    ) -> Domain:
        """Make a domain backed by a torch Dataset of (image, label); images are read when needed, never all at once.

        Labels are taken from `dataset.targets` where it exists, else read once, item by item; the rest as in
        `from_arrays`.
        """
        count = len(dataset)  # type: ignore[arg-type]
        if count == 0:
            raise DgpruneError(f"domain {name!r}: the data set is empty.")
        if labels is None:
            targets = getattr(dataset, "targets", None)
            labels = [int(dataset[i][1]) for i in range(count)] if targets is None else targets
        return _checked(name, _Lazy(dataset), labels, splits=splits, classes=classes, seed=seed, origin=origin)

    def __len__(self) -> int:
        return int(self.images.shape[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.images.shape[1:]
        return int(channels), int(height), int(width)

    def rows(self, split: str, images: int | None = None) -> Tensor:
        """Return the row numbers of a split, or of its first `images`.

        Raises:
            DgpruneError: the domain has no such split, or `images` is below 1.
        """
        if split not in self.splits:
            raise DgpruneError(f"domain {self.name!r} has no split {split!r}; it has: {', '.join(self.splits)}.")
        if images is not None and images < 1:
            raise DgpruneError(f"images must be at least 1, or None for all of the split; got {images}.")
        return self.splits[split][:images]

    def batches(
        self,
        split: str,
        *,
        size: int = 250,
        images: int | None = None,
        device: torch.device | str | None = None,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> Iterator[Batch]:
        """Yield the split in its fixed order, `size` images at a time, float32 in [0, 1], in a memory layout."""
        for rows in self.rows(split, images).split(size):
            if len(rows):
                yield self.take(rows, device=device, layout=layout)

    def take(
        self,
        rows: Tensor,
        *,
        device: torch.device | str | None = None,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> Batch:
        """Return the images with these row numbers."""
        index = rows if isinstance(self.images, _Lazy) else rows.to(self.images.device)
        x = self.images[index].to(device, non_blocking=True)
        x = x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x.to(torch.float32)
        y = None if self.labels is None else self.labels[rows.to(self.labels.device)].to(device)
        return Batch(x.contiguous(memory_format=layout), y, rows)

    def to(self, device: torch.device | str) -> Domain:
        """Return the domain with images and labels on a device (images of a Dataset stay where they are)."""
        if isinstance(self.images, _Lazy):
            return self
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, images=self.images.to(device), labels=labels)

    def as_role(self, role: Role) -> Domain:
        """Return the domain in the role that a study gives it."""
        return replace(self, role=role)

    def padded(self, size: int) -> Domain:
        """Return the domain with images padded by zeros on all sides to `size` x `size` pixels."""
        _channels, height, width = self.shape
        if isinstance(self.images, _Lazy):
            raise DgpruneError(f"domain {self.name!r}: images of a Dataset are padded by the Dataset's own transform.")
        if max(height, width) > size:
            raise DgpruneError(
                f"domain {self.name!r}: images of {height} x {width} cannot be padded to {size} x {size}."
            )
        top, left = (size - height) // 2, (size - width) // 2
        edges = (left, size - width - left, top, size - height - top)
        return replace(self, images=torch.nn.functional.pad(self.images, edges))

    @cached_property
    def key(self) -> str:
        """Hash of the content (pixels, labels, splits); of a Dataset, of labels, splits and the first eight images."""
        digest = hashlib.blake2b(self.name.encode(), digest_size=12)
        sample = self.images[torch.arange(min(8, len(self)))] if isinstance(self.images, _Lazy) else self.images
        for tensor in (sample, self.labels, *(self.splits[name] for name in sorted(self.splits))):
            if tensor is not None:
                digest.update(tensor.cpu().contiguous().numpy().data)  # a view: bytes would copy the images once more
        digest.update(",".join(sorted(self.splits)).encode())
        return digest.hexdigest()


def _checked(
    name: str,
    images: Any,
    labels: Any,
    *,
    splits: Mapping[str, Any] | None,
    classes: int | None,
    seed: int,
    origin: str,
) -> Domain:
    count = int(images.shape[0])
    if not name:
        raise DgpruneError("a domain needs a name.")
    if count == 0:
        raise DgpruneError(f"domain {name!r} is empty: it holds no image.")
    if labels is not None:
        labels, classes = _checked_labels(name, torch.as_tensor(labels).flatten().cpu(), count=count, classes=classes)
    if splits is None:
        splits = cut(count, labels, {"train": 0.6, "score": 0.2, "report": 0.2}, seed=seed)
        sizes = ", ".join(f"{key} {len(rows)}" for key, rows in splits.items())
        note(f"domain {name!r} came without splits; cut with seed {seed}: {sizes}.")
    splits = {key: torch.as_tensor(rows).to(torch.int64).cpu() for key, rows in splits.items()}
    rows = torch.cat([torch.empty(0, dtype=torch.int64), *splits.values()])
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= count):
        raise DgpruneError(f"domain {name!r}: a split names rows outside 0 to {count - 1}.")
    if len(rows.unique()) != len(rows):
        raise DgpruneError(f"domain {name!r}: an image is in two splits; splits must not overlap.")
    return Domain(name=name, images=images, labels=labels, splits=splits, classes=classes or 0, origin=origin)


def _checked_labels(name: str, labels: Tensor, *, count: int, classes: int | None) -> tuple[Tensor, int]:
    """Labels as int64, and the number of classes."""
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        wrong = labels[labels != labels.round()][0]
        raise DgpruneError(f"domain {name!r}: labels must be whole numbers from 0; got {wrong}.")
    labels = labels.to(torch.int64)
    if len(labels) != count:
        raise DgpruneError(f"domain {name!r}: {count} images but {len(labels)} labels; each image needs one label.")
    least, most = int(labels.min()), int(labels.max())
    classes = most + 1 if classes is None else classes
    if least < 0 or most >= classes:
        raise DgpruneError(f"domain {name!r}: labels must lie in 0 to {classes - 1}; got {least} to {most}.")
    return labels, classes


def cut(count: int, labels: Tensor | None, shares: Mapping[str, float], *, seed: int) -> dict[str, Tensor]:
    """Cut row numbers into splits by shares that add up to one; see `cut_counts`."""
    edges = np.floor(np.cumsum([0.0, *shares.values()]) * count + 1e-9).astype(int)
    edges[-1] = count
    return cut_counts(count, labels, dict(zip(shares, np.diff(edges).tolist(), strict=True)), seed=seed)


def cut_counts(count: int, labels: Tensor | None, sizes: Mapping[str, int], *, seed: int) -> dict[str, Tensor]:
    """Cut row numbers into splits of exactly these sizes, stratified by label, each in seeded random order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator)
    if labels is not None:
        # Position of each row within its class, as a share of the class: sorting by it spreads every class evenly.
        ordered = labels[order]
        share = torch.empty(count, dtype=torch.float64)
        for value in ordered.unique():
            rows = (ordered == value).nonzero().flatten()
            share[rows] = (torch.arange(len(rows), dtype=torch.float64) + 0.5) / len(rows)
        order = order[share.argsort(stable=True)]
    splits, start = {}, 0
    for name, size in sizes.items():
        rows = order[start : start + size]
        splits[name] = rows[torch.randperm(len(rows), generator=generator)]
        start += size
    return splits
