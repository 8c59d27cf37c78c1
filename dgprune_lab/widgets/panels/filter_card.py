"""What the card of one filter holds, as the rows of its chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...charts import DomainStyle, domain_styles
from ...charts.drop import drop_rows as drop_chart_rows
from ...charts.pixels.heat import png
from ...charts.pixels.overlays import pair
from ...charts.sensitivity.card import LEFT, LINE, PAIRS, SIDE, STEP, TOP
from ...charts.theme import WORDS, mark_of, marked, shortened
from ...core import Domain, FilterGroup, Mask, Scores, tidy
from ...diagnostics._removal import Case
from ...diagnostics.drop import EXTRA as CHANGE_COLUMNS
from ...diagnostics.drop import drop_rows
from ...diagnostics.sensitivity import Attributed
from ...measurement import Attributor
from ...scorers import Scorer
from ...study import Study
from .domain_pairs import labelled

BINS = 28
LETTERS = 32
_COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}
_MINUS = "\N{MINUS SIGN}"

Rows = list[dict[str, Any]]


def picture_rows(study: Study, by: Attributor, held: Attributed, *, layer: str, filter: int) -> dict[str, Rows]:
    """The images of each domain to which the filter contributes most, up or down, and where in them."""
    channels = study.domains[0].shape[0]
    if channels not in (1, 3, 4):
        text = f"images of {channels} channels cannot be shown as pictures; 1, 3 or 4 can."
        return {"pictures": [], "words": [_words(text, x=0, y=TOP + 12)]}
    chosen = [_strongest(held, side, layer, filter) for side in (0, 1)]
    batches = [d.take(rows, device=study.device) for d, (rows, _) in zip(held.pair, chosen, strict=True)]
    maps = [by.maps(batch, method=held.method, layer=layer, filter=filter) for batch in batches]
    most = max(float(found.abs().max()) for found in maps)
    where = "beside each, where (amber: for the true answer, violet: against it)"
    if maps[0][0].numel() == 1:
        where = "its map is one place, so it tells no where"
    pictures: Rows = []
    words: Rows = []
    for side, (domain, (_, values)) in enumerate(zip(held.pair, chosen, strict=True)):
        top = TOP + side * LINE
        words.append(
            _words(f"{_named(domain)}: images to which it contributes most, up or down; {where}", x=LEFT, y=top + 8)
        )
        labels = batches[side].labels
        assert labels is not None
        for k, (image, found, value) in enumerate(zip(batches[side].images, maps[side], values, strict=True)):
            x, text = LEFT + k * STEP, f"true {int(labels[k])}: {value:+.3g}".replace("-", _MINUS)
            pictures += [
                {**one, "side": SIDE} for one in pair(image, found, most=most, x=x, y=top + 18, size=SIDE, text=text)
            ]
            words.append(_words(text, x=x, y=top + SIDE + 29, look="small"))
    return {"pictures": pictures, "words": words}


def mean_map_rows(maps: Sequence[NDArray[np.float64]]) -> dict[str, Rows]:
    """What the filter shows on the mean over the images of each domain, on one scale; dark is strong."""
    most = max(float(np.abs(found).max()) for found in maps) or 1.0
    low = -most if min(float(found.min()) for found in maps) < 0 else 0.0
    pictures, words = [], []
    for side, found in enumerate(maps):
        top = TOP + side * LINE
        url = png(found, low=low, high=most)
        pictures.append({"x": 0, "y": top + 18, "side": SIDE, "url": url, "text": f"mean {found.mean():.3g}"})
        places = " x ".join(map(str, found.shape))
        words += [_words("mean map", x=0, y=top + 8), _words(places, x=0, y=top + SIDE + 29, look="small")]
    return {"pictures": pictures, "words": words}


def mean_map_of(study: Study, domain: Domain, *, split: str, layer: str, filter: int) -> NDArray[np.float64]:
    """(H, W) mean of a filter's output over the images of a part."""
    found = study.statistics(domain.name, needs=["mean_map"], split=split).mean_map[layer][filter]
    side = round(found.numel() ** 0.5)
    shape = found.shape if found.ndim == 2 else (side, side) if side**2 == found.numel() else (1, found.numel())
    return found.reshape(tuple(shape)).double().cpu().numpy()


def histogram_rows(held: Attributed, *, layer: str, filter: int, style: Mapping[str, DomainStyle]) -> dict[str, Rows]:
    """In % of its images, how often each contribution occurs on each domain."""
    values = [part[:, filter].double().numpy() for part in held.values[layer]]
    edges = np.histogram_bin_edges(np.concatenate(values), bins=BINS)
    rows: Rows = []
    names: Rows = []
    for k, (domain, found) in enumerate(zip(held.pair, values, strict=True)):
        look = style[domain.name]
        shares = 100 * np.histogram(found, edges)[0] / len(found)
        about = {"domain": domain.name, "colour": look.colour, "dash": list(look.dash)}
        rows += [
            {**about, "x": x, "share": round(share, 3)}
            for x, share in zip(edges.tolist(), [*shares.tolist(), 0.0], strict=True)
        ]
        names.append({"text": shortened(domain.name, most=20), "at": 8 + 15 * k, "colour": look.colour})
    return {"histogram": rows, "names": names}


