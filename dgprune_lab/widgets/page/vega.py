"""The one place where a page gets Vega from: a widget without a view that every explorer shares.

The bundle is made from the wheel of vl-convert, so no network is needed; making it takes a second or two, so it is
kept on disk. `python -m dgprune_lab.widgets.page.vega` warms that cache.
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

from ...core import write_file

Kind = Literal["module", "script"]

_SNIPPETS: dict[str, str] = {
    # For anywidget: what initialize() returns is what `host.getWidget(ref)` hands to the others.
    "module": "async function initialize() { return { vegaEmbed }; }\nexport default { initialize };",
    # For a static page: a classic script.
    "script": "window.vegaEmbed = vegaEmbed;",
}
_memory: dict[str, str] = {}


def vega_bundle(*, kind: Kind = "module") -> str:
    """Vega, Vega-Lite and Vega-Embed as one text; from memory, else from disk, else made now and kept."""
    if kind not in _memory:
        path = cache_path(kind=kind)
        _memory[kind] = _read(path) or _make_and_keep(path, kind=kind)
    return _memory[kind]


def cache_path(*, kind: Kind) -> Path:
    """Where the bundle is kept: a file name per version of vl-convert, Vega-Lite and our snippet."""
    folder = Path(platformdirs.user_cache_dir("dgprune-lab"))
    return folder / f"vega-{version('vl-convert-python')}-{alt.SCHEMA_VERSION}-{kind}-1.js"


def _read(path: Path) -> str | None:
    """The text of a whole file, or None; a file cut short lacks the snippet's mark at its end."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return text if text.endswith(_END) else None


_END = "\n// end of bundle\n"


def _make_and_keep(path: Path, *, kind: Kind) -> str:
    """Make the bundle; write it atomically where that is possible, and go on without where it is not."""
    import vl_convert

    major, minor = re.findall(r"\d+", alt.SCHEMA_VERSION)[:2]
    text = vl_convert.javascript_bundle(_SNIPPETS[kind], vl_version=f"{major}.{minor}") + _END
    with contextlib.suppress(OSError):  # a read-only home: the bundle stays in memory
        write_file(path, text)
    return text


class VegaHost(anywidget.AnyWidget):
    """A widget without a view whose module hands out `{vegaEmbed}`; see `vega_host()`."""

    def __init__(self, **traits: Any) -> None:
        self._esm = vega_bundle()
        super().__init__(**traits)

    @property
    def ref(self) -> str:
        """What others put into a trait, and the page gives to `host.getWidget(ref)`."""
        return f"anywidget:{self.model_id}"


@cache
def _kept() -> list[VegaHost]:
    return []


def vega_host() -> VegaHost:
    """The host of this kernel: made at the first call, made again only if somebody closed it."""
    kept = _kept()
    if not kept or kept[0].comm is None:
        kept[:] = [VegaHost()]
    return kept[0]


if __name__ == "__main__":
    for each in _SNIPPETS:
        print(f"{len(vega_bundle(kind=each)) / 1e6:.2f} MB  {cache_path(kind=each)}")  # type: ignore[arg-type]
