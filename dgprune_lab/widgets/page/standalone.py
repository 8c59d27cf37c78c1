"""The explorer as one HTML file that needs neither a network nor a kernel, over precomputed results."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core import DgpruneError, write_file
from .static import module_text, style
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
{page_css}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="lead">{lead}</p>
<main>{places}</main>
<noscript>This page needs JavaScript.</noscript>
<script type="application/json" class="state">{state}</script>
<script>{vega}</script>
<script type="module">
{module}
{start}
</script>
</body>
</html>
"""

_PAGE_CSS = """
body { margin: 0 auto; padding: 18px 20px 32px; max-width: 1320px; background: #fff; color: #22272e;
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 4px; font-size: 20px; font-weight: 650; overflow-wrap: anywhere; }
.lead { margin: 0 0 12px; color: #5b6470; }
main > * + * { margin-top: 28px; }
@media (prefers-color-scheme: dark) {
  body { --jp-ui-font-color0: #e6e9ed; --jp-ui-font-color2: #b4bcc6; --jp-border-color2: #3b424b;
    --jp-layout-color0: #16191d; --jp-layout-color1: #1f242a; --jp-layout-color2: #272d34;
    background: #16191d; color: #e6e9ed; }
  .lead { color: #b4bcc6; }
}
"""

# A model like anywidget's, without a kernel.
_START = """
const states = JSON.parse(document.querySelector("script.state").textContent);
const places = document.querySelectorAll("main > div");
const host = { getWidget: async () => ({ exports: { vegaEmbed: window.vegaEmbed } }) };
const fakeModel = (state, listeners = []) => {
  const tell = (event, value) => listeners.forEach(([name, listener]) => name === event && listener(value));
  return {
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; tell(`change:${name}`); },
    on: (event, listener) => listeners.push([event, listener]),
    off: (event, listener) => { listeners = listeners.filter((pair) => pair[0] !== event || pair[1] !== listener); },
    save_changes: () => {},
    send: () => {},
    tell,
  };
};
window.explorers = states.map((state, index) => {
  const model = fakeModel(state);
  return { model, end: %(entry)s.default.render({ model, el: places[index], host }) };
});
"""


def write_page(
    path: str | Path, state: Mapping[str, Any] | list[Mapping[str, Any]], *, title: str, lead: str = ""
) -> Path:
    """Write one self-contained HTML file with an explorer per state, and return its path.

    Args:
        path: the file to write, atomically.
        state: the explorer's traits as JSON values, or those of several explorers. `curves` and `plans` (lists of the
            values of `frames` and `plan`) hold the precomputed grid; controls for which nothing was computed are
            hidden.
        title: the page's title, as plain text.
        lead: a sentence under it, as plain text.

    Raises:
        DgpruneError: a state lacks `static` or `choice`, or names an unknown trait.
    """
    states = state if isinstance(state, list) else [state]
    for traits in states:
        _check(traits)
    offline = [{**traits, "static": {**traits["static"], "offline": True}} for traits in states]
    return write_file(Path(path), page_text(offline, title=title, lead=lead))


def page_text(states: Sequence[Mapping[str, Any]], *, title: str, lead: str = "", entry: str = "explorer") -> str:
    """Return the HTML of a page with a widget per state, each on a model without a kernel; `entry` is its module."""
    return _PAGE.format(
        policy=html.escape(POLICY, quote=True),
        title=html.escape(title),
        lead=html.escape(lead),
        css=style(*([] if entry == "explorer" else [entry])),
        page_css=_PAGE_CSS,
        places="<div></div>" * len(states),
        state=inlined(states),
        vega=_closed(vega_bundle(kind="script")),
        module=_closed(module_text(entry)),
        start=_START % {"entry": entry},
    )


def inlined(value: Any) -> str:
    """Return JSON that can stand inside a script element: without any `<`, nothing in it can end the element.

    >>> inlined({"a": "</script>"})
    '{"a":"\\\\u003c/script>"}'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _closed(script: str) -> str:
    """A script that can stand inside a script element: `</script` and `<!--` occur only inside its strings."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _check(state: Mapping[str, Any]) -> None:
    """Refuse a state that the page could not draw."""
    for name in state:
        if name not in TRAITS:
            raise DgpruneError(f"unknown trait {name!r} in a page's state; known: {', '.join(TRAITS)}.")
    for name in ("static", "choice"):
        if name not in state:
            raise DgpruneError(f"a page's state needs {name!r}; got {', '.join(state) or 'nothing'}.")
