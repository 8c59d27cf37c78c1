"""The chart of `feature_shift`: its places are the table's, also between two ratios, and it says what was looked at."""

from __future__ import annotations

import html
import re
from typing import Any, cast

import numpy as np
import pytest

import dgprune_lab as dg
from dgprune_lab.charts.feature_shift.map import LARGE, map_chart
from dgprune_lab.charts.feature_shift.map_rows import (
    CLASS_COLOURS,
    HEAD,
    OTHER,
    SIDE,
    Dot,
    at_ratio,
    boxed,
    legend_rows,
    point_rows,
)
from dgprune_lab.charts.feature_shift.numbers import EXPLAINED, METRICS, number_chart
from dgprune_lab.charts.theme import domain_styles
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.diagnostics.feature_shift import EXTRA

DOMAINS = (("a", "source"), ("b", "source"), ("t", "target"))
RATIOS = (0.0, 0.2, 0.6)
IMAGES = 4


def numbers(layer: str, ratio: float) -> list[dict[str, Any]]:
    """A row per metric and pair, domain or all images; each value tells where it belongs."""
    rows: list[dict[str, Any]] = []
    for k, metric in enumerate(METRICS):
        if metric in ("mmd", "coral", "proxy_a_distance"):
            about = [{"other": one, "domain": two} for one, two in (("a", "b"), ("a", "t"), ("b", "t"))]
        elif metric == "cka":
            about = [{"domain": name} for name, _ in DOMAINS if ratio > 0]
        else:
            about = [{}]
        for m, one in enumerate(about):
            value = 0.1 * k + 0.01 * m + ratio / 10
            role = dict(DOMAINS).get(one.get("domain", ""))
            rows.append(
                {
                    **one,
                    "role": role,
                    "group": layer,
                    "ratio_requested": ratio,
                    "metric": metric,
                    "value": value,
                    "low": value - 0.05,
                    "high": value + 0.02,
                }
            )
    return rows


def places(layer: str, ratio: float, *, seed: int = 0) -> list[dict[str, Any]]:
    draw = np.random.default_rng([seed, int(100 * ratio)])
    rows: list[dict[str, Any]] = []
    for domain, role in DOMAINS:
        for image in range(IMAGES):
            shared = {
                "domain": domain,
                "role": role,
                "group": layer,
                "ratio_requested": ratio,
                "image": 7 * image,
                "class": None if domain == "b" else image,
                "embedding": "umap",
            }
            rows += [{**shared, "metric": f"map_{axis}", "value": draw.normal()} for axis in (1, 2)]
    return rows


def table(
    *, layers: Any = ("conv1",), mapped: Any = ("conv1",), ratios: Any = RATIOS, seed: int = 0, **seen: Any
) -> Any:
    rows: list[dict[str, Any]] = []
    for layer in layers:
        rows += [row for ratio in ratios for row in numbers(layer, ratio)]
    for layer in mapped:
        rows += [row for ratio in ratios for row in places(layer, ratio, seed=seed)]
        rows.append(
            {"group": layer, "metric": "trustworthiness", "value": 0.91, "low": 0.88, "high": 0.93, "embedding": "umap"}
        )
    rows = [{"target_aware": False, **row, **(seen if row.get("role") == "target" else {})} for row in rows]
    return dg.tidy(rows, extra=EXTRA)


def datasets(chart: Any) -> dict[str, list[dict[str, Any]]]:
    """The chart's named data."""
    found: dict[str, list[dict[str, Any]]] = {}

    def visit(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("data"), dict) and "name" in part["data"] and "values" in part["data"]:
                found[part["data"]["name"]] = part["data"]["values"]
            for inner in part.values():
                visit(inner)
        elif isinstance(part, list):
            for inner in part:
                visit(inner)

    visit(chart if isinstance(chart, dict) else chart.to_dict())
    return found


def words(chart: Any) -> list[str]:
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", dg.charts.svg(chart))]


