"""Which filters never answer."""

from __future__ import annotations

from collections.abc import Generator

import torch

from ...core import Mask
from ...scorers import SCORERS
from ...study import Study, scoring

_SPLIT = "score"


def silent_filters(study: Study, taken: Mask) -> Generator[object, None, dict[str, list[int]]]:
    """Return layer -> the filters whose activation is 0 on every source image of the split `score`.

    Args:
        study: the network of a step.
        taken: which filters of the full network it has; the numbers returned are those of the full network.

    Yields between batches. A study without images to score has none.
    """
    scorer = SCORERS["activation_l1"]
    if study.unavailable(scorer) is not None:
        return {}
    yield from scoring(study, scorer)  # reads the statistics in pieces; below they come from the cache
    passes = [study.statistics(source.name, needs=("moments",), split=_SPLIT).moments for source in study.sources]
    found = {}
    for name in study.graph.names:
        silent, left = torch.stack([moments[name].mean_abs == 0 for moments in passes]).all(0), taken.kept(name)
        found[name] = [left[place] for place in silent.nonzero().flatten().tolist()]
    return {name: filters for name, filters in found.items() if filters}
