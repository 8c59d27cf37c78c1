"""Parts of the pictures: SVG elements on 200 x 100 units.

Ink is the text colour of the page (`currentColor`); the colours of source and target are CSS variables with a lighter
value on a dark page.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Literal

Anchor = Literal["start", "middle", "end"]
Point = tuple[float, float]

SOURCE, TARGET, INK = "var(--dg-source)", "var(--dg-target)", "currentColor"


def text(
    at: Point, label: str, *, size: float = 11, anchor: Anchor = "middle", colour: str = INK, bold: bool = False
) -> str:
    """Return a text whose baseline is at a point."""
    weight = ' font-weight="600"' if bold else ""
    place = f'x="{at[0]:g}" y="{at[1]:g}" font-size="{size:g}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}"{weight}>{html.escape(label)}</text>'


def line(points: Iterable[Point], *, colour: str = INK, width: float = 1.5, dash: str = "", opacity: float = 1) -> str:
    """Return straight lines through points."""
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    faint = f' opacity="{opacity:g}"' if opacity < 1 else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashes}{faint}/>'


def curve(path: str, *, colour: str = INK, width: float = 2, dash: str = "") -> str:
    """Return a curve from SVG path data."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashes}/>'


def box(at: Point, size: Point, *, fill: str = "none", stroke: str = INK, dash: str = "", opacity: float = 1) -> str:
    """Return a rectangle from its upper left corner."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    faint = f' fill-opacity="{opacity:g}"' if opacity < 1 else ""
    place = f'x="{at[0]:g}" y="{at[1]:g}" width="{size[0]:g}" height="{size[1]:g}" rx="2"'
    return f'<rect {place} fill="{fill}" stroke="{stroke}" stroke-width="1.3"{dashes}{faint}/>'


def dot(at: Point, *, colour: str = INK, radius: float = 3, hollow: bool = False) -> str:
    """Return a dot, or a ring."""
    fill = "none" if hollow else colour
    return f'<circle cx="{at[0]:g}" cy="{at[1]:g}" r="{radius:g}" fill="{fill}" stroke="{colour}" stroke-width="1.3"/>'


def square(at: Point, colour: str = INK) -> str:
    """Return the mark of a target's point: a square of its colour, so that colour is not alone."""
    return f'<rect x="{at[0] - 2.8:g}" y="{at[1] - 2.8:g}" width="5.6" height="5.6" fill="{colour}"/>'


def arrow(start: Point, end: Point, *, colour: str = INK) -> str:
    """Return a horizontal or vertical arrow."""
    across = start[1] == end[1]
    sign = 1 if (end[0] > start[0] if across else end[1] > start[1]) else -1
    back = [
        (end[0] - 5 * sign, end[1] + side) if across else (end[0] + side, end[1] - 5 * sign) for side in (-3.5, 3.5)
    ]
    return line([start, end], colour=colour) + line([back[0], end, back[1]], colour=colour)


def kept(at: Point, *, keep: bool = True, size: float = 14) -> str:
    """Return one filter: full if it is kept; removed, a dashed outline with a cross."""
    if keep:
        return box(at, (size, size), fill=INK, opacity=0.75)
    x, y = at
    cross = line([(x + 3, y + 3), (x + size - 3, y + size - 3)]) + line([(x + size - 3, y + 3), (x + 3, y + size - 3)])
    return box(at, (size, size), dash="2 2") + cross


def row(at: Point, keep: Sequence[bool], *, step: float = 18) -> str:
    """Return filters side by side."""
    return "".join(kept((at[0] + step * place, at[1]), keep=stays) for place, stays in enumerate(keep))


def digit(at: Point, figure: str, *, target: bool = False, size: float = 26) -> str:
    """Return the image of a digit; that of a target has a striped background."""
    x, y = at
    stripes = "".join(
        line([(x + shift, y + size), (x + shift + size * 0.25, y)], colour=TARGET, width=2.5, opacity=0.55)
        for shift in (2, 8, 14)
        if target
    )
    frame = box(at, (size, size), stroke=TARGET if target else SOURCE)
    return stripes + frame + text((x + size / 2, y + size * 0.76), figure, size=size * 0.72, bold=True)


def whisker(at: Point, half: float, *, colour: str = INK, target: bool = False) -> str:
    """Return a point with its horizontal interval."""
    (x, y), ends = at, []
    for end in (x - half, x + half):
        ends.append(line([(end, y - 4), (end, y + 4)], colour=colour))
    mark = square(at, colour) if target else dot(at, colour=colour, radius=3.5)
    return line([(x - half, y), (x + half, y)], colour=colour, width=2) + "".join(ends) + mark


def axes(*, across: str = "", up: str = "") -> str:
    """Return two axes with their names."""
    lines = line([(24, 8), (24, 82), (192, 82)], width=1, opacity=0.6)
    names = text((192, 95), across, size=9.5, anchor="end") if across else ""
    return lines + names + (f'<g transform="rotate(-90 14 45)">{text((14, 45), up, size=9.5)}</g>' if up else "")
