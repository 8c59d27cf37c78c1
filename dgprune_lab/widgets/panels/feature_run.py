"""Cached feature-shift results for one choice of settings: numbers and maps on a grid of ratios; a running UMAP fit."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...charts.feature_shift.map_rows import Dot, at_ratio, boxed
from ...core import DgpruneError, Lock, Mask, yielding
from ...diagnostics._features import Features, features_steps
from ...diagnostics.feature_shift import MIN_DIST, NEIGHBOURS, Embedding, number_rows
from ...pruning import allocate
from ...stats import Fit, trustworthiness
from ...study import batchnorm_cell, fingerprint
from .protocol import Frames, Rows, View

KNOTS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)
IMAGES = 300
SEED = 0
_MIN_IMAGES = 30  # per domain, however many domains there are
_TRUST_ROWS = 1000  # rows used for the trustworthiness: its cost is quadratic in them
_POLL = 0.03  # seconds: the longest that other work is delayed

Key = tuple[Any, ...]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMap:
    """A map that places the images in the unit square.

    Attributes:
        kind: "linear" or "umap".
        places: (K, N, 2) position of each image at each ratio.
        trust: the map's trustworthiness, as value, low and high.
        dots: the N images.
        is_grid: whether the K ratios are `KNOTS`; if not, they are 0 and the current ratio.
    """

    kind: Embedding
    places: Floats
    trust: Mapping[str, float]
    dots: list[Dot]
    is_grid: bool

    def at(self, ratio: float) -> Floats:
        """Return the positions (N, 2) of the images at a ratio."""
        return at_ratio(self.places, KNOTS, ratio=ratio) if self.is_grid else self.places[-1]


class FeatureRun:
    """Cached results for one choice of layer, scorer, scope, budget and BatchNorm; kept while the slider moves.

    Attributes:
        features: the features at the ratios of `KNOTS`; None before they are computed.
        rows: ratio -> rows of numbers, as far as measured.
        maps: "linear" and "umap" -> the map, as far as computed.
        problem: why there is no UMAP; "" while one is possible.
        left_out: ratio -> why there are no numbers at this ratio.
        ticket: number of times that `close` was called; a fit requested before the last call is discarded.
    """

    def __init__(self, view: View, layer: str) -> None:
        self.layer = layer
        self.features: Features | None = None
        self.rows: dict[float, Rows] = {}
        self.maps: dict[str, FeatureMap] = {}
        self.problem = ""
        self.left_out: dict[float, str] = {}
        self.ticket = 0
        self._scorer = view.scorer  # keep a reference, so that its id is not reused
        self._fit: Fit | None = None
        self._lock = Lock()

    @staticmethod
    def key(view: View, layer: str) -> Key:
        """Return the cache key: all choices that the results depend on."""
        mask, setting = view.mask, (batchnorm_cell(view.study, view.batchnorm), view.calibration)
        scorer = mask.scorer, fingerprint(view.scorer).key
        return view.study.content, layer, scorer, mask.scope, mask.budget, setting, view.images

    @property
    def progress(self) -> float:
        """The fraction of the fit that is done, 0 to 1; 0 without a fit."""
        fit = self._fit
        return 0.0 if fit is None else fit.progress[1]

    @property
    def map(self) -> FeatureMap | None:
        """The best map computed so far over the whole grid: UMAP, or else linear; None before both."""
        return self.maps.get("umap") or self.maps.get("linear")

    def close(self) -> None:
        """End the fit, if one runs; keep the cached results."""
        with self._lock:
            self.ticket += 1
            fit, self._fit = self._fit, None
        if fit is not None:
            fit.close()

    def measure(self, view: View, features: Features, which: int, *, ratio: float) -> None:
        """Measure the numbers at one ratio, from the features of the mask with the index `which`."""
        try:
            self.rows[ratio] = number_rows(view.study, features, which=which, seed=SEED)
        except DgpruneError as error:  # the map and the numbers at other ratios are still shown
            self.rows[ratio], self.left_out[ratio] = [], str(error)

    def grid_steps(self, view: View, *, ticket: int) -> Iterator[bool]:
        """Compute features, map and numbers at all grid ratios, and start the fit; yield True for a new result."""
        if self.features is None:
            scores, mask = view.study.score(self._scorer), view.mask
            masks = [allocate(scores, ratio=ratio, scope=mask.scope, budget=mask.budget) for ratio in KNOTS[1:]]
            features = yield from yielding(self.compute(view, masks), False)
            self.maps["linear"] = map_of(features, features.linear(), kind="linear", is_grid=True)
            self.features = features
            yield True
        self._start(self.features, ticket)
        for k, ratio in enumerate(KNOTS):
            if ratio not in self.rows:
                self.measure(view, self.features, k, ratio=ratio)
                yield True

    def fit_steps(self) -> Iterator[bool]:
        """Wait for the UMAP fit; yield True when it is done or has failed."""
        while (fit := self._fit) is not None and self.features is not None and not self._is_mapped:
            if not fit.wait(_POLL):
                yield False
                continue
            try:
                places = fit.places.astype(np.float64)
                self.maps["umap"] = map_of(self.features, places, kind="umap", is_grid=True)
            except DgpruneError as error:
                self.problem = str(error)
            self.close()
            yield True

    @property
    def _is_mapped(self) -> bool:
        return "umap" in self.maps or bool(self.problem)

    def _start(self, features: Features, ticket: int) -> None:
        """Start the fit, unless it is running or done, or the panel was closed after the request."""
        if self._is_mapped or self._fit is not None:
            return
        try:
            fit = Fit(features.stacked, seed=SEED, neighbours=NEIGHBOURS, min_dist=MIN_DIST)
        except DgpruneError as error:
            self.problem = str(error)
            return
        with self._lock:
            if self.ticket == ticket:
                self._fit = fit
                return
        fit.close()

    def compute(self, view: View, masks: list[Mask]) -> Generator[Frames, None, Features]:
        """Return the features of the full network and of these masks; yield empty frames meanwhile."""
        images = min(max(_MIN_IMAGES, IMAGES // len(view.study.domains)), view.images or IMAGES)
        options: Any = {"images": images, "split": "report", "calibration": view.calibration}
        options |= {"masks": masks, "batchnorm": view.batchnorm}
        return yielding(features_steps(view.study, self.layer, **options), {})


def map_of(features: Features, places: Floats, *, kind: Embedding, is_grid: bool) -> FeatureMap:
    """Return the map of features, given the positions of their rows."""
    stacked = features.stacked
    sample = np.random.default_rng(SEED).permutation(len(stacked))[:_TRUST_ROWS]
    trust = trustworthiness(stacked[sample], places[sample], neighbours=NEIGHBOURS)
    dots: list[Dot] = []
    for name, rows in features.rows.items():
        labels = features.labels[name]
        classes = [None] * len(rows) if labels is None else [int(label) for label in labels]
        dots += [Dot(name, int(row), label) for row, label in zip(rows, classes, strict=True)]
    return FeatureMap(
        kind=kind,
        places=boxed(places.reshape(len(features.masks), -1, 2)),
        trust={name: float(getattr(trust, name)) for name in ("value", "low", "high")},
        dots=dots,
        is_grid=is_grid,
    )
