"""Type hints as kinds: each takes a value of its kind, converted where it is plain what is meant, or refuses it."""

from __future__ import annotations

import collections.abc as abc
import difflib
import math
import numbers
import operator
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

_LONG = 1000
"""Items of a list or dict that are looked at."""
_ENDLESS = 100_000
_LISTS = (list, tuple, abc.Sequence, abc.Iterable, abc.Collection)
_WALKED = (abc.Sequence, abc.Iterator, abc.KeysView, abc.ValuesView, abc.Set)
_CLASSES = {
    "Module": ("a network (nn.Module)", "networks (nn.Module)"),
    "DataFrame": ("a table (DataFrame)", "tables (DataFrame)"),
    "Tensor": ("a tensor", "tensors"),
    "Callable": ("a function", "functions"),
    "Dataset": ("a data set (torch Dataset)", "data sets"),
    "Generator": ("a generator", "generators"),
    "device": ("a device", "devices"),
    "Path": ("a path", "paths"),
}
_TOGETHER = {
    frozenset({"str", "Scorer"}): ("a scorer (a name or a Scorer)", "scorers (names or Scorers)"),
    frozenset({"str", "Scorer", "Scores"}): ("a scorer (a name, a Scorer or Scores)", "scorers (names or Scorers)"),
    frozenset({"str", "Path"}): ("a path", "paths"),
    frozenset({"str", "device"}): ("a device such as 'cpu'", "devices"),
}


@dataclass(frozen=True)
class Within:
    """Bounds of a number, in an `Annotated` hint: in words that follow "must", and as a test."""

    words: str
    holds: Callable[[float], bool]


Ratio = Annotated[float, Within("lie in [0, 1): the share removed, so 0.5 is half", lambda value: 0 <= value < 1)]
Share = Annotated[float, Within("lie in 0 to 1", lambda value: 0 <= value <= 1)]
Positive = Annotated[float, Within("be above 0", lambda value: value > 0)]
NotNegative = Annotated[float, Within("be at least 0", lambda value: value >= 0)]
Count = Annotated[int, Within("be at least 1", lambda value: value >= 1)]
Whole = Annotated[int, Within("be at least 0", lambda value: value >= 0)]
Seed = Annotated[int, Within("be a whole number from 0 to 2**63 - 1", lambda value: 0 <= value < 2**63)]


class Refused(Exception):
    """A value that is not of a kind.

    Attributes:
        value: the offending value; an item of a list where only that one is wrong.
        where: its place, as in " at position 2".
        must: what it has to be, where that says more than the words of the whole argument.
        advice: what to do next.
        depth: how far the value agreed before it was refused.
    """

    def __init__(self, value: object, *, must: str = "", advice: str = "", depth: int = 0) -> None:
        super().__init__()
        self.value, self.where, self.must, self.advice, self.depth = value, "", must, advice, depth

    def within(self, where: str) -> Refused:
        self.where, self.depth = f" at {where}{self.where}", self.depth + 1
        return self


class Kind:
    """One hint: its words, the names of the classes it accepts, and `take`."""

    words: str = "anything"
    plural: str = "values"
    names: frozenset[str] = frozenset()
    rank: ClassVar[int] = 5

    def take(self, value: Any) -> Any:
        """Return the value, converted where needed; raise `Refused`."""
        return value


class _Nothing(Kind):
    words, plural, names, rank = "None", "None", frozenset({"None"}), 0

    def take(self, value: Any) -> Any:
        if value is not None:
            raise Refused(value)
        return value


class _Choice(Kind):
    rank = 1

    def __init__(self, options: tuple[Any, ...]) -> None:
        self.options = options
        listed = ", ".join(map(repr, options))
        self.words, self.plural = (f"one of {listed}" if len(options) > 1 else listed), f"items out of {listed}"

    def take(self, value: Any) -> Any:
        if isinstance(value, str | int | bool) and value in self.options:
            return value
        near = difflib.get_close_matches(str(value), map(str, self.options), n=1, cutoff=0.5)
        text = isinstance(value, str)
        raise Refused(value, advice=f"Did you mean {near[0]!r}?" if near and text else "", depth=int(text))


class _Flag(Kind):
    words, plural, names, rank = "True or False", "True or False", frozenset({"bool"}), 1

    def take(self, value: Any) -> Any:
        if isinstance(value, np.bool_) or (_scalar(value) and str(value.dtype).endswith("bool")):
            return bool(value)
        if not isinstance(value, bool):
            raise Refused(value)
        return value


