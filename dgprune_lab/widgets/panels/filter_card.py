"""Data rows for the charts on a filter's card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...charts import DomainStyle
from ...charts.drop import drop_rows as drop_chart_rows
from ...charts.pixels.heat import png
from ...charts.pixels.overlays import pair
from ...charts.sensitivity.card import LEFT, LINE, PAIRS, SIDE, STEP, TOP
from ...charts.theme import marked, point_of, points_text, role_label, shortened, with_minus
from ...core import FilterGroup, Scores, tidy
from ...diagnostics._attributions import Attributions
from ...diagnostics._removal import Case
from ...diagnostics.drop import EXTRA, drop_rows
from ...measurement import Attributor
from ...study import Study
from .domains import labelled, styles_of, why_no_pictures
from .menu_scores import MenuScores, plain_label, reads_target
from .protocol import Item, Row, Rows

_BINS = 28
_MAX_LETTERS = 32
_FULL_COLOUR = 0.02  # share of the positions drawn in full colour
_COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}


def picture_rows(study: Study, by: Attributor, data: Attributions, *, layer: str, filter: int) -> dict[str, Rows]:
    """Return each domain's images with the filter's largest absolute contributions, and where in them it contributes.

    Images to which it contributes nothing are left out.
    """
    if (reason := why_no_pictures(study.domains[0])) is not None:
        return {"pictures": [], "words": [_text(reason, x=0, y=TOP + 12)]}
    strongest = [_strongest_images(data, side, layer=layer, filter=filter) for side in (0, 1)]
    batches = [domain.take(rows, device=study.device) for domain, (rows, _) in zip(data.pair, strongest, strict=True)]
    maps = [
        by.maps(batch, method=data.method, layer=layer, filter=filter) if values else None
        for batch, (_, values) in zip(batches, strongest, strict=True)
    ]
    magnitudes = [values.abs().flatten() for values in maps if values is not None]
    scale = full_colour(torch.cat(magnitudes)) if magnitudes else 0.0
    pictures: Rows = []
    texts: Rows = []
    for side, (domain, (_, values)) in enumerate(zip(data.pair, strongest, strict=True)):
        top, labels, heats = TOP + side * LINE, batches[side].labels, maps[side]
        name = shortened(domain.name, most=24) + role_label(domain.role)
        if heats is None or labels is None:
            count = len(data.values[layer][side])
            texts.append(_text(f"{name}: its contribution is 0 on all {count:,} images", x=LEFT, y=top + 8))
            continue
        note = "right of each: where (amber: for the true class, violet: against it)"
        if heats[0].numel() == 1:
            note = "its map is a single position, so no location is shown"
        texts.append(_text(f"{name}: largest contributions, up or down; {note}", x=LEFT, y=top + 8))
        for k, (image, heat, value) in enumerate(zip(batches[side].images, heats, values, strict=True)):
            name = shortened(domain.class_label(int(labels[k])), most=14)
            x, text = LEFT + k * STEP, with_minus(f"true {name}: {value:+.3g}")
            overlays = pair(image, heat, most=scale, x=x, y=top + 18, size=SIDE, text=text)
            pictures += [{**picture, "side": SIDE} for picture in overlays]
            texts.append(_text(text, x=x, y=top + SIDE + 29, style="small"))
    if any(values is not None and values[0].numel() > 1 for values in maps):
        text = f"Full colour: the strongest {_FULL_COLOUR:.0%} of the positions in these pictures".replace("%", " %")
        texts.append(_text(text, x=LEFT, y=TOP + 2 * LINE, style="small"))
    return {"pictures": pictures, "words": texts}


def full_colour(sizes: Tensor) -> float:
    """Return the magnitude drawn in full colour: a high quantile, as the maximum would leave most positions pale."""
    scale = torch.quantile(sizes.float().cpu(), 1 - _FULL_COLOUR) if len(sizes) < 2**24 else sizes.max()
    return float(scale if scale > 0 else sizes.max())


def mean_map_rows(maps: Sequence[NDArray[np.float64]]) -> dict[str, Rows]:
    """Return the rows of a filter's mean maps, one per domain, on one colour scale; dark is strong."""
    scale = max(float(np.abs(values).max()) for values in maps) or 1.0
    low = -scale if min(float(values.min()) for values in maps) < 0 else 0.0
    pictures, texts = [], []
    for side, values in enumerate(maps):
        top, url = TOP + side * LINE, png(values, low=low, high=scale)
        pictures.append({"x": 0, "y": top + 18, "side": SIDE, "url": url, "text": f"mean {values.mean():.3g}"})
        size = " x ".join(map(str, values.shape))
        texts += [_text("mean map", x=0, y=top + 8), _text(size, x=0, y=top + SIDE + 29, style="small")]
    return {"pictures": pictures, "words": texts}


def histogram_rows(
    data: Attributions, *, layer: str, filter: int, styles: Mapping[str, DomainStyle]
) -> dict[str, Rows]:
    """Return a histogram of the filter's contributions for each domain, in % of its images."""
    sides = [values[:, filter].double().numpy() for values in data.values[layer]]
    edges = np.histogram_bin_edges(np.concatenate(sides), bins=_BINS)
    rows: Rows = []
    names: Rows = []
    for k, (domain, values) in enumerate(zip(data.pair, sides, strict=True)):
        style = styles[domain.name]
        percent = [*(100 * np.histogram(values, edges)[0] / len(values)).round(3).tolist(), 0.0]
        shared = {"domain": domain.name, "colour": style.colour, "dash": list(style.dash)}
        rows += [{**shared, "x": x, "share": share} for x, share in zip(edges.tolist(), percent, strict=True)]
        names.append({"text": shortened(domain.name, most=20), "at": 8 + 15 * k, "colour": style.colour})
    return {"histogram": rows, "names": names}


