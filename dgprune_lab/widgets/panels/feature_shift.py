"""The panel "Where features go": a map of the images' features, full and pruned, and how far apart the domains are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from ...charts import domain_styles
from ...charts.feature_shift.map import Dot, at_ratio, legend_rows, map_chart, map_words, point_rows
from ...charts.feature_shift.numbers import number_chart, number_data
from ...charts.pixels.thumbnails import Strip, data_url, picture_chart, picture_rows
from ...charts.theme import WORDS, records
from ...core import Exposure, exposure_of, roles_of, strongest_exposure, tidy, yielding
from ...diagnostics._features import Features
from ...diagnostics._removal import Case, Removal, case_steps
from ...diagnostics.feature_shift import EXTRA
from ...study import Study, mask_provenance
from .feature_run import KNOTS, Drawn, FeatureRun, Key, dots_of, drawn
from .labels import label
from .protocol import Frames, View

PICTURES = 24
COLUMNS = ("domain", "image", "class", "read_full", "read_pruned", "full_x", "full_y", "x", "y")
_KEPT = 6  # choices remembered, of about 2 MB each
_STEP = 0.05  # of a fit's progress that is told

Rows = list[dict[str, Any]]


class FeatureShiftPanel:
    """Where each image's features lie in the full and in the pruned network, and how far apart the domains are.

    A linear projection is there at once. In the background come the numbers on a grid of ratios and then one UMAP of
    the same images at all of them, made in a process of its own: it goes on while the slider moves, and ends when the
    layer, the scorer, the count or BatchNorm changes, or the panel is closed. From then on the slider moves the points
    along straight lines between the measured ratios. A rectangle drawn on the map picks images: see `brushed`.
    """

    name, label = "features", "Where features go"

    def __init__(self) -> None:
        self.charts: Mapping[str, dict[str, Any]] = {
            "map": map_chart(knots=KNOTS, at=0.5).to_dict(),
            "numbers": number_chart().to_dict(),
            "pictures": picture_chart().to_dict(),
        }
        self.selected: Any = None
        self._runs: OrderedDict[Key, FeatureRun] = OrderedDict()
        self._present: FeatureRun | None = None
        self._ticket = 0
        self._brushed: Rows = []

    @property
    def brushed(self) -> pd.DataFrame:
        """The images in the rectangle drawn on the map, one per row; none without a rectangle.

        Columns: domain, image (row number in the domain), class, read_full and read_pruned (the class that the full and
        the pruned network read), full_x, full_y, x and y (places on the map, in its unit square; of no meaning).
        """
        whole = {"image": "Int64", "class": "Int64", "read_full": "Int64", "read_pruned": "Int64"}
        return pd.DataFrame(self._brushed, columns=pd.Index(COLUMNS)).astype(whole)

    def unavailable(self, study: Study) -> str | None:
        """Never: every network has a layer, and every domain features."""
        return None

    def close(self) -> None:
        """End the fit that runs; what is drawn stays known."""
        run = self._present
        if run is not None:
            run.close()

    def tick(self, view: View) -> Iterator[Frames]:
        """The map as far as it is known, then the images in the rectangle, then the numbers at this ratio."""
        layer = (self.selected or {}).get("layer") or view.study.graph.names[-1]
        yield {"controls": [_layers(view.study, layer)]}
        run = self._turn(view, layer)
        self._ticket = run.ticket
        held, shown = run.held, run.maps.get("umap") or run.maps.get("linear")
        if held is None or shown is None:
            held = yield from run.preview(view)
            shown = drawn(held, held.linear(), kind="linear")
        yield {**self._map(view, run, held, shown), **self._told(view, run, held)}
        yield from self._pick(view, run, held, shown)
        ratio = view.mask.ratio_requested
        if ratio not in run.rows or 0.0 not in run.rows:
            present = yield from run.preview(view)
            run.measure(view, present, 0, ratio=0.0)
            if ratio:
                run.measure(view, present, 1, ratio=ratio)
        yield self._numbers(view, run)

    def background(self, view: View) -> Iterator[Frames]:
        """Features and numbers on the grid of ratios, then the map of them all."""
        run = self._present
        if run is None:
            return
        known = len(run.rows), len(run.maps)
        for _ in run.grid_steps(view, ticket=self._ticket):
            now = len(run.rows), len(run.maps)
            if now == known or run.held is None:
                yield {}
                continue
            frame = {**self._numbers(view, run), **self._told(view, run, run.held)}
            if now[1] != known[1]:
                frame = {**frame, **self._map(view, run, run.held, run.maps["linear"])}
            known = now
            yield frame
        held, last = run.held, -1.0
        if held is None:
            return
        for over in run.fit_steps():
            share = (run.drawing or ("", 0.0))[1]
            if not over and share - last < _STEP:
                yield {}
                continue
            last = share
            yield self._told(view, run, held)
        if "umap" in run.maps:
            shown = run.maps["umap"]
            yield {**self._map(view, run, held, shown), **self._told(view, run, held)}
            yield from self._pick(view, run, held, shown)

    def _turn(self, view: View, layer: str) -> FeatureRun:
        """What is known of this choice; the fit of another one ends."""
        key = FeatureRun.key(view, layer)
        run = self._runs.pop(key, None) or FeatureRun(view, layer)
        self._runs[key] = run
        if self._present is not run:
            self.close()
            self._present = run
        while len(self._runs) > _KEPT:
            self._runs.popitem(last=False)
        return run

    def _map(self, view: View, run: FeatureRun, held: Features, shown: Drawn) -> dict[str, Any]:
        """The chart's rows: on the grid where it is known, else full and present alone."""
        alone = run.held is None
        dots, style = dots_of(held), _style(view.study)
        places = (
            shown.places if not alone else np.concatenate([shown.places[:1], *[shown.places[-1:]] * (len(KNOTS) - 1)])
        )
        points = point_rows(dots, places, domain_styles=style)
        if alone:
            points = [{**row, "xs": row["xs"][1:2] * len(KNOTS), "ys": row["ys"][1:2] * len(KNOTS)} for row in points]
        ratio = view.mask.ratio_requested if alone else None
        domains: dict[str, tuple[str, Exposure]] = {
            d.name: (d.role or "", _sight(view, d.name)) for d in view.study.domains
        }
        return {
            "map": {
                "points": points,
                "legend": legend_rows(domains, [dot.label for dot in dots], domain_styles=style),
                "words": map_words(shown.kind, shown.trust, images=len(dots), only=ratio, knots=KNOTS),
            }
        }

    def _numbers(self, view: View, run: FeatureRun) -> dict[str, Any]:
        ratios = sorted({*KNOTS, view.mask.ratio_requested} & set(run.rows))
        frame = tidy((row for ratio in ratios for row in run.rows[ratio]), extra=EXTRA)
        return {"numbers": number_data(records(frame), [run.layer], style=_style(view.study))}

    def _told(self, view: View, run: FeatureRun, held: Features) -> dict[str, str]:
        """The words above the charts."""
        each = ", ".join(f"{len(rows):,} of {name}" for name, rows in held.rows.items())
        choice = label(view.study, view.menu[view.mask.scorer])
        asked = "Draw a rectangle on the map to see its images. "
        if (self.selected or {}).get("brush"):
            count = len(self._brushed)
            asked = f"{count:,} images lie in the rectangle; {min(count, PICTURES)} are shown. "
        lines = [
            f"Mean output of each filter of {run.layer}, for {sum(map(len, held.rows.values())):,} images ({each}). "
            f"Choice: “{choice}”.",
            _state(run),
            f"{asked}Believe a number with its interval; the map only says where to look.",
        ]
        lines += [f"No numbers at {100 * ratio:.4g} % removed: {why}" for ratio, why in sorted(run.left_out.items())]
        return {"text": "\n".join(lines)}

    def _pick(self, view: View, run: FeatureRun, held: Features, shown: Drawn) -> Iterator[Frames]:
        """The images in the rectangle, as pictures and for `brushed`."""
        brush = (self.selected or {}).get("brush")
        if not brush:
            self._brushed = []
            yield {"pictures": {"pictures": [], "words": []}}
            return
        places = shown.places[-1] if run.held is None else at_ratio(shown.places, KNOTS, view.mask.ratio_requested)
        inside = np.ones(len(places), dtype=bool)
        for axis, name in enumerate("xy"):
            if brush.get(name) is not None:
                low, high = brush[name]
                inside &= (places[:, axis] >= low) & (places[:, axis] <= high)
        dots, asked = dots_of(held), Removal((), (), batchnorm=view.batchnorm)
        cases: dict[str, Case] = {}
        for domain in view.study.domains:
            cases[domain.name] = yield from yielding(case_steps(view.study, view.mask, domain=domain, asked=asked), {})
        found = [(dots[k], shown.places[0][k], places[k]) for k in np.flatnonzero(inside)]
        self._brushed = [_row(dot, full, place, cases[dot.domain]) for dot, full, place in found]
        yield {"pictures": _pictures(view, self._brushed), **self._told(view, run, held)}


