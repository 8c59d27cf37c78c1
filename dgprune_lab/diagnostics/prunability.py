"""How small a share of a network keeps its training loss? Prunability, which is proposed to predict generalisation."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..core import Count, DgpruneError, Domain, Mask, Positive, Scope, Scores, Seed, Seen, WeightScores, note, tidy
from ..measurement import Norm, WeightMasking, WeightScorer
from ..pruning import allocate, shared_copy
from ..scorers import Scorer
from ..stats import unlike
from ..study import Study, batchnorm_cell, labelled_studies, pooled
from ._contract import Rows, Steps, diagnostic
from ._loss_curve import LossCurve, grid_of, tolerances_of

Granularity = Literal["weight", "filter"]
Search = Literal["grid", "fast"]
AnyScorer = str | Scorer | Scores | WeightScores

_READ_OFF = ("smallest", "contiguous_end", "bracket_low", "monotone", "isolated_feasible")
EXTRA = ("network", "granularity", "search", "fraction_kept", "tolerance", "training_loss", *_READ_OFF, "evaluations")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The options of `prunability`: how a network is pruned, and on which images its loss is measured."""

    scorer: AnyScorer = "l1"
    granularity: Granularity = "weight"
    scope: Scope = "global"
    batchnorm: Norm = "as_is"
    step: float = 0.01
    images: int | None = None
    split: str = "train"
    seed: int = 0

    def __post_init__(self) -> None:
        grid_of(self.step)
        if self.granularity == "filter" and self.batchnorm == "fold":
            raise DgpruneError(
                "a filter is removed with its BatchNorm, so there is nothing to fold with granularity='filter'; "
                "use batchnorm='as_is' or 'recalibrate'."
            )
        if self.granularity == "filter" and isinstance(self.scorer, WeightScores):
            raise DgpruneError("WeightScores rank single weights; use them with granularity='weight'.")


@diagnostic(
    "prunability", extra=EXTRA, cite="Kuhn et al. 2021, Robustness to Pruning Predicts Generalization, arXiv:2103.06002"
)
def prunability(
    studies: Study | Sequence[Study],
    *,
    tolerance: Positive | Sequence[Positive] = 0.1,
    scorer: AnyScorer = "l1",
    granularity: Granularity = "weight",
    scope: Scope = "global",
    batchnorm: Norm = "as_is",
    search: Search = "grid",
    step: Positive = 0.01,
    images: Count | None = None,
    split: str = "train",
    seed: Seed = 0,
    intervals: bool = True,
    progress: bool = False,
) -> Steps:
    """Return the smallest share of a network that keeps its training loss; lower is predicted to generalise better.

    P = min { a : L(keep the share a of highest scores) <= (1 + tolerance) L }, L the mean cross-entropy over the train
    splits of all sources together, in eval mode, without augmentation. Comparable only between networks of equal L.

    Args:
        studies: one or several networks with their sources; targets are not read.
        tolerance: allowed increase of the loss, as a fraction of L; for several tolerances there is a row each, from
            the same curve.
        scorer: for single weights "l1" (|w|, the paper's), "random" or WeightScores; for filters any scorer. A scorer
            that reads images reads the `score` split.
        granularity: "weight" zeroes single weights of convolution and linear layers, "filter" removes filters.
        scope: "global" or "layer", see `allocate`.
        batchnorm: "as_is"; "fold": each BatchNorm is first folded into the layer before it, and the folded weights are
            scored; "recalibrate": statistics are re-estimated on source images after each pruning, at a = 1 too, so
            that L is the loss of the recalibrated network, not of the network as given.
        search: "grid" measures every share; "fast" tries those at 1, 2, 4, ... steps below 1 and bisects between the
            last one within the limit and the next, with at least five times fewer evaluations than a .01 grid; of the
            shares that it skips, some above the result may exceed the limit, and some below may be within it.
        step: distance between neighbouring shares of the grid.
        images: measure the loss on the first `images` images of each source only.
        split: the split on which L is measured.
        seed: random seed of scorers that draw.
        intervals: False, for "fast" on single weights, takes half the time: images are read from the highest loss of
            the full network down, a share is refused as soon as the sum of its losses exceeds the limit, and small
            shares are tried first. The loss of a refused share is unknown: it has no row, and there are no intervals.
            The value is the same unless the loss crosses the limit at several shares; then each search finds one.
        progress: whether to show a progress bar.

    Returns:
        A tidy table. Metric "loss" (nats): a row per measured share (column fraction_kept), interval over images.
        Metric "prunability" (share): a row per network and tolerance, interval over resampled images. Its value is
        `smallest` (grid), the smallest share within the limit, or `contiguous_end` (fast), the lower end of the
        unbroken range from 1 in that search; if the loss only grows towards small shares, the exact value lies in
        (bracket_low, value]. `monotone`: whether `smallest` equals `contiguous_end`. `isolated_feasible`: further
        ranges within the limit. `training_loss`: L.

    Raises:
        DgpruneError: tolerance <= 0, an unknown choice, `intervals=False` with the grid or with filters, sources
            without labels, no weights to prune, a BatchNorm that cannot be folded, a training loss of 0 or one that is
            not finite.

    Source: abstract only; the search, the bracket and the intervals are ours.
    """
    setting = Setting(
        scorer=scorer,
        granularity=granularity,
        scope=scope,
        batchnorm=batchnorm,
        step=step,
        images=images,
        split=split,
        seed=seed,
    )
    tolerances = tolerances_of(tolerance)
    if not intervals and (search == "grid" or granularity == "filter"):
        raise DgpruneError(
            "intervals=False saves images at shares that are refused, which needs search='fast' and "
            f"granularity='weight'; got search={search!r} and granularity={granularity!r}."
        )
    refuse = None if intervals else max(tolerances)
    named = dict(labelled_studies(studies, split, what="prunability"))
    return _steps(named, setting, tolerances=tolerances, search=search, refuse=refuse)


