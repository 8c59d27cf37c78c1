"""Do two maps of the same features agree, and in which respects?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core import Columns, Count, DgpruneError, Ratio, public
from ..stats import Floats

Map = Annotated[pd.DataFrame, Columns(("metric", "value", "ratio_requested", "domain", "image", "class"))]


@public
def map_agreement(first: Map, second: Map, *, ratio: Ratio = 0.0, neighbours: Count = 15) -> pd.DataFrame:
    """Compare two maps of the same images, such as two UMAP fits that differ in the seed.

    Rank correlations between the two maps, 1 where they agree: of the images' positions along each axis; of the spread
    of the classes (root mean square distance of a class's points from their centre); of the distances between the
    classes' centres. Shared neighbours: the share of an image's nearest `neighbours` on one map that are among the
    nearest on the other, averaged over images; by chance it is neighbours / (images - 1). Images without a label belong
    to no class.

    Args:
        first, second: tables of `diagnostics.feature_shift` with a map, of the same images.
        ratio: pruning ratio of the network whose images are compared; 0 is the full network.
        neighbours: how many nearest images count as an image's neighbours; fewer than there are other images.

    Returns:
        A table with a line per question: `question`, `value` in [-1, 1] (shared neighbours: [0, 1]; empty where it is
        not defined, as with fewer than two classes) and `chance`.

    Raises:
        DgpruneError: a table without a map at this ratio, of several layers or of other images; more neighbours than
            there are other images.
    """
    from scipy.spatial.distance import pdist

    maps = [_map_positions(table, ratio) for table in (first, second)]
    left, right = (table[["map_1", "map_2"]].to_numpy(float) for table in maps)
    if not maps[0].index.equals(maps[1].index) or not maps[0]["class"].equals(maps[1]["class"]):
        raise DgpruneError(f"both maps must show the same images; they show {len(left)} and {len(right)}.")
    if not 1 <= neighbours < len(left):
        raise DgpruneError(f"neighbours must be 1 to {len(left) - 1}, for {len(left)} images; got {neighbours}.")
    classes = maps[0]["class"].to_numpy(float)
    labels = np.unique(classes[~np.isnan(classes)])
    clouds = [[points[classes == label] for label in labels] for points in (left, right)]
    spreads = [[np.sqrt(cloud.var(0).sum()) for cloud in group] for group in clouds]
    gaps = [pdist([cloud.mean(0) for cloud in group]) if len(group) > 1 else [] for group in clouds]
    nearest = [_nearest(points, neighbours) for points in (left, right)]
    shared = np.mean([len(set(a) & set(b)) / neighbours for a, b in zip(*nearest, strict=True)])
    pairs = {
        "horizontal place of an image": (left[:, 0], right[:, 0]),
        "vertical place of an image": (left[:, 1], right[:, 1]),
        "spread of a class": spreads,
        "distance between two classes": gaps,
    }
    lines = [{"question": text, "value": _correlation(a, b), "chance": 0.0} for text, (a, b) in pairs.items()]
    chance = neighbours / (len(left) - 1)
    lines.append({"question": f"shared {neighbours} nearest neighbours", "value": shared, "chance": chance})
    return pd.DataFrame(lines).round(2)


def _nearest(points: Floats, count: int) -> NDArray[np.int64]:
    """Return (N, count) indices of the nearest other points of each point."""
    from scipy.spatial.distance import pdist, squareform

    distances = squareform(pdist(points))
    np.fill_diagonal(distances, -1.0)  # a point itself sorts first, even where others coincide with it
    return distances.argsort(1, kind="stable")[:, 1 : count + 1]


def _correlation(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> float:
    """Return Spearman's rank correlation; NaN where one side has no two different values."""
    from scipy.stats import spearmanr

    if min(len(np.unique(a)), len(np.unique(b))) < 2:
        return np.nan
    return float(np.asarray(spearmanr(a, b))[0])


def _map_positions(table: pd.DataFrame, ratio: float) -> pd.DataFrame:
    """Return the map as a table: for each domain and image map_1, map_2 and class."""
    is_map = table["metric"].isin(["map_1", "map_2"]) & (table["ratio_requested"] == ratio)
    rows = cast(pd.DataFrame, table[is_map])
    if rows.empty:
        raise DgpruneError(f"the table holds no map at ratio {ratio:g}; make it with embedding='umap' or 'linear'.")
    if rows.duplicated(subset=["domain", "image", "metric"]).any():
        raise DgpruneError(
            "the table holds several maps at this ratio; choose one layer: table[table.group == 'conv5']."
        )
    positions = rows.pivot(index=["domain", "image"], columns="metric", values="value")
    return positions.join(rows.drop_duplicates(subset=["domain", "image"]).set_index(["domain", "image"])["class"])
