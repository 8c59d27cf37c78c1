"""Values that a receiver cannot change: reading one gives a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class Frozen(Mapping[str, Value]):
    """A dictionary that cannot be changed; each read of a tensor gives a copy.

    >>> import torch
    >>> frozen = Frozen({"conv1": torch.ones(2)})
    >>> frozen["conv1"].neg_()
    tensor([-1., -1.])
    >>> frozen["conv1"]
    tensor([1., 1.])
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = {name: cloned(value) for name, value in values.items()}

    def __getitem__(self, name: str) -> Value:
        return cloned(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


def cloned(value: Value) -> Value:
    """Return a copy of a value in which every tensor is cloned, also inside dictionaries, tuples and dataclasses."""
    return mapped(value, lambda tensor: tensor.detach().clone())


def mapped(value: Value, change: Callable[[Tensor], Tensor]) -> Value:
    """Return a value with every tensor replaced by `change(tensor)`, also in containers and dataclasses."""
    result: Any = value
    if isinstance(value, Tensor):
        result = change(value)
    elif isinstance(value, dict):
        result = {name: mapped(part, change) for name, part in value.items()}
    elif isinstance(value, tuple):
        parts = [mapped(part, change) for part in value]
        result = type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    elif isinstance(value, list):
        result = [mapped(part, change) for part in value]
    elif is_dataclass(value) and not isinstance(value, type):
        result = replace(value, **{f.name: mapped(getattr(value, f.name), change) for f in fields(value) if f.init})
    return result
