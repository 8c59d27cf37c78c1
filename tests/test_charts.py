"""Charts as data: the right fields, ranges, names and marks; never anything interpreted from a user's text."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from typing import Any

import altair as alt
import pandas as pd
import pytest
from altair.utils.schemapi import SchemaBase

from dgprune_lab import charts
from dgprune_lab.charts.curve_names import obstacles, place_names
from dgprune_lab.charts.drop import span_rows
from dgprune_lab.charts.marks import LABEL_HEIGHT, layered, rows_of, signed_axis, spread, ticks_around_zero
from dgprune_lab.charts.size_and_cost import amount, size_row
from dgprune_lab.charts.sweep import sweep_data, sweep_points
from dgprune_lab.charts.theme import FIRST_SOURCE, FIRST_TARGET, LONG_DASH, TARGET_AWARE
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.core.exposure import exposure_of, is_target_aware
from dgprune_lab.core.tables import tidy


@pytest.fixture(autouse=True)
def only_typed_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse what Altair itself turns into a channel (`text="text:N"`): it hashes its whole schema for each."""

    def refused(self: Any, obj: Any, encoding: str, /) -> Any:
        listed = obj if isinstance(obj, list | tuple) else [obj]
        assert all(isinstance(one, SchemaBase) for one in listed), f"{encoding} of a chart is {obj!r}"
        return obj

    monkeypatch.setattr("altair.utils.core._ChannelCache._wrap_in_channel", refused)


HOSTILE = "a.b['c'][0]\\.<b onload=x>\n{{datum}} \"q\" 数字"
DOMAINS = (("mnist", "source", 0.97), ("uci_digits", "source", 0.95), ("mnist_m", "target", 0.6))


def table(
    *,
    ratios: tuple[float, ...] = (0.0, 0.05, 0.1, 0.5),
    scorers: tuple[str, ...] = ("l1",),
    seeds: tuple[int | None, ...] = (None,),
    target: str = "mnist_m",
    seen: str = "none",
    aware: bool | None = False,
) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for scorer in scorers:
        for seed in seeds:
            for name, role, top in DOMAINS:
                for ratio in ratios:
                    value = top * (1 - ratio / 2) - 0.01 * (seed or 0)
                    shared = {
                        "scorer": scorer,
                        "seed": seed,
                        "ratio_requested": ratio,
                        "domain": target if role == "target" else name,
                        "role": role,
                        "unit": "share",
                        "seen_by_scorer": seen,
                        "target_aware": aware,
                    }
                    rows.append(
                        {**shared, "metric": "accuracy", "value": value, "low": value - 0.02, "high": value + 0.02}
                    )
                    rows.append({**shared, "metric": "loss", "unit": "nats", "value": 3.0})
                    change = value - top
                    rows.append(
                        {
                            **shared,
                            "metric": "accuracy_change",
                            "value": change,
                            "low": change - 0.02,
                            "high": change + 0.02,
                        }
                    )
    return tidy(rows)


def data_of(chart: Any) -> dict[str, list[dict[str, Any]]]:
    spec = chart.to_dict()
    return {layer["data"]["name"]: layer["data"]["values"] for layer in spec["layer"] if "values" in layer["data"]}


def test_sweep_draws_accuracy_in_percent_on_fixed_axes() -> None:
    spec = charts.sweep(table(), now=0.5, chance=0.1).to_dict()
    data = data_of(charts.sweep(table(), now=0.5, chance=0.1))
    assert {row["domain"] for row in data["curves"]} == {"mnist", "uci_digits", "mnist_m"}
    assert len(data["curves"]) == 12
    first = data["curves"][0]
    assert first["value"] == pytest.approx(97.0) and (first["low"], first["high"]) == pytest.approx((95.0, 99.0))
    assert data["now"] == [{"removed": 50.0}] and data["chance"][0]["value"] == pytest.approx(10.0)
    assert sorted(row["domain"] for row in data["dots"]) == ["mnist", "mnist_m", "uci_digits"]
    encodings = [layer["encoding"] for layer in spec["layer"]]
    assert all(e["x"]["scale"]["domain"] == [0, 100] for e in encodings if "scale" in e.get("x", {}))
    assert all(e["y"]["scale"]["domain"] == [0, 100] for e in encodings if "scale" in e.get("y", {}))
    assert {e["x"]["title"] for e in encodings if "title" in e.get("x", {})} == {"Removed (%)"}
    assert spec["usermeta"]["embedOptions"] == {"actions": False}
    assert spec["autosize"] == {"type": "none"} and set(spec["padding"]) == {"left", "right", "top", "bottom"}


