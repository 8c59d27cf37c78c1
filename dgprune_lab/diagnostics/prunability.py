"""How little of a network is enough for its training data, which is said to predict how well it generalises?"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pandas as pd
import torch
from torch import Tensor

from ..core import DgpruneError, Mask, Scope, Scores, Seen, WeightScores, choice, note, progress_bar, tidy
from ..measurement import Norm, WeightMasking, WeightScorer
from ..pruning import allocate, private
from ..scorers import Scorer
from ..stats import unlike
from ..study import Study, checked_tolerances, named, pooled
from ._contract import diagnostic
from ._loss_curve import LossCurve

Granularity = Literal["weight", "filter"]
Search = Literal["grid", "fast"]
AnyScorer = str | Scorer | Scores | WeightScores
Row = dict[str, Any]
Steps = Generator[tuple[int, int], None, pd.DataFrame]

EXTRA = (
    "network",
    "granularity",
    "search",
    "fraction_kept",
    "tolerance",
    "training_loss",
    "smallest",
    "contiguous",
    "bracket_low",
    "monotone",
    "islands",
    "evaluations",
)


@dataclass(frozen=True)
class Setting:
    """How networks are thinned and on what their loss is measured; checked when it is made."""

    scorer: AnyScorer = "l1"
    granularity: Granularity = "weight"
    scope: Scope = "global"
    batchnorm: Norm = "as_is"
    step: float = 0.01
    images: int | None = None
    split: str = "train"
    seed: int = 0

    def __post_init__(self) -> None:
        choice("granularity", self.granularity, Granularity)
        choice("scope", self.scope, Scope)
        choice("batchnorm", self.batchnorm, Norm)
        if self.granularity == "filter" and self.batchnorm == "fold":
            raise DgpruneError(
                "a removed filter takes its BatchNorm along, so there is nothing to fold with granularity='filter'; "
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
    tolerance: float | Sequence[float] = 0.1,
    scorer: AnyScorer = "l1",
    granularity: Granularity = "weight",
    scope: Scope = "global",
    batchnorm: Norm = "as_is",
    search: Search = "grid",
    step: float = 0.01,
    images: int | None = None,
    split: str = "train",
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """The smallest share of a network that keeps its training loss; lower is said to generalise better.

    P = min { a : L(keep the share a of highest scores) <= (1 + tolerance) L }, L the mean cross-entropy over the train
    parts of all sources together, in eval mode, without augmentation. It compares only networks of equal L.

    Args:
        studies: one or several networks with their sources; targets are not read.
        tolerance: how much the loss may grow, as a share of L; several are read off the same curve, a row for each.
        scorer: of single weights "l1" (|w|, the paper's), "random" or WeightScores; of filters any scorer. What reads
            images reads the `score` part.
        granularity: "weight" zeroes single weights of convolution and linear layers, "filter" removes filters.
        scope: "global" the lowest scores anywhere, "layer" the same share of every layer.
        batchnorm: "as_is"; "fold": each BatchNorm is put into the layer before it first, and scores are of what
            results; "recalibrate": re-estimated on source images after each thinning, at a = 1 too, so that the limit
            refers to a network that was treated alike: L is then not that of the network as given.
        search: "grid" measures every share; "fast" only finds the lower end of the contiguous stretch that begins at 1,
            with at least five times fewer evaluations than a .01 grid, and looks for no islands below it.
        step: of the grid.
        images: only the first so many of each source.
        split: the part that L is measured on.
        seed: of scorers that draw.
        progress: draw a tqdm bar.

    Returns:
        A tidy table. Metric "loss" (nats): a row per share measured, column fraction_kept, interval over images.
        Metric "prunability" (share): a row per network and tolerance; value = smallest (grid) or contiguous (fast), its
        true place lies in (bracket_low, value]; training_loss = L; smallest is empty for fast; monotone tells whether
        smallest and contiguous agree, islands where they do not; low and high: images drawn again, read off again.

    Raises:
        DgpruneError: tolerance <= 0, an unknown choice, sources without labels, no weights to prune, a BatchNorm that
            cannot be folded, a training loss of 0 or one that is not finite.

    Source: abstract only; the search, the bracket and the intervals are ours.
    """
    setting = Setting(scorer, granularity, scope, batchnorm, step, images, split, seed)
    steps = prunability_steps(studies, setting=setting, tolerance=tolerance, search=search)
    return progress_bar(steps, progress=progress)


def prunability_steps(
    studies: Study | Sequence[Study],
    *,
    setting: Setting | None = None,
    tolerance: float | Sequence[float] = 0.1,
    search: Search = "grid",
) -> Steps:
    """`prunability` as a generator: yields (evaluations done, at most so many) between batches; returns the table.

    Raises:
        DgpruneError: as `prunability`, what can be known beforehand before the first step.
    """
    chosen = Setting() if setting is None else setting
    choice("search", search, Search)
    asked = checked_tolerances(tolerance)
    listed = named(studies, chosen.split, what="prunability")
    return _steps(dict(listed), chosen, asked, search)


def _steps(studies: Mapping[str, Study], setting: Setting, asked: Sequence[float], search: Search) -> Steps:
    rows: list[Row] = []
    losses: dict[str, float] = {}
    done = 0
    for name, study in studies.items():
        curve, most = loss_curve(study, setting, name=name), len(studies)
        most *= len(curve.grid) if search == "grid" else 1 + 2 * math.ceil(math.log2(len(curve.grid))) * len(asked)
        for work in [curve.fill()] if search == "grid" else [curve.bracket(one) for one in asked]:
            for _ in work:
                yield done + len(curve.losses), most
        done += len(curve.losses)
        say_broken(curve)
        losses[name] = curve.full
        rows += curve_rows(study, curve, setting=setting, search=search, tolerances=asked)
    if (words := unlike(losses)) is not None:
        note(words)
    return tidy(rows, extra=EXTRA)


def loss_curve(study: Study, setting: Setting, *, name: str) -> LossCurve:
    """The curve of one network, nothing of it measured yet.

    Raises:
        DgpruneError: what `Thinned` and the scorer refuse.
    """
    if setting.granularity == "filter":
        return _filter_curve(study, setting, name)
    twin = weight_masking(study, setting)

    def measure(share: float) -> Generator[None, None, Tensor]:
        twin.zero(share)
        return (yield from twin.losses(study.sources, split=setting.split, images=setting.images))

    return LossCurve(measure, step=setting.step, name=name, removed=lambda share: twin.gone(share) / twin.weights)


def weight_masking(study: Study, setting: Setting) -> WeightMasking:
    """The network of a study as a twin whose single weights can go."""
    if not (isinstance(setting.scorer, WeightScores) or setting.scorer in get_args(WeightScorer)):
        known = ", ".join(map(repr, get_args(WeightScorer)))
        raise DgpruneError(
            f"single weights are scored by {known} or by WeightScores of your own; got {setting.scorer!r}. A scorer of "
            "filters goes with granularity='filter'."
        )
    return WeightMasking(
        private(study.model).to(study.device),
        domains=study.sources,
        scorer=setting.scorer,  # type: ignore[arg-type]
        scope=setting.scope,
        batchnorm=setting.batchnorm,
        seed=setting.seed,
    )


def _filter_curve(study: Study, setting: Setting, name: str) -> LossCurve:
    scorer: Any = setting.scorer
    scores = study.score(scorer, seed=setting.seed)

    def mask_of(share: float) -> Mask:
        return allocate(scores, ratio=1 - share, scope=setting.scope)

    def measure(share: float) -> Generator[None, None, Tensor]:
        mask = None if share == 1.0 else mask_of(share)
        norm: Any = setting.batchnorm
        parts = []
        for domain in study.sources:
            steps = study.steps(mask, domain=domain.name, split=setting.split, batchnorm=norm, images=setting.images)
            try:
                parts.append((yield from steps).loss)
            except DgpruneError as error:
                if mask is None or "infinite logits" not in str(error):
                    raise
                parts.append(torch.full((len(domain.rows(setting.split, setting.images)),), torch.inf))
        return torch.cat(parts)

    return LossCurve(measure, step=setting.step, name=name, removed=lambda share: mask_of(share).ratio_achieved)


def curve_rows(
    study: Study, curve: LossCurve, *, setting: Setting, search: Search, tolerances: Sequence[float]
) -> list[Row]:
    """The rows of one network, from what is measured of its curve: its losses, and a read-off per tolerance."""
    shares, means = curve.points
    scorer: Any = setting.scorer
    shared = {
        "network": curve.name,
        "granularity": setting.granularity,
        "search": search,
        "interval": "images",
        "scorer": getattr(scorer, "scorer", getattr(scorer, "name", scorer)),
        "scope": setting.scope,
        "budget": "parameters" if setting.granularity == "weight" else "filters",
        "batchnorm": setting.batchnorm,
        "seed": setting.seed if scorer == "random" or getattr(scorer, "draws", False) else None,
        "training_seed": study.training_seed,
        "training_loss": curve.full,
        "evaluations": len(shares),
        **pooled(study, setting.split, setting.images, reads=_reads(study, setting)),
    }
    ends = curve.intervals()
    rows: list[Row] = [
        {
            **shared,
            "metric": "loss",
            "unit": "nats",
            "fraction_kept": share,
            "ratio_requested": 1 - share,
            "value": mean,
            "ratio_achieved": None if curve.removed is None else curve.removed(share),
            "low": ends.get(share, (None, None))[0],
            "high": ends.get(share, (None, None))[1],
        }
        for share, mean in zip(shares, means, strict=True)
    ]
    whole = search == "grid"
    for tolerance, (least, most) in zip(tolerances, curve.resampled(tolerances, whole=whole), strict=True):
        found = curve.read(tolerance)
        value = found.smallest if whole else found.contiguous
        rows.append(
            {
                **shared,
                "metric": "prunability",
                "unit": "share",
                "tolerance": tolerance,
                "value": value,
                "low": least,
                "high": most,
                "fraction_kept": value,
                "contiguous": found.contiguous,
                "smallest": found.smallest if whole else None,
                "monotone": found.monotone if whole else None,
                "bracket_low": max((share for share in shares if share < value), default=0.0),
                "islands": _in_words(found.islands) if whole else "not searched",
            }
        )
    return rows


def _reads(study: Study, setting: Setting) -> Mapping[str, Seen] | None:
    if setting.granularity == "filter":
        scorer: Any = setting.scorer
        return study.score(scorer, seed=setting.seed).reads
    return setting.scorer.reads if isinstance(setting.scorer, WeightScores) else {}


def _in_words(islands: Sequence[tuple[float, float]]) -> str:
    return "; ".join(f"{low:g}" if low == high else f"{low:g} to {high:g}" for low, high in islands) or "none"


def say_broken(curve: LossCurve) -> None:
    """Say aloud where the loss was not finite."""
    if curve.broken:
        note(
            f"{curve.name}: the loss is not finite with {len(curve.broken)} of the {len(curve.losses)} shares that "
            "were measured; they count as above the limit."
        )