def _steps(
    studies: Mapping[str, Study], setting: Setting, *, tolerances: Sequence[float], search: Search, refuse: float | None
) -> Steps:
    """Measure all curves and return the table; yields (evaluations done, largest possible number) between batches."""
    rows: Rows = []
    losses: dict[str, float] = {}
    done = 0
    for name, study in studies.items():
        curve, most = loss_curve(study, setting, name=name, refuse=refuse), len(studies)
        most *= len(curve.grid) if search == "grid" else 1 + 2 * math.ceil(math.log2(len(curve.grid))) * len(tolerances)
        for steps in [curve.fill()] if search == "grid" else map(curve.bracket, tolerances):
            for _ in steps:
                yield done + len(curve.losses), most
        done += len(curve.losses)
        if curve.broken:
            note(
                f"{name}: the loss is not finite with {len(curve.broken)} of the {len(curve.losses)} shares that were "
                "measured; they count as above the limit."
            )
        losses[name] = curve.full
        rows += curve_rows(study, curve, setting=setting, search=search, tolerances=tolerances)
    if (message := unlike(losses)) is not None:
        note(message)
    return tidy(rows, extra=EXTRA)


def loss_curve(study: Study, setting: Setting, *, name: str, refuse: float | None = None) -> LossCurve:
    """Return the loss curve of one network, before any measurement; `refuse` (single weights only): see `LossCurve`.

    Raises:
        DgpruneError: what `WeightMasking` and the scorer refuse.
    """
    if setting.granularity == "filter":
        return _filter_curve(study, setting, name=name)
    if not (isinstance(setting.scorer, WeightScores) or setting.scorer in get_args(WeightScorer)):
        known = ", ".join(map(repr, get_args(WeightScorer)))
        raise DgpruneError(
            f"single weights are scored by {known} or by WeightScores of your own; got {setting.scorer!r}. A scorer of "
            "filters goes with granularity='filter'."
        )
    masking = WeightMasking(
        shared_copy(study.model).to(study.device),
        domains=study.sources,
        scorer=setting.scorer,  # type: ignore[arg-type]
        scope=setting.scope,
        batchnorm=setting.batchnorm,
        seed=setting.seed,
    )

    domains, order = study.sources, None

    def measure(share: float, most: float) -> Generator[object, None, Tensor]:
        nonlocal domains, order
        masking.zero(share)
        losses = yield from masking.losses(domains, split=setting.split, images=setting.images, most=most)
        if refuse is not None and order is None:
            domains, order = _hardest_first(domains, losses, setting)
        elif order is not None and len(losses) == len(order):
            losses = torch.empty_like(losses).scatter_(0, order, losses)
        return losses

    def removed(share: float) -> float:
        return masking.removed(share) / masking.weights

    return LossCurve(measure, step=setting.step, name=name, removed=removed, refuse=refuse)