def test_what_was_not_measured_is_never_joined() -> None:
    data = data_of(charts.sweep(table(ratios=(0.0, 0.05, 0.1, 0.5, 0.55))))
    stretches = {(row["removed"], row["stretch"]) for row in data["curves"] if row["domain"] == "mnist"}
    assert stretches == {(0.0, 0), (5.0, 0), (10.0, 0), (50.0, 1), (55.0, 1)}
    gaps = [row for row in data["gaps"] if row["domain"] == "mnist"]
    assert [row["removed"] for row in gaps] == [10.0, 50.0]


def test_a_domain_is_distinguished_by_colour_dash_mark_and_role() -> None:
    styles = charts.domain_styles((name, role) for name, role, _ in DOMAINS)
    assert (styles["mnist"].colour, styles["mnist_m"].colour) == (FIRST_SOURCE, FIRST_TARGET)
    assert styles["mnist_m"].dash == LONG_DASH and styles["mnist_m"].role == "target"
    assert len({style.colour for style in styles.values()}) == len({style.shape for style in styles.values()}) == 3
    labels = {row["label"] for row in data_of(charts.sweep(table()))["names"]}
    assert labels == {"mnist (source)", "uci_digits (source)", "mnist_m (target)"}


def test_target_aware_is_a_hollow_diamond_in_words_too() -> None:
    data = data_of(charts.sweep(table(aware=True), now=0.5))
    target = [row for row in data["curves"] if row["domain"] == "mnist_m"]
    assert {(row["shape"], row["colour"], row["ring"]) for row in target} == {
        ("triangle-up", FIRST_TARGET, TARGET_AWARE)
    }
    assert [row["label"] for row in data["names"] if row["domain"] == "mnist_m"] == ["mnist_m (target-aware)"]
    assert {row["looked"] for row in target} == {"yes, other images of this domain"}
    source = [row for row in data["curves"] if row["domain"] == "mnist"]
    assert {(row["shape"], row["ring"], row["looked"]) for row in source} == {("circle", None, "no")}
    drops = data_of(charts.drop(table(aware=True)))["drops"]
    assert [row["label"] for row in drops] == ["mnist", "uci_digits", "mnist_m ◇ target-aware"]
    assert [row["ring"] for row in drops] == [None, None, TARGET_AWARE]
    for name in ("sweep", "drop"):
        layers = getattr(charts, name)(table(aware=True)).to_dict()["layer"]
        rings = [layer for layer in layers if layer["encoding"].get("stroke", {}).get("field") == "ring"]
        assert rings and all(layer["encoding"]["shape"] == {"value": "diamond"} for layer in rings)


def test_having_seen_the_very_images_is_worse_and_said() -> None:
    """Of a target and of a source: the words differ from those for other images of the domain."""
    data = data_of(charts.sweep(table(seen="labels", aware=True), now=0.5))
    ends = {row["label"]: row for row in data["names"]}
    assert ends["mnist (seen)"]["colour"] == FIRST_SOURCE, "a source is no target, whatever was seen of it"
    name = ends["mnist_m ◇ target-aware, seen"]
    assert name["colour"] == FIRST_TARGET and name["ring"] == TARGET_AWARE
    assert {row["looked"] for row in data["dots"]} == {"yes, the reported images"}
    assert [row["ring"] for row in data["dots"]] == [None, None, TARGET_AWARE], "a source that was seen has the word"
    labels = [row["label"] for row in data_of(charts.drop(table(seen="labels")))["drops"]]
    assert labels == ["mnist (seen)", "uci_digits (seen)", "mnist_m ◇ target-aware, seen"]


def test_what_nobody_knows_is_a_question_mark_and_no_diamond() -> None:
    data = data_of(charts.sweep(table(seen="unknown", aware=None), now=0.5))
    assert "mnist_m (target) ?" in {row["label"] for row in data["names"]}
    assert {row["shape"] for row in data["dots"]} == {"circle", "square", "triangle-up"}
    assert {row["looked"] for row in data["curves"]} == {"unknown: not recorded"}
    assert [row["label"] for row in data_of(charts.drop(table(seen="unknown")))["drops"]][2] == "mnist_m ?"
    for name in ("sweep", "drop"):
        layers = getattr(charts, name)(table()).to_dict()["layer"]
        tips = [tip["field"] for layer in layers for tip in layer["encoding"].get("tooltip", [])]
        assert "looked" in tips


