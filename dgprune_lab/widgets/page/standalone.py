"""The explorer as one HTML file with precomputed results, which needs neither network access nor a kernel."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core import DgpruneError, write_file
from .static import FOLDER, module_text, style
from .vega import vega_bundle

TRAITS = ("static", "choice", "plan", "frames", "status", "pins", "panels", "plans", "curves")
# No request may leave the page; Vega compiles its expressions, hence 'unsafe-eval'.
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{css}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{above}
<div class="places">{places}</div>
<noscript>The slider and the charts need JavaScript.</noscript>
{below}
</main>
<script type="application/json" class="state">{state}</script>
<script>{vega}</script>
<script type="module">
{module}
const entry = {entry};
{start}
</script>
</body>
</html>
"""


def write_page(
    path: str | Path,
    state: Mapping[str, Any] | list[Mapping[str, Any]],
    *,
    title: str,
    above: str = "",
    below: str = "",
) -> Path:
    """Write one self-contained HTML file with an explorer per state, and return its path.

    Args:
        path: the file; it is written atomically.
        state: the explorer's traits as JSON values, or those of several explorers. `curves` and `plans` (lists of the
            values of `frames` and `plan`) hold the precomputed grid; controls for which nothing was computed are
            hidden.
        title: title of the page, as plain text.
        above, below: HTML above and below the explorers, in which the texts of users are escaped.

    Raises:
        DgpruneError: a state that lacks `static` or `choice`, or names an unknown trait.
    """
    states = state if isinstance(state, list) else [state]
    for traits in states:
        _check(traits)
    offline = [{**traits, "static": {**traits["static"], "offline": True}} for traits in states]
    return write_file(Path(path), page_text(offline, title=title, above=above, below=below))


def page_text(
    states: Sequence[Mapping[str, Any]], *, title: str, above: str = "", below: str = "", entry: str = "explorer"
) -> str:
    """Return the HTML of a page with one widget per state, without a kernel; `entry` names the widget's ES module."""
    return _PAGE.format(
        policy=html.escape(POLICY, quote=True),
        title=html.escape(title),
        above=above,
        below=below,
        css=style("standalone", "print", *([] if entry == "explorer" else [entry])),
        places="<div></div>" * len(states),
        state=inlined(states),
        vega=_closed(vega_bundle(kind="script")),
        module=_closed(module_text(entry)),
        entry=entry,
        start=(FOLDER / "standalone.js").read_text(encoding="utf-8"),
    )


def inlined(value: Any) -> str:
    """Return JSON that is safe inside a script element: it has no `<`, so nothing in it can end the element.

    >>> inlined({"a": "</script>"})
    '{"a":"\\\\u003c/script>"}'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _closed(script: str) -> str:
    """A script made safe inside a script element, for scripts in which `</script` and `<!--` occur only in strings."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _check(state: Mapping[str, Any]) -> None:
    """Refuse a state that the page cannot draw."""
    for name in state:
        if name not in TRAITS:
            raise DgpruneError(f"unknown trait {name!r} in a page's state; known: {', '.join(TRAITS)}.")
    for name in ("static", "choice"):
        if name not in state:
            raise DgpruneError(f"a page's state needs {name!r}; got {', '.join(state) or 'nothing'}.")
