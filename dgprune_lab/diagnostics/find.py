"""Which ratio keeps enough accuracy, or fits into a size? Searched on the sources' `score` split."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import pandas as pd

from ..core import (
    BatchNorm,
    Budget,
    Count,
    DgpruneError,
    Domain,
    Mask,
    Outcomes,
    Positive,
    Ratio,
    Reads,
    Scope,
    Scores,
    Seed,
    Share,
    progress_bar,
    public,
    stepwise,
    tidy,
    unknown,
    yielding,
)
from ..measurement import LATENCY_IMAGES, latency_row, outcome_rows, timings, worst_rows
from ..pruning import allocate, prune
from ..scorers import Scorer, resolve
from ..study import Study, mask_provenance, remaining_cost, scoring
from ._removal import mask_cells
from .sweep import grid

Limit = Literal["filters", "parameters", "macs", "kilobytes", "milliseconds"]
Progress = tuple[int, int, str]
Within = Mapping[Limit, float]
EXTRA = ("evaluation", "meets", "chosen")
SPLIT, _LATENCY = "score", "milliseconds"
_WORST, _MOST = "worst_source", 2**10 - 1  # ten halvings, the full network and a first one that fits: twelve


@public
@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """The result of `find`.

    Attributes:
        mask: the filters of the network that was chosen; its `selection` names the splits that the search read.
        goal: what was searched for, as text.
        table: accuracy, loss, size and cost of every network that was tried, with the columns `evaluation` (0 for the
            full network, then in the order of the search), `meets` (the goal) and `chosen`.
        monotone: whether accuracy never rose from a tried ratio to the next larger one.
    """

    mask: Mask
    goal: str
    table: pd.DataFrame = field(repr=False)
    monotone: bool

    def __str__(self) -> str:
        rises = "" if self.monotone else ", and here it rose between two that were tried"
        return (
            f"{self.mask.scorer}, {self.mask.ratio_requested:.1%} of the {self.mask.budget} removed: {self.goal}. "
            f"Accuracy need not fall with every larger ratio{rises}: a ratio that was not tried may be better."
        )


@stepwise(progress_bar)
def find(
    study: Study,
    *,
    keep: Share | None = None,
    within: Mapping[Limit, Positive] | None = None,
    on: str = _WORST,
    scorer: str | Scorer | Scores = "l1",
    scope: Scope = "layer",
    budget: Budget = "filters",
    ratios: Sequence[Ratio] | None = None,
    batchnorm: BatchNorm = "recalibrate",
    images: Count | None = None,
    seed: Seed = 0,
    progress: bool = False,
) -> Generator[Progress, None, Found]:
    """Find the smallest network that keeps a share of the accuracy, or the largest one within a size.

    The networks are those of one scorer at the ratios of a grid; each keeps a subset of the filters of the one before.
    The search reads the labels of the sources' `score` split, never a target, and the mask says so: every later table
    has it in `seen_by_selection`. Report the result on another split.

    keep    the largest ratio with accuracy >= keep x accuracy of the full network as given, by bisection. Accuracy need
            not fall with every larger ratio. Where it does, the result is that of trying the whole grid; where it does
            not, a larger ratio that was not tried may keep enough too.
    within  the smallest ratio that fits, which is the most accurate one that fits if accuracy falls with the ratio.

    Args:
        study: the network and its domains.
        keep: share of the accuracy to keep, in [0, 1]; give either `keep` or `within`.
        within: limits that must all hold: {"parameters": 20_000}. "filters" (those that can be pruned), "parameters",
            "macs" (per image), "kilobytes" (1,000 bytes of parameters and buffers), "milliseconds" (median latency of
            32 images, measured here: it varies, so that the search may stop beside the right ratio).
        on: name of a source, or "worst_source": the lowest accuracy of all sources with labels, before and after.
        scorer, scope, budget: as in `allocate`; the budget is what the ratios count.
        ratios: the grid; 0.01, 0.02, ..., 0.99 by default, at most 1,023. 0, the full network as given, always belongs
            to it.
        batchnorm, images, seed, progress: see `diagnostics.drop`.

    Returns:
        A `Found`. At most twelve networks are evaluated, the full one included.

    Raises:
        DgpruneError: neither or both of `keep` and `within`; `on` a target or unknown; a source without labels or
            `score` split; limits that no ratio of the grid meets.

    >>> import dgprune_lab as dg
    >>> found = dg.find(dg.demo(), keep=0.95, images=60)
    >>> found.mask.selection
    {'mnist/score': 'labels', 'uci_digits/score': 'labels'}
    """
    if (keep is None) == (not within):
        raise DgpruneError("give either keep=0.95, a share of the accuracy, or within={'parameters': 20_000}, a size.")
    listed = sorted({0.0, *(grid(0.01, 0.99, 99) if ratios is None else ratios)})
    if not 1 < len(listed) <= _MOST + 1:
        raise DgpruneError(f"ratios needs 1 to {_MOST:,} ratios above 0; got {len(listed) - 1:,}.")
    search = _Search(study=study, sources=_sources(study, on), batchnorm=batchnorm, images=images)
    plan = [{"ratio": ratio, "scope": scope, "budget": budget} for ratio in listed]
    item = scorer if isinstance(scorer, Scores) else resolve(scorer)
    return _steps(search, item, seed=seed, plan=plan, goal=within or _Kept(keep or 0.0, on))


class _Kept(NamedTuple):
    """The goal to keep a share of the accuracy on one source, or on the worst."""

    share: float
    on: str


def _sources(study: Study, on: str) -> list[Domain]:
    """The sources that the search reads."""
    if on in [domain.name for domain in study.targets]:
        raise DgpruneError(
            f"on={on!r} is a target: a network that was chosen on it is target-aware, and its accuracy there says "
            "nothing about generalisation. Search on a source or on 'worst_source', and report the target afterwards."
        )
    names = [domain.name for domain in study.sources]
    if on != _WORST and on not in names:
        raise unknown("source", on, [_WORST, *names])
    chosen = [domain for domain in study.sources if (on == _WORST and domain.labels is not None) or domain.name == on]
    if not chosen or any(domain.labels is None for domain in chosen):
        raise DgpruneError(f"on={on!r}: find needs a source with labels.")
    for domain in chosen:
        domain.rows(SPLIT)
    return chosen


@dataclass(eq=False, kw_only=True)
class _Search:
    """The candidates, the first of which is the full network, and what was measured of them.

    Attributes:
        rows: place of a candidate -> its rows of the table, in the order of evaluation.
        accuracy: place of a candidate -> its accuracy, the lowest of the sources.
        meets: place of a candidate -> whether it meets the goal.
    """

    study: Study
    sources: list[Domain]
    batchnorm: BatchNorm
    images: int | None
    masks: list[Mask] = field(default_factory=list)
    rows: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    accuracy: dict[int, float] = field(default_factory=dict)
    meets: dict[int, bool] = field(default_factory=dict)

    @property
    def reads(self) -> Reads:
        """The splits that the search reads."""
        return {f"{domain.name}/{SPLIT}": "labels" for domain in self.sources}

    def measured(self, place: int) -> Generator[Progress, None, float]:
        """Measure a candidate once, yielding (done, total, what) between batches; return its accuracy."""
        if place not in self.accuracy:
            mask, outcomes = self.masks[place] if place else None, []
            now = len(self.accuracy), len(self.masks).bit_length() + 2, f"ratio {self.masks[place].ratio_requested:g}"
            options: Any = {"split": SPLIT, "images": self.images, **({"batchnorm": self.batchnorm} if place else {})}
            for domain in self.sources:
                outcomes.append((yield from yielding(self.study.steps(mask, domain=domain.name, **options), now)))
            self.rows[place] = self._rows(mask, outcomes)
            self.accuracy[place] = min(each.accuracy for each in outcomes)
            yield now[0] + 1, *now[1:]
        return self.accuracy[place]

    def milliseconds(self, place: int) -> float:
        """Measure the latency of a candidate; it becomes a row of its table."""
        domain = self.sources[0]
        example = domain.take(domain.rows(SPLIT, LATENCY_IMAGES), device=self.study.device).images
        network = prune(self.study.model, self.masks[place]).to(self.study.device)
        row = latency_row(list(timings(network, example)), len(example))
        self.rows[place].append({**self._cells(self.masks[place] if place else None), **row})
        return row["value"]

    def found(self, chosen: int, *, goal: str) -> Found:
        """Return the result with this candidate chosen."""
        rows = [
            {**row, "evaluation": number, "meets": self.meets[place], "chosen": place == chosen}
            for number, (place, measured) in enumerate(self.rows.items())
            for row in measured
        ]
        tried = [self.accuracy[place] for place in sorted(self.accuracy)]
        return Found(
            mask=replace(self.masks[chosen], selection=self.reads),
            goal=goal,
            table=tidy(rows, extra=EXTRA),
            monotone=all(after <= before for before, after in pairwise(tried)),
        )

    def _rows(self, mask: Mask | None, outcomes: Sequence[Outcomes]) -> list[dict[str, Any]]:
        rows = []
        for domain, each in zip(self.sources, outcomes, strict=True):
            rows += [{**self._cells(mask, domain), "images": len(each), **row} for row in outcome_rows(each)]
        costs = [
            {**self._cells(mask), "metric": metric, "value": value, "unit": unit}
            for metric, value, unit in remaining_cost(mask or self.masks[0])
        ]
        return [*rows, *(worst_rows(rows) if len(self.sources) > 1 else ()), *costs]

    def _cells(self, mask: Mask | None, domain: Domain | None = None) -> dict[str, Any]:
        """The columns of a row about a candidate; None for the full network."""
        provenance = self.study.provenance
        if mask is not None:
            provenance = mask_provenance(provenance, mask, batchnorm=self.batchnorm, study=self.study)
        about: Any = {"batchnorm": self.batchnorm, "provenance": provenance.adding("selection", self.reads)}
        return mask_cells(self.study, mask, domain=domain, split=None if domain is None else SPLIT, **about)


def _steps(
    search: _Search, item: Scorer | Scores, *, seed: int, plan: Sequence[dict[str, Any]], goal: _Kept | Within
) -> Generator[Progress, None, Found]:
    """Score, then search; yields (done, total, what is measured)."""
    study = search.study
    with study.assume_unchanged():
        if isinstance(item, Scores) or not item.draws:
            scores = yield from yielding(scoring(study, item), (0, len(plan).bit_length() + 2, "scoring"))
        else:
            scores = study.score(item, seed=seed)
        search.masks = [allocate(scores, **options) for options in plan]
        return (yield from _keeping(search, goal) if isinstance(goal, _Kept) else _fitting(search, goal))


def _keeping(search: _Search, goal: _Kept) -> Generator[Progress, None, Found]:
    """Find the largest ratio that keeps enough, by bisection: the candidate `low` does, `high` does not."""
    wanted = goal.share * (yield from search.measured(0)) - 1e-12
    search.meets[0] = True
    low, high = 0, len(search.masks)
    while high - low > 1:
        middle = (low + high) // 2
        search.meets[middle] = (yield from search.measured(middle)) >= wanted
        low, high = (middle, high) if search.meets[middle] else (low, middle)
    where = "the worst source" if goal.on == _WORST else f"source {goal.on!r}"
    return search.found(low, goal=f"keeps at least {goal.share:.4g} of the accuracy on {where}")


def _fitting(search: _Search, within: Within) -> Generator[Progress, None, Found]:
    """Find the smallest ratio that fits. Sizes are known before anything is measured; for a latency, bisect."""
    goal = "within " + " and ".join(f"{limit:,.10g} {name}" for name, limit in within.items())
    fits = [all(_size(mask, n) <= limit for n, limit in within.items() if n != _LATENCY) for mask in search.masks]
    if not fits[-1]:
        left = " and ".join(f"{_size(search.masks[-1], name):,.10g} {name}" for name in within if name != _LATENCY)
        raise DgpruneError(f"{goal}: the largest ratio of the grid leaves {left}. Allow more, or add larger ratios.")
    yield from search.measured(0)
    search.meets[0] = False
    low, high = fits.index(True), len(fits)
    if (yield from _fits(search, low, within)):
        return search.found(low, goal=goal)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if (yield from _fits(search, middle, within)) else (middle, high)
    if high == len(fits):
        raise DgpruneError(f"{goal}: no ratio of the grid is fast enough here. Allow more, or add larger ratios.")
    return search.found(high, goal=goal)


def _fits(search: _Search, place: int, within: Within) -> Generator[Progress, None, bool]:
    """Measure a candidate of the right size, and its latency if that is limited; return whether it meets the goal."""
    yield from search.measured(place)
    search.meets[place] = _LATENCY not in within or search.milliseconds(place) <= within[_LATENCY]
    return search.meets[place]


def _size(mask: Mask, limit: Limit) -> float:
    return mask.cost.bytes / 1000 if limit == "kilobytes" else getattr(mask.cost, limit)
