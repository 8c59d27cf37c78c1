"""Vega for the pages: one widget without a view, which all explorers share.

The bundle is made from the wheel of vl-convert, so no network is needed. Making it takes a second or two, so it is
cached on disk; `python -m dgprune_lab.widgets.page.vega` fills this cache.
"""

from __future__ import annotations

import contextlib
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import altair as alt
import anywidget
import platformdirs

from ...charts import present_theme
from ...core import write_file

Kind = Literal["module", "script"]

_SNIPPETS: dict[Kind, str] = {
    # For anywidget: what initialize() returns is what `host.getWidget(ref)` returns to other widgets.
    "module": "async function initialize() { return { vegaEmbed }; }\nexport default { initialize };",
    # For a standalone page: a classic script.
    "script": "window.vegaEmbed = vegaEmbed;",
}
_END = "\n// end of bundle\n"
_hosts: list[VegaHost] = []


@cache
def vega_bundle(*, kind: Kind = "module") -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one text, from memory, from the cache on disk, or made and cached."""
    path = cache_path(kind=kind)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8")
        if text.endswith(_END):  # a file that was cut short lacks it
            return text
    import vl_convert

    major, minor = re.findall(r"\d+", alt.SCHEMA_VERSION)[:2]
    text = vl_convert.javascript_bundle(_SNIPPETS[kind], vl_version=f"{major}.{minor}") + _END
    with contextlib.suppress(OSError):  # a read-only home: the bundle stays in memory
        write_file(path, text)
    return text


def cache_path(*, kind: Kind) -> Path:
    """Return the path of the cached bundle, named by `kind` and versions of vl-convert, Vega-Lite and snippet."""
    folder = Path(platformdirs.user_cache_dir("dgprune-lab"))
    return folder / f"vega-{version('vl-convert-python')}-{alt.SCHEMA_VERSION}-{kind}-1.js"


class VegaHost(anywidget.AnyWidget):
    """A widget without a view whose module exports `{vegaEmbed}`; see `vega_host()`."""

    def __init__(self, **traits: Any) -> None:
        self._esm = vega_bundle()
        super().__init__(**traits)

    @property
    def ref(self) -> str:
        """The reference that other widgets hold in a trait, and that the page passes to `host.getWidget(ref)`."""
        return f"anywidget:{self.model_id}"


def vega_host() -> VegaHost:
    """Return the VegaHost of this kernel, made at the first call, and again only if it was closed."""
    if not _hosts or _hosts[0].comm is None:
        _hosts[:] = [VegaHost()]
    return _hosts[0]


def shared_static() -> dict[str, str]:
    """Return what the page of every widget is told: the widget that holds Vega, and the present theme."""
    return {"host": vega_host().ref, "theme": present_theme()}


if __name__ == "__main__":
    for kind in _SNIPPETS:
        print(f"{len(vega_bundle(kind=kind)) / 1e6:.2f} MB  {cache_path(kind=kind)}")
