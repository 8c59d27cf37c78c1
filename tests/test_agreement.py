"""Agreement of two scorers: planted truth, closed forms, slow twins, and the chart."""

from __future__ import annotations

from dataclasses import replace
from math import comb
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from material import domain, plain_net, randomise
from scipy import stats
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.stats.rank_agreement import correlations, over_filters, overlaps, random_matchings

LAYERS = {"0": 6, "3": 8}
agreement: Any = dg.diagnostics.agreement


def spearman(first: Any, second: Any) -> float:
    result: Any = stats.spearmanr(first, second)
    return float(result.statistic)


def study_of(model: nn.Module | None = None) -> dg.Study:
    model = randomise(plain_net(), dtype=torch.float32) if model is None else model
    return dg.Study(model, sources=[domain("a"), domain("b", seed=1)], targets=[domain("t", seed=2, labelled=False)])


def test_the_interval_over_filters_is_that_of_a_slow_bootstrap() -> None:
    generator = np.random.default_rng(3)
    first = generator.standard_normal(40)
    second = first + generator.standard_normal(40)
    low, high = over_filters([{"a": torch.from_numpy(v)} for v in (first, second)], scope="global", seed=0)
    rows = generator.integers(0, 40, (4000, 40))
    ranks = [stats.rankdata(v[rows], axis=1) for v in (first, second)]
    a, b = (r - r.mean(1, keepdims=True) for r in ranks)
    slow = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    assert (low[0, 1], high[0, 1]) == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=0.025)


def random_scores(study: dg.Study, name: str, *, seed: int, reads: Any = ()) -> dg.Scores:
    generator = torch.Generator().manual_seed(seed)
    draws = {g.name: torch.randn(g.filters, generator=generator, dtype=torch.float64) for g in study.graph.groups}
    return dg.Scores(name, draws, study.graph, reads=dict(reads))


def pick(frame: Any, metric: str, group: str = "all") -> Any:
    rows = frame[(frame.metric == metric) & (frame.group == group)]
    assert len(rows) == 1
    return rows.iloc[0]