def _hardest_first(domains: Sequence[Domain], losses: Tensor, setting: Setting) -> tuple[tuple[Domain, ...], Tensor]:
    """Return the domains with the images of the split sorted by falling loss, and their indices in `losses`."""
    sorted_domains, indices, start = [], [], 0
    for domain in domains:
        rows = domain.rows(setting.split, setting.images)
        order = losses[start : start + len(rows)].argsort(descending=True, stable=True)
        sorted_domains.append(replace(domain, splits={setting.split: rows[order]}))
        indices.append(start + order)
        start += len(rows)
    return tuple(sorted_domains), torch.cat(indices)


def _filter_curve(study: Study, setting: Setting, *, name: str) -> LossCurve:
    scorer: Any = setting.scorer
    scores = study.score(scorer, seed=setting.seed)

    def mask_of(share: float) -> Mask:
        return allocate(scores, ratio=1 - share, scope=setting.scope)

    def measure(share: float, most: float) -> Generator[object, None, Tensor]:
        mask = None if share == 1.0 else mask_of(share)
        norm: Any = setting.batchnorm
        losses = []
        for domain in study.sources:
            steps = study.steps(mask, domain=domain.name, split=setting.split, batchnorm=norm, images=setting.images)
            try:
                losses.append((yield from steps).loss)
            except DgpruneError as error:
                if mask is None or "infinite logits" not in str(error):
                    raise
                losses.append(torch.full((len(domain.rows(setting.split, setting.images)),), torch.inf))
        return torch.cat(losses)

    return LossCurve(measure, step=setting.step, name=name, removed=lambda share: mask_of(share).ratio_achieved)


def curve_rows(
    study: Study, curve: LossCurve, *, setting: Setting, search: Search, tolerances: Sequence[float]
) -> Rows:
    """Return the rows of one network, from its measured curve: the losses, and the prunability for each tolerance."""
    shares, means = curve.points
    scorer: Any = setting.scorer
    shared = {
        "network": curve.name,
        "granularity": setting.granularity,
        "search": search,
        "interval": "images" if curve.refuse is None else None,
        "scorer": getattr(scorer, "scorer", getattr(scorer, "name", scorer)),
        "scope": setting.scope,
        "budget": "parameters" if setting.granularity == "weight" else "filters",
        "batchnorm": batchnorm_cell(study, setting.batchnorm),
        "seed": setting.seed if scorer == "random" or getattr(scorer, "draws", False) else None,
        "training_seed": study.training_seed,
        "training_loss": curve.full,
        "evaluations": len(shares),
        **pooled(study, setting.split, images=setting.images, reads=_reads(study, setting)),
    }
    grid, ends, intervals = search == "grid", {}, [(None, None)] * len(tolerances)
    if curve.refuse is None:
        ends, intervals = curve.intervals(), curve.resampled(tolerances, smallest=grid)
    rows: Rows = []
    for share, mean in zip(shares, means, strict=True):
        if share in curve.refused:
            continue
        low, high = ends.get(share, (None, None))
        removed = None if curve.removed is None else curve.removed(share)
        cells = {"fraction_kept": share, "ratio_requested": 1 - share, "ratio_achieved": removed}
        rows.append({**shared, **cells, "metric": "loss", "unit": "nats", "value": mean, "low": low, "high": high})
    for tolerance, (low, high) in zip(tolerances, intervals, strict=True):
        result = curve.read(tolerance)
        value = result.smallest if grid else result.contiguous_end
        cells = {
            "tolerance": tolerance,
            "fraction_kept": value,
            "contiguous_end": result.contiguous_end,
            "smallest": result.smallest if grid else None,
            "monotone": result.monotone if grid else None,
            "bracket_low": max((share for share in curve.shares_of(tolerance) if share < value), default=0.0),
            "isolated_feasible": _format_ranges(result.isolated_feasible) if grid else "not searched",
        }
        cells |= {"metric": "prunability", "unit": "share", "value": value, "low": low, "high": high}
        rows.append({**shared, **cells})
    return rows


def _reads(study: Study, setting: Setting) -> Mapping[str, Seen] | None:
    scorer: Any = setting.scorer
    if setting.granularity == "filter":
        scorer = study.score(scorer, seed=setting.seed)
    return getattr(scorer, "reads", {})


def _format_ranges(ranges: Sequence[tuple[float, float]]) -> str:
    return "; ".join(f"{low:g}" if low == high else f"{low:g} to {high:g}" for low, high in ranges) or "none"
