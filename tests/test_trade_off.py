"""Size or cost against accuracy: the table of several networks, its Pareto front and its chart."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from material import domain, norm_net, randomise
from torch import nn

import dgprune_lab as dg
from dgprune_lab.charts.trade_off_rows import trade_off_data
from dgprune_lab.core import DgpruneError
from dgprune_lab.diagnostics._choices import choice_of
from dgprune_lab.diagnostics.trade_off import EXTRA, network_rows
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


@pytest.fixture(scope="module")
def study() -> dg.Study:
    network = randomise(norm_net(), dtype=torch.float32)
    targets = [domain("t", count=90, seed=5), domain("bare", labelled=False, seed=6)]
    return dg.Study(network, sources=[domain("a", count=90), domain("b", seed=3)], targets=targets)


@pytest.fixture(scope="module")
def networks(study: dg.Study) -> dict[str, Any]:
    aware = study.score("dss", options={"site": "conv_output", "target": "t"})
    tuned = study.network(dg.allocate(study.score("l1"), ratio=0.5))
    with torch.no_grad():
        tuned[-1].bias.add_(torch.randn(4, generator=torch.Generator().manual_seed(0)))  # type: ignore[index,operator,union-attr]
    other = randomise(nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)))
    masks = {"l1": dg.allocate(study.score("l1"), ratio=0.4), "dss": dg.allocate(aware, ratio=0.4)}
    return {"full": None, **masks, "tuned": tuned, "other": other.float()}


@pytest.fixture(scope="module")
def table(study: dg.Study, networks: dict[str, Any]) -> pd.DataFrame:
    return dg.diagnostics.trade_off(study, networks)


def test_every_network_is_measured_as_measure_does(study: dg.Study, networks: Any, table: pd.DataFrame) -> None:
    assert (
        set(table.network) == set(networks)
        and set(table.kind) == {"network"}
        and set(table.split.dropna()) == {"report"}
    )
    for name, chosen in networks.items():
        small = chosen if isinstance(chosen, nn.Module) else study.network(chosen)
        labelled = [d for d in study.domains if d.labels is not None]
        expected = dg.measure(small, labelled, latency=False, metrics=["worst_domain"])
        mine: Any = table[table.network == name]
        assert set(mine.metric) - {"filters"} == set(expected.metric) and mine.domain.dropna().nunique() == 3
        for row in expected.to_dict("records"):
            name_of = "" if pd.isna(row["domain"]) else row["domain"]
            same = mine[(mine.metric == row["metric"]) & (mine.domain.fillna("") == name_of)]
            assert len(same) == 1 and same.value.item() == pytest.approx(row["value"], rel=1e-6), row
            columns = ["low", "high"] + ["seen_by_scorer", "seen_by_finetuning", "target_aware"] * bool(name_of)
            for column in columns:
                value = same[column].item()
                assert value == row[column] or (pd.isna(value) and pd.isna(row[column])), (name, column)
    assert "filters" not in set(table[table.network == "other"].metric), "which of its filters went is unknown"


def test_numbers_that_are_known_already_make_the_same_rows(study: dg.Study, networks: Any, table: pd.DataFrame) -> None:
    choice = choice_of(study, "l1", networks["l1"], batchnorm="recalibrate")
    outcomes = {name: study.outcomes(networks["l1"], domain=name) for name in ("a", "b", "t")}
    rows = dg.tidy(network_rows(choice, outcomes, split="report", kind="pin"), extra=EXTRA)
    expected = table[table.network == "l1"].assign(kind="pin").reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, expected)


def test_latency_is_measured_only_when_asked_for(study: dg.Study) -> None:
    frame = dg.diagnostics.trade_off(study, {"full": None}, latency=True)
    row = frame[frame.metric == "latency"].iloc[0]
    assert row.low <= row.value <= row.high and row.interval == "range" and row.network == "full"
    points = trade_off_data(frame, cost="latency")["points_0"]
    assert {(p["cost_low"], p["cost_high"]) for p in points} == {(row.low, row.high)} and "ms per 30 images" in points[
        0
    ]["amount"]


def test_a_table_of_networks_that_cannot_be_made_is_refused(study: dg.Study) -> None:
    with pytest.raises(DgpruneError, match="at least one network"):
        dg.diagnostics.trade_off(study, {})
    with pytest.raises(DgpruneError, match="a domain with labels"):
        bare = dg.Study(study.model, sources=[domain("u", labelled=False)])
        dg.diagnostics.trade_off(bare, {"full": None})
    other = dg.Study(randomise(norm_net(), seed=2).float(), sources=[domain("a")])
    wrong = dg.Scores(
        "s",
        {"0": torch.arange(9.0)},
        dg.read_groups(nn.Sequential(nn.Conv2d(3, 9, 3), nn.Flatten(), nn.Linear(900, 4)), torch.zeros(1, 3, 12, 12)),
    )
    with pytest.raises(DgpruneError, match="half is a mask of another network"):
        dg.diagnostics.trade_off(other, {"half": dg.allocate(wrong, ratio=0.5)})


def named_data(spec: Any) -> dict[str, list[dict[str, Any]]]:
    """Every named data set of a chart's specification."""
    found: dict[str, list[dict[str, Any]]] = {}

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("data"), dict) and "values" in part["data"]:
                assert part["data"]["name"] not in found, "a page could swap one of the two alone"
                found[part["data"]["name"]] = part["data"]["values"]
            for inner in part.values():
                walk(inner)
        for inner in part if isinstance(part, list) else ():
            walk(inner)

    walk(spec)
    return found


