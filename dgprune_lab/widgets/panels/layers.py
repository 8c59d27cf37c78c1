"""The panel "Layer sensitivity": the accuracy change when each layer alone is pruned, and the worst layer."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...charts.drop import CAPTION, span_rows
from ...charts.layers import known, layer_rows, layers_chart, placed, waiting
from ...charts.theme import with_minus
from ...core import Domain, Mask, batchnorm_words, rounded, tidy, yielding
from ...diagnostics._removal import case_steps, only_layer
from ...diagnostics.drop import EXTRA, drop_rows
from ...pruning import allocate
from ...study import Study, batchnorm_cell
from .domains import labelled, removal_of, styles_of, why_no_accuracy
from .menu_scores import label
from .protocol import ESTIMATE_IMAGES, Frames, Panel, Rows, Specs, View, drop_oldest

_MAX_CACHED = 2000  # results of a few kilobytes each

Key = tuple[Any, ...]


class LayersPanel(Panel):
    """The accuracy change of every domain when one layer alone is pruned at the explorer's ratio.

    It is estimated first from 250 images of each domain, layer by layer, then measured on the explorer's images in the
    background.
    """

    name, label = "layers", "Layer sensitivity"
    charts: Any = Specs({"layers": layers_chart})

    def __init__(self) -> None:
        self._rows: dict[Key, Rows] = {}

    def unavailable(self, study: Study) -> str | None:
        """Return why the panel cannot be shown (no domain has labels), or None."""
        return why_no_accuracy(study)

    def tick(self, view: View) -> Iterator[Frames]:
        """Yield frames: the cached results, then an estimate for every layer."""
        masks = _single_layer_masks(view)
        yield self._frame(view, masks)
        for layer, mask in masks.items():
            if any(self._find_best(view, mask, layer=layer, domain=domain) is None for domain in labelled(view.study)):
                yield from self._measure(view, mask, layer=layer, images=ESTIMATE_IMAGES)
                yield self._frame(view, masks)

    def background(self, view: View) -> Iterator[Frames]:
        """Yield frames measured on all images of the explorer, layer by layer."""
        masks = _single_layer_masks(view)
        for layer, mask in masks.items():
            yield from self._measure(view, mask, layer=layer, images=view.images)
            yield self._frame(view, masks)

    def _measure(self, view: View, mask: Mask, *, layer: str, images: int | None) -> Generator[Frames, None, None]:
        """Measure one layer on every domain; yield empty frames between batches."""
        removal = removal_of(view)
        for domain in labelled(view.study):
            limit = view.images if len(domain.rows(removal.split, view.images)) <= ESTIMATE_IMAGES else images
            key = _cache_key(view, mask, layer=layer, domain=domain, images=limit)
            if key not in self._rows:
                steps = case_steps(view.study, mask, domain=domain, removal=replace(removal, images=limit), group=layer)
                self._rows[key] = drop_rows([(yield from yielding(steps, {}))])
        drop_oldest(self._rows, most=_MAX_CACHED)

    def _find_best(self, view: View, mask: Mask, *, layer: str, domain: Domain) -> tuple[Rows, bool] | None:
        """Return the best cached rows of a layer and domain, and whether they are an estimate."""
        for images in (view.images, ESTIMATE_IMAGES):
            if (rows := self._rows.get(_cache_key(view, mask, layer=layer, domain=domain, images=images))) is not None:
                return rows, images != view.images
        return None

    def _frame(self, view: View, masks: Mapping[str, Mask]) -> Frames:
        """Return the chart's rows, empty where not measured yet, and the text above the chart."""
        domains, styles = labelled(view.study), styles_of(view.study)
        cells = {
            (layer, domain.name): self._find_best(view, mask, layer=layer, domain=domain)
            for layer, mask in masks.items()
            for domain in domains
        }
        estimates = {cell for cell, best in cells.items() if best is not None and best[1]}
        table = tidy((row for best in cells.values() if best for row in best[0]), extra=EXTRA)
        ready = {(row["layer"], row["domain"]): row for row in layer_rows(table, estimates=estimates, styles=styles)}
        blank = {(layer, name): waiting(layer, domain=name, style=styles[name]) for layer, name in cells}
        rows = placed([ready.get(cell, blank[cell]) for cell in cells])
        lines = [_caption(view), *_worst_layers(rows, domains), _progress_text(view, rows, estimates=bool(estimates))]
        return {"layers": {"layers": rows, "span": span_rows(known(rows))}, "text": "\n".join(lines)}


def _single_layer_masks(view: View) -> dict[str, Mask]:
    """Return layer -> the mask that prunes this layer alone, in the order of execution."""
    mask = allocate(view.study.score(view.scorer), ratio=view.mask.ratio_requested)
    return {layer: only_layer(mask, layer) for layer in view.study.graph.names}


def _cache_key(view: View, mask: Mask, *, layer: str, domain: Domain, images: int | None) -> Key:
    batchnorm = batchnorm_cell(view.study, view.batchnorm)
    # With the scorer: of two scorers that remove the same filters, perhaps only one has read a target.
    choice = mask.key, mask.scorer, repr(mask.reads), mask.ratio_requested
    return view.study.content, layer, choice, batchnorm, view.calibration, domain.name, images


def _caption(view: View) -> str:
    share = f"{100 * view.mask.ratio_requested:.4g} % of the filters of one layer alone, all other layers complete"
    setting = batchnorm_words([batchnorm_cell(view.study, view.batchnorm)])
    return f"“{label(view.study, view.scorer)}”: {share}{'; ' * bool(setting)}{setting}. {CAPTION}"


def _worst_layers(rows: Rows, domains: list[Domain]) -> list[str]:
    """Return a line naming, for each domain whose layers are all measured, the layer with the largest accuracy loss."""
    parts = []
    for domain in domains:
        domain_rows = [row for row in rows if row["domain"] == domain.name]
        if not domain_rows or any(row["change"] is None for row in domain_rows):
            continue
        worst = min(domain_rows, key=lambda row: row["change"])
        ends = with_minus(" to ".join(f"{rounded(worst[end], 1):.1f}" for end in ("low", "high")))
        layer = f"{worst['layer']} ({worst['text']} points, {ends})" if worst["high"] < 0 else "no layer significantly"
        parts.append(f"{domain.name}: {layer}")
    return [f"Most sensitive, by domain: {'; '.join(parts)}."] if parts else []


def _progress_text(view: View, rows: Rows, *, estimates: bool) -> str:
    """Return which results are estimates or still missing, as text."""
    missing, layers = len({row["layer"] for row in rows if row["change"] is None}), len(view.study.graph.names)
    parts = [f"~ and pale: an estimate from {ESTIMATE_IMAGES} images of a domain; {view.measured} follow."] * estimates
    parts += [f"Measuring {layers - missing} of {layers} layers."] * bool(missing)
    return " ".join(parts) or f"{view.measured[0].upper()}{view.measured[1:]}."
