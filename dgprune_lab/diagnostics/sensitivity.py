"""Which filters are sensitive to the domain? Attributions per filter, compared between two domains class by class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import Count, Scores, Seed, roles_of, tidy
from ..measurement import Method
from ..scorers import Scorer
from ..stats import ALL, LEAST, correlations, filled, intervals, over_filters
from ..study import Study, batchnorm_cell
from ._attributions import Attributions, attribution_steps
from ._contract import Rows, Steps, diagnostic
from ._removal import check_names
from .agreement import target_aware

EXTRA = ("method", "group", "filter", "other", "q_value")
IMAGES = 500


@diagnostic(
    "sensitivity",
    extra=EXTRA,
    cite="attributions by Captum: Kokhlikyan et al. 2020, arXiv:2009.07896; effect size: Cohen 1988, chapter 2; "
    "q values: Benjamini, Hochberg 1995; comparing domains per filter is ours",
)
def sensitivity(
    study: Study,
    *,
    method: Method = "gradient_x_activation",
    between: tuple[str, str] | None = None,
    layers: Sequence[str] | None = None,
    scorers: Sequence[str | Scorer | Scores] = (),
    images: Count | None = IMAGES,
    split: str = "score",
    seed: Seed = 0,
    progress: bool = False,
) -> Steps:
    """Estimate how differently each filter contributes to the true class's logit on two domains, within classes.

    An attribution is computed for each image and filter, summed over positions (`Attributor.values`). For each filter:

    attribution  the mean attribution over the images of each domain, in logits ("activation": in the layer's own unit),
                 with a bootstrap interval.
    cohens_d     the effect size: in each class that both domains have, (mean on `domain` - mean on `other`) / pooled
                 standard deviation, then the mean over classes, each with the same weight. Above 0 the filter
                 contributes more on `domain`. 0 for a filter that is never active; empty without any spread.
                 Below 1e-5 of the layer's largest contributions, values are rounding errors and count as 0.
    auroc        within each class the probability that an image of `domain` has the larger attribution (ties half),
                 then the mean over classes; .5 where the domains do not differ.
    score        the filter's score by each of `scorers`.
    rank_correlation, rank_correlation_active  Spearman's correlation over filters of |d| with *minus* the score, with a
                 bootstrap interval over filters; over the filters of all layers together, and over the active ones
                 among them: those whose attribution varies within a class. (The others, silent or with a constant
                 output, have d = 0 by definition, and many scorers remove them together, first or last.) 1 = the most
                 sensitive filters are removed first.

    Rank by the effect size, and ignore filters whose interval covers 0. `q_value` (Benjamini and Hochberg 1995, for the
    tests that the AUROC is .5) is secondary: at 500 images nearly every filter differs significantly. Labels of both
    domains are read: with a target, the numbers are target-aware. A sensitive filter need not be harmful: remove it
    and measure.

    If the k-th images of both domains show the same object, as in mnist and mnist_m, the intervals are too wide (on the
    demo by a tenth), because images are resampled as if they were unrelated.

    Memory: about 192 MB while Captum runs, or what one image takes if that is more; 4 bytes per image and filter.

    Args:
        method: attribution method. "gradient_x_activation" and "activation" take one pass over the images for all
            layers; the others take 20 passes per layer ("integrated_gradients", "conductance") or one pass per filter
            ("ablation"). "integrated_gradients" and "conductance" attribute to a group's output before its ReLU (after
            its BatchNorm, if there is one) and would differ after it; "gradient_x_activation" and "ablation" are the
            same before and after a ReLU, and "activation" is the input of the next layer.
        between: names of two domains; None for the first source and the first target (or second source).
        layers: names of groups; None for all.
        scorers: scorers whose removal order is compared with the effect sizes.
        split: the split that is read; not "report" if accuracy after removal is to be reported on it.
        seed: random seed of the bootstraps.
        study, images, progress: see `diagnostics.drop`.

    Returns:
        A tidy table; extra columns method, group, filter, other, q_value.

    Raises:
        DgpruneError: fewer than two domains, no labels, no class in common, an unknown layer, non-finite logits.
    """
    data = yield from attribution_steps(
        study, method=method, between=between, layers=layers, images=images, split=split
    )
    rows = effect_rows(study, data, seed=seed)
    scores = study.score_all(scorers, seed=seed)
    check_names(scores)
    if scores:
        rows += _scorer_rows(study, data, effects=_effect_magnitudes(rows), scores=scores, seed=seed)
    return tidy(rows, extra=EXTRA).astype({"filter": "Int64", "q_value": "float64"})


def effect_rows(study: Study, data: Attributions, *, seed: int) -> Rows:
    """Return the rows of `sensitivity`, except those about scorers."""
    d, area, q = data.estimates(seed=seed)
    provenance, roles = data.provenance(study), roles_of(study.domains)
    shared = {"method": data.method, "split": data.split, "interval": "images", "seed": seed}
    shared |= {"batchnorm": batchnorm_cell(study, "as_is"), "training_seed": study.training_seed}
    cells = []
    for domain, images in zip(data.pair, data.rows, strict=True):
        described = {"domain": domain.name, "role": domain.role, "images": len(images)}
        cells.append({**shared, **described, **provenance.columns(domain.name, data.split, roles=roles)})
    keys = [{"group": name, "filter": k} for name, pair in data.values.items() for k in range(pair[0].shape[1])]
    rows: Rows = []

    def make_rows(side: int, estimate: Iterable[Iterable[float]], **extra: Any) -> Rows:
        numbers = zip(keys, *estimate, strict=True)
        return [{**cells[side], **key, "value": v, "low": low, "high": high, **extra} for key, v, low, high in numbers]

    unit = "response" if data.method == "activation" else "logits"
    for side in (0, 1):
        values = data.stacked(side)
        means = [column.mean() for column in values.T]
        rows += make_rows(side, (means, *intervals.over_images(values)), metric="attribution", unit=unit)
    for metric, estimate, unit in (("cohens_d", d, "standard deviations"), ("auroc", area, "probability")):
        effects = make_rows(1, estimate, metric=metric, unit=unit, other=data.pair[0].name)
        rows += [{**row, "q_value": value} for row, value in zip(effects, q, strict=True)]
    return rows


def _scorer_rows(
    study: Study, data: Attributions, *, effects: Mapping[str, Tensor], scores: Sequence[Scores], seed: int
) -> Rows:
    """Return the rows of each scorer's scores, and the rank correlation of its removal order with the effect sizes."""
    rows: Rows = []
    provenance, active = data.provenance(study), data.active()
    for item in scores:
        shared = {"method": data.method, "scorer": item.scorer, "other": data.pair[0].name}
        shared |= {"seed": item.options.get("seed"), "target_aware": target_aware(study, item)}
        shared["batchnorm"] = batchnorm_cell(study, "as_is")
        for name in effects:
            cells = {**shared, "group": name, "metric": "score", "unit": "score"}
            rows += [{**cells, "filter": k, "value": value} for k, value in enumerate(item.values[name].tolist())]
        order = {name: -item.values[name] for name in effects}
        aware = target_aware(study, item, provenance=provenance)
        shared |= {"target_aware": aware, "group": ALL, "unit": "correlation"}
        for metric, chosen in (("rank_correlation", None), ("rank_correlation_active", active)):
            pair = [
                {name: part if chosen is None else part[chosen[name]] for name, part in values.items()}
                for values in (effects, order)
            ]
            value = low = high = np.nan
            if sum(map(len, pair[0].values())) >= LEAST:
                value = correlations(*pair, scope="global")[ALL]
                low, high = (end[0, 1] for end in over_filters(pair, scope="global", seed=seed))
            rows.append({**shared, "metric": metric, "interval": "filters", "value": value, "low": low, "high": high})
    return rows


def _effect_magnitudes(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return layer -> (C,) |d|; a filter without any spread gets the largest |d| of the network."""
    sizes: dict[str, list[float]] = {}
    for row in rows:
        if row["metric"] == "cohens_d":
            sizes.setdefault(row["group"], []).append(float(row["value"]))
    return filled({name: torch.tensor(layer, dtype=torch.float64) for name, layer in sizes.items()})
