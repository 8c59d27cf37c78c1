"""The splits of a domain: row numbers, divided by fractions or given by the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import DgpruneError, note

SHARES = {"train": 0.6, "score": 0.2, "report": 0.2}


def settled_splits(name: str, splits: Mapping[str, Any] | None, *, labels: Tensor | None, count: int, seed: int) -> Any:
    """Return split -> row numbers (n,) int64, checked: within the domain, none in two splits, none twice.

    Args:
        name: name of the domain, for messages.
        splits: row numbers, slices or bool vectors over all images; or fractions that add up to 1, by which the rows
            are divided. None divides them by `SHARES`, with a note.
        labels: class indices by which the rows are stratified when they are divided.
        count: number of images in the domain.
        seed: random seed of the division.

    Raises:
        DgpruneError: another kind of split, rows outside the domain, an image in two splits.
    """
    if splits is None:
        cut_splits = cut(count, labels, SHARES, seed=seed)
        sizes = ", ".join(f"{key} {len(rows)}" for key, rows in cut_splits.items())
        note(f"domain {name!r} came without splits; cut with seed {seed}: {sizes}.")
        return cut_splits
    if not isinstance(splits, Mapping) or not all(isinstance(key, str) and key for key in splits):
        raise DgpruneError(
            f"domain {name!r}: splits must be a dict of a split's name to its rows, as in {{'train': range(100), "
            f"'report': range(100, 200)}}; got {type(splits).__name__}."
        )
    if shares := {key: float(value) for key, value in splits.items() if _is_share(value)}:
        _check_shares(name, shares, splits)
        return cut(count, labels, shares, seed=seed)
    rows = {key: _read_rows(value, count, what=f"domain {name!r}: split {key!r}") for key, value in splits.items()}
    for key, numbers in rows.items():
        if len(numbers.unique()) != len(numbers):
            raise DgpruneError(f"domain {name!r}: split {key!r} names an image twice; name it once.")
    all_rows = torch.cat([torch.empty(0, dtype=torch.int64), *rows.values()])
    if len(all_rows) and (int(all_rows.min()) < 0 or int(all_rows.max()) >= count):
        raise DgpruneError(f"domain {name!r}: a split names rows outside 0 to {count - 1}.")
    if len(all_rows.unique()) != len(all_rows):
        raise DgpruneError(f"domain {name!r}: an image is in two splits; splits must not overlap.")
    if labels is not None:
        _note_sorted(name, {key: labels[numbers] for key, numbers in rows.items()})
    return rows


def _note_sorted(name: str, labels: Mapping[str, Tensor]) -> None:
    """Issue a note if a split's first quarter, with at least 3 images per class, holds at most half of the classes."""
    for key, classes in labels.items():
        count, first = len(classes.unique()), classes[: len(classes) // 4]
        if count > 1 and len(first) >= 3 * count and len(first.unique()) <= count / 2:
            note(
                f"domain {name!r}: split {key!r} is sorted by class, and rows that are given keep their order, so what "
                "reads its first images only (images=...) misses classes. Shuffle the rows, or give a share."
            )


def cut(count: int, labels: Tensor | None, shares: Mapping[str, float], *, seed: int) -> dict[str, Tensor]:
    """Divide row numbers into splits by fractions that add up to one; see `cut_counts`."""
    edges = np.floor(np.cumsum([0.0, *shares.values()]) * count + 1e-9).astype(int)
    edges[-1] = count
    return cut_counts(count, labels, dict(zip(shares, np.diff(edges).tolist(), strict=True)), seed=seed)


def cut_counts(count: int, labels: Tensor | None, sizes: Mapping[str, int], *, seed: int) -> dict[str, Tensor]:
    """Divide row numbers into splits of exactly these sizes, stratified by label, each in a seeded random order."""
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


def _is_share(value: Any) -> bool:
    """Return whether the value is one float, which means a fraction of all rows."""
    single = np.ndim(value) == 0 if isinstance(value, np.ndarray | np.generic | Tensor) else isinstance(value, float)
    return single and np.asarray(value).dtype.kind == "f"


def _check_shares(name: str, shares: Mapping[str, float], splits: Mapping[str, Any]) -> None:
    total = sum(shares.values())
    if len(shares) < len(splits) or not all(0 < share <= 1 for share in shares.values()) or abs(total - 1) > 1e-6:
        text = ", ".join(f"{key} {value:g}" for key, value in shares.items())
        raise DgpruneError(
            f"domain {name!r}: shares must be above 0, be given for every split and add up to 1, as in {SHARES}; got "
            f"{text}" + (f" of {', '.join(splits)}." if len(shares) < len(splits) else f", together {total:g}.")
        )


def _read_rows(value: Any, count: int, *, what: str) -> Tensor:
    """Return the row numbers of one split as a new tensor (n,) int64."""
    if isinstance(value, slice):
        value = range(count)[value]
    elif isinstance(value, set | frozenset):
        value = sorted(value)
    elif hasattr(value, "__next__"):
        value = list(value)
    rows = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    if rows.ndim != 1:
        raise DgpruneError(
            f"{what} must be row numbers (n,), a bool vector ({count},) or, as all splits, a share such as 0.2; got "
            f"{value!r}."
            if rows.ndim == 0
            else f"{what} must have one axis; got shape {rows.shape}."
        )
    if rows.dtype == bool:
        if len(rows) != count:
            raise DgpruneError(f"{what} is a bool vector of {len(rows)}; the domain has {count} images.")
        rows = rows.nonzero()[0]
    if rows.size and rows.dtype.kind not in "iu":
        raise DgpruneError(
            f"{what} must be whole row numbers or a bool vector of all images; got {rows.dtype}. For floats that are "
            "row numbers: rows.astype(int)."
        )
    return torch.from_numpy(rows.astype(np.int64))
