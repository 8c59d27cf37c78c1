"""Stability of a scorer: planted truth for halves and for trainings, a slow twin, and refusals."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from material import ResidualNet, domain, fingerprint, grouped_net, norm_net, plain_net, randomise
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.diagnostics._filter_matching import matched, pooled_outputs
from dgprune_lab.diagnostics.stability import EXTRA, halves

RANKS, CHANCE = "rank_correlation", "rank_correlation_by_chance"


def study_of(model: nn.Module | None = None, **options: Any) -> dg.Study:
    model = randomise(plain_net(), dtype=torch.float32) if model is None else model
    sources = options.pop("sources", None) or [domain("a", count=90), domain("b", count=60, seed=1)]
    return dg.Study(model, sources=sources, targets=[domain("t", seed=2, labelled=False)], **options)


def permuted(model: nn.Sequential, orders: dict[str, Tensor]) -> nn.Sequential:
    """The same function with the filters of plain_net's two convolutions in other places."""
    twin: Any = copy.deepcopy(model)
    first, second = orders["0"], orders["3"]
    with torch.no_grad():
        twin[0].weight.copy_(twin[0].weight[first])
        twin[0].bias.copy_(twin[0].bias[first])
        twin[3].weight.copy_(twin[3].weight[second][:, first])
        twin[3].bias.copy_(twin[3].bias[second])
        columns = twin[7].weight.view(10, 8, 9)[:, second]
        twin[7].weight.copy_(columns.reshape(10, 72))
    return twin


def orders_of(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"0": torch.randperm(6, generator=generator), "3": torch.randperm(8, generator=generator)}


def mean_of(frame: pd.DataFrame, scorer: str, metric: str = RANKS, group: str = "all") -> pd.Series:
    rows = frame[(frame.scorer == scorer) & (frame.metric == metric) & (frame.group == group) & frame.pair.isna()]
    assert len(rows) == 1
    return rows.iloc[0]


@dg.scorer("coin", needs=("moments",), reads={"source": "images"})
def coin(view: Any) -> Tensor:
    """Noise that depends on which images were read."""
    total = sum(float(view.moments(name).mean_square.sum()) for name in view.sources)
    generator = torch.Generator().manual_seed(int(total * 1e9) % 2**31)
    return torch.rand(view.filters, generator=generator, dtype=torch.float64)


def test_halves_share_no_image_keep_all_and_are_stratified() -> None:
    study = study_of()
    one, other = halves(study, seed=3)
    for result in study.domains:
        rows = [set(half.domain(result.name).splits["score"].tolist()) for half in (one, other)]
        overall = set(result.splits["score"].tolist())
        assert rows[0] | rows[1] == overall and not rows[0] & rows[1] and abs(len(rows[0]) - len(rows[1])) <= 1
        for part in ("train", "report"):
            assert torch.equal(one.domain(result.name).splits[part], result.splits[part])
    labels = study.domains[0].labels
    assert labels is not None
    counts = [torch.bincount(labels[half.domains[0].splits["score"]], minlength=4) for half in (one, other)]
    assert int((counts[0] - counts[1]).abs().max()) <= 2
    again, another = halves(study, seed=3)[0], halves(study, seed=4)[0]
    assert torch.equal(again.domains[0].splits["score"], one.domains[0].splits["score"])
    assert not torch.equal(another.domains[0].splits["score"], one.domains[0].splits["score"])


