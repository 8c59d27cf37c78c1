"""Does a choice of filters beat the best of several scorers, after the same fine-tuning?"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from ..core import BatchNorm, Count, DgpruneError, Mask, Reads, Seed, Whole, yielding
from ..pruning import allocate, prune
from ..scorers import SCORERS, Scorer, resolve
from ..study import Study
from ..training import TrainingOptions, prune_and_tune, with_network
from ._contract import Steps, diagnostic
from .compare import EXTRA, compare

SPLIT = "score"
_DEFAULTS = ("l1", "bn_scale", "taylor", "dss_sources", "risk_variance")
_PARTS = 4  # scoring, two fine-tunings, comparing


@diagnostic("against_scorers", extra=EXTRA)
def against_scorers(
    study: Study,
    mask: Mask,
    *,
    scorers: Sequence[str | Scorer] | None = None,
    epochs: Whole = 1,
    options: TrainingOptions | None = None,
    batchnorm: BatchNorm = "recalibrate",
    seed: Seed = 0,
    images: Count | None = None,
    progress: bool = False,
) -> Steps:
    """Compare a choice of filters, such as `explorer.mask`, with the best of several scorers, after equal fine-tuning.

    Every scorer removes as large a share of filters as the mask does, the same share in each layer. The best has the
    highest accuracy right after removal, averaged over the sources on their `score` splits, as `selection` of its mask
    records; targets and reported images play no part in this. Then both choices are pruned from the
    full network and fine-tuned on the sources with the same order of images.

    Args:
        study: the network and its domains.
        mask: the choice: `explorer.mask`, or `Mask.by_hand(...)`.
        scorers: names or Scorers; None for those of "l1", "bn_scale", "taylor", "dss_sources" and
            "risk_variance" that can run on this study.
        epochs: epochs of fine-tuning; 0 only prunes.
        options, batchnorm: options of fine-tuning, and of BatchNorm in all steps, see `dg.prune_and_tune`.
        seed: random seed of the scorers and of the order of the images.
        images: report on the first `images` images of each domain only.
        progress: whether to show a progress bar.

    Returns:
        The table of `diagnostics.compare`, for `charts.compare`: `a` is the mask, `b` the best scorer, whose name
        is in the column `scorer` of its rows. A `difference` above 0: the mask is better. Its intervals are
        over images; another training or another fine-tuning may reverse a small difference.

    Raises:
        DgpruneError: a mask that removes no filter, or of another network; no scorer; a source without labels or
            `score` split; what `dg.prune_and_tune` refuses.
    """
    available = [name for name in _DEFAULTS if study.unavailable(SCORERS[name]) is None]
    items = [resolve(item) for item in (available if scorers is None else scorers)]
    if not items:
        raise DgpruneError("against_scorers needs at least one scorer in scorers=; got none.")
    if not mask.ratio_achieved:
        raise DgpruneError("mask removes no filter, so every scorer would leave the same network; remove some first.")
    for domain in study.sources:
        if domain.labels is None:
            raise DgpruneError(f"the source {domain.name!r} has no labels, which the choice of the best scorer needs.")
        domain.rows(SPLIT)
    finetuning: Any = {"epochs": epochs, "options": options, "batchnorm": batchnorm, "seed": seed, "images": images}
    return _steps(study, mask, items=items, finetuning=finetuning)


def _steps(study: Study, mask: Mask, *, items: Sequence[Scorer], finetuning: dict[str, Any]) -> Steps:
    """Choose the scorer, fine-tune both networks, compare; yields (done, total, what)."""
    choosing = _best_mask(study, mask, items=items, finetuning=finetuning)
    best = yield from yielding(choosing, (0, _PARTS, "choosing the scorer"))
    networks = []
    for chosen in (mask, best):
        pruned = with_network(study, prune(study.model, chosen))
        steps = prune_and_tune.steps(pruned, None, ratio=0.0, rounds=1, measure="end", **finetuning)
        tuned = yield from yielding(steps, (1 + len(networks), _PARTS, "fine-tuning"))
        networks.append(tuned.network)
    comparing = compare.steps(study, *networks, images=finetuning["images"])
    return (yield from yielding(comparing, (_PARTS - 1, _PARTS, "comparing")))


def _best_mask(
    study: Study, mask: Mask, *, items: Sequence[Scorer], finetuning: dict[str, Any]
) -> Generator[Any, None, Mask]:
    """Return the mask of the scorer with the highest accuracy on the sources, the first in a tie."""
    reads: Reads = {f"{domain.name}/{SPLIT}": "labels" for domain in study.sources}
    accuracy_of: dict[Mask, float] = {}
    for item in items:
        candidate = allocate(study.score(item, seed=finetuning["seed"]), ratio=mask.ratio_achieved)
        accuracies = []
        for domain in study.sources:
            steps = study.steps(candidate, domain=domain.name, split=SPLIT, batchnorm=finetuning["batchnorm"])
            accuracies.append((yield from yielding(steps, None)).accuracy)
            yield None
        accuracy_of[candidate] = sum(accuracies) / len(accuracies)
    return replace(max(accuracy_of, key=lambda candidate: accuracy_of[candidate]), selection=reads)
