"""What the panel "Where features go" finds about one choice: features on a grid of ratios, numbers, and maps."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...charts.feature_shift.map import Dot, boxed
from ...core import DgpruneError, Mask, yielding
from ...diagnostics._features import Features, features_steps
from ...diagnostics.feature_shift import MIN_DIST, NEIGHBOURS, Embedding, number_rows
from ...pruning import allocate
from ...stats import Fit, trustworthiness
from .protocol import View

KNOTS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)
IMAGES = 300
SEED = 0
_LEAST = 30  # images of a domain, however many domains there are
_TRUSTED = 1000  # rows of a map whose neighbours are compared: it takes all pairs of them
_POLL = 0.03  # seconds; the explorer's own work waits as long at most

Key = tuple[Any, ...]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A map in the unit square: its kind, a place per ratio and image (K, N, 2), and how far it can be trusted."""

    kind: Embedding
    places: Floats
    trust: Mapping[str, float]


class FeatureRun:
    """All that is known of one choice of layer, scorer, count and BatchNorm; it lives while the slider moves.

    Attributes:
        held: features at the ratios of `KNOTS`, None before they are there.
        rows: ratio -> rows of numbers, as far as measured.
        maps: "linear" and "umap", as far as drawn.
        problem: why there is no UMAP, in a sentence; empty where there may be one.
        left_out: ratio -> why there are no numbers, in a sentence.
        ticket: how often it was closed; work that began before the last time starts no fit.
    """

    def __init__(self, view: View, layer: str) -> None:
        self.layer, self.held = layer, None
        self.rows: dict[float, list[dict[str, Any]]] = {}
        self.maps: dict[str, Drawn] = {}
        self.problem = ""
        self.left_out: dict[float, str] = {}
        self._item = view.menu[view.mask.scorer]  # held, so that its id stays its own
        self._fit: Fit | None = None
        self.ticket = 0
        self._lock = threading.Lock()

    @staticmethod
    def key(view: View, layer: str) -> Key:
        """What it depends on."""
        mask, batchnorm = view.mask, view.batchnorm if view.study.has_batchnorm else "as_is"
        return view.study.content, layer, mask.scorer, id(view.menu[mask.scorer]), mask.scope, mask.budget, batchnorm

    @property
    def drawing(self) -> tuple[str, float] | None:
        """What the fit is doing and the share of it that is done; None where none runs."""
        fit = self._fit
        return None if fit is None else fit.progress

    def close(self) -> None:
        """End the fit, if one runs; what is known stays."""
        with self._lock:
            self.ticket += 1
            fit, self._fit = self._fit, None
        if fit is not None:
            fit.close()

    def preview(self, view: View) -> Generator[dict[str, Any], None, Features]:
        """Features of the full network and at the present ratio."""
        held = yield from self._features(view, [view.mask])
        return held

    def measure(self, view: View, held: Features, which: int, *, ratio: float) -> None:
        """The numbers at one ratio."""
        try:
            found = number_rows(view.study, held, which=which, seed=SEED)
        except DgpruneError as error:  # the map, and the numbers at other ratios, are still worth showing
            found, self.left_out[ratio] = [], str(error)
        self.rows[ratio] = found

    def grid_steps(self, view: View, *, ticket: int) -> Iterator[bool]:
        """Features, linear map and numbers of the whole grid, and the start of the fit; True where something is new."""
        if self.held is None:
            scores, mask = view.study.score(self._item), view.mask
            masks = [allocate(scores, ratio=ratio, scope=mask.scope, budget=mask.budget) for ratio in KNOTS[1:]]
            held = yield from yielding(self._features(view, masks), False)
            self.maps["linear"] = drawn(held, held.linear(), kind="linear")
            self.held = held
            yield True
        self._start(ticket)
        for k, ratio in enumerate(KNOTS):
            if ratio not in self.rows:
                self.measure(view, self.held, k, ratio=ratio)
                yield True

    def fit_steps(self) -> Iterator[bool]:
        """Wait for the joint map, a moment at a time; True where it is there, or failed."""
        while (fit := self._fit) is not None and not self._is_mapped:
            if not fit.wait(_POLL):
                yield False
                continue
            try:
                assert self.held is not None
                self.maps["umap"] = drawn(self.held, fit.places.astype(np.float64), kind="umap")
            except DgpruneError as error:
                self.problem = str(error)
            self.close()
            yield True

    @property
    def _is_mapped(self) -> bool:
        return "umap" in self.maps or bool(self.problem)

    def _start(self, ticket: int) -> None:
        """Start the fit, unless it runs, is done, or the panel was closed meanwhile."""
        if self._is_mapped or self._fit is not None:
            return
        assert self.held is not None
        try:
            fit = Fit(self.held.stacked, seed=SEED, neighbours=NEIGHBOURS, min_dist=MIN_DIST)
        except DgpruneError as error:
            self.problem = str(error)
            return
        with self._lock:
            if self.ticket == ticket:
                self._fit = fit
                return
        fit.close()

    def _features(self, view: View, masks: list[Mask]) -> Generator[dict[str, Any], None, Features]:
        each = max(_LEAST, IMAGES // len(view.study.domains))
        steps = features_steps(
            view.study, self.layer, masks=masks, batchnorm=view.batchnorm, images=each, split="report"
        )
        held = yield from yielding(steps, {})
        return held


def drawn(held: Features, places: Floats, *, kind: Embedding) -> Drawn:
    """A map of the features, in the unit square."""
    stacked = held.stacked
    chosen = np.random.default_rng(SEED).permutation(len(stacked))[:_TRUSTED]
    found = trustworthiness(stacked[chosen], places[chosen], neighbours=NEIGHBOURS)
    trust = {name: float(getattr(found, name)) for name in ("value", "low", "high")}
    return Drawn(kind, boxed(places.reshape(len(held.masks), -1, 2)), trust)


def dots_of(held: Features) -> list[Dot]:
    """The images of the features, in their order."""
    dots: list[Dot] = []
    for name, rows in held.rows.items():
        labels = held.labels[name]
        classes = [None] * len(rows) if labels is None else [int(label) for label in labels]
        dots += [Dot(name, int(row), label) for row, label in zip(rows, classes, strict=True)]
    return dots