def weight_rows(study: Study, *, layer: str, filter: int) -> dict[str, Rows]:
    """The filter's weights on each channel of the image, if it is in the layer that reads the image."""
    found = _first_weights(study, study.graph[layer], filter)
    if found is None:
        lines = ("Its weights read other", "filters; only those of", "the first layer are", "pictures.")
        return {"weights": [], "weight_words": [_words(line, x=0, y=8 + 15 * k) for k, line in enumerate(lines)]}
    most = max(float(np.abs(found).max()), 1e-12)
    budget = _COLOURS.get(len(found), tuple(f"channel {k}" for k in range(len(found))))
    side = min(64, 200 // len(found) - 8)
    pictures = [
        {
            "x": 0,
            "y": 22 + k * (side + 8),
            "side": side,
            "url": png(part, low=-most, high=most),
            "text": f"{name}: {part.min():.2g} to {part.max():.2g}",
        }
        for k, (name, part) in enumerate(zip(budget, found, strict=True))
    ]
    words = [_words("Its weights on", x=0, y=8)]
    words += [
        _words(name, x=side + 8, y=one["y"] + side / 2, look="small")
        for name, one in zip(budget, pictures, strict=True)
    ]
    words.append(_words("teal above 0, brown below", x=0, y=22 + len(budget) * (side + 8) + 8, look="small"))
    return {"weights": pictures, "weight_words": words}


def rank_words(scores: Scores, *, layer: str, filter: int) -> dict[str, Any]:
    """Where a scorer's order of removal within the layer has the filter: a place from 0 (first) to 100, and words."""
    values = scores.values[layer]
    before = int((values < values[filter]).sum()) + int((values[:filter] == values[filter]).sum())
    count = len(values)
    return {"at": 100 * before / max(count - 1, 1), "text": f"{ordinal(before + 1)} of {count}"}


def rank_rows(
    study: Study, menu: Mapping[str, Scorer | Scores], known: Mapping[str, Scores | str], *, layer: str, filter: int
) -> Rows:
    """Each scorer's place for the filter, "…" where it is not known yet; those that look at a target are marked."""
    rows: Rows = []
    for place, (name, item) in enumerate(menu.items()):
        found = known.get(name)
        told: dict[str, Any] = {"at": None, "text": "…" if found is None else "cannot run"}
        if isinstance(found, Scores):
            told = rank_words(found, layer=layer, filter=filter)
        aware = isinstance(item, Scorer) and "target" in item.reads and study.targets
        words = shortened(item.label if isinstance(item, Scorer) else item.scorer, most=LETTERS)
        rows.append({"place": place, "label": marked(words, study.targets[0].name if aware else "none"), **told})
    return rows


def change_rows(found: Sequence[Case]) -> Rows:
    """The change of accuracy of each domain in points, with its interval."""
    rows = drop_chart_rows(tidy(drop_rows(found), extra=CHANGE_COLUMNS))
    for row in rows:
        row["text"] = f"{row['change']:+.1f}".replace("-", _MINUS) if abs(row["change"]) >= 0.05 else "0.0"
    return [{**row, "place": k, "label": shortened(row["label"], most=22)} for k, row in enumerate(rows)]


def waiting_rows(study: Study) -> Rows:
    """The same before anything is measured."""
    style = domain_styles((d.name, d.role or "source") for d in study.domains)
    nothing = {"change": None, "low": None, "high": None, "text": "…", "looked": ""}
    return [
        {
            "place": k,
            "label": shortened(d.name, most=22),
            **nothing,
            **{part: mark_of(style[d.name])[part] for part in ("colour", "fill", "shape")},
        }
        for k, d in enumerate(labelled(study))
    ]


def ordinal(number: int) -> str:
    """A place in words.

    >>> [ordinal(k) for k in (1, 2, 3, 4, 11, 22, 113)]
    ['1st', '2nd', '3rd', '4th', '11th', '22nd', '113th']
    """
    end = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{end}"


def mask_without(study: Study, held: Attributed, *, layer: str, filter: int) -> Mask:
    """The mask that removes one filter, and those that grouped convolutions tie to it.

    Raises:
        DgpruneError: nothing would be left of the layer.
    """
    group = study.graph[layer]
    gone = (group.units == group.units[filter]).nonzero().flatten().tolist()
    reads = {f"{domain.name}/{held.split}": "labels" for domain in held.pair}
    return Mask.by_hand(study.graph, removed={layer: gone}, reads=reads)


def heading(cell: Mapping[str, Any]) -> dict[str, Any]:
    """The card's first words, from the map's cell: "conv3, filter 17: contributes more on b (d = 0.8, 0.6 to 1.1)"."""
    size = cell["size"].replace(" (", ", ").rstrip(")")
    return _words(f"{cell['group']}, filter {cell['filter']}: {cell['says']} (d = {size})", x=0, y=8, look="name")


def _words(text: str, *, x: float, y: float, look: str = "plain") -> dict[str, Any]:
    return {"x": x, "y": y, "text": text, "look": look}


def _named(domain: Domain) -> str:
    role = f" ({WORDS[domain.role]})" if domain.role in WORDS else ""
    return shortened(domain.name, most=24) + role


def _strongest(held: Attributed, side: int, layer: str, filter: int) -> tuple[Tensor, list[float]]:
    """Row numbers and values of the images with the largest |attribution|."""
    values = held.values[layer][side][:, filter]
    places = values.abs().argsort(descending=True, stable=True)[:PAIRS]
    return held.rows[side][places], values[places].tolist()


def _first_weights(study: Study, group: FilterGroup, filter: int) -> NDArray[np.float64] | None:
    """(channels, kh, kw) weights of a filter that reads the image itself; None for any other."""
    weight = dict(study.model.named_parameters()).get(f"{group.name}.weight")
    first = group.name == study.graph.groups[0].name
    if not first or weight is None or weight.ndim != 4 or weight.shape[1] != study.domains[0].shape[0]:
        return None
    where = next(
        (m for m in group.members if m.tensor == f"{group.name}.weight" and m.axis == 0 and m.side == "out"), None
    )
    if where is None or not bool((where.filters == filter).any()):
        return None
    place = int(where.positions[torch.nonzero(where.filters == filter)[0, 0]])
    return weight[place].detach().double().cpu().numpy()
