"""The sensitivity map as data: the most sensitive filters stand first, coloured; what is not significant is grey."""

from __future__ import annotations

import base64
import io
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from material import domain, images, plain_net, randomise
from PIL import Image
from torch import Tensor

import dgprune_lab as dg
from dgprune_lab.charts.pixels.overlays import AGAINST, FOR, overlay, overlays
from dgprune_lab.charts.sensitivity.against_scores import against_rows, correlation_words
from dgprune_lab.charts.sensitivity.map import NAME, PLOT, SAME, WAITING, compared, map_data, mixed, removed_rows
from dgprune_lab.charts.theme import FIRST_SOURCE, FIRST_TARGET
from dgprune_lab.core.tables import tidy
from dgprune_lab.diagnostics.sensitivity import EXTRA

pytestmark = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")
MINUS = "\N{MINUS SIGN}"
NONE = float("nan")
EFFECTS = {
    "first": [(0.05, -0.1, 0.2), (1.0, 0.8, 1.2), (-2.0, -2.2, -1.8), (0.4, NONE, NONE), (0.3, 0.0, 0.6)],
    "second": [(-0.5, -0.7, -0.3), (NONE, NONE, NONE)],
}


def table(effects: Any = None, *, target: str = "target", scores: Any = None, method: str = "activation") -> Any:
    about = {"method": method, "split": "score", "images": 100, "seen_by_scorer": "labels", "seen_by_training": "none"}
    rows: list[dict[str, Any]] = [
        {**about, "domain": name, "role": role, "group": "first", "filter": 0, "metric": "attribution", "value": 0.0}
        for name, role in (("a", "source"), ("t", target))
    ]
    for layer, found in (effects or EFFECTS).items():
        for k, (value, low, high) in enumerate(found):
            cell = {**about, "domain": "t", "role": target, "other": "a", "group": layer, "filter": k}
            rows.append({**cell, "metric": "cohens_d", "value": value, "low": low, "high": high, "q_value": 0.01})
            rows.append({**cell, "metric": "auroc", "value": 0.7, "q_value": 0.01})
    for scorer, looked, values in scores or []:
        cells = [(layer, k) for layer, found in (effects or EFFECTS).items() for k in range(len(found))]
        rows += [
            {"metric": "score", "scorer": scorer, "group": layer, "filter": k, "value": v, "target_aware": looked}
            for (layer, k), v in zip(cells, values, strict=True)
        ]
        for metric, value in (("rank_correlation", 0.5), ("rank_correlation_active", 0.1)):
            rows.append(
                {
                    "metric": metric,
                    "scorer": scorer,
                    "group": "all",
                    "value": value,
                    "low": value - 0.3,
                    "high": value + 0.3,
                    "target_aware": True,
                }
            )
    return tidy(rows, extra=EXTRA).astype({"filter": "Int64", "q_value": "float64"})


def cells_of(data: Any, layer: str) -> list[dict[str, Any]]:
    return [cell for cell in data["cells"] if cell["group"] == layer]


def test_the_largest_difference_stands_first_and_colour_and_sign_say_where_it_contributes_more() -> None:
    data = map_data(table())
    cells = cells_of(data, "first")
    assert [cell["filter"] for cell in cells] == [2, 1, 3, 4, 0]
    assert [cell["sign"] for cell in cells] == ["\N{MINUS SIGN}", "+", "", "", ""]
    assert cells[0]["fill"] == FIRST_SOURCE and cells[1]["fill"] == mixed(FIRST_TARGET, 0.25 + 0.75 / 2)
    assert cells[0]["says"] == "contributes more on a" and cells[1]["says"] == "contributes more on t"
    assert cells[0]["size"] == "−2.00 (−2.20 to −1.80)" and cells[0]["area"] == "0.70" and cells[0]["q"] == "0.01"
    assert [row["text"] for row in data["legend"]] == [
        "contributes more on t",
        "more on a",
        "not significant",
        "significant",
    ]


def test_it_is_grey_where_the_interval_covers_0_touches_it_or_is_missing() -> None:
    data = map_data(table())
    grey = {cell["filter"]: cell["says"] for cell in cells_of(data, "first") if cell["fill"] == SAME}
    assert grey == dict.fromkeys((0, 3, 4), "not significant")
    assert [(row["name"], row["count"]) for row in data["lines"]] == [("first", "2 of 5"), ("second", "1 of 2")]
    spreadless = cells_of(data, "second")[0]
    assert spreadless["filter"] == 1 and spreadless["fill"] == SAME, "no spread: the largest, but no interval"
    assert spreadless["size"] == "differs without any spread"


