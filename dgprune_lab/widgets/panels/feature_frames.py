"""The frames of the panel "Feature shift": rows and text made from cached results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...charts.feature_shift.map_rows import Dot, legend_rows, map_words, point_rows
from ...charts.feature_shift.numbers import number_data
from ...charts.pixels.thumbnails import PAGE, Strip, picture_rows
from ...charts.theme import records, role_label
from ...core import Exposure, exposure_of, roles_of, strongest_exposure, tidy
from ...diagnostics.feature_shift import EXTRA
from ...study import Study, mask_provenance
from .domains import class_of, no_pictures, styles_of, thumbnails
from .feature_run import KNOTS, FeatureMap, FeatureRun
from .menu_scores import label
from .protocol import Row, Rows, View


def map_frame(view: View, feature_map: FeatureMap) -> Row:
    """Return the rows of the map: on the grid of ratios if computed, otherwise only full and current network."""
    places, ratio = feature_map.places, None
    if not feature_map.is_grid:
        places = np.concatenate([places[:1], *[places[-1:]] * (len(KNOTS) - 1)])
        ratio = view.mask.ratio_requested
    dots = [replace(dot, name=_name(view.study, dot)) for dot in feature_map.dots]
    points = point_rows(dots, places, styles=styles_of(view.study))
    if not feature_map.is_grid:  # no positions in between, so the points do not move
        points = [{**row, "xs": row["xs"][1:2] * len(KNOTS), "ys": row["ys"][1:2] * len(KNOTS)} for row in points]
    domains: dict[str, tuple[str, Exposure]] = {
        d.name: (d.role or "", _exposure(view, d.name)) for d in view.study.domains
    }
    legend = legend_rows(domains, dots, styles=styles_of(view.study))
    words = map_words(feature_map.kind, feature_map.trust, images=len(dots), only=ratio, knots=KNOTS)
    return {"map": {"points": points, "legend": legend, "words": words}}


def number_frame(view: View, run: FeatureRun) -> Row:
    """Return the rows of the numbers at the ratios of the grid and the current ratio, as far as measured."""
    ratios = sorted({*KNOTS, view.mask.ratio_requested} & set(run.rows))
    table = tidy((row for ratio in ratios for row in run.rows[ratio]), extra=EXTRA)
    return {"numbers": number_data(records(table), [run.layer], styles=styles_of(view.study))}


def text_frame(view: View, run: FeatureRun, feature_map: FeatureMap, *, brushed: int | None) -> Row:
    """Return the text above the charts; `brushed` is the number of images in the rectangle, None without one."""
    names = [dot.domain for dot in feature_map.dots]
    counts = ", ".join(f"{names.count(name):,} of {name}" for name in dict.fromkeys(names))
    hint = "Draw a rectangle on the map to see its images."
    if brushed is not None:
        hint = f"{brushed:,} images lie in the rectangle; {min(brushed, PAGE)} are shown."
    lines = [
        f"Mean output of each filter of {run.layer}, for {len(names):,} images ({counts}). "
        f"Scorer: “{label(view.study, view.scorer)}”.",
        _progress(run),
        f"{hint} Trust the numbers with their intervals; the map only shows where to look.",
    ]
    lines += [f"No numbers at {100 * ratio:.4g} % removed: {why}" for ratio, why in sorted(run.left_out.items())]
    return {"text": "\n".join(lines)}


def picture_frame(view: View, rows: Rows) -> Row:
    """Return pictures of these images, at most 24, shared fairly by the domains."""
    by_domain = {d: [row for row in rows if row["domain"] == d.name] for d in view.study.domains}
    strips: dict[str, list[Strip]] = {}
    for (domain, own), room in zip(by_domain.items(), shares([*map(len, by_domain.values())]), strict=True):
        if not own or no_pictures(domain):
            continue
        some = [own[k] for k in np.linspace(0, len(own) - 1, room).astype(int)]
        urls = thumbnails(domain, torch.tensor([row["image"] for row in some]))
        names = {"truth": "class", "before": "class_full", "now": "class_pruned"}
        pictures = [
            {"url": url, "image": row["image"], **{name: class_of(domain, row[key]) for name, key in names.items()}}
            for url, row in zip(urls, some, strict=True)
        ]
        half = -(-len(pictures) // 2)
        kinds = ("predicted by the full → by the pruned network", ""), (f"{len(pictures)} of {len(own)}", "")
        sides = zip(*kinds, (pictures[:half], pictures[half:]), strict=True)
        strips[domain.name + role_label(domain.role)] = [
            Strip(kind=kind, count=count, pictures=side, total=len(own)) for kind, count, side in sides if side
        ]
    return {"pictures": picture_rows(strips)}


def _name(study: Study, dot: Dot) -> str:
    return "" if dot.label is None else study.domain(dot.domain).class_label(dot.label)


def layer_control(study: Study, layer: str) -> Row:
    """Return the menu of layers."""
    return {"name": "layer", "label": "Layer", "value": layer, "choices": [[name, name] for name in study.graph.names]}


def shares(counts: Sequence[int]) -> list[int]:
    """Return how many images of each domain are shown: all if there is room, otherwise shared equally.

    >>> shares([40, 3, 40])
    [11, 3, 10]
    """
    shown = [0] * len(counts)
    for _ in range(min(PAGE, sum(counts))):
        unfilled = [k for k, count in enumerate(counts) if shown[k] < count]
        shown[min(unfilled, key=lambda k: shown[k])] += 1
    return shown


def _progress(run: FeatureRun) -> str:
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


def _exposure(view: View, domain: str) -> Exposure:
    """The mark of what was seen of a domain, according to the network's provenance and the scorer."""
    study, roles = view.study, roles_of(view.study.domains)
    pruned = mask_provenance(study.provenance, view.mask, batchnorm=view.batchnorm, study=study)
    shared: dict[str, Any] = {"domain": domain, "role": study.domain(domain).role}
    return strongest_exposure(
        exposure_of({**shared, **provenance.columns(domain, "report", roles=roles)})
        for provenance in (study.provenance, pruned)
    )
