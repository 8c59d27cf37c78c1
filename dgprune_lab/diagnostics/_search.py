"""The search behind `find`: candidate networks, their measurements, and the one that meets the goal."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import pandas as pd

from ..core import (
    BatchNorm,
    Budget,
    DgpruneError,
    Domain,
    Mask,
    Outcomes,
    Reads,
    Scope,
    Scores,
    percent,
    public,
    tidy,
    yielding,
)
from ..measurement import LATENCY_IMAGES, latency_row, outcome_rows, timings, worst_rows
from ..pruning import allocate, prune
from ..scorers import Scorer
from ..study import Study, mask_provenance, remaining_cost, scoring
from ._contract import Row, Rows
from ._removal import mask_cells

Limit = Literal["filters", "parameters", "macs", "kilobytes", "milliseconds"]
Progress = tuple[int, int, str]
SizeLimits = Mapping[Limit, float]
EXTRA = ("evaluation", "meets", "chosen")
SPLIT, WORST = "score", "worst_source"
_LATENCY = "milliseconds"
UNITS: Mapping[str, str] = {
    "filters": "filters",
    "parameters": "parameters",
    "macs": "MACs per image",
    "kilobytes": "kB",
    "milliseconds": f"ms for {LATENCY_IMAGES} images",
}
"""Limit -> its unit in words."""
_METRICS = {"kilobytes": ("bytes", 1000, "bytes"), _LATENCY: ("latency", 1, f"ms per {LATENCY_IMAGES} images")}
"""Limit -> (metric that it limits, units of the metric per unit of the limit, unit of the metric)."""


@public
@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """The result of `find`.

    Attributes:
        mask: the filters of the chosen network; `mask.selection` names the splits that the search read.
        goal: the goal of the search, as text.
        table: accuracy, loss, size and cost of every network that was tried, with the columns `evaluation` (0 for the
            full network, then in the order of the search), `meets` (the goal) and `chosen`; at evaluation 0 also the
            goal as a number, `accuracy_wanted` or the limits: `parameters_limit`, `latency_limit`, ...
        monotone: whether accuracy never rose from a tried ratio to the next larger one.
    """

    mask: Mask
    goal: str
    table: pd.DataFrame = field(repr=False)
    monotone: bool

    def __str__(self) -> str:
        rises = "" if self.monotone else ", and here it rose between two that were tried"
        return (
            f"{self.mask.scorer}, {percent(self.mask.ratio_requested)} of the {self.mask.budget} removed: {self.goal}. "
            f"Accuracy need not fall with every larger ratio{rises}: a ratio that was not tried may be better."
        )


class AccuracyGoal(NamedTuple):
    """The goal to keep a share of the accuracy on one source, or on the worst one."""

    share: float
    on: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The candidate networks: one per ratio of the grid, with the mask that `allocate` makes.

    Attributes:
        limits: arguments of `allocate` that limit layers or filters by hand; {} for none.
    """

    ratios: Sequence[float]
    scope: Scope
    budget: Budget
    limits: Mapping[str, Any]

    def candidates(self, scores: Scores) -> tuple[list[Mask], int]:
        """Return the masks, that of the full network first, and the index of the first one within the limits.

        Raises:
            DgpruneError: limits that rule out every ratio of the grid.
        """
        shared: Any = {"scope": self.scope, "budget": self.budget}
        full, possible = allocate(scores, ratio=0.0, **shared), list[Mask]()
        for ratio in self.ratios:
            try:
                possible.append(allocate(scores, ratio=ratio, **shared, **self.limits))
            except DgpruneError:
                if not possible and ratio == self.ratios[-1]:
                    raise
        return ([full, *possible], 1) if possible[0].key != full.key else (possible, 0)


