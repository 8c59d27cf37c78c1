"""Frames: the measurements of one mask, as a tidy table and as the rows of charts A and D."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ...charts.drop import CHANGE, drop_rows, span_rows
from ...charts.marks import shortened_apart
from ...charts.sweep import ACCURACY, sweep_data, sweep_points
from ...charts.theme import records
from ...core import (
    DIAMOND,
    BatchNorm,
    Exposure,
    Mask,
    Outcomes,
    exposure_label,
    exposure_of,
    interruptible,
    percent,
    tidy,
    whole_percent,
)
from ...diagnostics._removal import mask_cells
from ...diagnostics.drop import accuracy_change
from ...measurement import LATENCY_IMAGES, calibration_count, latency_row, timings
from ...stats import intervals
from ...study import Study, mask_provenance, remaining_cost
from ..panels.protocol import Row

AGREEMENT = "agreement"
EXTRA = ("calibration",)
CALIBRATION = 500
STEP = 0.05
_LETTERS = 11  # of a domain's name with its mark, beside chart D
SPLIT = "report"
_COUNTED = {"filters": "filters", "parameters": "parameters", "macs": "MACs"}


class Origin(NamedTuple):
    """The study of the full network, and which of its filters a smaller network still has."""

    study: Study
    taken: Mask

    def full_mask(self, mask: Mask) -> Mask:
        """Return the smaller network's mask, and the ratio requested, in terms of the full network."""
        before = replace(self.taken, scope=mask.scope, budget=mask.budget)
        ratio = 1 - (1 - before.ratio_achieved) * (1 - mask.ratio_requested)
        return replace(before.then(mask), ratio_requested=ratio)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """The measurements of one mask.

    Attributes:
        table: accuracy (without labels: agreement with the full network), its change, and the four costs.
        points: the points of chart A, see `charts.sweep.sweep_points`.
        payload: the data sent to the page: ratio, estimate, images per domain and whether these are all, sentence,
            latency, and the rows of charts A and D.
        mask: which filters of the full network stay.
        timed: the table with a row for the latency; None until the latency is measured.
    """

    table: pd.DataFrame
    points: list[Row]
    payload: Row
    mask: Mask | None = None
    timed: pd.DataFrame | None = None

    @property
    def is_estimate(self) -> bool:
        """Whether only the first images of each domain were used."""
        return bool(self.payload["estimate"])


def measure_frame(
    study: Study,
    mask: Mask,
    *,
    batchnorm: BatchNorm,
    images: int | None = None,
    calibration: int = CALIBRATION,
    estimate: bool = False,
    origin: Origin | None = None,
) -> Generator[float, None, Frame]:
    """Evaluate the network under a mask on every domain and return the frame.

    Costs, changes of accuracy and the sentence refer to the full network.

    Yields the work done after each batch, in images of the full network; see `Pace`.

    Args:
        images, calibration: see `Explorer`; images None for all.
        estimate: whether the frame stands in for one from more images.
        origin: the full network, if `study` is that of a smaller one.
    """
    share, rows, parts = time_share(mask), list[Row](), list[str]()
    full_study, full_mask = (study, mask) if origin is None else (origin.study, origin.full_mask(mask))
    provenance = mask_provenance(study.provenance, mask, batchnorm=batchnorm, study=study)
    about: Any = {"batchnorm": batchnorm, "provenance": provenance}
    shared = mask_cells(full_study, full_mask, **about)
    recalibrated = shared["batchnorm"] == "recalibrate"
    used = calibration_count(study.domains, calibration) if recalibrated else None
    for domain in study.domains:
        options = {"domain": domain.name, "split": SPLIT, "images": images}
        after = yield from weighted(study.steps(mask, **options, batchnorm=batchnorm, calibration=calibration), share)
        full = yield from weighted(full_study.steps(None, **options), 1.0)
        cells = mask_cells(full_study, full_mask, domain=domain, split=SPLIT, **about)
        domain_rows = [{**cells, **row, "calibration": used} for row in _domain_rows(after, full)]
        parts.append(_part(domain_rows[0], full, estimate=estimate))
        rows += domain_rows
    rows += [
        {**shared, "metric": metric, "value": value, "unit": unit} for metric, value, unit in remaining_cost(full_mask)
    ]
    text = sentence(mask, parts, recalibrated=recalibrated, full_mask=None if origin is None else full_mask)
    start, table = f"Estimate from {images} images of each domain. " if estimate else "", tidy(rows, extra=EXTRA)
    at_slider = table.assign(ratio_requested=mask.ratio_requested)
    frame = frame_of(at_slider, sentence=start + text, estimate=estimate)
    return replace(frame, table=table, mask=full_mask, payload={**frame.payload, "all": all_images(study, images)})