def test_the_chart_has_a_point_per_network_and_domain_and_the_front_of_what_looked_at_no_target(
    table: pd.DataFrame,
) -> None:
    spec = dg.charts.trade_off(table, cost="macs").to_dict()
    data = named_data(spec)
    assert {row["domain"] for row in data["points_0"]} == {"a", "b"} and {
        row["domain"] for row in data["points_1"]
    } == {"t"}
    for points, front in ((data["points_0"], data["front_0"]), (data["points_1"], data["front_1"])):
        for name in {row["domain"] for row in points}:
            rows = [row for row in points if row["domain"] == name]
            assert {row["network"] for row in rows} == {"full", "l1", "dss", "tuned", "other"}
            honest = [row for row in rows if name != "t" or row["network"] != "dss"]
            corners = {
                (one["cost"], one["value"])
                for one in honest
                if not any(
                    (o["cost"] <= one["cost"] and o["value"] >= one["value"])
                    and (o["cost"] < one["cost"] or o["value"] > one["value"])
                    for o in honest
                )
            }
            drawn = [(row["cost"], row["value"]) for row in front if row["domain"] == name]
            assert set(drawn[:-1]) == corners and drawn[-1][0] > max(row["cost"] for row in rows), "to the axis' end"
            for row in rows:
                cells: Any = table[(table.network == row["network"])]
                assert row["cost"] == cells[cells.metric == "macs"].value.item()
                accuracy = cells[(cells.metric == "accuracy") & (cells.domain == name)]
                assert row["value"] == pytest.approx(100 * accuracy.value.item())
    aware = {row["network"]: (row["label"], row["called"]) for row in data["points_1"]}
    assert aware["dss"] == ("t ◇ target-aware", "dss ◇ target-aware") and aware["l1"] == ("t", "l1")
    numbers = {row["number"]: row["text"] for row in data["key"]}
    assert list(numbers) == list("12345") and numbers["1"] == "full" and numbers["3"].startswith("dss ◇ target-aware")
    assert spec["params"] == [{"name": "picked", "value": {}}] and spec["usermeta"]["picks"] == "points_0"
    places = {row["network"]: row["place"] for row in data["points_0"]}
    assert (
        sorted(places.values()) == [0, 1, 2, 3, 4]
        and places["full"] == 4
        and {row["line"] for row in data["points_1"]} == {1}
    )
    assert "Pareto" in spec["title"]["subtitle"][0] and "dg.find" in spec["title"]["subtitle"][1]
    assert spec["title"]["text"].endswith("BatchNorm as is or re-estimated"), "a network that was tuned is as it is"


def test_what_looked_at_a_target_beats_nothing_there_and_still_counts_on_the_sources() -> None:
    rows = [
        {"network": name, "metric": metric, "value": value, "domain": on, "role": role, "unit": "share"} | seen
        for name, seen in (("aware", {"target_aware": True}), ("plain", {"target_aware": False}))
        for metric, on, role, value in (
            ("parameters", None, None, 10 if name == "aware" else 20),
            ("accuracy", "a", "source", 0.9),
            ("accuracy", "t", "target", 0.9 if name == "aware" else 0.4),
        )
    ]
    data = trade_off_data(dg.tidy([{**row, "seen_by_scorer": "none"} for row in rows], extra=EXTRA), cost="parameters")
    assert [(row["cost"], row["value"]) for row in data["front_0"]][:-1] == [(10, 90.0)]
    assert [(row["cost"], row["value"]) for row in data["front_1"]][:-1] == [(20, 40.0)]


def test_a_long_name_is_cut_off_and_never_its_mark(table: pd.DataFrame) -> None:
    long = table.assign(network=table.network.replace("dss", "a name that is far longer than the column of a key " * 2))
    key = trade_off_data(long, cost="macs")["key"]
    assert len(key) == 5 and re.fullmatch(r"a name .*… ◇ target-aware \(−\d+\.\d %\)", key[2]["text"]), key[2]


def test_a_network_without_the_cost_has_no_point(table: pd.DataFrame) -> None:
    data = trade_off_data(table, cost="filters")
    assert {row["network"] for row in data["points_0"]} == {"full", "l1", "dss", "tuned"}
    with pytest.raises(DgpruneError, match="no rows of 'latency'; cost can be 'filters', 'parameters'"):
        dg.charts.trade_off(table, cost="latency")


def test_a_sweep_is_drawn_as_measured_ratios(study: dg.Study) -> None:
    frame = dg.sweep(study, scorers=["l1", "random"], ratios=[0.2, 0.5], seeds=2)
    data = trade_off_data(frame, cost="parameters")
    points = [row for row in data["points_0"] if row["domain"] == "a"]
    assert len({row["network"] for row in points}) == len(points) and not data.get("key")
    assert {row["kind"] for row in points} == {"measured ratio"} and {row["number"] for row in points} == {""}
    assert any("random, 20 %, seed 1" in row["network"] for row in points)
    with pytest.raises(DgpruneError, match="several rows of domain"):
        dg.charts.trade_off(pd.concat([frame, frame]))


def test_numbers_stand_free_of_points_and_of_one_another(table: pd.DataFrame) -> None:
    data, height = trade_off_data(table, cost="macs", width=560, height=230), 230
    end, (low, high) = data["span_0"][1]["cost"], (row["value"] for row in data["span_0"])
    place = lambda row: (row["cost"] / end * 200, (row["value"] - low) / (high - low) * height)  # noqa: E731
    taken = [place(row) for row in data["points_0"]]
    assert len(data["numbers_0"]) >= 3
    for row in data["numbers_0"]:
        x, y = place(row)
        assert all(abs(x - at) > 7 or abs(y - other) > 8.9 for at, other in taken), row
        taken.append((x, y))
