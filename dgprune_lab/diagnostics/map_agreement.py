"""Do two maps of the same features agree? What a map keeps and what it does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from ..core import DgpruneError

Floats = NDArray[np.float64]


def map_agreement(
    first: pd.DataFrame, second: pd.DataFrame, *, ratio: float = 0.0, neighbours: int = 15
) -> pd.DataFrame:
    """Compare two maps of the same images, such as two UMAP fits that differ in the seed.

    rank_correlation of each of: the images' positions along both axes of the map; the spread of each class (standard
    deviation of its points); the distances between the classes' centres. 1 where both maps agree. And
    `shared_neighbours`: of the nearest `neighbours` of an image on one map, the share that is among them on the other,
    beside the share that chance gives, neighbours / (images - 1).

    Args:
        first, second: tables of `diagnostics.feature_shift` with a map, of the same images.
        ratio: which network's images: 0 is the full network.
        neighbours: of the last row.

    Returns:
        A line per question: `question`, `value` in [-1, 1] (shared neighbours: [0, 1]) and `chance`.

    Raises:
        DgpruneError: a table without a map at this ratio, or of other images.
    """
    (one, classes), (two, other) = (_places(table, ratio) for table in (first, second))
    if len(one) != len(two) or not np.array_equal(classes, other):
        raise DgpruneError(f"both maps must show the same images; they show {len(one)} and {len(two)}.")
    clouds = [[points[classes == label] for label in np.unique(classes)] for points in (one, two)]
    spreads = [[cloud.std() for cloud in maps] for maps in clouds]
    gaps = [pdist([cloud.mean(0) for cloud in maps]) for maps in clouds]
    nearest = [squareform(pdist(points)).argsort(1)[:, 1 : neighbours + 1] for points in (one, two)]
    shared = np.mean([len(set(a) & set(b)) / neighbours for a, b in zip(*nearest, strict=True)])
    pairs = {
        "horizontal place of an image": (one[:, 0], two[:, 0]),
        "vertical place of an image": (one[:, 1], two[:, 1]),
        "spread of a class": spreads,
        "distance between two classes": gaps,
    }
    lines = [{"question": text, "value": spearmanr(a, b)[0], "chance": 0.0} for text, (a, b) in pairs.items()]
    chance = neighbours / (len(one) - 1)
    lines.append({"question": f"shared {neighbours} nearest neighbours", "value": shared, "chance": chance})
    return pd.DataFrame(lines).round(2)


def _places(table: pd.DataFrame, ratio: float) -> tuple[Floats, NDArray[np.int64]]:
    """(N, 2) positions of the images on the map, and their classes."""
    rows = table[table["metric"].isin(["map_1", "map_2"]) & (table["ratio_requested"] == ratio)]
    if rows.empty:
        raise DgpruneError(f"the table holds no map at ratio {ratio:g}; make it with embedding='umap' or 'linear'.")
    places = rows.pivot(index=["domain", "image", "class"], columns="metric", values="value")
    return places.to_numpy(float), places.index.get_level_values("class").to_numpy(int)
