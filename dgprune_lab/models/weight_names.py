"""Which tensor of a file belongs to which tensor of a network, where a wrapper or a trainer has changed the names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # of torch.compile and FSDP
_COUNTER = "num_batches_tracked"  # files of PyTorch before 0.4.1 lack it, and no result depends on it
_HEADS = ("classifier", "fc", "head", "network.1")
MOST = 4
"""How many names an error message lists."""
_STARTS, _DEPTH = 20, 6


class Tensors(NamedTuple):
    """All tensors of a file by their dotted names, the keys of its dicts included, and the key of each."""

    values: dict[str, Tensor]
    keys: dict[str, str]

    @classmethod
    def of(cls, content: Any) -> Tensors:
        """Collect the tensors of a dict and of the dicts in it, or if there are none the arrays."""
        found = cls({}, {})
        for key, own, tensor in [*_walk(content, "", kind=Tensor)] or _walk(content, "", kind=np.ndarray):
            name = _joined(key, own)
            for wrapper in _WRAPPERS:
                name = name.replace(wrapper, "")
            found.values[name], found.keys[name] = torch.as_tensor(tensor), key
        return found

    def under(self, key: str) -> Tensors:
        """The tensors under one key and the keys below it."""
        names = [name for name, own in self.keys.items() if own == key or own.startswith(f"{key}.")]
        return Tensors({n: self.values[n] for n in names}, {n: self.keys[n] for n in names})


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How the tensors of a file fit a network.

    Attributes:
        starts: layer of the network -> what its names begin with in the file; "" stands for all other layers.
        names: tensor of the network -> tensor of the file, of the same shape.
        missing: tensors of the network that the file lacks.
        different: tensors of the network -> tensors of the file, of another shape.
        extra: tensors of the file among those of the network, which the network lacks.
    """

    starts: Mapping[str, str]
    names: Mapping[str, str]
    missing: list[str] = field(default_factory=list)
    different: Mapping[str, str] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)

    @property
    def start(self) -> str:
        """What the names begin with in the file, except those of single layers."""
        return self.starts.get("", next(iter(self.starts.values()), ""))

    @property
    def is_whole(self) -> bool:
        """Whether every tensor of the network is in the file, and none beside them."""
        return not (self.missing or self.different or self.extra)


def fits(
    own: Mapping[str, Tensor], file: Tensors, *, prefix: str | Mapping[str, str] | None = None, skip: Sequence[str] = ()
) -> list[Fit]:
    """Return how the file may fit, the best first: with this prefix under any key, or with any prefix."""
    found = []
    for starts in _common_starts(own, file) if prefix is None else _given_starts(prefix, file):
        fit = fit_of(own, file, starts=starts, skip=skip)
        heads = [] if prefix is not None else _heads(own, file, fit)
        found += [fit_of(own, file, starts={**starts, **head}, skip=skip) for head in heads] or [fit]
    return sorted((fit for fit in found if fit.names), key=lambda fit: (not fit.is_whole, -len(fit.names)))


def _common_starts(own: Iterable[str], file: Tensors) -> list[dict[str, str]]:
    """What stands before the network's names in the file, the most frequent first.

    Where the file has none of these names, the network may be in a wrapper that the saved one was not in.
    """
    shared = takewhile(lambda parts: len({*parts}) == 1, zip(*(name.split(".")[:-1] for name in own), strict=False))
    wrapper = ".".join(parts[0] for parts in shared)
    starts = _starts(own, file)
    if starts or not wrapper:
        return [{"": start} for start in starts]
    return [{wrapper: start} for start in _starts((name[len(wrapper) + 1 :] for name in own), file)]


def _starts(own: Iterable[str], file: Tensors) -> list[str]:
    ends: dict[str, list[str]] = {}
    for name in file.values:
        parts = name.split(".")
        for k in range(len(parts)):
            ends.setdefault(".".join(parts[k:]), []).append("".join(f"{part}." for part in parts[:k]))
    counts = Counter(start for name in own for start in ends.get(name, ()))
    return [start for start, _ in counts.most_common(_STARTS)]


