"""The charts of the drop and of flips, as data."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from dgprune_lab import charts
from dgprune_lab.charts.layers import layer_rows, placed, waiting
from dgprune_lab.charts.theme import FIRST_TARGET, TARGET_AWARE
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.core.tables import tidy
from dgprune_lab.diagnostics.drop import EXTRA

HOSTILE = "a.b['c'][0]\\.<b onload=x>\n{{datum}} \"q\" 数字"
DOMAINS = (("mnist", "source"), ("uci", "source"), ("mnist_m", "target"))


def rows(*, ratio: float = 0.5, target: str = "mnist_m", **cells: Any) -> list[dict[str, Any]]:
    """A change and a relative drop per domain."""
    shared = {"scorer": "l1", "network": "net", "ratio_requested": ratio, "unit": "share", "images": 250}
    shared |= {"target_aware": False, **cells}
    found = []
    for k, (name, role) in enumerate(DOMAINS):
        lost = ratio * (0.1 + 0.2 * k)
        for metric, value in (("accuracy_change", -lost), ("relative_drop", 1.25 * lost)):
            found.append(
                {
                    **shared,
                    "domain": target if name == "mnist_m" else name,
                    "role": role,
                    "metric": metric,
                    "value": value,
                    "low": value - 0.03,
                    "high": value + 0.02,
                }
            )
    return found


def table(*parts: list[dict[str, Any]]) -> pd.DataFrame:
    return tidy([row for part in parts for row in part], extra=EXTRA)


def data_of(chart: Any) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            held = node.get("data")
            if isinstance(held, dict) and "values" in held and held.get("name"):
                found[held["name"]] = held["values"]
            for part in node.values():
                walk(part)
        elif isinstance(node, list):
            for part in node:
                walk(part)

    walk(chart.to_dict())
    return found


def words_of(chart: Any) -> str:
    return str(chart.to_dict()["title"])


def test_layers_stand_in_the_order_of_execution_a_dot_per_domain() -> None:
    frame = table(*(rows(group=name, ratio=ratio) for ratio in (0.2, 0.5) for name in ("stem", "body.2", "body.10")))
    chart = charts.layers(frame.sort_values("domain", kind="stable"))
    held = data_of(chart)["layers"]
    assert list(dict.fromkeys(row["layer"] for row in held)) == ["stem", "body.2", "body.10"]
    assert [row["place"] for row in held] == list(range(9)) and [row["first"] for row in held] == [
        True,
        False,
        False,
    ] * 3
    target = next(row for row in held if row["domain"] == "mnist_m")
    assert target["change"] == pytest.approx(-25.0) and target["text"] == "−25.0" and target["low"] < target["change"]
    assert data_of(chart)["span"] == [{"change": -50}, {"change": 5}]
    assert "50 % of the filters of one layer" in words_of(chart) and "before any fine-tuning" in words_of(chart)


def test_estimates_are_pale_and_say_so_and_what_is_awaited_has_no_dot() -> None:
    held = layer_rows(table(rows(group="one"), rows(group="two")), estimates=[("two", "uci")])
    rough = [row for row in held if row["text"].startswith("~ ")]
    assert [(row["layer"], row["domain"], row["opacity"]) for row in rough] == [("two", "uci", 0.45)]
    style = charts.domain_styles(DOMAINS)["uci"]
    row = placed([waiting("three", domain="uci", style=style)])[0]
    assert row["change"] is None and row["text"] == "…" and row["colour"] == style.colour


def test_layers_of_several_networks_or_scorers_are_refused() -> None:
    mixed = table(rows(group="one"), rows(group="one", scorer="l2"))
    with pytest.raises(DgpruneError, match=r"for one scorer at a time; the table holds l1, l2\. Choose one: frame"):
        charts.layers(mixed)
    with pytest.raises(DgpruneError, match="for one network at a time; the table holds net, other"):
        charts.layers(table(rows(group="one"), rows(group="one", network="other")))


@pytest.mark.parametrize("metric", ["accuracy_change", "relative_drop"])
def test_drops_have_a_plot_per_scorer_on_one_scale(metric: Any) -> None:
    frame = table(*(rows(ratio=k / 20, scorer=name) for name in ("l1", "dss") for k in range(11)))
    chart = charts.drop_curve(frame, metric=metric)
    data, spec = data_of(chart), chart.to_dict()
    assert len(spec["hconcat"]) == 2 and [plot["title"]["text"] for plot in spec["hconcat"]] == ["l1", "dss"]
    line = [row for row in data["curves_0"] if row["domain"] == "mnist_m"]
    sign = -1 if metric == "accuracy_change" else 1.25
    assert [row["removed"] for row in line] == [5 * k for k in range(11)]
    assert [row["value"] for row in line] == pytest.approx([sign * k / 20 * 50 for k in range(11)])
    assert line[4]["low"] == pytest.approx(line[4]["value"] - 3) and len({row["stretch"] for row in line}) == 1
    scales = {
        str(layer["encoding"]["y"]["scale"]["domain"])
        for plot in spec["hconcat"]
        for layer in plot["layer"]
        if "scale" in layer["encoding"].get("y", {})
    }
    assert scales == ({"[-50.0, 5.0]"} if metric == "accuracy_change" else {"[-5.0, 50.0]"})
    assert "250 images of each domain" in words_of(chart) and "before any fine-tuning" in words_of(chart)


def test_a_wide_stretch_was_not_measured() -> None:
    data = data_of(charts.drop_curve(table(rows(ratio=0.1), rows(ratio=0.15), rows(ratio=0.6))))
    assert len([row for row in data["gaps_0"] if row["domain"] == "uci"]) == 2
    assert [row["stretch"] for row in data["curves_0"] if row["domain"] == "uci"] == [0, 0, 1]


def test_a_domain_at_chance_has_no_relative_drop_and_is_named() -> None:
    frame = table(rows(ratio=0.1), rows(ratio=0.2))
    empty = (frame.metric == "relative_drop") & (frame.domain == "mnist_m")
    frame.loc[empty, ["value", "low", "high"]] = float("nan")
    chart = charts.drop_curve(frame, metric="relative_drop")
    assert {row["domain"] for row in data_of(chart)["curves_0"]} == {"mnist", "uci"}
    assert chart.to_dict()["hconcat"][0]["title"]["subtitle"] == [
        "mnist_m: at chance before, so it has no relative drop"
    ]
    with pytest.raises(DgpruneError, match="metric must be one of 'accuracy_change', 'relative_drop'; got 'accuracy'"):
        charts.drop_curve(frame, metric="accuracy")  # type: ignore[arg-type]


def test_whole_rows_alone_are_drawn_as_whole_and_networks_are_named() -> None:
    frame = table(rows(), rows(**dict[str, Any]({"class": 3})), rows(group="one"))
    assert len(data_of(charts.drop(frame))["drops"]) == 3 == len(data_of(charts.drop_curve(frame))["curves_0"])
    both = table(rows(), rows(network="other"))
    assert {row["label"].split(",")[0] for row in data_of(charts.drop(both))["drops"]} == {"net", "other"}
    titles = [plot["title"]["text"] for plot in charts.drop_curve(both).to_dict()["hconcat"]]
    assert titles == ["l1, net", "l1, other"]


def test_what_was_looked_at_is_marked() -> None:
    seen: dict[str, Any] = {"target_aware": True, "seen_by_scorer": "none", "group": "one"}
    held = layer_rows(table(rows(**seen)))
    assert [row["label"] for row in held] == ["mnist", "uci", "mnist_m ◇ target-aware"]
    assert [row["ring"] for row in held] == [None, None, TARGET_AWARE] and held[2]["colour"] == FIRST_TARGET
    seen.pop("group")
    title = charts.drop_curve(table(rows(**seen))).to_dict()["hconcat"][0]["title"]["text"]
    assert title == "l1 ◇ target-aware"


def flips_table(**cells: Any) -> pd.DataFrame:
    made = []
    for metric, share in (("right_to_wrong", 0.3), ("wrong_to_right", 0.04)):
        for row in rows(**cells)[::2]:
            made.append({**row, "metric": metric, "value": share, "low": share - 0.02, "high": share + 0.02})
            made.append({**row, "metric": f"{metric}_count", "value": 250 * share, "unit": "count"})
    return tidy(made, extra=EXTRA)


def test_flips_are_drawn_in_both_directions_with_their_counts() -> None:
    chart = charts.flips(flips_table())
    data = data_of(chart)
    assert [row["value"] for row in data["turned_wrong"]] == pytest.approx([30] * 3)
    assert [row["text"] for row in data["turned_right"]] == ["10 of 250"] * 3
    assert "before any fine-tuning" in words_of(chart)
    two = pd.concat([flips_table(), flips_table(scorer="dss")])
    assert [row["label"] for row in data_of(charts.flips(two))["turned_wrong"]][:2] == ["l1, mnist", "l1, uci"]


@pytest.mark.parametrize("name", ["layers", "drop_curve", "flips"])
def test_vega_draws_it_whatever_names_hold_and_without_any_row(name: str) -> None:
    import vl_convert

    made = {
        "layers": table(rows(group=HOSTILE, target=HOSTILE)),
        "flips": flips_table(target=HOSTILE, scorer=HOSTILE),
        "drop_curve": table(rows(target=HOSTILE, scorer=HOSTILE), rows(target=HOSTILE, scorer=HOSTILE, ratio=0.1)),
    }
    for frame in (made[name], tidy([], extra=EXTRA)):
        svg = vl_convert.vegalite_to_svg(getattr(charts, name)(frame).to_dict())
        assert svg.startswith("<svg") and "NaN" not in svg and "<b onload" not in svg
