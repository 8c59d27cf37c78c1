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

_MOST_CHECKED = 1000
"""At most this many items of a list or dict are checked."""
_MOST_ITEMS = 100_000
_LISTS = (list, tuple, abc.Sequence, abc.Iterable, abc.Collection)
_ITERABLES = (abc.Sequence, abc.Iterator, abc.KeysView, abc.ValuesView, abc.Set)
_PLAIN = ((None, Nothing), (type(None), Nothing), (bool, Flag), (str, Text), (Path, Place), (torch.device, Device))
_SCORER_UNIONS = {
    frozenset({"str", "Scorer"}): ("a scorer (a name or a Scorer)", "scorers (names or Scorers)"),
    frozenset({"str", "Scorer", "Scores"}): ("a scorer (a name, a Scorer or Scores)", "scorers (names or Scorers)"),
}


class _ListKind(Kind):
    """A list; a single item becomes a list of one item, and a dict of objects becomes the list of its values."""

    rank = 8

    def __init__(self, origin: Any, item: Kind) -> None:
        self.item, self.names = item, item.names
        self.kind = origin if origin in (list, tuple) else None
        self.ordered = origin in (list, tuple, abc.Sequence)
        self.phrase, self.plural = f"a list of {item.plural}", f"lists of {item.plural}"

    def take(self, value: Any) -> Any:
        items = self._items(value)
        converted = [_take_at(self.item, item, f"position {n}") for n, item in enumerate(islice(items, _MOST_CHECKED))]
        if getattr(getattr(self.item, "bounds", None), "once", False) and len(set(converted)) < len(converted):
            raise Refused(value, must="hold each number once", depth=1)
        unchanged = len(converted) == len(items) and all(a is b for a, b in zip(converted, items, strict=True))
        if len(items) > _MOST_CHECKED:
            unchanged, converted = True, list(items)
        if unchanged and items is value and (self.kind is None or isinstance(value, self.kind)):
            return value
        return tuple(converted) if self.kind is tuple else converted

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
        if _is_vector(value):
            return value.tolist()
        if isinstance(value, set | frozenset) and self.ordered:
            raise Refused(value, advice="A set has no order; give a list.")
        if isinstance(value, list | tuple | range):
            return value
        if isinstance(value, _ITERABLES) or hasattr(value, "__next__"):
            items = list(islice(value, _MOST_ITEMS + 1))
            if len(items) > _MOST_ITEMS:
                raise Refused(value, advice=f"It has more than {_MOST_ITEMS:,} items.")
            return items
        return [self.item.take(value)]


class _TupleKind(Kind):
    """A tuple of a fixed length."""

    rank = 7

    def __init__(self, parts: list[Kind]) -> None:
        self.parts, self.names = parts, frozenset({"tuple"})
        plurals = {part.plural for part in parts}
        count = {2: "two", 3: "three", 4: "four"}.get(len(parts), str(len(parts)))
        items = plurals.pop() if len(plurals) == 1 else f"items ({', '.join(part.phrase for part in parts)})"
        rows = "pairs" if len(parts) == 2 else f"rows of {count}"
        self.phrase, self.plural = f"{count} {items}", f"{rows} of {items}"

    def take(self, value: Any) -> Any:
        if _is_vector(value):
            value = value.tolist()
        if not isinstance(value, list | tuple) or len(value) != len(self.parts):
            raise Refused(value)
        converted = [_take_at(self.parts[n], item, f"position {n}") for n, item in enumerate(value)]
        unchanged = isinstance(value, tuple) and all(a is b for a, b in zip(converted, value, strict=True))
        return value if unchanged else tuple(converted)


