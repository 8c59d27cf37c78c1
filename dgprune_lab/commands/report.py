"""`dgprune-lab report`: a study or a saved session as one HTML page that works offline and without Jupyter."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core import DgpruneError, at_home, check_writable_file
from ..study import Study
from ..widgets import report
from .session_report import write_session_report


def write_report(what: str, output: Path, *, seconds: float = 60.0) -> Path:
    """Write the page of a study or of a saved session.

    Args:
        what: name of a built-in study; a session's folder or zip file; or the place in code of a Study of your
            own or of a function that returns one, "my_study.py:make" or "package.module:study". That code is run.
        output: the page to write.
        seconds: see `dg.report`.

    Raises:
        DgpruneError: a page that cannot be written (checked before anything is run); no such study or session.
    """
    check_writable_file(output, argument="--output")
    place, colon, name = what.rpartition(":")
    if (colon and name.isidentifier()) or what.endswith(".py"):
        return report(study_of(*((place, name) if colon else (what, "study"))), output, seconds=seconds)
    path = at_home(what)
    if path.exists() or len(path.parts) > 1:
        return write_session_report(output, path)
    return report(what, output, seconds=seconds)


def study_of(place: str, name: str) -> Study:
    """Return the study that Python code makes: a variable in a file or module, or the result of a function in it.

    Raises:
        DgpruneError: no such file, module or name; a missing import or a syntax error; something other than a Study.
    """
    names = _run_file(place) if place.endswith(".py") else _import_module(place)
    if name not in names:
        raise DgpruneError(f"{place} has no {name!r}; name a Study in it, or a function that returns one.")
    value = names[name]
    if callable(value):
        try:
            inspect.signature(value).bind()
        except (TypeError, ValueError) as error:
            raise DgpruneError(
                f"{name} in {place} needs arguments ({error}); name a Study, or a function that needs none."
            ) from error
    with _user_errors(place):
        study = value() if callable(value) else value
    if not isinstance(study, Study):
        what = f"{name} in {place} {'returns' if callable(value) else 'is'} {type(study).__name__}"
        raise DgpruneError(f"{what}, not a Study: make one by dg.Study(network, sources=[...]).")
    return study


def _run_file(file: str) -> Mapping[str, Any]:
    path = at_home(file).resolve()
    if not path.is_file():
        raise DgpruneError(f"there is no file {path}; name a Python file, as in my_study.py:make.")
    sys.path.insert(0, str(path.parent))  # as `python my_study.py` does
    spec = importlib.util.spec_from_file_location(f"report_of_{path.stem}", path)
    assert spec is not None and spec.loader is not None, "the name ends with .py"
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look up their module
    with _user_errors(file):
        spec.loader.exec_module(module)
    return vars(module)


def _import_module(module: str) -> Mapping[str, Any]:
    sys.path.insert(0, "")
    advice = "name one that Python can import, or a file, as in my_study.py:make."
    if not module or module.startswith("."):
        raise DgpruneError(f"{module!r} is not the name of a module; {advice}")
    with _user_errors(module):
        try:
            return vars(importlib.import_module(module))
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            raise DgpruneError(f"there is no module {module!r} here; {advice}") from error


@contextmanager
def _user_errors(place: str) -> Iterator[None]:
    """Turn an error of the user's code into one sentence that names the line."""
    try:
        yield
    except DgpruneError:
        raise
    except (ImportError, SyntaxError) as error:
        raise DgpruneError(f"{place} cannot be run: {error}. Install what is missing, or fix the code.") from error
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"line {frame.lineno} of {Path(frame.filename).name}, {frame.line}"
        raise DgpruneError(f"{place} stops with {type(error).__name__}: {error} (at {where}).") from error
