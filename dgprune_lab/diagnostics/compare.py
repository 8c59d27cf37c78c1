"""Which of two choices of filters, or of two networks, classifies better? Paired by image."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ..core import BatchNorm, Budget, DgpruneError, Domain, Mask, Scope, Scores, roles_of, tidy
from ..pruning import allocate
from ..scorers import Scorer, resolve
from ..stats import crossed_difference, intervals
from ..study import Study, mask_columns, mask_provenance
from ._contract import diagnostic

EXTRA = ("against", "network", "draws")
Floats = NDArray[np.float64]
Steps = Generator[tuple[int, int], None, pd.DataFrame]


@diagnostic("compare", extra=EXTRA, cite="ours; Owen 2007, Annals of Applied Statistics 1, for images and draws")
def compare(
    study: Study,
    *,
    scorers: Sequence[str | Scorer | Scores],
    against: str | Scorer | Scores = "random",
    ratios: Sequence[float] = (0.5,),
    scope: Scope = "layer",
    budget: Budget = "filters",
    batchnorm: BatchNorm = "recalibrate",
    split: str = "report",
    images: int | None = None,
    draws: int = 10,
    keep_silent: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Steps:
    """Compare scorers with one of them, each pruning the same network at the same ratios.

    Per scorer, ratio and domain with labels, from the same images:

    accuracy     of the pruned network, in [0, 1]; of a scorer that draws, the mean over its draws.
    difference   accuracy of the scorer minus accuracy of `against`, in [-1, 1]: above 0 where the scorer is better.

    Intervals (95 %): of the accuracy over images; of a difference a paired bootstrap over images and, where a scorer
    draws, over its draws too.

    Args:
        study: network and domains.
        scorers: names, Scorers or Scores to compare.
        against: what they are compared with; "random" is the control.
        ratios, scope, budget: as in `allocate`.
        batchnorm: of the pruned networks; ignored where the network has no BatchNorm.
        split, images: the images that are reported, all or the first so many.
        draws: masks of a scorer that draws, with seeds `seed`, `seed` + 1, ...
        keep_silent: let a scorer that draws remove filters whose mean activation on the sources' score split is 0 only
            after all others. A draw that removes silent filters costs nothing: this control is the harder one.
        seed: of the first draw and of the bootstrap.
        progress: show a progress bar.

    Returns:
        A tidy table with the columns `against`, `network` and `draws`.

    Raises:
        DgpruneError: no scorer, no domain with labels, draws below 1.
    """
    if not scorers or draws < 1:
        raise DgpruneError(f"compare needs at least one scorer and one draw; got {len(scorers)} and {draws}.")
    domains = [domain for domain in study.domains if domain.labels is not None]
    if not domains:
        raise DgpruneError("compare needs a domain with labels; this study has none.")
    items = [item if isinstance(item, Scores) else resolve(item) for item in (against, *scorers)]
    setting: BatchNorm = batchnorm if study.has_batchnorm else "as_is"

    def correct(masks: Sequence[Mask], domain: Domain) -> Floats:
        """(D, N) of 0 and 1: a row per mask."""
        options = {"domain": domain.name, "batchnorm": setting, "split": split, "images": images}
        rows = [study.outcomes(mask, **options).correct for mask in masks]
        return np.stack([row.double().cpu().numpy() for row in rows if row is not None])

    def steps() -> Steps:
        rows: list[dict[str, Any]] = []
        done, total = 0, len(ratios) * len(items) * len(domains)
        scores = [_scores(study, item, draws=draws, keep_silent=keep_silent, seed=seed) for item in items]
        for ratio in ratios:
            masks = [[allocate(each, ratio=ratio, scope=scope, budget=budget) for each in drawn] for drawn in scores]
            for domain in domains:
                baseline: Floats | None = None
                for mine in masks:
                    values = correct(mine, domain)
                    done += 1
                    yield done, total
                    shared = _columns(study, mine, domain, split=split, batchnorm=setting, images=values.shape[1])
                    low, high = intervals.over_images(values.mean(0))
                    rows.append({**shared, "metric": "accuracy", "value": values.mean(), "low": low, "high": high})
                    if baseline is None:
                        baseline = values
                        continue
                    value, low, high = crossed_difference(values, baseline, seed=seed)
                    cells = {"metric": "difference", "against": masks[0][0].scorer}
                    rows.append({**shared, **cells, "value": value, "low": low, "high": high})
        return tidy(rows, extra=EXTRA)

    return steps()


@diagnostic("compare_networks", extra=EXTRA)
def compare_networks(
    studies: Sequence[Study], *, domains: Sequence[str] | None = None, split: str = "report"
) -> pd.DataFrame:
    """Compare networks with the first one, on the same images of the domains that all studies have.

    Rows: `accuracy` of each network, and `difference`, its accuracy minus that of the first (`against`), with a paired
    bootstrap interval over images (95 %).

    Args:
        studies: two or more, of different names; domains of one name hold the same images.
        domains: names; all that the studies share, with labels, where not given.
        split: the split that is reported.

    Raises:
        DgpruneError: fewer than two studies, two of one name, no common domain with labels, other images under one
            name.
    """
    names = [study.name for study in studies]
    if len(names) < 2 or len(set(names)) < len(names):
        raise DgpruneError(f"give two or more studies of different names, Study(..., name='...'); got {names}.")
    common = [
        domain.name
        for domain in studies[0].domains
        if domain.labels is not None
        and (domains is None or domain.name in domains)
        and all(domain.name in [other.name for other in study.domains] for study in studies)
    ]
    if not common:
        raise DgpruneError("the studies have no domain with labels in common.")
    rows: list[dict[str, Any]] = []
    for name in common:
        first, correct = studies[0].outcomes(None, domain=name, split=split), []
        for study in studies:
            outcomes = study.outcomes(None, domain=name, split=split)
            if outcomes.labels is None or first.labels is None or not torch.equal(outcomes.labels, first.labels):
                raise DgpruneError(f"the studies hold different images as {name!r}; give all the same Domain.")
            values = (outcomes.predicted == outcomes.labels).double().cpu().numpy()
            correct.append(values)
            low, high = intervals.over_images(values)
            shared = _columns(study, [], study.domain(name), split=split, batchnorm="as_is", images=len(values))
            rows.append({**shared, "metric": "accuracy", "value": values.mean(), "low": low, "high": high})
            if len(correct) > 1:
                low, high = intervals.difference(values, correct[0])
                cells = {"metric": "difference", "against": names[0], "value": values.mean() - correct[0].mean()}
                rows.append({**shared, **cells, "low": low, "high": high})
    return tidy(rows, extra=EXTRA)


def _scores(study: Study, item: Scorer | Scores, *, draws: int, keep_silent: bool, seed: int) -> list[Scores]:
    """One Scores, or one per draw of a scorer that draws."""
    if isinstance(item, Scores):
        return [item]
    if not item.draws:
        return [study.score(item)]
    drawn = [study.score(item, seed=seed + k) for k in range(draws)]
    if not keep_silent:
        return drawn
    activation = study.score("activation_l1")
    kept = []
    for scores in drawn:
        top = 1 + max(float(value.max()) for value in scores.values.values())
        values = {name: value + top * (activation.values[name] <= 0) for name, value in scores.values.items()}
        name = f"{item.name}, silent filters kept"
        kept.append(Scores(name, values, study.graph, options=scores.options, reads=activation.reads))
    return kept


def _columns(
    study: Study, masks: Sequence[Mask], domain: Domain, *, split: str, batchnorm: BatchNorm, images: int
) -> dict[str, Any]:
    """The cells that the rows of one choice on one domain share."""
    provenance, cells = study.provenance, {}
    if masks:
        provenance = mask_provenance(provenance, masks[0], batchnorm=batchnorm, study=study)
        cells = {**mask_columns(masks[0]), "ratio_achieved": float(np.mean([mask.ratio_achieved for mask in masks]))}
        cells |= {"draws": len(masks)} if masks[0].options.get("seed") is not None else {}
    return {
        **cells,
        "batchnorm": batchnorm,
        "training_seed": study.training_seed,
        "network": study.name,
        "domain": domain.name,
        "role": domain.role,
        "split": split,
        "images": images,
        "interval": "images",
        "unit": "share",
        **provenance.columns(domain.name, split, roles=roles_of(study.domains)),
    }