class _DictKind(Kind):
    """A dict."""

    rank = 6

    def __init__(self, key: Kind, item: Kind) -> None:
        self.key, self.item, self.names = key, item, frozenset({"dict"})
        by = " by name" if key.names == {"str"} else ""
        self.phrase, self.plural = f"a dict of {item.plural}{by}", f"dicts of {item.plural}"

    def take(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Refused(value)
        if len(value) > _MOST_CHECKED:
            return value
        converted = {}
        for name, item in value.items():
            converted[_take_at(self.key, name, "a key")] = _take_at(self.item, item, repr(name))
        return value if all(a is b for a, b in zip(converted.values(), value.values(), strict=True)) else converted


class _UnionKind(Kind):
    """A union: kinds that a value fits as it is are tried before those that need it converted."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds = sorted(kinds, key=lambda kind: kind.rank)
        self.names = frozenset().union(*(kind.names for kind in self.kinds))
        plain = [kind for kind in self.kinds if type(kind) not in (Nothing, _ListKind)]
        last = [kind for kind in self.kinds if type(kind) is _ListKind] + [k for k in self.kinds if type(k) is Nothing]
        single = frozenset().union(*(kind.names for kind in plain))
        phrases = list(dict.fromkeys(kind.phrase for kind in plain))  # two kinds of tables are one "table"
        plurals = list(dict.fromkeys(kind.plural for kind in plain))
        if single in _SCORER_UNIONS:
            phrases, plurals = ([text] for text in _SCORER_UNIONS[single])
        self.phrase = _join_options([*phrases, *(kind.phrase for kind in last)])
        self.plural = _join_options([*plurals, *(kind.plural for kind in last)])

    def take(self, value: Any) -> Any:
        worst: Refused | None = None
        for kind in self.kinds:
            if type(kind) is _ListKind and worst is not None and worst.must:
                continue  # a number out of bounds is no list of one number
            try:
                return kind.take(value)
            except Refused as refused:
                if worst is None or (refused.depth, bool(refused.advice)) > (worst.depth, bool(worst.advice)):
                    worst = refused
        assert worst is not None
        raise worst


def kind_of(hint: Any, *, bounds: Within | None = None) -> Kind:
    """Return the kind of a resolved hint; for a hint that cannot be checked, the kind that accepts anything."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        columns = next((note for note in inner[1:] if isinstance(note, Columns)), None)
        bounds = next((note for note in inner[1:] if isinstance(note, Within)), None)
        kind = kind_of(inner[0], bounds=bounds) if columns is None else Leaf(inner[0], columns)
        for text in inner[1:]:
            if isinstance(text, str):
                kind.phrase = kind.plural = text
        return kind
    if origin in (Union, types.UnionType):
        parts = [part for part in inner if not (part is str and (torch.device in inner or Path in inner))]
        return _UnionKind([kind_of(part, bounds=bounds) for part in parts])
    if hint in (int, float):
        return Number(hint, bounds)
    for plain, kind in _PLAIN:
        if hint is plain:
            return kind()
    if origin is Literal:
        return Choice(inner)
    if origin is tuple and inner and not (len(inner) == 2 and inner[1] is Ellipsis):
        return _TupleKind([kind_of(part) for part in inner])
    if origin in _LISTS or hint in _LISTS:
        return _ListKind(origin, kind_of(inner[0] if inner else Any))
    if origin is np.ndarray:
        (number,) = get_args(inner[1]) or (np.generic,)
        return Array(number)
    if origin in (dict, abc.Mapping) or hint in (dict, abc.Mapping):
        key, item = inner or (Any, Any)
        return _DictKind(kind_of(key), kind_of(item))
    if hint in (Any, object) or isinstance(hint, TypeVar | str):
        return Kind()
    return Leaf(hint)


def _take_at(kind: Kind, value: Any, where: str) -> Any:
    try:
        return kind.take(value)
    except Refused as refused:
        raise refused.within(where) from None


def _is_vector(value: Any) -> bool:
    """Return whether the value is an array, a tensor or a Series with one axis."""
    return getattr(value, "ndim", None) == 1 and hasattr(value, "tolist")


def _join_options(phrases: list[str]) -> str:
    return " or ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)