EXPOSURES = [
    ({}, ""),
    ({"seen_by_training": "labels"}, ""),
    ({"target_aware": True}, "target-aware"),
    ({"target_aware": False}, ""),
    ({"target_aware": True, "domain": "none"}, "target-aware"),
    ({"target_aware": False, "domain": "unknown"}, ""),
    ({"target_aware": False, "domain": "t, u"}, ""),
    ({"seen_by_selection": "labels"}, "target-aware, seen"),
    ({"seen_by_finetuning": "images", "target_aware": True}, "target-aware, seen"),
    ({"seen_by_scorer": "unknown", "target_aware": True}, "target-aware"),
    ({"seen_by_scorer": "unknown"}, "?"),
    ({"target_aware": pd.NA}, "?"),
    ({"target_aware": pd.NA, "seen_by_scorer": "none"}, ""),
    ({"target_aware": pd.NA, "seen_by_scorer": "none", "role": None}, "?"),
    ({"target_aware": True, "role": None}, "target-aware"),
    ({"target_aware": True, "role": "source"}, ""),
    ({"seen_by_scorer": "images", "target_aware": True, "role": "source"}, "seen"),
    ({"target_aware": float("nan"), "domain": None}, ""),
]


@pytest.mark.parametrize(("cells", "exposure"), EXPOSURES)
def test_one_function_says_what_a_row_is_marked_with(cells: dict[str, Any], exposure: str) -> None:
    row = {"domain": "t", "role": "target", **cells}
    assert exposure_of(row) == exposure and is_target_aware(row) == ("target-aware" in exposure)


def test_a_scorers_name_says_that_it_looked_at_a_target_wherever_it_stands() -> None:
    frame = pd.concat(
        [
            table(scorers=("l1",)),
            table(scorers=("dss",), aware=True),
            table(scorers=("peeked",), aware=True, seen="images"),
            table(scorers=("mine",), aware=None),
        ]
    )
    spec = charts.sweep(frame).to_dict()
    for k, panel in enumerate(spec["hconcat"]):
        data = {x["data"]["name"]: x["data"]["values"] for x in panel["layer"] if "values" in x["data"]}
        names = data[f"names_{k}"]
        words = {"l1", "dss ◇ target-aware", "peeked ◇ target-aware, seen", "mine ?"}
        assert {row["label"] for row in names} == words
        assert len({row["colour"] for row in names}) == 4, "target-aware lines are distinguished by colour"
        diamonds = {row["domain"] for row in data[f"curves_{k}"] if row["ring"]}
        assert diamonds == ({"dss", "peeked"} if k == 2 else set())
    labels = [row["label"] for row in data_of(charts.drop(frame))["drops"]]
    assert labels[3:9] == [
        "dss ◇ target-aware, mnist",
        "dss ◇ target-aware, uci_digits",
        "dss ◇ target-aware, mnist_m",
        "peeked ◇ target-aware, mnist (seen)",
        "peeked ◇ target-aware, uci_digits (seen)",
        "peeked ◇ target-aware, mnist_m (seen)",
    ]
    assert charts.drop(frame).to_dict()["padding"]["left"] > charts.drop(table()).to_dict()["padding"]["left"]


@pytest.mark.parametrize(("aware", "title"), [(False, None), (True, "l1 ◇ target-aware"), (None, "l1 ?")])
def test_size_and_cost_names_a_scorer_that_looked_at_a_target(aware: bool | None, title: str | None) -> None:
    rows = [{**row, "target_aware": aware} for row in costs(0.0) + costs(0.5)]
    spec = charts.size_and_cost(tidy(rows)).to_dict()
    assert spec.get("title", {}).get("text") == title
    assert (spec["padding"]["top"] > 20) == (title is not None), "there is room for it"


def test_labels_keep_a_distance_and_stay_inside() -> None:
    rows = spread([{"value": value} for value in (99.0, 98.0, 97.5, 1.0, 0.0)], gap=5.0)
    values = sorted(row["value"] for row in rows)
    assert min(b - a for a, b in pairwise(values)) >= 5.0 - 1e-9
    assert values[0] >= 0.0 and values[-1] <= 100.0


