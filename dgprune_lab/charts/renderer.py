"""Charts as SVG, and Vega as one script, by vl-convert: no browser and no network needed.

Its engine, V8, reserves more than 32 GB of address space and ends the whole process if that is refused. So under a
limit of address space (`ulimit -v`, usual on clusters) it runs in a child process.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from ..core import DIAMOND, DgpruneError

PAPER = "#FFFFFF"
_TITLE = re.compile(r"""aria-label="Title text '([^"]*?)'""")

# The child raises the limit as far as it may, and starts V8 before it reads the request.
_CHILD = """
import json, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2)
except ImportError:  # Windows
    pass
import vl_convert
vl_convert.vegalite_to_svg({"mark": "point", "data": {"values": []}})
json.dump([getattr(vl_convert, name)(what, **options) for name, what, options in json.load(sys.stdin)], sys.stdout)
"""
_COMMAND = (sys.executable, "-P", "-c", _CHILD)  # -P: no file of the working folder shadows a library


def vegalite_to_svg(spec: Mapping[str, Any]) -> str:
    """Render a Vega-Lite specification as SVG, on white unless it names a background, so that a dark page can show it.

    Raises:
        DgpruneError: the memory limit of this process leaves no room for rendering.
    """
    return _convert("vegalite_to_svg", _add_background(spec))


class Drawing:
    """Charts drawn by a child process that starts at once and runs beside this one until the `with` block ends.

    >>> with Drawing() as drawing:
    ...     drawing.begin([{"mark": "point", "data": {"values": [{}]}}])
    ...     (svg,) = drawing.finish()  # after other work
    >>> svg[:4]
    '<svg'
    """

    def __enter__(self) -> Self:
        self._specs: Sequence[Mapping[str, Any]] = ()
        try:
            self._child = _start_child()
        except OSError:  # no room for another process
            self._child = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.kill()
            with contextlib.suppress(OSError), self._child:
                pass

    def begin(self, specs: Sequence[Mapping[str, Any]]) -> None:
        """Give the child the Vega-Lite specifications of all charts."""
        self._specs = specs
        if self._child is not None and self._child.stdin is not None:
            with contextlib.suppress(OSError), self._child.stdin as pipe:  # the child may have died
                pipe.write(_encode_request("vegalite_to_svg", [_add_background(spec) for spec in specs]))

    def finish(self) -> list[str]:
        """Return the charts as SVG, in their order, each as `vegalite_to_svg` draws it.

        Raises:
            DgpruneError: the memory limit of this process leaves no room for a picture.
        """
        if self._child is not None and self._child.stdout is not None:
            output = self._child.stdout.read()
            if self._child.wait() == 0:
                return json.loads(output)
        return [vegalite_to_svg(spec) for spec in self._specs]


def svg_to_png(svg: str, *, scale: float) -> bytes:
    """Render an SVG as PNG on white, with `scale` pixels per unit, without V8.

    The converter darkens half-transparent marks that have nothing behind them. Its own sans-serif font lacks the
    diamond of target-aware numbers, so the whole text would fall back to a serif font; a lozenge, which the font has,
    is used instead.
    """
    import vl_convert

    ground = f'<rect width="100%" height="100%" fill="{PAPER}"/>'
    on_white = re.sub(r"<svg\b[^>]*>", lambda match: match[0] + ground, svg, count=1)
    return vl_convert.svg_to_png(on_white.replace(DIAMOND, "◊"), scale=scale)


def image(svg: str) -> str:
    """Return an image element that holds an SVG.

    If inline, the ids of several SVGs in one page would collide, and JupyterLab leaves inline SVGs out of a notebook
    that it does not trust. An image element also shrinks with a narrow page.
    """
    return f'<img alt="{title_of(svg)}" src="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}">'


def title_of(svg: str) -> str:
    """Return the title of a chart that this package has drawn, escaped as in its SVG; "chart" if it has none."""
    match = _TITLE.search(svg)
    return match[1] if match else "chart"


def javascript_bundle(snippet: str, *, vl_version: str) -> str:
    """Return one script with Vega, Vega-Lite and Vega-Embed and the snippet, which uses or exports them.

    Raises:
        DgpruneError: as `vegalite_to_svg`.
    """
    return _convert("javascript_bundle", snippet, vl_version=vl_version)


def _convert(function: Literal["vegalite_to_svg", "javascript_bundle"], argument: Any, **options: str) -> str:
    """Call a function of vl-convert, in a child process where address space is limited."""
    limit = _read_address_limit()
    if limit is None:
        import vl_convert

        return getattr(vl_convert, function)(argument, **options)
    request = _encode_request(function, [argument], **options)
    child = subprocess.run(_COMMAND, input=request, capture_output=True, check=False)
    if child.returncode == 0:
        return json.loads(child.stdout)[0]
    if child.returncode == 1:
        errors = re.findall(r"^\w*Error: (.*)$", child.stderr.decode(errors="replace"), re.MULTILINE)
        raise DgpruneError(f"the picture could not be drawn: {' '.join(errors) or 'no message'}.")
    raise DgpruneError(
        f"the picture could not be drawn: this process may use {limit / 2**30:.0f} GB of address space (ulimit -v), "
        "and the V8 engine that draws it reserves more than 32 GB, though it uses little of it. Lift the limit (ulimit "
        "-v unlimited) and limit memory by a control group. Tables need no picture, and chart.to_json() can be drawn "
        "elsewhere."
    )


def _start_child() -> subprocess.Popen[bytes]:
    """Start the child in its own process group, so that an interrupt of the notebook does not reach it."""
    return subprocess.Popen(
        _COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _encode_request(function: str, arguments: Sequence[Any], **options: str) -> bytes:
    return json.dumps([[function, argument, options] for argument in arguments], default=str).encode()


def _add_background(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"background": PAPER, **spec}


def _read_address_limit() -> int | None:
    """Return the bytes of address space that this process may use; None without a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
