"""The outputs of a notebook as a reader without a kernel sees them: widgets and vector charts become PNG pictures.

Every reader shows PNG: GitHub and older nbviewers break inline SVG, and JupyterLab draws no SVG of a notebook that it
does not trust.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..charts.renderer import svg_to_png, title_of
from ..core import DgpruneError

Output = dict[str, Any]
_WIDGET = "application/vnd.jupyter.widget-view+json"
_SCALE, _COLOURS = 1.5, 256
_IMAGE = re.compile(r'<img alt="[^"]*" src="data:image/svg\+xml;base64,([^"]+)">')
_ADDRESS = re.compile(r"^<.* at 0x[0-9a-f]+>$")
_BAR = re.compile(r"\[\d+:\d\d[<,][^\]]*\]\s*$")  # the end of a progress bar of tqdm
_INLINE = re.compile(r"<svg\b.*?</svg>", re.DOTALL)


def still_outputs(outputs: Iterable[Mapping[str, Any]], *, count: int) -> list[Output]:
    """Return a cell's outputs without widgets, progress bars or vector graphics; `count` is its execution count.

    Raises:
        DgpruneError: a widget that has no picture.
    """
    still: list[Output] = []
    for output in outputs:
        if "data" not in output:
            still.append({**output, **({"text": _lines(output["text"])} if "text" in output else {})})
            continue
        pieces = list(_split_output(output["data"], count=f"{count}_{len(still)}"))
        for k, (data, size) in enumerate(pieces):
            last = output["output_type"] == "execute_result" and k == len(pieces) - 1
            kind: Output = {"execution_count": count, "output_type": "execute_result"} if last else {}
            still.append({"data": data, "metadata": size, "output_type": "display_data", **kind})
    return [dict(sorted(output.items())) for output in still]


def _split_output(data: Mapping[str, Any], *, count: str) -> Iterator[tuple[Output, Output]]:
    """Yield an output's (data, metadata): one, or for a widget with charts one for each chart and stretch of text."""
    if "image/svg+xml" in data:
        yield _to_png("".join(data["image/svg+xml"]))
    elif _WIDGET in data and "text/html" not in data:
        if _BAR.search("".join(data.get("text/plain", ""))):
            return
        raise DgpruneError(f"this widget has no picture: {''.join(data.get('text/plain', '?'))[:200]}")
    elif "text/html" in data:
        text, folded = _with_stable_ids(data["text/html"], count), "<details" in "".join(data["text/html"])
        label = "".join(data.get("text/plain", ""))
        plain = {} if _WIDGET in data or not label or _ADDRESS.search(label) else {"text/plain": _lines(label)}
        parts = [_IMAGE.sub(_replace_image, text)] if folded or not _IMAGE.search(text) else _split_at_images(text)
        for k in range(0, len(parts), 2):
            if k:
                yield _to_png(base64.b64decode(parts[k - 1]).decode())
            if _has_content(parts[k]):
                yield {"text/html": _lines(_INLINE.sub(lambda match: _image_element(match[0]), parts[k])), **plain}, {}
    else:
        plain = {} if any(kind.startswith("image/") for kind in data) else {"text/plain": _lines(data["text/plain"])}
        yield {**{kind: _lines(value) for kind, value in data.items() if kind != "text/plain"}, **plain}, {}


def _with_stable_ids(text: Any, count: str) -> str:
    """Return HTML in which a pandas table has the same id in every run, instead of a random one."""
    text = "".join(text)
    random = re.search(r'<table id="T_(\w+)"', text)
    return text if random is None else text.replace(f"T_{random[1]}", f"T_{count}")


def _split_at_images(text: str) -> list[str]:
    """Return stretches of text and the images between them, without the enclosing div, which would stay open."""
    return _IMAGE.split(re.sub(r"</?div[^>]*>", "", text))


def _has_content(text: str) -> bool:
    """Return whether HTML has anything to show."""
    return bool(html.unescape(re.sub(r"</?(div|p)\b[^>]*>", "", text)).strip())


def _replace_image(match: re.Match[str]) -> str:
    return _image_element(base64.b64decode(match[1]).decode())


def _image_element(svg: str) -> str:
    data, metadata = _to_png(svg)
    width = metadata["image/png"]["width"]
    return f'<img alt="{title_of(svg)}" width="{width}" src="data:image/png;base64,{data["image/png"]}">'


def _to_png(svg: str) -> tuple[Output, Output]:
    """Return an SVG as a PNG with few colours, and as metadata its display size in pixels and its title."""
    from PIL import Image

    image, file = Image.open(io.BytesIO(svg_to_png(svg, scale=_SCALE))).convert("RGB"), io.BytesIO()
    reduced = image.quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    reduced.save(file, "PNG", optimize=True)
    width, height = (round(length / _SCALE) for length in image.size)
    metadata = {"width": width, "height": height, "alt": html.unescape(title_of(svg))}
    return {"image/png": base64.b64encode(file.getvalue()).decode()}, {"image/png": metadata}


def _lines(value: Any) -> Any:
    """Return text as the list of lines that a notebook file holds; other values stay."""
    return value.splitlines(keepends=True) if isinstance(value, str) and "\n" in value else value
