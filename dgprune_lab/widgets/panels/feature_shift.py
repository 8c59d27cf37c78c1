"""The panel "Feature shift": a map of features in the full and pruned network, and distances between domains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from ...charts.feature_shift.map import map_chart
from ...charts.feature_shift.map_rows import Dot, legend_rows, map_words, point_rows
from ...charts.feature_shift.numbers import number_chart, number_data
from ...charts.pixels.thumbnails import PAGE, Strip, picture_chart, picture_rows
from ...charts.theme import records, role_label
from ...core import Exposure, exposure_of, roles_of, strongest_exposure, tidy
from ...diagnostics._removal import Case
from ...diagnostics.feature_shift import EXTRA
from ...study import Study, mask_provenance
from .domains import case_frames, class_of, styles_of, thumbnails, why_no_pictures
from .feature_run import KNOTS, FeatureMap, FeatureRun, Key, map_of
from .menu_scores import label
from .protocol import Frames, Panel, Row, Rows, Specs, View, drop_oldest

COLUMNS = ("domain", "image", "class", "class_full", "class_pruned", "full_x", "full_y", "x", "y")
MAX_RUNS = 6  # choices kept in the cache, of about 2 MB each
_PROGRESS_STEP = 0.05  # the smallest increase of a fit's progress that is shown


class FeatureShiftPanel(Panel):
    """A map of the images' features in the full and in the pruned network, and distances between the domains.

    A linear projection is shown at once. In the background, the numbers are measured on a grid of ratios, and then one
    UMAP of the same images at all these ratios is fitted in a separate process. The fit goes on while the slider moves,
    and ends if layer, scorer, scope, budget or BatchNorm changes or the panel is closed. Once it is done, the slider
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
        choices = [[name, name] for name in view.study.graph.names]
        yield {"controls": [{"name": "layer", "label": "Layer", "value": layer, "choices": choices}]}
        run = self._select_run(view, layer)
        self._ticket = run.ticket
        feature_map = run.map
        if feature_map is None:
            features = yield from run.compute(view, [view.mask])
            feature_map = map_of(features, features.linear(), kind="linear", is_grid=False)
        yield {**_map_frame(view, feature_map), **self._text(view, run, feature_map)}
        yield from self._brush_frames(view, run, feature_map)
        ratio = view.mask.ratio_requested
        if ratio not in run.rows or 0.0 not in run.rows:
            features = yield from run.compute(view, [view.mask])
            run.measure(view, features, 0, ratio=0.0)
            if ratio:
                run.measure(view, features, 1, ratio=ratio)
        yield _number_frame(view, run)

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
            frame = {**_number_frame(view, run), **self._text(view, run, run.map)}
            yield frame if had_map else {**frame, **_map_frame(view, run.map)}
            had_map = True
        if run.map is None:
            return
        last_progress = -1.0
        for finished in run.fit_steps():
            if finished or run.progress - last_progress >= _PROGRESS_STEP:
                last_progress = run.progress
                yield self._text(view, run, run.map)
            else:
                yield {}
        if "umap" in run.maps:
            yield {**_map_frame(view, run.map), **self._text(view, run, run.map)}
            yield from self._brush_frames(view, run, run.map)

    def _selected(self, name: str) -> Any:
        return (self.selected or {}).get(name)

    def _text(self, view: View, run: FeatureRun, feature_map: FeatureMap) -> Row:
        names = [dot.domain for dot in feature_map.dots]
        counts = ", ".join(f"{names.count(name):,} of {name}" for name in dict.fromkeys(names))
        hint = "Draw a rectangle on the map to see its images."
        if self._selected("brush"):
            hint = f"{len(self._brushed):,} images lie in the rectangle; {min(len(self._brushed), PAGE)} are shown."
        lines = [
            f"Mean output of each filter of {run.layer}, for {len(names):,} images ({counts}). "
            f"Scorer: “{label(view.study, view.scorer)}”.",
            _describe_progress(run),
            f"{hint} Trust the numbers with their intervals; the map only shows where to look.",
        ]
        lines += [f"No numbers at {100 * ratio:.4g} % removed: {why}" for ratio, why in sorted(run.left_out.items())]
        return {"text": "\n".join(lines)}

    def _select_run(self, view: View, layer: str) -> FeatureRun:
        """Return the cached results for the choice made in the view; end the fit for any other choice."""
        key = FeatureRun.key(view, layer)
        run = self.runs.pop(key, None) or FeatureRun(view, layer)
        self.runs[key] = run
        if self._present is not run:
            self.close()
            self._present = run
        drop_oldest(self.runs, most=MAX_RUNS)
        return run

    def _brush_frames(self, view: View, run: FeatureRun, feature_map: FeatureMap) -> Iterator[Frames]:
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
            dot, points = feature_map.dots[k], zip(("full_x", "full_y", "x", "y"), (*full[k], *places[k]), strict=True)
            predicted = _predicted_classes(cases[dot.domain], dot.image)
            row = {"domain": dot.domain, "image": dot.image, "class": dot.label, **predicted}
            self._brushed.append({**row, **{name: float(value) for name, value in points}})
        yield {**_picture_frame(view, self._brushed), **self._text(view, run, feature_map)}


