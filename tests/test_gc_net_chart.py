"""The table of connections and its picture: what stands in them, and that both say the same."""

from __future__ import annotations

import base64
import io
import sys
from typing import Any

import numpy as np
import pytest
import torch
import vl_convert
from material import ResidualNet, domain, randomise
from PIL import Image
from torch import nn

import dgprune_lab as dg
from dgprune_lab import charts, diagnostics
from dgprune_lab.charts.gc_net import PADDING
from dgprune_lab.charts.pixels import heat
from dgprune_lab.charts.theme import QUIET
from dgprune_lab.core.tables import tidy


@pytest.fixture(scope="module")
def study() -> dg.Study:
    model = randomise(ResidualNet(), seed=2, dtype=torch.float32)
    return dg.Study(model, sources=[domain("a", count=3000), domain("b", count=3000, seed=1)], targets=[domain("t")])


def data_of(chart: Any) -> dict[str, list[dict[str, Any]]]:
    return {layer["data"]["name"]: layer["data"]["values"] for layer in chart.to_dict()["layer"]}


def picture_of(row: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(row["url"].split(",")[1]))))


def test_the_table_has_a_row_per_pair_and_number(study: dg.Study) -> None:
    frame, found = diagnostics.gc_net(study), dg.gc_net(study)
    assert (
        len(frame) == 7 * len(found.pairs) and set(frame["scorer"]) == {"gc_net"} and set(frame["split"]) == {"score"}
    )
    for pair in found.pairs:
        rows = frame[(frame["group"] == pair.group) & (frame["layer"] == pair.layer)].set_index("metric")
        spread = found.spread[pair.name]
        wanted = {
            "rho_mean": spread.mean,
            "rho_spread": spread.std,
            "rho_zero": spread.silent,
            "rho_null": pair.null,
            "rho_null_spread": pair.null_spread,
            "rho_null_expected": pair.null_expected,
            "images_per_class": found.smallest,
        }
        assert rows["value"].to_dict() == wanted
        mean = rows.loc["rho_mean"]
        assert (mean["low"], mean["high"], mean["interval"]) == (spread.low, spread.high, "connections")
    assert set(frame["images"]) == {2000} and set(frame["domain"]) == {"a, b"}


def test_the_table_says_who_looked_at_what(study: dg.Study) -> None:
    for options, split, what in (({}, "score", "labels"), ({"by_class": False}, "train", "images")):
        frame = diagnostics.gc_net(study, split=split, **options)
        assert set(frame["seen_by_scorer"]) == {what} and set(frame["split"]) == {split}
        assert set(frame["seen_by_training"]) == {"unknown"} and set(frame["target_aware"]) == {False}