def full_table(study: Study, mask: Mask, *, images: int | None) -> Generator[float, None, pd.DataFrame]:
    """Return the table of the full network as given; `mask` keeps all its filters. Yields as `measure_frame` does."""
    rows = [
        {**mask_cells(study, None, batchnorm="as_is"), "metric": m, "value": v, "unit": u}
        for m, v, u in remaining_cost(mask)
    ]
    for domain in study.domains:
        full = yield from weighted(study.steps(None, domain=domain.name, split=SPLIT, images=images), 1.0)
        cells = mask_cells(study, None, batchnorm="as_is", domain=domain, split=SPLIT)
        rows += [{**cells, **row} for row in _domain_rows(full, full)]
    return tidy(rows, extra=EXTRA)


def all_images(study: Study, images: int | None) -> bool:
    """Return whether this number of images per domain covers all images of every domain."""
    return images is None or all(len(domain.rows(SPLIT)) <= images for domain in study.domains)


def is_labelled(study: Study) -> bool:
    """Return whether any domain has labels."""
    return any(domain.labels is not None for domain in study.domains)


def time_share(mask: Mask) -> float:
    """Return roughly the share of the full network's time that the pruned one takes: the mean of two shares.

    Convolutions scale about with the share of MACs left, elementwise work about with the share of filters left.
    """
    left, full = mask.cost, mask.graph.full
    return (left.macs / full.macs + left.filters / full.filters) / 2


def weighted(steps: Generator[int, None, Outcomes], weight: float) -> Generator[float, None, Outcomes]:
    """Return the result of a generator that yields numbers of images; yield these numbers times a weight."""
    while True:
        try:
            images = next(steps)
        except StopIteration as end:
            return end.value
        yield images * weight


def _domain_rows(after: Outcomes, full: Outcomes) -> list[Row]:
    """The rows of a domain: accuracy and its change with intervals; without labels, agreement with the full network."""
    shared = {"images": len(after), "interval": "images", "unit": "share"}
    change = accuracy_change(after, full)
    if after.correct is None or change is None:
        return [{**shared, "metric": AGREEMENT, **_mean((after.predicted == full.predicted).double().numpy())}]
    return [
        {**shared, "metric": ACCURACY, **_mean(after.correct.double().numpy())},
        {**shared, "metric": CHANGE, **dict(zip(("value", "low", "high"), change, strict=True))},
    ]


def _mean(values: Any) -> Row:
    low, high = intervals.over_images(values)
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


def frame_of(table: pd.DataFrame, *, sentence: str, estimate: bool = False) -> Frame:
    """Return the frame made from a table with one ratio."""
    points = sweep_points(table)
    for point in sweep_points(table, metric=AGREEMENT):
        marked = point["exposure"] not in ("", "?")
        below = exposure_label(point["exposure"]).strip() if marked else ""
        points.append({**point, "label": " (agreement)" + " ?" * (point["exposure"] == "?"), "below": below})
    data = curve_rows(points)
    exposures: dict[str, Exposure] = {point["domain"]: point["exposure"] for point in points}
    marks = {name: {"": "", "?": " ?", "seen": ""}.get(exposure, f" {DIAMOND}") for name, exposure in exposures.items()}
    short: dict[str, str] = {}
    for mark in set(marks.values()):
        alike = [name for name in marks if marks[name] == mark]
        short |= {name: text + mark for name, text in shortened_apart(alike, most=_LETTERS - len(mark)).items()}
    drops = [{**row, "label": short[row["domain"]]} for row in drop_rows(table)]
    accuracy = {row["domain"]: row["value"] for row in records(table, metric=ACCURACY)}
    payload = {
        "ratio": float(table["ratio_requested"].iloc[0]),
        "estimate": estimate,
        "images": max(row["images"] for row in records(table) if row["metric"] in (ACCURACY, AGREEMENT)),
        "all": not estimate,
        "sentence": sentence,
        "latency": None,
        "dots": [{**row, "fill": "transparent"} if estimate else row for row in data["curves"]],
        "names": data["names"],
        "full": [
            {"domain": row["domain"], "value": 100 * (accuracy[row["domain"]] - row["value"])}
            for row in records(table, metric=CHANGE)
        ],
        "drops": [{**row, "fill": "transparent"} if estimate else row for row in drops],
        "span": span_rows(drops),
        "exposures": exposure_text(exposures.values()),
    }
    return Frame(table=table, points=points, payload=payload)


