"""Type hints as kinds: lists, dicts and unions of single values."""

from __future__ import annotations

import collections.abc as abc
import types
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
import torch

from .kinds import Array, Choice, Columns, Device, Flag, Kind, Leaf, Nothing, Number, Place, Refused, Text, Within

_LONG = 1000
"""At most this many items of a list or dict are checked."""
_ENDLESS = 100_000
_LISTS = (list, tuple, abc.Sequence, abc.Iterable, abc.Collection)
_WALKED = (abc.Sequence, abc.Iterator, abc.KeysView, abc.ValuesView, abc.Set)
_PLAIN = ((None, Nothing), (type(None), Nothing), (bool, Flag), (str, Text), (Path, Place), (torch.device, Device))
_TOGETHER = {
    frozenset({"str", "Scorer"}): ("a scorer (a name or a Scorer)", "scorers (names or Scorers)"),
    frozenset({"str", "Scorer", "Scores"}): ("a scorer (a name, a Scorer or Scores)", "scorers (names or Scorers)"),
}


class _Many(Kind):
    """A list. One item is taken as a list of one; a dict of objects as the list of its values."""

    rank = 8

    def __init__(self, origin: Any, item: Kind) -> None:
        self.item, self.names = item, item.names
        self.kind = origin if origin in (list, tuple) else None
        self.ordered = origin in (list, tuple, abc.Sequence)
        self.words, self.plural = f"a list of {item.plural}", f"lists of {item.plural}"

    def take(self, value: Any) -> Any:
        items = self._items(value)
        taken = [_at(self.item, item, f"position {n}") for n, item in enumerate(islice(items, _LONG))]
        if getattr(getattr(self.item, "bounds", None), "once", False) and len(set(taken)) < len(taken):
            raise Refused(value, must="hold each number once", depth=1)
        same = len(taken) == len(items) and all(a is b for a, b in zip(taken, items, strict=True))
        if len(items) > _LONG:
            same, taken = True, list(items)
        if same and items is value and (self.kind is None or isinstance(value, self.kind)):
            return value
        return tuple(taken) if self.kind is tuple else taken

    def _items(self, value: Any) -> Any:
        if value is None:
            raise Refused(value)
        if isinstance(value, str | bytes):
            return [self.item.take(value)]
        if isinstance(value, Mapping):
            if not self.item.names.isdisjoint({"number"}) or self.item.names <= {"str"}:
                raise Refused(value)
            for key, item in value.items() if "Domain" in self.item.names else ():
                if getattr(item, "name", key) != key:
                    raise Refused(
                        value, advice=f"The item with the key {key!r} has the name {item.name!r}; give a list."
                    )
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
        rows = "pairs" if len(parts) == 2 else f"rows of {count}"
        self.words, self.plural = f"{count} {listed}", f"{rows} of {listed}"

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
    """A union: a member that the value already is comes before one that it could be converted to."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds = sorted(kinds, key=lambda kind: kind.rank)
        self.names = frozenset().union(*(kind.names for kind in self.kinds))
        plain = [kind for kind in self.kinds if type(kind) not in (Nothing, _Many)]
        last = [kind for kind in self.kinds if type(kind) is _Many] + [k for k in self.kinds if type(k) is Nothing]
        single = frozenset().union(*(kind.names for kind in plain))
        words = list(dict.fromkeys(kind.words for kind in plain))  # two kinds of tables are one "table"
        plurals = list(dict.fromkeys(kind.plural for kind in plain))
        if single in _TOGETHER:
            words, plurals = ([text] for text in _TOGETHER[single])
        self.words = _or([*words, *(kind.words for kind in last)])
        self.plural = _or([*plurals, *(kind.plural for kind in last)])

    def take(self, value: Any) -> Any:
        worst: Refused | None = None
        for kind in self.kinds:
            if type(kind) is _Many and worst is not None and worst.must:
                continue  # a number out of bounds is no list of one number
            try:
                return kind.take(value)
            except Refused as refused:
                if worst is None or (refused.depth, bool(refused.advice)) > (worst.depth, bool(worst.advice)):
                    worst = refused
        assert worst is not None
        raise worst


def kind_of(hint: Any, *, bounds: Within | None = None) -> Kind:
    """Return the kind of a resolved hint; for a hint that cannot be checked, the kind that takes anything."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        columns = next((note for note in inner[1:] if isinstance(note, Columns)), None)
        bounds = next((note for note in inner[1:] if isinstance(note, Within)), None)
        kind = kind_of(inner[0], bounds=bounds) if columns is None else Leaf(inner[0], columns)
        for words in inner[1:]:
            if isinstance(words, str):
                kind.words = kind.plural = words
        return kind
    if origin in (Union, types.UnionType):
        parts = [part for part in inner if not (part is str and (torch.device in inner or Path in inner))]
        return _Either([kind_of(part, bounds=bounds) for part in parts])
    if hint in (int, float):
        return Number(hint, bounds)
    for plain, kind in _PLAIN:
        if hint is plain:
            return kind()
    if origin is Literal:
        return Choice(inner)
    if origin is tuple and inner and not (len(inner) == 2 and inner[1] is Ellipsis):
        return _Row([kind_of(part) for part in inner])
    if origin in _LISTS or hint in _LISTS:
        return _Many(origin, kind_of(inner[0] if inner else Any))
    if origin is np.ndarray:
        (number,) = get_args(inner[1]) or (np.generic,)
        return Array(number)
    if origin in (dict, abc.Mapping) or hint in (dict, abc.Mapping):
        key, item = inner or (Any, Any)
        return _Named(kind_of(key), kind_of(item))
    if hint in (Any, object) or isinstance(hint, TypeVar | str):
        return Kind()
    return Leaf(hint)


def _at(kind: Kind, value: Any, where: str) -> Any:
    try:
        return kind.take(value)
    except Refused as refused:
        raise refused.within(where) from None


def _row(value: Any) -> bool:
    """Whether the value is an array, a tensor or a Series with one axis."""
    return getattr(value, "ndim", None) == 1 and hasattr(value, "tolist")


def _or(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
