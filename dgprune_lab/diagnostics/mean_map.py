"""What does a filter respond to on each domain? Its mean map, and the similarity of the maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from torch import Tensor

from ..core import DgpruneError, Domain, Seen, roles_of, tidy
from ..scorers import cosine
from ..stats import Floats
from ..study import Study, batchnorm_cell
from ._contract import Row, Rows, diagnostic

EXTRA = ("group", "filter", "other", "row", "column")


@diagnostic("mean_map", extra=EXTRA, cite="Sun 2023, arXiv:2306.13237")
def mean_map(study: Study, *, layer: str, filters: Sequence[int], split: str = "score") -> pd.DataFrame:
    """Return the activation map of each filter, averaged over the images of each domain, and cosines between domains.

    Maps are taken just after the activation. Metric "mean_map": a row per filter, domain and position (columns `row`
    and `column`). Metric "cosine": a row per filter and pair of domains, `domain` and `other`: the cosine of the two
    mean maps, which is `dss` of this pair. Images of all domains are read, targets included: it is target-aware.

    Args:
        study: the network and its domains.
        layer: name of the group.
        filters: indices of the filters in the group.
        split: the split that is read.

    Raises:
        DgpruneError: an unknown layer, a filter that the layer does not have, maps of 1 x 1.
    """
    group, numbers = study.graph[layer], list(filters)
    if not numbers or min(numbers) < 0 or max(numbers) >= group.filters:
        raise DgpruneError(f"layer {layer!r} has filters 0 to {group.filters - 1}; got {numbers}.")
    maps = {
        d.name: study.statistics(d.name, needs=["activation_map"], split=split).activation_map[layer]
        for d in study.domains
    }
    if next(iter(maps.values()))[0].numel() == 1:
        raise DgpruneError(
            f"the maps of layer {layer!r} are 1 x 1, so there is nothing to draw; take an earlier layer."
        )

    def cells(domain: Domain, *compared: Domain) -> Row:
        """Return the columns that all rows about a domain (compared with others) share."""
        reads: dict[str, Seen] = {f"{item.name}/{split}": "images" for item in (domain, *compared)}
        seen = study.provenance.adding("scorer", reads).columns(domain.name, split, roles=roles_of(study.domains))
        described = {"domain": domain.name, "role": domain.role, "split": split, "images": len(domain.rows(split))}
        return {**described, **seen, "group": layer, "batchnorm": batchnorm_cell(study, "as_is")}

    rows: Rows = []
    for domain in study.domains:
        shared = {**cells(domain), "metric": "mean_map", "unit": "response"}
        for number, values in zip(numbers, square_maps(maps[domain.name][numbers]), strict=True):
            positions = np.ndenumerate(values)
            rows += [{**shared, "filter": number, "row": i, "column": j, "value": value} for (i, j), value in positions]
    for a, b in combinations(study.domains, 2):
        shared = {**cells(b, a), "other": a.name, "metric": "cosine", "unit": "cosine"}
        values = cosine(maps[a.name][numbers], maps[b.name][numbers]).tolist()
        rows += [{**shared, "filter": number, "value": value} for number, value in zip(numbers, values, strict=True)]
    return tidy(rows, extra=EXTRA).astype(dict.fromkeys(("filter", "row", "column"), "Int64"))


def square_maps(maps: Tensor) -> list[Floats]:
    """Return maps as arrays (H, W); a flattened map becomes a square if it can, otherwise a single row."""
    side = round(math.sqrt(maps.shape[1])) if maps.ndim == 2 else 0
    shape = maps.shape[1:] if maps.ndim == 3 else (side, side) if side**2 == maps.shape[1] else (1, maps.shape[1])
    return [values.reshape(shape).double().cpu().numpy() for values in maps]