def test_two_sources_have_no_colours_of_domains() -> None:
    fills = {cell["fill"] for cell in map_data(table(target="source"))["cells"]}
    assert FIRST_SOURCE not in fills and "#7A5195" in {fill.upper() for fill in fills} | {mixed("#7A5195", 1.0)}
    assert compared(table(target="source")) == "a against t (seen)"
    assert compared(table()) == "a against t ◇ target-aware, seen"


def graph_of(**filters: int) -> Any:
    net = torch.nn.Sequential()
    channels = 3
    for name, count in filters.items():
        net.add_module(name, torch.nn.Conv2d(channels, count, 3, padding=1))
        channels = count
    net.add_module("pool", torch.nn.AdaptiveAvgPool2d(1))
    net.add_module("flat", torch.nn.Flatten())
    net.add_module("head", torch.nn.Linear(channels, 2))
    return dg.read_groups(net, torch.zeros(2, 3, 8, 8))


def test_marks_stand_below_what_the_mask_removes_and_follow_it() -> None:
    graph = graph_of(first=5, second=2)
    cells = map_data(table())["cells"]
    for removed in ({"first": [2, 4]}, {"first": [0], "second": [1]}, {}):
        found = removed_rows(cells, dg.Mask.by_hand(graph, removed=removed))
        wanted = [c for c in cells if c["filter"] in removed.get(c["group"], [])]
        assert [(row["line"], row["x"], row["x2"]) for row in found] == [(c["line"], c["x"], c["x2"]) for c in wanted]
        assert {row["mark"] for row in found} <= {"×"}
    with pytest.raises(dg.DgpruneError, match="no filter 2 of layer 'first'"):
        removed_rows(cells, dg.Mask.by_hand(graph_of(other=5)))


def test_wide_layers_fit_and_what_is_removed_of_them_is_bars_of_the_right_length() -> None:
    generator = np.random.default_rng(0)
    wide = [(d, d - 0.1, d + 0.1) for d in generator.normal(size=512)]
    data = map_data(table({"small": wide[:16], "wide": wide}))
    assert max(cell["x2"] for cell in data["cells"]) <= NAME + PLOT + 1e-6
    small, narrow = cells_of(data, "small"), cells_of(data, "wide")
    assert small[0]["x2"] - small[0]["x"] >= 8 and {cell["sign"] for cell in narrow} == {""}
    assert all(abs(a["x2"] - b["x"]) < 0.02 for a, b in pairwise(narrow))
    removed = generator.permutation(512)[:200].tolist()
    bars = removed_rows(data["cells"], dg.Mask.by_hand(graph_of(small=16, wide=512), removed={"wide": removed}))
    assert sum(bar["x2"] - bar["x"] for bar in bars) == pytest.approx(200 * PLOT / 512, abs=2)
    assert {bar["mark"] for bar in bars} == {""} and len(bars) < 200


def test_layers_that_are_not_computed_stay_pale() -> None:
    data = map_data(table(), layers={"zeroth": 3, "first": 5, "second": 2})
    assert [cell["fill"] for cell in cells_of(data, "zeroth")] == [WAITING] * 3
    assert [row["wait"] for row in data["lines"]] == ["not computed", "", ""]
    texts = [row["text"] for row in data["legend"]]
    assert "not computed" in texts and "removed at present" in texts


def test_a_plot_per_scorer_has_the_places_of_its_order_and_its_mark() -> None:
    scores = [("mine", False, [3.0, 1.0, 2.0, 2.0, 9.0, 4.0, 8.0]), ("peeked", True, [0.0] * 7)]
    frame = table(scores=scores)
    rows = against_rows(frame)
    assert [row["place"] for row in rows["mine"]] == pytest.approx([50.0, 0.0, 25.0, 25.0, 100.0, 66.67, 83.33])
    assert [row["size"] for row in rows["mine"]] == [0.05, 1.0, 2.0, 0.4, 0.3, 0.5, 2.0]
    assert [row["mark"] for row in rows["mine"]] == ["ring", "dot", "dot", "ring", "ring", "dot", "ring"]
    drawn = dg.charts.sensitivity(frame).to_dict()
    titles = [plot["title"] for plot in drawn["hconcat"][0]["vconcat"][1]["vconcat"][0]["hconcat"]]
    assert [title["text"] for title in titles] == ["mine", "peeked ◇"]
    tied = {"conv": [(0.0, None, None)] * 6}
    stack = dg.charts.sensitivity(table(tied, scores=[("mine", False, [0.0] * 6)]))
    assert ">6 here<" in dg.charts.svg(stack) and " here<" not in dg.charts.svg(dg.charts.sensitivity(frame))
    assert titles[0]["subtitle"] == [
        "order not significant",
        f"rank correlation 0.10 ({MINUS}0.20 to 0.40)",
        "of active filters",
        "all filters: 0.50 (0.20 to 0.80)",
    ], "filters that never vary do not make the verdict"
    assert drawn["title"]["text"] == "Domain-sensitive filters: a against t ◇ target-aware, seen"
    assert "vconcat" not in dg.charts.sensitivity(table()).to_dict()["hconcat"][0]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.9, "filters first"),
        (-0.9, -0.1, "filters last"),
        (-0.1, 0.9, "not significant"),
        (NONE, NONE, "not significant"),
    ],
)
def test_the_words_of_a_correlation_follow_its_interval(low: float, high: float, said: str) -> None:
    assert said in correlation_words({"value": 0.4, "low": low, "high": high})[0]
    assert correlation_words({"value": NONE, "low": low, "high": high})[0] == "no order to compare"


