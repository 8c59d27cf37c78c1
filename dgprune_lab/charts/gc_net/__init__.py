"""Connections of consecutive layers: the strongest as lines between filters, all of them as heat maps.

Positions are in pixels, y counted from the top. Named data: `removed` and `kept`, a row per line (x, y, x2, y2, rho,
colour, from, to, what); `nodes` (x, y, fill, what); `maps` (x, y, x2, y2, url), which includes the strip of the colour
scale; and text by its style (style, x, y, text): `head`, `lead`, `names`, `titles`, `lines`, `quiet`, `turned`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import altair as alt
import numpy as np
import pandas as pd

from ...core import Connections, Count, DgpruneError, Pair, Side, WeightMask, pair_names, public, unknown
from ..marks import COLOUR, FILL, canvas, layered, rows_of, tooltip
from ..pixels.heat import Floats, blocks, ends, png
from ..theme import AXIS_INK, DASHED, Rows, finish
from .matrix import MOST, Panel, Plan, caption, short, tree

PADDING = {"left": 8, "right": 8, "top": 8, "bottom": 8}
PAIRS, LINKS, ALL_LINKS = 20, 64, 640
_CELL, _SIDE, _LINE = 188, 220, 15
_TEXTS: dict[str, dict[str, Any]] = {
    "head": {"align": "left", "style": "strong", "fontWeight": 600, "fontSize": 13},
    "lead": {"align": "left", "style": "words"},
    "names": {"align": "center", "style": "words"},
    "titles": {"align": "left", "style": "strong", "limit": _CELL - 22},
    "lines": {"align": "left", "style": "words", "limit": _CELL - 22},
    "quiet": {"align": "left", "style": "quiet"},
    "turned": {"align": "left", "style": "quiet", "angle": 270},
}
_RULES: dict[str, dict[str, Any]] = {
    "removed": {"strokeDash": list(DASHED), "strokeWidth": 0.9, "opacity": 0.8},
    "kept": {"strokeWidth": 1.2, "opacity": 0.75},
}


@public
def gc_net(
    table: pd.DataFrame | Connections,
    *,
    mask: WeightMask | None = None,
    layers: Sequence[str] | None = None,
    links: Count | None = None,
    width: Side = 944,
) -> alt.LayerChart:
    """Draw how strongly consecutive layers are connected, and which connections a mask removes.

    Above, layers from left to right, a dot per filter. Each line is the strongest connection of a filter or of an
    output; it is dashed grey if the mask removes it. A hollow dot is a filter without any connection left on one side.
    Below, a heat map per pair on one scale, with spread and null level as text.

    Args:
        table: `diagnostics.gc_net(study, connections=True)`; for a network too large for that, `dg.gc_net(study)`.
        mask: a mask of the connections, such as `dg.allocate(dg.gc_net(study).scores(), ratio=0.5)`; None removes none.
        layers: consuming layers whose pairs are drawn; None for the first 20 pairs.
        links: maximum number of lines per pair, taken evenly from the strongest to the weakest line; None for 64, and
            640 in total.
        width: width of the plot, in pixels.

    Raises:
        DgpruneError: a table without connections; a mask of other connections; a layer that consumes no group.
    """
    if isinstance(table, pd.DataFrame):
        pairs = _read_pairs(table)
    else:
        pairs = [(pair, table.rho(pair.name).detach().double().cpu().numpy()) for pair in table.pairs]
    all_panels = [Panel(pair, rho, _read_kept(pair, rho, mask=mask)) for pair, rho in pairs]
    panels = _choose_panels(all_panels, layers)
    scale = ends([panel.rho for panel in panels])
    plan = Plan(panels, width)
    most = min(LINKS, ALL_LINKS // len(panels)) if links is None else links
    nodes, lines = tree(panels, plan, links=most, scale=scale)
    maps, captions, height = _map_rows(panels, plan, scale=scale)
    note = f"; {len(panels)} of {len(all_panels)} pairs are drawn, layers=[...] chooses others"
    strip, numbers = _scale_rows(plan, scale, note=note if len(panels) < len(all_panels) else "")
    texts = _title_rows(mask) + plan.names() + numbers + captions
    chart = _draw_layers(texts, lines, nodes=nodes, maps=[*maps, strip], size=(width, height))
    return finish(chart, width=width, height=height, padding=PADDING)


def _read_pairs(frame: pd.DataFrame) -> list[tuple[Pair, Floats]]:
    """Return each pair of layers and its connections rho, (outputs, filters), from the rows of `diagnostics.gc_net`."""
    if "group" not in frame.columns or "rho" not in set(frame["metric"]):
        raise DgpruneError("the table holds no connections; make it with diagnostics.gc_net(study, connections=True).")
    grouped = {cast("tuple[str, str]", key): rows for key, rows in frame.groupby(["group", "layer"], sort=False)}
    pairs = []
    for name, ((group, layer), rows) in zip(pair_names(grouped), grouped.items(), strict=True):
        number = dict(zip(rows["metric"], rows["value"], strict=True))
        cells = rows.loc[rows["metric"] == "rho", ["output", "filter", "value"]].to_numpy(dtype=float)
        output, filters = cells[:, 0].astype(int), cells[:, 1].astype(int)
        rho = np.zeros((output.max() + 1, filters.max() + 1))
        rho[output, filters] = cells[:, 2]
        about = {field: number[f"rho_{field}"] for field in ("null", "null_spread", "null_expected")}
        pairs.append((Pair(name=name, group=group, layer=layer, **about), rho))
    return pairs


def _read_kept(pair: Pair, rho: Floats, *, mask: WeightMask | None) -> Any:
    """Return (outputs, filters) bool: the connections of a pair that the mask keeps."""
    keep = np.ones_like(rho, dtype=bool) if mask is None else mask.keep.get(pair.name)
    if keep is None or tuple(keep.shape) != rho.shape:
        raise DgpruneError(
            f"the mask has no connections from {pair.group} to {pair.layer} of shape {rho.shape}; make it of the same "
            "network: dg.allocate(dg.gc_net(study).scores(), ratio=0.5)."
        )
    return np.asarray(keep)


def _choose_panels(panels: list[Panel], layers: Sequence[str] | None) -> list[Panel]:
    known = list(dict.fromkeys(panel.pair.layer for panel in panels))
    for layer in layers or ():
        if layer not in known:
            raise unknown("layer", layer, known)
    return panels[:PAIRS] if not layers else [panel for panel in panels if panel.pair.layer in layers]


def _title_rows(mask: WeightMask | None) -> Rows:
    """Return the title and the explanation as rows of text."""
    lines = ["Each line: the strongest connection of a filter, or into an output."]
    if mask is not None:
        scope = "of each pair" if mask.scope == "layer" else "of all"
        lines.append(
            f"Dashed grey: removed with the lowest {mask.ratio_requested:.0%} {scope}. "
            "Hollow: a filter with no connection left on one side."
        )
    head = caption("head", "Connections between consecutive layers", x=0, y=12)
    return [head, *(caption("lead", line, x=0, y=30 + 15 * k) for k, line in enumerate(lines))]


def _map_rows(panels: list[Panel], plan: Plan, *, scale: tuple[float, float]) -> tuple[Rows, Rows, int]:
    """Return the rows of the heat maps, those of their captions, and the height of the whole picture."""
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
            captions += _caption_rows(panel, lines, x=x, y=y, side=side)
            tallest = max(tallest, len(lines))
        y += side + 62 + _LINE * tallest
    return maps, captions, int(y - 32)


def _caption_rows(panel: Panel, lines: list[str], *, x: float, y: float, side: float) -> Rows:
    """Return the text of one heat map: names above it in one or two lines; counts and numbers below."""
    (outputs, filters), pair = panel.rho.shape, panel.pair
    below, room = y + 8 + side, _CELL - 24
    titles = [caption("titles", f"{pair.group} → {pair.layer}", x=x, y=y)]
    if len(pair.group) + len(pair.layer) > 20:
        titles = [
            caption("titles", short(pair.group, room), x=x, y=y - 14),
            caption("titles", f"→ {short(pair.layer, room - 14)}", x=x, y=y),
        ]
    return [
        *titles,
        caption("quiet", f"filter 0 to {filters - 1}", x=x, y=below + 14),
        caption("turned", f"output 0 to {outputs - 1}", x=x - 6, y=below),
        *(caption("lines", line, x=x, y=below + 14 + _LINE * (k + 1)) for k, line in enumerate(lines)),
    ]


def _scale_rows(plan: Plan, scale: tuple[float, float], *, note: str) -> tuple[dict[str, Any], Rows]:
    """Return the colour scale as a strip, and the rows of its caption."""
    low, high = scale
    x, y, length = 18.0, plan.bottom + 20, 200
    picture = png(np.linspace(low, high, 100)[None], low=low, high=high)
    strip = {"x": x, "y": y, "x2": x + length, "y2": y + 10, "url": picture}
    numbers = [(length * k / 2, f"{low + (high - low) * k / 2:.3g}") for k in range(3)]
    ticks = [caption("names", number, x=x + at, y=y + 24) for at, number in numbers]
    rho = "correlation" if low < 0 else "|correlation|"
    return strip, [*ticks, caption("lead", f"rho: {rho} of two responses{note}", x=x + length + 18, y=y + 9)]


def _draw_layers(texts: Rows, lines: Rows, *, nodes: Rows, maps: Rows, size: tuple[int, int]) -> alt.LayerChart:
    x, y = canvas(*size)
    box = {"x": x, "y": y, "x2": alt.X2("x2:Q"), "y2": alt.Y2("y2:Q")}
    tips = tooltip({"from": "from", "to": "to", "rho": ("rho", ".2f"), "what": "connection"})
    dots = rows_of("nodes", nodes).mark_point(size=14, strokeWidth=1, stroke=AXIS_INK, opacity=1)
    return layered(
        *(
            rows_of(name, [row for row in lines if row["what"] == name])
            .mark_rule(**rule)
            .encode(**box, stroke=COLOUR, tooltip=tips)
            for name, rule in _RULES.items()
        ),
        dots.encode(x=x, y=y, fill=FILL, tooltip=tooltip({"what": "Filter"})),
        rows_of("maps", maps).mark_image(aspect=False).encode(**box, url=alt.Url("url:N")),
        *(
            rows_of(name, [row for row in texts if row["style"] == name])
            .mark_text(**mark)
            .encode(x=x, y=y, text=alt.Text("text:N"))
            for name, mark in _TEXTS.items()
        ),
    )
