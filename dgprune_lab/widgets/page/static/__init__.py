"""Assets of the page: ES modules joined into one, style sheets, and the still picture of a saved notebook.

anywidget loads one file and a standalone page inlines one text, so the modules of this folder are joined here.
"""

from __future__ import annotations

import html
import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
_SHEETS = ("explorer", "chart_menu", "steps", "pins", "projector")

_IMPORT = re.compile(r'^import\s+(\{[^}]*\})\s+from\s+"\./([\w-]+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function (\w+)|const (\w+))", re.MULTILINE)
_DEFAULT = re.compile(r"^export default (\w+|\{[^}]*\});$", re.MULTILINE)


@cache
def module(entry: str = "explorer") -> str:
    """Return the ES module of a widget, the explorer or another one, whose default export is `{render}`."""
    return module_text(entry) + f"export default {entry}.default;\n"


@cache
def style(*extra: str) -> str:
    """Return the CSS text of the style sheets that all widgets share, followed by those named in `extra`."""
    return "".join((FOLDER / f"{name}.css").read_text(encoding="utf-8") for name in (*_SHEETS, *extra))


def picture(sentence: str | None, chart: str | None, *, what: str = "explorer") -> str:
    """Return the HTML that a saved notebook shows when no kernel runs.

    Args:
        sentence: the result in a sentence of plain text; None if nothing is measured yet.
        chart: the chart as an SVG made by this package; None for no chart.
        what: name of the widget that the cell shows when it is run.
    """
    lead = "" if sentence is None else f"<p><strong>{html.escape(sentence)}</strong></p>"
    return f"<div>{lead}{chart or ''}<p>Run this cell for the live {what}.</p></div>"


def module_text(entry: str, *, folder: Path = FOLDER) -> str:
    """Join a module and the modules it imports, dependencies first; each becomes a function that returns its exports.

    Supported syntax, as used in this folder: `import { a, b } from "./x.js";`, exported functions and constants, and
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
        for _, needed in _IMPORT.findall(sources[name]):
            visit(needed)
        order.append(name)

    visit(entry)
    return "".join(_scoped(name, sources[name]) for name in order)


def _scoped(name: str, source: str) -> str:
    """The source of one module, wrapped as `const name = (() => { ... return {exports}; })();`."""
    exports = [function or constant for function, constant in _EXPORT.findall(source)]
    body = _IMPORT.sub(r"const \1 = \2;", _EXPORT.sub("", source))
    body, defaults = _DEFAULT.subn(r"const byDefault = \1;", body)
    if re.search(r"^(import|export)\b", body, re.MULTILINE):
        raise ValueError(f"{name}.js imports or exports in a way that cannot be joined.")
    exports += ["default: byDefault"] * defaults
    return f"const {name} = (() => {{\n{body}\nreturn {{ {', '.join(exports)} }};\n}})();\n"