@dataclass(eq=False, kw_only=True)
class Search:
    """The candidate networks, the full one first, and their measurements.

    Attributes:
        first: index of the first candidate that may be chosen; 1 where limits exclude the full network.
        rows: index of a candidate -> its rows of the table, in the order of evaluation.
        accuracy: index of a candidate -> its accuracy, on the source where it is lowest.
        meets: index of a candidate -> whether it meets the goal.
    """

    study: Study
    sources: list[Domain]
    batchnorm: BatchNorm
    images: int | None
    calibration: int
    masks: list[Mask] = field(default_factory=list)
    first: int = 0
    rows: dict[int, Rows] = field(default_factory=dict)
    accuracy: dict[int, float] = field(default_factory=dict)
    meets: dict[int, bool] = field(default_factory=dict)

    @property
    def reads(self) -> Reads:
        """The splits that the search reads."""
        return {f"{domain.name}/{SPLIT}": "labels" for domain in self.sources}

    def measure(self, index: int) -> Generator[Progress, None, float]:
        """Measure a candidate once, and return its accuracy; yields (done, total, what) between batches."""
        if index not in self.accuracy:
            mask, outcomes = self.masks[index] if index else None, []
            step = len(self.accuracy), len(self.masks).bit_length() + 2, f"ratio {self.masks[index].ratio_requested:g}"
            options: Any = {"split": SPLIT, "images": self.images, "calibration": self.calibration}
            options |= {"batchnorm": self.batchnorm} if index else {}
            for domain in self.sources:
                outcomes.append((yield from yielding(self.study.steps(mask, domain=domain.name, **options), step)))
            self.rows[index] = self._rows(mask, outcomes)
            self.accuracy[index] = min(outcome.accuracy for outcome in outcomes)
            yield step[0] + 1, *step[1:]
        return self.accuracy[index]

    def measure_latency(self, index: int) -> float:
        """Measure the latency of a candidate, add it to the candidate's rows and return it."""
        domain = self.sources[0]
        example = domain.take(domain.rows(SPLIT, LATENCY_IMAGES), device=self.study.device).images
        network = prune(self.study.model, self.masks[index]).to(self.study.device)
        row = latency_row(list(timings(network, example)), len(example))
        self.rows[index].append({**self._cells(self.masks[index] if index else None), **row})
        return row["value"]

    def add_goal(self, metric: str, value: float, *, unit: str, on: str = "") -> None:
        """Add a goal to the rows of the full network: an accuracy on one or all sources, or a size limit."""
        named = [domain for domain in self.sources if domain.name == on]
        cells = self._cells(None, named[0] if named else None)
        self.rows[0].append({**cells, "metric": metric, "value": value, "unit": unit})

    def result(self, chosen: int, *, goal: str) -> Found:
        """Return the result with this candidate chosen."""
        rows = [
            {**row, "evaluation": number, "meets": self.meets[index], "chosen": index == chosen}
            for number, (index, measured) in enumerate(self.rows.items())
            for row in measured
        ]
        tried = [self.accuracy[index] for index in sorted(self.accuracy)]
        return Found(
            mask=replace(self.masks[chosen], selection=self.reads),
            goal=goal,
            table=tidy(rows, extra=EXTRA),
            monotone=all(after <= before for before, after in pairwise(tried)),
        )

    def _rows(self, mask: Mask | None, outcomes: Sequence[Outcomes]) -> Rows:
        rows = []
        for domain, outcome in zip(self.sources, outcomes, strict=True):
            rows += [{**self._cells(mask, domain), "images": len(outcome), **row} for row in outcome_rows(outcome)]
        costs = [
            {**self._cells(mask), "metric": metric, "value": value, "unit": unit}
            for metric, value, unit in remaining_cost(mask or self.masks[0])
        ]
        return [*rows, *(worst_rows(rows) if len(self.sources) > 1 else ()), *costs]

    def _cells(self, mask: Mask | None, domain: Domain | None = None) -> Row:
        """Return the columns of a row about a candidate, or about the full network if `mask` is None."""
        provenance = self.study.provenance
        if mask is not None:
            provenance = mask_provenance(provenance, mask, batchnorm=self.batchnorm, study=self.study)
        options: Any = {"batchnorm": self.batchnorm, "provenance": provenance.adding("selection", self.reads)}
        return mask_cells(self.study, mask, domain=domain, split=None if domain is None else SPLIT, **options)