def weight_rows(study: Study, *, layer: str, filter: int) -> dict[str, Rows]:
    """Return the filter's weights on each image channel if its layer receives the image itself, otherwise a text."""
    weights = _first_weights(study, study.graph[layer], filter)
    if weights is None:
        lines = ("Its inputs are other", "filters; only weights of", "the first layer are", "pictures.")
        return {"weights": [], "weight_words": [_text(line, x=0, y=8 + 15 * k) for k, line in enumerate(lines)]}
    scale = max(float(np.abs(weights).max()), 1e-12)
    names = _COLOURS.get(len(weights), tuple(f"channel {k}" for k in range(len(weights))))
    side = min(64, 200 // len(weights) - 8)
    texts = [_text("Its weights on", x=0, y=8)]
    pictures: Rows = []
    for k, (name, values) in enumerate(zip(names, weights, strict=True)):
        y, text = 22 + k * (side + 8), f"{name}: {values.min():.2g} to {values.max():.2g}"
        pictures.append({"x": 0, "y": y, "side": side, "url": png(values, low=-scale, high=scale), "text": text})
        texts.append(_text(name, x=side + 8, y=y + side / 2, style="small"))
    texts.append(_text("teal above 0, brown below", x=0, y=22 + len(names) * (side + 8) + 8, style="small"))
    return {"weights": pictures, "weight_words": texts}


def rank_row(scores: Scores, *, layer: str, filter: int) -> Row:
    """Return the filter's rank in a scorer's removal order within its layer, 0 (removed first) to 100, and as text."""
    values = scores.values[layer]
    rank = int((values < values[filter]).sum()) + int((values[:filter] == values[filter]).sum())
    return {"at": 100 * rank / max(len(values) - 1, 1), "text": f"{ordinal(rank + 1)} of {len(values)}"}


def rank_rows(study: Study, items: Sequence[Item], scores: MenuScores, *, layer: str, filter: int) -> Rows:
    """Return the filter's rank by each scorer, "…" if not computed yet; target-aware scorers are marked."""
    rows: Rows = []
    for place, item in enumerate(items):
        cached = scores.get(item)
        rank: Row = {"at": None, "text": "…" if cached is None else "cannot run"}
        if isinstance(cached, Scores):
            rank = rank_row(cached, layer=layer, filter=filter)
        label = marked(shortened(plain_label(item), most=_MAX_LETTERS), reads_target(item, study))
        rows.append({"place": place, "label": label, **rank})
    return rows


def change_rows(cases: Sequence[Case]) -> Rows:
    """Return the accuracy change of each domain in percentage points, with its interval."""
    rows = drop_chart_rows(tidy(drop_rows(cases), extra=EXTRA))
    return [
        {**row, "place": k, "label": shortened(row["label"], most=22), "text": points_text(row["change"])}
        for k, row in enumerate(rows)
    ]


def waiting_rows(study: Study) -> Rows:
    """Return rows in place of those of `change_rows` before anything is measured."""
    styles = styles_of(study)
    blank = {"change": None, "low": None, "high": None, "text": "…"}
    return [
        {**point_of(styles[name]), **blank, "looked": "", "place": place, "label": shortened(name, most=22)}
        for place, name in enumerate(domain.name for domain in labelled(study))
    ]


def ordinal(number: int) -> str:
    """Return a rank as an ordinal number.

    >>> [ordinal(k) for k in (1, 2, 3, 4, 11, 22, 113)]
    ['1st', '2nd', '3rd', '4th', '11th', '22nd', '113th']
    """
    end = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{end}"


def heading(cell: Mapping[str, Any]) -> Row:
    """Return the card's title from a map cell: "conv3, filter 17: contributes more on b (d = 0.8, 0.6 to 1.1)"."""
    size = cell["size"].replace(" (", ", ").rstrip(")")
    return _text(f"{cell['group']}, filter {cell['filter']}: {cell['says']} (d = {size})", x=0, y=8, style="name")


def _text(text: str, *, x: float, y: float, style: str = "plain") -> Row:
    return {"x": x, "y": y, "text": text, "style": style}


def _strongest_images(data: Attributions, side: int, *, layer: str, filter: int) -> tuple[Tensor, list[float]]:
    """Return the row numbers of the images with the filter's largest |attribution| above 0, and these attributions."""
    values = data.values[layer][side][:, filter]
    order = values.abs().argsort(descending=True, stable=True)[: min(PAIRS, int((values != 0).sum()))]
    return data.rows[side][order], values[order].tolist()


def _first_weights(study: Study, group: FilterGroup, filter: int) -> NDArray[np.float64] | None:
    """Return the weights (channels, kh, kw) of a filter whose input is the image itself; None for other filters."""
    name = f"{group.name}.weight"
    weight = dict(study.model.named_parameters()).get(name)
    first = group.name == study.graph.groups[0].name
    if not first or weight is None or weight.ndim != 4 or weight.shape[1] != study.domains[0].shape[0]:
        return None
    member = next((m for m in group.members if m.tensor == name and m.axis == 0 and m.side == "out"), None)
    if member is None or not bool((member.filters == filter).any()):
        return None
    position = int(member.positions[torch.nonzero(member.filters == filter)[0, 0]])
    return weight[position].detach().double().cpu().numpy()