def wide(seed: int, sizes: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {str(k): torch.randn(n, generator=generator, dtype=torch.float64) for k, n in enumerate(sizes)}


def test_equal_scores_agree_fully_and_reversed_ones_not_at_all() -> None:
    study = study_of()
    scores = study.score("l1")
    same = agreement(study, scorers=[scores, replace(scores, scorer="again")])
    turned = replace(scores, scorer="turned", values={name: -value for name, value in scores.values.items()})
    against = agreement(study, scorers=[scores, turned])
    for group in (*LAYERS, "all"):
        assert pick(same, "rank_correlation", group).value == 1.0 and pick(same, "overlap", group).value == 1.0
        assert pick(against, "rank_correlation", group).value == -1.0 and pick(against, "overlap", group).value == 0.0
        assert pick(same, "overlap_by_chance", group).value == 0.5
    assert pd.isna(pick(same, "rank_correlation").low), "an interval of no width would claim too much"


def test_rank_correlation_equals_scipy_and_its_mean_is_weighted_by_filters() -> None:
    first, second = wide(1, (7, 30, 12)), wide(2, (7, 30, 12))
    second["1"][:9] = 0.25  # ties
    result = correlations(first, second, scope="layer")
    each = [spearman(first[name], second[name]) for name in first]
    assert [result[name] for name in first] == pytest.approx(each)
    assert result["all"] == pytest.approx(np.average(each, weights=[7, 30, 12]))
    flat = [torch.cat(list(values.values())) for values in (first, second)]
    assert correlations(first, second, scope="global")["all"] == pytest.approx(spearman(*flat))


def test_layers_without_an_order_are_empty_and_do_not_count() -> None:
    first, second = wide(1, (1, 2, 5, 9)), wide(2, (1, 2, 5, 9))
    second["2"][:] = 3.0
    result = correlations(first, second, scope="layer")
    assert all(np.isnan(result[name]) for name in ("0", "1", "2"))
    assert result["all"] == pytest.approx(result["3"])
    assert np.isnan(correlations({"0": first["0"]}, {"0": second["0"]}, scope="layer")["all"])
    low, high = over_filters([{"0": first["0"]}, {"0": second["0"]}], scope="layer", seed=0)
    assert np.isnan(low).all() and np.isnan(high).all()


def test_a_network_with_a_layer_of_one_filter_and_a_constant_score() -> None:
    tiny = nn.Sequential(
        nn.Conv2d(3, 1, 3),
        nn.ReLU(),
        nn.Conv2d(1, 2, 3),
        nn.ReLU(),
        nn.Conv2d(2, 5, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    )
    study = study_of(randomise(tiny, dtype=torch.float32))

    @dg.scorer("constant")
    def constant(view: Any) -> Tensor:
        """The same for every filter."""
        return torch.ones(view.filters, dtype=torch.float64)

    frame = agreement(study, scorers=["l1", "random", constant], ratio=0.6)
    ranks = frame[frame.metric == "rank_correlation"]
    assert ranks[ranks.group.isin(["0", "2"])].value.isna().all()
    assert ranks[(ranks.other == "constant")].value.isna().all()
    assert ranks[(ranks.other == "random") & (ranks.group == "all")].value.notna().all()
    assert frame[frame.metric == "overlap"].value.between(0, 1).all()
    assert frame[(frame.metric == "overlap") & (frame.group == "0")].value.eq(1.0).all(), "its one filter always stays"
    assert "–" in {row["text"] for row in rows_of(dg.charts.agreement(frame), "ranks")}


def test_independent_scores_are_near_chance_and_inside_its_range() -> None:
    sizes = (40, 60, 100)
    inside = {"rank": 0, "overlap": 0}
    for seed in range(60):
        first, second = wide(2 * seed, sizes), wide(2 * seed + 1, sizes)
        keep = [{name: value > value.median() for name, value in values.items()} for values in (first, second)]
        share = overlaps(*keep, scope="layer")["all"]
        inside["rank"] += abs(correlations(first, second, scope="layer")["all"]) < 1.96 / 197**0.5
        inside["overlap"] += abs(share.value - share.chance) < share.spread
    assert 51 <= inside["rank"] <= 60 and 51 <= inside["overlap"] <= 60


def test_chance_is_the_hypergeometric_mean_and_variance() -> None:
    a, b, n = 3, 5, 9
    first = {"0": torch.arange(n) < a}
    second = {"0": torch.arange(n) >= n - b}
    result = overlaps(first, second, scope="layer")["all"]
    odds = np.array([comb(b, k) * comb(n - b, a - k) / comb(n, a) for k in range(a + 1)])
    shares = np.arange(a + 1) / ((a + b) / 2)
    mean = float(odds @ shares)
    assert result.chance == pytest.approx(mean)
    assert result.spread == pytest.approx(1.96 * float(odds @ (shares - mean) ** 2) ** 0.5)
    assert result.value == 0.0


def test_chance_over_layers_differs_from_chance_over_the_network() -> None:
    first = {"0": torch.tensor([True] * 4), "1": torch.tensor([True] + [False] * 7)}
    share = overlaps(first, first, scope="layer")["all"]
    assert share.chance == pytest.approx((4 * 4 / 4 + 1 / 8) / 5)
    assert overlaps(first, first, scope="global")["all"].chance == pytest.approx(5 * 5 / 12 / 5)


def test_the_bootstrap_equals_a_slow_twin_on_the_same_filters() -> None:
    scores = [wide(seed, (30,)) for seed in (1, 2)]
    scores[1]["0"] += 0.8 * scores[0]["0"]
    low, high = over_filters(scores, scope="layer", seed=3)
    generator = np.random.default_rng(1)
    slow = []
    for _ in range(1000):
        draws = generator.integers(0, 30, 30)
        slow.append(spearman(*(values["0"].numpy()[draws] for values in scores)))
    assert [low[0, 1], high[0, 1]] == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=0.05)
    again = over_filters(scores, scope="layer", seed=3)
    assert np.array_equal(again[0], low, equal_nan=True) and np.array_equal(again[1], high, equal_nan=True)
    assert over_filters(scores, scope="layer", seed=4)[0][0, 1] != low[0, 1]


def test_random_matchings_have_the_variance_of_spearman() -> None:
    first, second = wide(1, (20, 50)), wide(2, (20, 50))
    draws = random_matchings(first, second, scope="layer", seed=0, draws=4000)
    assert draws["1"].std() == pytest.approx(1 / 49**0.5, rel=0.05)
    expected = ((20 / 70) ** 2 / 19 + (50 / 70) ** 2 / 49) ** 0.5
    assert draws["all"].std() == pytest.approx(expected, rel=0.05)
    whole = random_matchings(first, {k: v + 10 * (k == "1") for k, v in second.items()}, scope="global", seed=0)
    assert whole["all"].shape == (200,)


def test_the_table_has_request_seed_and_target_awareness() -> None:
    study = study_of()
    aware = random_scores(study, "looked", seed=1, reads={"t/score": "images"})
    unsaid = replace(random_scores(study, "unsaid", seed=2), reads=None)
    frame = agreement(study, scorers=["random", aware, unsaid], ratio=0.4, scope="global", budget="parameters", seed=7)
    assert set(frame.metric) == {"rank_correlation", "rank_correlation_by_chance", "overlap", "overlap_by_chance"}
    assert set(frame.group) == {*LAYERS, "all"} and set(frame.scope) == {"global"}
    kept = frame[frame.metric == "overlap"]
    assert (
        set(kept.ratio_requested) == {0.4}
        and set(kept.budget) == {"parameters"}
        and kept.ratio_achieved.between(0, 0.4).all()
    )
    assert frame[frame.metric == "rank_correlation"].ratio_requested.isna().all()
    pairs = {(row.scorer, row.other): row for row in kept[kept.group == "all"].itertuples()}
    assert pairs["random", "looked"].target_aware and pairs["random", "looked"].seed == 7
    assert (pairs["random", "looked"].scorer_target_aware, pairs["random", "looked"].other_target_aware) == (
        False,
        True,
    )
    assert pd.isna(pairs["random", "unsaid"].target_aware) and pd.isna(pairs["looked", "unsaid"].seed)
    whole = pick(frame[(frame.scorer == "random") & (frame.other == "looked")], "rank_correlation")
    assert whole.interval == "filters" and whole.low < whole.value < whole.high


def test_masks_are_those_of_allocate() -> None:
    study = study_of()
    frame = agreement(study, scorers=["l1", "taylor"], ratio=0.5, scope="global")
    one, other = (dg.allocate(study.score(name), ratio=0.5, scope="global") for name in ("l1", "taylor"))
    shared = sum(int((one.keep[name] & other.keep[name]).sum()) for name in LAYERS)
    assert pick(frame, "overlap").value == pytest.approx(2 * shared / (one.cost.filters + other.cost.filters))
    weights = agreement(study, scorers=["l1", "taylor"], ratio=0.5, scope="global", budget="parameters")
    achieved = [
        dg.allocate(study.score(n), ratio=0.5, scope="global", budget="parameters").ratio_achieved
        for n in ("l1", "taylor")
    ]
    assert pick(weights, "overlap").ratio_achieved == pytest.approx(sum(achieved) / 2) and achieved[0] != achieved[1]


@pytest.mark.parametrize("name", list(dg.SCORERS))
@pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")
def test_every_scorer_of_the_menu_can_be_compared(name: str) -> None:
    study = study_of()
    if (why := study.unavailable(dg.SCORERS[name])) is not None:
        pytest.skip(why)
    other = "l1" if name != "l1" else "l2"
    frame = agreement(study, scorers=[name, other])
    assert pick(frame, "overlap").value >= 0


def test_one_scorer_or_two_of_one_name_are_refused() -> None:
    study = study_of()
    with pytest.raises(dg.DgpruneError, match="needs two or more; got 1"):
        agreement(study, scorers=["l1"])
    with pytest.raises(dg.DgpruneError, match="two scorers are called 'l1'"):
        agreement(study, scorers=["l1", "l1"])


def rows_of(chart: Any, name: str) -> list[dict[str, Any]]:
    spec = chart.to_dict()
    layers = [layer for part in spec["hconcat"] for layer in part["layer"]]
    return next(one["data"]["values"] for one in layers if one["data"].get("values") and one["data"]["name"] == name)


def test_the_heat_map_writes_numbers_and_is_white_at_chance() -> None:
    study = study_of()
    scores = study.score("l1")
    turned = replace(scores, scorer="turned", values={name: -value for name, value in scores.values.items()})
    chart = dg.charts.agreement(agreement(study, scorers=[scores, turned]))
    ranks, kept = rows_of(chart, "ranks"), rows_of(chart, "overlaps")
    assert [row["text"] for row in ranks] == ["", "−1.00", "−1.00", ""]
    assert [row["text"] for row in kept] == ["", "0", "0", ""]
    assert ranks[1]["fill"] == kept[1]["fill"] == "#b35806" and ranks[1]["row"] == "1  l1"
    frame = agreement(study, scorers=[scores, replace(scores, scorer="again")])
    frame.loc[frame.metric == "overlap", "value"] = 0.5
    assert rows_of(dg.charts.agreement(frame), "overlaps")[1]["fill"] == "#f6f6f4"
    assert rows_of(dg.charts.agreement(frame), "ranks")[1]["fill"] == "#542788"


def test_a_target_aware_scorer_has_a_diamond_and_an_unknown_one_a_question_mark() -> None:
    study = study_of()
    long = "a_name_that_is_much_too_long_to_stand_beside_any_chart_at_all"
    frame = agreement(
        study,
        scorers=[
            "l1",
            random_scores(study, long, seed=1, reads={"t/score": "images"}),
            replace(study.score("l2"), reads=None),
        ],
    )
    names = list(dict.fromkeys(row["row"] for row in rows_of(dg.charts.agreement(frame), "ranks")))
    assert names[0] == "1  l1" and names[1].endswith("… ◇") and len(names[1]) <= 55 and names[2] == "3  l2 ?"
    chart = dg.charts.agreement(frame, scorer="l1")
    kept = rows_of(chart, "overlaps")
    assert [(row["mark"], row["scorer"]) for row in kept] == [("diamond", long), ("dot", "l2")]
    assert all(row["chance_low"] <= 50 <= row["chance_high"] for row in kept)
    assert chart.to_dict()["title"]["text"] == "Compared with l1"


def test_vega_draws_every_form() -> None:
    study = study_of()
    frame = agreement(study, scorers=["l1", "l2", "random"])
    empty = dg.tidy([], extra=("other", "group", "scorer_target_aware", "other_target_aware"))
    for chart in (dg.charts.agreement(frame), dg.charts.agreement(frame, scorer="l2"), dg.charts.agreement(empty)):
        svg = dg.charts.svg(chart)
        assert svg.startswith("<svg") and "NaN" not in svg
        assert set(chart._repr_mimebundle_() or ()) == {"text/html"}, "shown without asking the web for anything"
