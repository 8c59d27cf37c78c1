"""Mean maps as a table and a picture, and the table of data access."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from material import domain, plain_net, randomise
from torch import nn

import dgprune_lab as dg
from dgprune_lab.charts.mean_map import mean_map as draw
from dgprune_lab.diagnostics.data_access import data_access
from dgprune_lab.diagnostics.mean_map import mean_map


def study_of(net: Any = None, **changed: Any) -> dg.Study:
    kinds: dict[str, Any] = {"sources": [domain("a"), domain("b", seed=1)], "targets": [domain("t", seed=2)]}
    model = randomise(plain_net(), seed=4, dtype=torch.float32) if net is None else net
    return dg.Study(model, **{**kinds, **changed})


def data(frame: Any) -> dict[str, list[dict[str, Any]]]:
    """The chart's named data."""
    return {layer["data"]["name"]: layer["data"]["values"] for layer in draw(frame).to_dict()["layer"]}


def test_the_table_holds_the_statistics_and_the_cosines_are_dss() -> None:
    study = study_of()
    frame: Any = mean_map(study, layer="0", filters=[2, 4])
    maps = study.statistics("t", needs=["activation_map"]).activation_map["0"]
    for row in frame.query("metric == 'mean_map' and domain == 't'").to_dict("records"):
        assert row["value"] == float(maps[row["filter"], row["row"], row["column"]])
    dss = study.score("dss", options={"source": "b", "target": "t"}).values["0"]
    cosines = frame.query("metric == 'cosine' and domain == 't' and other == 'b'").set_index("filter")["value"]
    assert cosines[2] == pytest.approx(float(dss[2])) and cosines[4] == pytest.approx(float(dss[4]))
    assert len(frame.query("metric == 'mean_map'")) == 2 * 3 * 144 and len(frame.query("metric == 'cosine'")) == 2 * 3


def test_rows_with_a_target_are_target_aware() -> None:
    frame: Any = mean_map(study_of(), layer="0", filters=[0])
    aware = frame.set_index(["metric", "domain"])["target_aware"].groupby(level=[0, 1]).first()
    assert aware["cosine", "t"] and not aware["cosine", "b"] and aware["mean_map", "t"]
    texts = data(frame)["words"]
    marked = [row["text"] for row in texts if "◇" in row["text"]]
    assert len(marked) == 2 and all("with" in text for text in marked)


def test_a_map_that_is_flattened_later_is_drawn_completely() -> None:
    frame: Any = mean_map(study_of(), layer="3", filters=[1])
    assert frame["row"].max() == 5 and frame["column"].max() == 5
    spec, places = draw(frame).to_dict(), data(frame)["places"]
    assert len(places) == 3 * 36 and max(row["shade"] for row in places) == 1
    assert all(0 <= row["x"] < row["x2"] <= spec["width"] and row["y2"] <= spec["height"] for row in places)


def test_invalid_input_is_refused() -> None:
    with pytest.raises(dg.DgpruneError, match=r"layer '0' has filters 0 to 5; got \[6\]"):
        mean_map(study_of(), layer="0", filters=[6])
    with pytest.raises(dg.DgpruneError, match="unknown layer 'conv'"):
        mean_map(study_of(), layer="conv", filters=[0])
    flat = study_of(randomise(nn.Sequential(nn.Conv2d(3, 4, 12), nn.ReLU(), nn.Flatten(), nn.Linear(4, 4))).float())
    with pytest.raises(dg.DgpruneError, match="the maps of layer '0' are 1 x 1"):
        mean_map(flat, layer="0", filters=[0])


def test_data_access_of_the_menu() -> None:
    frame: Any = data_access(study_of()).set_index("scorer")
    assert set(frame.index) == set(dg.SCORERS)
    assert frame.loc["dss", ["source_access", "target_access", "target_aware"]].tolist() == ["images", "images", True]
    assert frame.loc["taylor", ["source_access", "target_access", "target_aware"]].tolist() == ["labels", "none", False]
    assert "BatchNorm" in frame.loc["bn_scale", "unavailable"] and frame.loc["l1", "unavailable"] == ""
    alone = data_access(study_of(sources=[domain("a")], targets=[]), ["dss", "risk_variance"]).set_index("scorer")
    assert alone["unavailable"].tolist() == [
        "the study has no target.",
        "it compares at least two sources, and there is one.",
    ]
