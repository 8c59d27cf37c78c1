"""Scores + budget -> Mask: how many filters are removed, and which."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import dgprune_lab as dg
from dgprune_lab.core.graph import FilterGraph, FilterGroup
from dgprune_lab.core.masks import Mask
from dgprune_lab.core.scores import Scores
from dgprune_lab.core.tables import Budget, Scope
from dgprune_lab.pruning import removal_order

RATIOS = st.one_of(
    st.integers(0, 999).map(lambda k: k / 1000),
    st.integers(1, 99).map(lambda k: 1 - (100 - k) / 100),  # floats with rounding errors, such as 1 - 0.3
    st.floats(0, 1, exclude_max=True),
)
VALUES = st.one_of(st.integers(-2, 2).map(float), st.floats(-1e3, 1e3))  # many ties, and none


def graph_of(units: list[Tensor]) -> FilterGraph:
    """A graph without a network: a filter of group k has k + 1 parameters, used at 2k + 1 places."""
    groups, axes, shapes, uses, start = [], {}, {}, {}, 0
    total = sum(len(u) for u in units)
    for k, group_units in enumerate(units):
        name, count = f"g{k}", len(group_units)
        groups.append(
            FilterGroup(
                name=name,
                filters=count,
                members=(),
                units=group_units,
                producers=(name,),
                consumer_inputs={"reader": (torch.arange(count), torch.arange(count))},
                depth=k,
            )
        )
        axes[f"{name}.weight"] = {0: torch.arange(start, start + count)}
        shapes[f"{name}.weight"] = ((count, k + 1), 4)
        uses[f"{name}.weight"] = 2 * k + 1
        start += count
    assert start == total
    return FilterGraph(
        groups=tuple(groups),
        axes=axes,
        shapes=shapes,
        parameters=frozenset(shapes),
        uses=uses,
        refused={},
        input_shape=(3, 8, 8),
    )


@st.composite
def plain_scores(draw: st.DrawFn) -> Scores:
    """Scores of one to four groups of untied filters."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    graph = graph_of([torch.arange(n) for n in sizes])
    values = {
        g.name: torch.tensor(draw(st.lists(VALUES, min_size=g.filters, max_size=g.filters))) for g in graph.groups
    }
    return Scores("drawn", {k: v.double() for k, v in values.items()}, graph)


