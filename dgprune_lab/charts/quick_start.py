"""Start Altair without the parsers of international addresses, which no chart needs; saves 1.5 s on first use.

Altair imports jsonschema, which imports rfc3987_syntax if that is installed (it comes with JupyterLab) and so builds
38 parsers at once. Here jsonschema gets a stand-in that builds them when an address is first checked.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_PARSERS = "rfc3987_syntax"


class _LazyModule(ModuleType):
    """A module whose functions import the real one when they are called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: getattr(importlib.import_module(_PARSERS), name)(*args, **kwargs)


if not {"jsonschema", _PARSERS} & sys.modules.keys() and find_spec(_PARSERS):
    sys.modules[_PARSERS] = _LazyModule(_PARSERS)
    try:
        importlib.import_module("jsonschema")
    finally:
        del sys.modules[_PARSERS]
