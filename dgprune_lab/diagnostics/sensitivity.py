"""Which filters notice the domain? Captum's attributions per filter, compared between two domains, class by class."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import DgpruneError, Domain, Provenance, Scores, Seen, choice, progress_bar, roles_of, tidy
from ..measurement import Attributor, Method
from ..pruning import private
from ..scorers import Scorer
from ..stats import ALL, LEAST, Estimate, auroc, cohens_d, correlations, intervals, over_filters, p_values, q_values
from ..study import Study
from ._contract import diagnostic
from .agreement import check_names, target_aware

EXTRA = ("method", "group", "filter", "other", "q_value")
IMAGES = 500

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Attributed:
    """One attribution per image and filter, on two domains.

    Attributes:
        method: how it was made.
        pair: the domain that is compared with, and the one that is compared.
        split: the part that was read.
        rows: row numbers of the images in each domain.
        values: layer -> ((N, C), (M, C)) float32.
        labels: true classes, (N,) and (M,).
    """

    method: Method
    pair: tuple[Domain, Domain]
    split: str
    rows: tuple[Tensor, Tensor] = field(repr=False)
    values: Mapping[str, tuple[Tensor, Tensor]] = field(repr=False)
    labels: tuple[NDArray[np.int64], NDArray[np.int64]] = field(repr=False)

    def estimates(self, *, seed: int) -> tuple[Estimate, Estimate, Floats]:
        """Cohen's d, AUROC and q values of all filters, the layers one after the other."""
        first, second = (
            np.concatenate([held[side].double().numpy() for held in self.values.values()], axis=1) for side in (0, 1)
        )
        d = cohens_d(first, second, labels=self.labels, seed=seed)
        area = auroc(first, second, labels=self.labels)
        return d, area, q_values(p_values(first, second, labels=self.labels))