def _given_starts(prefix: str | Mapping[str, str], file: Tensors) -> list[dict[str, str]]:
    """A prefix that the user gave, under each key of the file."""
    starts = {"": prefix} if isinstance(prefix, str) else prefix
    dotted = {layer: f"{start}." if start and start[-1] != "." else start for layer, start in starts.items()}
    places = [f"{place}." if place else "" for place in dict.fromkeys(["", *file.keys.values()])]
    return [{layer: place + start for layer, start in dotted.items()} for place in places]


def fit_of(own: Mapping[str, Tensor], file: Tensors, *, starts: Mapping[str, str], skip: Sequence[str]) -> Fit:
    """Return how the file fits if its names begin like this."""
    names: dict[str, str] = {}
    missing, different = [], {}
    for name, tensor in own.items():
        layer = max((layer for layer in starts if is_in(name, layer)), key=len, default=None)
        theirs = None if layer is None else starts[layer] + name[len(layer) :].lstrip(".")
        if theirs not in file.values:
            missing += [name] * (not name.endswith(_COUNTER))
        elif file.values[theirs].shape == tensor.shape:
            names[name] = theirs
        else:
            different[name] = theirs
    fit = Fit(starts=starts, names=names, missing=missing, different=different)
    start, used = fit.start, {*names.values(), *different.values()}
    keys = {file.keys[name] for name in used}
    extra = [
        name
        for name in file.values
        if name not in used
        and name.startswith(start)
        and file.keys[name] in keys
        and not any(is_in(name[len(start) :], layer) for layer in skip)
        and not any(same(file.values[name], file.values[other]) for other in names.values())
    ]
    return replace(fit, extra=extra)


def is_in(name: str, layer: str) -> bool:
    """Return whether a dotted name is a layer's own or that of a part of it; every name is in the layer ""."""
    return not layer or name == layer or name.startswith(f"{layer}.")


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same shape, type and values."""
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def layers_of(names: Iterable[str]) -> list[str]:
    """Return the layers that hold these tensors, without repetition."""
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))


def first_few(items: Sequence[str]) -> str:
    """Return the first few items as text, and how many more there are."""
    listed = ", ".join(items[:MOST])
    return listed if len(items) <= MOST else f"{listed} and {len(items) - MOST} more"


def _heads(own: Mapping[str, Tensor], file: Tensors, fit: Fit) -> list[dict[str, str]]:
    """The layer whose tensors alone are missing, and where a classifier of equal shapes has them: one or more places.

    DomainBed saves featurizer and classifier as `network.0` and `network.1`, Dassl as `backbone` and `classifier`.
    """
    layers = layers_of(fit.missing)
    if len(layers) != 1 or fit.different or not fit.names:
        return []
    inner = [name.rpartition(".")[2] for name in fit.missing]
    keys = {file.keys[name] for name in fit.names.values()}
    places = []
    for place in layers_of(name for name in file.values if name not in fit.names.values()):
        names = [f"{place}.{end}" for end in inner]
        known = place.endswith(_HEADS)
        pairs = zip(names, fit.missing, strict=True)
        if known and all(n in file.values and file.values[n].shape == own[m].shape for n, m in pairs):
            places.append(place)
    near = [place for place in places if file.keys[f"{place}.{inner[0]}"] in keys] or places
    values = [[file.values[f"{place}.{end}"] for end in inner] for place in near]
    new = [n for n, own in enumerate(values) if not any(all(map(same, own, other)) for other in values[:n])]
    return [{layers[0]: f"{near[n]}."} for n in new]


def _walk(content: Any, key: str, *, kind: type, depth: int = 0) -> Iterator[tuple[str, str, Any]]:
    """Yield (key, name, tensor) for every tensor, or array, in a dict and in the dicts in it."""
    if isinstance(content, Mapping) and depth < _DEPTH:
        for name, value in content.items():
            if isinstance(value, kind):
                yield key, str(name), value
            else:
                yield from _walk(value, _joined(key, str(name)), kind=kind, depth=depth + 1)


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)