def test_seeds_become_mean_and_range() -> None:
    data = data_of(charts.sweep(table(seeds=(0, 1, 2), ratios=(0.0,))))
    point = next(row for row in data["curves"] if row["domain"] == "mnist")
    assert point["value"] == pytest.approx(96.0)
    assert (point["low"], point["high"]) == pytest.approx((93.0, 99.0))


def test_several_scorers_get_a_panel_per_domain() -> None:
    spec = charts.sweep(table(scorers=("l1", "random"))).to_dict()
    shown: Any = charts.sweep(table(scorers=("l1", "random")))._repr_mimebundle_()
    assert set(shown) == {"text/html"} and "http" not in shown["text/html"], "without the web"
    assert shown["text/html"].startswith('<img alt="'), "as an image, JupyterLab fits it into a narrow page"
    titles = [panel["title"]["text"] for panel in spec["hconcat"]]
    assert titles == ["mnist (source)", "uci_digits (source)", "mnist_m (target)"]
    names = [layer["data"]["name"] for panel in spec["hconcat"] for layer in panel["layer"]]
    assert "curves_0" in names and "curves_2" in names
    curves = next(x for x in spec["hconcat"][0]["layer"] if x["data"]["name"] == "curves_0")["data"]["values"]
    assert {row["domain"] for row in curves} == {"l1", "random"}


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({0.0: "as_is", 0.5: "recalibrate"}, "BatchNorm re-estimated"),
        ({0.0: "as_is", 0.5: "as_is"}, "BatchNorm as is"),
        ({0.1: "as_is", 0.5: "recalibrate"}, "BatchNorm as is or re-estimated"),
        ({0.0: "as_is"}, None),
        ({}, None),
    ],
)
def test_a_title_says_the_batchnorm_setting_of_the_pruned_networks(
    settings: dict[float, str], label: str | None
) -> None:
    frame = table(scorers=("l1", "random"))
    frame["batchnorm"] = [settings.get(ratio) for ratio in frame["ratio_requested"]]
    single = frame.query("scorer == 'l1'")
    drawn = (
        (charts.sweep(frame), "Accuracy"),
        (charts.sweep(single), "Accuracy"),
        (charts.drop(single), "Accuracy change"),
    )
    for chart, words in drawn:
        spec = chart.to_dict()
        assert spec.get("title", {}).get("text") == (None if label is None else f"{words}, {label}")
        if spec["autosize"]["type"] == "none":
            assert (spec["padding"]["top"] > 20) == (label is not None), "there is room for it"


def test_rows_for_the_page_are_those_of_the_chart() -> None:
    """The explorer sends these rows one ratio at a time; the page only places them."""
    data = data_of(charts.sweep(table()))
    made = sweep_data(sweep_points(table()), now=None, chance=None, step=0.05, height=300)
    assert {name: made[name] for name in data} == data
    rows = data_of(charts.size_and_cost(tidy(costs(0.0) + costs(0.5))))["left"]
    assert size_row("filters", 160.0, full=320.0) == rows[0]


def test_pinned_views_keep_the_domains_colour_and_have_a_letter_and_a_dash() -> None:
    spec = charts.sweep(table(), pinned={"before": table(), "after": table()}).to_dict()
    data = data_of(charts.sweep(table(), pinned={"before": table(), "after": table()}))
    assert {row["pin"] for row in data["pinned"]} == {"a", "b"} and len(data["pinned"]) == 24
    assert {row["colour"] for row in data["pinned"] if row["domain"] == "mnist"} == {FIRST_SOURCE}
    assert data["letters"] == [] and spec["title"]["subtitle"] == ["a: before", "b: after"]
    (dash,) = [layer["encoding"]["strokeDash"]["scale"] for layer in spec["layer"] if layer.get("name") == "pinned"]
    assert dash["domain"] == ["a", "b", "c"] and len({str(one) for one in dash["range"]}) == 3


def test_letters_of_pins_stand_right_of_the_names_and_apart() -> None:
    wide = table(ratios=tuple(k / 20 for k in range(20)))
    letters = data_of(charts.sweep(wide, pinned={"before": wide, "after": wide}))["letters"]
    assert {(row["pin"], row["domain"]): row["removed"] for row in letters} == {
        ("a", "mnist"): 60.0,
        ("a", "mnist_m"): 60.0,
        ("b", "mnist"): 75.0,
        ("b", "mnist_m"): 75.0,
    }, "the curves of both sources are too near to have a letter each"