def test_a_scorer_of_weights_agrees_by_construction_and_images_is_zero() -> None:
    study = study_of()
    before = fingerprint(study.model)
    frame = dg.diagnostics.stability(study, scorers=["l1", "activation_l1", coin, "random"], draws=6, seed=5)
    assert fingerprint(study.model) == before
    weights, reading = mean_of(frame, "l1"), mean_of(frame, "activation_l1")
    assert (weights.value, weights.low, weights.high, weights.images) == (1.0, 1.0, 1.0, 0)
    assert mean_of(frame, "l1", "overlap").value == 1.0
    assert reading.images == 15 + 10 and reading.interval == "halves" and 0.5 < reading.value <= 1
    for name, interval in (("coin", "halves"), ("random", "seeds")):
        noise, chance = mean_of(frame, name), mean_of(frame, name, CHANCE)
        assert noise.interval == interval and chance.low < noise.value < chance.high
    assert mean_of(frame, "random").images == 0
    assert set(frame.draw_seed) == {5} and set(frame.over) == {"halves"}
    assert set(frame[frame.scorer == "random"].pair.dropna()) == {
        f"draw {k}, seeds {5 + 2 * k} and {6 + 2 * k}" for k in range(6)
    }


def test_a_mean_and_its_range_are_those_of_the_pairs() -> None:
    frame = dg.diagnostics.stability(study_of(), scorers=["taylor"], draws=4, ratio=0.4)
    pairs = frame[(frame.metric == RANKS) & (frame.group == "3") & frame.pair.notna()].value
    row = mean_of(frame, "taylor", group="3")
    assert len(pairs) == 4
    assert (row.value, row.low, row.high) == pytest.approx((pairs.mean(), pairs.min(), pairs.max()))
    kept = frame[frame.metric == "overlap"]
    assert (
        set(kept.ratio_requested) == {0.4}
        and kept.ratio_achieved.between(0.2, 0.4).all()
        and set(kept.budget) == {"filters"}
    )
    assert frame[frame.metric == RANKS].ratio_requested.isna().all()
    chance = frame[(frame.metric == CHANCE) & (frame.group == "3")]
    widths = (chance.high - chance.low)[chance.pair.notna()]
    overall = mean_of(frame, "taylor", CHANCE, group="3")
    assert widths.min() <= overall.high - overall.low <= widths.max(), "chance of one pair, not of a mean over pairs"
    again = dg.diagnostics.stability(study_of(), scorers=["taylor"], draws=4, ratio=0.4)
    pd.testing.assert_frame_equal(frame, again)


def test_the_scores_of_a_half_equal_those_of_a_study_of_its_images() -> None:
    study = study_of()
    one, other = halves(study, seed=1)
    labels = study.sources[0].labels
    rows = one.sources[0].splits["score"]
    alone = dg.Domain.from_arrays(
        "a",
        images=study.sources[0].images[rows],
        labels=None if labels is None else labels[rows],
        splits={"score": range(len(rows))},
        classes=4,
    )
    result = one.score("activation_l1").values["3"]
    single = dg.Study(study.model, sources=[alone]).score("activation_l1").values["3"]
    second = dg.Study(study.model, sources=[one.sources[1]]).score("activation_l1").values["3"]
    assert torch.allclose(result, (single + second) / 2)
    assert not torch.allclose(result, other.score("activation_l1").values["3"])


def test_a_permuted_copy_is_matched_exactly() -> None:
    model, orders = randomise(plain_net(), seed=3, dtype=torch.float32), orders_of()
    one, other = study_of(model, name="one"), study_of(permuted(model, orders), name="other")
    matches = matched(*(pooled_outputs(study, one.sources, images=60) for study in (one, other)))
    for name, order in orders.items():
        assert torch.equal(order[matches[name].other], torch.arange(len(order)))
        assert torch.allclose(matches[name].correlation, torch.ones(len(order), dtype=torch.float64), atol=1e-5)
    frame = dg.diagnostics.stability([one, other], scorers=["l1", "taylor"], over="training_seeds", images=60)
    for scorer in ("l1", "taylor"):
        for group in ("0", "3", "all"):
            assert mean_of(frame, scorer, group=group).value == pytest.approx(1.0)
            assert mean_of(frame, scorer, "overlap", group).value == 1.0
            assert mean_of(frame, scorer, "match_correlation", group).value == pytest.approx(1.0, abs=1e-5)
    assert set(frame.pair.dropna()) == {"one | other"} and set(frame.images) == {30 + 20}