def curve_rows(points: Sequence[Row]) -> Row:
    """Return the rows `curves`, `gaps`, `names` of chart A; names are not spread, which needs the plot's height."""
    data = sweep_data(points, now=None, chance=None, step=STEP, height=10**9)
    return {name: data[name] for name in ("curves", "gaps", "names")}


def exposure_text(exposures: Iterable[Exposure]) -> str:
    """Return a text that explains the marks in chart D, except "seen": the sentence says that a source was seen."""
    marks: list[Exposure] = [mark for mark in dict[Exposure, None].fromkeys(exposures) if mark not in ("", "seen")]
    return " · ".join("? data use not recorded" if mark == "?" else exposure_label(mark).strip() for mark in marks)


def sentence(mask: Mask, parts: Sequence[str], *, recalibrated: bool, full_mask: Mask | None = None) -> str:
    """Return one line on what removal did: "50 % of the filters removed: mnist 98 → 92 %, mnist_m 65 → 44 %".

    The number is the slider's; if the ratio achieved differs by half a percentage point or more, both are given. If
    nothing is removed and BatchNorm is recalibrated, the line says that the change is due to that. `full_mask` is the
    mask of the full network, if `mask` is that of a smaller one.
    """
    requested, achieved, counted = mask.ratio_requested, mask.ratio_achieved, _COUNTED[mask.budget]
    nothing, differ = mask.cost.filters == mask.graph.free, abs(requested - achieved) >= 0.005
    beside = [f"{percent(requested)} requested"] * (differ or (nothing and requested > 0))
    if full_mask is not None:
        beside.append(f"{whole_percent(full_mask.ratio_achieved)} % of all")
    number = f"{whole_percent(achieved)} %" if differ else percent(requested)
    start = f"{number} of the {counted if full_mask is None else f'remaining {counted}'} removed"
    if nothing:
        start = "Nothing removed" if full_mask is None else "Nothing more removed"
    beyond = f" ({', '.join(beside)})" if beside else ""
    reason = "; the change is that of re-estimating BatchNorm" * (nothing and recalibrated and full_mask is None)
    return f"{start}{beyond}{reason}: {', '.join(parts)}"


def _part(row: Row, full: Outcomes, *, estimate: bool) -> str:
    """The part of the sentence about one domain, with its mark, as in "mnist_m (target-aware) 65 → 44 %".

    An estimate has its interval, as in "65 → 44 (28 to 61) %".
    """
    exposure = exposure_of(row)
    name = str(row["domain"]) + (f" ({exposure})" if exposure not in ("", "?") else exposure_label(exposure))
    after = f"{whole_percent(row['value'])} %"
    if estimate:
        after = f"{whole_percent(row['value'])} ({whole_percent(row['low'])} to {whole_percent(row['high'])}) %"
    if row["metric"] == AGREEMENT:
        return f"{name} {after} agreement with the full network (no labels)"
    return f"{name} {whole_percent(full.accuracy)} → {after}"


def latency_steps(study: Study, mask: Mask | None, *, slow: bool) -> Generator[None, None, list[float]]:
    """Time batches of 32 images, yielding between them; return the milliseconds of each.

    A `slow` batch can be cancelled while it runs; this costs microseconds, which matter if a batch takes milliseconds.
    """
    domain = study.domains[0]
    images = domain.take(domain.rows(SPLIT, LATENCY_IMAGES), device=study.device).images
    milliseconds: list[float] = []
    timed = timings(study.network(mask, batchnorm="as_is").to(study.device), images)
    while True:
        with interruptible() if slow else nullcontext():
            time = next(timed, None)
        if time is None:
            return milliseconds
        milliseconds.append(time)
        yield


def with_latency(frame: Frame, milliseconds: list[float], *, full: list[float], images: int) -> Frame:
    """Return a frame with median and range of the latency, and how it compares: no difference if the ranges overlap."""
    row, (about,) = latency_row(milliseconds, images), records(frame.table, metric="parameters")
    text = f"{row['value']:.1f} ms for {images} images ({row['low']:.1f} to {row['high']:.1f})"
    overlap = min(milliseconds) <= max(full) and min(full) <= max(milliseconds)
    text += "; no clear difference from the full network" if overlap else f"; full network {np.median(full):.1f} ms"
    latency = {"text": text, **{name: row[name] for name in ("value", "low", "high")}}
    timed = tidy([*records(frame.table), {**about, **row}], extra=EXTRA)
    return replace(frame, payload={**frame.payload, "latency": latency}, timed=timed)