def test_tables_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(dg.DgpruneError, match="no row of metric 'cohens_d'"):
        dg.charts.sensitivity(table().query("metric == 'auroc'"))
    import pandas as pd

    with pytest.raises(dg.DgpruneError, match="one method is drawn at a time; the table holds activation, conductance"):
        dg.charts.sensitivity(pd.concat([table(), table(method="conductance")]))


def test_a_filter_that_is_made_sensitive_stands_first() -> None:
    net: Any = randomise(plain_net(), dtype=torch.float32)
    with torch.no_grad():
        net[0].weight[:, 0] = 0
        net[0].weight[3] = 0
        net[0].weight[3, 0] = 1.0
        net[3].weight[:, 3] = net[3].weight[:, 3].abs() + 0.2
    made = []
    for name, seed, red in (("a", 0, 0.2), ("t", 1, 0.9)):
        plain = domain(name, count=240, seed=seed)
        pixels = images(240, 3, 12, 12, seed=seed)
        pixels[:, 0] = red + 0.05 * pixels[:, 0]
        splits = {key: rows.tolist() for key, rows in plain.splits.items()}
        made.append(dg.Domain.from_arrays(name, images=pixels, labels=plain.labels, splits=splits, classes=4))
    study = dg.Study(net, sources=made[:1], targets=made[1:])
    frame = dg.diagnostics.sensitivity(study, method="activation")
    first = cells_of(map_data(frame), "0")[0]
    assert first["filter"] == 3 and first["sign"] == "+" and first["says"] == "contributes more on t"
    assert "<svg" in dg.charts.svg(dg.charts.sensitivity(frame, mask=dg.allocate(study.score("l1"), ratio=0.5)))


def pixels_of(url: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")).astype(float)


def test_an_overlay_is_amber_where_it_speaks_for_violet_where_against_and_grey_where_nothing() -> None:
    image = torch.full((3, 8, 8), 0.5)
    values: Tensor = torch.zeros(8, 8)
    values[:, :2], values[:, 6:] = 1.0, -1.0
    drawn, dark = pixels_of(overlay(image, values, most=1.0)), 255 * (0.1 + 0.35 * 0.5)
    left, middle, right = drawn[:, 4], drawn[:, drawn.shape[1] // 2], drawn[:, -4]
    for part, colour in ((left, FOR), (right, AGAINST)):
        assert np.abs(part - 0.85 * np.array(colour) - 0.15 * dark).max() <= 1.5
    assert np.ptp(middle, axis=1).max() == 0 and np.abs(middle - dark).max() <= 1
    nothing = pixels_of(overlay(image, torch.zeros(8, 8), most=0.0))
    assert np.ptp(nothing) == 0


def test_pairs_of_pictures_need_maps_and_words_that_fit() -> None:
    x = torch.rand(3, 3, 8, 8)
    drawn = overlays(x, torch.rand(3, 4, 4), words=["one", "two", "three"], columns=2).to_dict()
    data = {layer["data"]["name"]: layer["data"]["values"] for layer in drawn["layer"]}
    assert len(data["pictures"]) == 6 and [row["text"] for row in data["words"]] == ["one", "two", "three"]
    assert data["pictures"][4]["y"] > data["pictures"][0]["y"] and data["pictures"][4]["x"] == 0
    with pytest.raises(dg.DgpruneError, match="3 images, 2 maps and 3 words"):
        overlays(x, torch.rand(2, 4, 4), words=["a", "b", "c"])
    with pytest.raises(dg.DgpruneError, match="map of an image is NaN"):
        overlays(x, torch.full((3, 4, 4), NONE), words=["a", "b", "c"])