def test_pooled_outputs_equal_a_slow_pass() -> None:
    study = study_of()
    net: Any = study.model
    x = torch.cat([d.take(d.rows("score")).images for d in study.sources])
    with torch.no_grad():
        first = net[2](torch.relu(net[0](x)))
        second = net[5](torch.relu(net[3](first)))
    result = pooled_outputs(study, study.sources, images=1000)
    assert torch.allclose(result["0"], first.mean((2, 3)), atol=1e-6)
    assert torch.allclose(result["3"], second.mean((2, 3)), atol=1e-6)
    few = pooled_outputs(study, study.sources, images=10)["0"]
    assert len(few) == 10 and torch.allclose(few[:5], result["0"][:5])


@pytest.mark.parametrize("build", [ResidualNet, grouped_net, norm_net])
def test_other_architectures_match_themselves(build: Any) -> None:
    studies = [study_of(randomise(build(), seed=1, dtype=torch.float32), name=name) for name in ("one", "two")]
    frame = dg.diagnostics.stability(studies, scorers=["l1", "activation_l1"], over="training_seeds")
    for group in (*studies[0].graph.names, "all"):
        assert mean_of(frame, "activation_l1", group=group).value == pytest.approx(1.0)


def test_a_constant_filter_matches_with_correlation_zero() -> None:
    live = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    dead = torch.cat([live, torch.full((50, 1), 0.37)], dim=1)
    result = matched({"x": dead}, {"x": dead[:, [3, 0, 1, 2]]})["x"]
    assert result.other.tolist() == [1, 2, 3, 0]
    assert result.correlation.tolist() == pytest.approx([1, 1, 1, 0])


def test_unrelated_networks_are_within_chance_and_random_scores_too() -> None:
    studies = [study_of(randomise(plain_net(), seed=k, dtype=torch.float32)) for k in range(3)]
    frame = dg.diagnostics.stability(studies, scorers=["random"], over="training_seeds")
    row, chance = mean_of(frame, "random"), mean_of(frame, "random", CHANCE)
    assert chance.interval == "random matchings" and chance.low < row.value < chance.high
    assert row.interval == "training_seeds"
    pairs = {pair.split(",")[0] for pair in frame.pair.dropna()}
    assert pairs == {"study | study (2)", "study | study (3)", "study (2) | study (3)"}, "equal names are numbered"
    assert mean_of(frame, "random", "match_correlation").value < 0.95
    layer = frame[(frame.metric == CHANCE) & (frame.group == "3") & frame.pair.isna()].iloc[0]
    assert (layer.low, layer.high) == pytest.approx((-1.96 / 7**0.5, 1.96 / 7**0.5), abs=0.12), "95 % of pairings of 8"
    draws = dg.diagnostics.stability(studies[0], scorers=["random"], draws=2).pair.dropna()
    assert set(draws) == {"draw 0, seeds 0 and 1", "draw 1, seeds 2 and 3"}, "no seed twice"


def test_the_shipped_trainings_differ_more_than_halves_do() -> None:
    studies = dg.training_seeds()
    within = dg.diagnostics.stability(studies[0], scorers=["activation_l1"], draws=2)
    between = dg.diagnostics.stability(studies, scorers=["activation_l1"], over="training_seeds", images=400)
    assert mean_of(within, "activation_l1").value > 0.95 > mean_of(between, "activation_l1").value
    matches = between[(between.metric == "match_correlation") & (between.group == "all")]
    assert matches.value.between(0.6, 0.99).all()


