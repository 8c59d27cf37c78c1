"""What a function depends on: its code, its defaults, and the variables that it reads when it is called."""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import os
import re
import sys
import sysconfig
import types
from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.util import hash_pandas_object
from torch import Tensor, nn

from ..core import Domain
from ..scorers import Scorer
from .cache import stamp

_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, np.generic, torch.dtype, torch.device, Enum)
_LIBRARIES = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib"))
_DEPTH, _MOST = 12, 20_000


@dataclass
class Fingerprint:
    """A hash of values, and the objects that it identifies by id; keep these alive as long as the hash is used."""

    key: str = ""
    objects: list[object] = field(default_factory=list)


def fingerprint(*values: Any) -> Fingerprint:
    """Return a hash that changes with the values and, if they are functions, with the variables that these read.

    Numbers, strings, arrays, tensors, tables and containers of these are hashed by content, networks by their weights,
    other objects by identity and attributes. A user's function is hashed by its code, defaults, closure, the global
    variables that it or an inner function names, recursively, and the environment variables if it names
    `os.environ` or `getenv`; a library's function by identity, closure and defaults. Files are not hashed.

    >>> fingerprint([1, 2]).key == fingerprint([1, 2]).key != fingerprint([2, 1]).key
    True
    """
    reader = _Reader()
    for value in values:
        reader.add(value)
    return Fingerprint(reader.digest.hexdigest(), reader.objects)


class _Reader:
    def __init__(self) -> None:
        self.digest, self.objects = hashlib.blake2b(digest_size=16), []
        self._seen: dict[int, int] = {}
        self._alive: list[object] = []  # so that no id is reused meanwhile
        self._depth = 0

    def add(self, value: Any) -> None:
        """Add one value to the hash."""
        if isinstance(value, _PLAIN):
            self._put(type(value).__name__, repr(value))
        elif id(value) in self._seen:
            self._put("again", self._seen[id(value)])
        elif self._depth > _DEPTH or len(self._seen) > _MOST:
            self._add_id(value)
        else:
            self._seen[id(value)] = len(self._seen)
            self._alive.append(value)
            self._depth += 1
            self._add_content(value)
            self._depth -= 1

    def _add_content(self, value: Any) -> None:
        if isinstance(value, Tensor | np.ndarray):
            self._add_array(value)
        elif isinstance(value, pd.DataFrame | pd.Series | pd.Index):
            self._add_table(value)
        elif isinstance(value, Mapping):
            self._add_all("dict", [part for item in value.items() for part in item])
        elif isinstance(value, set | frozenset):
            self._put("set", sorted(map(repr, value)))
        elif isinstance(value, list | tuple | deque | array | bytearray):
            self._add_all(type(value).__name__, value)
        elif isinstance(value, functools.partial):
            self._add_all("partial", [value.func, value.args, value.keywords])
        elif isinstance(value, types.MethodType):
            self._add_all("method", [value.__func__, value.__self__])
        elif isinstance(value, types.FunctionType):
            self._add_function(value)
        elif isinstance(value, Scorer):
            self._add_all("scorer", [repr(value), value.function])
        elif isinstance(value, type):
            self._add_class(value)
        elif hasattr(value, "__wrapped__"):
            self._add_all("wrapped", [value.__wrapped__])
        else:
            self._add_object(value)

    def _add_object(self, value: Any) -> None:
        self._add_id(value)
        self.add(type(value))
        if isinstance(value, nn.Module):
            self._put("network", stamp(value))
        elif not isinstance(value, types.ModuleType | Domain) and not _is_of_package(type(value)):
            slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
            state = {name: getattr(value, name) for name in slots if isinstance(name, str) and hasattr(value, name)}
            state |= getattr(value, "__dict__", {})
            self._add_all("attributes", [part for item in state.items() for part in item])

    def _add_function(self, function: types.FunctionType) -> None:
        self._add_id(function)
        self._add_code(function.__code__)
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
        self._add_all("closure", [function.__defaults__, function.__kwdefaults__, *cells])
        if _is_library(function):
            return
        attributes = _attribute_names(function.__code__)
        if {"environ", "getenv"} & set(attributes):
            self.add(dict(os.environ))
        for name in _global_names(function.__code__):
            if name not in function.__globals__:
                continue
            value = function.__globals__[name]
            self._put("global", name)
            self.add(value)
            if isinstance(value, types.ModuleType):  # settings.alpha
                members = {key: vars(value)[key] for key in attributes if key in vars(value)}
                self._add_all("module", [part for item in members.items() if _is_hashed(item[1]) for part in item])

    def _add_class(self, kind: type) -> None:
        self._add_id(kind)
        self._add_all("bases", kind.__bases__)
        for name, member in list(vars(kind).items()):
            member = getattr(member, "__func__", getattr(member, "fget", member))  # static or class method, property
            if isinstance(member, types.FunctionType):
                counts = not _is_library(member)
            else:
                counts = _is_data(member) and not name.startswith("__") and not _is_of_package(kind)
            if counts:
                self._put("member", name)
                self.add(member)

    def _add_code(self, code: types.CodeType) -> None:
        self._put(
            "code", [code.co_code, code.co_names, [c for c in code.co_consts if not isinstance(c, types.CodeType)]]
        )
        for inner in _inner_code(code):
            self._add_code(inner)

    def _add_array(self, value: Any) -> None:
        self._put("array", [type(value).__name__, value.dtype, tuple(value.shape)])
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type == "meta":
                self._add_id(value)
                return
            value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        if value.dtype == object:
            self._add_all("objects", value.ravel().tolist())
        else:
            self.digest.update(np.ascontiguousarray(value).data)

    def _add_table(self, value: Any) -> None:
        try:
            hashed: Any = hash_pandas_object(value)  # pyright: ignore[reportCallIssue]
        except TypeError:  # it holds unhashable objects
            self._add_id(value)
            return
        self._put("table", [list(value.columns) if isinstance(value, pd.DataFrame) else value.name, len(value)])
        self._add_array(np.asarray(hashed))

    def _add_all(self, tag: str, values: Any) -> None:
        self._put(tag, len(values))
        for value in values:
            self.add(value)

    def _add_id(self, value: object) -> None:
        self.objects.append(value)
        self._put("id", id(value))

    def _put(self, tag: str, value: object) -> None:
        self.digest.update(f"{tag}:{value!r};".encode())