@diagnostic(
    "sensitivity",
    extra=EXTRA,
    cite="attributions by Captum: Kokhlikyan et al. 2020, arXiv:2009.07896; effect size: Cohen 1988, chapter 2; "
    "comparing domains per filter is ours",
)
def sensitivity(
    study: Study,
    *,
    method: Method = "gradient_x_activation",
    between: tuple[str, str] | None = None,
    layers: Sequence[str] | None = None,
    scorers: Sequence[str | Scorer | Scores] = (),
    images: int | None = IMAGES,
    split: str = "score",
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """How differently each filter contributes to the true class's logit on two domains, compared within classes.

    An attribution per image and filter, summed over places (`attributions.Attributor.values`), then per filter:

    attribution  its mean over the images, per domain, in logits ("activation": in the layer's own unit), with a
                 bootstrap interval.
    cohens_d     within each class that both domains have, (mean on `domain` - mean on `other`) / pooled standard
                 deviation, then the mean over classes, each with the same weight: the effect size. Above 0: it
                 contributes more on `domain`. 0 where a filter never answers; empty where it has no spread at all.
    auroc        within each class the probability that an image of `domain` has the larger attribution (ties half),
                 then the mean over classes; .5 where nothing tells the domains apart.
    score        for each of `scorers`, its scores.
    rank_correlation, rank_correlation_answering  Spearman's correlation of |d| with *minus* the score, with a bootstrap
                 interval over filters, of all filters and of those that answer to any image (one that never does
                 notices nothing and often goes first): 1 = it removes those first that notice most.

    Rank by the effect size, and trust no filter whose interval covers 0. `q_value` (Benjamini and Hochberg 1995, of
    the tests that the AUROC is .5) is secondary: at 500 images nearly every filter differs "significantly".
    This reads labels of both domains. Where one is a target, the numbers are target-aware. A filter that notices the
    domain need not be harmful: remove it and measure.

    Where the k-th images of both domains show the same thing, as those of mnist and mnist_m, the intervals are too wide
    (on the demo by a tenth): images are drawn as if they were not related.

    Memory: about 192 MB while Captum runs, or what one image takes if that is more; 4 bytes per image and filter.

    Args:
        study: model and domains.
        method: "gradient_x_activation" and "activation" take one pass over the images for all layers; the others one
            per layer times 20 steps ("integrated_gradients", "conductance") or times filters ("ablation").
        between: names of two domains; the first source and the first target (or second source) if None.
        layers: names of groups; all if None.
        scorers: to compare with.
        images: the first so many of the part, per domain; all if None.
        split: the part that is read; not "report", on which accuracy after removal would then be shown.
        seed: of the bootstraps.
        progress: a bar.

    Returns:
        A tidy table; columns method, group, filter, other, q_value.

    Raises:
        DgpruneError: fewer than two domains, no labels, no class in common, an unknown layer, non-finite logits.
    """
    steps = attribution_steps(study, method=method, between=between, layers=layers, images=images, split=split)
    held = progress_bar(steps, progress=progress)
    rows = effect_rows(study, held, seed=seed)
    scores = study.score_all(scorers, seed=seed)
    check_names([one.scorer for one in scores])
    if scores:
        rows += against_rows(study, held, rows, scores=scores, seed=seed)
    return tidy(rows, extra=EXTRA).astype({"filter": "Int64", "q_value": "float64"})


def pair_of(study: Study, between: tuple[str, str] | None) -> tuple[Domain, Domain]:
    """The two domains that are compared.

    Raises:
        DgpruneError: there are no two, they are one, or one has no labels.
    """
    if between is None:
        listed = [*study.sources[:1], *study.targets[:1], *study.sources[1:2]]
        if len(listed) < 2:
            raise DgpruneError("sensitivity compares two domains and the study has one; add a target or a source.")
        pair = listed[0], listed[1]
    else:
        if len(between) != 2 or between[0] == between[1]:
            raise DgpruneError(f"between names two different domains, ('mnist', 'mnist_m'); got {between!r}.")
        pair = study.domain(between[0]), study.domain(between[1])
    for domain in pair:
        if domain.labels is None:
            raise DgpruneError(
                f"domain {domain.name!r} has no labels; attributions are to the logit of the true class, and domains "
                "are compared class by class."
            )
    return pair


def attributor(study: Study) -> Attributor:
    """The study's network, ready for Captum."""
    model = private(study.model).to(study.device)
    example = study.domains[0].take(torch.arange(min(2, len(study.domains[0]))), device=study.device).images
    return Attributor(model, study.graph, example=example)


def attribution_steps(
    study: Study,
    *,
    method: Method,
    between: tuple[str, str] | None,
    layers: Sequence[str] | None,
    images: int | None,
    split: str,
    by: Attributor | None = None,
) -> Generator[tuple[int, int], None, Attributed]:
    """Attributions on both domains; yields (done, total) between calls of Captum.

    Args:
        study, method, between, layers, images, split: as of `sensitivity`.
        by: an attributor of the study's network that is ready.
    """
    choice("method", method, Method)
    pair = pair_of(study, between)
    listed = study.graph.names if layers is None else [layers] if isinstance(layers, str) else layers
    names = [study.graph[name].name for name in listed]
    if not names:
        raise DgpruneError("sensitivity needs at least one layer; layers=None takes all.")
    by = attributor(study) if by is None else by
    rows = pair[0].rows(split, images), pair[1].rows(split, images)
    size, together = by.batch_size(method), method in ("gradient_x_activation", "activation")
    calls = [names] if together else [[name] for name in names]
    total, done = len(calls) * sum(-(-len(held) // size) for held in rows), 0
    found: dict[str, tuple[list[Tensor], list[Tensor]]] = {name: ([], []) for name in names}
    for side, domain in enumerate(pair):
        for part in rows[side].split(size):
            batch = domain.take(part, device=study.device)
            for call in calls:
                for name, values in by.values(batch, method=method, layers=call).items():
                    if not torch.isfinite(values).all():
                        raise DgpruneError(
                            f"the network gives NaN or infinite attributions on domain {domain.name!r}; check the "
                            "domain's images and the network's weights."
                        )
                    found[name][side].append(values)
                done += 1
                yield done, total
    labels = [_labels(domain, held) for domain, held in zip(pair, rows, strict=True)]
    values = {name: (torch.cat(first), torch.cat(second)) for name, (first, second) in found.items()}
    return Attributed(method, pair, split, rows, values, (labels[0], labels[1]))


def effect_rows(study: Study, held: Attributed, *, seed: int) -> list[dict[str, Any]]:
    """The rows of `sensitivity` without those about scorers."""
    d, area, q = held.estimates(seed=seed)
    first = held.pair[0]
    record, roles = _record(study, held), roles_of(study.domains)
    places = [(name, k) for name, (values, _) in held.values.items() for k in range(values.shape[1])]
    shared = {
        "method": held.method,
        "split": held.split,
        "interval": "images",
        "training_seed": study.training_seed,
        "seed": seed,
    }
    about = [
        {
            **shared,
            "domain": domain.name,
            "role": domain.role,
            "images": len(rows),
            **record.columns(domain.name, held.split, roles=roles),
        }
        for domain, rows in zip(held.pair, held.rows, strict=True)
    ]
    rows: list[dict[str, Any]] = []
    unit = "response" if held.method == "activation" else "logits"
    for side in (0, 1):
        values = np.concatenate([pair[side].double().numpy() for pair in held.values.values()], axis=1)
        low, high = intervals.over_images(values)
        for k, (name, number) in enumerate(places):
            rows.append(
                {
                    **about[side],
                    "group": name,
                    "filter": number,
                    "metric": "attribution",
                    "value": values[:, k].mean(),
                    "low": low[k],
                    "high": high[k],
                    "unit": unit,
                }
            )
    for metric, found, unit in (("cohens_d", d, "standard deviations"), ("auroc", area, "probability")):
        for k, (name, number) in enumerate(places):
            rows.append(
                {
                    **about[1],
                    "group": name,
                    "filter": number,
                    "other": first.name,
                    "metric": metric,
                    "value": found.value[k],
                    "low": found.low[k],
                    "high": found.high[k],
                    "unit": unit,
                    "q_value": q[k],
                }
            )
    return rows


def against_rows(
    study: Study, held: Attributed, rows: Sequence[Mapping[str, Any]], *, scores: Sequence[Scores], seed: int
) -> list[dict[str, Any]]:
    """Each scorer's scores, and how it ranks the filters that notice the domain."""
    sizes = absolute(rows)
    found: list[dict[str, Any]] = []
    record = _record(study, held)
    for one in scores:
        looked = target_aware(study, one)
        about = {
            "method": held.method,
            "scorer": one.scorer,
            "seed": one.options.get("seed"),
            "other": held.pair[0].name,
        }
        for name in sizes:
            found += [
                {
                    **about,
                    "group": name,
                    "filter": k,
                    "metric": "score",
                    "value": value,
                    "unit": "score",
                    "target_aware": looked,
                }
                for k, value in enumerate(one.values[name].tolist())
            ]
        first = {name: -one.values[name] for name in sizes}
        both = target_aware(study, one, record=record)
        for metric, chosen in (("rank_correlation", None), ("rank_correlation_answering", _answering(held))):
            pair = [
                {name: part if chosen is None else part[chosen[name]] for name, part in values.items()}
                for values in (sizes, first)
            ]
            value = low = high = np.nan
            if sum(map(len, pair[0].values())) >= LEAST:
                value = correlations(*pair, scope="global")[ALL]
                low, high = (end[0, 1] for end in over_filters(pair, scope="global", seed=seed))
            found.append(
                {
                    **about,
                    "group": ALL,
                    "metric": metric,
                    "value": value,
                    "low": low,
                    "high": high,
                    "interval": "filters",
                    "unit": "correlation",
                    "target_aware": both,
                }
            )
    return found


def _answering(held: Attributed) -> dict[str, Tensor]:
    """Layer -> (C,) bool: filters whose attribution is not 0 on every image."""
    return {name: (first != 0).any(0) | (second != 0).any(0) for name, (first, second) in held.values.items()}


def absolute(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Layer -> (C,) |d|; one without any spread counts as the largest of the network."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["metric"] == "cohens_d":
            found.setdefault(row["group"], []).append(abs(float(row["value"])))
    known = [size for sizes in found.values() for size in sizes if not np.isnan(size)]
    most = max(known, default=0.0) or 1.0
    return {name: torch.nan_to_num(torch.tensor(sizes, dtype=torch.float64), nan=most) for name, sizes in found.items()}


def _labels(domain: Domain, rows: Tensor) -> NDArray[np.int64]:
    assert domain.labels is not None
    return domain.labels[rows.to(domain.labels.device)].cpu().numpy()


def _record(study: Study, held: Attributed) -> Provenance:
    """What the network's record becomes for whoever chooses by these numbers."""
    reads: dict[str, Seen] = {f"{domain.name}/{held.split}": "labels" for domain in held.pair}
    return study.record.adding("scorer", reads)