def _predicted_classes(case: Case, image: int) -> Row:
    position = int((case.before.index == image).nonzero()[0])
    return {"class_full": int(case.before.predicted[position]), "class_pruned": int(case.predicted[position])}


def _map_frame(view: View, feature_map: FeatureMap) -> Row:
    """Return the map's rows: for all ratios of the grid if computed, otherwise for the full and the current network."""
    places, ratio = feature_map.places, None
    if not feature_map.is_grid:
        places = np.concatenate([places[:1], *[places[-1:]] * (len(KNOTS) - 1)])
        ratio = view.mask.ratio_requested
    dots = [replace(dot, name=_class_name(view.study, dot)) for dot in feature_map.dots]
    points = point_rows(dots, places, styles=styles_of(view.study))
    if not feature_map.is_grid:  # no positions in between, so the points do not move
        points = [{**row, "xs": row["xs"][1:2] * len(KNOTS), "ys": row["ys"][1:2] * len(KNOTS)} for row in points]
    legend = legend_rows(_exposures(view), dots, styles=styles_of(view.study))
    lines = map_words(feature_map.kind, feature_map.trust, images=len(dots), only=ratio, knots=KNOTS)
    return {"map": {"points": points, "legend": legend, "words": lines}}


def _number_frame(view: View, run: FeatureRun) -> Row:
    """Return the rows of the numbers at the ratios of the grid and the current ratio, as far as measured."""
    ratios = sorted({*KNOTS, view.mask.ratio_requested} & set(run.rows))
    table = tidy((row for ratio in ratios for row in run.rows[ratio]), extra=EXTRA)
    return {"numbers": number_data(records(table), [run.layer], styles=styles_of(view.study))}


def _picture_frame(view: View, rows: Rows) -> Row:
    """Return pictures of these images, at most 24, shared equally among the domains."""
    by_domain = {domain: [row for row in rows if row["domain"] == domain.name] for domain in view.study.domains}
    strips: dict[str, list[Strip]] = {}
    for (domain, images), room in zip(by_domain.items(), shares([*map(len, by_domain.values())]), strict=True):
        if not images or why_no_pictures(domain):
            continue
        sampled = [images[k] for k in np.linspace(0, len(images) - 1, room).astype(int)]
        urls = thumbnails(domain, torch.tensor([row["image"] for row in sampled]))
        names = {"truth": "class", "before": "class_full", "now": "class_pruned"}
        pictures = [
            {"url": url, "image": row["image"], **{name: class_of(domain, row[key]) for name, key in names.items()}}
            for url, row in zip(urls, sampled, strict=True)
        ]
        half = -(-len(pictures) // 2)
        kinds = ("predicted by the full → by the pruned network", ""), (f"{len(pictures)} of {len(images)}", "")
        sides = zip(*kinds, (pictures[:half], pictures[half:]), strict=True)
        strips[domain.name + role_label(domain.role)] = [
            Strip(kind=kind, count=count, pictures=side, total=len(images)) for kind, count, side in sides if side
        ]
    return {"pictures": picture_rows(strips)}


def _class_name(study: Study, dot: Dot) -> str:
    return "" if dot.label is None else study.domain(dot.domain).class_label(dot.label)


def shares(counts: Sequence[int]) -> list[int]:
    """Return how many images of each domain are shown: all if there is room, otherwise shared equally.

    >>> shares([40, 3, 40])
    [11, 3, 10]
    """
    allotted = [0] * len(counts)
    for _ in range(min(PAGE, sum(counts))):
        unfilled = [k for k, count in enumerate(counts) if allotted[k] < count]
        allotted[min(unfilled, key=lambda k: allotted[k])] += 1
    return allotted


def _describe_progress(run: FeatureRun) -> str:
    if run.features is None:
        return "First a linear projection; the features at further ratios follow."
    if "umap" in run.maps:
        count, images = run.maps["umap"].places.shape[:2]
        ratios = ", ".join(f"{100 * knot:.4g}" for knot in KNOTS)
        return f"One map of {count * images:,} rows: the same {images:,} images at {ratios} % removed."
    if run.problem:
        return f"No UMAP: {run.problem}"
    measured = len(set(KNOTS) & set(run.rows))
    numbers = "" if measured == len(KNOTS) else f" Numbers: {measured} of {len(KNOTS)} ratios."
    return f"Fitting the map: {100 * run.progress:.0f} %.{numbers}"


def _exposures(view: View) -> dict[str, tuple[str, Exposure]]:
    """Return domain -> its role and exposure, judged from the provenances of the network and the mask."""
    study, roles = view.study, roles_of(view.study.domains)
    provenances = study.provenance, mask_provenance(study.provenance, view.mask, batchnorm=view.batchnorm, study=study)
    exposures: dict[str, tuple[str, Exposure]] = {}
    for domain in study.domains:
        shared: dict[str, Any] = {"domain": domain.name, "role": domain.role}
        columns = ({**shared, **each.columns(domain.name, "report", roles=roles)} for each in provenances)
        exposures[domain.name] = str(domain.role), strongest_exposure(map(exposure_of, columns))
    return exposures