class _Text(Kind):
    words, plural, names, rank = "a string", "strings", frozenset({"str"}), 2

    def take(self, value: Any) -> Any:
        if not isinstance(value, str):
            raise Refused(value)
        return value


class _Number(Kind):
    rank = 3

    def __init__(self, kind: type, bounds: Within | None = None) -> None:
        self.kind, self.bounds, self.names = kind, bounds, frozenset({"number"})
        self.words, self.plural = ("a whole number", "whole numbers") if kind is int else ("a number", "numbers")

    def take(self, value: Any) -> Any:
        taken = value if type(value) is self.kind else self._converted(value)
        if self.kind is float and not math.isfinite(taken):
            raise Refused(value, must="be a finite number", depth=1)
        if self.bounds is not None and not self.bounds.holds(taken):
            raise Refused(value, must=self.bounds.words, depth=1)
        return taken

    def _converted(self, value: Any) -> Any:
        number: Any = value.item() if _scalar(value) else value
        if isinstance(number, bool | np.bool_) or not isinstance(number, numbers.Real):
            raise Refused(value, advice=_unquoted(value))
        if self.kind is float:
            return float(number)
        if isinstance(number, numbers.Integral):
            return operator.index(number)
        if not float(number).is_integer():
            raise Refused(value, depth=1)
        return int(float(number))


class _Leaf(Kind):
    """A class, a protocol, a function: what beartype decides."""

    rank = 4

    def __init__(self, hint: Any) -> None:
        from beartype.door import is_bearable

        self.hint, self.bearable = hint, is_bearable
        name = getattr(get_origin(hint) or hint, "__name__", str(hint))
        self.names = frozenset({name})
        article = "an" if name[0] in "AEIOU" else "a"
        self.words, self.plural = _CLASSES.get(name, (f"{article} {name}", name if name[-1] == "s" else f"{name}s"))
        if self.words == f"a {self.plural}":  # Scores, Outcomes
            self.words = self.plural

    def take(self, value: Any) -> Any:
        if self.bearable(value, self.hint):
            return value
        if self.hint is Tensor and isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C", copy=True))
        if self.hint is Path and isinstance(value, str):
            return Path(value)
        raise Refused(value)


class _Many(Kind):
    """A list: one item stands for a list of one, the values of a dict of objects for a list of them."""

    rank = 8

    def __init__(self, origin: Any, item: Kind) -> None:
        self.item, self.names = item, item.names
        self.kind = origin if origin in (list, tuple) else None
        self.ordered = origin in (list, tuple, abc.Sequence)
        self.words, self.plural = f"a list of {item.plural}", f"lists of {item.plural}"

    def take(self, value: Any) -> Any:
        items = self._items(value)
        taken = [_at(self.item, item, f"position {n}") for n, item in enumerate(islice(items, _LONG))]
        same = len(taken) == len(items) and all(a is b for a, b in zip(taken, items, strict=True))
        if len(items) > _LONG:
            same, taken = True, list(items)
        if same and items is value and (self.kind is None or isinstance(value, self.kind)):
            return value
        return tuple(taken) if self.kind is tuple else taken

    def _items(self, value: Any) -> Any:
        if isinstance(value, str | bytes):
            return [self.item.take(value)]
        if isinstance(value, Mapping):
            if not self.item.names.isdisjoint({"number"}) or self.item.names <= {"str"}:
                raise Refused(value)
            return list(value.values())
        if _row(value):
            return value.tolist()
        if isinstance(value, set | frozenset) and self.ordered:
            raise Refused(value, advice="A set has no order; give a list.")
        if isinstance(value, list | tuple | range):
            return value
        if isinstance(value, _WALKED) or hasattr(value, "__next__"):
            listed = list(islice(value, _ENDLESS + 1))
            if len(listed) > _ENDLESS:
                raise Refused(value, advice=f"It has more than {_ENDLESS:,} items.")
            return listed
        return [self.item.take(value)]


