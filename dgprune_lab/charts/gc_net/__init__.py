"""The connections of consecutive layers: the strongest as lines between filters, all of them as heat maps.

Everything lies in one plane of pixels, y from the top. Named data: `removed` and `kept`, a line each (x, y, x2, y2,
rho, colour, from, to, what); `nodes` (x, y, fill, what); `maps` (x, y, x2, y2, url), the strip of the scale among
them; and words by their look (x, y, text): `head`, `lead`, `names`, `titles`, `lines`, `quiet`, `turned`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import altair as alt
import numpy as np
import pandas as pd
import torch

from ...pruning import allocate
from ...study import GCNet
from ...core import Pair
from ...core import DgpruneError, unknown
from ...core import WeightScores
from ...core import Scope
from .matrix import MOST, Panel, Plan, Rows, caption, short, tree
from ..pixels.heat import Floats, blocks, ends, png
from ..theme import AXIS_INK, DASHED, finish, layered, named

PADDING = {"left": 8, "right": 8, "top": 8, "bottom": 8}
PAIRS, LINKS, ALL_LINKS = 20, 64, 640
_CELL, _SIDE, _LINE = 188, 220, 15
_LOOKS: dict[str, dict[str, Any]] = {
    "head": {"align": "left", "style": "strong", "fontWeight": 600, "fontSize": 13},
    "lead": {"align": "left", "style": "words"},
    "names": {"align": "center", "style": "words"},
    "titles": {"align": "left", "style": "strong", "limit": _CELL - 22},
    "lines": {"align": "left", "style": "words", "limit": _CELL - 22},
    "quiet": {"align": "left", "style": "quiet"},
    "turned": {"align": "left", "style": "quiet", "angle": 270},
}


def gc_net(
    given: GCNet | pd.DataFrame,
    *,
    ratio: float = 0.5,
    scope: Scope = "layer",
    layers: Sequence[str] | None = None,
    links: int | None = None,
    width: int = 944,
) -> alt.LayerChart:
    """Draw how strongly consecutive layers hang together, and what pruning the weakest connections takes.

    Above, layers from left to right, a dot per filter. A line is the strongest connection of a filter, or into an
    output: solid where it stays, dashed grey where even that one is removed; a hollow dot has lost all its connections
    to one side. Below, a heat map per pair on one scale, with spread and floor in words.

    Args:
        given: `dg.gc_net(study)`, or `diagnostics.gc_net(study, connections=True)`.
        ratio: the share of connections removed, weakest first.
        scope: of each pair, or anywhere.
        layers: readers whose pairs are drawn; the first 20 pairs where not given.
        links: at most so many lines per pair, taken evenly from the strongest to the weakest of them; 64, and 640
            in all, where not given.
        width: of the plot, in pixels.

    Raises:
        DgpruneError: a table without connections; a layer that reads none.
    """
    every = _panels(given, ratio=ratio, scope=scope)
    panels = _chosen(every, layers)
    low, high = ends([panel.rho for panel in panels])
    plan = Plan(panels, width)
    nodes, lines = tree(panels, plan, min(LINKS, ALL_LINKS // len(panels)) if links is None else links, (low, high))
    maps, captions, height = _maps(panels, plan, (low, high))
    strip, numbers = _scale(plan, (low, high), len(panels), len(every))
    words = _heads(ratio, scope) + plan.names() + numbers + captions
    chart = _layers(words, lines, nodes, [*maps, strip], width=width, height=height)
    return finish(chart, width=width, height=height, padding=PADDING)


def _panels(given: GCNet | pd.DataFrame, *, ratio: float, scope: Scope) -> list[Panel]:
    found = _of_table(given) if isinstance(given, pd.DataFrame) else _of_network(given)
    values = {pair.name: torch.from_numpy(rho) for pair, rho in found}
    keep = allocate(WeightScores("gc_net", values), ratio=ratio, scope=scope).keep
    return [Panel(pair, rho, keep[pair.name].numpy()) for pair, rho in found]


def _of_network(given: GCNet) -> list[tuple[Pair, Floats]]:
    return [(pair, given.rho(pair.name).detach().double().cpu().numpy()) for pair in given.pairs]


def _of_table(frame: pd.DataFrame) -> list[tuple[Pair, Floats]]:
    """Pairs and their numbers from the rows of `diagnostics.gc_net`."""
    if "group" not in frame.columns or "rho" not in set(frame["metric"]):
        raise DgpruneError(
            "the table holds no connections; make it with diagnostics.gc_net(study, connections=True), or pass "
            "dg.gc_net(study)."
        )
    found = []
    for key, rows in frame.groupby(["group", "layer"], sort=False):
        group, layer = cast("tuple[str, str]", key)
        number = dict(zip(rows["metric"], rows["value"], strict=True))
        held = rows.loc[rows["metric"] == "rho", ["output", "filter", "value"]].to_numpy(dtype=float)
        output, filters = held[:, 0].astype(int), held[:, 1].astype(int)
        rho = np.zeros((output.max() + 1, filters.max() + 1))
        rho[output, filters] = held[:, 2]
        numbers = (number[name] for name in ("floor", "floor_spread", "floor_expected"))
        found.append((Pair(f"{group} to {layer}", group, layer, *numbers), rho))
    return found


def _chosen(panels: list[Panel], layers: Sequence[str] | None) -> list[Panel]:
    known = list(dict.fromkeys(panel.pair.layer for panel in panels))
    for layer in layers or ():
        if layer not in known:
            raise unknown("layer", layer, known)
    return panels[:PAIRS] if layers is None else [panel for panel in panels if panel.pair.layer in layers]


def _heads(ratio: float, scope: Scope) -> Rows:
    what = "of each pair" if scope == "layer" else "anywhere"
    return [
        caption("head", 0, 12, "Connections between consecutive layers"),
        caption("lead", 0, 30, "Each line: the strongest connection of a filter, or into an output."),
        caption(
            "lead",
            0,
            45,
            f"Dashed grey: removed with the lowest {ratio:.0%} {what}. "
            "Hollow: a filter with no connection left on one side.",
        ),
    ]


def _maps(panels: list[Panel], plan: Plan, scale: tuple[float, float]) -> tuple[Rows, Rows, int]:
    """Heat maps in rows, their words, and how high everything is."""
    across = min(len(panels), max(1, plan.width // _CELL))
    room = plan.width / across
    side = min(_SIDE, room - 44)
    y = plan.bottom + 92
    maps: Rows = []
    captions: Rows = []
    for start in range(0, len(panels), across):
        tallest = 0
        for k, panel in enumerate(panels[start : start + across]):
            x = k * min(room, _SIDE + 60) + 18
            values, block = blocks(panel.rho, most=MOST)
            picture = png(values, low=scale[0], high=scale[1])
            maps.append({"x": x, "y": y + 8, "x2": x + side, "y2": y + 8 + side, "url": picture})
            lines = panel.lines + ([f"in blocks of {block[0]} x {block[1]}"] if max(block) > 1 else [])
            captions += _captions(panel, x, y, side, lines)
            tallest = max(tallest, len(lines))
        y += side + 62 + _LINE * tallest
    return maps, captions, int(y - 32)


def _captions(panel: Panel, x: float, y: float, side: float, lines: list[str]) -> Rows:
    outputs, filters = panel.rho.shape
    below = y + 8 + side
    return [
        *_titles(panel.pair, x, y),
        caption("quiet", x, below + 14, f"filter 0 to {filters - 1}"),
        caption("turned", x - 6, below, f"output 0 to {outputs - 1}"),
        *(caption("lines", x, below + 14 + _LINE * (k + 1), line) for k, line in enumerate(lines)),
    ]


def _titles(pair: Pair, x: float, y: float) -> Rows:
    """What reads what, in one line or in two."""
    room = _CELL - 24
    if len(pair.group) + len(pair.layer) <= 20:
        return [caption("titles", x, y, f"{pair.group} → {pair.layer}")]
    return [
        caption("titles", x, y - 14, short(pair.group, room)),
        caption("titles", x, y, f"→ {short(pair.layer, room - 14)}"),
    ]


def _scale(plan: Plan, scale: tuple[float, float], drawn: int, total: int) -> tuple[dict[str, Any], Rows]:
    """The strip that says which colour is which number, and how many pairs are drawn."""
    low, high = scale
    x, y, length = 18.0, plan.bottom + 20, 200
    picture = png(np.linspace(low, high, 100)[None], low=low, high=high)
    strip = {"x": x, "y": y, "x2": x + length, "y2": y + 10, "url": picture}
    ticks = [caption("names", x + length * k / 2, y + 24, f"{low + (high - low) * k / 2:.3g}") for k in range(3)]
    few = f"; {drawn} of {total} pairs are drawn, layers=[...] chooses others" if drawn < total else ""
    what = "rho: correlation of two responses" if low < 0 else "rho: |correlation| of two responses"
    return strip, [*ticks, caption("lead", x + length + 18, y + 9, f"{what}{few}")]


def _layers(words: Rows, lines: Rows, nodes: Rows, maps: Rows, *, width: int, height: int) -> alt.LayerChart:
    x = alt.X("x:Q", scale=alt.Scale(domain=[0, width], nice=False, zero=False), axis=None)
    y = alt.Y("y:Q", scale=alt.Scale(domain=[height, 0], nice=False, zero=False), axis=None)
    tips = [alt.Tooltip("from:N"), alt.Tooltip("to:N"), alt.Tooltip("rho:Q", format=".2f"), alt.Tooltip("what:N")]
    styles: dict[str, dict[str, Any]] = {
        "removed": {"strokeDash": list(DASHED), "strokeWidth": 0.9, "opacity": 0.8},
        "kept": {"strokeWidth": 1.2, "opacity": 0.75},
    }
    rules = [
        alt.Chart(named(name, [row for row in lines if (row["what"] == "removed") == (name == "removed")]))
        .mark_rule(**look)
        .encode(x=x, y=y, x2="x2:Q", y2="y2:Q", stroke=alt.Stroke("colour:N", scale=None), tooltip=tips)
        for name, look in styles.items()
    ]
    dots = (
        alt.Chart(named("nodes", nodes))
        .mark_point(size=14, strokeWidth=1, stroke=AXIS_INK, opacity=1)
        .encode(x=x, y=y, fill=alt.Fill("fill:N", scale=None), tooltip=[alt.Tooltip("what:N", title="Filter")])
    )
    pictures = (
        alt.Chart(named("maps", maps)).mark_image(aspect=False).encode(x=x, y=y, x2="x2:Q", y2="y2:Q", url="url:N")
    )
    texts = [
        alt.Chart(named(name, [row for row in words if row["look"] == name]))
        .mark_text(**look)
        .encode(x=x, y=y, text="text:N")
        for name, look in _LOOKS.items()
    ]
    return layered(*rules, dots, pictures, *texts)