def test_names_inside_cover_no_name_and_no_line() -> None:
    near = [{"value": value, "label": "a domain"} for value in (98.0, 97.0, 96.5, 60.0, 12.0)]
    lines, texts, gap = [98.0, 97.0, 96.5, 60.0, 12.0, 10.0], [12.0], 5.0
    points = [(10.0, 97.0), (20.0, 90.0), (0.0, 60.0), (15.0, 56.0), (80.0, 80.0)]
    placed = place_names(near, gap=gap, width=300, lines=lines, texts=texts, points=points)
    heights = [row["value"] for row in placed]
    assert all(abs(a - b) >= gap for a, b in combinations([*heights, *texts], 2))
    reached = [value for removed, value in points if removed < 30]
    assert min(abs(height - line) for height in heights for line in lines + reached) >= 0.7 * gap - 1e-9
    assert all(gap / 2 <= height <= 100 - gap / 2 for height in heights)
    assert 60.0 < heights[3] <= 65.0, "near its line where there is room"
    bands = obstacles(data_of(charts.sweep(table())), gap=gap)["points"]
    row = data_of(charts.sweep(table()))["curves"][0]
    assert {(row["removed"], row[end]) for end in ("value", "low", "high")} <= set(bands)


def test_names_stay_near_the_start_of_curves_that_cross_the_left_half_steeply() -> None:
    steep = pd.concat([table(ratios=(0.0,)), table(ratios=(0.1, 0.2, 0.3)).assign(value=0.1, low=0.08, high=0.12)])
    data, gap = data_of(charts.sweep(steep)), 100 * LABEL_HEIGHT / 300
    start = {row["domain"]: row["value"] for row in data["full"]}
    assert all(abs(row["value"] - start[row["domain"]]) <= 5 * gap for row in data["names"])
    assert all(abs(a["value"] - b["value"]) >= gap - 1e-9 for a, b in combinations(data["names"], 2))


def test_names_stand_in_the_order_of_their_curves_where_there_is_room() -> None:
    starts = [{"value": 99.0, "label": "a long name of a domain"}, {"value": 65.0, "label": "short"}]
    points = [*((30.0, value) for value in range(82, 100)), *((5.0, value) for value in range(30, 71))]
    first, second = place_names(starts, gap=5.0, width=500, lines=[], texts=[], points=points)
    assert first["value"] > second["value"], "although the short name would cover nothing above the long one"


def test_the_plot_of_chart_a_takes_most_of_its_width() -> None:
    padding = charts.sweep(table()).to_dict()["padding"]
    assert (padding["left"] + padding["right"]) / 300 <= 0.2


def test_chart_d_says_the_interval_below_the_number_where_there_is_room() -> None:
    rows = data_of(charts.drop(table()))["drops"]
    assert [row["range"] for row in rows] == ["−26.3 to −22.3", "−25.8 to −21.8", "−17.0 to −13.0"]
    assert {row["range"] for row in data_of(charts.drop(table(), height=60))["drops"]} == {""}


def test_a_number_without_its_interval_stands_in_its_row() -> None:
    def heights(chart: Any, text: str) -> float:
        found = re.search(rf"translate\([-\d.]+,([-\d.]+)\)[^>]*>{text}<", charts.svg(chart))
        assert found is not None
        return float(found[1])

    low = charts.drop(table(), height=60)
    assert abs(heights(low, "−24.3") - heights(low, "mnist")) <= 4
    assert heights(charts.drop(table()), "−24.3") < heights(charts.drop(table()), "mnist") - 3


def test_a_random_choice_says_that_it_is_one_draw() -> None:
    drawn = table().replace({"l1": "random"}).assign(seed=0)
    assert charts.drop(drawn).to_dict()["title"]["subtitle"] == ["random: one draw"]
    assert "random" not in str(charts.drop(table()).to_dict().get("title"))


@pytest.mark.parametrize(("low", "high"), [(-30, 80), (-10, 1), (-40, 20), (-0.1, 1), (-1, 100), (0, 5)])
@pytest.mark.parametrize("width", [65, 125, 170, 420])
def test_an_axis_of_differences_labels_0_and_no_labels_touch(low: float, high: float, width: int) -> None:
    ticks = ticks_around_zero(low, high, width=width)
    assert 0 in ticks and all((b - a) * width / (high - low) >= 32 - 1e-9 for a, b in pairwise(ticks))
    assert all(low <= tick <= high for tick in ticks)
    assert signed_axis().to_dict()["labelFlush"] is False, "labels at the ends stay below their ticks"