def marks(chart: Any) -> list[list[tuple[float, float]]]:
    """Where a picture's symbols lie, group by group."""
    groups = re.findall(r'class="mark-symbol role-mark[^"]*"[^>]*>(.*?)</g>', dg.charts.svg(chart), re.DOTALL)
    return [
        [(float(x), float(y)) for x, y in re.findall(r"translate\(([-\d.]+),([-\d.]+)\)", group)] for group in groups
    ]


def test_domains_take_turns_so_that_none_hides_another() -> None:
    styles = domain_styles([("a", "source"), ("b", "target")])
    dots = [Dot("a", 0, 0), Dot("a", 1, 0), Dot("a", 2, 0), Dot("b", 0, 0), Dot("b", 1, 0)]
    held = np.arange(10.0).reshape(1, 5, 2)
    rows = point_rows(dots, held, styles=styles)
    assert [(row["domain"], row["image"]) for row in rows] == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]
    assert [row["full_x"] for row in rows] == [0.0, 6.0, 2.0, 8.0, 4.0], "each keeps its own place"


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.2, 0.35, 0.6, 0.9])
def test_the_page_draws_the_places_that_python_computes(ratio: float) -> None:
    held = boxed(np.random.default_rng(0).normal(size=(3, 5, 2)))
    style = domain_styles([("a", "source")])
    data = {"points": point_rows([Dot("a", k, k) for k in range(5)], held, styles=style), "legend": [], "words": []}
    for side in (SIDE, LARGE):
        chart = map_chart(data, knots=RATIOS, at=ratio)
        (parameter,) = (param for param in cast(Any, chart.params) if param.name == "side")
        parameter.value = side
        full, pruned = marks(chart)[:2]

        def pixels(where: Any, side: int = side) -> Any:
            return np.stack([side * where[:, 0], HEAD + side * (1 - where[:, 1])], axis=1)

        assert np.abs(np.array(pruned) - pixels(at_ratio(held, RATIOS, ratio=ratio))).max() < 0.06
        assert np.abs(np.array(full) - pixels(held[0])).max() < 0.06


def test_places_between_two_ratios_are_on_the_line_between_them_and_beyond_the_last_they_rest() -> None:
    held = np.array([[[0.0, 1.0]], [[1.0, 0.0]], [[0.5, 0.5]]])
    assert at_ratio(held, RATIOS, ratio=0.1).tolist() == [[0.5, 0.5]]
    assert at_ratio(held, RATIOS, ratio=0.5).round(6).tolist() == [[0.625, 0.375]]
    assert at_ratio(held, RATIOS, ratio=0.99).tolist() == at_ratio(held, RATIOS, ratio=0.6).tolist() == [[0.5, 0.5]]


def test_the_map_keeps_shape_and_order_of_the_places() -> None:
    raw = np.random.default_rng(1).normal(size=(3, 20, 2)) * [5, 1]
    held = boxed(raw)
    assert held.min() >= 0 and held.max() <= 1
    apart = [np.linalg.norm(part[0, 0] - part[1, 7]) / np.linalg.norm(part[2, 3] - part[0, 9]) for part in (raw, held)]
    assert apart[0] == pytest.approx(apart[1]), "both axes are scaled alike"