@st.composite
def tied_scores(draw: st.DrawFn) -> Scores:
    """Scores of groups whose filters are tied in steps of one to four."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 4)), min_size=1, max_size=3))
    graph = graph_of([torch.arange(units).repeat(step) for units, step in shapes])
    values = {
        g.name: torch.tensor(draw(st.lists(VALUES, min_size=g.filters, max_size=g.filters))) for g in graph.groups
    }
    return Scores("drawn", {k: v.double() for k, v in values.items()}, graph)


def removed(mask: Mask, name: str) -> set[int]:
    return set((~mask.keep[name]).nonzero().flatten().tolist())


@settings(deadline=None)
@given(scores=plain_scores(), ratio=RATIOS)
def test_scope_layer_removes_the_same_share_of_every_layer(scores: Scores, ratio: float) -> None:
    mask = dg.allocate(scores, ratio=ratio)
    for group in scores.graph.groups:
        count, dropped = group.filters, removed(mask, group.name)
        assert len(dropped) == min(math.floor(ratio * count + 1e-9), count - 1)
        assert ratio * count - len(dropped) < 1 + 1e-9 or len(dropped) == count - 1
        order = sorted(range(count), key=lambda i: (float(scores.values[group.name][i]), i))
        assert dropped == set(order[: len(dropped)])
    assert (mask.ratio_requested, mask.scope, mask.budget, mask.nested) == (ratio, "layer", "filters", True)


@settings(deadline=None)
@given(scores=plain_scores(), ratio=RATIOS)
def test_scope_global_removes_the_lowest_scores_of_the_network(scores: Scores, ratio: float) -> None:
    mask, graph = dg.allocate(scores, ratio=ratio, scope="global"), scores.graph
    total, layers = graph.free, len(graph.groups)
    dropped = sum(len(removed(mask, name)) for name in graph.names)
    assert dropped == min(math.floor(ratio * total + 1e-9), total - layers)
    assert mask.ratio_achieved == pytest.approx(dropped / total) and mask.ratio_requested == ratio
    # The slow twin: all filters from the lowest, ties by layer and filter; a layer's best always stays.
    ranked, best = [], {}
    for depth, group in enumerate(graph.groups):
        values = scores.values[group.name].tolist()
        best[group.name] = max(range(len(values)), key=lambda i, v=values: (v[i], i))
        ranked += [(v, depth, i, group.name) for i, v in enumerate(values)]
    chosen = [(name, i) for _, _, i, name in sorted(ranked) if i != best[name]][:dropped]
    assert {(name, i) for name in graph.names for i in removed(mask, name)} == set(chosen)


@settings(deadline=None)
@given(scores=tied_scores(), ratio=RATIOS, scope=st.sampled_from(get_args(Scope)))
def test_tied_filters_are_removed_together(scores: Scores, ratio: float, scope: Any) -> None:
    mask, graph = dg.allocate(scores, ratio=ratio, scope=scope), scores.graph
    for group in graph.groups:
        dropped, units = removed(mask, group.name), group.units.tolist()
        assert all(
            (i in dropped) == (j in dropped)
            for i in range(group.filters)
            for j in range(group.filters)
            if units[i] == units[j]
        )
        assert len(dropped) < group.filters
        if scope == "layer":
            short = ratio * group.filters - len(dropped)
            assert short > -1e-6
            assert short < group.step + 1e-6 or len(dropped) == group.filters - group.step
    if scope == "global":
        short = ratio * graph.free - sum(len(removed(mask, n)) for n in graph.names)
        full = all(graph[n].filters - len(removed(mask, n)) == graph[n].step for n in graph.names)
        assert short > -1e-6 and (short < max(g.step for g in graph.groups) + 1e-6 or full)


@settings(deadline=None)
@given(
    scores=st.one_of(plain_scores(), tied_scores()),
    low=RATIOS,
    high=RATIOS,
    scope=st.sampled_from(get_args(Scope)),
    budget=st.sampled_from(get_args(Budget)),
)
def test_a_larger_ratio_keeps_a_subset(scores: Scores, low: float, high: float, scope: Any, budget: Any) -> None:
    low, high = sorted((low, high))
    few, many = (dg.allocate(scores, ratio=r, scope=scope, budget=budget) for r in (low, high))
    assert few.nested and many.nested
    for name in scores.graph.names:
        assert removed(few, name) <= removed(many, name)
        assert few.keep[name].any() and many.keep[name].any()


@settings(deadline=None)
@given(
    scores=st.one_of(plain_scores(), tied_scores()),
    ratio=RATIOS,
    scope=st.sampled_from(get_args(Scope)),
    budget=st.sampled_from(["parameters", "macs"]),
)
def test_the_budget_is_not_exceeded_and_would_be_by_one_more_unit(
    scores: Scores, ratio: float, scope: Any, budget: Any
) -> None:
    graph = scores.graph
    mask = dg.allocate(scores, ratio=ratio, scope=scope, budget=budget)
    full = getattr(graph.cost(), budget)
    dropped = full - getattr(mask.cost, budget)
    assert dropped <= ratio * full + 1e-6 and mask.ratio_achieved == pytest.approx(dropped / full)
    order = removal_order(scores, scope=scope)
    count = sum(len(group.units[~mask.keep[group.name]].unique()) for group in graph.groups)
    assert all(torch.equal(keep, mask.keep[name]) for name, keep in order.keep(count).items())
    if count < len(order.units):
        assert full - getattr(graph.cost(order.keep(count + 1)), budget) > ratio * full


def test_ratios_with_rounding_errors_count_as_the_exact_fraction() -> None:
    scores = Scores("s", {"g0": torch.arange(10.0).double()}, graph_of([torch.arange(10)]))
    for k in range(10):
        for ratio in (k / 10, 1 - (10 - k) / 10, sum([0.1] * k)):
            exact = math.floor(Fraction(ratio).limit_denominator(1000) * 10)
            assert len(dg.allocate(scores, ratio=ratio).kept("g0")) == 10 - exact == 10 - k


def test_counts_of_one_shot_pruning_of_lenet() -> None:
    """Widths 32 and 48 at 10 to 90 %: the floor of the share (in rounds fewer are removed)."""
    graph = dg.read_groups(dg.models.networks.lenet(), torch.zeros(1, 3, 28, 28))
    scores = Scores("s", {"conv1": torch.rand(32).double(), "conv2": torch.rand(48).double()}, graph)
    got = [
        [32 - len(m.kept("conv1")), 48 - len(m.kept("conv2"))]
        for m in (dg.allocate(scores, ratio=k / 10) for k in range(1, 10))
    ]
    assert got == [[3, 4], [6, 9], [9, 14], [12, 19], [16, 24], [19, 28], [22, 33], [25, 38], [28, 43]]


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, 100, float("nan"), float("inf")])
def test_a_ratio_outside_0_to_1_is_refused(ratio: float) -> None:
    scores = Scores("s", {"g0": torch.zeros(4).double()}, graph_of([torch.arange(4)]))
    with pytest.raises(dg.DgpruneError, match=r"ratio must lie in \[0, 1\)"):
        dg.allocate(scores, ratio=ratio)


def test_unknown_choices_are_refused() -> None:
    scores = Scores("s", {"g0": torch.zeros(4).double()}, graph_of([torch.arange(4)]))
    with pytest.raises(dg.DgpruneError, match=r"scope must be one of 'layer', 'global'; got 'all'"):
        dg.allocate(scores, ratio=0.5, scope="all")  # type: ignore[call-overload]
    with pytest.raises(dg.DgpruneError, match=r"budget must be one of 'filters', 'parameters', 'macs'; got 'flops'"):
        dg.allocate(scores, ratio=0.5, budget="flops")  # type: ignore[call-overload]
