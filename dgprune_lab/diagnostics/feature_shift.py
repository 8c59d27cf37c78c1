"""Where do the features go? How far the domains' features are apart, full and pruned, in numbers and in one map."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core import (
    BatchNorm,
    Budget,
    DgpruneError,
    Mask,
    Provenance,
    Scope,
    Scores,
    choice,
    note,
    progress_bar,
    roles_of,
    tidy,
)
from ..pruning import allocate
from ..scorers import Scorer
from ..stats import Estimate, cka, coral, fit_steps, median_distance, mmd, proxy_a_distance, silhouette, trustworthiness
from ..study import Study, mask_columns, mask_provenance
from ._contract import diagnostic
from ._features import Features, Words, features_steps

Embedding = Literal["umap", "linear", "none"]
EXTRA = ("group", "other", "image", "class", "embedding")
NEIGHBOURS = 15
MIN_DIST = 0.5  # looser than usual: clouds are wide enough for their images to be told apart, and picked
IMAGES = 250
_TRUSTED = 1500  # rows of a map whose neighbours are compared: it takes all pairs of them

Floats = NDArray[np.float64]


@diagnostic(
    "feature_shift",
    extra=EXTRA,
    cite="MMD: Gretton et al. 2012; CORAL: Sun, Saenko 2016; proxy A-distance: Ben-David et al. 2007; CKA: Kornblith "
    "et al. 2019, debiased; trustworthiness: Venna, Kaski 2001; map: McInnes et al. 2018, arXiv:1802.03426",
)
def feature_shift(
    study: Study,
    *,
    layer: str | Sequence[str] | None = None,
    scorer: str | Scorer | Scores = "l1",
    ratios: Sequence[float] = (0.25, 0.5, 0.75),
    scope: Scope = "layer",
    budget: Budget = "filters",
    batchnorm: BatchNorm = "as_is",
    embedding: Embedding = "umap",
    images: int | None = IMAGES,
    split: str = "report",
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """How far apart the domains' features are in the full and in the pruned network, and where each image's goes.

    Features: the mean over places of each filter's output, at the input of the last layer that reads the group;
    standardised by the full network's mean and standard deviation on the first source; a removed filter stays as a
    column of zeros, so that dimensions agree along the ratio. At ratio 0 (the full network, always there) and each of
    `ratios`:

    mmd               squared maximum mean discrepancy of `domain` and `other`, unbiased: around 0, also below, where
                      nothing tells them apart. The bandwidth is the full network's median distance, for all ratios.
    coral             squared distance of the covariances / (4 C^2), unbiased, C the filters of the full layer.
    proxy_a_distance  2 (1 - 2 e), e the cross-validated error of a linear classifier of the domains: 2 = told apart
                      without error, 0 = not at all.
    cka               linear centred kernel alignment of full and pruned features of the same images, debiased: 1 = the
                      same up to rotation and scale.
    silhouette_classes, silhouette_domains  how far the images lie by class, and by domain, in [-1, 1].
    map_1, map_2      place of an image on one map of all domains, full and pruned together; "umap" is one seeded fit.
    trustworthiness   of that map, in [0, 1]: whether neighbours on it are neighbours among the features.

    Intervals are over images (how: `contrast.discrepancy`). The k-th images of two parts are taken for one thing
    shown twice, as those of mnist and mnist_m are: they are never compared with each other, and the classifier meets
    both in one fold.

    Believe the number with its interval; a map only says where to look: its distances, sizes of clouds and gaps between
    them mean nothing.

    Args:
        study: model and domains.
        layer: a group's name or several; the last one if None.
        scorer: what is removed first.
        ratios: shares removed; 0 need not be named.
        scope, of, batchnorm: as of `sweep`.
        embedding: "umap" (in a process of its own, some seconds), "linear" (two principal axes) or "none".
        images: the first so many of the part, per domain.
        split: the part.
        neighbours: of the map and of its trustworthiness.
        seed: of the map, of the intervals' draws and of scorers that draw.
        progress: a bar.

    Returns:
        A tidy table; columns group, other, image (row number in the domain), class, embedding.

    Raises:
        DgpruneError: an unknown layer, fewer images than neighbours, features that are constant.
    """
    choice("embedding", embedding, Embedding)
    scores = study.score(scorer, seed=seed)
    masks = [allocate(scores, ratio=ratio, scope=scope, budget=budget) for ratio in ratios if ratio != 0]
    names = [study.graph.names[-1]] if layer is None else [layer] if isinstance(layer, str) else list(layer)
    if not names:
        raise DgpruneError("feature_shift needs at least one layer; layer=None takes the last.")

    def layer_steps(name: str) -> Generator[Words, None, list[dict[str, Any]]]:
        held = yield from features_steps(study, name, masks=masks, batchnorm=batchnorm, images=images, split=split)
        rows: list[dict[str, Any]] = []
        for k in range(len(held.masks)):
            rows += number_rows(study, held, which=k, seed=seed)
            yield "measuring", (k + 1) / len(held.masks)
        if embedding == "none":
            return rows
        places = held.linear()
        if embedding == "umap":
            drawn = yield from fit_steps(held.stacked, seed=seed, neighbours=neighbours, min_dist=MIN_DIST)
            places = drawn.astype(np.float64)
        return rows + map_rows(study, held, places=places, kind=embedding, neighbours=neighbours, seed=seed)

    def steps() -> Generator[tuple[int, int], None, list[dict[str, Any]]]:
        rows: list[dict[str, Any]] = []
        for k, name in enumerate(names):
            rows += yield from _scaled(layer_steps(name), k, len(names))
        return rows

    rows = progress_bar(steps(), progress=progress)
    return tidy(rows, extra=EXTRA).astype({"image": "Int64", "class": "Int64"})


def number_rows(study: Study, held: Features, *, which: int, seed: int) -> list[dict[str, Any]]:
    """The rows of `feature_shift` about the mask of this place in `held.masks`, without the map."""
    mask, values = held.masks[which], held.values[which]
    bandwidth = _bandwidth(held, say=mask is None)
    rows: list[dict[str, Any]] = []

    def add(metric: str, found: Estimate, unit: str, *, domain: str | None = None, **more: Any) -> None:
        about = _about(study, held, mask=mask, domain=domain)
        rows.append(
            {
                **about,
                **more,
                "metric": metric,
                "value": float(found.value),
                "low": float(found.low),
                "high": float(found.high),
                "interval": "images",
                "unit": unit,
            }
        )

    for a, b in combinations(values, 2):
        pair = values[a], values[b]
        ids = np.arange(len(pair[0])), np.arange(len(pair[1]))  # the k-th images of two parts may show the same thing
        if bandwidth is not None:
            add("mmd", mmd(*pair, bandwidth=bandwidth, ids=ids, seed=seed), "squared", domain=b, other=a)
        add("coral", coral(*pair, ids=ids, seed=seed), "squared", domain=b, other=a)
        add("proxy_a_distance", proxy_a_distance(*pair, ids=ids, seed=seed), "in -2 to 2", domain=b, other=a)
    for name in values if mask is not None else ():
        add("cka", cka(held.values[0][name], values[name], seed=seed), "correlation", domain=name)
    whole = np.concatenate(list(values.values()))
    domains = np.repeat(np.arange(len(values)), [len(part) for part in values.values()])
    if len(values) > 1:
        add("silhouette_domains", silhouette(whole, domains), "in -1 to 1")
    known = [name for name, labels in held.labels.items() if labels is not None]
    classes = [labels for labels in held.labels.values() if labels is not None]
    if known and 1 < len(np.unique(np.concatenate(classes))) < sum(map(len, classes)):
        labelled = np.concatenate([values[name] for name in known])
        add("silhouette_classes", silhouette(labelled, np.concatenate(classes)), "in -1 to 1")
    return rows


def _bandwidth(held: Features, *, say: bool) -> float | None:
    """The median distance in the full network; None, and a note if it is to be said, where it is 0."""
    try:
        return median_distance(np.concatenate(list(held.values[0].values())))
    except DgpruneError as error:
        if say:
            note(f"layer {held.layer!r} has no MMD: {error}")
        return None


def map_rows(
    study: Study, held: Features, *, places: Floats, kind: Embedding, neighbours: int, seed: int
) -> list[dict[str, Any]]:
    """Where each image lies on a map of all features, and how far the map can be trusted."""
    rows: list[dict[str, Any]] = []
    at, joint = iter(places), study.record
    for mask in held.masks[1:]:
        assert mask is not None
        joint = mask_provenance(joint, mask, batchnorm=held.batchnorm, study=study)
    for mask, values in zip(held.masks, held.values, strict=True):
        for name in values:
            # Of one fit every place hangs on all masks; the axes of the linear map on none.
            seen = joint if kind == "umap" else None
            about = _about(study, held, mask=mask, domain=name, record=seen)
            labels = held.labels[name]
            for k, image in enumerate(held.rows[name].tolist()):
                place = next(at)
                label = None if labels is None else int(labels[k])
                shared = {**about, "image": image, "class": label, "embedding": kind, "unit": "place"}
                rows += [{**shared, "metric": f"map_{axis + 1}", "value": float(place[axis])} for axis in (0, 1)]
    stacked = held.stacked
    chosen = np.random.default_rng(seed).permutation(len(stacked))[:_TRUSTED]
    found = trustworthiness(stacked[chosen], places[chosen], neighbours=neighbours)
    shown = next((mask.scorer for mask in held.masks if mask is not None), None)
    rows.append(
        {
            **_about(study, held, mask=None, domain=None, record=joint),
            "scorer": shown,
            "ratio_requested": None,
            "ratio_achieved": None,
            "embedding": kind,
            "metric": "trustworthiness",
            "value": float(found.value),
            "low": float(found.low),
            "high": float(found.high),
            "interval": "images",
            "unit": "share",
            "images": len(chosen),
            "seed": seed,
        }
    )
    return rows


def _about(
    study: Study, held: Features, *, mask: Mask | None, domain: str | None, record: Provenance | None = None
) -> dict[str, Any]:
    """The cells that all rows about a mask, and a domain where there is one, share; `record` in place of the mask's."""
    roles = roles_of(study.domains)
    if record is None:
        record = study.record
        if mask is not None:
            record = mask_provenance(record, mask, batchnorm=held.batchnorm, study=study)
    about: dict[str, Any] = {
        "group": held.layer,
        "batchnorm": "as_is" if mask is None else held.batchnorm,
        "split": held.split,
        "training_seed": study.training_seed,
        **({"ratio_requested": 0.0, "ratio_achieved": 0.0} if mask is None else mask_columns(mask)),
        "target_aware": record.target_aware(roles),
        "images": sum(map(len, held.rows.values())),
    }
    if mask is not None:
        about["seed"] = mask.options.get("seed")
    if domain is not None:
        found = study.domain(domain)
        about |= {
            "domain": domain,
            "role": found.role,
            "images": len(held.rows[domain]),
            **record.columns(domain, held.split, roles=roles),
        }
    return about


def _scaled(
    steps: Generator[Words, None, list[dict[str, Any]]], place: int, count: int
) -> Generator[tuple[int, int], None, list[dict[str, Any]]]:
    """The same work, told as hundredths done of the layers."""
    while True:
        try:
            _, share = next(steps)
        except StopIteration as end:
            return end.value
        yield int(100 * (place + share)), 100 * count