def test_a_row_per_connection_where_they_are_asked_for(study: dg.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    found = dg.gc_net(study, signed=True)
    frame = diagnostics.gc_net(study, signed=True, connections=True)
    rows = frame[frame["metric"] == "rho"]
    assert len(rows) == sum(p.numel() for p in found.parameters())
    one = rows[(rows["group"] == "stem") & (rows["layer"] == "last") & (rows["output"] == 6) & (rows["filter"] == 2)]
    assert one["value"].tolist() == [float(found.rho("stem_to_last")[6, 2])]
    monkeypatch.setattr(sys.modules["dgprune_lab.diagnostics.gc_net"], "_ROWS", len(rows) - 1)
    with pytest.raises(dg.DgpruneError, match=r"has 172 connections, more than the 171 rows.*dg\.gc_net\(study\)"):
        diagnostics.gc_net(study, connections=True)


def test_a_table_and_a_network_give_the_same_picture(study: dg.Study) -> None:
    frame, network = diagnostics.gc_net(study, connections=True), dg.gc_net(study)
    mask = dg.allocate(network.scores(), ratio=0.7)
    for chosen in (None, mask):
        assert charts.gc_net(frame, mask=chosen).to_dict() == charts.gc_net(network, mask=chosen).to_dict()


def test_without_a_mask_nothing_is_removed(study: dg.Study) -> None:
    data = data_of(charts.gc_net(diagnostics.gc_net(study, connections=True)))
    assert data["kept"] and not data["removed"] and {row["fill"] for row in data["nodes"]} != {"transparent"}
    assert not any("removed" in row["text"] or row["text"].startswith("Hollow") for row in data["lead"])


def test_a_mask_of_other_connections_is_refused(study: dg.Study) -> None:
    frame = diagnostics.gc_net(study, connections=True)
    whole = dg.allocate(dg.gc_net(study).scores(), ratio=0.5)
    lacking = {name: keep for name, keep in whole.keep.items() if name != "stem_to_last"}
    for keep in (lacking, {**lacking, "stem_to_last": torch.ones(2, 2, dtype=torch.bool)}):
        with pytest.raises(dg.DgpruneError, match=r"no connections from stem to last of shape \(7, 6\).*same network"):
            charts.gc_net(frame, mask=dg.WeightMask(keep, 0.5))


def test_lines_are_the_strongest_connections_and_what_pruning_takes_of_them(study: dg.Study) -> None:
    found = dg.gc_net(study)
    for ratio in (0.0, 0.5, 0.9):
        data = data_of(charts.gc_net(found, mask=(mask := dg.allocate(found.scores(), ratio=ratio))))
        wanted: dict[tuple[str, str], bool] = {}
        for pair in found.pairs:
            rho, keep = found.rho(pair.name), mask.keep[pair.name]
            best = {(int(j), i) for i, j in enumerate(rho.argmax(0))} | {
                (j, int(i)) for j, i in enumerate(rho.argmax(1))
            }
            for j, i in best:
                if rho[j, i] > 0:
                    wanted[f"{pair.group}, filter {i}", f"{pair.layer}, output {j}"] = bool(keep[j, i])
        drawn = {(row["from"], row["to"]): row["what"] == "kept" for row in data["kept"] + data["removed"]}
        assert drawn == wanted
        assert all(row["what"] == "removed" and row["colour"] == QUIET for row in data["removed"])
        assert bool(data["removed"]) == (ratio == 0.9) or ratio == 0.5
    rules = [layer for layer in charts.gc_net(found).to_dict()["layer"] if layer["mark"]["type"] == "rule"]
    assert ["strokeDash" in layer["mark"] for layer in rules] == [True, False]


def test_a_filter_that_keeps_nothing_on_one_side_is_hollow(study: dg.Study) -> None:
    found = dg.gc_net(study)
    mask = dg.allocate(found.scores(), ratio=0.7)
    data = data_of(charts.gc_net(found, mask=mask))
    hollow = {row["what"].split(":")[0] for row in data["nodes"] if row["fill"] == "transparent"}
    wanted = set()
    for name, count in {"stem": 6, "inner": 5, "outer": 6, "last": 7, "shortcut": 7, "head": 4}.items():
        for k in range(count):
            entering = [mask.keep[p.name][k].any() for p in found.pairs if p.layer == name]
            leaving = [mask.keep[p.name][:, k].any() for p in found.pairs if p.group == name]
            if any(side and not any(side) for side in (entering, leaving)):
                wanted.add(f"{name}, filter {k}")
    assert hollow == wanted and hollow and len(data["nodes"]) == 35
    names = [row["text"] for row in data["names"]]
    assert names[:6] == ["stem (6)", "inner (5)", "outer (6)", "last (7)", "shortcut (7)", "head (4)"]
    assert len({row["x"] for row in data["nodes"]}) == 6 and data["kept"][0]["x"] < data["kept"][0]["x2"]


def test_heat_maps_share_one_scale_and_show_rows_as_outputs(study: dg.Study) -> None:
    found = dg.gc_net(study)
    data = data_of(charts.gc_net(found))
    assert len(data["maps"]) == len(found.pairs) + 1, "one for each pair, and the strip of the scale"
    most = max(float(p.max()) for p in found.parameters())
    for row, pair in zip(data["maps"], found.pairs, strict=False):
        pixels, rho = picture_of(row), found.rho(pair.name).numpy()
        step = pixels.shape[0] // rho.shape[0], pixels.shape[1] // rho.shape[1]
        cells = pixels[step[0] // 2 :: step[0], step[1] // 2 :: step[1]]
        assert np.array_equal(cells, heat.colours(rho, low=0, high=np.ceil(most * 10) / 10))
    lines = [row["text"] for row in data["lines"]]
    for pair in found.pairs:
        assert all(line in lines for line in pair.lines(found.spread[pair.name]))
    assert any("|correlation|" in row["text"] for row in data["lead"])


def test_signed_connections_have_a_scale_around_zero(study: dg.Study) -> None:
    data = data_of(charts.gc_net(dg.gc_net(study, signed=True)))
    ticks = [float(row["text"]) for row in data["names"][-3:]]
    assert ticks[0] == -ticks[2] < 0 and ticks[1] == 0
    assert not any("|correlation|" in row["text"] for row in data["lead"])


class Wide(nn.Module):
    """A pair of 150 filters and 300 outputs, and more layers than a row of names holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 150, 1)
        self.a_layer_with_a_long_name = nn.Conv2d(150, 300, 1)
        self.chain = nn.ModuleList([nn.Conv2d(300 if k == 0 else 4, 4, 1) for k in range(22)])
        self.head = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a_layer_with_a_long_name(torch.relu(self.first(x))))
        for layer in self.chain:
            x = torch.tanh(layer(x))
        return self.head(x.mean((2, 3)))


def test_large_networks_are_bounded_and_it_says_so() -> None:
    study = dg.Study(randomise(Wide(), dtype=torch.float32), sources=[domain("a", count=120, shape=(3, 4, 4))])
    with pytest.warns(dg.DgpruneNote):
        found = dg.gc_net(study)
    chart = charts.gc_net(found)
    data = data_of(chart)
    assert len(found.pairs) == 24 and len(data["maps"]) == 21
    assert any("20 of 24 pairs are drawn" in row["text"] for row in data["lead"])
    assert "in blocks of 3 x 2" in [row["text"] for row in data["lines"]]
    assert len(data["kept"]) + len(data["removed"]) <= 640 and len(chart.to_json()) < 1_500_000
    some = data_of(charts.gc_net(found, layers=["head"], links=3))
    assert len(some["maps"]) == 2 and len(some["kept"]) + len(some["removed"]) <= 3
    with pytest.raises(dg.DgpruneError, match=r"unknown layer 'haed'; known: .*Did you mean 'head'"):
        charts.gc_net(found, layers=["haed"])
    check_inside(chart)


def check_inside(chart: Any) -> None:
    """Every word and mark lies in the picture, by a width of 6.4 pixels a letter."""
    spec = chart.to_dict()
    for layer in spec["layer"]:
        limit, align = layer["mark"].get("limit", 10_000), layer["mark"].get("align")
        for row in layer["data"]["values"]:
            long = min(limit, 6.4 * len(row.get("text", "")))
            turned = layer["mark"].get("angle") == 270
            left, right = (0, 0) if turned else (long / 2, long / 2) if align == "center" else (0, long)
            assert row["x"] - left >= -PADDING["left"] and row["x"] + right <= spec["width"] + PADDING["right"], row
            assert 0 <= row["y"] <= spec["height"] and row["y"] - turned * long >= 0, row
            assert max(row.get("x2", 0), 0) <= spec["width"] and row.get("y2", 0) <= spec["height"]


def test_nothing_is_cut_and_vega_draws_it(study: dg.Study) -> None:
    chart = charts.gc_net(dg.gc_net(study))
    check_inside(chart)
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    assert svg.startswith("<svg") and "NaN" not in svg and chart.to_dict()["width"] + 16 <= 960


def test_a_table_without_connections_is_refused(study: dg.Study) -> None:
    for frame in (diagnostics.gc_net(study), tidy([])):
        with pytest.raises(dg.DgpruneError, match=r"holds no connections.*connections=True"):
            charts.gc_net(frame)


def test_blocks_are_means_of_what_they_cover() -> None:
    values = np.arange(35.0).reshape(5, 7)
    small, steps = heat.blocks(values, most=3)
    assert steps == (2, 3) and small.shape == (3, 3)
    assert small[0, 0] == values[:2, :3].mean() and small[2, 2] == values[4, 6]
    assert heat.blocks(values, most=7)[1] == (1, 1)
    assert heat.ends([np.array([[0.31]])]) == (0, 0.4) and heat.ends([np.array([[-0.2, 0.1]])]) == (-0.2, 0.2)
    assert heat.hexes(np.array([0.0, 1.0]), low=0, high=1) == [heat.SEQUENTIAL[0], heat.SEQUENTIAL[-1]]
