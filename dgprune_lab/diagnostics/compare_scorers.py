"""Which of several scorers, or of several trainings, gives the higher accuracy? Paired by image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..core import (
    BatchNorm,
    Budget,
    Count,
    DgpruneError,
    Domain,
    Mask,
    Outcomes,
    Provenance,
    Ratio,
    Repeats,
    Scope,
    Scores,
    Seed,
    tidy,
    unknown,
)
from ..pruning import allocate
from ..scorers import Scorer, resolve
from ..stats import Floats, crossed_difference, intervals
from ..study import Study
from ._contract import Row, Rows, Steps, diagnostic
from ._removal import Removal, check_names, mask_cells

EXTRA = ("against", "network", "draws")


@diagnostic(
    "compare_scorers", extra=EXTRA, cite="ours; Owen 2007, Annals of Applied Statistics 1, for images and draws"
)
def compare_scorers(
    study: Study,
    *,
    scorers: Sequence[str | Scorer | Scores],
    against: str | Scorer | Scores = "random",
    ratios: Sequence[Ratio] = (0.5,),
    scope: Scope = "layer",
    budget: Budget = "filters",
    batchnorm: BatchNorm = "recalibrate",
    split: str = "report",
    images: Count | None = None,
    draws: Repeats = 10,
    keep_silent: bool = False,
    seed: Seed = 0,
    progress: bool = False,
) -> Steps:
    """Compare scorers with a reference scorer, each pruning the same network at the same ratios.

    For each scorer, ratio and domain with labels, on the same images:

    accuracy     of the pruned network, in [0, 1]; for a scorer that draws, the mean over its draws.
    difference   accuracy of the scorer minus accuracy of `against`, in [-1, 1]: above 0 where the scorer is better.

    Intervals (95 %): for the accuracy over images; for a difference a paired bootstrap over images and, if a scorer
    draws, over its draws too.

    Args:
        study: the network and its domains.
        scorers: names, Scorers or Scores to compare.
        against: the reference scorer; "random" is the control.
        ratios, scope, budget: as in `allocate`.
        batchnorm: see `diagnostics.drop`.
        split, images: report on the first `images` images of this split; None for all.
        draws: number of masks of a scorer that draws, with seeds `seed`, `seed` + 1, ...; with fewer than 5 the
            intervals of differences are too narrow, see `stats.crossed_difference`.
        keep_silent: make a scorer that draws remove silent filters, whose mean activation on the sources' score split
            is 0, only after all others. Removing silent filters costs nothing: use this with a scorer that chooses
            among active filters; with one that removes silent filters first, it makes the draws look worse.
        seed: random seed of the first draw and of the bootstrap.
        progress: whether to show a progress bar.

    Returns:
        A tidy table with the columns `against`, `network` and `draws`.

    Raises:
        DgpruneError: no scorer, no ratio, no domain with labels; a scorer that draws, compared with itself.
    """
    if not scorers or not ratios:
        raise DgpruneError("compare_scorers needs at least one scorer, scorers=['l1'], and one ratio, ratios=[0.5].")
    check_names(scorers)
    named = [resolve(item) for item in scorers if not isinstance(item, Scores)]
    drawing = [item.name for item in named if item.draws]
    if not isinstance(against, Scores) and (name := resolve(against).name) in drawing:
        raise DgpruneError(
            f"scorers holds {name!r}, and against is {name!r} too: both would draw the same masks, so the difference "
            "would be 0 by construction. Leave it out of scorers; its accuracy is a row of the table anyway."
        )
    if not any(domain.labels is not None for domain in study.domains):
        raise DgpruneError("compare_scorers needs a domain with labels; this study has none.")
    removal = Removal(
        scorers=[against, *scorers],
        ratios=ratios,
        scope=scope,
        budget=budget,
        batchnorm=batchnorm,
        split=split,
        images=images,
        seed=seed,
    )
    return _compare(study, removal, draws=draws, keep_silent=keep_silent)


def _compare(study: Study, removal: Removal, *, draws: int, keep_silent: bool) -> Steps:
    """Measure, and return the table of `compare_scorers`; the first scorer of `removal` is the reference."""
    domains = [domain for domain in study.domains if domain.labels is not None]
    scores = [_draws(study, item, draws=draws, keep_silent=keep_silent, seed=removal.seed) for item in removal.scorers]
    options: Any = {"batchnorm": removal.batchnorm, "split": removal.split, "images": removal.images}
    rows: Rows = []
    done, total = 0, len(removal.ratios) * len(scores) * len(domains)
    for ratio in removal.ratios:
        masks = [
            [allocate(item, ratio=ratio, scope=removal.scope, budget=removal.budget) for item in runs]
            for runs in scores
        ]
        for domain in domains:
            baseline: Floats | None = None
            for runs in masks:
                correct = np.stack([_correct(study.outcomes(mask, domain=domain.name, **options)) for mask in runs])
                done += 1
                yield done, total
                cells = _row(study, runs[0], domain=domain, removal=removal, correct=correct)
                cells["ratio_achieved"] = float(np.mean([mask.ratio_achieved for mask in runs]))
                if runs[0].options.get("seed") is not None:
                    cells |= {"draws": len(runs), "seed": None}
                rows.append(cells)
                if baseline is None:
                    baseline = correct
                    continue
                value, low, high = crossed_difference(correct, baseline, seed=removal.seed)
                reference = {"metric": "difference", "against": masks[0][0].scorer}
                rows.append({**cells, **reference, "value": value, "low": low, "high": high})
    return tidy(rows, extra=EXTRA)


@diagnostic("compare_networks", extra=EXTRA)
def compare_networks(
    studies: Sequence[Study], *, domains: Sequence[str] | None = None, split: str = "report"
) -> pd.DataFrame:
    """Compare networks with the first one, on the same images of the domains that all studies have.

    Metrics: `accuracy` of each network, and `difference`, its accuracy minus that of the first network (`against`),
    with a paired bootstrap interval over images (95 %).

    Args:
        studies: two or more studies with different names; domains with the same name must hold the same images.
        domains: names of the domains to compare on; None for all labelled domains that the studies share.
        split: the split that is reported.

    Raises:
        DgpruneError: fewer than two studies, two with one name, no common domain with labels, a name in
            `domains` that is not one of these, different images under one name.
    """
    names = [] if isinstance(studies, Study) else [study.name for study in studies]
    if len(names) < 2 or len(set(names)) < len(names):
        raise DgpruneError(f"give two or more studies of different names, Study(..., name='...'); got {names}.")
    common = [
        domain.name
        for domain in studies[0].domains
        if domain.labels is not None
        and all(domain.name in [other.name for other in study.domains] for study in studies)
    ]
    if not common or (domains is not None and not len(domains)):
        raise DgpruneError("domains: give one or more that all studies have, with labels, or None for all of them.")
    chosen = common if domains is None else [domains] if isinstance(domains, str) else list(domains)
    if absent := [name for name in chosen if name not in common]:
        raise unknown("domain with labels in common", absent[0], common)
    rows: Rows = []
    for name in [name for name in common if name in chosen]:
        first = None
        for study in studies:
            if not _same_images(study.domain(name), studies[0].domain(name), split=split):
                raise DgpruneError(f"the studies hold different images as {name!r}; give all the same Domain.")
            outcomes = study.outcomes(None, domain=name, split=split)
            correct = _correct(outcomes)
            cells = _row(study, None, domain=study.domain(name), removal=Removal(split=split), correct=correct[None])
            rows.append(cells)
            if first is None:
                first = correct
                continue
            low, high = intervals.difference(correct, first)
            reference = {"metric": "difference", "against": names[0], "value": correct.mean() - first.mean()}
            rows.append({**cells, **reference, "low": low, "high": high})
    return tidy(rows, extra=EXTRA)


def _same_images(domain: Domain, reference: Domain, *, split: str) -> bool:
    """Return whether two domains hold the same images and labels, in the same order, in a split."""
    if domain.key == reference.key:
        return True
    rows, reference_rows = domain.rows(split), reference.rows(split)
    if len(rows) != len(reference_rows):
        return False
    for pair in zip(rows.split(256), reference_rows.split(256), strict=True):
        first, second = domain.take(pair[0]), reference.take(pair[1])
        if first.labels is None or second.labels is None or not torch.equal(first.labels, second.labels):
            return False
        if not torch.equal(first.images, second.images):
            return False
    return True


def _draws(study: Study, item: str | Scorer | Scores, *, draws: int, keep_silent: bool, seed: int) -> list[Scores]:
    """Return one Scores per draw for a scorer that draws, for any other scorer a single one."""
    if isinstance(item, Scores):
        return [item]
    item = resolve(item)
    if not item.draws:
        return [study.score(item)]
    scores_by_draw = [study.score(item, seed=seed + k) for k in range(draws)]
    if not keep_silent:
        return scores_by_draw
    activation, name = study.score("activation_l1"), f"{item.name}, silent filters kept"
    protected = []
    for scores in scores_by_draw:
        flat = torch.cat(list(scores.values.values()))
        offset = 1 + float(flat.max() - flat.min())
        values = {layer: value + offset * (activation.values[layer] <= 0) for layer, value in scores.values.items()}
        reads = Provenance(scorer=scores.reads).adding("scorer", activation.reads).scorer
        protected.append(Scores(name, values, graph=study.graph, options=scores.options, reads=reads))
    return protected


def _correct(outcomes: Outcomes) -> Floats:
    """Return (N,): 1 for each image classified correctly, else 0; the domain must have labels."""
    assert outcomes.correct is not None
    return outcomes.correct.double().cpu().numpy()


def _row(study: Study, mask: Mask | None, *, domain: Domain, removal: Removal, correct: Floats) -> Row:
    """Return the row of an accuracy from (D, N): 1 where a draw's network classifies an image correctly, else 0."""
    shared = mask_cells(study, mask, batchnorm=removal.batchnorm, domain=domain, split=removal.split)
    low, high = intervals.over_images(correct.mean(0))
    described = {"network": study.name, "images": correct.shape[1], "interval": "images", "unit": "share"}
    return {**shared, **described, "metric": "accuracy", "value": correct.mean(), "low": low, "high": high}
