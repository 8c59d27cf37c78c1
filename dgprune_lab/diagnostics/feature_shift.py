"""How far apart are the features of the domains in the full and in the pruned network? In numbers and on one map."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..core import BatchNorm, Budget, Count, DgpruneError, Mask, Provenance, Ratio, Scope, Scores, Seed, note, tidy
from ..pruning import allocate
from ..scorers import Scorer
from ..stats import Estimate, cka, coral, fit_steps, median_distance, mmd, proxy_a_distance, silhouette, trustworthiness
from ..study import Study, mask_provenance
from ._contract import Row, Rows, Steps, diagnostic, map_steps
from ._features import Features, features_steps
from ._removal import mask_cells

Embedding = Literal["umap", "linear", "none"]
EXTRA = ("group", "other", "image", "class", "class_name", "embedding")
NEIGHBOURS = 15
MIN_DIST = 0.5  # looser than usual, so that single images of a cloud can be distinguished and picked
IMAGES = 250
_TRUSTED = 1500  # rows of a map whose neighbours are compared, over all pairs


@diagnostic(
    "feature_shift",
    extra=EXTRA,
    cite="MMD: Gretton et al. 2012; CORAL: Sun, Saenko 2016; proxy A-distance: Ben-David et al. 2007; CKA: Kornblith "
    "et al. 2019, debiased; trustworthiness: Venna, Kaski 2001; silhouette: Rousseeuw 1987; "
    "map: McInnes et al. 2018, arXiv:1802.03426",
)
def feature_shift(
    study: Study,
    *,
    layer: str | Sequence[str] | None = None,
    scorer: str | Scorer | Scores = "l1",
    ratios: Sequence[Ratio] = (0.25, 0.5, 0.75),
    scope: Scope = "layer",
    budget: Budget = "filters",
    batchnorm: BatchNorm = "recalibrate",
    embedding: Embedding = "umap",
    images: Count | None = IMAGES,
    split: str = "report",
    neighbours: Count = NEIGHBOURS,
    seed: Seed = 0,
    progress: bool = False,
) -> Steps:
    """Estimate how far apart the features of the domains are, at every ratio, and place every image on one map.

    Features: the spatial mean of each filter's output, at the input of the group's last consumer; standardised by the
    full network's mean and standard deviation on the first source; a removed filter is a column of zeros, so that the
    dimension is the same at every ratio. At ratio 0 (the full network, always included) and each of `ratios`:

    mmd               squared maximum mean discrepancy of `domain` and `other`, unbiased: close to 0 where the domains
                      do not differ (it may be negative). The bandwidth is the full network's median distance, for all
                      ratios.
    coral             squared distance of the covariances / (4 C^2), unbiased, C = number of filters of the full layer.
    proxy_a_distance  2 (1 - 2 e), e the cross-validated error of a linear classifier of the domains: 2 = separated
                      without error, 0 = by chance.
    cka               linear centred kernel alignment between the features of the same images in the full and in the
                      pruned network, debiased: 1 = the same up to rotation and scale.
    silhouette_classes, silhouette_domains  how well the images cluster by class, and by domain, in [-1, 1].
    map_1, map_2      coordinates of each image on one map of all domains and ratios; "umap" is one seeded fit.
    trustworthiness   of that map, in [0, 1]: how far neighbours on the map are neighbours among the features.

    Intervals are over images (method: `stats.discrepancy`). The k-th images of two domains are assumed to show the same
    object, as in mnist and mnist_m: such a pair is never compared, and the classifier has both in one fold.

    Rely on the numbers with their intervals; a map only suggests where to look: its distances, the sizes of clouds and
    the gaps between them have no meaning.

    Args:
        layer: name of a group, or several; None for the last group.
        ratios: shares to remove; 0 is always included.
        embedding: the map: "umap" (in a separate process, some seconds), "linear" (two principal axes) or "none".
        neighbours: number of neighbours used for the map and for its trustworthiness.
        seed: random seed of the map, of the intervals' resamples and of scorers that draw.
        study, scorer, scope, budget, batchnorm, split, images, progress: see `diagnostics.drop`.

    Returns:
        A tidy table; extra columns group, other, image (row number in the domain), class, class_name (empty where
        classes have no names), embedding.

    Raises:
        DgpruneError: an unknown layer, fewer images than neighbours, features that are constant.
    """
    scores = study.score(scorer, seed=seed)
    masks = [allocate(scores, ratio=ratio, scope=scope, budget=budget) for ratio in ratios if ratio != 0]
    names = [study.graph.names[-1]] if layer is None else [layer] if isinstance(layer, str) else list(layer)
    if not names:
        raise DgpruneError("feature_shift needs at least one layer; layer=None takes the last.")

    def layer_steps(name: str) -> Generator[float, None, Rows]:
        """Return the rows of one layer; yields the fraction done, a third each for features, numbers and map."""
        steps = features_steps(study, name, masks=masks, batchnorm=batchnorm, images=images, split=split)
        features = yield from map_steps(steps, lambda share: share / 3)
        rows: Rows = []
        for k in range(len(features.masks)):
            rows += number_rows(study, features, which=k, seed=seed)
            yield (1 + (k + 1) / len(features.masks)) / 3
        if embedding == "none":
            return rows
        places = features.linear()
        if embedding == "umap":
            fit = fit_steps(features.stacked, seed=seed, neighbours=neighbours, min_dist=MIN_DIST)
            places = (yield from map_steps(fit, lambda state: (2 + state[1]) / 3)).astype(np.float64)
        return rows + map_rows(study, features, places=places, kind=embedding, neighbours=neighbours, seed=seed)

    rows: Rows = []
    for k, name in enumerate(names):
        rows += yield from map_steps(layer_steps(name), lambda share, k=k: (int(100 * (k + share)), 100 * len(names)))
    return tidy(rows, extra=EXTRA).astype({"image": "Int64", "class": "Int64"})


def number_rows(study: Study, features: Features, *, which: int, seed: int) -> Rows:
    """Return the rows of `feature_shift` for the mask `features.masks[which]`, except those of the map."""
    mask, values = features.masks[which], features.values[which]
    bandwidth = _bandwidth(features, announce=mask is None)
    rows: Rows = []

    def add(metric: str, estimate: Estimate, *, unit: str, domain: str | None = None, other: str | None = None) -> None:
        cells = _cells(study, features, mask=mask, domain=domain)
        rows.append({**cells, **_interval(estimate), "other": other, "metric": metric, "unit": unit})

    for a, b in combinations(values, 2):
        pair = values[a], values[b]
        ids = np.arange(len(pair[0])), np.arange(len(pair[1]))  # the k-th images of two domains may show one object
        if bandwidth is not None:
            add("mmd", mmd(*pair, bandwidth=bandwidth, ids=ids, seed=seed), unit="squared", domain=b, other=a)
        add("coral", coral(*pair, ids=ids, seed=seed), unit="squared", domain=b, other=a)
        add("proxy_a_distance", proxy_a_distance(*pair, ids=ids, seed=seed), unit="in -2 to 2", domain=b, other=a)
    for name in values if mask is not None else ():
        add("cka", cka(features.values[0][name], values[name], seed=seed), unit="correlation", domain=name)
    if len(values) > 1:
        domains = np.repeat(np.arange(len(values)), [len(part) for part in values.values()])
        add("silhouette_domains", silhouette(np.concatenate(list(values.values())), domains), unit="in -1 to 1")
    labels = {name: classes for name, classes in features.labels.items() if classes is not None}
    if labels:
        classes = np.concatenate(list(labels.values()))
        if 1 < len(np.unique(classes)) < len(classes):
            labelled = np.concatenate([values[name] for name in labels])
            add("silhouette_classes", silhouette(labelled, classes), unit="in -1 to 1")
    return rows


def _bandwidth(features: Features, *, announce: bool) -> float | None:
    """Return the median distance of the full network's features; None where it is 0, with a note if `announce`."""
    try:
        return median_distance(np.concatenate(list(features.values[0].values())))
    except DgpruneError as error:
        if announce:
            note(f"layer {features.layer!r} has no MMD: {error}")
        return None


