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
MAX_LISTED = 4
"""Number of names that an error message lists."""
_MAX_PREFIXES, _MAX_DEPTH = 20, 6


class Tensors(NamedTuple):
    """All tensors of a file by dotted name, which includes the keys of nested dicts, and the key of each."""

    values: dict[str, Tensor]
    keys: dict[str, str]

    @classmethod
    def collect(cls, content: Any) -> Tensors:
        """Collect the tensors (the arrays, if there are no tensors) of a dict and the dicts nested in it."""
        tensors = cls({}, {})
        for key, own, tensor in [*_walk(content, "", kind=Tensor)] or _walk(content, "", kind=np.ndarray):
            name = _join_name(key, own)
            for wrapper in _WRAPPERS:
                name = name.replace(wrapper, "")
            tensors.values[name], tensors.keys[name] = torch.as_tensor(tensor), key
        return tensors

    def under(self, key: str) -> Tensors:
        """Return the tensors under one key and the keys below it."""
        names = [name for name, own in self.keys.items() if own == key or own.startswith(f"{key}.")]
        return Tensors({n: self.values[n] for n in names}, {n: self.keys[n] for n in names})


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How the tensors of a file fit a network.

    Attributes:
        prefixes: layer of the network -> prefix of its names in the file; "" stands for all other layers.
        names: tensor of the network -> tensor of the file, of the same shape.
        missing: tensors of the network that the file lacks.
        different: tensors of the network -> tensors of the file, of another shape.
        extra: tensors of the file with the same prefix that the network lacks.
    """

    prefixes: Mapping[str, str]
    names: Mapping[str, str]
    missing: list[str] = field(default_factory=list)
    different: Mapping[str, str] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        """Prefix of the names in the file, except for layers with a prefix of their own."""
        return self.prefixes.get("", next(iter(self.prefixes.values()), ""))

    @property
    def is_whole(self) -> bool:
        """Whether the file has every tensor of the network, and no other."""
        return not (self.missing or self.different or self.extra)


def find_fits(
    own: Mapping[str, Tensor], file: Tensors, *, prefix: str | Mapping[str, str] | None = None, skip: Sequence[str] = ()
) -> list[Fit]:
    """Return the possible fits of the file, best first: with this prefix under any key, or with any prefix."""
    candidates = []
    for prefixes in _common_prefixes(own, file) if prefix is None else _requested_prefixes(prefix, file):
        fit = fit_with(own, file, prefixes=prefixes, skip=skip)
        heads = [] if prefix is not None else _find_heads(own, file, fit)
        candidates += [fit_with(own, file, prefixes={**prefixes, **head}, skip=skip) for head in heads] or [fit]
    return sorted((fit for fit in candidates if fit.names), key=lambda fit: (not fit.is_whole, -len(fit.names)))


def _common_prefixes(own: Iterable[str], file: Tensors) -> list[dict[str, str]]:
    """Return the prefixes of the network's names in the file, most frequent first.

    If the file has none of these names, the network may be in a wrapper that the saved one lacked.
    """
    shared = takewhile(lambda parts: len({*parts}) == 1, zip(*(name.split(".")[:-1] for name in own), strict=False))
    wrapper = ".".join(parts[0] for parts in shared)
    prefixes = _count_prefixes(own, file)
    if prefixes or not wrapper:
        return [{"": prefix} for prefix in prefixes]
    return [{wrapper: prefix} for prefix in _count_prefixes((name[len(wrapper) + 1 :] for name in own), file)]


def _count_prefixes(own: Iterable[str], file: Tensors) -> list[str]:
    ends: dict[str, list[str]] = {}
    for name in file.values:
        parts = name.split(".")
        for k in range(len(parts)):
            ends.setdefault(".".join(parts[k:]), []).append("".join(f"{part}." for part in parts[:k]))
    counts = Counter(prefix for name in own for prefix in ends.get(name, ()))
    return [prefix for prefix, _ in counts.most_common(_MAX_PREFIXES)]


def _requested_prefixes(prefix: str | Mapping[str, str], file: Tensors) -> list[dict[str, str]]:
    """Return the user's prefix under each key of the file."""
    prefixes = {"": prefix} if isinstance(prefix, str) else prefix
    dotted = {layer: f"{prefix}." if prefix and prefix[-1] != "." else prefix for layer, prefix in prefixes.items()}
    places = [f"{place}." if place else "" for place in dict.fromkeys(["", *file.keys.values()])]
    return [{layer: place + prefix for layer, prefix in dotted.items()} for place in places]


def fit_with(own: Mapping[str, Tensor], file: Tensors, *, prefixes: Mapping[str, str], skip: Sequence[str]) -> Fit:
    """Return how the file fits with these prefixes."""
    names: dict[str, str] = {}
    missing, different = [], {}
    for name, tensor in own.items():
        layer = max((layer for layer in prefixes if is_in(name, layer)), key=len, default=None)
        source = None if layer is None else prefixes[layer] + name[len(layer) :].lstrip(".")
        if source not in file.values:
            missing += [name] * (not name.endswith(_COUNTER))
        elif file.values[source].shape == tensor.shape:
            names[name] = source
        else:
            different[name] = source
    fit = Fit(prefixes=prefixes, names=names, missing=missing, different=different)
    prefix, used = fit.prefix, {*names.values(), *different.values()}
    keys = {file.keys[name] for name in used}
    extra = [
        name
        for name in file.values
        if name not in used
        and name.startswith(prefix)
        and file.keys[name] in keys
        and not any(is_in(name[len(prefix) :], layer) for layer in skip)
        and not any(is_equal(file.values[name], file.values[other]) for other in names.values())
    ]
    return replace(fit, extra=extra)


def is_in(name: str, layer: str) -> bool:
    """Return whether a dotted name is that of a layer or of a part of it; every name is in the layer ""."""
    return not layer or name == layer or name.startswith(f"{layer}.")


def is_equal(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors have the same shape, type and values."""
    return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)


def layers_of(names: Iterable[str]) -> list[str]:
    """Return the layers that hold these tensors, without repetition."""
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))


def first_few(items: Sequence[str]) -> str:
    """Return the first few items as text, and how many more there are."""
    text = ", ".join(items[:MAX_LISTED])
    return text if len(items) <= MAX_LISTED else f"{text} and {len(items) - MAX_LISTED} more"


def _find_heads(own: Mapping[str, Tensor], file: Tensors, fit: Fit) -> list[dict[str, str]]:
    """Return {layer: prefix} for each classifier in the file that fits the only layer whose tensors are missing.

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
    new = [n for n, own in enumerate(values) if not any(all(map(is_equal, own, other)) for other in values[:n])]
    return [{layers[0]: f"{near[n]}."} for n in new]


def _walk(content: Any, key: str, *, kind: type, depth: int = 0) -> Iterator[tuple[str, str, Any]]:
    """Yield (key, name, tensor) for every tensor, or array, in a dict and in the dicts in it."""
    if isinstance(content, Mapping) and depth < _MAX_DEPTH:
        for name, value in content.items():
            if isinstance(value, kind):
                yield key, str(name), value
            else:
                yield from _walk(value, _join_name(key, str(name)), kind=kind, depth=depth + 1)


def _join_name(*parts: str) -> str:
    return ".".join(part for part in parts if part)