def _row(dot: Dot, full: Any, place: Any, case: Case) -> dict[str, Any]:
    at = int((case.before.index == dot.image).nonzero()[0])
    return {
        "domain": dot.domain,
        "image": dot.image,
        "class": dot.label,
        "read_full": int(case.before.predicted[at]),
        "read_pruned": int(case.predicted[at]),
        "full_x": float(full[0]),
        "full_y": float(full[1]),
        "x": float(place[0]),
        "y": float(place[1]),
    }


def _pictures(view: View, rows: Rows) -> dict[str, Rows]:
    """At most 24 pictures, as many of each domain as there is room for."""
    by_domain = {d: [row for row in rows if row["domain"] == d.name] for d in view.study.domains}
    taken = _shares([len(found) for found in by_domain.values()])
    strips: dict[str, list[Strip]] = {}
    for (domain, found), room in zip(by_domain.items(), taken, strict=True):
        if not found or domain.shape[0] not in (1, 3, 4):
            continue
        some = [found[k] for k in np.linspace(0, len(found) - 1, room).astype(int)]
        pixels = (domain.take(torch.tensor([row["image"] for row in some]), device="cpu").images * 255).round().byte()
        shown = [
            {
                "url": data_url(np.ascontiguousarray(image)),
                "image": row["image"],
                "truth": row["class"],
                "before": row["read_full"],
                "now": row["read_pruned"],
            }
            for row, image in zip(some, pixels.permute(0, 2, 3, 1).numpy(), strict=True)
        ]
        half = -(-len(shown) // 2)
        words = f"{domain.name} ({WORDS[domain.role]})" if domain.role in WORDS else domain.name
        first = Strip(
            "read by the full → by the pruned network", f"{len(shown)} of {len(found)}", shown[:half], len(found)
        )
        strips[words] = [first, Strip("", "", shown[half:], len(found))] if shown[half:] else [first]
    return picture_rows(strips)


def _shares(counts: Sequence[int]) -> list[int]:
    """How many of each are shown: all where there is room for all, else alike.

    >>> _shares([40, 3, 40])
    [11, 3, 10]
    """
    taken = [0] * len(counts)
    for _ in range(min(PICTURES, sum(counts))):
        open_ones = [k for k, count in enumerate(counts) if taken[k] < count]
        taken[min(open_ones, key=lambda k: taken[k])] += 1
    return taken


def _state(run: FeatureRun) -> str:
    """What is being done."""
    if run.held is None:
        return "First a linear projection; the features at further ratios follow."
    if "umap" in run.maps:
        count = run.maps["umap"].places.shape[:2]
        at = ", ".join(f"{100 * knot:.4g}" for knot in KNOTS)
        return f"One map of {count[0] * count[1]:,} rows: the same {count[1]:,} images at {at} % removed."
    if run.problem:
        return f"There is no UMAP of this choice: {run.problem}"
    measured = len(set(KNOTS) & set(run.rows))
    words = "" if measured == len(KNOTS) else f" Numbers: {measured} of {len(KNOTS)} ratios."
    return f"Drawing the map: {100 * (run.drawing or ('', 0.0))[1]:.0f} %.{words}"


def _layers(study: Study, layer: str) -> dict[str, Any]:
    """The menu of layers."""
    return {"name": "layer", "label": "Layer", "value": layer, "choices": [[name, name] for name in study.graph.names]}


def _style(study: Study) -> Any:
    return domain_styles((domain.name, domain.role or "") for domain in study.domains)


def _sight(view: View, domain: str) -> Exposure:
    """What was looked at of a domain, by the network's record or by the choice."""
    study, roles = view.study, roles_of(view.study.domains)
    looked = study.record, mask_provenance(study.record, view.mask, batchnorm=view.batchnorm, study=study)
    role = study.domain(domain).role
    return strongest_exposure(
        exposure_of(
            {
                "domain": domain,
                "role": role,
                "target_aware": one.target_aware(roles),
                **one.columns(domain, "report", roles=roles),
            }
        )
        for one in looked
    )