class _Row(Kind):
    """A tuple of a fixed length."""

    rank = 7

    def __init__(self, parts: list[Kind]) -> None:
        self.parts, self.names = parts, frozenset({"tuple"})
        inside = {part.plural for part in parts}
        count = {2: "two", 3: "three", 4: "four"}.get(len(parts), str(len(parts)))
        listed = inside.pop() if len(inside) == 1 else f"items ({', '.join(part.words for part in parts)})"
        self.words, self.plural = f"{count} {listed}", f"rows of {count} {listed}"

    def take(self, value: Any) -> Any:
        if _row(value):
            value = value.tolist()
        if not isinstance(value, list | tuple) or len(value) != len(self.parts):
            raise Refused(value)
        taken = [_at(part, item, f"position {n}") for n, (part, item) in enumerate(zip(self.parts, value, strict=True))]
        same = isinstance(value, tuple) and all(a is b for a, b in zip(taken, value, strict=True))
        return value if same else tuple(taken)


class _Named(Kind):
    """A dict."""

    rank = 6

    def __init__(self, key: Kind, item: Kind) -> None:
        self.key, self.item, self.names = key, item, frozenset({"dict"})
        by = " by name" if key.names == {"str"} else ""
        self.words, self.plural = f"a dict of {item.plural}{by}", f"dicts of {item.plural}"

    def take(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Refused(value)
        if len(value) > _LONG:
            return value
        taken = {}
        for name, item in value.items():
            taken[_at(self.key, name, "a key")] = _at(self.item, item, repr(name))
        return value if all(a is b for a, b in zip(taken.values(), value.values(), strict=True)) else taken


class _Either(Kind):
    """A union; what a value is comes before what it could be converted to."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds = sorted(kinds, key=lambda kind: kind.rank)
        self.names = frozenset().union(*(kind.names for kind in self.kinds))
        plain = [kind for kind in self.kinds if type(kind) not in (_Nothing, _Many)]
        last = [kind for kind in self.kinds if type(kind) is _Many] + [k for k in self.kinds if type(k) is _Nothing]
        single = frozenset().union(*(kind.names for kind in plain))
        words = [kind.words for kind in plain]
        plurals = [kind.plural for kind in plain]
        if single in _TOGETHER:
            words, plurals = ([text] for text in _TOGETHER[single])
        self.words = _or([*words, *(kind.words for kind in last)])
        self.plural = _or([*plurals, *(kind.plural for kind in last)])

    def take(self, value: Any) -> Any:
        worst: Refused | None = None
        for kind in self.kinds:
            try:
                return kind.take(value)
            except Refused as refused:
                if worst is None or (refused.depth, bool(refused.advice)) > (worst.depth, bool(worst.advice)):
                    worst = refused
        assert worst is not None
        raise worst


def kind_of(hint: Any, *, bounds: Within | None = None) -> Kind:
    """Return the kind of a resolved hint; of one that cannot be checked, the kind that takes anything."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return kind_of(inner[0], bounds=next((m for m in inner[1:] if isinstance(m, Within)), None))
    if origin in (Union, types.UnionType):
        return _Either([kind_of(part, bounds=bounds) for part in inner])
    if hint is None or hint is type(None):
        return _Nothing()
    if hint in (int, float):
        return _Number(hint, bounds)
    if hint is bool or hint is str:
        return _Flag() if hint is bool else _Text()
    if origin is Literal:
        return _Choice(inner)
    if origin is tuple and inner and not (len(inner) == 2 and inner[1] is Ellipsis):
        return _Row([kind_of(part) for part in inner])
    if origin in _LISTS or hint in _LISTS:
        return _Many(origin, kind_of(inner[0] if inner else Any))
    if origin in (dict, abc.Mapping) or hint in (dict, abc.Mapping):
        key, item = inner or (Any, Any)
        return _Named(kind_of(key), kind_of(item))
    if hint in (Any, object) or isinstance(hint, TypeVar | str):
        return Kind()
    return _Leaf(hint)


def _at(kind: Kind, value: Any, where: str) -> Any:
    try:
        return kind.take(value)
    except Refused as refused:
        raise refused.within(where) from None


def _scalar(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor | np.generic) and value.ndim == 0


def _row(value: Any) -> bool:
    """Whether it is an array, a tensor or a Series of one axis."""
    return getattr(value, "ndim", None) == 1 and hasattr(value, "tolist")


def _unquoted(value: Any) -> str:
    try:
        return f"Write it without quotes: {float(value):g}." if isinstance(value, str) else ""
    except ValueError:
        return ""


def _or(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