def test_drop_shows_points_around_zero_on_an_axis_in_steps() -> None:
    data = data_of(charts.drop(table()))
    assert [row["domain"] for row in data["drops"]] == ["mnist", "uci_digits", "mnist_m"]
    assert data["drops"][0]["change"] == pytest.approx(-24.25) and data["drops"][0]["text"] == "−24.3"
    assert data["span"] == [{"change": -50}, {"change": 5}]
    assert span_rows([]) == [{"change": -5}, {"change": 5}]


def test_the_mark_of_a_long_name_is_seen_and_names_stay_apart() -> None:
    long = "photographs_of_digits_on_house_numbers"
    frame = table(target=long, seen="labels", aware=True).replace({"mnist": f"{long}_indoor"})
    indoor, _, outdoor = (row["label"] for row in data_of(charts.drop(frame))["drops"])
    assert outdoor.endswith(" ◇ target-aware, seen") and len(outdoor) == 28 + len(" ◇ target-aware, seen")
    assert indoor != outdoor and indoor.startswith("…") and "_indoor" in indoor


def costs(ratio: float) -> list[dict[str, Any]]:
    full = {"filters": 320, "parameters": 123_456, "macs": 9.1e6, "bytes": 498_000}
    return [
        {"scorer": "l1", "ratio_requested": ratio, "metric": name, "value": value * (1 - ratio), "target_aware": False}
        for name, value in full.items()
    ]


def test_size_and_cost_shows_shares_and_absolute_numbers() -> None:
    rows = data_of(charts.size_and_cost(tidy(costs(0.0) + costs(0.5))))["left"]
    assert [(row["what"], row["percent"]) for row in rows] == [
        ("Filters", "50 %"),
        ("Parameters", "50 %"),
        ("MACs", "50 %"),
        ("File size", "50 %"),
    ]
    assert [row["text"] for row in rows][:2] == ["160 of 320", "61.7 k of 123 k"]
    full = {"filters": 640.0, "parameters": 1e6, "macs": 1e7, "bytes": 1e6}
    assert data_of(charts.size_and_cost(tidy(costs(0.5)), full=full))["left"][0]["percent"] == "25 %"


def test_size_and_cost_without_the_full_network_is_refused() -> None:
    with pytest.raises(DgpruneError, match="no row of 'filters' at ratio_requested 0"):
        charts.size_and_cost(tidy(costs(0.5)))


@pytest.mark.parametrize(
    ("value", "metric", "words"),
    [
        (0, "filters", "0"),
        (999, "bytes", "999 B"),
        (1500, "bytes", "1.50 kB"),
        (9999, "parameters", "9,999"),
        (2.5e9, "macs", "2.50 G"),
    ],
)
def test_amounts_have_three_digits(value: float, metric: str, words: str) -> None:
    assert amount(value, metric=metric) == words


def test_a_users_text_is_only_ever_a_value() -> None:
    def fields(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["field"]] if isinstance(node.get("field"), str) else []
            return own + [field for key, value in node.items() if key != "values" for field in fields(value)]
        return [field for part in node for field in fields(part)] if isinstance(node, list) else []

    frame = table(target=HOSTILE, seen="images")
    for chart in (
        charts.sweep(frame, now=0.5),
        charts.drop(frame),
        charts.sweep(table(target=HOSTILE, scorers=("l1", HOSTILE))),
    ):
        spec = chart.to_dict()
        assert all(field.replace("_", "").isalnum() for field in fields(spec))
    assert any(row["domain"] == HOSTILE for row in data_of(charts.sweep(frame))["curves"])


def test_copies_of_a_chart_share_its_rows_and_draw_what_altair_alone_draws() -> None:
    lines, points = (
        getattr(rows_of("rows", [{"a": 1}]), kind)(opacity=0.5).encode(x=alt.X("a:Q"))
        for kind in ("mark_line", "mark_point")
    )
    alone = alt.vconcat(alt.layer(lines, points).properties(title="t"), lines).to_dict()
    del alone["vconcat"][0]["layer"][1]["data"]["values"]
    nested = alt.vconcat(layered(lines, points).properties(title="t"), lines)
    assert nested.to_dict() == alone, "rows of one name are sent once"
    inner = nested.vconcat[0].layer[0]
    assert inner is not lines and inner.data is lines.data and inner.mark is lines.mark
    assert inner.encoding is lines.encoding
    assert layered(lines.encode(y=alt.Y("b:Q")), points).to_dict() != layered(lines, points).to_dict()
    assert "y" not in lines.to_dict()["encoding"], "a changed copy leaves the chart as it was"