def map_rows(
    study: Study, features: Features, *, places: NDArray[np.float64], kind: Embedding, neighbours: int, seed: int
) -> Rows:
    """Return the rows of a map of all features: the coordinates of each image, and the trustworthiness of the map."""
    rows: Rows = []
    positions, joint, scorer = iter(places), study.provenance, None
    for mask in features.masks[1:]:
        assert mask is not None
        joint, scorer = mask_provenance(joint, mask, batchnorm=features.batchnorm, study=study), mask.scorer
    for mask, values in zip(features.masks, features.values, strict=True):
        for name in values:
            # A position in a joint fit depends on all masks; the axes of the linear map depend on none.
            cells = _cells(study, features, mask=mask, domain=name, provenance=joint if kind == "umap" else None)
            cells |= {"embedding": kind, "unit": "place"}
            labels = features.labels[name]
            for k, image in enumerate(features.rows[name].tolist()):
                position = next(positions)
                cells |= {"image": image, "class": None if labels is None else int(labels[k])}
                if labels is not None and study.domain(name).class_names:
                    cells["class_name"] = study.domain(name).class_label(int(labels[k]))
                rows += [{**cells, "metric": f"map_{axis + 1}", "value": float(position[axis])} for axis in (0, 1)]
    stacked = features.stacked
    chosen = np.random.default_rng(seed).permutation(len(stacked))[:_TRUSTED]
    trust = trustworthiness(stacked[chosen], places[chosen], neighbours=neighbours)
    cells = {**_cells(study, features, mask=None, domain=None, provenance=joint), **_interval(trust), "seed": seed}
    cells |= {"scorer": scorer, "ratio_requested": None, "ratio_achieved": None, "embedding": kind}
    rows.append({**cells, "metric": "trustworthiness", "unit": "share", "images": len(chosen)})
    return rows


def _interval(estimate: Estimate) -> Row:
    value, low, high = map(float, estimate)
    return {"value": value, "low": low, "high": high, "interval": "images"}


def _cells(
    study: Study, features: Features, *, mask: Mask | None, domain: str | None, provenance: Provenance | None = None
) -> Row:
    """Return the shared columns of rows about a mask (and a domain, if given); `provenance` replaces the mask's."""
    measured = None if domain is None else study.domain(domain)
    cells = mask_cells(
        study, mask, batchnorm=features.batchnorm, domain=measured, split=features.split, provenance=provenance
    )
    images = sum(map(len, features.rows.values())) if domain is None else len(features.rows[domain])
    return {**cells, "group": features.layer, "images": images}
