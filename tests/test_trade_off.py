"""Size or cost against accuracy: the table of several networks, its Pareto front and its chart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgprune_lab.core import DgpruneError
from dgprune_lab.stats import pareto_front

FEW = st.one_of(st.integers(0, 4).map(float), st.just(float("nan")))


@settings(max_examples=60, deadline=None)
@given(points=st.lists(st.tuples(FEW, FEW), max_size=9))
def test_the_front_is_what_comparing_all_pairs_leaves(points: list[tuple[float, float]]) -> None:
    cost, value = np.array(points, dtype=np.float64).reshape(-1, 2).T
    expected = [
        c == c and v == v and not any(o <= c and w >= v and (o < c or w > v) for o, w in points) for c, v in points
    ]
    assert pareto_front(cost, value).tolist() == expected


def test_a_front_needs_a_value_for_each_cost() -> None:
    with pytest.raises(DgpruneError, match="one length"):
        pareto_front(np.zeros(3), np.zeros(2))