def test_every_image_of_the_table_is_a_point_by_domain_and_class() -> None:
    frame = table()
    rows = datasets(dg.charts.feature_shift(table(layers=())))["points"]
    assert len(rows) == 3 * IMAGES
    style = domain_styles(DOMAINS)
    for row in rows:
        assert row["shape"] == style[row["domain"]].shape and len(row["xs"]) == len(RATIOS)
        assert row["domain_colour"] == style[row["domain"]].colour
        assert row["class_colour"] == (OTHER if row["domain"] == "b" else CLASS_COLOURS[row["image"] // 7])
    at = {(row["domain"], row["image"]): row for row in rows}
    for axis, name in (("x", "map_1"), ("y", "map_2")):
        raw = frame[(frame.metric == name) & (frame.ratio_requested == 0.2)]
        given = [at[one.domain, one.image][f"{axis}s"][1] for one in raw.itertuples()]
        assert np.corrcoef(given, raw.value.astype(float))[0, 1] > 0.999, "in the order of the table"


def test_a_title_says_which_map_it_is_and_what_not_to_read() -> None:
    frame = table(layers=())
    shown = words(dg.charts.feature_shift(frame))
    assert "UMAP of all images, full and pruned together" in shown
    assert any("Trustworthiness 0.91 (0.88 to 0.93)" in text for text in shown)
    assert any(text.startswith("Distances and cloud sizes mean little here") for text in shown)
    assert "Places between measured ratios are interpolated; the frame fits all ratios." in shown
    frame["embedding"] = frame["embedding"].where(frame["embedding"].isna(), "linear")
    assert "Linear projection (two principal axes of the full network)" in words(dg.charts.feature_shift(frame))


def test_a_picture_begins_at_the_middle_ratio_and_a_slider_is_there_where_asked() -> None:
    def at(chart: Any) -> Any:
        return next(param for param in chart.to_dict()["params"] if param["name"] == "at")

    frame = table(layers=())
    still, live = dg.charts.feature_shift(frame), dg.charts.feature_shift(frame, at=0.5, slider=True)
    assert at(still) == {"name": "at", "value": 0.2}
    assert "12 images. Pale: full network. Filled: 20 % removed." in words(still)
    assert at(live)["value"] == 0.5 and (at(live)["bind"]["min"], at(live)["bind"]["max"]) == (0, 0.6)
    assert still.to_dict()["usermeta"]["embedOptions"]["renderer"] == "canvas"


def test_the_numbers_are_the_tables_with_their_intervals() -> None:
    frame = table()
    data = datasets(dg.charts.feature_shift(frame))
    for metric in METRICS:
        rows = frame[frame.metric == metric]
        assert len(data[metric]) == len(rows) > 0
        drawn = sorted((row["removed"], row["value"], row["low"], row["high"]) for row in data[metric])
        given = sorted(zip(100 * rows.ratio_requested, rows.value, rows.low, rows.high, strict=True))
        assert np.allclose(np.array(drawn, dtype=float), np.array(given, dtype=float))
    assert {row["label"] for row in data["mmd"]} == {"a and b", "a and t", "b and t"}
    assert {row["colour"] for row in data["cka"]} == {style.colour for style in domain_styles(DOMAINS).values()}
    assert [row["text"] for row in data["lines"]] == ["a and b", "a and t", "b and t", "a", "b", "t", "all images"]


def test_a_number_that_is_not_there_is_left_out_of_its_line() -> None:
    frame = table()
    frame.loc[frame.metric == "cka", ["value", "low", "high"]] = np.nan
    chart = dg.charts.feature_shift(frame)
    assert all(row["value"] is None for row in datasets(chart)["cka"])
    assert "NaN" not in str(chart.to_json())


def test_what_was_looked_at_is_a_hollow_diamond_and_said() -> None:
    data = datasets(dg.charts.feature_shift(table(target_aware=True, seen_by_scorer="images")))
    for row in [*data["mmd"], *data["cka"]]:
        marked = row["label"] in ("a and t", "b and t", "t")
        assert bool(row["ring"]) is marked and row["fill"] == row["colour"]
    texts = [row["text"] for row in data["lines"]]
    assert [texts[k - 1] for k, text in enumerate(texts) if text.startswith("◇ target-aware")] == [
        "a and t",
        "b and t",
        "t",
    ]
    legend = [row["text"] for row in data["legend"]]
    assert legend[legend.index("t (target)") + 1].startswith("◇ target-aware")
    plain = datasets(dg.charts.feature_shift(table()))
    assert not any("◇" in row["text"] for name in ("lines", "legend") for row in plain[name])


def test_several_layers_stand_side_by_side_and_the_map_is_of_the_last_or_the_one_that_is_asked_for() -> None:
    frame = table(layers=("conv1", "conv2"), mapped=("conv1", "conv2"))
    drawn = [dg.charts.feature_shift(frame, layer=layer).to_dict() for layer in (None, "conv1")]
    for spec, layer in zip(drawn, ("conv2", "conv1"), strict=True):
        data = datasets(spec)
        assert len(data["mmd_0"]) == len(data["mmd_1"]) == 9
        assert spec["hconcat"][0]["vconcat"][0]["title"]["text"] == f"Layer {layer}"
    with pytest.raises(DgpruneError, match="no map of layer 'conv9'; it has: conv1, conv2"):
        dg.charts.feature_shift(frame, layer="conv9")


def test_colour_is_the_domain_and_the_class_where_asked_and_the_legend_follows() -> None:
    still, asked = (dg.charts.feature_shift(table(layers=()), colour=colour) for colour in ("domain", "class"))
    style, pictures = domain_styles(DOMAINS), [dg.charts.svg(chart) for chart in (still, asked)]
    for name in ("a", "t"):
        assert [style[name].colour.lower() in picture.lower() for picture in pictures] == [True, False]
    assert [CLASS_COLOURS[0].lower() in picture.lower() for picture in pictures] == [False, True]
    assert ["Class: colour" in words(chart) for chart in (still, asked)] == [False, True]
    by = next(param for param in still.to_dict()["params"] if param["name"] == "by")
    assert by["value"] == "domain" and by["bind"]["options"] == ["domain", "class"], "a page can change it"


def test_the_legend_of_domains_stands_above_the_map_where_two_lines_hold_it_else_beside_it() -> None:
    for count, above in ((3, True), (9, False)):
        named = [(f"domain_number_{k}", "source") for k in range(count)]
        roles: Any = {name: (role, "") for name, role in named}
        rows = legend_rows(roles, [Dot("a", 0, 1)], styles=domain_styles(named))
        for row in rows:
            outside = row["kind"] != "domain" or not above
            assert row["beside"] is outside and row["x"] < SIDE and (row["line"] < HEAD - 8) is not outside
        places = [(row["x"] + SIDE * row["beside"], row["line"]) for row in rows]
        assert len(set(places)) == len(places), "nothing lies on anything"


def test_a_narrow_page_finds_the_numbers_in_two_columns_that_fit_it() -> None:
    def width(chart: Any) -> float:
        found = re.search(r'<svg[^>]*? width="([\d.]+)"', dg.charts.svg(chart))
        assert found is not None
        return float(found[1])

    wide = number_chart()
    narrow = cast(Any, wide.usermeta)["narrow"]
    assert width(wide) <= narrow["below"] and width(number_chart(columns=2)) < 460
    assert narrow["spec"]["hconcat"][0]["vconcat"][0]["columns"] == 2 and narrow["spec"]["usermeta"]["follows"] == {
        "ratio": "at"
    }


@pytest.mark.parametrize("metric", METRICS)
def test_one_number_by_ratio_says_what_it_means(metric: str) -> None:
    frame = table()
    chart = dg.charts.shift_by_ratio(frame, metric=metric)
    rows, given = datasets(chart)[metric], frame[frame.metric == metric]
    assert sorted(row["value"] for row in rows) == pytest.approx(sorted(map(float, given.value)))
    title = chart.to_dict()["title"]
    assert title["subtitle"][: len(EXPLAINED[metric])] == EXPLAINED[metric] and "as is or" not in title["text"]
    assert {row["label"] for row in rows} <= set(words(chart)), "every line is named"


def test_pairs_of_domains_move_apart_or_together_only_where_intervals_do_not_overlap() -> None:
    frame = table()
    frame = frame[frame.metric == "mmd"].copy()
    ends = {("a", "b", 0.6): (0.5, 0.4, 0.6), ("a", "t", 0.6): (0.1, 0.05, 0.15), ("b", "t", 0.6): (0.31, 0.2, 0.4)}
    frame[["value", "low", "high"]] = 0.3, 0.25, 0.35
    for (other, domain, ratio), values in ends.items():
        place = (frame.other == other) & (frame.domain == domain) & (frame.ratio_requested == ratio)
        frame.loc[place, ["value", "low", "high"]] = values
    found = dg.diagnostics.shift_change(frame, ratio=0.6)
    moves = dict(zip(found["pair"], found["moves"], strict=True))
    assert moves == {"a and b": "apart", "b and t": "intervals overlap", "a and t": "together"}
    assert list(found["pair"]) == list(moves), "the largest increase first"
    assert found["text"].tolist()[0] == "a and b: 0.300 → 0.500 (apart)"
    assert found["change"].tolist()[2] == pytest.approx(-0.2)
    for wrong, words_of_it in ((0.5, "it holds 0, 0.2, 0.6"), (0.0, "compared with 0")):
        with pytest.raises(DgpruneError, match=words_of_it):
            dg.diagnostics.shift_change(frame, ratio=wrong)
    with pytest.raises(DgpruneError, match="no 'cka' between two domains"):
        dg.diagnostics.shift_change(table(), ratio=0.6, metric="cka")


def test_one_number_by_ratio_needs_one_layer_and_a_metric_that_is_there() -> None:
    with pytest.raises(DgpruneError, match="conv1, conv2"):
        dg.charts.shift_by_ratio(table(layers=("conv1", "conv2")))
    with pytest.raises(DgpruneError, match="unknown metric 'map_1'"):
        dg.charts.shift_by_ratio(table(), metric="map_1")
    with pytest.raises(DgpruneError, match="holds none"):
        dg.charts.shift_by_ratio(table(layers=()))


def test_maps_of_several_tables_stand_side_by_side() -> None:
    chart = dg.charts.feature_shift({f"Seed {seed}": table(seed=seed) for seed in (0, 1)})
    data = datasets(chart)
    assert "mmd" not in data and data["points"] != data["points_1"]
    assert [plot["title"]["text"] for plot in chart.to_dict()["hconcat"]] == ["Seed 0", "Seed 1"]
    with pytest.raises(DgpruneError, match=r"the same ratios; got 0, 0\.2, 0\.6; 0, 0\.2"):
        dg.charts.feature_shift({"one": table(), "two": table(ratios=(0.0, 0.2))})
    with pytest.raises(DgpruneError, match="got no table"):
        dg.charts.feature_shift({})


def test_numbers_without_a_map_and_a_map_of_the_full_network_alone() -> None:
    assert "points" not in datasets(dg.charts.feature_shift(table(mapped=())))
    shown = words(dg.charts.feature_shift(table(layers=(), ratios=(0.0,))))
    assert "12 images in the full network." in shown
    assert not any("interpolated" in text for text in shown)


def test_what_cannot_be_drawn_is_refused_in_words() -> None:
    with pytest.raises(DgpruneError, match=r"make one with diagnostics\.feature_shift"):
        dg.charts.feature_shift(table(layers=(), mapped=()))
    with pytest.raises(DgpruneError, match="from 0 to 1; got 50"):
        dg.charts.feature_shift(table(), at=50)


def test_more_classes_than_colours_share_a_grey_that_the_legend_counts() -> None:
    style = domain_styles(DOMAINS)
    labels = [*range(13), None]
    legend = legend_rows({"a": ("source", "")}, [Dot("a", 0, label) for label in labels], styles=style)
    assert legend[-1]["text"] == "3 further classes or not labelled" and legend[-1]["colour"] == OTHER
    points = point_rows([Dot("a", k, k) for k in range(13)], np.zeros((1, 13, 2)), styles=style)
    assert [row["class_colour"] for row in points] == [*CLASS_COLOURS, OTHER, OTHER, OTHER]
