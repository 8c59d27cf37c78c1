"""What does a filter show on each domain? Its mean map, and how alike the maps are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from ..core import DgpruneError, Domain, Provenance, Reads, Roles, Seen, roles_of, tidy
from ..scorers import cosine
from ..study import Study
from ._contract import diagnostic


@diagnostic("mean_map", extra=("group", "filter", "other", "row", "column"), cite="Sun 2023, arXiv:2306.13237")
def mean_map(study: Study, *, layer: str, filters: Sequence[int], split: str = "score") -> pd.DataFrame:
    """Mean maps of a few filters on every domain, at the input of the layer that reads them, and their cosines.

    Metric "mean_map": a row per place (row, column of the map) and domain. Metric "cosine": a row per pair of domains,
    `domain` and `other`: the cosine of the two mean maps, which is `dss` of this pair. It reads images of all domains,
    targets too: target-aware.

    Args:
        study: model and domains.
        layer: a group's name.
        filters: their numbers.
        split: the part that is read.

    Raises:
        DgpruneError: an unknown layer, a filter it does not have, maps of 1 x 1.
    """
    group = study.graph[layer]
    if not filters or min(filters) < 0 or max(filters) >= group.filters:
        raise DgpruneError(f"layer {layer!r} has filters 0 to {group.filters - 1}; got {list(filters)}.")
    maps = {d.name: study.statistics(d.name, needs=["mean_map"], split=split).mean_map[layer] for d in study.domains}
    first = next(iter(maps.values()))
    if first[0].numel() == 1:
        raise DgpruneError(
            f"the maps of layer {layer!r} are 1 x 1, so there is nothing to draw; take an earlier layer."
        )
    chosen = list(filters)
    images = {d.name: len(d.rows(split)) for d in study.domains}
    roles = roles_of(study.domains)
    rows: list[dict[str, Any]] = []
    for domain in study.domains:
        shared = _shared(domain, study.record, {f"{domain.name}/{split}": "images"}, roles, split)
        for number, held in zip(chosen, _square(maps[domain.name][chosen]), strict=True):
            rows += [
                {
                    **shared,
                    "group": layer,
                    "filter": number,
                    "metric": "mean_map",
                    "row": i,
                    "column": j,
                    "value": value,
                    "images": images[domain.name],
                    "unit": "response",
                }
                for (i, j), value in np.ndenumerate(held)
            ]
    for a, b in combinations(study.domains, 2):
        values = cosine(maps[a.name][chosen], maps[b.name][chosen])
        reads: dict[str, Seen] = {f"{domain.name}/{split}": "images" for domain in (a, b)}
        shared = _shared(b, study.record, reads, roles, split)
        for number, value in zip(chosen, values.tolist(), strict=True):
            rows.append(
                {
                    **shared,
                    "group": layer,
                    "filter": number,
                    "other": a.name,
                    "metric": "cosine",
                    "value": value,
                    "images": images[b.name],
                    "unit": "cosine",
                }
            )
    frame = tidy(rows, extra=("group", "filter", "other", "row", "column"))
    return frame.astype(dict.fromkeys(("filter", "row", "column"), "Int64"))


def _shared(domain: Domain, record: Provenance, reads: Reads, roles: Roles, split: str) -> dict[str, Any]:
    """The cells that all rows about a domain share."""
    seen = record.adding("scorer", reads).columns(domain.name, split, roles=roles)
    return {"domain": domain.name, "role": domain.role, "split": split, **seen}


def _square(maps: Tensor) -> list[NDArray[np.float64]]:
    """(H, W) each; a flattened map is a square again where its number of places is one."""
    side = round(math.sqrt(maps.shape[1])) if maps.ndim == 2 else 0
    shape = maps.shape[1:] if maps.ndim == 3 else (side, side) if side**2 == maps.shape[1] else (1, maps.shape[1])
    return [held.reshape(shape).numpy() for held in maps]