def test_every_chart_can_be_made_without_data() -> None:
    empty = tidy([])
    for chart in (charts.sweep(empty), charts.drop(empty), charts.size_and_cost(empty)):
        assert all(not rows or rows == [{"change": -5}, {"change": 5}] for rows in data_of(chart).values())


@pytest.mark.parametrize("name", ["sweep", "drop", "size_and_cost"])
def test_vega_draws_it(name: str) -> None:
    import vl_convert

    frame = tidy(costs(0.0) + costs(0.5)) if name == "size_and_cost" else table(target=HOSTILE)
    svg = vl_convert.vegalite_to_svg(getattr(charts, name)(frame).to_dict())
    assert svg.startswith("<svg") and "NaN" not in svg and "<b onload" not in svg


CHARTS = {
    "drop": charts.drop,
    "drop_curve": charts.drop_curve,
    "layers": charts.layers,
    "leave_one_out": charts.leave_one_out,
    "flips": charts.flips,
    "agreement": charts.agreement,
    "stability": charts.stability,
    "mean_map": charts.mean_map,
    "sensitivity": charts.sensitivity,
    "feature_shift": charts.feature_shift,
    "prunability": charts.prunability,
    "gc_net": charts.gc_net,
    "after_finetuning": charts.after_finetuning,
    "differences": charts.differences,
    "instability": charts.instability,
    "training": charts.training,
    "size_and_cost": charts.size_and_cost,
    "sweep": charts.sweep,
}
# question: the metrics of its table, and its extra columns
QUESTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "drop": (("accuracy_change", "relative_drop"), ("network", "group", "class")),
    "flips": (("right_to_wrong", "changed_count"), ("network", "group")),
    "agreement": (("overlap", "rank_correlation"), ("other", "group", "scorer_target_aware", "other_target_aware")),
    "stability": (("rank_correlation",), ("over", "pair", "group", "draw_seed")),
    "sensitivity": (("cohens_d", "score"), ("method", "group", "filter", "other", "q_value")),
    "feature_shift": (("mmd", "coral"), ("group", "other", "image", "class", "embedding")),
    "data_access": (("seen",), ()),
}


def table_of(question: str, **cells: Any) -> pd.DataFrame:
    metrics, extra = QUESTIONS[question]
    about = {"domain": "a", "role": "source", "scorer": "l1", "ratio_requested": 0.5, "unit": "share", "value": 0.1}
    return tidy(({**about, "metric": metric, **cells} for metric in metrics), extra=extra)


@pytest.mark.parametrize("chart", CHARTS)
def test_a_chart_refuses_the_table_of_another_question(chart: str) -> None:
    for question in QUESTIONS:
        if question != chart and (question, chart) != ("drop", "drop_curve"):
            with pytest.raises(DgpruneError, match=r"metric|table"):
                CHARTS[chart](table_of(question))  # type: ignore[operator]


def test_a_chart_names_the_table_that_it_draws_and_what_it_was_given() -> None:
    with pytest.raises(DgpruneError, match=r"its metrics: right_to_wrong, changed_count.*diagnostics\.agreement"):
        charts.agreement(table_of("flips"))
    of_layers = table_of("drop", group="conv1")
    for draws in (charts.drop, charts.drop_curve):
        with pytest.raises(DgpruneError, match=r"they are of single layers, which dg\.charts\.layers"):
            draws(of_layers)
        with pytest.raises(DgpruneError, match=r"a table of diagnostics\.drop\(study\)\."):
            draws(table_of("flips"))
    with pytest.raises(DgpruneError, match=r"diagnostics\.drop\(study, by='layer'\)"):
        charts.layers(table_of("drop"))
    tuned = tidy([{"metric": "accuracy", "domain": "a", "value": 0.5, "stage": "tuned"}], extra=("stage",))
    with pytest.raises(DgpruneError, match=r"several networks per ratio; use charts\.training"):
        charts.sweep(tuned)
