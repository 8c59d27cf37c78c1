"""The labels of a domain as class indices, and the names of the classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import DgpruneError, checked_name, note

_MOST_NAMES = 12


def settled_labels(
    name: str, labels: Any, *, count: int, classes: int | Sequence[str] | None
) -> tuple[Tensor | None, int, tuple[str, ...]]:
    """Return labels as class indices, a new (N,) int64 tensor, with the number of classes and the class names.

    The indices are None without labels; the names are () if unknown.

    A name becomes its position in `classes`; without `classes`, its position among the sorted names, which a note
    lists. Where all names are whole numbers ("7"), these numbers are the indices.

    Raises:
        DgpruneError: labels of another length, missing labels, labels that are not whole numbers from 0 or lie outside
            the classes, unknown names.
    """
    names = () if classes is None or isinstance(classes, int | np.integer) else _checked_names(name, classes)
    if labels is None:
        return None, len(names) or int(classes or 0), names  # type: ignore[arg-type]
    values = _as_array(name, labels)
    if values.dtype.kind in "USO":
        texts = [_read_name(name, value) for value in values.ravel()]
        values, names = _number_names(name, texts, names=names, classes=None if names else classes)
    if values.dtype.kind not in "biuf":
        raise DgpruneError(f"domain {name!r}: labels must be whole numbers or names; got {values.dtype}.")
    indices = torch.from_numpy(values.astype(values.dtype.newbyteorder("=")))
    if indices.ndim > 1 and indices.shape[0] == count and indices.numel() > count:
        raise DgpruneError(
            f"domain {name!r}: each image needs one label; got shape {tuple(indices.shape)}. One-hot labels: "
            "labels.argmax(1)."
        )
    indices = indices.flatten()
    if indices.is_floating_point() and not torch.equal(indices, indices.round()):
        raise DgpruneError(
            f"domain {name!r}: labels must be whole numbers from 0; got {indices[indices != indices.round()][0]}."
        )
    indices = indices.to(torch.int64)
    if len(indices) != count:
        raise DgpruneError(f"domain {name!r}: {count} images but {len(indices)} labels; each image needs one label.")
    least, most = int(indices.min()), int(indices.max())
    number = len(names) or (most + 1 if classes is None else int(classes))  # type: ignore[arg-type]
    if least < 0:
        raise DgpruneError(f"domain {name!r}: labels must be class indices from 0; got {least} to {most}.")
    if most >= number:
        size = f"{number} names" if names else number
        raise DgpruneError(
            f"domain {name!r}: classes must cover all labels, 0 to {most}; got classes={size}. Pass the number or "
            f"the names of at least {most + 1} classes, or leave it out."
        )
    for label in names:
        checked_name(f"class of domain {name!r}", label)
    return indices, number, names


def check_domains(domains: Iterable[Any]) -> None:
    """Refuse two domains of one name, and class names that differ at the same index.

    Raises:
        DgpruneError: two domains with one name; two that name a class index differently (the first is given).
    """
    domains = list(domains)
    names = [domain.name for domain in domains]
    if len(set(names)) < len(names):
        raise DgpruneError(f"the domains need different names; got {', '.join(names)}. Give each its name=.")
    first: dict[int, tuple[str, str]] = {}
    for domain in domains:
        for number, name in enumerate(domain.class_names):
            other, known = first.setdefault(number, (domain.name, name))
            if known != name:
                raise DgpruneError(
                    f"class {number} is {known!r} in domain {other!r} and {name!r} in domain {domain.name!r}, so their "
                    "labels do not mean the same. Number them alike: pass the list of all class names as classes= to "
                    "both, with labels as names, or read all domains at once with dg.data.from_folder."
                )


def listed_names(names: Sequence[str]) -> str:
    """Return class names with their indices as text, "0 cat, 1 dog"; only the first ones where there are many."""
    texts = [f"{number} {label}" for number, label in enumerate(names[:_MOST_NAMES])]
    return ", ".join(texts) + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")


def _as_array(name: str, labels: Any) -> Any:
    if isinstance(labels, Tensor):
        return labels.detach().cpu().numpy()
    if isinstance(labels, set | frozenset | str | bytes | Mapping):
        raise DgpruneError(f"domain {name!r}: labels must be a list or an array in the images' order; got {labels!r}.")
    try:
        values = np.asarray(labels if hasattr(labels, "__array__") else list(labels))
        if values.dtype == object and all(isinstance(v, int | float | np.number | np.ndarray | Tensor) for v in values):
            values = np.array([np.asarray(value) for value in values]).astype(float)
        if values.dtype.kind == "U" and isinstance(labels, list | tuple):  # numbers among names became text
            values = np.array(labels, dtype=object)
    except (TypeError, ValueError) as error:
        raise DgpruneError(f"domain {name!r}: labels must be (N,) whole numbers or names ({error}).") from None
    return values


def _read_name(name: str, value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise DgpruneError(
            f"domain {name!r}: labels must be whole numbers or names, one for each image; got {value!r}. A domain "
            "without labels takes labels=None."
        )
    return value.decode() if isinstance(value, bytes) else str(value)


def _checked_names(name: str, classes: Any) -> tuple[str, ...]:
    names = tuple(str(label) for label in classes)
    if not names or isinstance(classes, str) or len(set(names)) < len(names):
        raise DgpruneError(
            f"domain {name!r}: classes must be a number or a list of different class names; got {classes!r}."
        )
    return names


def _number_names(name: str, labels: list[str], *, names: tuple[str, ...], classes: Any) -> tuple[Any, tuple[str, ...]]:
    """Return class indices for labels given as names, and the class names; `classes` is the number of classes."""
    if not names and all(label.strip().isdecimal() for label in labels):
        return np.array([int(label) for label in labels]), ()
    if classes is not None and classes != len(set(labels)):
        raise DgpruneError(
            f"domain {name!r}: classes={classes}, but the labels hold {len(set(labels))} names. Pass the list of all "
            "class names as classes=, in the order of the network's outputs."
        )
    if not names:
        names = tuple(sorted(set(labels)))
        note(
            f"domain {name!r}: labels are names, numbered in sorted order: {listed_names(names)}. Pass classes=[...], "
            "the names in the order of the network's outputs, to number them alike everywhere."
        )
    positions = {label: number for number, label in enumerate(names)}
    if unlisted := sorted(set(labels) - set(names)):
        raise DgpruneError(
            f"domain {name!r}: no class is named {', '.join(map(repr, unlisted[:3]))}; known: {', '.join(names)}."
        )
    return np.array([positions[label] for label in labels]), names