def test_layers_without_an_order_and_target_aware_scorers() -> None:
    tiny = nn.Sequential(
        nn.Conv2d(3, 2, 3),
        nn.ReLU(),
        nn.Conv2d(2, 5, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(80, 4),
    )
    study = study_of(randomise(tiny, dtype=torch.float32))
    frame = dg.diagnostics.stability(study, scorers=["l1", "dss"], draws=2)
    assert np.isnan(mean_of(frame, "l1", group="0").value) and mean_of(frame, "l1").value == 1.0
    assert mean_of(frame, "dss").target_aware and not mean_of(frame, "l1").target_aware
    assert mean_of(frame, "dss").images == 15 + 10 + 10


def test_invalid_options_are_refused() -> None:
    study = study_of()
    stability: Any = dg.diagnostics.stability
    with pytest.raises(dg.DgpruneError, match="Ready Scores"):
        stability(study, scorers=[study.score("l1")])
    with pytest.raises(dg.DgpruneError, match="two scorers are called 'l1'"):
        stability(study, scorers=["l1", "l1"])
    with pytest.raises(dg.DgpruneError, match="over must be one of 'halves', 'training_seeds'"):
        stability(study, scorers=["l1"], over="seeds")
    with pytest.raises(dg.DgpruneError, match="draws must lie in 1 to 1,000"):
        stability(study, scorers=["l1"], draws=0)
    with pytest.raises(dg.DgpruneError, match="pass a single one"):
        stability([study, study], scorers=["l1"])
    with pytest.raises(dg.DgpruneError, match=r"two or more studies, for example dg\.training_seeds"):
        stability(study, scorers=["l1"], over="training_seeds")
    with pytest.raises(dg.DgpruneError, match="have different layers"):
        stability([study, study_of(randomise(norm_net(), dtype=torch.float32))], scorers=["l1"], over="training_seeds")
    with pytest.raises(dg.DgpruneError, match="different domains"):
        stability([study, study_of(sources=[domain("a", seed=9)])], scorers=["l1"], over="training_seeds")
    single = replace(study.sources[0], splits={"score": torch.tensor([0])})
    with pytest.raises(dg.DgpruneError, match="two halves need two"):
        stability(dg.Study(study.model, sources=[single]), scorers=["activation_l1"])


def rows_of(chart: Any, name: str) -> list[dict[str, Any]]:
    layers = [layer for part in chart.to_dict()["hconcat"] for layer in part["layer"]]
    return next(one["data"]["values"] for one in layers if one["data"].get("values") and one["data"]["name"] == name)


def test_the_chart_draws_both_kinds_with_their_chance_range() -> None:
    model = randomise(plain_net(), seed=3, dtype=torch.float32)
    studies = [study_of(model), study_of(permuted(model, orders_of()))]
    frame = pd.concat(
        [
            dg.diagnostics.stability(studies[0], scorers=["l1", "taylor", "dss"], draws=3),
            dg.diagnostics.stability(studies, scorers=["l1"], over="training_seeds"),
        ],
        ignore_index=True,
    )
    chart = dg.charts.stability(frame)
    cut = rows_of(chart, "halves")
    assert [(row["label"], row["mark"]) for row in cut] == [("l1", "ring"), ("taylor", "dot"), ("dss ◇", "diamond")]
    assert cut[0]["text"] == "1.00, reads no images" and cut[1]["low"] <= cut[1]["value"] <= cut[1]["high"]
    assert all(row["chance_low"] < 0 < row["chance_high"] for row in cut)
    assert [(row["label"], row["text"]) for row in rows_of(chart, "training_seeds")] == [("l1", "1.00")]
    titles = [part["title"] for part in chart.to_dict()["hconcat"]]
    assert "3 cuts into halves" in titles[0]["subtitle"][0] and "1 pair of trainings" in titles[1]["subtitle"][0]
    assert "correlate 1.00" in titles[1]["subtitle"][0]
    svg = dg.charts.svg(chart)
    assert svg.startswith("<svg") and "NaN" not in svg
    with pytest.raises(dg.DgpruneError, match="no row to draw"):
        dg.charts.stability(dg.tidy([], extra=EXTRA))
