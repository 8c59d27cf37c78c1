"""Which of several networks are not beaten in both cost and value?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core import DgpruneError, public


@public
def pareto_front(cost: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (N,) bool: True where no other point is at least as good in cost and value, and better in one of them.

    Equal points are on the front together. A point without a cost or value (NaN) is not on it, and beats none.

    Args:
        cost: (N,), lower is better.
        value: (N,), higher is better.

    Raises:
        DgpruneError: arrays of different lengths.

    >>> pareto_front([3.0, 2.0, 1.0, 2.5], [0.9, 0.8, 0.5, 0.7]).tolist()
    [True, True, True, False]
    """
    if cost.shape != value.shape or cost.ndim != 1:
        raise DgpruneError(
            f"cost and value must be lists of one length; got the shapes {cost.shape} and {value.shape}."
        )
    order = np.lexsort((-value, cost))  # by cost, the most valuable of equal cost first
    order = order[~np.isnan(cost[order]) & ~np.isnan(value[order])]
    front = np.zeros(len(cost), dtype=bool)
    best, best_cost = -np.inf, np.nan
    for k in order:
        front[k] = value[k] > best or (value[k] == best and cost[k] == best_cost)
        if front[k]:
            best, best_cost = value[k], cost[k]
    return front
