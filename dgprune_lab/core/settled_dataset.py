"""A user's data set, taken out of its DataLoader if it has one; it needs a length and items by position."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
)
from torch.utils.data.dataloader import default_collate, default_convert

from .errors import DgpruneError, note

_PLAIN = (SequentialSampler, RandomSampler, BatchSampler, type(None))  # they draw every item once


def settled_dataset(dataset: Any, *, what: str) -> Any:
    """Return the data set, or the one that a DataLoader draws from; it must have a length and items by position.

    Raises:
        DgpruneError: a dict of data sets, a data set that can only be iterated over, an empty one.
    """
    if isinstance(dataset, DataLoader):
        return settled_dataset(_unwrap_loader(dataset, what=what), what=what)
    if isinstance(dataset, str | Path | pd.DataFrame):
        raise DgpruneError(
            f"{what}: a data set has items (image, label); got {type(dataset).__name__}. Folders of images are read by "
            "dg.data.from_folder(root); make a list of (PIL.Image.open(path), label) of files."
        )
    parts = [*dataset.values()] if isinstance(dataset, Mapping) else [*dataset] if isinstance(dataset, tuple) else []
    if len(parts) == 2 and all(isinstance(part, Tensor | np.ndarray) for part in parts) and parts[0].ndim == 4:
        raise DgpruneError(
            f"{what}: dataset holds all images in one array; pass it as dg.Domain.from_arrays(name, images=..., "
            "labels=...)."
        )
    if isinstance(dataset, Mapping):
        raise DgpruneError(
            f"{what}: a dict of {', '.join(map(repr, list(dataset)[:4]))} is no data set; pass one of them, such as "
            f"dataset[{next(iter(dataset), 'train')!r}]."
        )
    if getattr(dataset, "ndim", 1) == 0:
        raise DgpruneError(f"{what}: dataset must hold images; got a {type(dataset).__name__} without axes.")
    is_iterable_only = isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__")
    if is_iterable_only or not hasattr(dataset, "__getitem__"):
        raise DgpruneError(
            f"{what}: {type(dataset).__name__} cannot be read by position, as images must be, repeatedly. "
            "Pass a data set with a length and positions, such as list(dataset), which stays in memory."
        )
    if len(dataset) == 0:  # type: ignore[arg-type]
        raise DgpruneError(f"{what}: the data set is empty.")
    return dataset


def _unwrap_loader(loader: DataLoader[Any], *, what: str) -> Any:
    """Return a DataLoader's data set, or the subset that its sampler draws from; notes name its ignored parts."""
    inner, ignored = loader.dataset, list[str]()
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    if loader.collate_fn not in (default_collate, default_convert, None):
        ignored.append("collate_fn")
    if isinstance(sampler, SubsetRandomSampler):
        inner = Subset(inner, sorted(map(int, sampler.indices)))
    elif not isinstance(inner, IterableDataset):
        samplers = [part for part in (sampler, loader.batch_sampler) if type(part) not in _PLAIN]
        ignored += [type(part).__name__ for part in samplers]
        if not samplers and isinstance(sampler, Sized) and len(sampler) != len(inner):  # type: ignore[arg-type]
            ignored.append(f"{type(sampler).__name__} of {len(sampler)} items")
    for part in ignored:
        note(f"{what}: items are read from the DataLoader's data set itself; its {part} has no effect.")
    return inner
