"""Which ratio keeps a share of the accuracy, or meets a size limit? Searched on the sources' `score` split."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal

from ..core import (
    BatchNorm,
    Budget,
    Count,
    DgpruneError,
    Domain,
    Positive,
    Ratio,
    Scope,
    Scores,
    Seed,
    Share,
    progress_bar,
    stepwise,
    unknown,
)
from ..scorers import Scorer, resolve
from ..study import Study
from ._search import SPLIT, WORST, AccuracyGoal, Found, Limit, Plan, Progress, Search, search_steps
from .sweep import grid

_MOST = 2**10 - 1  # at most twelve evaluations: the full network, a first one that fits, ten halvings


@stepwise(progress_bar)
def find(
    study: Study,
    *,
    keep: Share | None = None,
    within: Mapping[Limit, Positive] | None = None,
    on: str = WORST,
    scorer: str | Scorer | Scores = "l1",
    scope: Scope = "layer",
    budget: Budget = "filters",
    ratios: Sequence[Ratio] | None = None,
    layers: Mapping[str, Ratio] | None = None,
    max_layer_ratio: Share | None = None,
    forced: Mapping[Literal["remove", "keep"], Mapping[str, Any]] | None = None,
    reads: Mapping[str, Any] | None = None,
    batchnorm: BatchNorm = "recalibrate",
    images: Count | None = None,
    calibration: Count = 500,
    seed: Seed = 0,
    progress: bool = False,
) -> Generator[Progress, None, Found]:
    """Find the smallest network that keeps a share of the accuracy, or the largest one within a size.

    The networks are those of one scorer at the ratios of a grid; each keeps a subset of the filters of the one before.
    The search reads the labels of the sources' `score` split, never a target; the mask records these reads, and
    every later table shows them in `seen_by_selection`. Report the result on another split.

    keep    the largest ratio with accuracy >= keep x accuracy of the full network as given, by bisection. If
            accuracy falls with every larger ratio, the result is that of trying the whole grid; if it does not, a
            larger ratio that was not tried may keep enough too.
    within  the smallest ratio that fits, which is the most accurate one that fits if accuracy falls with the ratio.

    Args:
        study: the network and its domains.
        keep: share of the accuracy to keep, in [0, 1]; give either `keep` or `within`.
        within: limits that must all hold: {"parameters": 20_000}. "filters" (those that can be pruned), "parameters",
            "macs" (per image), "kilobytes" (1,000 bytes of parameters and buffers), "milliseconds" (median latency of
            32 images, measured here: it varies, so the search may end next to the right ratio).
        on: name of a source, or "worst_source": the lowest accuracy of all sources with labels, before and after.
        scorer, scope, budget: as in `allocate`; the budget says what a ratio is a share of.
        ratios: the grid; 0.01, 0.02, ..., 0.99 by default, at most 1,023. 0, the full network as given, always belongs
            to it. With layers or filters by hand, ratios that they rule out are skipped.
        layers, max_layer_ratio, reads: as in `allocate`.
        forced: filters removed or kept whatever their score, {"keep": {"conv1": [3]}}, as `remove` and `keep` of
            `allocate` (`keep` here is the share of the accuracy); `mask.forced` can be passed as it is.
        calibration: number of source images on which BatchNorm statistics are re-estimated.
        batchnorm, images, seed, progress: see `diagnostics.drop`.

    Returns:
        A `Found`. At most twelve networks are evaluated, the full one included.

    Raises:
        DgpruneError: neither or both of `keep` and `within`; `on` a target or unknown; a source without labels or
            `score` split; a goal that no ratio of the grid meets; layers or filters by hand that rule out all ratios.

    >>> import dgprune_lab as dg
    >>> found = dg.find(dg.demo(), keep=0.95, images=60)
    >>> found.mask.selection
    {'mnist/score': 'labels', 'uci_digits/score': 'labels'}
    """
    if (keep is None) == (not within):
        raise DgpruneError("give either keep=0.95, a share of the accuracy, or within={'parameters': 20_000}, a size.")
    all_ratios = sorted({0.0, *(grid(0.01, 0.99, 99) if ratios is None else ratios)})
    if not 1 < len(all_ratios) <= _MOST + 1:
        raise DgpruneError(f"ratios needs 1 to {_MOST:,} ratios above 0; got {len(all_ratios) - 1:,}.")
    search = Search(
        study=study, sources=_sources(study, on), batchnorm=batchnorm, images=images, calibration=calibration
    )
    by_hand = {"layers": layers, "max_layer_ratio": max_layer_ratio, "reads": reads, **(forced or {})}
    limits = {name: value for name, value in by_hand.items() if value is not None}
    plan = Plan(ratios=all_ratios, scope=scope, budget=budget, limits=limits)
    item = scorer if isinstance(scorer, Scores) else resolve(scorer)
    return search_steps(search, item, seed=seed, plan=plan, goal=within or AccuracyGoal(keep or 0.0, on))


def _sources(study: Study, on: str) -> list[Domain]:
    """Return the sources that the search reads."""
    if on in [domain.name for domain in study.targets]:
        raise DgpruneError(
            f"on={on!r} is a target: a network that was chosen on it is target-aware, and its accuracy there says "
            "nothing about generalisation. Search on a source or on 'worst_source', and report the target afterwards."
        )
    names = [domain.name for domain in study.sources]
    if on != WORST and on not in names:
        raise unknown("source", on, [WORST, *names])
    sources = [domain for domain in study.sources if (on == WORST and domain.labels is not None) or domain.name == on]
    if not sources or any(domain.labels is None for domain in sources):
        raise DgpruneError(f"on={on!r}: find needs a source with labels.")
    for domain in sources:
        domain.rows(SPLIT)
    return sources
