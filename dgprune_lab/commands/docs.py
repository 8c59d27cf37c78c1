"""`dgprune-lab docs`: the API reference, one searchable page per public module, from the docstrings by pdoc."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Generator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

from ..core import DgpruneError, Stepwise, check_writable_folder, notebook_folders, write_file
from ..scorers import SCORERS, Scorer

PACKAGE = "dgprune_lab"
MODULES = ("data", "models", "scorers", "training.presets", "diagnostics", "experiments", "experiments.executors")
MODULES += ("charts", "widgets")


def write_docs(folder: str | Path) -> Path:
    """Write the reference of all public names as HTML pages that need no network, and return the first page's path.

    Raises:
        DgpruneError: pdoc is not installed, or the folder cannot be written to.
    """
    if importlib.util.find_spec("pdoc") is None:
        raise DgpruneError(
            'the reference is made by pdoc, which is not installed. Run `pip install "pdoc>=15"`, or '
            '`pip install -e ".[docs]"` in the repository.'
        )
    from pdoc import render

    folder = check_writable_folder(folder, argument="the folder of the pages")
    # No MathJax: it comes from the network. Formulas are indented blocks in the docstrings, which pdoc shows as code.
    render.configure(docformat="google", math=False, show_source=False, footer_text="dgprune-lab")
    pages = {f"{PACKAGE}.{name}": _page(importlib.import_module(f"{PACKAGE}.{name}")) for name in MODULES}
    root = _page(importlib.import_module(PACKAGE))
    pages[f"{PACKAGE}.zoo"] = _architecture_page()
    vars(root)["submodules"] = list(pages.values())
    pages = {PACKAGE: root, **pages}
    for name, page in pages.items():
        write_file(folder / f"{name.replace('.', '/')}.html", render.html_module(page, pages))
    write_file(folder / "index.html", render.html_index(pages))
    write_file(folder / "search.js", render.search_index(pages))
    return folder / f"{PACKAGE}.html"


def _architecture_page() -> Any:
    """Return a pdoc module whose text is the table of architectures that ships with the notebooks."""
    from pdoc import doc

    paths = [folder / "results" / "zoo.md" for folder in notebook_folders()]
    texts = [path.read_text(encoding="utf-8") for path in paths if path.is_file()]
    module = ModuleType(f"{PACKAGE}.zoo", texts[0] if texts else "The table is not part of this installation.")
    return doc.Module(module)


def _page(module: ModuleType) -> Any:
    """Return a module as pdoc documents it: the names in its `__all__`, and for `scorers` those in the menu too."""
    from pdoc import doc

    page = doc.Module(module)
    values = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    values |= SCORERS if module.__name__ == f"{PACKAGE}.scorers" else {}
    members = {name: _member(page, name, value) for name, value in values.items() if not inspect.ismodule(value)}
    vars(page)["members"] = members
    vars(page)["submodules"] = []
    return page


def _member(page: Any, name: str, value: Any) -> Any:
    """Return one name as pdoc documents it; operations and scorers are shown as the functions behind them."""
    from pdoc import doc

    where = (page.modulename, name)
    if inspect.isclass(value):
        member = doc.Class(*where, value, (value.__module__, value.__qualname__))
        if issubclass(value, tuple):  # the annotations of a NamedTuple's constructor have no module
            member.members.pop("__init__", None)
        return member
    if isinstance(value, Stepwise | Scorer) or inspect.isfunction(value):
        function = _function(value)
        member = doc.Function(*where, function, where)
        vars(member)["decorators"] = []
        if isinstance(value, Stepwise):
            returns = get_type_hints(function)["return"]  # the third type of a generator is that of its result
            returns = get_args(returns)[2] if get_origin(returns) is Generator else returns
            vars(member)["signature"] = member.signature.replace(return_annotation=returns)
        return member
    text = f"The names: {', '.join(map(str, value))}." if isinstance(value, Mapping) else ""
    text, empty = page._var_docstrings.get(name) or text, inspect.Signature.empty
    return doc.Variable(*where, docstring=text, taken_from=where, annotation=type(value), default_value=empty)


def _function(value: Any) -> Any:
    """Return the plain function behind an operation or a scorer."""
    value = value.function if isinstance(value, Scorer) else value
    return inspect.unwrap(getattr(value, "func", value))
