"""What the page gets: the ES modules joined into one, the style sheet, the charts' specifications, a still picture.

anywidget loads one file and a static page inlines one text, so the modules of this folder are joined here.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from .... import charts
from ....core import tidy

FOLDER = Path(__file__).parent

_IMPORT = re.compile(r'^import\s+(\{[^}]*\})\s+from\s+"\./([\w-]+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function (\w+)|const (\w+))", re.MULTILINE)
_DEFAULT = re.compile(r"^export default (\w+|\{[^}]*\});$", re.MULTILINE)


@cache
def module(entry: str = "explorer") -> str:
    """A widget, the explorer or another, as one ES module whose default export is `{render}`."""
    return module_text(entry) + f"export default {entry}.default;\n"


@cache
def style(*more: str) -> str:
    """The explorer's style sheet, and what other widgets add to it."""
    return "".join((FOLDER / f"{name}.css").read_text(encoding="utf-8") for name in ("explorer", *more))


def specs() -> dict[str, dict[str, Any]]:
    """The Vega-Lite specifications of the charts A, C and D, without data: colours and names travel in the rows."""
    empty = tidy([])
    return {
        "a": charts.sweep(empty).to_dict(),
        "c": charts.size_and_cost(empty).to_dict(),
        "d": charts.drop(empty).to_dict(),
    }


def picture(sentence: str | None, chart: str | None, *, what: str = "explorer") -> str:
    """What a saved notebook shows where no kernel runs: the sentence and the picture of what was measured.

    Args:
        sentence: plain text, or None where nothing is measured yet.
        chart: an SVG made here.
        what: what the cell shows once it is run.
    """
    said = "" if sentence is None else f"<p><strong>{html.escape(sentence)}</strong></p>"
    return f"<div>{said}{chart or ''}<p>Run this cell for the live {what}.</p></div>"


def module_text(entry: str, *, folder: Path = FOLDER) -> str:
    """A module and those it imports, each as a function scope that returns its exports, in the order of need.

    It understands what our own files use: `import { a, b } from "./x.js";`, exported functions and constants, and
    one default export. Names of different files never collide.

    Raises:
        ValueError: a file imports or exports in another way.
    """
    order: list[str] = []
    sources: dict[str, str] = {}

    def visit(name: str) -> None:
        if name in sources:
            return
        sources[name] = (folder / f"{name}.js").read_text(encoding="utf-8")
        for needed in _IMPORT.findall(sources[name]):
            visit(needed[1])
        order.append(name)

    visit(entry)
    return "".join(_scoped(name, sources[name]) for name in order)


def _scoped(name: str, source: str) -> str:
    """One module as `const name = (() => { ... return {exports}; })();`."""
    exports = [first or second for first, second in _EXPORT.findall(source)]
    body = _IMPORT.sub(r"const \1 = \2;", _EXPORT.sub("", source))
    body, defaults = _DEFAULT.subn(r"const byDefault = \1;", body)
    if re.search(r"^(import|export)\b", body, re.MULTILINE):
        raise ValueError(f"{name}.js imports or exports in a way that cannot be joined.")
    exports += ["default: byDefault"] * defaults
    return f"const {name} = (() => {{\n{body}\nreturn {{ {', '.join(exports)} }};\n}})();\n"