def search_steps(
    search: Search, item: Scorer | Scores, *, seed: int, plan: Plan, goal: AccuracyGoal | SizeLimits
) -> Generator[Progress, None, Found]:
    """Score, then search; yields (done, total, what is measured)."""
    study = search.study
    with study.assume_unchanged():
        if isinstance(item, Scores) or not item.draws:
            scores = yield from yielding(scoring(study, item), (0, len(plan.ratios).bit_length() + 2, "scoring"))
        else:
            scores = study.score(item, seed=seed)
        search.masks, search.first = plan.candidates(scores)
        return (yield from _keep_accuracy(search, goal) if isinstance(goal, AccuracyGoal) else _fit_sizes(search, goal))


def _keep_accuracy(search: Search, goal: AccuracyGoal) -> Generator[Progress, None, Found]:
    """Find the largest ratio that keeps the accuracy, by bisection: candidate `low` keeps it, `high` does not."""
    required = goal.share * (yield from search.measure(0))
    search.meets[0] = True
    search.add_goal("accuracy_wanted", required, unit="share", on=goal.on)
    low, high = 0, len(search.masks)
    while high - low > 1:
        middle = (low + high) // 2
        search.meets[middle] = (yield from search.measure(middle)) >= required - 1e-12
        low, high = (middle, high) if search.meets[middle] else (low, middle)
    where = "the worst source" if goal.on == WORST else f"source {goal.on!r}"
    goal_text = f"keeps at least {percent(goal.share)} of the accuracy on {where}"
    if low < search.first:
        share = search.accuracy[search.first] / search.accuracy[0] if search.accuracy[0] else 0.0
        raise DgpruneError(
            f"{goal_text}: with these layers and filters the smallest possible ratio, "
            f"{percent(search.masks[search.first].ratio_achieved)}, keeps {percent(share)}. Ask for less, or change "
            "layers, max_layer_ratio or forced."
        )
    return search.result(low, goal=goal_text)


def _fit_sizes(search: Search, within: SizeLimits) -> Generator[Progress, None, Found]:
    """Find the smallest ratio within the limits: sizes are known without measurement, a latency takes bisection."""
    goal = "within " + _format_sizes(within)
    sizes: SizeLimits = {name: limit for name, limit in within.items() if name != _LATENCY}
    fits = [all(_read_size(mask, name) <= limit for name, limit in sizes.items()) for mask in search.masks]
    fits[: search.first] = [False] * search.first
    if not fits[-1]:
        remaining = _format_sizes({name: _read_size(search.masks[-1], name) for name in sizes})
        raise DgpruneError(f"{goal}: the largest ratio of the grid leaves {remaining}. Allow more.")
    yield from search.measure(0)
    search.meets[0] = False
    for name, limit in within.items():
        metric, scale, unit = _METRICS.get(name, (name, 1, "per image" if name == "macs" else "count"))
        search.add_goal(f"{metric}_limit", scale * limit, unit=unit)
    low, high = fits.index(True), len(fits)
    if (yield from _measure_fit(search, low, within)):
        return search.result(low, goal=goal)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if (yield from _measure_fit(search, middle, within)) else (middle, high)
    if high == len(fits):
        raise DgpruneError(f"{goal}: no ratio of the grid is fast enough here. Allow more.")
    return search.result(high, goal=goal)


def _measure_fit(search: Search, index: int, within: SizeLimits) -> Generator[Progress, None, bool]:
    """Measure a candidate of the right size, and its latency if that is limited; return whether it meets the goal."""
    yield from search.measure(index)
    search.meets[index] = _LATENCY not in within or search.measure_latency(index) <= within[_LATENCY]
    return search.meets[index]


def _format_sizes(sizes: SizeLimits) -> str:
    units = {name: UNITS[name].removesuffix("s") if size == 1 else UNITS[name] for name, size in sizes.items()}
    units |= {_LATENCY: UNITS[_LATENCY]}
    return " and ".join(f"{size:,.10g} {units[name]}" for name, size in sizes.items())


def _read_size(mask: Mask, limit: Limit) -> float:
    return mask.cost.bytes / 1000 if limit == "kilobytes" else getattr(mask.cost, limit)
