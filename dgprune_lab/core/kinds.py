"""Kinds of single values: each accepts a value, converts one whose meaning is unambiguous, or refuses it."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_origin

import numpy as np
import pandas as pd
import torch
from pandas.api.types import is_numeric_dtype
from torch import Tensor

from .errors import did_you_mean
from .machine import device

_CLASSES = {
    "Module": ("a network (nn.Module)", "networks (nn.Module)"),
    "DataFrame": ("a table (DataFrame)", "tables (DataFrame)"),
    "Tensor": ("a tensor", "tensors"),
    "Connections": ("a GC-Net", "GC-Nets"),
    "Callable": ("a function", "functions"),
    "Dataset": ("a data set (torch Dataset)", "data sets"),
    "Generator": ("a generator", "generators"),
    "TopLevelMixin": ("an Altair chart", "Altair charts"),
}
_NAME = 255  # bytes: the longest name of a file on the usual file systems


@dataclass(frozen=True)
class Within:
    """Bounds of a number, in an `Annotated` hint: `must` follows "must" in a message, `holds` tests a number.

    With `once`, no number may occur twice in a list: a repeated seed is no second draw.
    """

    must: str
    holds: Callable[[float], bool]
    once: bool = False


class Columns(tuple[str, ...]):
    """Names of the columns that a table must have, in an `Annotated` hint."""


SEEN = ("seen_by_training", "seen_by_scorer", "seen_by_finetuning", "seen_by_selection")
COLUMNS: tuple[str, ...] = (
    *("scorer", "ratio_requested", "ratio_achieved", "scope", "budget", "batchnorm", "seed", "training_seed"),
    *("domain", "role", "split", "images", "metric", "value", "low", "high", "interval", "unit"),
    *(*SEEN, "target_aware"),
)
NUMBERS = ("ratio_requested", "ratio_achieved", "value", "low", "high")
SHARED = Columns(("metric", "domain", "value"))
Tidy = Annotated[pd.DataFrame, SHARED]
Ratio = Annotated[float, Within("lie in [0, 1): the share removed, so 0.5 is half", lambda x: 0 <= x < 1, once=True)]
Probability = Annotated[float, Within("lie in 0 to below 1", lambda value: 0 <= value < 1)]
Share = Annotated[float, Within("lie in 0 to 1", lambda value: 0 <= value <= 1)]
Positive = Annotated[float, Within("be above 0", lambda value: value > 0)]
NotNegative = Annotated[float, Within("be at least 0", lambda value: value >= 0)]
Count = Annotated[int, Within("be at least 1", lambda value: value >= 1)]
Side = Annotated[int, Within("lie in 1 to 10,000 pixels", lambda value: 1 <= value <= 10_000)]
Whole = Annotated[int, Within("be at least 0", lambda value: value >= 0)]
Repeats = Annotated[int, Within("lie in 1 to 1,000", lambda value: 1 <= value <= 1000)]
Seed = Annotated[int, Within("be a whole number from 0 to 2**63 - 1", lambda value: 0 <= value < 2**63, once=True)]


class Refused(Exception):
    """A value that a kind does not accept.

    Attributes:
        value: the refused value; where only one item of a list is wrong, that item.
        where: position of that item, such as " at position 2".
        must: what the value must be, where that is more precise than the phrase of the whole argument.
        advice: what to do next.
        depth: number of nesting levels that were accepted before the value was refused.
    """

    def __init__(self, value: object, *, must: str = "", advice: str = "", depth: int = 0) -> None:
        super().__init__()
        self.value, self.where, self.must, self.advice, self.depth = value, "", must, advice, depth

    def within(self, where: str) -> Refused:
        self.where, self.depth = f" at {where}{self.where}", self.depth + 1
        return self


class Kind:
    """What one type hint accepts: a phrase for messages, its plural, names of classes, and the method `take`."""

    phrase: str = "anything"
    plural: str = "values"
    names: frozenset[str] = frozenset()
    rank: ClassVar[int] = 5

    def take(self, value: Any) -> Any:
        """Return the value, converted where needed; raise `Refused`."""
        return value


class Nothing(Kind):
    phrase, plural, names, rank = "None", "None", frozenset({"None"}), 0

    def take(self, value: Any) -> Any:
        if value is not None:
            raise Refused(value)
        return value


class Choice(Kind):
    rank = 1

    def __init__(self, options: tuple[Any, ...]) -> None:
        self.options = options
        names = ", ".join(map(repr, options))
        self.phrase, self.plural = (f"one of {names}" if len(options) > 1 else names), f"names out of {names}"

    def take(self, value: Any) -> Any:
        if isinstance(value, str | int | bool) and value in self.options:
            return value
        text = isinstance(value, str)
        advice = did_you_mean(value, map(str, self.options)).strip() if text else ""
        raise Refused(value, advice=advice, depth=int(text))


class Flag(Kind):
    phrase, plural, names, rank = "True or False", "True or False", frozenset({"bool"}), 1

    def take(self, value: Any) -> Any:
        if isinstance(value, np.bool_) or (_is_scalar(value) and str(value.dtype).endswith("bool")):
            return bool(value)
        if not isinstance(value, bool):
            raise Refused(value)
        return value


class Text(Kind):
    phrase, plural, names, rank = "a string", "strings", frozenset({"str"}), 2

    def take(self, value: Any) -> Any:
        if not isinstance(value, str):
            raise Refused(value)
        return value


class Device(Kind):
    """A torch device that this machine has, given as a device or by its name."""

    phrase, plural, names, rank = "a device such as 'cpu' or 'cuda'", "devices", frozenset({"device"}), 1

    def take(self, value: Any) -> Any:
        if isinstance(value, str):
            return device(value)
        if not isinstance(value, torch.device):
            raise Refused(value)
        return value


class Number(Kind):
    rank = 3

    def __init__(self, kind: type, bounds: Within | None = None) -> None:
        self.kind, self.bounds, self.names = kind, bounds, frozenset({"number"})
        self.phrase, self.plural = ("a whole number", "whole numbers") if kind is int else ("a number", "numbers")

    def take(self, value: Any) -> Any:
        number = value if type(value) is self.kind else self._converted(value)
        if self.kind is int and not -(2**63) <= number < 2**63:
            raise Refused(value, must="be a whole number below 2**63", depth=1)
        if self.bounds is not None and not self.bounds.holds(number):
            raise Refused(value, must=self.bounds.must, depth=1)
        if self.kind is float and not math.isfinite(number):
            raise Refused(value, must="be a finite number", depth=1)
        return number

    def _converted(self, value: Any) -> Any:
        number: Any = value.item() if _is_scalar(value) else value
        if isinstance(number, bool | np.bool_) or not isinstance(number, numbers.Real):
            raise Refused(value, advice=_unquoted_advice(value))
        if self.kind is float:
            try:
                return float(number)
            except OverflowError:
                raise Refused(value, must="be a finite number", depth=1) from None
        if isinstance(number, numbers.Integral):
            return operator.index(number)
        if not float(number).is_integer():
            raise Refused(value, depth=1)
        return int(float(number))


class Place(Kind):
    """A path on a disk, given as a path or as text."""

    phrase, plural, names, rank = "a path", "paths", frozenset({"Path"}), 2

    def take(self, value: Any) -> Any:
        if not isinstance(value, str | Path):
            raise Refused(value)
        if "\0" in str(value) or any(len(part.encode(errors="replace")) > _NAME for part in Path(value).parts):
            must = f"be a path without null characters, with names of at most {_NAME} bytes"
            raise Refused(value if isinstance(value, str) else str(value), must=must, depth=1)
        return Path(value)


class Array(Kind):
    """A numpy array; a tensor, a table or a list of numbers is converted."""

    plural, names, rank = "arrays", frozenset({"ndarray"}), 4

    def __init__(self, number: Any) -> None:
        letters = {np.generic: "biufUSM", Any: "biufUSM"}
        is_integer = isinstance(number, type) and issubclass(number, np.integer)
        self.letters = letters.get(number, "biu" if is_integer else "biuf")
        self.phrase = f"an array of {'whole ' * is_integer}numbers"

    def take(self, value: Any) -> Any:
        original = value
        if isinstance(value, Tensor):
            value = value.detach().cpu()
        if not isinstance(value, np.ndarray):
            if not (hasattr(value, "__array__") or isinstance(value, list | tuple | range)):
                raise Refused(original)
            try:
                value = np.asarray(value)
            except (TypeError, ValueError, RuntimeError):
                raise Refused(original) from None
        if value.dtype.kind not in self.letters:
            raise Refused(original)
        return value


class Leaf(Kind):
    """A class, a protocol or a function; beartype checks the value."""

    rank = 4

    def __init__(self, hint: Any, columns: Columns | None = None) -> None:
        from beartype.door import is_bearable

        self.hint, self.bearable, self.columns = hint, is_bearable, columns or ()
        name = getattr(get_origin(hint) or hint, "__name__", str(hint))
        self.names = frozenset({name})
        article = "an" if name[0] in "AEIOU" else "a"
        self.phrase, self.plural = _CLASSES.get(name, (f"{article} {name}", plural(name)))
        if self.phrase == f"a {self.plural}":  # Scores, Outcomes
            self.phrase = self.plural

    def take(self, value: Any) -> Any:
        if self.bearable(value, self.hint):
            if missing := [name for name in self.columns if name not in value.columns]:
                requirement = f"be a table with the columns {', '.join(self.columns)}; it lacks {', '.join(missing)}"
                raise Refused(value, must=requirement, advice=_index_advice(value, missing), depth=1)
            if self.columns and not value.columns.is_unique:
                name = value.columns[value.columns.duplicated()][0]
                raise Refused(value, must=f"have columns of different names, not two called {name!r}", depth=1)
            return _complete_table(value) if self.columns == SHARED else value
        if self.hint is Tensor and isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C", copy=True))
        raise Refused(value)


def _complete_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a tidy table with all shared columns (empty where they were dropped), its numeric columns as numbers."""
    missing = [name for name in COLUMNS if name not in frame.columns]
    if advice := _index_advice(frame, missing):
        raise Refused(frame, must=f"have {' and '.join(missing)} among its columns", advice=advice, depth=1)
    changed: dict[str, Any] = dict.fromkeys(missing)
    for name in (name for name in NUMBERS if name in frame.columns and not is_numeric_dtype(frame[name])):
        try:
            changed[name] = pd.to_numeric(frame[name])
        except (TypeError, ValueError):
            advice = "For a file with decimal commas: pd.read_csv(path, decimal=',')."
            raise Refused(frame, must=f"hold numbers in the column {name!r}", advice=advice, depth=1) from None
    unnamed = [name for name in frame.columns if str(name).startswith("Unnamed: ")]  # the index, from a CSV file
    return frame.drop(columns=unnamed).assign(**changed) if changed or unnamed else frame


def _index_advice(frame: pd.DataFrame, missing: list[str]) -> str:
    return "They are its index: frame.reset_index()." if set(missing) & set(frame.index.names) else ""


def _is_scalar(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor | np.generic) and value.ndim == 0


def plural(name: str) -> str:
    """Return the plural of a class name: Studies, Masks, Scores."""
    return name if name[-1] == "s" else f"{name[:-1]}ies" if name[-1] == "y" else f"{name}s"


def _unquoted_advice(value: Any) -> str:
    try:
        return f"Write it without quotes: {float(value):g}." if isinstance(value, str) else ""
    except ValueError:
        return ""