@functools.lru_cache(maxsize=512)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """Return the sorted names of the global variables that a function or an inner function reads."""
    names = {str(step.argval) for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    if names & {"globals", "eval", "exec"}:
        names |= _words_in_strings(code)
    return tuple(sorted(names.union(*map(_global_names, _inner_code(code)))))


@functools.lru_cache(maxsize=512)
def _attribute_names(code: types.CodeType) -> tuple[str, ...]:
    """Return the sorted attribute names in a function; if it uses getattr or vars, also the words in its strings."""
    names = set(code.co_names)
    if names & {"getattr", "vars", "eval", "exec"}:
        names |= _words_in_strings(code)
    return tuple(sorted(names.union(*map(_attribute_names, _inner_code(code)))))


def _words_in_strings(code: types.CodeType) -> set[str]:
    return {word for text in code.co_consts if isinstance(text, str) for word in re.findall(r"[A-Za-z_]\w*", text)}


def _inner_code(code: types.CodeType) -> list[types.CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]


def _is_full(cell: types.CellType) -> bool:
    with contextlib.suppress(ValueError):  # not assigned yet
        return cell.cell_contents is not cell
    return False


def _is_data(value: object) -> bool:
    return isinstance(value, (*_PLAIN, Tensor, np.ndarray, list, tuple, dict, set))


def _is_hashed(value: object) -> bool:
    """Return whether a module's attribute is hashed: data, and the user's functions, classes and objects."""
    if isinstance(value, types.FunctionType):
        return not _is_library(value)
    kind = value if isinstance(value, type) else type(value)
    if _is_data(value) or isinstance(value, types.SimpleNamespace):
        return True
    origin = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    return not (_is_of_package(kind) or kind.__module__ == "builtins" or origin.startswith(_LIBRARIES))


def _is_of_package(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] == __name__.partition(".")[0]


def _is_library(function: types.FunctionType) -> bool:
    return _is_of_package(function) or function.__code__.co_filename.startswith(_LIBRARIES)
