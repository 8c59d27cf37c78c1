"""The panel "Layer by layer": each layer pruned alone, and which one cannot bear it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any

from ...charts import domain_styles
from ...charts.drop import CAPTION, span_rows
from ...charts.layers import known, layer_rows, layers_chart, placed, waiting
from ...core import Domain, Mask, tidy, yielding
from ...diagnostics._removal import Removal, alone, case_steps
from ...diagnostics.drop import EXTRA, drop_rows
from ...pruning import allocate
from ...study import Study
from .labels import label
from .protocol import ESTIMATE_IMAGES, Frames, View

_BATCHNORM = {"as_is": "BatchNorm as it is", "recalibrate": "BatchNorm refreshed"}
_MINUS = "\N{MINUS SIGN}"
_KEPT = 2000  # results remembered, of some kilobytes each

Key = tuple[Any, ...]


class LayersPanel:
    """What every domain loses at once when one layer alone loses the explorer's share of its filters.

    An estimate from 250 images of each domain comes first, layer by layer, then all images in the background.
    """

    name, label = "layers", "Layer by layer"

    def __init__(self) -> None:
        self.charts: Mapping[str, dict[str, Any]] = {"layers": layers_chart().to_dict()}
        self.selected: Any = None
        self._found: dict[Key, list[dict[str, Any]]] = {}

    def unavailable(self, study: Study) -> str | None:
        """Where no domain has labels."""
        if any(domain.labels is not None for domain in study.domains):
            return None
        return "no domain has labels, so nobody can tell what a layer costs."

    def tick(self, view: View) -> Iterator[Frames]:
        """What is known, then an estimate of every layer."""
        asked, masks = _asked(view)
        yield self._frames(view, masks)
        for layer, mask in masks.items():
            if any(self._rows(view, layer, mask, domain) is None for domain in _domains(view)):
                yield from self._measure(view, layer, mask, asked=asked, images=ESTIMATE_IMAGES)
                yield self._frames(view, masks)

    def background(self, view: View) -> Iterator[Frames]:
        """All images, layer by layer."""
        asked, masks = _asked(view)
        for layer, mask in masks.items():
            yield from self._measure(view, layer, mask, asked=asked, images=None)
            yield self._frames(view, masks)

    def _measure(
        self, view: View, layer: str, mask: Mask, *, asked: Removal, images: int | None
    ) -> Generator[Frames, None, None]:
        """One layer on every domain; yields nothing new between batches."""
        for domain in _domains(view):
            small = len(domain.rows(asked.split)) <= ESTIMATE_IMAGES
            key = _key(view, layer, mask, domain, None if small else images)
            if key in self._found:
                continue
            budget = Removal(asked.scorers, asked.ratios, batchnorm=asked.batchnorm, images=key[-1], one_layer=True)
            steps = case_steps(view.study, mask, domain=domain, asked=budget, group=layer)
            self._found[key] = drop_rows([(yield from yielding(steps, {}))])
        while len(self._found) > _KEPT:
            del self._found[next(iter(self._found))]

    def _rows(self, view: View, layer: str, mask: Mask, domain: Domain) -> tuple[list[dict[str, Any]], bool] | None:
        """The best that is known, and whether it is an estimate."""
        for images in (None, ESTIMATE_IMAGES):
            rows = self._found.get(_key(view, layer, mask, domain, images))
            if rows is not None:
                return rows, images is not None
        return None

    def _frames(self, view: View, masks: Mapping[str, Mask]) -> Frames:
        """The chart's rows, those not known yet empty, and the words above."""
        domains, style = _domains(view), domain_styles((d.name, d.role or "source") for d in view.study.domains)
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        rough: set[tuple[str, str]] = set()
        for layer, mask in masks.items():
            for domain in domains:
                held = self._rows(view, layer, mask, domain)
                if held is not None:
                    found[layer, domain.name] = held[0]
                    rough |= {(layer, domain.name)} if held[1] else set()
        frame = tidy((row for rows in found.values() for row in rows), extra=EXTRA)
        ready = {(row["layer"], row["domain"]): row for row in layer_rows(frame, estimates=rough, style=style)}
        rows = placed(
            [
                ready[layer, d.name] if (layer, d.name) in ready else waiting(layer, domain=d.name, look=style[d.name])
                for layer in masks
                for d in domains
            ]
        )
        text = "\n".join(
            [_about(view), *_worst(rows, [d.name for d in domains]), *_marked(rows, len(masks), rough=bool(rough))]
        )
        return {"layers": {"layers": rows, "span": span_rows(known(rows))}, "text": text}


def _asked(view: View) -> tuple[Removal, dict[str, Mask]]:
    """What is asked for, and the mask of each layer alone, in the order of execution."""
    item, ratio = view.menu[view.mask.scorer], view.mask.ratio_requested
    mask = allocate(view.study.score(item), ratio=ratio)
    masks = {layer: alone(mask, layer) for layer in view.study.graph.names}
    return Removal([item], [ratio], batchnorm=view.batchnorm, one_layer=True), masks


def _domains(view: View) -> list[Domain]:
    return [domain for domain in view.study.domains if domain.labels is not None]


def _key(view: View, layer: str, mask: Mask, domain: Domain, images: int | None) -> Key:
    batchnorm = view.batchnorm if view.study.has_batchnorm else "as_is"
    # The scorer too: two of them may remove the same filters, and one of them have looked at a target.
    choice = mask.key, mask.scorer, repr(mask.reads), mask.ratio_requested
    return view.study.content, layer, choice, batchnorm, domain.name, images


def _about(view: View) -> str:
    share = f"{100 * view.mask.ratio_requested:.4g} % of the filters of one layer alone, all others whole"
    return f"“{label(view.study, view.menu[view.mask.scorer])}”: {share}; {_BATCHNORM[view.batchnorm]}. {CAPTION}"


def _worst(rows: list[dict[str, Any]], domains: list[str]) -> list[str]:
    """Which layer bears it least, per domain, once all layers are known."""
    parts = []
    for domain in domains:
        mine = [row for row in rows if row["domain"] == domain]
        if any(row["change"] is None for row in mine) or not mine:
            continue
        least = min(mine, key=lambda row: row["change"])
        ends = f"{least['low']:.1f} to {least['high']:.1f}".replace("-", _MINUS)
        clear = f"{least['layer']} ({least['text']} points, {ends})" if least["high"] < 0 else "no layer clearly"
        parts.append(f"{domain}: {clear}")
    return [f"Bears it least, by domain: {'; '.join(parts)}."] if parts else []


def _marked(rows: list[dict[str, Any]], layers: int, *, rough: bool) -> list[str]:
    """What is an estimate, and what is still to come."""
    waits = len({row["layer"] for row in rows if row["change"] is None})
    said = []
    if rough:
        said.append(f"~ and pale: an estimate from {ESTIMATE_IMAGES} images of a domain; all images follow.")
    if waits:
        said.append(f"Measuring {layers - waits} of {layers} layers.")
    return [" ".join(said)] if said else ["All images."]
