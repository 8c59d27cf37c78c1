"""The panel "Feature shift": a map of the images' features, full and pruned, and distances between the domains."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ...charts.feature_shift.map import map_chart
from ...charts.feature_shift.numbers import number_chart
from ...charts.pixels.thumbnails import picture_chart
from ...diagnostics._removal import Case
from .domains import case_frames
from .feature_frames import layer_control, map_frame, number_frame, picture_frame, text_frame
from .feature_run import KNOTS, FeatureMap, FeatureRun, Key, map_of
from .protocol import Frames, Panel, Row, Rows, Specs, View, drop_oldest

COLUMNS = ("domain", "image", "class", "class_full", "class_pruned", "full_x", "full_y", "x", "y")
MAX_RUNS = 6  # choices kept in the cache, of about 2 MB each
_STEP = 0.05  # of a fit's progress that is shown


class FeatureShiftPanel(Panel):
    """A map of the images' features in the full and in the pruned network, and how far apart the domains are.

    A linear projection is shown at once. In the background, the numbers are measured on a grid of ratios, and then one
    UMAP of the same images at all these ratios is computed in a separate process. It continues while the slider moves,
    and ends if layer, scorer, scope, budget or BatchNorm change or the panel is closed. When it is done, the slider
    moves the points along straight lines between the measured ratios. A rectangle drawn on the map selects images: see
    `brushed`.

    Attributes:
        runs: choice -> cached results, the current choice last.
    """

    name, label = "features", "Feature shift"
    charts: Any = Specs(
        {"map": partial(map_chart, knots=KNOTS, at=0.5), "numbers": number_chart, "pictures": picture_chart}
    )

    def __init__(self) -> None:
        self.runs: dict[Key, FeatureRun] = {}
        self._present: FeatureRun | None = None
        self._ticket = 0
        self._brushed: Rows = []

    @property
    def brushed(self) -> pd.DataFrame:
        """A table of the images in the rectangle drawn on the map, one per row; empty without a rectangle.

        Columns: domain, image (row number in the domain), class, class_full and class_pruned (predicted by the full
        and by the pruned network), full_x, full_y, x and y (positions on the map's unit square, without a unit).
        """
        integers = {name: "Int64" for name in COLUMNS if name == "image" or name.startswith("class")}
        return pd.DataFrame(self._brushed, columns=pd.Index(COLUMNS)).astype(integers)

    def close(self) -> None:
        """End the running fit; keep the maps."""
        if self._present is not None:
            self._present.close()

    def tick(self, view: View) -> Iterator[Frames]:
        """Yield frames: the map as far as computed, the images in the rectangle, and the numbers at this ratio."""
        layer = self._selected("layer") or view.study.graph.names[-1]
        yield {"controls": [layer_control(view.study, layer)]}
        run = self._turn_to(view, layer)
        self._ticket = run.ticket
        feature_map = run.map
        if feature_map is None:
            features = yield from run.compute(view, [view.mask])
            feature_map = map_of(features, features.linear(), kind="linear", is_grid=False)
        yield {**map_frame(view, feature_map), **self._text(view, run, feature_map)}
        yield from self._brush(view, run, feature_map)
        ratio = view.mask.ratio_requested
        if ratio not in run.rows or 0.0 not in run.rows:
            features = yield from run.compute(view, [view.mask])
            run.measure(view, features, 0, ratio=0.0)
            if ratio:
                run.measure(view, features, 1, ratio=ratio)
        yield number_frame(view, run)

    def background(self, view: View) -> Iterator[Frames]:
        """Yield frames with the numbers on the grid of ratios, then with the map of all ratios."""
        run = self._present
        if run is None:
            return
        had_map = run.map is not None
        for new in run.grid_steps(view, ticket=self._ticket):
            if not new or run.map is None:
                yield {}
                continue
            frame = {**number_frame(view, run), **self._text(view, run, run.map)}
            yield frame if had_map else {**frame, **map_frame(view, run.map)}
            had_map = True
        if run.map is None:
            return
        shown = -1.0
        for finished in run.fit_steps():
            if finished or run.progress - shown >= _STEP:
                shown = run.progress
                yield self._text(view, run, run.map)
            else:
                yield {}
        if "umap" in run.maps:
            yield {**map_frame(view, run.map), **self._text(view, run, run.map)}
            yield from self._brush(view, run, run.map)

    def _selected(self, name: str) -> Any:
        return (self.selected or {}).get(name)

    def _text(self, view: View, run: FeatureRun, feature_map: FeatureMap) -> Row:
        return text_frame(view, run, feature_map, brushed=len(self._brushed) if self._selected("brush") else None)

    def _turn_to(self, view: View, layer: str) -> FeatureRun:
        """Return the cached results of the view's choice; end the fit of any other choice."""
        key = FeatureRun.key(view, layer)
        run = self.runs.pop(key, None) or FeatureRun(view, layer)
        self.runs[key] = run
        if self._present is not run:
            self.close()
            self._present = run
        drop_oldest(self.runs, most=MAX_RUNS)
        return run

    def _brush(self, view: View, run: FeatureRun, feature_map: FeatureMap) -> Iterator[Frames]:
        """Find the images in the rectangle, for `brushed`, and yield them as pictures."""
        brush = self._selected("brush")
        if not brush:
            self._brushed = []
            yield {"pictures": {"pictures": [], "words": []}}
            return
        full, places = feature_map.places[0], feature_map.at(view.mask.ratio_requested)
        inside = np.ones(len(places), dtype=bool)
        for axis, name in enumerate("xy"):
            if brush.get(name) is not None:
                low, high = brush[name]
                inside &= (places[:, axis] >= low) & (places[:, axis] <= high)
        measured = yield from case_frames(view, view.mask, view.study.domains)
        cases = {case.domain.name: case for case in measured}
        self._brushed = []
        for k in np.flatnonzero(inside):
            dot, spots = feature_map.dots[k], zip(("full_x", "full_y", "x", "y"), (*full[k], *places[k]), strict=True)
            predicted = _predicted(cases[dot.domain], dot.image)
            row = {"domain": dot.domain, "image": dot.image, "class": dot.label, **predicted}
            self._brushed.append({**row, **{name: float(value) for name, value in spots}})
        yield {**picture_frame(view, self._brushed), **self._text(view, run, feature_map)}


def _predicted(case: Case, image: int) -> Row:
    at = int((case.before.index == image).nonzero()[0])
    return {"class_full": int(case.before.predicted[at]), "class_pruned": int(case.predicted[at])}
